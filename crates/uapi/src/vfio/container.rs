//! Containers and type1: IO address spaces before iommufd, which an iommufd context also serves.
//!
//! Source: [uapi/vfio.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// Where a bitmap is to be written: one bit per `pgsize` bytes, at most `size` bytes at `data`.
    struct Bitmap ["vfio_bitmap", 24] {
        0x00 in hex pgsize: u64,
        0x08 in hex size: u64,
        0x10 in hex data: u64,
    }

    /// A run of IO virtual addresses; `end` is its last byte, whatever the name says.
    struct IovaRange ["vfio_iova_range", 16] {
        0x00 out hex start: u64,
        0x08 out hex end: u64,
    }

    /// `VFIO_IOMMU_GET_INFO`: says what can be mapped. Capabilities follow at `cap_offset`.
    struct IommuType1Info ["vfio_iommu_type1_info", 24] {
        0x00 inout dec argsz: u32,
        0x04 out hex flags: u32,
        0x08 out hex iova_pgsizes: u64,
        0x10 out hex cap_offset: u32,
        0x14 out hex pad: u32,
    }

    /// Capability of [`IommuType1Info`]: what addresses can be mapped. `nr_iovas` of
    /// [`IovaRange`] follow.
    struct IommuType1InfoCapIovaRange ["vfio_iommu_type1_info_cap_iova_range", 16] {
        0x00 out dec id("header.id"): u16,
        0x02 out dec version("header.version"): u16,
        0x04 out hex next("header.next"): u32,
        0x08 out dec nr_iovas: u32,
        0x0c out hex reserved: u32,
    } then "struct vfio_iova_range" "iova_ranges"

    /// Capability of [`IommuType1Info`]: written pages can be logged.
    struct IommuType1InfoCapMigration ["vfio_iommu_type1_info_cap_migration", 32] {
        0x00 out dec id("header.id"): u16,
        0x02 out dec version("header.version"): u16,
        0x04 out hex next("header.next"): u32,
        0x08 out hex flags: u32,
        0x0c out hex pad("__pad"): u32,
        0x10 out hex pgsize_bitmap: u64,
        0x18 out hex max_dirty_bitmap_size: u64,
    }

    /// Capability of [`IommuType1Info`]: how many more mappings can be made.
    struct IommuType1InfoDmaAvail ["vfio_iommu_type1_info_dma_avail", 12] {
        0x00 out dec id("header.id"): u16,
        0x02 out dec version("header.version"): u16,
        0x04 out hex next("header.next"): u32,
        0x08 out dec avail: u32,
    }

    /// `VFIO_IOMMU_MAP_DMA`: maps the caller's memory.
    struct IommuType1DmaMap ["vfio_iommu_type1_dma_map", 32] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in hex vaddr: u64,
        0x10 in hex iova: u64,
        0x18 in hex size: u64,
    }

    /// `VFIO_IOMMU_UNMAP_DMA`: unmaps. `size` comes back as the bytes unmapped.
    struct IommuType1DmaUnmap ["vfio_iommu_type1_dma_unmap", 24] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in hex iova: u64,
        0x10 inout hex size: u64,
    } then "__u8" "data"

    /// `VFIO_IOMMU_DIRTY_PAGES`: starts, stops or reads ([`IommuType1DirtyBitmapGet`] follows) the
    /// log of written pages.
    struct IommuType1DirtyBitmap ["vfio_iommu_type1_dirty_bitmap", 8] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
    } then "__u8" "data"

    /// What part of the log to read.
    struct IommuType1DirtyBitmapGet ["vfio_iommu_type1_dirty_bitmap_get", 40] {
        0x00 in hex iova: u64,
        0x08 in hex size: u64,
        0x10 in hex bitmap_pgsize("bitmap.pgsize"): u64,
        0x18 in hex bitmap_size("bitmap.size"): u64,
        0x20 in hex bitmap_data("bitmap.data"): u64,
    }
}

constants! {
    /// Argument of `VFIO_CHECK_EXTENSION` and `VFIO_SET_IOMMU`.
    mod extension: u64 {
        TYPE1_IOMMU = 1, "VFIO_TYPE1_IOMMU";
        TYPE1V2_IOMMU = 3, "VFIO_TYPE1v2_IOMMU";
        DMA_CC_IOMMU = 4, "VFIO_DMA_CC_IOMMU";
        /// Its name up to Linux 6.12 was `VFIO_TYPE1_NESTING_IOMMU`.
        TYPE1_NESTING_IOMMU = 6, "__VFIO_RESERVED_TYPE1_NESTING_IOMMU";
        NOIOMMU_IOMMU = 8, "VFIO_NOIOMMU_IOMMU";
        UNMAP_ALL = 9, "VFIO_UNMAP_ALL";
        UPDATE_VADDR = 10, "VFIO_UPDATE_VADDR";
    }

    /// What `VFIO_GET_API_VERSION` answers.
    mod api: u32 {
        VERSION = 0, "VFIO_API_VERSION";
    }

    /// `flags` of [`IommuType1Info`].
    mod type1_info_flags: u32 {
        PGSIZES = 1 << 0, "VFIO_IOMMU_INFO_PGSIZES";
        /// Capabilities exist.
        CAPS = 1 << 1, "VFIO_IOMMU_INFO_CAPS";
    }

    /// `id` of a capability of [`IommuType1Info`].
    mod type1_capability: u16 {
        IOVA_RANGE = 1, "VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE";
        MIGRATION = 2, "VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION";
        DMA_AVAIL = 3, "VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL";
    }

    /// `flags` of [`IommuType1DmaMap`].
    mod dma_map_flags: u32 {
        READ = 1 << 0, "VFIO_DMA_MAP_FLAG_READ";
        WRITE = 1 << 1, "VFIO_DMA_MAP_FLAG_WRITE";
        VADDR = 1 << 2, "VFIO_DMA_MAP_FLAG_VADDR";
    }

    /// `flags` of [`IommuType1DmaUnmap`].
    mod dma_unmap_flags: u32 {
        GET_DIRTY_BITMAP = 1 << 0, "VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP";
        ALL = 1 << 1, "VFIO_DMA_UNMAP_FLAG_ALL";
        VADDR = 1 << 2, "VFIO_DMA_UNMAP_FLAG_VADDR";
    }

    /// `flags` of [`IommuType1DirtyBitmap`].
    mod dirty_pages_flags: u32 {
        START = 1 << 0, "VFIO_IOMMU_DIRTY_PAGES_FLAG_START";
        STOP = 1 << 1, "VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP";
        GET_BITMAP = 1 << 2, "VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP";
    }
}
