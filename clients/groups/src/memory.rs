//! Memory that a device reaches too, and waiting for its interrupt.
//!
//! Rust's rules about references do not hold for bytes that a device changes, so they are touched by volatile accesses
//! on raw pointers only.

#![expect(unsafe_code, reason = "UNSAFETY: mmap, volatile access to what a device shares, poll")]

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use vfio_ioctls::{VfioContainer, VfioError};
use vmm_sys_util::eventfd::EventFd;

/// Private pages, unmapped when dropped.
pub(crate) struct Memory {
    start: *mut u8,
    length: usize,
}

impl Memory {
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: no address is asked for, so no live mapping is replaced.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length })
    }

    /// Lets the container's devices reach all of it.
    pub(crate) fn map_for_dma(&self, to: &VfioContainer, iova: u64) -> Result<(), VfioError> {
        // SAFETY: these bytes are only ever touched by volatile accesses; no reference to them exists.
        unsafe { to.vfio_dma_map(iova, self.length, self.start) }
    }

    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.length, "inside the mapping");
        for (index, byte) in from.iter().enumerate() {
            // SAFETY: asserted to lie inside the mapping, which lives as long as `self`.
            unsafe { self.start.add(offset + index).write_volatile(*byte) };
        }
    }

    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length, "inside the mapping");
        // SAFETY: asserted to lie inside the mapping, which lives as long as `self`.
        (offset..offset + length).map(|at| unsafe { self.start.add(at).read_volatile() }).collect()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing borrows from it.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// Waits until `event` was signalled and returns how often.
///
/// # Errors
/// `TimedOut` after `patience`.
pub(crate) fn wait(event: &EventFd, patience: Duration) -> io::Result<u64> {
    let mut entry = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `entry` is one live pollfd, and 1 is how many there are.
    match unsafe { libc::poll(&raw mut entry, 1, patience_ms) } {
        0 => Err(io::ErrorKind::TimedOut.into()),
        1 => event.read(),
        _ => Err(io::Error::last_os_error()),
    }
}
