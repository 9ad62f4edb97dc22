//! Writing the leaves of an area.

use super::{Mapper, PageRun, table_start};
use crate::entry::{Entry, Target};
use crate::memory::{AtomicU64, SparseWords, store_series};
use crate::tree::{LEVEL1_LG2, LEVEL2_LG2, LEVEL3_LG2, load, store};
use crate::{LeafSize, PAGE_LG2};

impl Mapper {
    /// Inserts an area that lies in a level-0 table which is there already. Returns whether it did.
    #[inline]
    pub(super) fn insert_into_table(&mut self, run: PageRun, target: Target) -> bool {
        let Some(table) = self.table_of(run) else { return false };
        let part = run.in_table_of(run.first);
        let usage = self.uses.get_mut(table);
        if usage.first_used(part).is_some() {
            return false;
        }
        usage.note_tag(target.tag);
        usage.take(part, true);
        let entries = &self.table.tree.tables.table(table)[part.first..=part.last];
        fill(entries, Entry::leaf(target), true, true);
        self.gaps.touch(run.first << PAGE_LG2);
        self.tags.add(target.tag, 1, run.count());
        true
    }

    /// Writes the leaves for `run`, which is free. Returns how many pages were written: fewer than
    /// all only where tables ran out.
    pub(super) fn write_area(&mut self, run: PageRun, target: Target) -> u64 {
        let first = Entry::leaf(target);
        let mut page = run.first;
        while page < run.end {
            let leaf = first.further(page - run.first);
            page = match self.leaf_size(page, run) {
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

    /// The largest leaf that can start at `page`, wherever it leads.
    fn leaf_size(&self, page: u64, run: PageRun) -> LeafSize {
        let alignment_lg2 = (page << PAGE_LG2).trailing_zeros();
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
        let below = self.table.tree.level2_word(iova).map(load);
        self.clear_idle(below, page, end);
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
        let linked = self.table.tree.level1_word(iova).map(load);
        self.clear_idle(linked, page, end);
        if let Some(word) = self.table.tree.level1_word(iova) {
            store(word, bounded(leaf, page, end, run));
            self.count_level1(iova);
        }
        self.gaps.touch(iova);
        end
    }

    /// Unlinks what `word`, to be a leaf for the free pages from `page` on, leads to: tables without pages.
    fn clear_idle(&mut self, word: Option<Entry>, page: u64, end: u64) {
        if word.is_some_and(Entry::is_table)
            && let Some(run) = PageRun::new(page, end)
        {
            self.clear(run);
        }
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
        let end = table_start(page) + part.last as u64 + 1;
        let starts_here = page == run.first;
        fill(entries, leaf, starts_here, end == run.end);
        let usage = self.uses.get_mut(table);
        usage.note_tag(leaf.tag());
        usage.take(part, starts_here);
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
        self.tables_linked += 1;
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

/// Writes leaves that follow one another, the first of which is `first` but for the bounds of its area.
#[inline]
fn fill(entries: &[AtomicU64], first: Entry, starts_here: bool, ends_here: bool) {
    let first = if starts_here { first.starting_area() } else { first };
    match entries {
        [only] => store(only, if ends_here { first.ending_area() } else { first }),
        _ => fill_several(entries, first, ends_here),
    }
}

#[inline(never)]
fn fill_several(entries: &[AtomicU64], first: Entry, ends_here: bool) {
    if let [start, middle @ .., end] = entries {
        let last = first.inside_area().further(middle.len() as u64 + 1);
        store(start, first);
        store_series(middle, first.inside_area().further(1).raw(), PAGE_BYTES);
        store(end, if ends_here { last.ending_area() } else { last });
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

/// How much further the next page's leaf leads.
const PAGE_BYTES: u64 = 1 << PAGE_LG2;
