//! `IOMMU_TEST_CMD`, with which the kernel's own test suite drives a mock IOMMU.
//!
//! Only kernels built for testing have it; its header is not installed. Takes no lock.
//! Source: drivers/iommu/iommufd/iommufd_test.h of Linux 7.3.

use crate::abi::{abi, constants};

abi! {
    /// `IOMMU_TEST_CMD`: one of many operations. What `words` hold, `op` says.
    struct TestCmd ["iommu_test_cmd", 72] {
        0x00 in dec size: u32,
        0x04 in dec op: u32,
        0x08 in dec id: u32,
        0x0c in hex reserved("__reserved"): u32,
        0x10 inout hex words: [u64; 6],
        0x40 inout hex last: u32,
        0x44 in hex pad: u32,
    }
}

constants! {
    /// `op` of [`TestCmd`].
    mod test_op: u32 {
        ADD_RESERVED = 1, "IOMMU_TEST_OP_ADD_RESERVED" in NONE;
        MOCK_DOMAIN = 2, "IOMMU_TEST_OP_MOCK_DOMAIN" in NONE;
        MD_CHECK_MAP = 3, "IOMMU_TEST_OP_MD_CHECK_MAP" in NONE;
        MD_CHECK_REFS = 4, "IOMMU_TEST_OP_MD_CHECK_REFS" in NONE;
        CREATE_ACCESS = 5, "IOMMU_TEST_OP_CREATE_ACCESS" in NONE;
        DESTROY_ACCESS_PAGES = 6, "IOMMU_TEST_OP_DESTROY_ACCESS_PAGES" in NONE;
        ACCESS_PAGES = 7, "IOMMU_TEST_OP_ACCESS_PAGES" in NONE;
        ACCESS_RW = 8, "IOMMU_TEST_OP_ACCESS_RW" in NONE;
        SET_TEMP_MEMORY_LIMIT = 9, "IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT" in NONE;
        MOCK_DOMAIN_REPLACE = 10, "IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE" in NONE;
        ACCESS_REPLACE_IOAS = 11, "IOMMU_TEST_OP_ACCESS_REPLACE_IOAS" in NONE;
        MOCK_DOMAIN_FLAGS = 12, "IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS" in NONE;
        DIRTY = 13, "IOMMU_TEST_OP_DIRTY" in NONE;
        MD_CHECK_IOTLB = 14, "IOMMU_TEST_OP_MD_CHECK_IOTLB" in NONE;
        TRIGGER_IOPF = 15, "IOMMU_TEST_OP_TRIGGER_IOPF" in NONE;
        DEV_CHECK_CACHE = 16, "IOMMU_TEST_OP_DEV_CHECK_CACHE" in NONE;
        TRIGGER_VEVENT = 17, "IOMMU_TEST_OP_TRIGGER_VEVENT" in NONE;
        PASID_ATTACH = 18, "IOMMU_TEST_OP_PASID_ATTACH" in NONE;
        PASID_REPLACE = 19, "IOMMU_TEST_OP_PASID_REPLACE" in NONE;
        PASID_DETACH = 20, "IOMMU_TEST_OP_PASID_DETACH" in NONE;
        PASID_CHECK_HWPT = 21, "IOMMU_TEST_OP_PASID_CHECK_HWPT" in NONE;
        DMABUF_GET = 22, "IOMMU_TEST_OP_DMABUF_GET" in NONE;
        DMABUF_REVOKE = 23, "IOMMU_TEST_OP_DMABUF_REVOKE" in NONE;
    }
}
