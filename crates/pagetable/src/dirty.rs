//! Which pages devices wrote to.
//!
//! One bit a page, in two bitmaps. Of each line of 512 pages one bitmap takes new marks and the
//! other is empty. Who reads the log makes lines that were marked change sides, waits until nobody
//! marks the old side any more, and then copies and empties it with plain loads and stores. A line
//! that nobody marked is not looked at: two levels of summary say which ones were.
//!
//! Why no mark is lost or late. A mark makes sure of the line's summary bit, then of the bit above,
//! then sets its own. The reader takes the bit above, then the summary bit, then changes sides. If
//! the mark came first to the summary bit, the reader takes the line and waits for the mark, which
//! is made inside a [`Walk`]. If the reader came first, the mark sees that both are taken and sets
//! them anew, and the line is found the next time.
//!
//! Takes no lock; marks are made inside walks, and one handle reads.

use std::io;
use std::sync::Arc;

use span::Span;

use crate::memory::{AtomicU64, Ordering, SparseWords};
use crate::{PAGE_LG2, Readers, Visitor, Walk};

/// The side that is marked.
#[derive(Debug)]
pub struct DirtyLog {
    /// A bit for each page; see [`Self::sides`].
    pages: [SparseWords; 2],
    /// A bit for each line: which of the two takes marks. Only the reader changes it.
    sides: SparseWords,
    /// A bit for each line that may have been marked.
    lines: SparseWords,
    /// A bit for each word of `lines` that may not be zero.
    groups: SparseWords,
}

/// The one handle that reads a log.
#[derive(Debug)]
pub struct DirtyReader {
    log: Arc<DirtyLog>,
    /// Lines that are being read: group and bits. Kept for its memory.
    taken: Vec<(u64, u64)>,
    /// How many of `taken` were delivered.
    delivered: usize,
    /// What is being read.
    reached: Span,
}

/// What a reading does to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clear {
    /// What is reported is clean afterwards.
    Yes,
    /// Nothing changes.
    No,
}

impl DirtyLog {
    /// An empty log for addresses below 2 to the power of `address_bits`, between 30 and 57.
    ///
    /// # Errors
    /// As `mmap(2)`: `ENOMEM`, where addresses cannot be reserved.
    pub fn new(address_bits: u32) -> io::Result<(Arc<Self>, DirtyReader)> {
        let words = |per_word_lg2: u32| {
            SparseWords::new(1 << address_bits.saturating_sub(PAGE_LG2 + per_word_lg2))
        };
        let log = Arc::new(Self {
            pages: [words(WORD_LG2)?, words(WORD_LG2)?],
            sides: words(LINE_LG2 + WORD_LG2)?,
            lines: words(LINE_LG2 + WORD_LG2)?,
            groups: words(LINE_LG2 + 2 * WORD_LG2)?,
        });
        Ok((Arc::clone(&log), DirtyReader::new(log)))
    }

    /// Notes a write to `span`. Addresses beyond the log are not noted.
    #[inline]
    pub fn mark(&self, _inside: &Walk<'_>, span: Span) {
        self.mark_pages(span);
    }

    /// As [`mark`](Self::mark), by whoever stays without a walk.
    ///
    /// # Panics
    /// If no stay is announced.
    #[inline]
    pub fn mark_in_stay(&self, inside: &Visitor, span: Span) {
        assert!(inside.is_inside(), "nobody would wait for this mark");
        self.mark_pages(span);
    }

    /// Makes the pages of `span` clean, whoever reads or marks meanwhile. A reading that goes on may still tell of
    /// marks of before; no other mark is lost. Waits for nobody.
    pub fn forget(&self, span: Span) {
        let Some(span) = span.intersection(self.span()) else { return };
        let (first, last) = (span.start() >> PAGE_LG2, span.last() >> PAGE_LG2);
        self.for_each_marked(span, |group, mut lines| {
            while lines != 0 {
                let line = group << WORD_LG2 | u64::from(lines.trailing_zeros());
                lines &= lines - 1;
                for word in line * LINE_WORDS..(line + 1) * LINE_WORDS {
                    self.forget_word(word, bits_of(word, first, last));
                }
            }
        });
    }

    fn forget_word(&self, word: u64, bits: u64) {
        for pages in self.pages.iter().filter_map(|side| side.get(word)) {
            if pages.load(Ordering::Relaxed) & bits != 0 {
                pages.fetch_and(!bits, Ordering::AcqRel);
            }
        }
    }

