//! Objects as such, and IO address spaces (IOAS): what is mapped where.
//!
//! Source: [uapi/iommufd.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `IOMMU_DESTROY`: ends an object.
    struct Destroy ["iommu_destroy", 8] {
        0x00 in dec size: u32,
        0x04 in dec id: u32,
    }

    /// `IOMMU_IOAS_ALLOC`: makes an empty address space.
    struct IoasAlloc ["iommu_ioas_alloc", 12] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 out dec out_ioas_id: u32,
    }

    /// A run of IO virtual addresses, both ends included.
    struct IovaRange ["iommu_iova_range", 16] {
        0x00 inout hex start: u64,
        0x08 inout hex last: u64,
    }

    /// `IOMMU_IOAS_IOVA_RANGES`: asks which addresses can be mapped. `allowed_iovas` points to an
    /// array of [`IovaRange`] with room for `num_iovas`.
    struct IoasIovaRanges ["iommu_ioas_iova_ranges", 32] {
        0x00 in dec size: u32,
        0x04 in dec ioas_id: u32,
        0x08 inout dec num_iovas: u32,
        0x0c in hex reserved("__reserved"): u32,
        0x10 in hex allowed_iovas: u64,
        0x18 out hex out_iova_alignment: u64,
    }

    /// `IOMMU_IOAS_ALLOW_IOVAS`: keeps the kernel from choosing addresses outside the given ranges.
    struct IoasAllowIovas ["iommu_ioas_allow_iovas", 24] {
        0x00 in dec size: u32,
        0x04 in dec ioas_id: u32,
        0x08 in dec num_iovas: u32,
        0x0c in hex reserved("__reserved"): u32,
        0x10 in hex allowed_iovas: u64,
    }

    /// `IOMMU_IOAS_MAP`: maps the caller's memory.
    struct IoasMap ["iommu_ioas_map", 40] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec ioas_id: u32,
        0x0c in hex reserved("__reserved"): u32,
        0x10 in hex user_va: u64,
        0x18 in hex length: u64,
        0x20 inout hex iova: u64,
    }

    /// `IOMMU_IOAS_MAP_FILE`: maps a file of the caller's, from byte `start` on.
    struct IoasMapFile ["iommu_ioas_map_file", 40] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec ioas_id: u32,
        0x0c in signed fd: i32,
        0x10 in hex start: u64,
        0x18 in hex length: u64,
        0x20 inout hex iova: u64,
    }

    /// `IOMMU_IOAS_COPY`: maps in one address space what another maps already.
    struct IoasCopy ["iommu_ioas_copy", 40] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec dst_ioas_id: u32,
        0x0c in dec src_ioas_id: u32,
        0x10 in hex length: u64,
        0x18 inout hex dst_iova: u64,
        0x20 in hex src_iova: u64,
    }

    /// `IOMMU_IOAS_UNMAP`: unmaps whole areas. All of them if `iova` is 0 and `length` all ones.
    struct IoasUnmap ["iommu_ioas_unmap", 24] {
        0x00 in dec size: u32,
        0x04 in dec ioas_id: u32,
        0x08 in hex iova: u64,
        0x10 inout hex length: u64,
    }

    /// `IOMMU_OPTION`: gets or sets a setting of a context or an object.
    struct IommuOption ["iommu_option", 24] {
        0x00 in dec size: u32,
        0x04 in dec option_id: u32,
        0x08 in dec op: u16,
        0x0a in hex reserved("__reserved"): u16,
        0x0c in dec object_id: u32,
        0x10 inout dec val64: u64,
    }

    /// `IOMMU_VFIO_IOAS`: gets, sets or clears the address space that type1 commands work on.
    struct VfioIoas ["iommu_vfio_ioas", 12] {
        0x00 in dec size: u32,
        0x04 inout dec ioas_id: u32,
        0x08 in dec op: u16,
        0x0a in hex reserved("__reserved"): u16,
    }

    /// `IOMMU_IOAS_CHANGE_PROCESS`: charges and reads all mappings through the calling process.
    struct IoasChangeProcess ["iommu_ioas_change_process", 8] {
        0x00 in dec size: u32,
        0x04 in hex reserved("__reserved"): u32,
    }

    /// `IOMMU_IOAS_NOIOMMU_GET_PA`: asks for the physical address behind a mapping.
    struct IoasNoiommuGetPa ["iommu_ioas_noiommu_get_pa", 40] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec ioas_id: u32,
        0x0c in hex reserved("__reserved"): u32,
        0x10 in hex iova: u64,
        0x18 inout hex length: u64,
        0x20 out hex out_phys: u64,
    }
}

constants! {
    /// `flags` of [`IoasMap`], [`IoasMapFile`] and [`IoasCopy`].
    mod map_flags: u32 {
        /// The caller chose `iova`.
        FIXED_IOVA = 1 << 0, "IOMMU_IOAS_MAP_FIXED_IOVA";
        /// Devices may write.
        WRITEABLE = 1 << 1, "IOMMU_IOAS_MAP_WRITEABLE";
        /// Devices may read.
        READABLE = 1 << 2, "IOMMU_IOAS_MAP_READABLE";
    }

    /// `option_id` of [`IommuOption`].
    mod option: u32 {
        /// Whether pinned pages are charged to the user (0) or the process (1).
        RLIMIT_MODE = 0, "IOMMU_OPTION_RLIMIT_MODE";
        /// Whether large pages may be used.
        HUGE_PAGES = 1, "IOMMU_OPTION_HUGE_PAGES";
    }

    /// `op` of [`IommuOption`].
    mod option_op: u16 {
        SET = 0, "IOMMU_OPTION_OP_SET";
        GET = 1, "IOMMU_OPTION_OP_GET";
    }

    /// `op` of [`VfioIoas`].
    mod vfio_ioas_op: u16 {
        GET = 0, "IOMMU_VFIO_IOAS_GET";
        SET = 1, "IOMMU_VFIO_IOAS_SET";
        CLEAR = 2, "IOMMU_VFIO_IOAS_CLEAR";
    }
}
