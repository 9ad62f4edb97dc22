//! What the mapper remembers of each level-0 table: which of its pages are in use.
//!
//! One bit a page, so that overlaps and free runs are found 64 pages at a time and a whole table is
//! dropped without being read. Takes no lock; belongs to the mapper.

use crate::TABLE_ENTRIES;
use crate::run_summary::TableRuns;

/// Use of one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableUse {
    words: [u64; WORDS],
    /// Pages in use.
    pub(crate) pages: u16,
    /// Areas whose first page is in this table.
    pub(crate) areas: u16,
    /// The tag of all pages in use, unless they are [`mixed`](Self::mixed).
    pub(crate) tag: u16,
    /// Whether pages may differ in their tags.
    pub(crate) mixed: bool,
    /// The free runs, as of the last [`summarize`](Self::summarize).
    pub(crate) runs: TableRuns,
    /// The table that is to be freed after this one.
    pub(crate) next: Option<u32>,
}

/// A run of pages inside a table, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PagesInTable {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl PagesInTable {
    pub(crate) const ALL: Self = Self { first: 0, last: TABLE_ENTRIES - 1 };

    pub(crate) const fn count(self) -> usize {
        self.last - self.first + 1
    }

    /// The words of a bitmap that the run meets, each with the bits that it has there.
    fn words(self) -> impl Iterator<Item = (usize, u64)> {
        (self.first / WORD_BITS..=self.last / WORD_BITS).map(move |word| {
            let from = self.first.saturating_sub(word * WORD_BITS);
            let to = (self.last - word * WORD_BITS).min(WORD_BITS - 1);
            (word, u64::MAX << from & u64::MAX >> (WORD_BITS - 1 - to))
        })
    }
}

impl TableUse {
    /// The lowest page in use in `run`.
    pub(crate) fn first_used(&self, run: PagesInTable) -> Option<usize> {
        run.words().find_map(|(word, mask)| {
            let used = self.words[word] & mask;
            (used != 0).then(|| word * WORD_BITS + used.trailing_zeros() as usize)
        })
    }

    /// Notes that pages of an area with this tag are about to be taken.
    #[inline]
    pub(crate) fn note_tag(&mut self, tag: u16) {
        if self.pages == 0 {
            (self.tag, self.mixed) = (tag, false);
        } else {
            self.mixed |= self.tag != tag;
        }
    }

    /// Notes that `count` of the pages in use carry another tag now.
    pub(crate) fn note_new_tag(&mut self, tag: u16, count: usize) {
        if usize::from(self.pages) == count {
            (self.tag, self.mixed) = (tag, false);
        } else {
            self.mixed |= self.tag != tag;
        }
    }

    /// Takes `run`, which was free.
    pub(crate) fn take(&mut self, run: PagesInTable) {
        for (word, mask) in run.words() {
            debug_assert_eq!(self.words[word] & mask, 0, "pages taken twice");
            self.words[word] |= mask;
        }
        self.pages += count_u16(run.count());
    }

    /// Gives back what is in use in `run` and returns how many pages that were.
    pub(crate) fn give_back(&mut self, run: PagesInTable) -> u16 {
        let mut count = 0;
        for (word, mask) in run.words() {
            count += (self.words[word] & mask).count_ones();
            self.words[word] &= !mask;
        }
        let count = count_u16(count as usize);
        self.pages -= count;
        count
    }

    /// The free runs, ascending.
    pub(crate) fn holes(&self) -> impl Iterator<Item = PagesInTable> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.next_page(at, false)?;
            let end = self.next_page(first, true).unwrap_or(TABLE_ENTRIES);
            at = end;
            Some(PagesInTable { first, last: end - 1 })
        })
    }

    /// Brings [`runs`](Self::runs) up to date.
    pub(crate) fn summarize(&mut self) {
        let holes = self.holes().map(|hole| (count_u16(hole.first), count_u16(hole.last + 1)));
        self.runs = TableRuns::of(count_u16(TABLE_ENTRIES), holes);
    }

    /// The lowest page from `at` on that is in use, or is not.
    fn next_page(&self, at: usize, used: bool) -> Option<usize> {
        let flip = if used { 0 } else { u64::MAX };
        let mut mask = u64::MAX << (at % WORD_BITS);
        for word in at / WORD_BITS..WORDS {
            let bits = (self.words[word] ^ flip) & mask;
            if bits != 0 {
                let page = word * WORD_BITS + bits.trailing_zeros() as usize;
                return (page < TABLE_ENTRIES).then_some(page);
            }
            mask = u64::MAX;
        }
        None
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a table has 512 pages")]
const fn count_u16(count: usize) -> u16 {
    count as u16
}

const WORD_BITS: usize = u64::BITS as usize;
const WORDS: usize = TABLE_ENTRIES.div_ceil(WORD_BITS);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn run(first: usize, last: usize) -> PagesInTable {
        PagesInTable { first, last }
    }

    #[test]
    fn takes_finds_and_gives_back() {
        let mut usage = TableUse::default();
        usage.take(run(60, 70));
        usage.take(run(511, 511));
        assert_eq!(usage.pages, 12);
        assert_eq!(usage.first_used(PagesInTable::ALL), Some(60));
        assert_eq!(usage.first_used(run(71, 510)), None);
        assert_eq!(usage.first_used(run(66, 511)), Some(66));
        assert_eq!(usage.give_back(run(0, 64)), 5);
        assert_eq!(usage.first_used(PagesInTable::ALL), Some(65));
        assert_eq!(usage.pages, 7);
    }

    #[test]
    fn holes_lie_between() {
        let mut usage = TableUse::default();
        assert_eq!(usage.holes().collect::<Vec<_>>(), [PagesInTable::ALL]);
        usage.take(run(0, 63));
        usage.take(run(128, 130));
        assert_eq!(usage.holes().collect::<Vec<_>>(), [run(64, 127), run(131, 511)]);
        usage.take(run(64, 127));
        usage.take(run(131, 511));
        assert_eq!(usage.holes().count(), 0);
    }
}