    /// Calls `each` with every group of lines that `span` meets and that may have marks, and which lines.
    fn for_each_marked(&self, span: Span, mut each: impl FnMut(u64, u64)) {
        let to_line = PAGE_LG2 + LINE_LG2;
        let (first, last) = (span.start() >> to_line, span.last() >> to_line);
        let (first_group, last_group) = (first >> WORD_LG2, last >> WORD_LG2);
        for above in first_group >> WORD_LG2..=last_group >> WORD_LG2 {
            let Some(groups) = self.groups.get(above) else { return };
            let mut marked =
                groups.load(Ordering::Acquire) & bits_of(above, first_group, last_group);
            while marked != 0 {
                let group = above << WORD_LG2 | u64::from(marked.trailing_zeros());
                marked &= marked - 1;
                let wanted = bits_of(group, first, last);
                let lines = self.lines.get(group).map_or(0, |word| word.load(Ordering::Acquire));
                each(group, lines & wanted);
            }
        }
    }

    #[inline]
    fn mark_pages(&self, span: Span) {
        let (first, last) = (span.start() >> PAGE_LG2, span.last() >> PAGE_LG2);
        let (first_word, last_word) = (first >> WORD_LG2, last >> WORD_LG2);
        let low = u64::MAX << (first % WORD_BITS);
        let high = u64::MAX >> (WORD_BITS - 1 - last % WORD_BITS);
        if first_word == last_word {
            return self.mark_word(first_word, low & high);
        }
        self.mark_word(first_word, low);
        (first_word + 1..last_word).for_each(|word| self.mark_word(word, u64::MAX));
        self.mark_word(last_word, high);
    }

    #[inline]
    fn mark_word(&self, word: u64, bits: u64) {
        let (group, line_bit) = line_of(word);
        let Some(sides) = self.sides.get(group) else { return };
        let side = usize::from(sides.load(Ordering::Acquire) & line_bit != 0);
        let Some(pages) = self.pages[side].get(word) else { return };
        if pages.load(Ordering::Relaxed) & bits != bits {
            self.mark_first(word, bits, pages);
        }
    }

    /// Marks pages of a word that are not all marked.
    #[cold]
    fn mark_first(&self, word: u64, bits: u64, pages: &AtomicU64) {
        let (group, line_bit) = line_of(word);
        set(self.lines.get(group), line_bit);
        set(self.groups.get(group >> WORD_LG2), 1 << (group % WORD_BITS));
        pages.fetch_or(bits, Ordering::AcqRel);
    }

    /// The marks of a line on the side that takes no new ones, or on the other.
    fn line(&self, line: u64, taking_marks: bool) -> &[AtomicU64] {
        let (group, bit) = (line >> WORD_LG2, 1 << (line % WORD_BITS));
        let sides = self.sides.get(group).map_or(0, |word| word.load(Ordering::Relaxed));
        let side = usize::from((sides & bit != 0) == taking_marks);
        let first = index(line * LINE_WORDS);
        self.pages[side].slice(first..first + WORDS_IN_LINE)
    }
}

impl DirtyReader {
    /// The side that is marked.
    pub const fn log(&self) -> &Arc<DirtyLog> {
        &self.log
    }

    /// Adds the marks inside `span`, which is whole pages, to `bits`.
    ///
    /// `leaf_lg2_at` says, for an address, the binary logarithm of the bytes of the leaf there. A
    /// leaf larger than a page is dirty as a whole, and made clean as a whole even where `span` cuts
    /// it; pass a function that answers [`PAGE_LG2`] to have every page told apart.
    ///
    /// Waits for `readers` where there is something to make clean, once.
    pub fn read(
        &mut self,
        span: Span,
        clear: Clear,
        readers: &Readers,
        leaf_lg2_at: impl Fn(u64) -> u32,
        bits: &mut DirtyBits<'_>,
    ) {
        if self.take(widen(span, &leaf_lg2_at), clear) && clear == Clear::Yes {
            readers.wait();
        }
        self.deliver_lines(u64::MAX, clear, leaf_lg2_at, bits);
    }

    /// Begins a reading of `span`, which is whole pages, page by page. Returns whether there is anything to
    /// [deliver](Self::deliver); where that is to be made clean, wait for readers before.
    pub fn take(&mut self, span: Span, clear: Clear) -> bool {
        self.taken.clear();
        self.delivered = 0;
        let Some(reached) = span.intersection(self.log.span()) else { return false };
        self.reached = reached;
        self.take_lines(reached, clear);
        !self.taken.is_empty()
    }

    /// Where the next marks to deliver may be: the first address of 512 pages.
    pub fn next_taken(&self) -> Option<u64> {
        let (group, lines) = self.taken.get(self.delivered)?;
        let line = group << WORD_LG2 | u64::from(lines.trailing_zeros());
        Some(line << (LINE_LG2 + PAGE_LG2))
    }

    /// Adds the marks up to the page at `last`, which ends 512 pages, to `bits`. Deliver all that was taken: what is not
    /// is lost.
    pub fn deliver(&mut self, last: u64, clear: Clear, bits: &mut DirtyBits<'_>) {
        self.deliver_lines(last, clear, |_| PAGE_LG2, bits);
    }

