//! The memory of a client for the length of one call.
//!
//! A client in this process has no address space: a call brings its struct and buffers along, at addresses
//! that are made up, and takes them back. So no two threads of a scenario share memory by accident. Takes no
//! lock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use iommufd::{
    Caller, Context, FileFault, MemoryGone, PinAccess, PinFault, Pinned, Signal, Source,
    Unreachable,
};
use uapi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A call's struct and buffers, and the one `/dev/iommu` that it can name.
#[derive(Default)]
pub struct CallMemory {
    runs: RefCell<BTreeMap<u64, Vec<u8>>>,
    iommufd: Option<Arc<Context>>,
    pages: Option<Arc<dyn Source>>,
}

/// Where the first run of bytes lies; each has room to grow before the next.
const FIRST: u64 = 0x10_0000;
const APART: u64 = 0x10_0000;
/// The descriptor by which a call names the `/dev/iommu` that it was given.
pub const IOMMUFD: i32 = 3;

impl CallMemory {
    /// Memory of a call that can name `iommufd` as descriptor [`IOMMUFD`].
    pub fn naming(iommufd: Arc<Context>) -> Self {
        Self { iommufd: Some(iommufd), ..Self::default() }
    }

    /// Memory of a call that maps `pages`.
    pub fn mapping(pages: Arc<dyn Source>) -> Self {
        Self { pages: Some(pages), ..Self::default() }
    }

    /// Puts bytes somewhere and returns where.
    pub fn put(&self, bytes: &[u8]) -> u64 {
        let mut runs = self.runs.borrow_mut();
        let at = FIRST + APART * runs.len() as u64;
        runs.insert(at, bytes.to_vec());
        at
    }

    /// The bytes at an address that [`put`](Self::put) returned.
    pub fn take(&self, at: u64) -> Vec<u8> {
        self.runs.borrow().get(&at).cloned().unwrap_or_default()
    }

    /// Lays `argument` out, lets `call` work on its address, and takes it back.
    ///
    /// # Errors
    /// The call's.
    pub fn exchange<T: FromBytes + IntoBytes + Immutable>(
        &self,
        argument: &mut T,
        call: impl FnOnce(u64) -> Result<u32, Errno>,
    ) -> Result<u32, Errno> {
        let at = self.put(argument.as_bytes());
        let answer = call(at);
        if let Ok((after, _)) = T::read_from_prefix(&self.take(at)) {
            *argument = after;
        }
        answer
    }

    /// Calls `with` on the bytes from `at` on, as many as there are.
    fn run<R>(&self, at: u64, with: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let mut runs = self.runs.borrow_mut();
        let (start, bytes) = runs.range_mut(..=at).next_back()?;
        let offset = usize::try_from(at - start).ok()?;
        Some(with(bytes.get_mut(offset..)?))
    }
}

impl vfio::Caller for CallMemory {}

impl Caller for CallMemory {
    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        let copy = |bytes: &mut [u8]| {
            let length = bytes.len().min(into.len());
            into[..length].copy_from_slice(&bytes[..length]);
            length
        };
        self.run(at, copy).unwrap_or(0)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable> {
        let copy =
            |bytes: &mut [u8]| bytes.get_mut(..from.len()).map(|bytes| bytes.copy_from_slice(from));
        self.run(at, copy).flatten().ok_or(Unreachable)
    }

    fn memory(&self) -> Arc<dyn Source> {
        self.pages.clone().unwrap_or_else(|| Arc::new(Zeros))
    }

    fn file_memory(&self, _: i32) -> Result<Arc<dyn Source>, FileFault> {
        Err(FileFault::Closed)
    }

    fn eventfd(&self, _: i32) -> Result<Arc<dyn Signal>, FileFault> {
        Err(FileFault::Closed)
    }

    fn iommufd(&self, fd: i32) -> Result<Arc<Context>, FileFault> {
        let context = self.iommufd.as_ref().filter(|_| fd == IOMMUFD).ok_or(FileFault::Closed)?;
        if context.get_file() { Ok(Arc::clone(context)) } else { Err(FileFault::Closed) }
    }
}

/// Memory that reads as zero and forgets what is written: what a scenario maps has no contents.
struct Zeros;

impl Source for Zeros {
    fn pin(&self, _: u64, _: u64, _: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        Ok(Arc::new(Zeros))
    }
}

impl Pinned for Zeros {
    fn read(&self, _: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        into.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryGone> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_sees_what_it_brought_and_nothing_else() {
        let memory = CallMemory::default();
        let (one, two) = (memory.put(b"abc"), memory.put(b"defg"));
        let mut bytes = [0; 8];
        assert_eq!(memory.read_prefix(two + 1, &mut bytes), 3);
        assert_eq!(&bytes[..3], b"efg");
        assert_eq!(memory.write(one, b"xyz"), Ok(()));
        assert_eq!(memory.take(one), b"xyz");
        assert_eq!(memory.write(one + 1, b"xyz"), Err(Unreachable));
        assert_eq!(memory.read_prefix(0, &mut bytes), 0);
    }
}
