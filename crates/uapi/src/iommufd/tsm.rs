//! Commands of the TSM (TEE security manager) patch series, which no released kernel has.
//!
//! Names, numbers and fields are those of the published patches; each struct says of which. Takes
//! no lock.

use crate::abi::{abi, constants};

abi! {
    /// `IOMMU_VDEVICE_TSM_OP`: binds or unbinds a vdevice's TDI. Published in v4 and v5
    /// (2026-04, 2026-05); its number is another command's in Linux 7.3. [tsm-rfc-v5]
    struct TsmOp ["iommu_vdevice_tsm_op", 16] {
        0x00 in dec size: u32,
        0x04 in dec r#type("type"): u32,
        0x08 in hex flags: u32,
        0x0c in dec vdevice_id: u32,
    }

    /// `IOMMU_VDEVICE_TSM_REQ`: passes a guest's request to the TSM, as published after v5
    /// (2026-06); for v7 (2026-10) it is a reconstruction. `tsm_code` is written whatever the
    /// outcome. [tsm-rfc-v7]
    struct TsmReq ["iommu_vdevice_tsm_req", 48] {
        0x00 in dec size: u32,
        0x04 in dec vdevice_id: u32,
        0x08 in dec op: u32,
        0x0c in dec tvm_arch: u32,
        0x10 in dec req_len: u32,
        0x14 in dec resp_len: u32,
        0x18 in hex req_uptr: u64,
        0x20 in hex resp_uptr: u64,
        0x28 out hex tsm_code: u64,
    }

    /// `IOMMU_VDEVICE_TSM_REQ` as published in v5 (2026-05): a scope in place of operation and
    /// architecture. [tsm-rfc-v5]
    // The `_v5` is ours: v5 gave it the tag that the later layout has.
    struct TsmReqV5 ["iommu_vdevice_tsm_req_v5", 40] {
        0x00 in dec size: u32,
        0x04 in dec vdevice_id: u32,
        0x08 in dec scope: u32,
        0x0c in dec req_len: u32,
        0x10 in dec resp_len: u32,
        0x14 in hex reserved("__reserved"): u32,
        0x18 in hex req_uptr: u64,
        0x20 in hex resp_uptr: u64,
    }

    /// `IOMMU_VDEVICE_TSM_GUEST_REQUEST` of 2025-05, next to binding by a VFIO command. `resp_len`
    /// comes back as the bytes written. [tsm-rfc-2025-05]
    struct TsmGuestRequest ["iommu_vdevice_tsm_guest_request", 48] {
        0x00 in dec size: u32,
        0x04 in dec vdevice_id: u32,
        0x08 in dec r#type("type"): u32,
        0x0c in dec type_info_len: u32,
        0x10 in dec req_len: u32,
        0x14 inout dec resp_len: u32,
        0x18 in hex type_info_uptr: u64,
        0x20 in hex req_uptr: u64,
        0x28 in hex resp_uptr: u64,
    }
}

constants! {
    /// `type` of [`TsmOp`].
    mod tsm_op: u32 {
        BIND = 1, "IOMMU_VDEVICE_TSM_BIND" in TSM_OP;
        UNBIND = 2, "IOMMU_VDEVICE_TSM_UNBIND" in TSM_OP;
    }

    /// `tvm_arch` of [`TsmReq`]: whose confidential guest asks.
    mod tvm_arch: u32 {
        CCA = 1, "IOMMU_VDEVICE_TSM_TVM_ARCH_CCA" in TSM_REQ;
        SEV = 2, "IOMMU_VDEVICE_TSM_TVM_ARCH_SEV" in TSM_REQ;
        TDX = 3, "IOMMU_VDEVICE_TSM_TVM_ARCH_TDX" in TSM_REQ;
    }

    /// `op` of [`TsmReq`], numbered as in the series' integration tree; a mail of 2026-06 numbers
    /// the same operations in another order.
    mod tsm_request: u32 {
        VALIDATE_MMIO = 1, "TSM_REQ_VALIDATE_MMIO" in TSM_REQ;
        SET_TDI_STATE = 2, "TSM_REQ_SET_TDI_STATE" in TSM_REQ;
        SEV_ENABLE_DMA = 3, "TSM_REQ_SEV_ENABLE_DMA" in TSM_REQ;
        SEV_DISABLE_DMA = 4, "TSM_REQ_SEV_DISABLE_DMA" in TSM_REQ;
        READ_OBJECT = 5, "TSM_REQ_READ_OBJECT" in TSM_REQ;
        REGEN_OBJECT = 6, "TSM_REQ_REGEN_OBJECT" in TSM_REQ;
        OBJECT_INFO = 7, "TSM_REQ_OBJECT_INFO" in TSM_REQ;
    }

    /// `scope` of [`TsmReqV5`].
    mod tsm_scope: u32 {
        INFO = 0, "IOMMU_VDEVICE_TSM_REQ_PCI_INFO" in TSM_REQ_V5;
        STATE_CHANGE = 1, "IOMMU_VDEVICE_TSM_REQ_PCI_STATE_CHANGE" in TSM_REQ_V5;
        DEBUG_READ = 2, "IOMMU_VDEVICE_TSM_REQ_PCI_DEBUG_READ" in TSM_REQ_V5;
        DEBUG_WRITE = 3, "IOMMU_VDEVICE_TSM_REQ_PCI_DEBUG_WRITE" in TSM_REQ_V5;
    }
}
