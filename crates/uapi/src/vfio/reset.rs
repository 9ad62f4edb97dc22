//! Hot reset: a reset that takes other functions along.
//!
//! Source: [uapi/vfio.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// A function that a hot reset takes along. `devid` shares its bytes with `group_id`, its
    /// meaning where [`hot_reset_flags::DEV_ID`] is clear.
    struct DependentDevice ["vfio_pci_dependent_device", 8] {
        0x00 out dec devid / "group_id": u32,
        0x04 out hex segment: u16,
        0x06 out hex bus: u8,
        0x07 out hex devfn: u8,
    }

    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: lists who would be reset along. `count` of
    /// [`DependentDevice`] follow.
    struct HotResetInfo ["vfio_pci_hot_reset_info", 12] {
        0x00 in dec argsz: u32,
        0x04 out hex flags: u32,
        0x08 out dec count: u32,
    } then "struct vfio_pci_dependent_device" "devices"

    /// `VFIO_DEVICE_PCI_HOT_RESET`: resets. `count` group file descriptors (`i32`) follow, none on
    /// a device file that is bound to an iommufd.
    struct HotReset ["vfio_pci_hot_reset", 12] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
        0x08 in dec count: u32,
    } then "__s32" "group_fds"
}

constants! {
    /// `flags` of [`HotResetInfo`].
    mod hot_reset_flags: u32 {
        /// Devices are named by their id in the caller's iommufd context, not by group.
        DEV_ID = 1 << 0, "VFIO_PCI_HOT_RESET_FLAG_DEV_ID";
        /// The caller owns all of them.
        DEV_ID_OWNED = 1 << 1, "VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED";
    }

    /// `devid` of [`DependentDevice`] where it is no id.
    mod dependent_device: u32 {
        /// Not bound, but of a group that the caller owns.
        OWNED = 0, "VFIO_PCI_DEVID_OWNED";
        /// Not the caller's.
        NOT_OWNED = u32::MAX, "VFIO_PCI_DEVID_NOT_OWNED";
    }
}
