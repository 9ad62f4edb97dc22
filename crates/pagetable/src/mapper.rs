//! The side of the table that changes it.

mod clear;
mod write;

use std::io;
use std::sync::Arc;

use span::Span;

use crate::entry::{Entry, OUTPUT_END, Permission, TAG_END, Target};
use crate::format::Leaf;
use crate::gaps::{Fit, Gaps};
use crate::memory::{AtomicU64, SparseWords};
use crate::table_use::{PagesInTable, TableUse};
use crate::tag_use::{TagUse, TagUses};
use crate::tree::{Found, LEVEL1_LG2, LEVEL2_LG2, LEVEL3_LG2, Tree, load, store};
use crate::{PAGE_LG2, PageTable, TABLE_ENTRIES, TABLE_LG2};

/// The one handle that changes a table. Several threads share it in a lock of their own.
///
/// Removing allocates nothing and cannot fail for lack of memory.
#[derive(Debug)]
pub struct Mapper {
    table: Arc<PageTable>,
    uses: TableUses,
    gaps: Gaps,
    limbo: Retired,
    totals: Totals,
    tags: TagUses,
}

/// An area: what one [`Mapper::insert`] made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Its I/O virtual addresses.
    pub span: Span,
    /// Where it leads.
    pub target: Target,
}

/// What was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Areas.
    pub areas: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Why an area was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The span or the output address is not whole pages, or the tag is too large.
    #[error("{0} or its target is not made of whole pages")]
    Misaligned(Span),
    /// The span or the output reaches beyond what a table can hold.
    #[error("{0} or its target lies beyond the aperture")]
    OutsideAperture(Span),
    /// An area is in the way.
    #[error("{asked} meets an area at {iova:#x}")]
    Overlap {
        /// What was to be inserted.
        asked: Span,
        /// The lowest address in it that is taken.
        iova: u64,
    },
    /// All tables are in use.
    #[error("all page tables are in use")]
    NoTables,
}

/// An area is partly outside of the span that was to be cleared. Areas before it are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an area at {iova:#x} is not wholly inside of {asked}")]
pub struct NotWhole {
    /// What was to be cleared.
    pub asked: Span,
    /// An address in both.
    pub iova: u64,
    /// What was removed before.
    pub removed: Removed,
}

impl Mapper {
    pub(crate) fn new(table: Arc<PageTable>) -> io::Result<Self> {
        let gaps = Gaps::new(table.shape.address_bits)?;
        let (uses, limbo, totals, tags) = Default::default();
        Ok(Self { table, uses, gaps, limbo, totals, tags })
    }

    /// Adds an area of whole pages, with leaves as large as its alignment permits. Readers may see
    /// its beginning before its end.
    ///
    /// # Errors
    /// Nothing is changed then. In this order:
    /// - [`InsertError::Misaligned`], [`InsertError::OutsideAperture`]: the caller's mistake.
    /// - [`InsertError::Overlap`] (`EEXIST` to a client).
    /// - [`InsertError::NoTables`] (`ENOMEM`). Tables that were retired are in use until reclaimed.
    pub fn insert(&mut self, span: Span, target: Target) -> Result<(), InsertError> {
        let run = self.check(span, target)?;
        if self.insert_into_table(run, target) {
            return Ok(());
        }
        if let Some(page) = self.first_used(run) {
            return Err(InsertError::Overlap { asked: span, iova: page << PAGE_LG2 });
        }
        let written = self.write_area(run, target);
        if written < run.count() {
            self.account(target.tag, u64::from(written > 0), written);
            if let Some(part) = PageRun::new(run.first, run.first + written) {
                self.clear(part);
            }
            return Err(InsertError::NoTables);
        }
        self.account(target.tag, 1, written);
        Ok(())
    }

