//! `IOMMU_TEST_CMD`, as a client of the mock platform issues it.

use uapi::Errno;

use super::Client;

/// The request: number 0xa0.
const REQUEST: u32 = 0x3ba0;
/// Bytes of the struct, and where its fields begin.
const BYTES: usize = 72;
const OP: usize = 4;
const ID: usize = 8;

/// Fields by where they are, each with its bytes.
#[derive(Debug)]
pub(crate) enum Field {
    Word(usize, u32),
    Long(usize, u64),
}

pub(crate) use Field::{Long, Word};

/// Operations.
pub(crate) mod op {
    pub(crate) const ADD_RESERVED: u32 = 1;
    pub(crate) const MOCK_DOMAIN: u32 = 2;
    pub(crate) const MD_CHECK_MAP: u32 = 3;
    pub(crate) const MD_CHECK_REFS: u32 = 4;
    pub(crate) const CREATE_ACCESS: u32 = 5;
    pub(crate) const DESTROY_ACCESS_PAGES: u32 = 6;
    pub(crate) const ACCESS_PAGES: u32 = 7;
    pub(crate) const ACCESS_RW: u32 = 8;
    pub(crate) const SET_TEMP_MEMORY_LIMIT: u32 = 9;
    pub(crate) const MOCK_DOMAIN_REPLACE: u32 = 10;
    pub(crate) const ACCESS_REPLACE_IOAS: u32 = 11;
    pub(crate) const MOCK_DOMAIN_FLAGS: u32 = 12;
    pub(crate) const DIRTY: u32 = 13;
    pub(crate) const MD_CHECK_IOTLB: u32 = 14;
    pub(crate) const TRIGGER_IOPF: u32 = 15;
    pub(crate) const DEV_CHECK_CACHE: u32 = 16;
    pub(crate) const TRIGGER_VEVENT: u32 = 17;
    pub(crate) const PASID_ATTACH: u32 = 18;
    pub(crate) const PASID_REPLACE: u32 = 19;
    pub(crate) const PASID_DETACH: u32 = 20;
    pub(crate) const PASID_CHECK_HWPT: u32 = 21;
    pub(crate) const DMABUF_GET: u32 = 22;
    pub(crate) const DMABUF_REVOKE: u32 = 23;
}

/// What a test command answered.
pub(crate) struct Answer([u8; BYTES]);

impl Answer {
    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }
}

impl Client {
    /// Runs a test command.
    pub(crate) fn test(&self, op: u32, id: u32, fields: &[Field]) -> Result<Answer, Errno> {
        self.test_value(op, id, fields).map(|(answer, _)| answer)
    }

    /// As [`test`](Self::test), and says what the system call returned.
    fn test_value(&self, op: u32, id: u32, fields: &[Field]) -> Result<(Answer, u32), Errno> {
        let mut bytes = [0; BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &u32::try_from(BYTES).unwrap().to_ne_bytes());
        put(OP, &op.to_ne_bytes());
        put(ID, &id.to_ne_bytes());
        for field in fields {
            match field {
                Word(at, value) => put(*at, &value.to_ne_bytes()),
                Long(at, value) => put(*at, &value.to_ne_bytes()),
            }
        }
        self.memory.write(self.at, &bytes).unwrap();
        let value = self.ctx.ioctl(self, REQUEST, self.at)?;
        self.memory.read(self.at, &mut bytes).unwrap();
        Ok((Answer(bytes), value))
    }

    /// A mock device on page table or IOAS `pt`: its own id, the page table's, the device's.
    pub(crate) fn mock_device(&self, pt: u32) -> Result<[u32; 3], Errno> {
        let answer = self.test(op::MOCK_DOMAIN, pt, &[])?;
        Ok([16, 20, 24].map(|at| answer.word(at)))
    }

    /// An access: the descriptor of its file.
    pub(crate) fn create_access(&self, ioas: u32, flags: u32) -> Result<i32, Errno> {
        let answer = self.test(op::CREATE_ACCESS, ioas, &[Word(20, flags)])?;
        Ok(answer.word(16).cast_signed())
    }

    /// Pins through an access, and compares with the pages at `at` if that is not 0. The pin's number.
    pub(crate) fn access_pin(
        &self,
        fd: i32,
        flags: u32,
        [iova, length, at]: [u64; 3],
    ) -> Result<u32, Errno> {
        let fields = [Word(16, flags), Long(24, iova), Long(32, length), Long(40, at)];
        let answer = self.test(op::ACCESS_PAGES, fd.cast_unsigned(), &fields)?;
        Ok(answer.word(20))
    }

    pub(crate) fn access_unpin(&self, fd: i32, number: u32) -> Result<(), Errno> {
        let fields = [Word(16, number)];
        self.test(op::DESTROY_ACCESS_PAGES, fd.cast_unsigned(), &fields).map(|_| ())
    }

    /// Copies through an access, between what is mapped at `iova` and the client's memory at `at`.
    pub(crate) fn access_copy(
        &self,
        fd: i32,
        flags: u32,
        [iova, length, at]: [u64; 3],
    ) -> Result<(), Errno> {
        let fields = [Long(16, iova), Long(24, length), Long(32, at), Word(40, flags)];
        self.test(op::ACCESS_RW, fd.cast_unsigned(), &fields).map(|_| ())
    }

    pub(crate) fn access_replace(&self, fd: i32, ioas: u32) -> Result<(), Errno> {
        let fields = [Word(16, ioas)];
        self.test(op::ACCESS_REPLACE_IOAS, fd.cast_unsigned(), &fields).map(|_| ())
    }

    /// A buffer: the descriptor of its file.
    pub(crate) fn dma_buf_get(&self, length: u64) -> Result<i32, Errno> {
        let length = u32::try_from(length).unwrap();
        let (_, fd) = self.test_value(op::DMABUF_GET, 0, &[Word(16, length)])?;
        Ok(fd.cast_signed())
    }

    pub(crate) fn dma_buf_revoke(&self, fd: i32, revoked: bool) -> Result<(), Errno> {
        let fields = [Word(16, fd.cast_unsigned()), Word(20, revoked.into())];
        self.test(op::DMABUF_REVOKE, 0, &fields).map(|_| ())
    }

    /// Whether each page is pinned so often.
    pub(crate) fn check_refs(&self, at: u64, length: u64, pins: u32) -> Result<(), Errno> {
        let fields = [Long(16, length), Long(24, at), Word(32, pins)];
        self.test(op::MD_CHECK_REFS, 0, &fields).map(|_| ())
    }
}
