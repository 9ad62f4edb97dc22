//! Where a mapping goes when the client leaves the choice to us.
//!
//! First fit, ascending. Takes no lock. Source: v7.3 `iopt_alloc_iova()`, as told in [uapi/iommufd.h].

use span::Span;

use crate::{PAGE_SIZE, Refusal};

/// Where the client wants a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// At this I/O virtual address.
    Fixed(u64),
    /// Anywhere.
    Automatic,
}

/// Addresses that are chosen where the client allowed no others: never the first or the last page, so
/// that 0 is never returned.
pub(crate) const AUTOMATIC: Span = match Span::from_ends(PAGE_SIZE, u64::MAX - PAGE_SIZE) {
    Some(span) => span,
    None => Span::WHOLE,
};

/// What a span must be like to take a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    length: u64,
    /// A power of two.
    alignment: u64,
    page_offset: u64,
}

impl Fit {
    /// What `length` bytes from `at` on need: an I/O virtual address as aligned as the memory is, so that large pages
    /// can be used, and as far into a page.
    ///
    /// # Errors
    /// - [`Refusal::PastTop`] (`EOVERFLOW`): half the address space or more.
    /// - [`Refusal::Misaligned`] (`EINVAL`): the memory is less aligned than `least_alignment`.
    pub(crate) const fn of(at: u64, length: u64, least_alignment: u64) -> Result<Self, Refusal> {
        if length >= u64::MAX / 2 {
            return Err(Refusal::PastTop { start: 0, length });
        }
        let ideal = length.next_power_of_two();
        let natural = at & at.wrapping_neg();
        let alignment = if natural == 0 { ideal } else { least(ideal, natural) };
        let alignment = least(alignment, ALIGNMENT_MAX);
        if alignment < least_alignment {
            return Err(Refusal::Misaligned { value: at, alignment: least_alignment });
        }
        Ok(Self { length, alignment, page_offset: at % PAGE_SIZE })
    }

    /// The same for a map that keeps a page table; `None` where no page table could hold it.
    pub(crate) const fn in_pages(&self) -> Option<pagetable::Fit> {
        pagetable::Fit::new(self.length, self.alignment, self.page_offset)
    }

    /// The lowest span inside `hole` that serves.
    pub(crate) fn lowest_in(&self, hole: Span) -> Option<Span> {
        let aligned = hole.start().checked_next_multiple_of(self.alignment)?;
        let span = Span::new(aligned | self.page_offset, self.length)?;
        if hole.contains_span(span) { Some(span) } else { None }
    }
}

const fn least(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

/// The largest page that transparent huge pages make.
const ALIGNMENT_MAX: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(at: u64, length: u64, least_alignment: u64) -> Result<Fit, Refusal> {
        Fit::of(at, length, least_alignment)
    }

    fn start_in(fit: Fit, start: u64, last: u64) -> Option<u64> {
        fit.lowest_in(Span::from_ends(start, last).unwrap()).map(Span::start)
    }

    #[test]
    fn alignment_is_the_lesser_of_length_and_address_and_two_megabytes() {
        assert_eq!(fit(0x7000_0000, 0x3000, 1).unwrap().alignment, 0x4000);
        assert_eq!(fit(0x7000_1000, 0x4000, 1).unwrap().alignment, 0x1000);
        assert_eq!(fit(0x4000_0000, 0x4000_0000, 1).unwrap().alignment, 2 << 20);
        assert_eq!(fit(0, 0x10_0000, 1).unwrap().alignment, 0x10_0000);
        assert_eq!(fit(0x1003, 0x4000, 1).unwrap().alignment, 1);
    }

    #[test]
    fn refuses_half_of_everything_and_memory_too_little_aligned() {
        assert!(matches!(fit(0, u64::MAX / 2, 1), Err(Refusal::PastTop { .. })));
        assert!(matches!(fit(0x800, 0x1000, 0x1000), Err(Refusal::Misaligned { .. })));
    }

    #[test]
    fn keeps_the_offset_into_the_page() {
        let odd = fit(0x5010, 0x100, 1).unwrap();
        assert_eq!(start_in(odd, 0x1000, 0x1fff), Some(0x1010));
        assert_eq!(start_in(odd, 0x1000, 0x110e), None);
        assert_eq!(start_in(odd, 0x1000, 0x110f), Some(0x1010));
    }

    #[test]
    fn does_not_wrap_at_the_top() {
        let large = fit(0, 0x20_0000, 1).unwrap();
        assert_eq!(start_in(large, u64::MAX - 5, u64::MAX), None);
    }
}
