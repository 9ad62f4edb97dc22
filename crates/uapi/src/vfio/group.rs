//! Group files: the way to a device before there were device files.
//!
//! Source: [uapi/vfio.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `VFIO_GROUP_GET_STATUS`: says whether devices of the group can be had.
    struct GroupStatus ["vfio_group_status", 8] {
        0x00 in dec argsz: u32,
        0x04 out hex flags: u32,
    }
}

constants! {
    /// `flags` of [`GroupStatus`].
    mod group_flags: u32 {
        /// All its devices are with VFIO or with no driver.
        VIABLE = 1 << 0, "VFIO_GROUP_FLAGS_VIABLE";
        CONTAINER_SET = 1 << 1, "VFIO_GROUP_FLAGS_CONTAINER_SET";
    }
}
