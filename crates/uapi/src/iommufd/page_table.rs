//! Hardware page tables (HWPT): made, marked dirty, invalidated.
//!
//! Source: [uapi/iommufd.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `IOMMU_HWPT_ALLOC`: makes a page table for a device, over an IOAS, another page table or a
    /// vIOMMU (`pt_id`). `data_uptr` points to `data_len` bytes whose form `data_type` says.
    struct HwptAlloc ["iommu_hwpt_alloc", 48] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec dev_id: u32,
        0x0c in dec pt_id: u32,
        0x10 out dec out_hwpt_id: u32,
        0x14 in hex reserved("__reserved"): u32,
        0x18 in hex data_type: u32,
        0x1c in dec data_len: u32,
        0x20 in hex data_uptr: u64,
        0x28 in dec fault_id: u32,
        0x2c in hex reserved2("__reserved2"): u32,
    }

    /// `IOMMU_HWPT_SET_DIRTY_TRACKING`: starts or stops the log of written pages.
    struct HwptSetDirtyTracking ["iommu_hwpt_set_dirty_tracking", 16] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec hwpt_id: u32,
        0x0c in hex reserved("__reserved"): u32,
    }

    /// `IOMMU_HWPT_GET_DIRTY_BITMAP`: reads the log; one bit at `data` per `page_size` bytes from
    /// `iova`.
    struct HwptGetDirtyBitmap ["iommu_hwpt_get_dirty_bitmap", 48] {
        0x00 in dec size: u32,
        0x04 in dec hwpt_id: u32,
        0x08 in hex flags: u32,
        0x0c in hex reserved("__reserved"): u32,
        0x10 in hex iova: u64,
        0x18 in hex length: u64,
        0x20 in hex page_size: u64,
        0x28 in hex data: u64,
    }

    /// `IOMMU_HWPT_INVALIDATE`: drops cached translations of a nested page table or a vIOMMU.
    /// `entry_num` comes back as the number of entries done, on errors too.
    struct HwptInvalidate ["iommu_hwpt_invalidate", 32] {
        0x00 in dec size: u32,
        0x04 in dec hwpt_id: u32,
        0x08 in hex data_uptr: u64,
        0x10 in hex data_type: u32,
        0x14 in dec entry_len: u32,
        0x18 inout dec entry_num: u32,
        0x1c in hex reserved("__reserved"): u32,
    }

    /// Nested page table data: an Intel VT-d stage 1.
    struct HwptVtdS1 ["iommu_hwpt_vtd_s1", 24] {
        0x00 in hex flags: u64,
        0x08 in hex pgtbl_addr: u64,
        0x10 in dec addr_width: u32,
        0x14 in hex reserved("__reserved"): u32,
    }

    /// Nested page table data: words of an Arm SMMUv3 stream table entry.
    struct HwptArmSmmuv3 ["iommu_hwpt_arm_smmuv3", 16] {
        0x00 in hex ste: [u64; 2],
    }

    /// Nested page table data: words of an AMD device table entry.
    struct HwptAmdGuest ["iommu_hwpt_amd_guest", 32] {
        0x00 in hex dte: [u64; 4],
    }

    /// Invalidation entry: Intel VT-d stage 1.
    struct HwptVtdS1Invalidate ["iommu_hwpt_vtd_s1_invalidate", 24] {
        0x00 in hex addr: u64,
        0x08 in dec npages: u64,
        0x10 in hex flags: u32,
        0x14 in hex reserved("__reserved"): u32,
    }

    /// Invalidation entry: an Arm SMMUv3 command, sent to a vIOMMU.
    struct ViommuArmSmmuv3Invalidate ["iommu_viommu_arm_smmuv3_invalidate", 16] {
        0x00 in hex cmd: [u64; 2],
    }
}

constants! {
    /// `flags` of [`HwptAlloc`].
    mod hwpt_flags: u32 {
        /// Nested page tables may lie on it.
        NEST_PARENT = 1 << 0, "IOMMU_HWPT_ALLOC_NEST_PARENT";
        /// Written pages can be logged.
        DIRTY_TRACKING = 1 << 1, "IOMMU_HWPT_ALLOC_DIRTY_TRACKING";
        /// `fault_id` names a fault queue.
        FAULT_ID_VALID = 1 << 2, "IOMMU_HWPT_FAULT_ID_VALID";
        /// It can be attached to a PASID.
        PASID = 1 << 3, "IOMMU_HWPT_ALLOC_PASID";
    }

    /// `data_type` of [`HwptAlloc`].
    mod hwpt_data: u32 {
        NONE = 0, "IOMMU_HWPT_DATA_NONE";
        VTD_S1 = 1, "IOMMU_HWPT_DATA_VTD_S1";
        ARM_SMMUV3 = 2, "IOMMU_HWPT_DATA_ARM_SMMUV3";
        AMD_GUEST = 3, "IOMMU_HWPT_DATA_AMD_GUEST";
    }

    /// `flags` of [`HwptVtdS1`].
    mod vtd_s1_flags: u64 {
        /// Requests of supervisors.
        SRE = 1 << 0, "IOMMU_VTD_S1_SRE";
        /// Extended accessed flags.
        EAFE = 1 << 1, "IOMMU_VTD_S1_EAFE";
        /// Supervisors too write only where the tables allow it.
        WPE = 1 << 2, "IOMMU_VTD_S1_WPE";
    }

    /// `flags` of [`HwptSetDirtyTracking`].
    mod dirty_tracking_flags: u32 {
        ENABLE = 1, "IOMMU_HWPT_DIRTY_TRACKING_ENABLE";
    }

    /// `flags` of [`HwptGetDirtyBitmap`].
    mod dirty_bitmap_flags: u32 {
        /// Leave the log as it is.
        NO_CLEAR = 1, "IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR";
    }

    /// `data_type` of [`HwptInvalidate`].
    mod invalidate_data: u32 {
        VTD_S1 = 0, "IOMMU_HWPT_INVALIDATE_DATA_VTD_S1";
        VIOMMU_ARM_SMMUV3 = 1, "IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3";
    }

    /// `flags` of [`HwptVtdS1Invalidate`].
    mod vtd_invalidate_flags: u32 {
        /// Only leaf entries changed.
        LEAF = 1 << 0, "IOMMU_VTD_INV_FLAGS_LEAF";
    }
}
