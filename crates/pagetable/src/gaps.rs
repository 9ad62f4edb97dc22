//! Where the lowest free place of a given size and alignment is.
//!
//! An implicit tree over the address space with eight children a node. Each node knows the free run
//! at its start, the one at its end, and for each alignment the longest run inside that starts so
//! aligned; so a search for the first fit enters a node only where the answer is in it. Alignments
//! stop at 2 MiB, as Linux's do: that is also what a leaf of the tree covers.
//!
//! Mapping only marks what changed. The next search brings marked nodes up to date on its way: a few
//! for a place just taken or given back, each once after many changes, and the whole tree when it is
//! asked for the first time. Who never asks pays one test for each change. Takes no lock.

use span::Span;

use crate::PAGE_LG2;
use crate::memory::{AtomicU64, Ordering, SparseWords};
use crate::run_summary::{ALIGNMENTS, RunSummary, TableRuns};
use crate::table_use::TableUses;
use crate::tree::{LEVEL1_LG2, LEVEL2_LG2, LEVEL3_LG2, Tree, load};

/// What a span must be like to take a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    length: u64,
    alignment: u64,
    page_offset: u64,
}

impl Fit {
    /// A span of `length` bytes whose start is the first multiple of `alignment` in a hole, with
    /// `page_offset` in its low bits.
    ///
    /// `None` for what cannot be asked: no length or one beyond 2^63, an alignment that is no power
    /// of two or more than 2 MiB, an offset beyond a page.
    pub const fn new(length: u64, alignment: u64, page_offset: u64) -> Option<Self> {
        let sane = 0 < length
            && length <= 1 << 63
            && alignment.is_power_of_two()
            && alignment <= 1 << LEVEL1_LG2
            && page_offset < 1 << PAGE_LG2;
        if sane { Some(Self { length, alignment, page_offset }) } else { None }
    }

    pub(crate) const fn one_byte() -> Self {
        Self { length: 1, alignment: 1, page_offset: 0 }
    }

    /// The lowest span inside `hole` that serves.
    pub(crate) fn lowest_in(&self, hole: Span) -> Option<Span> {
        let aligned = hole.start().checked_next_multiple_of(self.alignment)?;
        let span = Span::new(aligned | self.page_offset, self.length)?;
        hole.contains_span(span).then_some(span)
    }

    /// Pages that must be free from an aligned page on.
    const fn pages(&self) -> u64 {
        (self.page_offset + self.length).div_ceil(1 << PAGE_LG2)
    }

    const fn pages_alignment_lg2(&self) -> u32 {
        self.alignment.trailing_zeros().saturating_sub(PAGE_LG2)
    }
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Gaps {
    nodes: SparseWords,
    /// Where the nodes of each height begin, in nodes; height 1 at index 0.
    origins: Vec<u64>,
    /// The height of the one node over all.
    top: u32,
    /// Whether anybody ever asked, so that changes must be marked.
    asked: bool,
}

impl Gaps {
    pub(crate) fn new(address_bits: u32) -> std::io::Result<Self> {
        let top = address_bits.saturating_sub(LEVEL1_LG2).div_ceil(FANOUT_LG2).max(HUGE_HEIGHT + 1);
        let mut origins = Vec::new();
        let mut nodes = 0;
        for height in 1..=top {
            origins.push(nodes);
            nodes += 1 << (FANOUT_LG2 * (top - height));
        }
        #[expect(clippy::cast_possible_truncation, reason = "usize is 64 bits where this runs")]
        let words = if cfg!(loom) { 1 } else { nodes as usize * NODE_WORDS };
        Ok(Self { nodes: SparseWords::new(words)?, origins, top, asked: false })
    }

    /// Notes that pages changed in the 2 MiB around `iova`.
    #[inline]
    pub(crate) fn touch(&self, iova: u64) {
        if self.asked {
            self.mark(1, iova >> LEVEL1_LG2);
        }
    }

    /// Notes that the 1 GiB around `iova` became one leaf, or ceased to be.
    pub(crate) fn touch_huge(&self, iova: u64) {
        if self.asked {
            self.mark(HUGE_HEIGHT + 1, iova >> LEVEL2_LG2);
        }
    }

    /// Forgets everything: all is free.
    pub(crate) fn forget(&mut self) {
        if self.asked {
            self.nodes.discard(0..self.nodes.length());
        }
    }

    /// The lowest span inside `within` that meets no area and suits `fit`, where `within` starts a
    /// page.
    pub(crate) fn first_fit(
        &mut self,
        within: Span,
        fit: Fit,
        tree: &Tree,
        uses: &mut TableUses,
    ) -> Option<Span> {
        if !self.asked {
            self.asked = true;
            self.mark_all(tree);
        }
        self.refresh(self.top, 0, tree, uses);
        let from = within.start() >> PAGE_LG2;
        let mut search = Search {
            gaps: self,
            tree,
            uses,
            from,
            run: from,
            pages: fit.pages(),
            alignment_lg2: fit.pages_alignment_lg2(),
        };
        let page = search.enter(self.top, 0)?;
        let span = Span::new(page << PAGE_LG2 | fit.page_offset, fit.length)?;
        within.contains_span(span).then_some(span)
    }

