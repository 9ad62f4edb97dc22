//! Runs of pages, and how they fall into tables.

use span::Span;

use crate::table_use::PagesInTable;
use crate::{PAGE_LG2, TABLE_ENTRIES, TABLE_LG2};

/// Page numbers from `first` to before `end`, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRun {
    pub(crate) first: u64,
    pub(crate) end: u64,
}

impl PageRun {
    pub(crate) const fn new(first: u64, end: u64) -> Option<Self> {
        if first < end { Some(Self { first, end }) } else { None }
    }

    /// The pages that `span` meets.
    pub(crate) const fn covering(span: Span) -> Self {
        Self { first: span.start() >> PAGE_LG2, end: (span.last() >> PAGE_LG2) + 1 }
    }

    pub(crate) const fn count(self) -> u64 {
        self.end - self.first
    }

    /// The part from `page` on that lies in the level-0 table of `page`.
    #[inline]
    pub(crate) fn in_table_of(self, page: u64) -> PagesInTable {
        let start = table_start(page);
        let last = (self.end - 1).min(start + (TABLE_ENTRIES as u64 - 1));
        PagesInTable { first: index(page - start), last: index(last - start) }
    }
}

/// The first page of the level-0 table that covers `page`.
pub(crate) const fn table_start(page: u64) -> u64 {
    page >> TABLE_LG2 << TABLE_LG2
}

/// The first page after `page` that starts a leaf of 2 to the power of `size_lg2` bytes.
pub(crate) const fn next_boundary(page: u64, size_lg2: u32) -> u64 {
    let pages_lg2 = size_lg2 - PAGE_LG2;
    ((page >> pages_lg2) + 1) << pages_lg2
}

#[expect(clippy::cast_possible_truncation, reason = "an index into a table")]
const fn index(pages: u64) -> usize {
    pages as usize
}
