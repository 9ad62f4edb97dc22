//! The part of KVM that VFIO's users call: telling a VM which device files are its own.
//!
//! Source: [uapi/kvm.h]. Takes no lock. Deliberately absent: all else of KVM.

use crate::abi::{abi, constants};

abi! {
    /// `KVM_SET_DEVICE_ATTR`: sets an attribute of a KVM device. For the ones named here, `addr`
    /// points to an `i32` file descriptor.
    struct DeviceAttr ["kvm_device_attr", 24] {
        0x00 in hex flags: u32,
        0x04 in dec group: u32,
        0x08 in dec attr: u64,
        0x10 in hex addr: u64,
    }
}

constants! {
    /// The command, as `ioctl` takes it.
    mod request: u32 {
        SET_DEVICE_ATTR = 0x4018_aee1, "KVM_SET_DEVICE_ATTR";
    }

    /// `group` of [`DeviceAttr`].
    mod attribute_group: u32 {
        /// Device files and group files of VFIO.
        FILE = 1, "KVM_DEV_VFIO_FILE";
    }

    /// `attr` of [`DeviceAttr`] in [`attribute_group::FILE`].
    mod file_attribute: u64 {
        ADD = 1, "KVM_DEV_VFIO_FILE_ADD";
        DEL = 2, "KVM_DEV_VFIO_FILE_DEL";
    }
}
