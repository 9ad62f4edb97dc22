//! `VFIO_DEVICE_FEATURE`: one command for whatever only some devices can do.
//!
//! Source: [uapi/vfio.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `VFIO_DEVICE_FEATURE`: gets, sets or probes the feature named in `flags`. Its data follows.
    struct Feature ["vfio_device_feature", 8] {
        0x00 in dec argsz: u32,
        0x04 in hex flags: u32,
    } then "__u8" "data"

    /// Data of [`feature_id::LOW_POWER_ENTRY_WITH_WAKEUP`].
    struct LowPowerEntryWithWakeup ["vfio_device_low_power_entry_with_wakeup", 8] {
        0x00 in signed wakeup_eventfd: i32,
        0x04 in hex reserved: u32,
    }

    /// Data of [`feature_id::DMA_LOGGING_START`]. `ranges` points to [`FeatureDmaLoggingRange`]s.
    struct FeatureDmaLoggingControl ["vfio_device_feature_dma_logging_control", 24] {
        0x00 inout hex page_size: u64,
        0x08 in dec num_ranges: u32,
        0x0c in hex reserved("__reserved"): u32,
        0x10 in hex ranges: u64,
    }

    /// A range to log.
    struct FeatureDmaLoggingRange ["vfio_device_feature_dma_logging_range", 16] {
        0x00 in hex iova: u64,
        0x08 in hex length: u64,
    }

    /// Data of [`feature_id::DMA_LOGGING_REPORT`].
    struct FeatureDmaLoggingReport ["vfio_device_feature_dma_logging_report", 32] {
        0x00 in hex iova: u64,
        0x08 in hex length: u64,
        0x10 in hex page_size: u64,
        0x18 in hex bitmap: u64,
    }

    /// Data of [`feature_id::BUS_MASTER`], of devices that are not PCI.
    struct FeatureBusMaster ["vfio_device_feature_bus_master", 4] {
        0x00 in dec op: u32,
    }

    /// A part of a region, to be in a dma-buf.
    struct RegionDmaRange ["vfio_region_dma_range", 16] {
        0x00 in hex offset: u64,
        0x08 in hex length: u64,
    }

    /// Data of [`feature_id::DMA_BUF`]. `nr_ranges` of [`RegionDmaRange`] follow.
    struct FeatureDmaBuf ["vfio_device_feature_dma_buf", 16] {
        0x00 in dec region_index: u32,
        0x04 in hex open_flags: u32,
        0x08 in hex flags: u32,
        0x0c in dec nr_ranges: u32,
    } then "struct vfio_region_dma_range" "dma_ranges"
}

constants! {
    /// `flags` of [`Feature`].
    mod feature_flags: u32 {
        /// The bits that name the feature.
        MASK = 0xffff, "VFIO_DEVICE_FEATURE_MASK";
        GET = 1 << 16, "VFIO_DEVICE_FEATURE_GET";
        SET = 1 << 17, "VFIO_DEVICE_FEATURE_SET";
        /// Only ask whether it exists.
        PROBE = 1 << 18, "VFIO_DEVICE_FEATURE_PROBE";
    }

    /// The features, as named in the low bits of `flags` of [`Feature`].
    mod feature_id: u32 {
        /// Data: the 16 bytes of a UUID.
        PCI_VF_TOKEN = 0, "VFIO_DEVICE_FEATURE_PCI_VF_TOKEN";
        MIGRATION = 1, "VFIO_DEVICE_FEATURE_MIGRATION";
        MIG_DEVICE_STATE = 2, "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE";
        LOW_POWER_ENTRY = 3, "VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY";
        LOW_POWER_ENTRY_WITH_WAKEUP = 4, "VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP";
        LOW_POWER_EXIT = 5, "VFIO_DEVICE_FEATURE_LOW_POWER_EXIT";
        DMA_LOGGING_START = 6, "VFIO_DEVICE_FEATURE_DMA_LOGGING_START";
        DMA_LOGGING_STOP = 7, "VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP";
        DMA_LOGGING_REPORT = 8, "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT";
        MIG_DATA_SIZE = 9, "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE";
        BUS_MASTER = 10, "VFIO_DEVICE_FEATURE_BUS_MASTER";
        DMA_BUF = 11, "VFIO_DEVICE_FEATURE_DMA_BUF";
        MIG_PRECOPY_INFO_V2 = 12, "VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2";
        ZPCI_ERROR = 13, "VFIO_DEVICE_FEATURE_ZPCI_ERROR";
    }
}
