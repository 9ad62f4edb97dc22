//! Taking areas out.

use std::ops::Range;

use span::Span;

use super::{IdleTables, Mapper, PageRun, Removed, count_below, next_boundary};
use crate::entry::Entry;
use crate::memory::{AtomicU64, SparseWords, store_series};
use crate::table_use::{PagesInTable, TableUses};
use crate::tag_use::TagUses;
use crate::tree::{LEVEL1_LG2, LEVEL2_LG2, LEVEL3_LG2, load, store};
use crate::{PAGE_LG2, TABLE_ENTRIES, TABLE_LG2};

/// Tables that were unlinked and that walks may still be in, linked through the `next` of
/// their uses.
#[derive(Debug, Default)]
pub struct Retired {
    /// Nothing but zeros is in them.
    zeroed: Option<u32>,
    /// Dropped unread.
    unread: Option<u32>,
    /// How many were dropped unread.
    unread_count: u32,
    /// How many there are.
    count: u32,
}

impl Mapper {
    /// Removes whole areas that lie in one level-0 table and do not fill it. `None` where that is not so.
    #[inline]
    pub(super) fn remove_from_table(&mut self, span: Span) -> Option<Removed> {
        let run = PageRun::covering(span);
        let whole =
            run.first << PAGE_LG2 == span.start() && (run.end << PAGE_LG2) - 1 == span.last();
        let table = self.table_of(run).filter(|_| whole)?;
        let part = run.in_table_of(run.first);
        let usage = self.uses.get_mut(table);
        if part == PagesInTable::ALL || usage.continues_at(part.first) {
            return None;
        }
        let entries = self.table.tree.tables.table(table);
        // The next table is not looked at.
        let cut_at_end = if part.last == TABLE_ENTRIES - 1 {
            let last = load(&entries[part.last]);
            last.is_leaf() && !last.is_last()
        } else {
            usage.continues_at(part.last + 1)
        };
        if cut_at_end {
            return None;
        }
        let given = usage.give_back(part);
        let entries = &entries[part.first..=part.last];
        if usage.mixed {
            tally_each(entries, &mut self.tags);
        } else {
            self.tags.remove(usage.tag, given.areas.into(), given.pages.into());
        }
        store_series(entries, Entry::NOTHING.raw(), 0);
        if usage.pages == 0 {
            self.note_empty(span.start(), table);
        }
        self.gaps.touch(span.start());
        let (areas, pages) = (u64::from(given.areas), u64::from(given.pages));
        Some(Removed { areas, bytes: pages << PAGE_LG2 })
    }

    /// Takes out whatever is in `run`, which cuts no area.
    pub(super) fn clear(&mut self, run: PageRun) -> Removed {
        let mut cleared = Cleared::default();
        let mut page = run.first;
        while page < run.end {
            let skip_lg2 = self.clear_one(page, run, &mut cleared);
            page = next_boundary(page, skip_lg2);
        }
        Removed { areas: cleared.areas, bytes: cleared.pages << PAGE_LG2 }
    }

    /// Takes out the leaf or the part of a table at `page`. Returns the binary logarithm of the
    /// bytes, aligned, in which nothing of the run is left.
    fn clear_one(&mut self, page: u64, run: PageRun, cleared: &mut Cleared) -> u32 {
        let iova = page << PAGE_LG2;
        let tree = &self.table.tree;
        if count_below(&tree.level3, iova, LEVEL3_LG2) == 0 {
            return LEVEL3_LG2;
        }
        let Some(level2) = tree.level2_word(iova).map(load) else { return LEVEL3_LG2 };
        if level2.is_leaf() {
            cleared.note(level2, LEVEL2_LG2, &mut self.tags);
            tree.level2_word(iova).into_iter().for_each(|word| store(word, Entry::NOTHING));
            remove_below(&tree.level3, iova, LEVEL3_LG2);
            self.gaps.touch_huge(iova);
            return LEVEL2_LG2;
        }
        if level2.is_nothing() {
            return LEVEL2_LG2;
        }
        let Some(level1) = tree.level1_word(iova).map(load) else { return LEVEL2_LG2 };
        if level1.is_leaf() {
            cleared.note(level1, LEVEL1_LG2, &mut self.tags);
            self.unlink(iova);
            self.gaps.touch(iova);
        } else if level1.is_table() {
            self.clear_small(level1.index(), page, run, cleared);
            self.gaps.touch(iova);
        }
        LEVEL1_LG2
    }

