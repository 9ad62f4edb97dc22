//! Pinned memory that can be put elsewhere while devices use it.
//!
//! DMA that runs ends where it began; what begins later finds the new place. The lock is `OBJECTS`, a leaf, held for
//! the length of a look.

use std::sync::Arc;

use iommufd::{MemoryGone, PinAccess, PinFault, Pinned, Source};
use sync::{Mutex, rank};

/// Where an entry's memory is.
pub(super) struct Movable(Mutex<rank::Objects, Option<Arc<dyn Pinned>>>);

/// Memory whose pins can be moved.
pub(super) struct MovableSource {
    source: Arc<dyn Source>,
    memory: Arc<Movable>,
}

impl Movable {
    /// Nowhere yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(None)))
    }

    /// Says where it is from now on.
    pub(super) fn put(&self, pinned: Arc<dyn Pinned>) {
        let before = self.0.lock().replace(pinned);
        drop(before);
    }

    fn now(&self) -> Result<Arc<dyn Pinned>, MemoryGone> {
        self.0.lock().clone().ok_or(MemoryGone)
    }
}

impl Pinned for Movable {
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.now()?.read(offset, into)
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), MemoryGone> {
        self.now()?.write(offset, from)
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
        self.memory.put(self.source.pin(at, length, access)?);
        Ok(Arc::clone(&self.memory) as Arc<dyn Pinned>)
    }
}
