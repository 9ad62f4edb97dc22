//! Pinned memory that can be put elsewhere while devices use it.
//!
//! DMA that runs ends where it began; what begins later finds the new place. The lock is `OBJECTS`, a leaf, held for
//! the length of a look.

use std::sync::Arc;

use iommufd::{MemoryGone, PinAccess, PinFault, Pinned, Source};
use sync::{Mutex, rank};

/// Where an entry's memory is.
pub(super) struct Movable {
    /// Virtual address of the first byte when it was mapped: what the entry's addresses are told by.
    mapped_at: u64,
    place: Mutex<rank::Objects, Option<Place>>,
}

#[derive(Clone)]
struct Place {
    pinned: Arc<dyn Pinned>,
    /// Virtual address of the first byte now.
    at: u64,
}

/// Memory whose pins can be moved.
pub(super) struct MovableSource {
    source: Arc<dyn Source>,
    memory: Arc<Movable>,
}

impl Movable {
    /// Of an entry mapped from `mapped_at` on; nowhere yet.
    pub(super) fn new(mapped_at: u64) -> Arc<Self> {
        Arc::new(Self { mapped_at, place: Mutex::new(None) })
    }

    /// Says where it is from now on: at virtual address `at`.
    pub(super) fn put(&self, at: u64, pinned: Arc<dyn Pinned>) {
        let before = self.place.lock().replace(Place { pinned, at });
        drop(before);
    }

    /// Where what was mapped at `address` is now.
    fn now(&self, address: u64) -> Result<(Arc<dyn Pinned>, u64), MemoryGone> {
        let Place { pinned, at } = self.place.lock().clone().ok_or(MemoryGone)?;
        Ok((pinned, at.wrapping_add(address.wrapping_sub(self.mapped_at))))
    }
}

impl Pinned for Movable {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        let (pinned, at) = self.now(at)?;
        pinned.read(at, into)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        let (pinned, at) = self.now(at)?;
        pinned.write(at, from)
    }
}

impl MovableSource {
    /// Memory of `source` whose place `memory` tells once it is pinned.
    pub(super) fn new(source: Arc<dyn Source>, memory: &Arc<Movable>) -> Self {
        Self { source, memory: Arc::clone(memory) }
    }
}

impl Source for MovableSource {
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        let pinned = self.source.pin(at, length, access)?;
        self.memory.put(self.memory.mapped_at, pinned);
        Ok(Arc::clone(&self.memory) as Arc<dyn Pinned>)
    }
}
