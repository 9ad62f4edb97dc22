//! The free runs of a stretch of pages, as much of them as a search for the first fit must know.

/// How many alignments are told apart: 1 page, 2, 4 and so on to 512.
pub(crate) const ALIGNMENTS: usize = 10;

/// Free runs of a stretch of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunSummary {
    /// Free pages at the start.
    pub(crate) prefix: u64,
    /// Free pages at the end.
    pub(crate) suffix: u64,
    /// For each alignment, the most free pages that follow an aligned page without a break.
    pub(crate) longest: [u64; ALIGNMENTS],
}

impl RunSummary {
    pub(crate) const fn used() -> Self {
        Self { prefix: 0, suffix: 0, longest: [0; ALIGNMENTS] }
    }

    /// Takes the free run from `start` to before `end` into account.
    #[inline]
    pub(crate) fn note(&mut self, start: u64, end: u64) {
        for (alignment_lg2, longest) in self.longest.iter_mut().enumerate() {
            let mask = (1 << alignment_lg2) - 1;
            let aligned = (start + mask) & !mask;
            *longest = (*longest).max(end.saturating_sub(aligned));
        }
    }
}

/// The same for the 512 pages of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableRuns {
    pub(crate) prefix: u16,
    pub(crate) suffix: u16,
    pub(crate) longest: [u16; ALIGNMENTS],
}

impl TableRuns {
    /// Sums up the free runs of a table, ascending, each as first page and end.
    pub(crate) fn of(pages: u16, holes: impl Iterator<Item = (u16, u16)>) -> Self {
        let mut runs = Self::default();
        for (start, end) in holes {
            if start == 0 {
                runs.prefix = end;
            }
            if end == pages {
                runs.suffix = end - start;
            }
            for (alignment_lg2, longest) in runs.longest.iter_mut().enumerate() {
                let mask = (1 << alignment_lg2) - 1;
                let aligned = (start + mask) & !mask;
                *longest = (*longest).max(end.saturating_sub(aligned));
            }
        }
        runs
    }
}
