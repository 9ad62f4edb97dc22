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
        ADD_RESERVED = 1, "IOMMU_TEST_OP_ADD_RESERVED";
        MOCK_DOMAIN = 2, "IOMMU_TEST_OP_MOCK_DOMAIN";
        MD_CHECK_MAP = 3, "IOMMU_TEST_OP_MD_CHECK_MAP";
        MD_CHECK_REFS = 4, "IOMMU_TEST_OP_MD_CHECK_REFS";
        CREATE_ACCESS = 5, "IOMMU_TEST_OP_CREATE_ACCESS";
        DESTROY_ACCESS_PAGES = 6, "IOMMU_TEST_OP_DESTROY_ACCESS_PAGES";
        ACCESS_PAGES = 7, "IOMMU_TEST_OP_ACCESS_PAGES";
        ACCESS_RW = 8, "IOMMU_TEST_OP_ACCESS_RW";
        SET_TEMP_MEMORY_LIMIT = 9, "IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT";
        MOCK_DOMAIN_REPLACE = 10, "IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE";
        ACCESS_REPLACE_IOAS = 11, "IOMMU_TEST_OP_ACCESS_REPLACE_IOAS";
        MOCK_DOMAIN_FLAGS = 12, "IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS";
        DIRTY = 13, "IOMMU_TEST_OP_DIRTY";
        MD_CHECK_IOTLB = 14, "IOMMU_TEST_OP_MD_CHECK_IOTLB";
        TRIGGER_IOPF = 15, "IOMMU_TEST_OP_TRIGGER_IOPF";
        DEV_CHECK_CACHE = 16, "IOMMU_TEST_OP_DEV_CHECK_CACHE";
        TRIGGER_VEVENT = 17, "IOMMU_TEST_OP_TRIGGER_VEVENT";
        PASID_ATTACH = 18, "IOMMU_TEST_OP_PASID_ATTACH";
        PASID_REPLACE = 19, "IOMMU_TEST_OP_PASID_REPLACE";
        PASID_DETACH = 20, "IOMMU_TEST_OP_PASID_DETACH";
        PASID_CHECK_HWPT = 21, "IOMMU_TEST_OP_PASID_CHECK_HWPT";
        DMABUF_GET = 22, "IOMMU_TEST_OP_DMABUF_GET";
        DMABUF_REVOKE = 23, "IOMMU_TEST_OP_DMABUF_REVOKE";
    }
}
