//! What a device's IOMMU can do.
//!
//! Source: [uapi/iommufd.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `IOMMU_GET_HW_INFO`: describes the IOMMU of a device. Field `out_data_type` shares its bytes
    /// with the input `in_data_type`, read if [`hw_info_flags::INPUT_TYPE`] is set.
    struct HwInfo ["iommu_hw_info", 40] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec dev_id: u32,
        0x0c inout dec data_len: u32,
        0x10 in hex data_uptr: u64,
        0x18 inout hex out_data_type / "in_data_type": u32,
        0x1c out dec out_max_pasid_log2: u8,
        0x1d in hex reserved("__reserved"): [u8; 3],
        0x20 out hex out_capabilities: u64,
    }

    /// IOMMU description: Intel VT-d.
    struct HwInfoVtd ["iommu_hw_info_vtd", 24] {
        0x00 out hex flags: u32,
        0x04 out hex reserved("__reserved"): u32,
        0x08 out hex cap_reg: u64,
        0x10 out hex ecap_reg: u64,
    }

    /// IOMMU description: Arm SMMUv3.
    struct HwInfoArmSmmuv3 ["iommu_hw_info_arm_smmuv3", 40] {
        0x00 out hex flags: u32,
        0x04 out hex reserved("__reserved"): u32,
        0x08 out hex idr: [u32; 6],
        0x20 out hex iidr: u32,
        0x24 out hex aidr: u32,
    }

    /// IOMMU description: NVIDIA Tegra241 CMDQV.
    struct HwInfoTegra241Cmdqv ["iommu_hw_info_tegra241_cmdqv", 8] {
        0x00 out hex flags: u32,
        0x04 out dec version: u8,
        0x05 out dec log2vcmdqs: u8,
        0x06 out dec log2vsids: u8,
        0x07 out hex reserved("__reserved"): u8,
    }

    /// IOMMU description: AMD.
    struct HwInfoAmd ["iommu_hw_info_amd", 16] {
        0x00 out hex efr: u64,
        0x08 out hex efr2: u64,
    }
}

constants! {
    /// `flags` of [`HwInfo`].
    mod hw_info_flags: u32 {
        /// The caller asks for the type that it wrote.
        INPUT_TYPE = 1 << 0, "IOMMU_HW_INFO_FLAG_INPUT_TYPE";
    }

    /// `out_data_type` of [`HwInfo`].
    mod hw_info_type: u32 {
        NONE = 0, "IOMMU_HW_INFO_TYPE_NONE";
        INTEL_VTD = 1, "IOMMU_HW_INFO_TYPE_INTEL_VTD";
        ARM_SMMUV3 = 2, "IOMMU_HW_INFO_TYPE_ARM_SMMUV3";
        TEGRA241_CMDQV = 3, "IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV";
        AMD = 4, "IOMMU_HW_INFO_TYPE_AMD";
    }

    /// `flags` of [`HwInfoVtd`].
    mod hw_info_vtd_flags: u32 {
        /// Nothing is mapped read-only in what page tables are nested in.
        ERRATA_772415_SPR17 = 1 << 0, "IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17";
    }

    /// `out_capabilities` of [`HwInfo`].
    mod hw_capabilities: u64 {
        DIRTY_TRACKING = 1 << 0, "IOMMU_HW_CAP_DIRTY_TRACKING";
        PCI_PASID_EXEC = 1 << 1, "IOMMU_HW_CAP_PCI_PASID_EXEC";
        PCI_PASID_PRIV = 1 << 2, "IOMMU_HW_CAP_PCI_PASID_PRIV";
        PCI_ATS_NOT_SUPPORTED = 1 << 3, "IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED";
    }
}
