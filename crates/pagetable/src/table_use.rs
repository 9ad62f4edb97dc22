//! What the mapper remembers of each level-0 table: which of its pages are in use.
//!
//! Two bits a page: whether it is in use, and whether an area starts there. So overlaps, free runs and the areas
//! in a run are found 64 pages at a time, and leaves are written and dropped without being read. (The
//! table has the bounds of areas in its leaves as well, for whoever goes from area to area.) Takes no lock; belongs to the mapper.

use crate::TABLE_ENTRIES;
use crate::run_summary::TableRuns;

/// Use of one table. The counts are kept apart, for the reason that is told at [`TagUses`](crate::tag_use::TagUses).
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(crate) struct TableUse {
    words: [PageBits; WORDS],
    /// Pages in use.
    pub(crate) pages: u16,
    /// The tag of all pages in use, unless they are [`mixed`](Self::mixed).
    pub(crate) tag: u16,
    /// Whether pages may differ in their tags.
    pub(crate) mixed: bool,
    /// Whether it is noted as one that may be empty.
    pub(crate) idle: bool,
    /// The table that is to be freed after this one.
    pub(crate) next: Option<u32>,
    /// The free runs, as of the last [`summarize`](Self::summarize).
    pub(crate) runs: TableRuns,
    /// Areas whose first page is in this table.
    pub(crate) areas: u16,
}

/// Use of 64 pages, a bit for each. Side by side, so that one cache line tells all of a page.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
struct PageBits {
    /// In use.
    used: u64,
    /// The first page of its area. Clear where the page is not in use.
    starts: u64,
}

/// The use of each table that was ever handed out, by index.
#[derive(Debug, Default)]
pub(crate) struct TableUses(Vec<TableUse>);

impl PageBits {
    #[inline]
    fn give_back(&mut self, mask: u64) -> GivenBack {
        let (pages, areas) = (count_bits(self.used & mask), count_bits(self.starts & mask));
        self.used &= !mask;
        self.starts &= !mask;
        GivenBack { pages, areas }
    }
}

/// A run of pages inside a table, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PagesInTable {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// What was in use in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenBack {
    pub(crate) pages: u16,
    /// Areas that start in the run.
    pub(crate) areas: u16,
}

/// What is at a page, as far as can be told from its own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageUse {
    Free,
    /// An area of that page alone.
    Area,
    /// A larger area, or one that may be.
    Other,
}

impl PagesInTable {
    pub(crate) const ALL: Self = Self { first: 0, last: TABLE_ENTRIES - 1 };

    pub(crate) const fn count(self) -> usize {
        self.last - self.first + 1
    }

    /// The words of a bitmap that the run meets.
    #[inline]
    const fn words(self) -> Words {
        Words {
            first: self.first / WORD_BITS,
            last: self.last / WORD_BITS,
            low: u64::MAX << (self.first % WORD_BITS),
            high: u64::MAX >> (WORD_BITS - 1 - self.last % WORD_BITS),
        }
    }
}

/// Words of a bitmap, and the bits wanted in the first and in the last.
#[derive(Clone, Copy)]
struct Words {
    first: usize,
    last: usize,
    low: u64,
    high: u64,
}

impl Words {
    /// The bits wanted, if they are all in one word.
    #[inline]
    const fn only(self) -> Option<u64> {
        if self.first == self.last { Some(self.low & self.high) } else { None }
    }

    /// Each word, and the bits wanted there.
    fn iter(self) -> impl Iterator<Item = (usize, u64)> {
        (self.first..self.last + 1).map(move |word| {
            let low = if word == self.first { self.low } else { u64::MAX };
            let high = if word == self.last { self.high } else { u64::MAX };
            (word, low & high)
        })
    }
}

impl TableUse {
    /// The lowest page in use in `run`.
    #[inline]
    pub(crate) fn first_used(&self, run: PagesInTable) -> Option<usize> {
        let words = run.words();
        match words.only() {
            Some(mask) if self.words[words.first].used & mask == 0 => None,
            _ => self.first_used_of(words),
        }
    }

    #[inline(never)]
    fn first_used_of(&self, words: Words) -> Option<usize> {
        words.iter().find_map(|(word, mask)| {
            let used = self.words[word].used & mask;
            (used != 0).then(|| word * WORD_BITS + used.trailing_zeros() as usize)
        })
    }

    /// Whether `page` is in use by an area that starts before it.
    #[inline]
    pub(crate) fn continues_at(&self, page: usize) -> bool {
        let PageBits { used, starts } = self.words[page / WORD_BITS];
        (used & !starts) >> (page % WORD_BITS) & 1 == 1
    }

    /// What is at `page`.
    #[inline]
    pub(crate) fn page(&self, page: usize) -> PageUse {
        let PageBits { used, starts } = self.words[page / WORD_BITS];
        let bit = 1 << (page % WORD_BITS);
        if used & bit == 0 {
            PageUse::Free
        } else if starts & bit == 0 || page == TABLE_ENTRIES - 1 || self.continues_at(page + 1) {
            PageUse::Other
        } else {
            PageUse::Area
        }
    }

