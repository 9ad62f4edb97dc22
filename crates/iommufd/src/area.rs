//! One mapping: which memory, and what devices may do to it.
//!
//! An area knows where its memory comes from; whether that memory is pinned right now is the IOVA map's
//! business, as it is a page table's in hardware. Takes no lock.

use std::sync::Arc;

use pci::DmaAccess;
use uapi::iommufd::map_flags;

use crate::{PAGE_SIZE, PinAccess, Pinned, Quota, Refusal, Resource, Source};

/// Memory that is mapped, or about to be.
#[derive(Clone)]
pub(crate) struct Area {
    pub(crate) source: Arc<dyn Source>,
    /// Virtual address or file offset of the first byte.
    pub(crate) at: u64,
    /// In bytes, at least one.
    pub(crate) length: u64,
    pub(crate) rights: Rights,
    /// Whether the memory was mapped for writing when a client first named it, so that copies may be.
    pub(crate) writable: bool,
}

impl Area {
    /// The `length` bytes of `source` from `at` on.
    ///
    /// # Errors
    /// [`Refusal::Empty`], [`Refusal::TooLong`] (`EINVAL`). Whether `at` plus `length` passes the top is the
    /// commands' to check: they differ in when.
    pub(crate) fn new(
        source: Arc<dyn Source>,
        at: u64,
        length: u64,
        rights: Rights,
    ) -> Result<Self, Refusal> {
        if length == 0 {
            return Err(Refusal::Empty);
        }
        if length > LENGTH_MAX {
            return Err(Refusal::TooLong { length });
        }
        Ok(Self { source, at, length, rights, writable: rights.write })
    }

    /// Its `length` bytes from `offset` on, which it has.
    pub(crate) fn part(&self, offset: u64, length: u64) -> Self {
        Self { at: self.at + offset, length, ..self.clone() }
    }

    /// Virtual address or file offset of the first byte.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Bytes, at least one.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// How far into its page the first byte lies.
    pub(crate) const fn page_offset(&self) -> u64 {
        self.at % PAGE_SIZE
    }

    /// What devices may do.
    pub(crate) const fn rights(&self) -> Rights {
        self.rights
    }

    /// Whether both are the same bytes of the same memory, with the same rights.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
            && (self.at, self.length, self.rights, self.writable)
                == (other.at, other.length, other.rights, other.writable)
    }

    /// Pins all of it. Called with no lock held: it may take as long as the client's memory does.
    ///
    /// # Errors
    /// [`Refusal::Exhausted`] (`ENOMEM`), [`Refusal::Pin`] (`EFAULT`, `EINVAL`, `ENOMEM`).
    pub(crate) fn pin(&self, quota: &dyn Quota) -> Result<Arc<dyn Pinned>, Refusal> {
        quota.admit(Resource::Pages, 1)?;
        let access = if self.writable { PinAccess::Write } else { PinAccess::Read };
        Ok(self.source.pin(self.at, self.length, access)?)
    }
}

/// The most bytes of an area: rounding up to pages must not pass the top.
const LENGTH_MAX: u64 = u64::MAX - PAGE_SIZE;

/// What devices may do to an area: at least one of the two, but where type1 maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Rights {
    /// What the flags of a mapping command grant.
    ///
    /// # Errors
    /// [`Refusal::NoAccess`] (`EINVAL`).
    pub(crate) const fn from_flags(flags: u32) -> Result<Self, Refusal> {
        let read = flags & map_flags::READABLE != 0;
        let write = flags & map_flags::WRITEABLE != 0;
        if read || write { Ok(Self { read, write }) } else { Err(Refusal::NoAccess) }
    }

    /// Whether a device may do this.
    pub(crate) const fn allow(self, access: DmaAccess) -> bool {
        match access {
            DmaAccess::Read => self.read,
            DmaAccess::Write => self.write,
        }
    }
}
