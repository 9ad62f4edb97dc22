//! Memory that a device lends as a file, and may take back: a dma-buf.
//!
//! Each command that maps one makes an import of its own. Revoking the buffer ends all imports that there are, for good:
//! page tables lead nowhere there, and the areas stay until the client unmaps them. What is mapped after the buffer is lent
//! again is another import.
//!
//! An import is ended by a count that the address spaces compare under their own lock: it moves first, then each space is
//! looked through ([`AddressSpace::empty_revoked`](crate::address_space::AddressSpace::empty_revoked)), so whoever maps
//! meanwhile either is found there or sees it. A buffer remembers the contexts that mapped it, as it cannot know which
//! address spaces hold copies.
//!
//! `lending` is OBJECTS, a leaf: it is let go of before an address space is looked through. Whoever lends gives the bytes;
//! the test interface's buffers have none. Source: v7.3 `pages.c`, `selftest.c`, `vfio_pci_dmabuf.c`.

use std::sync::{Arc, Weak};

use sync::{Mutex, rank};
use thiserror::Error;

use crate::ioas::Ioas;
use crate::object::Kind;
use crate::{Context, MemoryGone, PinAccess, PinFault, Pinned, Refusal, Source};

/// A buffer that can be mapped through its file.
pub struct DmaBuf {
    /// In bytes, whole pages.
    length: u64,
    lent: Lent,
    lending: Mutex<rank::Objects, Lending>,
}

/// What a buffer is made of.
enum Lent {
    /// Nothing that bytes could be had of.
    Nothing,
    /// One range of a device's memory.
    Range(Arc<dyn Pinned>),
    /// Several, which no address space takes.
    Ranges,
}

/// Whether a buffer can be mapped, how often that changed, and who mapped it.
#[derive(Default)]
struct Lending {
    revoked: bool,
    changes: u64,
    importers: Vec<Weak<Context>>,
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
    /// It is made of several ranges (`EOPNOTSUPP`).
    #[error("the buffer is made of several ranges")]
    SeveralRanges,
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
    /// A buffer of `length` bytes, whole pages, that can be mapped and has no bytes.
    pub(crate) fn new(length: u64) -> Arc<Self> {
        Self::of(length, Lent::Nothing)
    }

    /// A buffer of one range of a device's memory: `length` bytes, whole pages, which `bytes` reaches by their offset in
    /// the buffer. It is lent from the start.
    pub fn of_range(length: u64, bytes: Arc<dyn Pinned>) -> Arc<Self> {
        Self::of(length, Lent::Range(bytes))
    }

    /// A buffer of several ranges of a device's memory, together of `length` bytes, whole pages. Page tables lead to none
    /// of it: mapping it is [`DmaBufRefusal::SeveralRanges`] (`EOPNOTSUPP`).
    pub fn of_ranges(length: u64) -> Arc<Self> {
        Self::of(length, Lent::Ranges)
    }

    fn of(length: u64, lent: Lent) -> Arc<Self> {
        Arc::new(Self { length, lent, lending: Mutex::new(Lending::default()) })
    }

    /// In bytes, whole pages.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Its bytes `start..start + length`, at least one and no address past the top, as one command of `ctx` maps them.
    ///
    /// # Errors
    /// In this order: [`DmaBufRefusal::PastEnd`] (`EINVAL`), [`DmaBufRefusal::Revoked`] (`ENODEV`),
    /// [`DmaBufRefusal::SeveralRanges`] (`EOPNOTSUPP`).
    ///
    /// Takes OBJECTS.
    pub(crate) fn import(
        self: &Arc<Self>,
        ctx: &Arc<Context>,
        start: u64,
        length: u64,
    ) -> Result<Import, Refusal> {
        let end = start.saturating_add(length);
        if end > self.length {
            return Err(DmaBufRefusal::PastEnd { length: self.length, end }.into());
        }
        let mut lending = self.lending.lock();
        if lending.revoked {
            return Err(DmaBufRefusal::Revoked.into());
        }
        if matches!(self.lent, Lent::Ranges) {
            return Err(DmaBufRefusal::SeveralRanges.into());
        }
        lending.importers.retain(|importer| importer.strong_count() > 0);
        let known = |importer: &Weak<Context>| std::ptr::eq(importer.as_ptr(), Arc::as_ptr(ctx));
        if !lending.importers.iter().any(known) {
            lending.importers.push(Arc::downgrade(ctx));
        }
        Ok(Import { buffer: Arc::clone(self), changes: lending.changes })
    }

