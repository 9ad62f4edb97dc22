//! Tables without pages that stay linked for a while, because what was unmapped is often mapped again close by.
//!
//! The last few that became empty stay; each further one sends the oldest away. What lies under a leaf larger than a
//! table goes at once.

use super::Mapper;
use crate::entry::Entry;
use crate::tree::load;

/// Tables that may be empty, the oldest at `next`.
#[derive(Debug)]
pub(super) struct IdleTables {
    places: [Option<Place>; PLACES],
    next: usize,
}

/// A table and where it is linked. It may have pages again, or be gone.
#[derive(Clone, Copy, Debug)]
struct Place {
    iova: u64,
    table: u32,
}

impl Default for IdleTables {
    fn default() -> Self {
        Self { places: [None; PLACES], next: 0 }
    }
}

impl Mapper {
    /// Notes that the table at `iova` has no pages any more.
    #[inline]
    pub(super) fn note_empty(&mut self, iova: u64, table: u32) {
        if !std::mem::replace(&mut self.uses.get_mut(table).idle, true) {
            self.keep_idle(iova, table);
        }
    }

    #[cold]
    fn keep_idle(&mut self, iova: u64, table: u32) {
        let next = self.idle.next;
        let oldest = self.idle.places[next].replace(Place { iova, table });
        self.idle.next = (next + 1) % PLACES;
        oldest.into_iter().for_each(|place| self.end_idleness(place));
        if cfg!(loom) {
            // There, every order of unlinking and walking is tried.
            self.drop_idle_tables();
        }
    }

    /// Unlinks all tables that are empty.
    pub(super) fn drop_idle_tables(&mut self) {
        for place in std::mem::take(&mut self.idle).places.into_iter().flatten() {
            self.end_idleness(place);
        }
    }

    fn end_idleness(&mut self, Place { iova, table }: Place) {
        let linked = self.table.tree.level1_word(iova).map(load);
        if linked != Some(Entry::table(table)) {
            return;
        }
        let usage = self.uses.get_mut(table);
        if std::mem::take(&mut usage.idle) && usage.pages == 0 {
            self.drop_table(iova, table, true);
            self.gaps.touch(iova);
        }
    }
}

/// How many may be kept: 32 KiB.
const PLACES: usize = 8;