    /// Takes out all areas inside `span`, ascending. Walks that go on may still use them: see
    /// [`wait_for_readers`](Self::wait_for_readers).
    ///
    /// # Errors
    /// [`NotWhole`] (`ENOENT` to a client): an area is only partly inside. Areas before it are gone.
    pub fn remove(&mut self, span: Span) -> Result<Removed, NotWhole> {
        let Some(inside) = span.intersection(self.table.aperture()) else {
            return Ok(Removed::default());
        };
        if let Some(removed) = self.remove_from_table(inside) {
            return Ok(removed);
        }
        let refuse = |iova, removed| NotWhole { asked: span, iova, removed };
        if !self.may_cut_before(inside.start()) {
            return Err(refuse(inside.start(), Removed::default()));
        }
        let run = PageRun::covering(inside);
        if self.may_cut_after(inside.last()) {
            return Ok(self.clear(run));
        }
        let cut = self.first_page_of_area(inside.last());
        let before = PageRun::new(run.first, cut);
        let removed = before.map_or(Removed::default(), |before| self.clear(before));
        Err(refuse(inside.last(), removed))
    }

    /// Takes out everything, waits until no walk uses it, and gives the tables' memory to the
    /// system. Does not read the tables.
    pub fn remove_all(&mut self) -> Removed {
        let removed = Removed { areas: self.totals.areas, bytes: self.totals.pages << PAGE_LG2 };
        self.discard_upper_levels();
        self.table.readers().wait();
        self.table.tree.tables.reset();
        self.uses = TableUses::default();
        self.gaps.forget();
        self.limbo = Retired::default();
        self.totals = Totals::default();
        self.tags.empty_all();
        removed
    }

    /// Returns when no walk uses what was removed before the call. Once for any number of removals,
    /// before their memory is let go of.
    pub fn wait_for_readers(&mut self) {
        self.table.readers().wait();
        let retired = self.retire();
        self.reclaim(retired);
    }

    /// Hands out the tables that removals have unlinked since the last call. Whoever must not wait
    /// while he has the mapper waits for the readers himself and then passes them to
    /// [`reclaim`](Self::reclaim).
    #[must_use = "tables are lost until they are reclaimed"]
    pub fn retire(&mut self) -> Retired {
        std::mem::take(&mut self.limbo)
    }

    /// Frees tables that walks of before [`retire`](Self::retire) cannot be in any more, since they
    /// were waited for. Where no table is in use any more, gives their memory to the system.
    pub fn reclaim(&mut self, retired: Retired) {
        self.free(retired);
    }

    /// How much carries the tag.
    pub fn tag_use(&self, tag: u16) -> TagUse {
        self.tags.get(tag)
    }

    /// Calls `each` with every tag of which removals have taken the last area since the last call.
    /// Some may have areas again.
    pub fn for_each_emptied_tag(&mut self, each: impl FnMut(u16)) {
        self.tags.drain_emptied().for_each(each);
    }

    /// Sets what devices may do to the area at exactly `span`. What is taken away may still be used
    /// by walks that go on. Allocates nothing.
    ///
    /// Returns `false`, and does nothing, where there is no such area.
    pub fn set_permission(&mut self, span: Span, permission: Permission) -> bool {
        let Some(area) = self.area_at(span.start()).filter(|area| area.span == span) else {
            return false;
        };
        self.rewrite(area, |leaf| leaf.permitting(permission));
        true
    }

    /// Gives the area at exactly `span` another tag. Walks that go on may find either.
    ///
    /// Returns `false`, and does nothing, where there is no such area or the tag is too large.
    pub fn set_tag(&mut self, span: Span, tag: u16) -> bool {
        let area = self.area_at(span.start()).filter(|area| area.span == span);
        let Some(area) = area.filter(|_| tag < TAG_END) else { return false };
        self.rewrite(area, |leaf| leaf.tagged(tag));
        self.note_tag_in_tables(span, tag);
        let pages = PageRun::covering(span).count();
        self.tags.add(tag, 1, pages);
        self.tags.remove(area.target.tag, 1, pages);
        true
    }

    /// The area that covers `iova`. Takes time in proportion to its leaves.
    pub fn area_at(&self, iova: u64) -> Option<Area> {
        self.table.tree.find(iova)?;
        let start = self.first_page_of_area(iova) << PAGE_LG2;
        let first = self.table.tree.find(start)?;
        let target = Target {
            output: first.leaf.output(),
            permission: first.leaf.permission(),
            tag: first.leaf.tag(),
        };
        let span = Span::from_ends(start, self.last_of_area(iova))?;
        Some(Area { span, target })
    }

