//! A guest's view of an IOMMU: vIOMMUs, the devices behind them, hardware queues lent to a guest.
//!
//! Source: [uapi/iommufd.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `IOMMU_VIOMMU_ALLOC`: makes a vIOMMU over a nest-parent page table.
    struct ViommuAlloc ["iommu_viommu_alloc", 40] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in hex r#type("type"): u32,
        0x0c in dec dev_id: u32,
        0x10 in dec hwpt_id: u32,
        0x14 out dec out_viommu_id: u32,
        0x18 in dec data_len: u32,
        0x1c in hex reserved("__reserved"): u32,
        0x20 in hex data_uptr: u64,
    }

    /// `IOMMU_VDEVICE_ALLOC`: puts a device behind a vIOMMU as the guest's `virt_id`.
    struct VdeviceAlloc ["iommu_vdevice_alloc", 24] {
        0x00 in dec size: u32,
        0x04 in dec viommu_id: u32,
        0x08 in dec dev_id: u32,
        0x0c out dec out_vdevice_id: u32,
        0x10 in hex virt_id: u64,
    }

    /// `IOMMU_HW_QUEUE_ALLOC`: lends a hardware queue to a vIOMMU, with its ring in guest memory.
    struct HwQueueAlloc ["iommu_hw_queue_alloc", 40] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec viommu_id: u32,
        0x0c in hex r#type("type"): u32,
        0x10 in dec index: u32,
        0x14 out dec out_hw_queue_id: u32,
        0x18 in hex nesting_parent_iova: u64,
        0x20 in hex length: u64,
    }

    /// vIOMMU data: where a Tegra241 virtual interface can be mapped from the context's file.
    struct ViommuTegra241Cmdqv ["iommu_viommu_tegra241_cmdqv", 16] {
        0x00 out hex out_vintf_mmap_offset: u64,
        0x08 out hex out_vintf_mmap_length: u64,
    }
}

constants! {
    /// `type` of [`ViommuAlloc`].
    mod viommu_type: u32 {
        DEFAULT = 0, "IOMMU_VIOMMU_TYPE_DEFAULT";
        ARM_SMMUV3 = 1, "IOMMU_VIOMMU_TYPE_ARM_SMMUV3";
        TEGRA241_CMDQV = 2, "IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV";
        /// Of a confidential guest. Not in Linux 7.3: from the TSM patch series, see
        /// [`TsmReq`](super::super::TsmReq).
        ARM_REALM_SMMUV3 = 3, "IOMMU_VIOMMU_TYPE_ARM_REALM_SMMUV3" in REALM;
    }

    /// `type` of [`HwQueueAlloc`].
    mod hw_queue_type: u32 {
        DEFAULT = 0, "IOMMU_HW_QUEUE_TYPE_DEFAULT" in NOT_2025;
        TEGRA241_CMDQV = 1, "IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV" in NOT_2025;
    }
}