    /// Takes the buffer back, or lends it again. Either way what is mapped of it leads nowhere any more, for good: when
    /// this returns no DMA reaches it.
    ///
    /// Called with no lock held. Takes OBJECTS, then IOPT_IOVA of one address space at a time, and waits for DMA.
    pub fn set_revoked(&self, revoked: bool) {
        let importers = {
            let mut lending = self.lending.lock();
            lending.revoked = revoked;
            lending.changes += 1;
            lending.importers.clone()
        };
        for ctx in importers.iter().filter_map(Weak::upgrade) {
            let objects = ctx.registry().published();
            objects.iter().filter_map(Ioas::pick).for_each(|ioas| ioas.empty_revoked(&ctx));
        }
    }

    /// Takes the buffer back or lends it again, as [`set_revoked`](Self::set_revoked), unless that is how it stands. The
    /// caller sees to it that nobody else does meanwhile.
    pub fn settle(&self, revoked: bool) {
        let stands = self.lending.lock().revoked;
        if stands != revoked {
            self.set_revoked(revoked);
        }
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
        Ok(Arc::new(Reached(Arc::clone(&self.buffer))))
    }

    fn import(&self) -> Option<&Import> {
        Some(self)
    }
}

/// A buffer that page tables lead to.
struct Reached(Arc<DmaBuf>);

impl Pinned for Reached {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        match &self.0.lent {
            Lent::Range(bytes) => bytes.read(at, into),
            Lent::Nothing | Lent::Ranges => Err(MemoryGone),
        }
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        match &self.0.lent {
            Lent::Range(bytes) => bytes.write(at, from),
            Lent::Nothing | Lent::Ranges => Err(MemoryGone),
        }
    }
}

#[cfg(test)]
mod tests {
    use uapi::Profile;

    use super::*;

    const LENGTH: u64 = 0x4000;

    fn open() -> Arc<Context> {
        Context::open(Profile::default())
    }

    #[test]
    fn import_is_refused_in_order() {
        let (ctx, buffer) = (open(), DmaBuf::of_ranges(LENGTH));
        buffer.set_revoked(true);
        let refused = |start, length| buffer.import(&ctx, start, length).err();
        let past = |end| Some(DmaBufRefusal::PastEnd { length: LENGTH, end }.into());
        assert_eq!(refused(0, LENGTH + 1), past(LENGTH + 1));
        assert_eq!(refused(LENGTH, 1), past(LENGTH + 1));
        assert_eq!(refused(0, LENGTH), Some(DmaBufRefusal::Revoked.into()));
        buffer.set_revoked(false);
        assert_eq!(refused(LENGTH - 1, 1), Some(DmaBufRefusal::SeveralRanges.into()));
        assert!(DmaBuf::new(LENGTH).import(&ctx, LENGTH - 1, 1).is_ok());
    }

    #[test]
    fn import_ends_for_good() {
        let (ctx, buffer) = (open(), DmaBuf::new(LENGTH));
        let import = || buffer.import(&ctx, 0, LENGTH).unwrap();
        let before = import();
        buffer.settle(false);
        assert!(!before.is_ended(), "nothing changed");
        buffer.settle(true);
        assert!(before.is_ended());
        buffer.settle(false);
        assert!(before.is_ended());
        assert!(!import().is_ended());
    }

    #[test]
    fn importers_are_known_once_and_forgotten() {
        let (ctx, buffer) = (open(), DmaBuf::new(LENGTH));
        let known = || buffer.lending.lock().importers.len();
        let imports = [0, 1].map(|_| buffer.import(&ctx, 0, LENGTH).unwrap());
        assert_eq!((known(), imports.len()), (1, 2));
        drop((ctx, imports));
        buffer.import(&open(), 0, LENGTH).unwrap();
        assert_eq!(known(), 1);
    }
}
