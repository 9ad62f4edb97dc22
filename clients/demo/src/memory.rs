//! Memory that a device reaches too (a program's own pages, and a device's BAR), and the clock.
//!
//! Rust's rules about references do not hold for bytes that a device changes, so everything here
//! goes through volatile accesses on raw pointers. Takes no lock.

#![expect(
    unsafe_code,
    reason = "UNSAFETY: mmap, volatile access to what a device shares, clock_gettime"
)]

use std::io;
use std::os::fd::RawFd;
use std::ptr;

use vfio_ioctls::{VfioError, VfioIommufd};

/// A mapping, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    /// Maps `length` fresh private bytes: what guest memory is by default in most VMMs.
    pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// Maps `length` bytes of a device region at file offset `offset`.
    pub(crate) fn of_device(fd: RawFd, offset: u64, length: usize) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        Self::map(length, libc::MAP_SHARED, fd, offset)
    }

    fn map(length: usize, flags: i32, fd: RawFd, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: no address is asked for, so no live mapping is replaced.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length })
    }

    /// Bytes mapped.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Lets devices attached to `host`'s address space reach all of it, from `iova` on.
    pub(crate) fn map_for_dma(&self, host: &VfioIommufd, iova: u64) -> Result<(), VfioError> {
        // SAFETY: these bytes are only ever touched by volatile accesses; no reference to them exists.
        unsafe { host.vfio_dma_map(iova, self.length, self.start) }
    }

    /// Copies bytes in.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.length, "inside the mapping");
        for (index, byte) in from.iter().enumerate() {
            // SAFETY: asserted to lie inside the mapping, which lives as long as `self`.
            unsafe { self.start.add(offset + index).write_volatile(*byte) };
        }
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length, "inside the mapping");
        // SAFETY: asserted to lie inside the mapping, which lives as long as `self`.
        (offset..offset + length).map(|at| unsafe { self.start.add(at).read_volatile() }).collect()
    }

    /// Reads an aligned register.
    pub(crate) fn read_u32(&self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length, "inside the mapping");
        // SAFETY: asserted to be aligned and to lie inside the mapping.
        unsafe { self.start.add(offset).cast::<u32>().read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, and nothing borrows from it.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// `CLOCK_MONOTONIC`, which every process of the machine reads alike, in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