    fn deliver_lines(
        &mut self,
        last: u64,
        clear: Clear,
        leaf_lg2_at: impl Fn(u64) -> u32,
        bits: &mut DirtyBits<'_>,
    ) {
        let mut told = None;
        while let Some(start) = self.next_taken().filter(|start| *start <= last) {
            let line = start >> (LINE_LG2 + PAGE_LG2);
            let leaf_lg2 = leaf_lg2_at(start);
            if leaf_lg2 < PAGE_LG2 + LINE_LG2 {
                self.read_line(line, self.reached, clear, bits);
            } else if self.any_in_line(line, clear) && told != Some(start >> leaf_lg2) {
                told = Some(start >> leaf_lg2);
                bits.set_span(leaf_around(start, leaf_lg2));
            }
            let (_, lines) = &mut self.taken[self.delivered];
            *lines &= *lines - 1;
            self.delivered += usize::from(*lines == 0);
        }
    }

    fn new(log: Arc<DirtyLog>) -> Self {
        Self { log, taken: Vec::new(), delivered: 0, reached: Span::WHOLE }
    }

    /// Collects the lines in `span` that may have marks. To make them clean, they change sides.
    fn take_lines(&mut self, span: Span, clear: Clear) {
        let (log, taken) = (&self.log, &mut self.taken);
        let to_line = PAGE_LG2 + LINE_LG2;
        let (first, last) = (span.start() >> to_line, span.last() >> to_line);
        log.for_each_marked(span, |group, marked| {
            let lines = match clear {
                Clear::Yes => log.turn_lines(group, bits_of(group, first, last)),
                Clear::No => marked,
            };
            if lines != 0 {
                taken.push((group, lines));
            }
        });
    }

    #[inline]
    fn read_line(&self, line: u64, span: Span, clear: Clear, bits: &mut DirtyBits<'_>) {
        let start = line << (LINE_LG2 + PAGE_LG2);
        let (first, last) = (span.start() >> PAGE_LG2, span.last() >> PAGE_LG2);
        let whole = Span::new(start, 1 << (LINE_LG2 + PAGE_LG2))
            .is_some_and(|line| span.contains_span(line));
        let words = self.log.line(line, clear == Clear::No);
        if whole && let Some(bits) = bits.line(start) {
            return copy(words, clear, bits);
        }
        for (word, pages) in (line * LINE_WORDS..).zip(words) {
            let marks = pages.load(Ordering::Relaxed);
            if marks == 0 {
                continue;
            }
            let wanted = if whole { u64::MAX } else { bits_of(word, first, last) };
            bits.set_word(word << (WORD_LG2 + PAGE_LG2), marks & wanted);
            if clear == Clear::Yes {
                pages.store(0, Ordering::Relaxed);
                if marks & !wanted != 0 {
                    self.log.mark_word(word, marks & !wanted);
                }
            }
        }
    }

    fn any_in_line(&self, line: u64, clear: Clear) -> bool {
        let words = self.log.line(line, clear == Clear::No);
        let any = words.iter().any(|word| word.load(Ordering::Relaxed) != 0);
        if any && clear == Clear::Yes {
            words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        any
    }
}

impl DirtyLog {
    fn span(&self) -> Span {
        let bytes = (self.pages[0].length() as u64) << (WORD_LG2 + PAGE_LG2);
        Span::new(0, bytes).expect("a log has words")
    }

    /// Takes those of `wanted` lines of a group that may have marks; they take new marks on their
    /// other side from now on.
    fn turn_lines(&self, group: u64, wanted: u64) -> u64 {
        let words =
            (self.lines.get(group), self.sides.get(group), self.groups.get(group >> WORD_LG2));
        let (Some(lines), Some(sides), Some(groups)) = words else { return 0 };
        if wanted == u64::MAX {
            groups.fetch_and(!(1 << (group % WORD_BITS)), Ordering::AcqRel);
        }
        let taken = lines.fetch_and(!wanted, Ordering::AcqRel) & wanted;
        sides.store(sides.load(Ordering::Relaxed) ^ taken, Ordering::Release);
        taken
    }
}

/// A bitmap as clients read it: a bit for each unit of an address range, the lowest first. Bits are
/// only ever added.
#[derive(Debug)]
pub struct DirtyBits<'a> {
    span: Span,
    unit_lg2: u32,
    words: &'a mut [u64],
}

impl<'a> DirtyBits<'a> {
    /// A view of `words` as the bitmap of `span`, which is whole pages and whole units of 2 to the
    /// power of `unit_lg2` bytes. `None` where there are too few words.
    pub fn new(span: Span, unit_lg2: u32, words: &'a mut [u64]) -> Option<Self> {
        let units = (span.last() - span.start()).checked_shr(unit_lg2)? + 1;
        (units.div_ceil(WORD_BITS) <= words.len() as u64).then_some(Self { span, unit_lg2, words })
    }