    /// Takes one page, which was free, for an area of its own.
    #[inline]
    pub(crate) fn take_page(&mut self, page: usize) {
        let bits = &mut self.words[page / WORD_BITS];
        let bit = 1 << (page % WORD_BITS);
        bits.used |= bit;
        bits.starts |= bit;
        self.pages += 1;
        self.areas += 1;
    }

    /// Gives back a page that was an area of its own.
    #[inline]
    pub(crate) fn give_back_page(&mut self, page: usize) {
        let bits = &mut self.words[page / WORD_BITS];
        let bit = 1 << (page % WORD_BITS);
        bits.used &= !bit;
        bits.starts &= !bit;
        self.pages -= 1;
        self.areas -= 1;
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

    /// Takes `run`, which was free, for an area that starts with it or before it.
    #[inline]
    pub(crate) fn take(&mut self, run: PagesInTable, starts_here: bool) {
        let words = run.words();
        let first = &mut self.words[words.first];
        first.starts |= u64::from(starts_here) << (run.first % WORD_BITS);
        match words.only() {
            Some(mask) => first.used |= mask,
            None => self.take_words(words),
        }
        self.pages += count_u16(run.count());
        self.areas += u16::from(starts_here);
    }

    #[inline(never)]
    fn take_words(&mut self, words: Words) {
        words.iter().for_each(|(word, mask)| self.words[word].used |= mask);
    }

    /// Gives back what is in use in `run`, which cuts no area.
    #[inline]
    pub(crate) fn give_back(&mut self, run: PagesInTable) -> GivenBack {
        let words = run.words();
        let given = match words.only() {
            Some(mask) => self.words[words.first].give_back(mask),
            None => self.give_back_words(words),
        };
        self.pages -= given.pages;
        self.areas -= given.areas;
        given
    }

    #[inline(never)]
    fn give_back_words(&mut self, words: Words) -> GivenBack {
        let mut all = GivenBack::default();
        for (word, mask) in words.iter() {
            let given = self.words[word].give_back(mask);
            all.pages += given.pages;
            all.areas += given.areas;
        }
        all
    }

    /// Gives back all at once.
    pub(crate) fn give_back_all(&mut self) -> GivenBack {
        let given = GivenBack { pages: self.pages, areas: self.areas };
        self.words = Default::default();
        (self.pages, self.areas) = (0, 0);
        given
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
            let bits = (self.words[word].used ^ flip) & mask;
            if bits != 0 {
                let page = word * WORD_BITS + bits.trailing_zeros() as usize;
                return (page < TABLE_ENTRIES).then_some(page);
            }
            mask = u64::MAX;
        }
        None
    }
}

impl TableUses {
    #[inline]
    pub(crate) fn get(&self, index: u32) -> &TableUse {
        &self.0[index as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut TableUse {
        &mut self.0[index as usize]
    }

    /// Makes room for the table at `index`.
    pub(crate) fn reserve(&mut self, index: u32) {
        if self.0.len() <= index as usize {
            if self.0.is_empty() {
                // Room enough that it never moves: what is not used yet takes no memory, what was left behind would.
                self.0.reserve(RESERVED);
            }
            self.0.resize(index as usize + 1, TableUse::default());
        }
    }
}

/// Tables that there is room for from the first on: of 512 GiB in small pages.
const RESERVED: usize = 1 << 18;

/// As [`u64::count_ones`], for which the oldest processors have no instruction: quicker where it is none, one or all.
#[inline]
const fn count_bits(bits: u64) -> u16 {
    match bits {
        0 => 0,
        u64::MAX => 64,
        _ if bits.is_power_of_two() => 1,
        _ => count_u16(bits.count_ones() as usize),
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
        usage.take(run(60, 70), true);
        usage.take(run(511, 511), true);
        assert_eq!((usage.pages, usage.areas), (12, 2));
        assert_eq!(usage.first_used(PagesInTable::ALL), Some(60));
        assert_eq!(usage.first_used(run(71, 510)), None);
        assert_eq!(usage.first_used(run(66, 511)), Some(66));
        assert_eq!(usage.give_back(run(0, 70)), GivenBack { pages: 11, areas: 1 });
        assert_eq!(usage.first_used(PagesInTable::ALL), Some(511));
        assert_eq!(usage.give_back_all(), GivenBack { pages: 1, areas: 1 });
        assert_eq!(usage.first_used(PagesInTable::ALL), None);
    }

    #[test]
    fn knows_where_areas_go_on() {
        let mut usage = TableUse::default();
        usage.take(run(0, 10), false);
        usage.take(run(11, 11), true);
        usage.take(run(12, 200), true);
        let goes_on = |page: &usize| usage.continues_at(*page);
        let pages: Vec<usize> = (0..512).filter(goes_on).collect();
        assert_eq!(pages, (0..=10).chain(13..=200).collect::<Vec<_>>());
    }

    #[test]
    fn holes_lie_between() {
        let mut usage = TableUse::default();
        assert_eq!(usage.holes().collect::<Vec<_>>(), [PagesInTable::ALL]);
        usage.take(run(0, 63), true);
        usage.take(run(128, 130), true);
        assert_eq!(usage.holes().collect::<Vec<_>>(), [run(64, 127), run(131, 511)]);
        usage.take(run(64, 127), true);
        usage.take(run(131, 511), true);
        assert_eq!(usage.holes().count(), 0);
    }
}
