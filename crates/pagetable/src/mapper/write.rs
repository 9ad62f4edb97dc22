//! Writing the leaves of an area.

use super::{Mapper, PageRun, table_start};
use crate::entry::{Entry, Target};
use crate::memory::{AtomicU64, SparseWords};
use crate::tree::{LEVEL1_LG2, LEVEL2_LG2, LEVEL3_LG2, load, store};
use crate::{LeafSize, PAGE_LG2};

impl Mapper {
    /// Writes the leaves for `run`, which is free. Returns how many pages were written: fewer than
    /// all only where tables ran out.
    pub(super) fn write_area(&mut self, run: PageRun, target: Target) -> u64 {
        let first = Entry::leaf(target);
        let mut page = run.first;
        while page < run.end {
            let leaf = first.further(page - run.first);
            page = match self.leaf_size(page, run, leaf) {
                LeafSize::Huge => self.write_huge(page, run, leaf),
                LeafSize::Large => self.write_large(page, run, leaf),
                LeafSize::Small => match self.write_small(page, run, leaf) {
                    Some(next) => next,
                    None => break,
                },
            };
        }
        page - run.first
    }

    /// The largest leaf that can start at `page`.
    fn leaf_size(&self, page: u64, run: PageRun, leaf: Entry) -> LeafSize {
        let alignment_lg2 = (page << PAGE_LG2 | leaf.output()).trailing_zeros();
        let left = (run.end - page) << PAGE_LG2;
        let fits = |size_lg2: u32| alignment_lg2 >= size_lg2 && left >> size_lg2 != 0;
        let largest = self.table.shape.largest_leaf;
        if largest >= LeafSize::Huge && fits(LEVEL2_LG2) {
            LeafSize::Huge
        } else if largest >= LeafSize::Large && fits(LEVEL1_LG2) {
            LeafSize::Large
        } else {
            LeafSize::Small
        }
    }

    fn write_huge(&mut self, page: u64, run: PageRun, leaf: Entry) -> u64 {
        let iova = page << PAGE_LG2;
        let end = page + (1 << (LEVEL2_LG2 - PAGE_LG2));
        if let Some(word) = self.table.tree.level2_word(iova) {
            store(word, bounded(leaf, page, end, run));
            add_below(&self.table.tree.level3, iova, LEVEL3_LG2);
        }
        self.gaps.touch_huge(iova);
        end
    }

    fn write_large(&mut self, page: u64, run: PageRun, leaf: Entry) -> u64 {
        let iova = page << PAGE_LG2;
        let end = page + (1 << (LEVEL1_LG2 - PAGE_LG2));
        if let Some(word) = self.table.tree.level1_word(iova) {
            store(word, bounded(leaf, page, end, run));
            self.count_level1(iova);
        }
        self.gaps.touch(iova);
        end
    }

    /// Writes small pages up to the end of the run or of the table. `None` where there is no table
    /// to be had.
    #[inline]
    fn write_small(&mut self, page: u64, run: PageRun, leaf: Entry) -> Option<u64> {
        let iova = page << PAGE_LG2;
        let linked = self.table.tree.level1_word(iova).map(load)?;
        let table = if linked.is_table() { linked.index() } else { self.take_table()? };
        let part = run.in_table_of(page);
        let entries = &self.table.tree.tables.table(table)[part.first..=part.last];
        fill(entries, leaf);
        let end = table_start(page) + part.last as u64 + 1;
        let ends_here = end == run.end;
        let starts_here = page == run.first;
        mark_ends(entries, starts_here, ends_here);
        let usage = self.uses.get_mut(table);
        usage.note_tag(leaf.tag());
        usage.take(part);
        usage.areas += u16::from(starts_here);
        if !linked.is_table() {
            self.link(iova, table);
        }
        self.gaps.touch(iova);
        Some(end)
    }

    /// A table of zeros.
    fn take_table(&mut self) -> Option<u32> {
        let taken = self.table.tree.tables.allocate()?;
        self.uses.reserve(taken);
        Some(taken)
    }

    fn link(&mut self, iova: u64, table: u32) {
        self.totals.tables += 1;
        if let Some(word) = self.table.tree.level1_word(iova) {
            store(word, Entry::table(table));
            self.count_level1(iova);
        }
    }

    /// Counts one more level-1 entry in use, and what that means further up.
    fn count_level1(&self, iova: u64) {
        if add_below(&self.table.tree.level2, iova, LEVEL2_LG2) == 1 {
            add_below(&self.table.tree.level3, iova, LEVEL3_LG2);
        }
    }
}

/// Writes a whole area.
#[inline]
pub(super) fn fill_area(entries: &[AtomicU64], target: Target) {
    let first = Entry::leaf(target);
    if let [only] = entries {
        return store(only, first.starting_area().ending_area());
    }
    fill(entries, first);
    mark_ends(entries, true, true);
}

#[inline]
fn fill(entries: &[AtomicU64], first: Entry) {
    for (index, word) in entries.iter().enumerate() {
        store(word, first.further(index as u64));
    }
}

#[inline]
fn mark_ends(entries: &[AtomicU64], first: bool, last: bool) {
    if first && let Some(word) = entries.first() {
        store(word, load(word).starting_area());
    }
    if last && let Some(word) = entries.last() {
        store(word, load(word).ending_area());
    }
}

/// `leaf`, which covers `page` to before `end`, with the boundaries of the area `run`.
const fn bounded(leaf: Entry, page: u64, end: u64, run: PageRun) -> Entry {
    let leaf = if page == run.first { leaf.starting_area() } else { leaf };
    if end == run.end { leaf.ending_area() } else { leaf }
}

/// Adds one to the count of entries in use below; returns the new count.
fn add_below(words: &SparseWords, iova: u64, size_lg2: u32) -> u64 {
    let Some(word) = words.get(iova >> size_lg2) else { return 0 };
    let count = load(word).below() + 1;
    store(word, Entry::in_use_below(count));
    count
}