    /// Marks child `index` of its parent at `height`, and that of its own, until one is marked.
    #[inline(never)]
    fn mark(&self, height: u32, mut index: u64) {
        for height in height..=self.top {
            let bit = 1 << (index & (FANOUT - 1));
            index >>= FANOUT_LG2;
            let stale = &self.node(height, index)[STALE];
            let marked = stale.load(Ordering::Relaxed);
            if marked & bit != 0 {
                return;
            }
            stale.store(marked | bit, Ordering::Relaxed);
        }
    }

    fn mark_all(&self, tree: &Tree) {
        let level3s = tree.level3.length() as u64;
        for index3 in (0..level3s).filter(|index| in_use(&tree.level3, *index)) {
            let below = LEVEL3_LG2 - LEVEL2_LG2;
            for index2 in (index3 << below..(index3 + 1) << below)
                .filter(|index| in_use(&tree.level2, *index))
            {
                self.mark(HUGE_HEIGHT + 1, index2);
                let below = LEVEL2_LG2 - LEVEL1_LG2;
                let level1s = index2 << below..(index2 + 1) << below;
                level1s
                    .filter(|index| in_use(&tree.level1, *index))
                    .for_each(|index| self.mark(1, index));
            }
        }
    }

    fn refresh(&self, height: u32, index: u64, tree: &Tree, uses: &mut TableUses) {
        let stale = &self.node(height, index)[STALE];
        let mut marked = stale.load(Ordering::Relaxed);
        if marked == 0 && height != HUGE_HEIGHT {
            return;
        }
        stale.store(0, Ordering::Relaxed);
        while marked != 0 {
            let child = index << FANOUT_LG2 | u64::from(marked.trailing_zeros());
            marked &= marked - 1;
            if height > 1 {
                self.refresh(height - 1, child, tree, uses);
            } else {
                refresh_table(child, tree, uses);
            }
        }
        let summary = self.combine(height, index, tree, uses);
        self.write(height, index, &summary);
    }

    fn combine(&self, height: u32, index: u64, tree: &Tree, uses: &TableUses) -> RunSummary {
        let child_pages = pages_at(height - 1);
        if is_huge_leaf(height, index, tree) {
            return RunSummary::used();
        }
        let mut all = RunSummary::used();
        let mut run = 0;
        let mut prefix = None;
        for child in 0..FANOUT {
            let start = child * child_pages;
            let found = self.runs(height - 1, index << FANOUT_LG2 | child, tree, uses);
            let found_prefix = found.prefix();
            if found_prefix == child_pages {
                continue;
            }
            let run_end = start + found_prefix;
            if run < run_end {
                all.note(run, run_end);
            }
            prefix.get_or_insert(run_end);
            if found.longest(0) > 0 {
                for (alignment, longest) in all.longest.iter_mut().enumerate() {
                    *longest = found.longest(alignment).max(*longest);
                }
            }
            run = start + child_pages - found.suffix();
        }
        let end = FANOUT * child_pages;
        if run < end {
            all.note(run, end);
        }
        all.suffix = end - run;
        all.prefix = prefix.unwrap_or(end);
        all
    }

    fn runs<'a>(&'a self, height: u32, index: u64, tree: &Tree, uses: &'a TableUses) -> Runs<'a> {
        if height > 0 {
            return Runs::Node(self.node(height, index), pages_at(height));
        }
        match tree.level1.get(index).map(load) {
            Some(entry) if entry.is_table() => Runs::Table(&uses.get(entry.index()).runs),
            Some(entry) if entry.is_leaf() => Runs::Used,
            Some(_) | None => Runs::Free(pages_at(0)),
        }
    }

