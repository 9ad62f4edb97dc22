//! Shared memory that stays: its length cannot shrink, so it is touched directly.
//!
//! Either anonymous, or a memfd that is sealed against shrinking. Where somebody punches a hole into
//! it, the hole reads as zeros and is filled again when written; no access raises a signal, short of
//! the machine running out of memory. Huge-page files are refused for that reason: their pool is
//! small, and a punched huge page that cannot be allocated again is SIGBUS.
//!
//! Takes no lock. Source: [fcntl(2)] `F_SEAL_SHRINK`, [memfd_create(2)].

#![expect(unsafe_code, reason = "UNSAFETY: loads and stores inside a mapping that cannot shrink")]

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::fs::{SealFlags, fcntl_get_seals, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mm::MapFlags;
use thiserror::Error;

use crate::copy;
use crate::mapping::Mapping;

/// A run of bytes shared with other processes, which may read and write them at any moment.
///
/// Offsets are bytes from its start. The plain methods panic where an access leaves the run or
/// writes what was mapped read-only: callers have checked; the `checked_` ones answer `None` instead.
/// Copies are atomic byte by byte and no wider.
#[derive(Debug)]
pub struct Pages {
    mapping: Mapping,
    writable: bool,
}

/// Why a file cannot be [`Pages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// It is made of huge pages, which may fail to come back after a hole was punched.
    #[error("the file is made of huge pages")]
    HugePages,
    /// The kernel refused the mapping: for want of memory, or because the file is sealed against
    /// writing.
    #[error("mapping failed: {errno}")]
    Map {
        /// What it answered.
        errno: Errno,
    },
    /// The offset is not a multiple of the page size, or the length is zero.
    #[error("offset {offset:#x} and length {length:#x} do not describe whole pages")]
    Misaligned {
        /// Bytes into the file.
        offset: u64,
        /// Bytes asked for.
        length: usize,
    },
    /// A file of a kind that cannot be sealed, so that it may always shrink.
    #[error("the file cannot be sealed: {errno}")]
    NotSealable {
        /// What `F_GET_SEALS` or `fstat` answered.
        errno: Errno,
    },
    /// The range reaches past the end of the file.
    #[error("{length:#x} bytes at {offset:#x} reach past the file's {file_length:#x} bytes")]
    PastEnd {
        /// Bytes into the file.
        offset: u64,
        /// Bytes asked for.
        length: usize,
        /// Bytes in the file.
        file_length: u64,
    },
    /// The file is not sealed against shrinking.
    #[error("the file is not sealed against shrinking (its seals are {seals:#x})")]
    Unsealed {
        /// The seals it has, as `F_GET_SEALS` numbers them.
        seals: u32,
    },
}

impl Pages {
    /// Zeroed memory that no file is behind.
    ///
    /// # Errors
    /// As `mmap(2)`: `EINVAL` where `length` is zero, `ENOMEM`.
    pub fn anonymous(length: usize) -> io::Result<Self> {
        let mapping = Mapping::anonymous(length, MapFlags::SHARED)?;
        Ok(Self { mapping, writable: true })
    }

    /// Maps `length` bytes of a file that is sealed against shrinking, from byte `offset`. The file
    /// descriptor is not needed afterwards.
    ///
    /// # Errors
    /// [`SealError`]; a file that may shrink is for [`Window`](crate::Window).
    pub fn of_sealed_file(
        fd: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        writable: bool,
    ) -> Result<Self, SealError> {
        check_sealed(fd)?;
        check_range(fd, offset, length)?;
        let mapping = Mapping::of_file(fd, offset, length, writable)
            .map_err(|errno| SealError::Map { errno })?;
        Ok(Self { mapping, writable })
    }