    /// The lowest area that lies at or above `from`, or covers it.
    pub fn next_area(&self, from: u64) -> Option<Area> {
        let rest = Span::from_ends(from, self.table.aperture().last())?;
        let page = self.first_used(PageRun::covering(rest))?;
        self.area_at(from.max(page << PAGE_LG2))
    }

    /// Passes all leaves on, in ascending order.
    pub fn for_each_leaf(&self, mut each: impl FnMut(Leaf)) {
        let mut from = Some(0);
        while let Some(area) = from.and_then(|from| self.next_area(from)) {
            let mut iova = area.span.start();
            while let Some(found) = self.table.tree.find(iova) {
                let (output, permission) = (found.leaf.output(), found.leaf.permission());
                each(Leaf { iova, size_lg2: found.size_lg2, output, permission });
                match found.last(iova) {
                    last if last >= area.span.last() => break,
                    last => iova = last + 1,
                }
            }
            from = area.span.last().checked_add(1);
        }
    }

    /// The lowest address in `span` that an area covers.
    pub fn first_mapped(&self, span: Span) -> Option<u64> {
        let inside = span.intersection(self.table.aperture())?;
        let page = self.first_used(PageRun::covering(inside))?;
        Some(span.start().max(page << PAGE_LG2))
    }

    /// The lowest span inside `within` that meets no area and suits `fit`: what Linux chooses.
    ///
    /// Reads only what changed since it was asked last, and then a few words.
    pub fn first_fit(&mut self, within: Span, fit: Fit) -> Option<Span> {
        let within = within.intersection(self.table.aperture())?;
        let first_page = within.start().next_multiple_of(1 << PAGE_LG2);
        // A look at the very first place is cheap where it is small, and nothing has to be brought up to date
        // for it. Where it is no whole page, the search below does not see it.
        let at_start = fit.lowest_in(within).filter(|span| {
            let small = span.last() - within.start() < 1 << LEVEL1_LG2;
            let reached = Span::from_ends(within.start(), span.last()).unwrap_or(*span);
            (small || within.start() < first_page)
                && self.first_used(PageRun::covering(reached)).is_none()
        });
        if at_start.is_some() {
            return at_start;
        }
        let pages = Span::from_ends(first_page, within.last())?;
        self.gaps.first_fit(pages, fit, &self.table.tree, &mut self.uses)
    }

    /// The first address of `span` that no area covers.
    pub fn first_hole(&mut self, span: Span) -> Option<u64> {
        self.first_fit(span, Fit::one_byte()).map(Span::start)
    }

    /// How many areas there are.
    pub const fn areas(&self) -> u64 {
        self.totals.areas
    }

    /// How many bytes are in areas.
    pub const fn mapped_bytes(&self) -> u64 {
        self.totals.pages << PAGE_LG2
    }

    /// The table.
    pub const fn table(&self) -> &Arc<PageTable> {
        &self.table
    }

    fn rewrite(&self, area: Area, change: impl Fn(Entry) -> Entry) {
        let mut at = area.span.start();
        while let Some((word, found)) = self.table.tree.leaf_word(at) {
            store(word, change(found.leaf));
            match found.last(at) {
                last if last >= area.span.last() => break,
                last => at = last + 1,
            }
        }
    }

    fn note_tag_in_tables(&mut self, span: Span, tag: u16) {
        let run = PageRun::covering(span);
        let mut page = run.first;
        while page < run.end {
            let linked = self.table.tree.level1_word(page << PAGE_LG2).map(load);
            if let Some(linked) = linked.filter(|entry| entry.is_table()) {
                let count = run.in_table_of(page).count();
                self.uses.get_mut(linked.index()).note_new_tag(tag, count);
            }
            page = next_boundary(page, LEVEL1_LG2);
        }
    }

    #[inline]
    fn account(&mut self, tag: u16, areas: u64, pages: u64) {
        self.totals.areas += areas;
        self.totals.pages += pages;
        self.tags.add(tag, areas, pages);
    }

