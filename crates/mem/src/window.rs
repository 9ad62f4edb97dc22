//! A mapping of a file that may shrink at any moment.
//!
//! Touching a mapped page past the end of its file is SIGBUS, and whoever owns the file may truncate
//! it between any check and the access. So this memory is never touched: each copy is a
//! `process_vm_readv` or `process_vm_writev` on our own process, in which the kernel touches it and
//! answers `EFAULT`. About half a microsecond a copy.
//!
//! Takes no lock. Source: [process_vm_readv(2)], [mmap(2)] on SIGBUS.

#![expect(unsafe_code, reason = "UNSAFETY: system calls that copy between two addresses of ours")]

use std::io;
use std::os::fd::BorrowedFd;

use libc::{c_ulong, c_void, iovec, pid_t, ssize_t};
use thiserror::Error;

use crate::mapping::Mapping;

/// A mapped run of a file's bytes, each of which may cease to exist.
#[derive(Debug)]
pub struct Window {
    mapping: Mapping,
}

/// Bytes that could not be copied: the file has shrunk, or the mapping does not allow it (a write to
/// one that is read-only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{length:#x} bytes at offset {offset:#x} are no longer there")]
pub struct Vanished {
    /// Where the copy was to begin. Bytes before the one that is gone may have been copied.
    pub offset: usize,
    /// How many bytes were to be copied.
    pub length: usize,
}

impl Window {
    /// Maps `length` bytes of a file from byte `offset`, a multiple of the page size. They need not
    /// exist yet. The file descriptor is not needed afterwards.
    ///
    /// # Errors
    /// As `mmap(2)`: `EINVAL` where `offset` is misaligned or `length` zero, `EACCES`, `ENODEV`,
    /// `ENOMEM`, `EPERM`.
    pub fn map(fd: BorrowedFd<'_>, offset: u64, length: usize, writable: bool) -> io::Result<Self> {
        Ok(Self { mapping: Mapping::of_file(fd, offset, length, writable)? })
    }

    /// Bytes mapped, whether they exist or not.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.length()
    }

    /// Copies `into.len()` bytes from `offset`.
    ///
    /// # Errors
    /// [`Vanished`] where a byte is gone or outside of the window.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Vanished> {
        let ours = into.as_mut_ptr().cast();
        // SAFETY: `ours` is writable for the length of `into`, which nobody else uses meanwhile.
        unsafe { self.copy(libc::process_vm_readv, offset, ours, into.len()) }
    }

    /// Copies `from` to `offset`.
    ///
    /// # Errors
    /// [`Vanished`] where a byte is gone, outside of the window, or not to be written.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), Vanished> {
        let ours = from.as_ptr().cast_mut().cast();
        // SAFETY: `ours` is readable for the length of `from`, and the call only reads it.
        unsafe { self.copy(libc::process_vm_writev, offset, ours, from.len()) }
    }

    /// # Safety
    /// `ours` may be accessed for `length` bytes in the direction of `call`.
    unsafe fn copy(
        &self,
        call: CopyCall,
        offset: usize,
        ours: *mut c_void,
        length: usize,
    ) -> Result<(), Vanished> {
        let vanished = Vanished { offset, length };
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.mapping.length());
        if !inside {
            return Err(vanished);
        }
        let mut done = 0;
        while done < length {
            let theirs = self.mapping.address().as_ptr().wrapping_add(offset + done);
            let local = iovec { iov_base: ours.wrapping_byte_add(done), iov_len: length - done };
            let remote = iovec { iov_base: theirs.cast(), iov_len: length - done };
            // SAFETY: both vectors are live, one entry each. The local one is the caller's. The
            // remote one lies inside our mapping, which no Rust reference covers; where its file
            // has shrunk the kernel stops and says so.
            let copied = unsafe { call(libc::getpid(), &local, 1, &remote, 1, 0) };
            match usize::try_from(copied) {
                Ok(copied) if copied > 0 => done += copied,
                Ok(_) | Err(_) => return Err(vanished),
            }
        }
        Ok(())
    }
}

/// `process_vm_readv` or `process_vm_writev`.
type CopyCall =
    unsafe extern "C" fn(pid_t, *const iovec, c_ulong, *const iovec, c_ulong, c_ulong) -> ssize_t;
