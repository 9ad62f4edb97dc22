//! The program on the other side of a command, as much of it as commands need.
//!
//! A handler gets a [`Caller`] for the length of one command. What it keeps longer it keeps as
//! [`Source`] (memory that can be pinned), [`Pinned`] (memory that is), [`Signal`] (an eventfd),
//! [`Vm`] (a virtual machine) or [`Context`]. The front end implements these over a real process; tests over a byte array.

use std::error::Error;
use std::hash::Hasher;
use std::sync::Arc;

use sync::Contents;
use uapi::Errno;

use crate::mock::AccessFile;
use crate::{Context, DmaBuf, EventFile, Import, PageSet};

/// The thread that issued a command.
pub trait Caller {
    /// Copies from the caller's memory, whole or not at all.
    ///
    /// # Errors
    /// [`Unreachable`] (`EFAULT`) where a byte cannot be read.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Unreachable> {
        if self.read_prefix(at, into) == into.len() { Ok(()) } else { Err(Unreachable) }
    }

    /// Copies as many leading bytes as can be read and returns how many: one copy then serves
    /// both a struct's size field and its body.
    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize;

    /// Copies to the caller's memory.
    ///
    /// # Errors
    /// [`Unreachable`] (`EFAULT`) where a byte cannot be written.
    fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable>;

    /// The caller's address space, to be pinned by virtual address.
    fn memory(&self) -> Arc<dyn Source>;

    /// An open file of the caller's, to be pinned by file offset. What kind of file it is shows
    /// only when pages of it are pinned, as in Linux.
    ///
    /// # Errors
    /// [`FileFault::Closed`] (`EBADF`).
    fn file_memory(&self, fd: i32) -> Result<Arc<dyn Source>, FileFault>;

    /// An eventfd of the caller's.
    ///
    /// # Errors
    /// [`FileFault::Closed`] (`EBADF`), [`FileFault::OtherKind`] (`EINVAL`).
    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Signal>, FileFault>;

    /// Which page is at an address of the caller's; `None` where there is none, or nobody can tell.
    fn page(&self, at: u64) -> Option<PageIdentity> {
        let _ = at;
        None
    }

    /// Whether the caller has `CAP_SYS_RESOURCE`.
    fn may_raise_limits(&self) -> bool {
        true
    }

    /// Whether the caller has `CAP_SYS_RAWIO`.
    fn may_do_raw_io(&self) -> bool {
        true
    }

    /// Whether the caller has `CAP_IPC_LOCK`, with which what it pins is held against no limit.
    fn may_lock_memory(&self) -> bool {
        true
    }

    /// `memory` as it is held against what the caller may lock (`RLIMIT_MEMLOCK`), all of its process or all of its user:
    /// pinning more is [`PinFault::Limit`] (`ENOMEM`). The same `memory` where there is no such limit.
    fn charged(&self, memory: Arc<dyn Source>, to_process: bool) -> Arc<dyn Source> {
        let _ = to_process;
        memory
    }

    /// Told why something is refused, just before the caller gets no more than a number: this crate's or VFIO's
    /// `Refusal`. Called with no lock held.
    fn refused(&self, why: &(dyn Error + 'static)) {
        let _ = why;
    }

    /// The number of the caller's process.
    fn process(&self) -> u32 {
        0
    }

    /// Gives the caller an open file that an access lives behind, and returns its descriptor. The file is released
    /// ([`AccessFile::release`]) when nobody has it open any more; not where this fails.
    ///
    /// # Errors
    /// The number of the reason: `EMFILE`, `ENOMEM`; `EOPNOTSUPP` where there are no such files.
    fn install_access(&self, file: &Arc<AccessFile>) -> Result<i32, Errno> {
        let _ = file;
        Err(Errno::EOPNOTSUPP)
    }

    /// Gives the caller an open file of events, and returns its descriptor. Reading and writing it is what
    /// [`EventFile::read`] and [`EventFile::write`] do, at any position but 0 `ESPIPE`; the file is released
    /// ([`EventFile::release`]) when nobody has it open any more; not where this fails.
    ///
    /// # Errors
    /// The number of the reason: `EMFILE`, `ENOMEM`; `EOPNOTSUPP` where there are no such files.
    fn install_events(&self, file: &Arc<EventFile>) -> Result<i32, Errno> {
        let _ = file;
        Err(Errno::EOPNOTSUPP)
    }

    /// Puts bytes where the file of `ctx`, one of the caller's, can be mapped from `offset` on.
    ///
    /// # Errors
    /// The number of the reason: `ENOMEM`; `EOPNOTSUPP` where it cannot be mapped.
    fn fill_window(&self, ctx: &Context, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let _ = (ctx, offset, bytes);
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether the caller's process maps any of bytes `offset..offset + length` of the file of `ctx`.
    fn maps_window(&self, ctx: &Context, offset: u64, length: u64) -> bool {
        let _ = (ctx, offset, length);
        false
    }

    /// The access behind an open file of the caller's.
    ///
    /// # Errors
    /// [`FileFault::Closed`], [`FileFault::OtherKind`] (`EBADFD`).
    fn access(&self, fd: i32) -> Result<Arc<AccessFile>, FileFault> {
        let _ = fd;
        Err(FileFault::OtherKind)
    }

    /// Gives the caller an open file of a buffer, with flags as `open` takes them, and returns its descriptor.
    ///
    /// # Errors
    /// The number of the reason: `EMFILE`, `ENOMEM`; `EOPNOTSUPP` where there are no such files.
    fn install_dma_buf(&self, buffer: &Arc<DmaBuf>, open_flags: u32) -> Result<i32, Errno> {
        let _ = (buffer, open_flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// The buffer behind an open file of the caller's.
    ///
    /// # Errors
    /// [`FileFault::Closed`] (`EBADF`), [`FileFault::OtherKind`] (`EINVAL`).
    fn dma_buf(&self, fd: i32) -> Result<Arc<DmaBuf>, FileFault> {
        let _ = fd;
        Err(FileFault::OtherKind)
    }

    /// The context behind an open `/dev/iommu` of the caller's, with a file reference taken
    /// (`Context::get_file`) that the receiver puts.
    ///
    /// # Errors
    /// [`FileFault::Closed`] (`EBADF`), [`FileFault::OtherKind`] (`EBADFD`).
    fn iommufd(&self, fd: i32) -> Result<Arc<Context>, FileFault>;
}

/// Memory that can be pinned: an address space, or a file.
pub trait Source: Send + Sync {
    /// Pins bytes `at..at + length` (virtual address or file offset) for as long as the result lives. The same value
    /// may serve several ranges.
    ///
    /// # Errors
    /// [`PinFault`].
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault>;

    /// What one mapping command named, where that is remembered.
    fn page_set(&self) -> Option<&PageSet> {
        None
    }

    /// What one mapping command named, where that is a dma-buf.
    fn import(&self) -> Option<&Import> {
        None
    }

    /// Whether it is a file, which outlives the process that mapped it.
    fn is_file(&self) -> bool {
        false
    }
}

/// Memory that stays reachable while this value lives, unless its owner takes it away.
pub trait Pinned: Send + Sync {
    /// Reads at `at`, an address as [`Source::pin`] takes it, in what was pinned. Never faults, blocks on no lock of
    /// a core crate.
    ///
    /// # Errors
    /// [`MemoryGone`] where the owner truncated, unmapped or exited.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone>;

    /// Writes at `at`, as [`read`](Self::read).
    ///
    /// # Errors
    /// As there.
    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone>;

    /// Which page is at `at`, an address as [`Source::pin`] takes it; `None` where nobody can tell.
    fn page(&self, at: u64) -> Option<PageIdentity> {
        let _ = at;
        None
    }
}

/// A page, told from every other by what backs it: the same page has the same identity in each mapping of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageIdentity {
    /// What it is of: a file, or an address space where no file backs it.
    pub object: (u64, u64),
    /// Bytes from the beginning of that to the byte asked about.
    pub offset: u64,
}

/// An eventfd.
pub trait Signal: Send + Sync {
    /// Adds one to its count. Cannot fail and does not block.
    fn signal(&self);
}

/// An open file of a virtual machine, kept for as long as this value lives.
pub trait Vm: Send + Sync {
    /// Which VM: two files of one have the same.
    fn id(&self) -> tsm::VmId;
}

impl Contents for dyn Vm {
    /// Which VM.
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_u64(self.id().0);
    }
}

/// What DMA will do with pinned pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinAccess {
    /// Only read them: `FOLL_WRITE` clear.
    Read,
    /// Write them too.
    Write,
}

/// The caller's memory could not be reached: `EFAULT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

/// Memory that was pinned is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryGone;

/// Why a file descriptor did not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// No such descriptor is open.
    Closed,
    /// It is open, and something else.
    OtherKind,
}

/// Why memory could not be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinFault {
    /// Not mapped, not allowed, or its process is gone (`EFAULT`).
    Unmapped,
    /// A mapped device BAR where the platform's `p2p_map` says `linux-7.3` (`EFAULT`).
    DeviceMemory,
    /// A file of a kind that cannot be pinned, or a range past its end (`EINVAL`).
    FileRange,
    /// Out of memory or past a limit (`ENOMEM`).
    Limit,
}
