//! A device file joined to an iommufd, and what the device is.
//!
//! Source: [uapi/vfio.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `VFIO_DEVICE_BIND_IOMMUFD`: joins the device to the context behind the file `iommufd`.
    struct BindIommufd ["vfio_device_bind_iommufd", 24] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in signed iommufd: i32,
        0x0c out dec out_devid: u32,
        0x10 in hex token_uuid_ptr: u64,
    }

    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: lets the device's DMA through page table `pt_id`. Comes
    /// back with the page table used, where an IOAS was given.
    struct AttachIommufdPt ["vfio_device_attach_iommufd_pt", 16] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 inout dec pt_id: u32,
        0x0c in dec pasid: u32,
    }

    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT`: ends the device's DMA.
    struct DetachIommufdPt ["vfio_device_detach_iommufd_pt", 12] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in dec pasid: u32,
    }

    /// `VFIO_DEVICE_GET_INFO`: says what the device is. Capabilities follow at `cap_offset`.
    struct DeviceInfo ["vfio_device_info", 24] {
        0x00 inout dec argsz: u32,
        0x04 out hex flags: u32,
        0x08 out dec num_regions: u32,
        0x0c out dec num_irqs: u32,
        0x10 out hex cap_offset: u32,
        0x14 out hex pad: u32,
    }

    /// What starts every capability. `next` is the next one's offset from the start of the info
    /// struct, 0 at the end.
    struct InfoCapHeader ["vfio_info_cap_header", 8] {
        0x00 out dec id: u16,
        0x02 out dec version: u16,
        0x04 out hex next: u32,
    }

    /// Capability of [`DeviceInfo`]: which atomic operations complete at the root port.
    struct DeviceInfoCapPciAtomicComp ["vfio_device_info_cap_pci_atomic_comp", 16] {
        0x00 out dec id("header.id"): u16,
        0x02 out dec version("header.version"): u16,
        0x04 out hex next("header.next"): u32,
        0x08 out hex flags: u32,
        0x0c out hex reserved: u32,
    }

    /// `VFIO_DEVICE_TSM_BIND` of 2025-05: binds the TDI of the device to a vdevice.
    /// [tsm-rfc-2025-05]
    struct TsmBind ["vfio_pci_tsm_bind", 16] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in dec vdevice_id: u32,
        0x0c in hex pad: u32,
    }

    /// `VFIO_DEVICE_TSM_UNBIND` of 2025-05: undoes [`TsmBind`]. [tsm-rfc-2025-05]
    struct TsmUnbind ["vfio_pci_tsm_unbind", 8] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
    }
}

constants! {
    /// `flags` of [`BindIommufd`].
    mod bind_flags: u32 {
        /// `token_uuid_ptr` points to the 16 bytes of a VF token.
        TOKEN = 1 << 0, "VFIO_DEVICE_BIND_FLAG_TOKEN";
    }

    /// `flags` of [`AttachIommufdPt`].
    mod attach_flags: u32 {
        /// Only for DMA with this PASID.
        PASID = 1 << 0, "VFIO_DEVICE_ATTACH_PASID";
    }

    /// `flags` of [`DetachIommufdPt`].
    mod detach_flags: u32 {
        /// Only for DMA with this PASID.
        PASID = 1 << 0, "VFIO_DEVICE_DETACH_PASID";
    }

    /// `flags` of [`DeviceInfo`].
    mod device_flags: u32 {
        /// The function can be reset.
        RESET = 1 << 0, "VFIO_DEVICE_FLAGS_RESET";
        PCI = 1 << 1, "VFIO_DEVICE_FLAGS_PCI";
        PLATFORM = 1 << 2, "VFIO_DEVICE_FLAGS_PLATFORM";
        AMBA = 1 << 3, "VFIO_DEVICE_FLAGS_AMBA";
        CCW = 1 << 4, "VFIO_DEVICE_FLAGS_CCW";
        AP = 1 << 5, "VFIO_DEVICE_FLAGS_AP";
        FSL_MC = 1 << 6, "VFIO_DEVICE_FLAGS_FSL_MC";
        /// Capabilities exist.
        CAPS = 1 << 7, "VFIO_DEVICE_FLAGS_CAPS";
        CDX = 1 << 8, "VFIO_DEVICE_FLAGS_CDX";
    }

    /// `id` of a capability of [`DeviceInfo`].
    mod device_capability: u16 {
        PCI_ATOMIC_COMP = 5, "VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP";
    }

    /// `flags` of [`DeviceInfoCapPciAtomicComp`]: widths in bits.
    mod atomic_flags: u32 {
        COMP32 = 1 << 0, "VFIO_PCI_ATOMIC_COMP32";
        COMP64 = 1 << 1, "VFIO_PCI_ATOMIC_COMP64";
        COMP128 = 1 << 2, "VFIO_PCI_ATOMIC_COMP128";
    }
}
