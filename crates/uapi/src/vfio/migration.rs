//! Migration: a device's state, and how much of it there is.
//!
//! Source: [uapi/vfio.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// Data of [`feature_id::MIGRATION`](super::feature_id::MIGRATION).
    struct FeatureMigration ["vfio_device_feature_migration", 8] {
        0x00 out hex flags: u64,
    }

    /// Data of [`feature_id::MIG_DEVICE_STATE`](super::feature_id::MIG_DEVICE_STATE).
    struct FeatureMigState ["vfio_device_feature_mig_state", 8] {
        0x00 inout dec device_state: u32,
        0x04 out signed data_fd: i32,
    }

    /// Data of [`feature_id::MIG_DATA_SIZE`](super::feature_id::MIG_DATA_SIZE), in bytes.
    struct FeatureMigDataSize ["vfio_device_feature_mig_data_size", 8] {
        0x00 out hex stop_copy_length: u64,
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO`, on the data file: bytes left to read before the device is
    /// stopped.
    struct PrecopyInfo ["vfio_precopy_info", 24] {
        0x00 in dec argsz: u32,
        0x04 out hex flags: u32,
        0x08 out hex initial_bytes: u64,
        0x10 out hex dirty_bytes: u64,
    }
}

constants! {
    /// `flags` of [`FeatureMigration`].
    mod migration_flags: u64 {
        STOP_COPY = 1 << 0, "VFIO_MIGRATION_STOP_COPY";
        P2P = 1 << 1, "VFIO_MIGRATION_P2P";
        PRE_COPY = 1 << 2, "VFIO_MIGRATION_PRE_COPY";
    }

    /// `device_state` of [`FeatureMigState`].
    mod device_state: u32 {
        ERROR = 0, "VFIO_DEVICE_STATE_ERROR";
        STOP = 1, "VFIO_DEVICE_STATE_STOP";
        RUNNING = 2, "VFIO_DEVICE_STATE_RUNNING";
        STOP_COPY = 3, "VFIO_DEVICE_STATE_STOP_COPY";
        RESUMING = 4, "VFIO_DEVICE_STATE_RESUMING";
        RUNNING_P2P = 5, "VFIO_DEVICE_STATE_RUNNING_P2P";
        PRE_COPY = 6, "VFIO_DEVICE_STATE_PRE_COPY";
        PRE_COPY_P2P = 7, "VFIO_DEVICE_STATE_PRE_COPY_P2P";
    }
}