    /// Kept as what is missing from a free node, so that a word never written says free.
    fn write(&self, height: u32, index: u64, summary: &RunSummary) {
        let pages = pages_at(height);
        let node = self.node(height, index);
        let put = |at: usize, value: u64| node[at].store(pages - value, Ordering::Relaxed);
        put(PREFIX, summary.prefix);
        put(SUFFIX, summary.suffix);
        for (alignment, longest) in summary.longest.iter().enumerate() {
            put(LONGEST + alignment, *longest);
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "indexes an array of fewer words")]
    fn node(&self, height: u32, index: u64) -> &[AtomicU64] {
        let first = (self.origins[height as usize - 1] + index) as usize * NODE_WORDS;
        self.nodes.slice(first..first + NODE_WORDS)
    }
}

/// The free runs of a node, wherever they are kept.
enum Runs<'a> {
    Node(&'a [AtomicU64], u64),
    Table(&'a TableRuns),
    Used,
    Free(u64),
}

impl Runs<'_> {
    #[inline]
    fn prefix(&self) -> u64 {
        match self {
            Self::Node(words, pages) => pages - words[PREFIX].load(Ordering::Relaxed),
            Self::Table(runs) => runs.prefix.into(),
            Self::Used => 0,
            Self::Free(pages) => *pages,
        }
    }

    #[inline]
    fn suffix(&self) -> u64 {
        match self {
            Self::Node(words, pages) => pages - words[SUFFIX].load(Ordering::Relaxed),
            Self::Table(runs) => runs.suffix.into(),
            Self::Used => 0,
            Self::Free(pages) => *pages,
        }
    }

    #[inline]
    fn longest(&self, alignment: usize) -> u64 {
        match self {
            Self::Node(words, pages) => pages - words[LONGEST + alignment].load(Ordering::Relaxed),
            Self::Table(runs) => runs.longest[alignment].into(),
            Self::Used => 0,
            Self::Free(pages) => *pages,
        }
    }
}

/// A search for the first fit, from low addresses to high.
struct Search<'a> {
    gaps: &'a Gaps,
    tree: &'a Tree,
    uses: &'a TableUses,
    /// The lowest page that may be taken.
    from: u64,
    /// Where the free run that reaches the current node begins; the node itself if none does.
    run: u64,
    pages: u64,
    alignment_lg2: u32,
}

impl Search<'_> {
    fn enter(&mut self, height: u32, index: u64) -> Option<u64> {
        let start = index * pages_at(height);
        let end = start + pages_at(height);
        if end <= self.from {
            return None;
        }
        let found = self.gaps.runs(height, index, self.tree, self.uses);
        let prefix = found.prefix();
        if prefix == end - start {
            return self.fit_before(end);
        }
        if found.longest(0) == 0 {
            return self.go_on_from(end);
        }
        if start >= self.from {
            if let Some(page) = self.fit_before(start + prefix) {
                return Some(page);
            }
            if found.longest(self.alignment_lg2 as usize) < self.pages {
                return self.go_on_from(end - found.suffix());
            }
        }
        if height == 0 {
            return self.enter_table(start, index);
        }
        (0..FANOUT).find_map(|child| self.enter(height - 1, index << FANOUT_LG2 | child))
    }

    fn enter_table(&mut self, start: u64, index: u64) -> Option<u64> {
        let entry = load(self.tree.level1.get(index)?);
        let end = start + pages_at(0);
        let mut free_to_the_end = false;
        for hole in self.uses.get(entry.index()).holes() {
            let (first, hole_end) = (start + hole.first as u64, start + hole.last as u64 + 1);
            if hole_end <= self.from {
                continue;
            }
            if first > start {
                self.run = first.max(self.from);
            }
            if let Some(page) = self.fit_before(hole_end) {
                return Some(page);
            }
            free_to_the_end = hole_end == end;
        }
        if free_to_the_end { None } else { self.go_on_from(end) }
    }

    /// Where the pages fit into the current run, if it ends before `end`.
    fn fit_before(&self, end: u64) -> Option<u64> {
        let aligned = self.run.checked_next_multiple_of(1 << self.alignment_lg2)?;
        (aligned.checked_add(self.pages)? <= end).then_some(aligned)
    }

    fn go_on_from(&mut self, page: u64) -> Option<u64> {
        self.run = page.max(self.from);
        None
    }
}

fn refresh_table(index: u64, tree: &Tree, uses: &mut TableUses) {
    if let Some(entry) = tree.level1.get(index).map(load)
        && entry.is_table()
    {
        uses.get_mut(entry.index()).summarize();
    }
}

fn is_huge_leaf(height: u32, index: u64, tree: &Tree) -> bool {
    height == HUGE_HEIGHT && tree.level2.get(index).is_some_and(|word| load(word).is_leaf())
}

fn in_use(words: &SparseWords, index: u64) -> bool {
    words.get(index).is_some_and(|word| !load(word).is_nothing())
}

/// How many pages a node covers; one of height 0 is a level-0 table.
const fn pages_at(height: u32) -> u64 {
    1 << (LEVEL1_LG2 - PAGE_LG2 + FANOUT_LG2 * height)
}

const FANOUT_LG2: u32 = 3;
const FANOUT: u64 = 1 << FANOUT_LG2;
/// The height of nodes that cover exactly a 1 GiB leaf.
const HUGE_HEIGHT: u32 = (LEVEL2_LG2 - LEVEL1_LG2).div_ceil(FANOUT_LG2);

/// Words of a node, and what is at which.
const NODE_WORDS: usize = 16;
/// A bit for each child that changed.
const STALE: usize = 0;
const PREFIX: usize = 1;
const SUFFIX: usize = 2;
const LONGEST: usize = 3;
const _: () = assert!(LONGEST + ALIGNMENTS <= NODE_WORDS);
