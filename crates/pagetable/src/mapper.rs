//! The side of the table that changes it.

mod areas;
mod clear;
mod idle;
mod page;
mod run;
mod write;

use std::io;
use std::sync::Arc;

use span::Span;

use crate::entry::{OUTPUT_END, TAG_END, Target};
use crate::gaps::{Fit, Gaps};
use crate::memory::{AtomicU64, SparseWords};
use crate::table_use::TableUses;
use crate::tag_use::{TagUse, TagUses};
use crate::tree::{LEVEL1_LG2, LEVEL2_LG2, Tree, load};
use crate::{PAGE_LG2, PageTable, TABLE_LG2};

pub use clear::Retired;
use idle::IdleTables;
use run::{PageRun, next_boundary, table_start};

/// The one handle that changes a table. Several threads share it in a lock of their own.
///
/// Removing allocates nothing and cannot fail for lack of memory.
#[derive(Debug)]
pub struct Mapper {
    table: Arc<PageTable>,
    uses: TableUses,
    gaps: Gaps,
    /// Linked, and perhaps empty.
    idle: IdleTables,
    limbo: Retired,
    /// Level-0 tables that are linked.
    tables_linked: u32,
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
        let (uses, idle, limbo, tags) = Default::default();
        Ok(Self { table, uses, gaps, idle, limbo, tables_linked: 0, tags })
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
        if run.count() == 1 && self.insert_page(span.start(), target) {
            return Ok(());
        }
        self.insert_run(span, run, target)
    }

    #[inline(never)]
    fn insert_run(&mut self, span: Span, run: PageRun, target: Target) -> Result<(), InsertError> {
        if self.insert_into_table(run, target) {
            return Ok(());
        }
        if let Some(page) = self.first_used(run) {
            return Err(InsertError::Overlap { asked: span, iova: page << PAGE_LG2 });
        }
        let written = self.write_area(run, target);
        if written < run.count() {
            self.tags.add(target.tag, u64::from(written > 0), written);
            if let Some(part) = PageRun::new(run.first, run.first + written) {
                self.clear(part);
            }
            self.drop_idle_tables();
            return Err(InsertError::NoTables);
        }
        self.tags.add(target.tag, 1, written);
        Ok(())
    }

    /// Takes out all areas inside `span`, ascending. Walks that go on may still use them: see
    /// [`wait_for_readers`](Self::wait_for_readers).
    ///
    /// # Errors
    /// [`NotWhole`] (`ENOENT` to a client): an area is only partly inside. Areas before it are gone.
    pub fn remove(&mut self, span: Span) -> Result<Removed, NotWhole> {
        let page_mask = (1 << PAGE_LG2) - 1;
        if span.last() == span.start() | page_mask
            && span.start() & page_mask == 0
            && let Some(removed) = self.remove_page(span.start())
        {
            return Ok(removed);
        }
        self.remove_run(span)
    }

    #[inline(never)]
    fn remove_run(&mut self, span: Span) -> Result<Removed, NotWhole> {
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
        let removed = Removed { areas: self.areas(), bytes: self.mapped_bytes() };
        self.discard_upper_levels();
        self.table.readers().wait();
        self.table.tree.tables.reset();
        self.uses = TableUses::default();
        self.idle = IdleTables::default();
        self.gaps.forget();
        self.limbo = Retired::default();
        self.tables_linked = 0;
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
    pub fn areas(&self) -> u64 {
        self.tags.total().areas
    }

    /// How many bytes are in areas.
    pub fn mapped_bytes(&self) -> u64 {
        self.tags.total().pages << PAGE_LG2
    }

    /// The table.
    pub const fn table(&self) -> &Arc<PageTable> {
        &self.table
    }

    /// The level-0 table that all of `run` lies in.
    #[inline]
    fn table_of(&self, run: PageRun) -> Option<u32> {
        if run.first >> TABLE_LG2 != (run.end - 1) >> TABLE_LG2 {
            return None;
        }
        self.table_at(run.first << PAGE_LG2)
    }

    #[inline]
    fn check(&self, span: Span, target: Target) -> Result<PageRun, InsertError> {
        let bounds = span.start() | span.last().wrapping_add(1) | target.output;
        if bounds.trailing_zeros() < PAGE_LG2 || target.tag >= TAG_END {
            return Err(InsertError::Misaligned(span));
        }
        let output_last = target.output.checked_add(span.last() - span.start());
        let fits = output_last.is_some_and(|last| last < OUTPUT_END);
        if !fits || !self.table.aperture().contains_span(span) {
            return Err(InsertError::OutsideAperture(span));
        }
        Ok(PageRun::covering(span))
    }
}

impl Tree {
    #[inline]
    fn level1_word(&self, iova: u64) -> Option<&AtomicU64> {
        self.level1.get(iova >> LEVEL1_LG2)
    }

    fn level2_word(&self, iova: u64) -> Option<&AtomicU64> {
        self.level2.get(iova >> LEVEL2_LG2)
    }
}

/// How many entries are in use below the word for `iova` in one of the upper levels.
fn count_below(words: &SparseWords, iova: u64, size_lg2: u32) -> u64 {
    words.get(iova >> size_lg2).map_or(0, |word| load(word).below())
}
