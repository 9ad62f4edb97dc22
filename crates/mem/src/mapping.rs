//! One `mmap` and its `munmap`.

#![expect(unsafe_code, reason = "UNSAFETY: makes and removes mappings the kernel places")]

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A mapping of this process, removed when dropped. Owns the addresses, says nothing of what may
/// be done with them.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: NonNull<u8>,
    /// Bytes asked for; the kernel maps whole pages.
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` gives out a number only; whoever dereferences it argues for himself.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of `fd` at `offset`, shared.
    pub(crate) fn of_file(
        fd: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        writable: bool,
    ) -> Result<Self, Errno> {
        let mut protection = ProtFlags::READ;
        if writable {
            protection |= ProtFlags::WRITE;
        }
        // SAFETY: without MAP_FIXED the kernel places the mapping where nothing is mapped.
        let address =
            unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, fd, offset) }?;
        Self::own(address, length)
    }

    /// Maps `length` bytes of zeros that no file is behind. Memory is taken page by page, when
    /// first written.
    pub(crate) fn anonymous(length: usize, flags: MapFlags) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED the kernel places the mapping where nothing is mapped.
        let address = unsafe { mmap_anonymous(ptr::null_mut(), length, protection, flags) }?;
        Self::own(address, length)
    }

    /// The first byte. Valid as an address, for `length` bytes, as long as `self` lives.
    pub(crate) fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// Bytes asked for.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    fn own(address: *mut core::ffi::c_void, length: usize) -> Result<Self, Errno> {
        let address = NonNull::new(address.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { address, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody else has its address any more: all that give it
        // out borrow `self`.
        let removed = unsafe { munmap(self.address.as_ptr().cast(), self.length) };
        debug_assert!(removed.is_ok(), "a mapping of ours was already gone");
    }
}