    /// Sets the bits of all units that `span` meets.
    fn set_span(&mut self, span: Span) {
        let Some(inside) = span.intersection(self.span) else { return };
        let unit = |address: u64| (address - self.span.start()) >> self.unit_lg2;
        let (first, last) = (unit(inside.start()), unit(inside.last()));
        for word in first >> WORD_LG2..=last >> WORD_LG2 {
            self.words[index(word)] |= bits_of(word, first, last);
        }
    }

    /// The words for the 512 pages from `start` on, where words of the log and of the bitmap match.
    #[inline]
    fn line(&mut self, start: u64) -> Option<&mut [u64; WORDS_IN_LINE]> {
        let from = start.checked_sub(self.span.start())? >> PAGE_LG2;
        if self.unit_lg2 != PAGE_LG2 || !from.is_multiple_of(WORD_BITS) {
            return None;
        }
        self.words.get_mut(index(from >> WORD_LG2)..)?.first_chunk_mut()
    }

    /// Sets the bits of the marked ones of the 64 pages from `start` on, all of them in the span.
    #[inline]
    fn set_word(&mut self, start: u64, mut marks: u64) {
        let from = start.wrapping_sub(self.span.start()) >> PAGE_LG2;
        if self.unit_lg2 == PAGE_LG2 && start >= self.span.start() && from.is_multiple_of(WORD_BITS)
        {
            if let Some(word) = self.words.get_mut(index(from >> WORD_LG2)) {
                *word |= marks;
            }
            return;
        }
        while marks != 0 {
            let first = u64::from(marks.trailing_zeros());
            let run = u64::from((marks >> first).trailing_ones());
            if let Some(pages) = Span::new(start + (first << PAGE_LG2), run << PAGE_LG2) {
                self.set_span(pages);
            }
            marks &=
                u64::MAX.checked_shl(u32::try_from(first + run).unwrap_or(u64::BITS)).unwrap_or(0);
        }
    }
}

/// Adds a line's marks to `bits`.
#[inline]
fn copy(words: &[AtomicU64], clear: Clear, bits: &mut [u64; WORDS_IN_LINE]) {
    for (pages, bits) in words.iter().zip(bits) {
        *bits |= pages.load(Ordering::Relaxed);
        if clear == Clear::Yes {
            pages.store(0, Ordering::Relaxed);
        }
    }
}

/// Sets a summary bit that is not set.
#[inline]
fn set(word: Option<&AtomicU64>, bit: u64) {
    if let Some(word) = word
        && word.load(Ordering::Acquire) & bit == 0
    {
        word.fetch_or(bit, Ordering::AcqRel);
    }
}

/// `span`, and the rest of leaves larger than a line that it cuts.
fn widen(span: Span, leaf_lg2_at: impl Fn(u64) -> u32) -> Span {
    let leaf = |address: u64| {
        let size_lg2 = leaf_lg2_at(address);
        if size_lg2 < PAGE_LG2 + LINE_LG2 { span } else { leaf_around(address, size_lg2) }
    };
    let start = span.start().min(leaf(span.start()).start());
    let last = span.last().max(leaf(span.last()).last());
    Span::from_ends(start, last).unwrap_or(span)
}

fn leaf_around(address: u64, size_lg2: u32) -> Span {
    let mask = (1 << size_lg2) - 1;
    Span::from_ends(address & !mask, address | mask).expect("a mask only adds bits")
}

/// The bits of word `word` of a bitmap that stand for `first..=last`.
#[inline]
const fn bits_of(word: u64, first: u64, last: u64) -> u64 {
    let start = word << WORD_LG2;
    let from = first.saturating_sub(start);
    let to = last.saturating_sub(start);
    let low = if from < WORD_BITS { u64::MAX << from } else { 0 };
    let high = if last < start {
        0
    } else if to < WORD_BITS {
        u64::MAX >> (WORD_BITS - 1 - to)
    } else {
        u64::MAX
    };
    low & high
}

/// The group of a word's line, and the line's bit in it.
#[inline]
const fn line_of(word: u64) -> (u64, u64) {
    let line = word / LINE_WORDS;
    (line >> WORD_LG2, 1 << (line % WORD_BITS))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "indexes an array of fewer words")]
const fn index(words: u64) -> usize {
    words as usize
}

const WORD_LG2: u32 = 6;
const WORD_BITS: u64 = 1 << WORD_LG2;
/// Pages in a line: what one cache line of bits stands for.
const LINE_LG2: u32 = 9;
const WORDS_IN_LINE: usize = 1 << (LINE_LG2 - WORD_LG2);
const LINE_WORDS: u64 = WORDS_IN_LINE as u64;