    /// Takes out small pages: entry by entry, or the whole table unread.
    #[inline]
    fn clear_small(&mut self, table: u32, page: u64, run: PageRun, cleared: &mut Cleared) {
        let part = run.in_table_of(page);
        let usage = self.uses.get_mut(table);
        let whole = part == PagesInTable::ALL;
        let zeroed = !whole || usage.pages == 0;
        let given = if whole { usage.give_back_all() } else { usage.give_back(part) };
        let (areas, pages) = (u64::from(given.areas), u64::from(given.pages));
        cleared.areas += areas;
        cleared.pages += pages;
        let entries = &self.table.tree.tables.table(table)[part.first..=part.last];
        if usage.mixed {
            tally_each(entries, &mut self.tags);
        } else {
            self.tags.remove(usage.tag, areas, pages);
        }
        if whole {
            return self.drop_table(page << PAGE_LG2, table, zeroed);
        }
        store_series(entries, Entry::NOTHING.raw(), 0);
        if usage.pages == 0 {
            self.note_empty(page << PAGE_LG2, table);
        }
    }

    /// Unlinks a table and keeps it until walks that may be in it have ended.
    pub(super) fn drop_table(&mut self, iova: u64, table: u32, zeroed: bool) {
        self.unlink(iova);
        self.tables_linked -= 1;
        self.limbo.count += 1;
        self.limbo.unread_count += u32::from(!zeroed);
        let list = if zeroed { &mut self.limbo.zeroed } else { &mut self.limbo.unread };
        let usage = self.uses.get_mut(table);
        usage.idle = false;
        usage.next = list.replace(table);
    }

    /// Frees tables that no walk is in any more.
    pub(super) fn free(&mut self, mut retired: Retired) {
        let tables = &self.table.tree.tables;
        let is_all = self.tables_linked == 0 && tables.in_use() == retired.count;
        if is_all && retired.unread_count >= RESET_TABLES {
            // None is in use. For many it is cheaper to have the system zero them.
            self.uses = TableUses::default();
            self.idle = IdleTables::default();
            return tables.reset();
        }
        while let Some(table) = retired.zeroed {
            retired.zeroed = self.uses.get_mut(table).next.take();
            tables.free_zeroed(table);
        }
        while let Some(table) = retired.unread {
            retired.unread = self.uses.get_mut(table).next.take();
            tables.free(table);
        }
    }

    /// Empties level 1 and what is above, without reading level 1.
    pub(super) fn discard_upper_levels(&self) {
        let tree = &self.table.tree;
        for index3 in 0..tree.level3.length() {
            if load(&tree.level3.slice(index3..index3 + 1)[0]).is_nothing() {
                continue;
            }
            let end = ((index3 + 1) << TABLE_LG2).min(tree.level2.length());
            let mut at = index3 << TABLE_LG2;
            while at < end {
                let used = run_of(&tree.level2, at..end, true);
                let level1 = used.start << TABLE_LG2..used.end << TABLE_LG2;
                tree.level1.discard(level1);
                tree.level2.discard(used.clone());
                at = run_of(&tree.level2, used.end..end, false).end;
            }
        }
        tree.level3.discard(0..tree.level3.length());
    }

    /// Empties a level-1 entry, and counts what that means further up.
    fn unlink(&self, iova: u64) {
        let tree = &self.table.tree;
        tree.level1_word(iova).into_iter().for_each(|word| store(word, Entry::NOTHING));
        if remove_below(&tree.level2, iova, LEVEL2_LG2) == 0 {
            remove_below(&tree.level3, iova, LEVEL3_LG2);
        }
    }
}

/// The words at the start of `range` that are in use, or are not.
fn run_of(words: &SparseWords, range: Range<usize>, used: bool) -> Range<usize> {
    let differs = |word: &AtomicU64| load(word).is_nothing() == used;
    let length = words.slice(range.clone()).iter().position(differs);
    range.start..length.map_or(range.end, |length| range.start + length)
}

/// What a clearing met so far.
#[derive(Default)]
struct Cleared {
    areas: u64,
    pages: u64,
}

impl Cleared {
    fn note(&mut self, leaf: Entry, size_lg2: u32, tags: &mut TagUses) {
        let (areas, pages) = (u64::from(leaf.is_first()), 1 << (size_lg2 - PAGE_LG2));
        self.pages += pages;
        self.areas += areas;
        tags.remove(leaf.tag(), areas, pages);
    }
}

/// Takes entries about to be emptied off what is counted of their tags.
#[cold]
fn tally_each(entries: &[AtomicU64], tags: &mut TagUses) {
    for leaf in entries.iter().map(load).filter(|leaf| leaf.is_leaf()) {
        tags.remove(leaf.tag(), leaf.is_first().into(), 1);
    }
}

/// Takes one off the count of entries in use below; returns what is left.
fn remove_below(words: &SparseWords, iova: u64, size_lg2: u32) -> u64 {
    let Some(word) = words.get(iova >> size_lg2) else { return 0 };
    let count = load(word).below().saturating_sub(1);
    store(word, Entry::in_use_below(count));
    count
}

/// From how many tables on giving memory back is worth a system call.
const RESET_TABLES: u32 = 64;
