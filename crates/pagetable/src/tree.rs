//! The radix itself: four levels of 512 entries, and how an address finds its leaf.
//!
//! Level 0 holds leaves of 4 KiB, level 1 of 2 MiB, level 2 of 1 GiB; level 3 only counts what is in
//! use below. Tables of level 0 come from a slab and are named by index. Tables of the other levels
//! lie where their address says, in one long array for each level, so that a look-up begins at level 1
//! and a small page is found with two loads, one after the other, not four. Unused stretches of the arrays take no memory.
//!
//! A leaf of any size leads to any page: where memory is not as aligned as a hardware's large leaf would need, one
//! leaf serves here, and is cut where the table is written out in a format.
//!
//! Takes no lock. All loads that lead on are acquiring, all stores that make something visible
//! releasing; nobody reads and modifies a word in one step.

use std::io;

use crate::entry::Entry;
use crate::memory::{AtomicU64, Ordering, SparseWords, TableSlab};
use crate::{PAGE_LG2, Shape, TABLE_ENTRIES, TABLE_LG2};

/// Binary logarithms of how much a leaf of each level covers, in bytes.
pub(crate) const LEVEL1_LG2: u32 = PAGE_LG2 + TABLE_LG2;
pub(crate) const LEVEL2_LG2: u32 = LEVEL1_LG2 + TABLE_LG2;
pub(crate) const LEVEL3_LG2: u32 = LEVEL2_LG2 + TABLE_LG2;

/// The words of all levels.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Each says how many of its 512 level-2 entries are in use.
    pub(crate) level3: SparseWords,
    /// Each a leaf, or says how many of its 512 level-1 entries are in use.
    pub(crate) level2: SparseWords,
    /// Each a leaf, or names a table.
    pub(crate) level1: SparseWords,
    /// Leaves only.
    pub(crate) tables: TableSlab,
}

/// A leaf as a look-up finds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) leaf: Entry,
    /// Binary logarithm of the bytes that it covers.
    pub(crate) size_lg2: u32,
}

impl Found {
    pub(crate) const fn start(self, iova: u64) -> u64 {
        iova >> self.size_lg2 << self.size_lg2
    }

    pub(crate) const fn last(self, iova: u64) -> u64 {
        iova | self.offset_mask()
    }

    /// Where the byte at `iova` is.
    pub(crate) const fn output(self, iova: u64) -> u64 {
        self.leaf.output() + (iova & self.offset_mask())
    }

    const fn offset_mask(self) -> u64 {
        (1 << self.size_lg2) - 1
    }
}

impl Tree {
    pub(crate) fn new(shape: &Shape) -> io::Result<Self> {
        let words =
            |size_lg2: u32| SparseWords::new(1 << shape.address_bits.saturating_sub(size_lg2));
        Ok(Self {
            level3: words(LEVEL3_LG2)?,
            level2: words(LEVEL2_LG2)?,
            level1: words(LEVEL1_LG2)?,
            tables: TableSlab::new(shape.tables_max)?,
        })
    }

    /// The leaf that covers `iova`.
    #[inline]
    pub(crate) fn find(&self, iova: u64) -> Option<Found> {
        let level1 = load(self.level1.get(iova >> LEVEL1_LG2)?);
        if level1.is_table() {
            let leaf = load(&self.tables.table(level1.index())[index_in_table(iova)]);
            return (!leaf.is_nothing()).then_some(Found { leaf, size_lg2: PAGE_LG2 });
        }
        if level1.is_leaf() {
            return Some(Found { leaf: level1, size_lg2: LEVEL1_LG2 });
        }
        // Below a leaf of level 2, level 1 is empty.
        let level2 = load(self.level2.get(iova >> LEVEL2_LG2)?);
        level2.is_leaf().then_some(Found { leaf: level2, size_lg2: LEVEL2_LG2 })
    }

    /// The table of level 0 for `iova`, if it has one.
    #[inline]
    pub(crate) fn table(&self, iova: u64) -> Option<&[AtomicU64; TABLE_ENTRIES]> {
        let level1 = load(self.level1.get(iova >> LEVEL1_LG2)?);
        level1.is_table().then(|| self.tables.table(level1.index()))
    }
}

#[inline]
pub(crate) fn load(word: &AtomicU64) -> Entry {
    Entry::from_raw(word.load(Ordering::Acquire))
}

#[inline]
pub(crate) fn store(word: &AtomicU64, entry: Entry) {
    word.store(entry.raw(), Ordering::Release);
}

/// Which of a level-0 table's entries is the one for `iova`.
#[inline]
pub(crate) const fn index_in_table(iova: u64) -> usize {
    (iova >> PAGE_LG2) as usize & (TABLE_ENTRIES - 1)
}
