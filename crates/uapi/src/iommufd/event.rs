//! Queues that a caller reads: page faults and vIOMMU events, and the records in them.
//!
//! Source: [uapi/iommufd.h]. Takes no lock.

use crate::abi::{abi, constants};

abi! {
    /// `IOMMU_FAULT_QUEUE_ALLOC`: makes a queue of page faults and opens it.
    struct FaultAlloc ["iommu_fault_alloc", 16] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 out dec out_fault_id: u32,
        0x0c out dec out_fault_fd: u32,
    }

    /// A page fault, as read from the queue's file.
    struct HwptPgfault ["iommu_hwpt_pgfault", 40] {
        0x00 out hex flags: u32,
        0x04 out dec dev_id: u32,
        0x08 out dec pasid: u32,
        0x0c out dec grpid: u32,
        0x10 out hex perm: u32,
        0x14 out hex reserved("__reserved"): u32,
        0x18 out hex addr: u64,
        0x20 out hex length: u32,
        0x24 out dec cookie: u32,
    }

    /// The answer to a group of page faults, as written to the queue's file.
    struct HwptPageResponse ["iommu_hwpt_page_response", 8] {
        0x00 in dec cookie: u32,
        0x04 in dec code: u32,
    }

    /// `IOMMU_VEVENTQ_ALLOC`: makes a queue of a vIOMMU's events and opens it.
    struct VeventqAlloc ["iommu_veventq_alloc", 32] {
        0x00 in dec size: u32,
        0x04 in hex flags: u32,
        0x08 in dec viommu_id: u32,
        0x0c in hex r#type("type"): u32,
        0x10 in dec veventq_depth: u32,
        0x14 out dec out_veventq_id: u32,
        0x18 out dec out_veventq_fd: u32,
        0x1c in hex reserved("__reserved"): u32,
    }

    /// What precedes an event, as read from the queue's file.
    struct VeventHeader ["iommufd_vevent_header", 8] {
        0x00 out hex flags: u32,
        0x04 out dec sequence: u32,
    }

    /// Event: an Arm SMMUv3 event record.
    struct VeventArmSmmuv3 ["iommu_vevent_arm_smmuv3", 32] {
        0x00 out hex evt: [u64; 4],
    }

    /// Event: virtual command queues of a Tegra241 CMDQV that erred, a bit each.
    struct VeventTegra241Cmdqv ["iommu_vevent_tegra241_cmdqv", 16] {
        0x00 out hex lvcmdq_err_map: [u64; 2],
    }
}

constants! {
    /// `flags` of [`HwptPgfault`].
    mod pgfault_flags: u32 {
        PASID_VALID = 1 << 0, "IOMMU_PGFAULT_FLAGS_PASID_VALID";
        LAST_PAGE = 1 << 1, "IOMMU_PGFAULT_FLAGS_LAST_PAGE";
    }

    /// `perm` of [`HwptPgfault`]: what the device tried.
    mod pgfault_perm: u32 {
        READ = 1 << 0, "IOMMU_PGFAULT_PERM_READ";
        WRITE = 1 << 1, "IOMMU_PGFAULT_PERM_WRITE";
        EXEC = 1 << 2, "IOMMU_PGFAULT_PERM_EXEC";
        PRIV = 1 << 3, "IOMMU_PGFAULT_PERM_PRIV";
    }

    /// `code` of [`HwptPageResponse`].
    mod page_response: u32 {
        SUCCESS = 0, "IOMMUFD_PAGE_RESP_SUCCESS";
        INVALID = 1, "IOMMUFD_PAGE_RESP_INVALID";
    }

    /// `flags` of [`VeventHeader`].
    mod vevent_flags: u32 {
        /// Events are missing before this point; no data follows.
        LOST_EVENTS = 1 << 0, "IOMMU_VEVENTQ_FLAG_LOST_EVENTS";
    }

    /// `type` of [`VeventqAlloc`].
    mod veventq_type: u32 {
        DEFAULT = 0, "IOMMU_VEVENTQ_TYPE_DEFAULT";
        ARM_SMMUV3 = 1, "IOMMU_VEVENTQ_TYPE_ARM_SMMUV3";
        TEGRA241_CMDQV = 2, "IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV";
    }
}
