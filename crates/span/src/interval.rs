//! One closed interval of addresses, never empty.

use std::fmt;

/// A run of addresses in bytes, both ends included, so that the topmost byte is expressible.
/// Ordered by start, then by last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    start: u64,
    last: u64,
}

impl Span {
    /// Every address there is.
    pub const WHOLE: Self = Self { start: 0, last: u64::MAX };

    /// The `length` bytes from `start`. `None` where `length` is zero or the span would pass the
    /// top of the address space.
    pub const fn new(start: u64, length: u64) -> Option<Self> {
        let Some(reach) = length.checked_sub(1) else { return None };
        match start.checked_add(reach) {
            Some(last) => Some(Self { start, last }),
            None => None,
        }
    }

    /// The bytes `start..=last`. `None` where `last` is before `start`.
    pub const fn from_ends(start: u64, last: u64) -> Option<Self> {
        if last < start { None } else { Some(Self { start, last }) }
    }

    /// The first byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The last byte.
    pub const fn last(self) -> u64 {
        self.last
    }

    /// Bytes covered. [`WHOLE`](Self::WHOLE), whose length is no `u64`, answers `u64::MAX`; where
    /// that matters ask [`checked_length`](Self::checked_length).
    pub const fn length(self) -> u64 {
        (self.last - self.start).saturating_add(1)
    }

    /// Bytes covered; `None` for [`WHOLE`](Self::WHOLE).
    pub const fn checked_length(self) -> Option<u64> {
        (self.last - self.start).checked_add(1)
    }

    /// Whether `address` is inside.
    pub const fn contains(self, address: u64) -> bool {
        self.start <= address && address <= self.last
    }

    /// Whether all of `other` is inside.
    pub const fn contains_span(self, other: Self) -> bool {
        self.start <= other.start && other.last <= self.last
    }

    /// Whether the two share a byte.
    pub const fn intersects(self, other: Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    /// The bytes both have.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::from_ends(self.start.max(other.start), self.last.min(other.last))
    }

    /// How far `address` is from the start; `None` where it is outside.
    pub const fn offset_of(self, address: u64) -> Option<u64> {
        if self.contains(address) { Some(address - self.start) } else { None }
    }
}

/// As `[0x1000-0x1fff]`: both ends are inside.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}-{:#x}]", self.start, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::Span;

    #[test]
    fn the_topmost_byte_is_expressible() {
        let top = Span::new(u64::MAX, 1).unwrap();
        assert_eq!((top.start(), top.last(), top.length()), (u64::MAX, u64::MAX, 1));
        assert_eq!(Span::new(0xffff_ffff_ffff_f000, 0x1000).unwrap().last(), u64::MAX);
        assert_eq!(Span::from_ends(0, u64::MAX), Some(Span::WHOLE));
    }

    #[test]
    fn what_is_empty_or_wraps_is_no_span() {
        assert_eq!(Span::new(0, 0), None);
        assert_eq!(Span::new(u64::MAX, 2), None);
        assert_eq!(Span::new(1, u64::MAX), Span::from_ends(1, u64::MAX));
        assert_eq!(Span::new(2, u64::MAX), None);
        assert_eq!(Span::from_ends(5, 4), None);
    }

    #[test]
    fn only_the_whole_has_a_length_beyond_counting() {
        assert_eq!(Span::WHOLE.checked_length(), None);
        assert_eq!(Span::WHOLE.length(), u64::MAX);
        assert_eq!(Span::from_ends(1, u64::MAX).unwrap().checked_length(), Some(u64::MAX));
    }

    #[test]
    fn offsets_count_from_the_start() {
        let span = Span::new(0x1000, 0x1000).unwrap();
        assert_eq!(span.offset_of(0x1000), Some(0));
        assert_eq!(span.offset_of(0x1fff), Some(0xfff));
        assert_eq!(span.offset_of(0x2000), None);
        assert_eq!(span.offset_of(0xfff), None);
    }

    #[test]
    fn prints_both_ends() {
        assert_eq!(Span::new(0x1000, 0x1000).unwrap().to_string(), "[0x1000-0x1fff]");
    }
}
