//! A long array of atomic words of which little is used.
//!
//! Address space is reserved for all of it and memory taken where it is first written, page by page,
//! so the processor's own page tables find a word: one add and one load, however long the array is.
//! Takes no lock.

#![expect(unsafe_code, reason = "UNSAFETY: views a private mapping as atomics, gives pages back")]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::mm::{Advice, MapFlags, madvise};

use crate::mapping::Mapping;

const WORD_BYTES: usize = size_of::<AtomicU64>();
const PAGE_WORDS: usize = 4096 / WORD_BYTES;

/// An array of words, all zero at first.
#[derive(Debug)]
pub struct SparseWords {
    mapping: Mapping,
    length: usize,
}

impl SparseWords {
    /// An array of `length` words, at least one. Takes no memory yet.
    ///
    /// # Errors
    /// As `mmap(2)`: `EINVAL` where `length` is zero, `ENOMEM`.
    pub fn new(length: usize) -> io::Result<Self> {
        let bytes = length.checked_mul(WORD_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping::anonymous(bytes, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        Ok(Self { mapping, length })
    }

    /// The word at `index`; `None` past the end.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "smaller than a length that is a usize")]
    pub fn get(&self, index: u64) -> Option<&AtomicU64> {
        if index >= self.length as u64 {
            return None;
        }
        let offset = index as usize * WORD_BYTES;
        // SAFETY: inside the mapping, which lives as long as the borrow of `self`; aligned, as the
        // mapping is to a page; zeroed by the kernel, and only ever accessed through these atomics.
        Some(unsafe { self.mapping.address().add(offset).cast().as_ref() })
    }

    /// The words in `range`.
    ///
    /// # Panics
    /// If the range passes the end.
    #[inline]
    pub fn slice(&self, range: Range<usize>) -> &[AtomicU64] {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} passes the end");
        let first = self.mapping.address().cast::<AtomicU64>();
        // SAFETY: as in `get`, for each word of a range that was just checked.
        unsafe { std::slice::from_raw_parts(first.add(range.start).as_ptr(), range.len()) }
    }

    /// Zeroes the words in `range` and gives the memory of whole pages back. Whoever reads after it
    /// returned reads zeros.
    ///
    /// # Panics
    /// If the range passes the end.
    pub fn discard(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} passes the end");
        let pages = range.start.next_multiple_of(PAGE_WORDS)..range.end / PAGE_WORDS * PAGE_WORDS;
        if pages.start >= pages.end || self.give_back(pages.clone()).is_err() {
            return self.zero(range);
        }
        self.zero(range.start..pages.start);
        self.zero(pages.end..range.end);
    }

    /// How many words.
    pub fn length(&self) -> usize {
        self.length
    }

    fn zero(&self, range: Range<usize>) {
        for word in self.slice(range) {
            word.store(0, Relaxed);
        }
    }

    fn give_back(&self, pages: Range<usize>) -> io::Result<()> {
        // SAFETY: inside the mapping, whole pages. They read as zeros afterwards, which is a value
        // like any other to the atomics that live there.
        unsafe {
            let first = self.mapping.address().add(pages.start * WORD_BYTES);
            madvise(first.as_ptr().cast(), pages.len() * WORD_BYTES, Advice::LinuxDontNeed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zero_and_ends_where_it_was_told() {
        let words = SparseWords::new(1 << 27).unwrap();
        assert_eq!(words.get((1 << 27) - 1).unwrap().load(Relaxed), 0);
        assert!(words.get(1 << 27).is_none());
    }

    #[test]
    fn discards_exactly_the_range() {
        let words = SparseWords::new(4096).unwrap();
        for range in [0..4096, 0..512, 3..700, 500..2049, 512..1024, 7..9, 9..9] {
            words.slice(0..4096).iter().for_each(|word| word.store(1, Relaxed));
            words.discard(range.clone());
            for (index, word) in words.slice(0..4096).iter().enumerate() {
                assert_eq!(word.load(Relaxed) == 0, range.contains(&index), "{index} {range:?}");
            }
        }
    }
}
