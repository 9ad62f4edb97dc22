//! Memory that a device lends as a file, and may take back: a dma-buf.
//!
//! Each command that maps one makes an import of its own. Revoking the buffer ends all imports that there are, for good:
//! page tables lead nowhere there, and the areas stay until the client unmaps them. What is mapped after the buffer is lent
//! again is another import.
//!
//! An import is ended by a count that the address spaces compare under their own lock: it moves first, then each space is
//! looked through ([`AddressSpace::empty_revoked`](crate::address_space::AddressSpace::empty_revoked)), so whoever maps
//! meanwhile either is found there or sees it. `lending` is OBJECTS, a leaf. Deliberately absent: the bytes, which nothing
//! here reads or writes. Source: v7.3 `pages.c`, `selftest.c`.

use std::sync::Arc;

use sync::{Mutex, rank};
use thiserror::Error;

use crate::{MemoryGone, PinAccess, PinFault, Pinned, Refusal, Source};

/// A buffer that can be mapped through its file.
pub struct DmaBuf {
    /// In bytes, whole pages.
    length: u64,
    lending: Mutex<rank::Objects, Lending>,
}

/// Whether a buffer can be mapped, and how often that changed.
#[derive(Default)]
struct Lending {
    revoked: bool,
    changes: u64,
}

/// A buffer as one command mapped it.
pub struct Import {
    buffer: Arc<DmaBuf>,
    /// How often the buffer had been revoked or lent again.
    changes: u64,
}

/// What a buffer is not for. Carries what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DmaBufRefusal {
    /// It ends before (`EINVAL`).
    #[error("the buffer has {length:#x} bytes, fewer than {end:#x}")]
    PastEnd {
        /// Bytes of it.
        length: u64,
        /// Bytes that it would need.
        end: u64,
    },
    /// It was taken back (`ENODEV`).
    #[error("the buffer is revoked")]
    Revoked,
    /// Software does not reach into it (`EINVAL`).
    #[error("a buffer of a device is mapped at {iova:#x}, where an access would go")]
    NotForSoftware {
        /// Where.
        iova: u64,
    },
    /// An area of it is not cut (`EOPNOTSUPP`).
    #[error("an area of a device's buffer cannot be cut")]
    NotCut,
}

impl DmaBuf {
    /// A buffer of `length` bytes, whole pages, that can be mapped.
    pub(crate) fn new(length: u64) -> Arc<Self> {
        Arc::new(Self { length, lending: Mutex::new(Lending::default()) })
    }

    /// In bytes, whole pages.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Its bytes `start..start + length`, at least one and no address past the top, as one command maps them.
    ///
    /// # Errors
    /// In this order: [`DmaBufRefusal::PastEnd`] (`EINVAL`), [`DmaBufRefusal::Revoked`] (`ENODEV`).
    ///
    /// Takes OBJECTS.
    pub(crate) fn import(self: &Arc<Self>, start: u64, length: u64) -> Result<Import, Refusal> {
        let end = start.saturating_add(length);
        if end > self.length {
            return Err(DmaBufRefusal::PastEnd { length: self.length, end }.into());
        }
        let lending = self.lending.lock();
        if lending.revoked {
            return Err(DmaBufRefusal::Revoked.into());
        }
        Ok(Import { buffer: Arc::clone(self), changes: lending.changes })
    }

    /// Takes the buffer back, or lends it again. Either ends the imports that there are; address spaces still have to be
    /// looked through.
    ///
    /// Takes OBJECTS.
    pub(crate) fn set_revoked(&self, revoked: bool) {
        let mut lending = self.lending.lock();
        lending.revoked = revoked;
        lending.changes += 1;
    }
}

impl Import {
    /// Whether the buffer was taken back since.
    ///
    /// Takes OBJECTS.
    pub(crate) fn is_ended(&self) -> bool {
        self.buffer.lending.lock().changes != self.changes
    }
}

impl Source for Import {
    /// What an ended import gives is let into no map.
    fn pin(&self, _: u64, _: u64, _: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        Ok(Arc::new(Lent(Arc::clone(&self.buffer))))
    }

    fn import(&self) -> Option<&Import> {
        Some(self)
    }
}

/// A buffer that page tables lead to.
struct Lent(#[expect(dead_code, reason = "keeps the buffer while it is mapped")] Arc<DmaBuf>);

/// No byte of it is to be had.
impl Pinned for Lent {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), MemoryGone> {
        Err(MemoryGone)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryGone> {
        Err(MemoryGone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 0x4000;

    #[test]
    fn import_is_refused_in_order() {
        let buffer = DmaBuf::new(LENGTH);
        buffer.set_revoked(true);
        let refused = |start, length| buffer.import(start, length).err();
        let past = |end| Some(DmaBufRefusal::PastEnd { length: LENGTH, end }.into());
        assert_eq!(refused(0, LENGTH + 1), past(LENGTH + 1));
        assert_eq!(refused(LENGTH, 1), past(LENGTH + 1));
        assert_eq!(refused(0, LENGTH), Some(DmaBufRefusal::Revoked.into()));
        buffer.set_revoked(false);
        assert_eq!(refused(LENGTH - 1, 1), None);
    }

    #[test]
    fn import_ends_for_good() {
        let buffer = DmaBuf::new(LENGTH);
        let before = buffer.import(0, LENGTH).unwrap();
        assert!(!before.is_ended());
        buffer.set_revoked(true);
        assert!(before.is_ended());
        buffer.set_revoked(false);
        assert!(before.is_ended());
        assert!(!buffer.import(0, LENGTH).unwrap().is_ended());
    }
}
