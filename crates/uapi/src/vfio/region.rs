//! Regions: the parts of a device that a file offset reaches.
//!
//! Source: [uapi/vfio.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// An area that can be mapped; the offset counts from the start of its region.
    struct RegionSparseMmapArea ["vfio_region_sparse_mmap_area", 16] {
        0x00 out hex offset: u64,
        0x08 out hex size: u64,
    }

    /// `VFIO_DEVICE_GET_REGION_INFO`: says what region `index` is. Capabilities follow at
    /// `cap_offset`.
    struct RegionInfo ["vfio_region_info", 32] {
        0x00 inout dec argsz: u32,
        0x04 out hex flags: u32,
        0x08 in dec index: u32,
        0x0c out hex cap_offset: u32,
        0x10 out hex size: u64,
        0x18 out hex offset: u64,
    }

    /// Capability of [`RegionInfo`]: only these areas can be mapped. `nr_areas` of
    /// [`RegionSparseMmapArea`] follow.
    struct RegionInfoCapSparseMmap ["vfio_region_info_cap_sparse_mmap", 16] {
        0x00 out dec id("header.id"): u16,
        0x02 out dec version("header.version"): u16,
        0x04 out hex next("header.next"): u32,
        0x08 out dec nr_areas: u32,
        0x0c out hex reserved: u32,
    } then "struct vfio_region_sparse_mmap_area" "areas"

    /// Capability of [`RegionInfo`]: what a region past the standard ones is.
    struct RegionInfoCapType ["vfio_region_info_cap_type", 16] {
        0x00 out dec id("header.id"): u16,
        0x02 out dec version("header.version"): u16,
        0x04 out hex next("header.next"): u32,
        0x08 out hex r#type("type"): u32,
        0x0c out hex subtype: u32,
    }
}

constants! {
    /// `flags` of [`RegionInfo`].
    mod region_flags: u32 {
        READ = 1 << 0, "VFIO_REGION_INFO_FLAG_READ";
        WRITE = 1 << 1, "VFIO_REGION_INFO_FLAG_WRITE";
        MMAP = 1 << 2, "VFIO_REGION_INFO_FLAG_MMAP";
        /// Capabilities exist.
        CAPS = 1 << 3, "VFIO_REGION_INFO_FLAG_CAPS";
    }

    /// `id` of a capability of [`RegionInfo`].
    mod region_capability: u16 {
        SPARSE_MMAP = 1, "VFIO_REGION_INFO_CAP_SPARSE_MMAP";
        TYPE = 2, "VFIO_REGION_INFO_CAP_TYPE";
        /// The MSI-X table may be mapped; a bare
        /// [`InfoCapHeader`](super::super::InfoCapHeader).
        MSIX_MAPPABLE = 3, "VFIO_REGION_INFO_CAP_MSIX_MAPPABLE";
    }

    /// `index` of [`RegionInfo`] for PCI devices. BAR n is region n.
    mod region_index: u32 {
        BAR0 = 0, "VFIO_PCI_BAR0_REGION_INDEX";
        BAR5 = 5, "VFIO_PCI_BAR5_REGION_INDEX";
        ROM = 6, "VFIO_PCI_ROM_REGION_INDEX";
        CONFIG = 7, "VFIO_PCI_CONFIG_REGION_INDEX";
        VGA = 8, "VFIO_PCI_VGA_REGION_INDEX";
        /// How many are standard.
        COUNT = 9, "VFIO_PCI_NUM_REGIONS";
    }
}