    /// Bytes in the run.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.length()
    }

    /// Whether it may be written.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// Copies `into.len()` bytes from `offset`.
    ///
    /// # Panics
    /// Out of range.
    #[track_caller]
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.checked_read(offset, into).expect("callers keep reads inside the run");
    }

    /// Copies `from` to `offset`.
    ///
    /// # Panics
    /// Out of range or read-only.
    #[track_caller]
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.checked_write(offset, from).expect("callers keep writes inside a writable run");
    }

    /// Sets `length` bytes from `offset` to `byte`.
    ///
    /// # Panics
    /// Out of range or read-only.
    #[track_caller]
    pub fn fill(&self, offset: usize, length: usize, byte: u8) {
        self.checked_fill(offset, length, byte).expect("callers keep fills inside a writable run");
    }

    /// As [`read`](Self::read); `None` out of range, and nothing is copied.
    pub fn checked_read(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        let from = self.at(offset, into.len())?;
        // SAFETY: `at` checked the range; the mapping lives as long as `self`, its file cannot
        // shrink, and only atomics touch it.
        unsafe { copy::read(from, into) };
        Some(())
    }

    /// As [`write`](Self::write); `None` out of range or read-only, and nothing is copied.
    pub fn checked_write(&self, offset: usize, from: &[u8]) -> Option<()> {
        let to = self.writable_at(offset, from.len())?;
        // SAFETY: as in `checked_read`; `writable_at` checked that the mapping may be written.
        unsafe { copy::write(to, from) };
        Some(())
    }

    /// As [`fill`](Self::fill); `None` out of range or read-only, and nothing is set.
    pub fn checked_fill(&self, offset: usize, length: usize, byte: u8) -> Option<()> {
        let to = self.writable_at(offset, length)?;
        // SAFETY: as in `checked_write`.
        unsafe { copy::fill(to, length, byte) };
        Some(())
    }

    /// Loads an aligned word; what was written before the [`store_u32`](Self::store_u32) that made
    /// it is visible then.
    ///
    /// # Panics
    /// Out of range or misaligned.
    #[track_caller]
    pub fn load_u32(&self, offset: usize) -> u32 {
        self.checked_load_u32(offset).expect("callers load aligned words inside the run")
    }

    /// As [`load_u32`](Self::load_u32), 8 bytes.
    ///
    /// # Panics
    /// Out of range or misaligned.
    #[track_caller]
    pub fn load_u64(&self, offset: usize) -> u64 {
        self.checked_load_u64(offset).expect("callers load aligned words inside the run")
    }

    /// Stores an aligned word; whoever loads it sees what was written before.
    ///
    /// # Panics
    /// Out of range, misaligned or read-only.
    #[track_caller]
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.checked_store_u32(offset, value).expect("callers store aligned words inside the run");
    }

    /// As [`store_u32`](Self::store_u32), 8 bytes.
    ///
    /// # Panics
    /// Out of range, misaligned or read-only.
    #[track_caller]
    pub fn store_u64(&self, offset: usize, value: u64) {
        self.checked_store_u64(offset, value).expect("callers store aligned words inside the run");
    }

    /// As [`load_u32`](Self::load_u32); `None` out of range or misaligned.
    pub fn checked_load_u32(&self, offset: usize) -> Option<u32> {
        let value = self.word_u32(self.at(offset, size_of::<u32>())?)?.load(Ordering::Relaxed);
        // A fence, because an acquiring load of read-only memory is not promised to work.
        fence(Ordering::Acquire);
        Some(value)
    }

    /// As [`load_u64`](Self::load_u64); `None` out of range or misaligned.
    pub fn checked_load_u64(&self, offset: usize) -> Option<u64> {
        let value = self.word_u64(self.at(offset, size_of::<u64>())?)?.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        Some(value)
    }

    /// As [`store_u32`](Self::store_u32); `None` out of range, misaligned or read-only.
    pub fn checked_store_u32(&self, offset: usize, value: u32) -> Option<()> {
        let word = self.word_u32(self.writable_at(offset, size_of::<u32>())?)?;
        word.store(value, Ordering::Release);
        Some(())
    }

    /// As [`store_u64`](Self::store_u64); `None` out of range, misaligned or read-only.
    pub fn checked_store_u64(&self, offset: usize, value: u64) -> Option<()> {
        let word = self.word_u64(self.writable_at(offset, size_of::<u64>())?)?;
        word.store(value, Ordering::Release);
        Some(())
    }

    /// An aligned word in place, to wait on with [`futex`](crate::futex) or to change atomically;
    /// `None` out of range, misaligned or read-only.
    pub fn atomic_u32(&self, offset: usize) -> Option<&AtomicU32> {
        self.word_u32(self.writable_at(offset, size_of::<u32>())?)
    }

    fn writable_at(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        if self.writable { self.at(offset, length) } else { None }
    }

    /// The address of `offset`, where `length` bytes from there are inside.
    fn at(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let Range { end, .. } = offset..offset.checked_add(length)?;
        if end > self.mapping.length() {
            return None;
        }
        // SAFETY: `offset` is at most the mapping's length.
        Some(unsafe { self.mapping.address().add(offset) })
    }

    /// `at` came from [`Self::at`] for 4 bytes.
    fn word_u32(&self, at: NonNull<u8>) -> Option<&AtomicU32> {
        let at = at.cast::<u32>();
        // SAFETY: aligned, inside the mapping, which lives as long as the borrow of `self` and
        // cannot shrink; only atomics touch it.
        at.is_aligned().then(|| unsafe { AtomicU32::from_ptr(at.as_ptr()) })
    }

    /// `at` came from [`Self::at`] for 8 bytes.
    fn word_u64(&self, at: NonNull<u8>) -> Option<&AtomicU64> {
        let at = at.cast::<u64>();
        // SAFETY: as in `word_u32`.
        at.is_aligned().then(|| unsafe { AtomicU64::from_ptr(at.as_ptr()) })
    }
}

fn check_sealed(fd: BorrowedFd<'_>) -> Result<(), SealError> {
    let seals = fcntl_get_seals(fd).map_err(|errno| SealError::NotSealable { errno })?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(SealError::Unsealed { seals: seals.bits() });
    }
    let filesystem = fstatfs(fd).map_err(|errno| SealError::NotSealable { errno })?;
    if filesystem.f_type == HUGETLBFS_MAGIC {
        return Err(SealError::HugePages);
    }
    Ok(())
}

/// After [`check_sealed`]: the length cannot shrink any more.
fn check_range(fd: BorrowedFd<'_>, offset: u64, length: usize) -> Result<(), SealError> {
    let page_bytes = rustix::param::page_size() as u64;
    if length == 0 || !offset.is_multiple_of(page_bytes) {
        return Err(SealError::Misaligned { offset, length });
    }
    let stat = fstat(fd).map_err(|errno| SealError::NotSealable { errno })?;
    let file_length = u64::try_from(stat.st_size).unwrap_or(0);
    match offset.checked_add(length as u64) {
        Some(end) if end <= file_length => Ok(()),
        Some(_) | None => Err(SealError::PastEnd { offset, length, file_length }),
    }
}

/// Source: [uapi/magic.h].
const HUGETLBFS_MAGIC: rustix::fs::FsWord = 0x9584_58f6;
