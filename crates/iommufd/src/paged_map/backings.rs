//! Which memory the areas of a map lead to: a record for each, named by the tag in the areas' leaves.
//!
//! A record is shared by all areas of one memory, so there are few. One that no area names any more keeps its tag
//! until readers have left, because they may still come with it. Takes no lock: it lives behind one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::area::Area;
use crate::{Pinned, Source};

/// What areas lead to.
#[derive(Clone)]
pub(super) struct Backing {
    pub(super) source: Arc<dyn Source>,
    /// Whether copies of the area may be for writing.
    pub(super) writable: bool,
    /// `None` where nothing is pinned.
    pub(super) memory: Option<Arc<dyn Pinned>>,
}

/// All records, by tag.
#[derive(Default)]
pub(super) struct Backings {
    slots: Vec<Slot>,
    free: Vec<u16>,
    by_key: BTreeMap<Key, u16>,
    /// The record asked for last.
    last: Option<(Key, u16)>,
    /// How many have memory.
    pinned: usize,
}

enum Slot {
    Live(Backing),
    /// No area names it; readers may.
    Retired,
    Free,
}

/// What tells records apart: where source and memory are, and what copies may be.
type Key = (usize, usize, bool);

/// Tags are below this.
const TAGS_MAX: usize = 1 << 12;

impl Backing {
    pub(super) fn of(area: &Area, memory: Option<Arc<dyn Pinned>>) -> Self {
        Self { source: Arc::clone(&area.source), writable: area.writable, memory }
    }

    fn key(&self) -> Key {
        let memory = self.memory.as_ref().map_or(0, |memory| Arc::as_ptr(memory).addr());
        (Arc::as_ptr(&self.source).addr(), memory, self.writable)
    }
}

impl Backings {
    /// The tag of a record like this one. `None` where there are too many.
    pub(super) fn tag_of(&mut self, backing: Backing) -> Option<u16> {
        let key = backing.key();
        if let Some((_, tag)) = self.last.filter(|(last, _)| *last == key) {
            return Some(tag);
        }
        let tag = match self.by_key.get(&key) {
            Some(tag) => *tag,
            None => self.add(key, backing)?,
        };
        self.last = Some((key, tag));
        Some(tag)
    }

    /// A record that areas name.
    pub(super) fn get(&self, tag: u16) -> Option<&Backing> {
        match self.slots.get(usize::from(tag))? {
            Slot::Live(backing) => Some(backing),
            Slot::Retired | Slot::Free => None,
        }
    }

    /// The memory that a leaf with this tag leads to.
    pub(super) fn memory(&self, tag: u16) -> Option<Arc<dyn Pinned>> {
        self.get(tag)?.memory.clone()
    }

    /// Whether any memory is pinned.
    pub(super) const fn any_pinned(&self) -> bool {
        self.pinned > 0
    }

    /// Tags whose memory is pinned.
    pub(super) fn pinned(&self) -> impl Iterator<Item = u16> {
        let live = (0..).zip(&self.slots);
        live.filter(|(_, slot)| matches!(slot, Slot::Live(Backing { memory: Some(_), .. })))
            .map(|(tag, _)| tag)
    }

    /// Takes out the record that no area names any more. Its tag is not used before it is [freed](Self::free).
    pub(super) fn retire(&mut self, tag: u16) -> Option<Backing> {
        let slot = self.slots.get_mut(usize::from(tag))?;
        match std::mem::replace(slot, Slot::Retired) {
            Slot::Live(backing) => {
                let key = backing.key();
                if self.by_key.get(&key) == Some(&tag) {
                    self.by_key.remove(&key);
                }
                self.last = None;
                self.pinned -= usize::from(backing.memory.is_some());
                Some(backing)
            }
            other @ (Slot::Retired | Slot::Free) => {
                *slot = other;
                None
            }
        }
    }

    /// Gives back a retired tag that no reader can come with any more.
    pub(super) fn free(&mut self, tag: u16) {
        if let Some(slot @ Slot::Retired) = self.slots.get_mut(usize::from(tag)) {
            *slot = Slot::Free;
            self.free.push(tag);
        }
    }

    /// Takes the memory of all records out of them.
    pub(super) fn empty_all(&mut self) -> Vec<Arc<dyn Pinned>> {
        self.by_key.clear();
        (self.last, self.pinned) = (None, 0);
        let mut memories = Vec::new();
        for (tag, slot) in (0..).zip(&mut self.slots) {
            if let Slot::Live(backing) = slot {
                memories.extend(backing.memory.take());
                self.by_key.insert(backing.key(), tag);
            }
        }
        memories
    }

    fn add(&mut self, key: Key, backing: Backing) -> Option<u16> {
        let tag = match self.free.pop() {
            Some(tag) => tag,
            None => {
                let tag =
                    u16::try_from(self.slots.len()).ok().filter(|_| self.slots.len() < TAGS_MAX)?;
                self.slots.push(Slot::Free);
                tag
            }
        };
        self.pinned += usize::from(backing.memory.is_some());
        self.slots[usize::from(tag)] = Slot::Live(backing);
        self.by_key.insert(key, tag);
        Some(tag)
    }
}