    /// Inserts an area that lies in a level-0 table which is there already. Returns whether it did.
    #[inline]
    fn insert_into_table(&mut self, run: PageRun, target: Target) -> bool {
        let Some(table) = self.table_of(run) else { return false };
        let part = run.in_table_of(run.first);
        let usage = self.uses.get_mut(table);
        if usage.first_used(part).is_some() {
            return false;
        }
        usage.note_tag(target.tag);
        usage.take(part);
        usage.areas += 1;
        write::fill_area(&self.table.tree.tables.table(table)[part.first..=part.last], target);
        self.gaps.touch(run.first << PAGE_LG2);
        self.account(target.tag, 1, run.count());
        true
    }

    /// Removes whole areas that lie in one level-0 table, which stays. `None` where that is not so.
    #[inline]
    fn remove_from_table(&mut self, span: Span) -> Option<Removed> {
        let run = PageRun::covering(span);
        let table = self.table_of(run)?;
        let part = run.in_table_of(run.first);
        let whole =
            run.first << PAGE_LG2 == span.start() && (run.end << PAGE_LG2) - 1 == span.last();
        let usage = self.uses.get_mut(table);
        if !whole || usize::from(usage.pages) <= part.count() {
            return None;
        }
        let entries = &self.table.tree.tables.table(table)[part.first..=part.last];
        let (first, last) = (load(entries.first()?), load(entries.last()?));
        let cuts =
            !first.is_nothing() && !first.is_first() || !last.is_nothing() && !last.is_last();
        if cuts {
            return None;
        }
        let pages = usage.give_back(part);
        let areas = clear::clear_entries(entries, usage, pages, &mut self.tags);
        usage.areas -= areas;
        self.gaps.touch(span.start());
        self.totals.areas -= u64::from(areas);
        self.totals.pages -= u64::from(pages);
        Some(Removed { areas: areas.into(), bytes: u64::from(pages) << PAGE_LG2 })
    }

    /// The level-0 table that all of `run` lies in.
    #[inline]
    fn table_of(&self, run: PageRun) -> Option<u32> {
        if run.first >> TABLE_LG2 != (run.end - 1) >> TABLE_LG2 {
            return None;
        }
        let level1 = load(self.table.tree.level1_word(run.first << PAGE_LG2)?);
        level1.is_table().then(|| level1.index())
    }

    fn check(&self, span: Span, target: Target) -> Result<PageRun, InsertError> {
        let whole = |address: u64| address.trailing_zeros() >= PAGE_LG2;
        let end = span.last().wrapping_add(1);
        let aligned = whole(span.start()) && whole(end) && whole(target.output);
        if !aligned || target.tag >= TAG_END {
            return Err(InsertError::Misaligned(span));
        }
        let output_last = target.output.checked_add(span.last() - span.start());
        let fits = output_last.is_some_and(|last| last < OUTPUT_END);
        if !fits || !self.table.aperture().contains_span(span) {
            return Err(InsertError::OutsideAperture(span));
        }
        Ok(PageRun::covering(span))
    }

    /// The lowest page of `run` that an area covers.
    fn first_used(&self, run: PageRun) -> Option<u64> {
        let tree = &self.table.tree;
        let mut page = run.first;
        while page < run.end {
            let iova = page << PAGE_LG2;
            let skip_lg2 = if count_below(&tree.level3, iova, LEVEL3_LG2) == 0 {
                LEVEL3_LG2
            } else {
                let level2 = tree.level2_word(iova).map(load)?;
                let level1 = tree.level1_word(iova).map(load)?;
                if level2.is_leaf() || level1.is_leaf() {
                    return Some(page);
                }
                if level1.is_table() {
                    let part = run.in_table_of(page);
                    let used = self.uses.get(level1.index()).first_used(part);
                    if let Some(index) = used {
                        return Some(table_start(page) + index as u64);
                    }
                }
                if level2.is_nothing() { LEVEL2_LG2 } else { LEVEL1_LG2 }
            };
            page = next_boundary(page, skip_lg2);
        }
        None
    }

    /// Whether no area lies on both sides of the boundary before `iova`.
    fn may_cut_before(&self, iova: u64) -> bool {
        self.table.tree.find(iova).is_none_or(|at| at.start(iova) == iova && at.leaf.is_first())
    }

    /// Whether no area lies on both sides of the boundary after `iova`.
    fn may_cut_after(&self, iova: u64) -> bool {
        self.table.tree.find(iova).is_none_or(|at| at.last(iova) == iova && at.leaf.is_last())
    }

    fn first_page_of_area(&self, iova: u64) -> u64 {
        let mut at = iova;
        while let Some(found) = self.table.tree.find(at) {
            at = found.start(at);
            if found.leaf.is_first() || at == 0 {
                break;
            }
            at -= 1;
        }
        at >> PAGE_LG2
    }

    fn last_of_area(&self, iova: u64) -> u64 {
        let mut at = iova;
        while let Some(found) = self.table.tree.find(at) {
            at = found.last(at);
            if found.leaf.is_last() {
                break;
            }
            at += 1;
        }
        at
    }
}

/// Sums over the table.
#[derive(Debug, Default)]
struct Totals {
    areas: u64,
    pages: u64,
    /// Level-0 tables that are linked.
    tables: u32,
}

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

/// The use of each table that was ever handed out, by index, in chunks that never move.
#[derive(Debug, Default)]
pub(crate) struct TableUses {
    chunks: Vec<Box<[TableUse]>>,
}

impl TableUses {
    #[inline]
    pub(crate) fn get(&self, index: u32) -> &TableUse {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut TableUse {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    fn reserve(&mut self, index: u32) {
        while self.chunks.len() <= index as usize / CHUNK {
            self.chunks.push((0..CHUNK).map(|_| TableUse::default()).collect());
        }
    }
}

const CHUNK: usize = 32;

/// Page numbers from `first` to before `end`, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRun {
    first: u64,
    end: u64,
}

impl PageRun {
    const fn new(first: u64, end: u64) -> Option<Self> {
        if first < end { Some(Self { first, end }) } else { None }
    }

    /// The pages that `span` meets.
    const fn covering(span: Span) -> Self {
        Self { first: span.start() >> PAGE_LG2, end: (span.last() >> PAGE_LG2) + 1 }
    }

    const fn count(self) -> u64 {
        self.end - self.first
    }

    /// The part from `page` on that lies in the level-0 table of `page`.
    fn in_table_of(self, page: u64) -> PagesInTable {
        let start = table_start(page);
        let last = (self.end - 1).min(start + (TABLE_ENTRIES as u64 - 1));
        PagesInTable { first: index(page - start), last: index(last - start) }
    }
}

impl Tree {
    fn level1_word(&self, iova: u64) -> Option<&AtomicU64> {
        self.level1.get(iova >> LEVEL1_LG2)
    }

    fn level2_word(&self, iova: u64) -> Option<&AtomicU64> {
        self.level2.get(iova >> LEVEL2_LG2)
    }

    /// The leaf that covers `iova`, and the word that it is in.
    fn leaf_word(&self, iova: u64) -> Option<(&AtomicU64, Found)> {
        let found = self.find(iova)?;
        let word = match found.size_lg2 {
            LEVEL2_LG2 => self.level2_word(iova)?,
            LEVEL1_LG2 => self.level1_word(iova)?,
            _ => &self.table(iova)?[crate::tree::index_in_table(iova)],
        };
        Some((word, found))
    }
}

/// How many entries are in use below the word for `iova` in one of the upper levels.
fn count_below(words: &SparseWords, iova: u64, size_lg2: u32) -> u64 {
    words.get(iova >> size_lg2).map_or(0, |word| load(word).below())
}

/// The first page of the level-0 table that covers `page`.
const fn table_start(page: u64) -> u64 {
    page >> TABLE_LG2 << TABLE_LG2
}

/// The first page after `page` that starts a leaf of 2 to the power of `size_lg2` bytes.
const fn next_boundary(page: u64, size_lg2: u32) -> u64 {
    let pages_lg2 = size_lg2 - PAGE_LG2;
    ((page >> pages_lg2) + 1) << pages_lg2
}

#[expect(clippy::cast_possible_truncation, reason = "an index into a table")]
const fn index(pages: u64) -> usize {
    pages as usize
}
