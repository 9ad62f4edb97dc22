//! Spans of an address space that are not for mappings, each with who keeps it so.
//!
//! Spans of different owners may overlap; a span is free again when all owners have gone. Takes no lock:
//! it lives inside an address space.

use span::Span;

use crate::address_space::Mirror;

/// Who reserves a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The page table with this name: what its hardware cannot translate.
    PageTable(Mirror),
    /// The device with this id: what never reaches its IOMMU's tables.
    Device(u32),
}

/// The reserved spans of one address space: a handful.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    spans: Vec<(Span, Owner)>,
}

impl Reservations {
    pub(crate) fn add(&mut self, owner: Owner, span: Span) {
        self.spans.push((span, owner));
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.spans.len()
    }

    /// Drops all spans of `owner`.
    pub(crate) fn release(&mut self, owner: Owner) {
        self.spans.retain(|(_, other)| *other != owner);
    }

    /// A reserved span that shares a byte with `span`.
    pub(crate) fn meeting(&self, span: Span) -> Option<Span> {
        self.spans.iter().map(|(reserved, _)| *reserved).find(|reserved| reserved.intersects(span))
    }

    /// The longest runs inside `within` that nobody reserves, ascending.
    pub(crate) fn holes(&self, within: Span) -> Vec<Span> {
        let reserved: Vec<Span> = self.spans.iter().map(|(span, _)| *span).collect();
        without(within, &reserved)
    }
}

/// The longest runs inside `within` that none of `taken` covers, ascending.
pub(crate) fn without(within: Span, taken: &[Span]) -> Vec<Span> {
    let mut taken = taken.to_vec();
    taken.sort_unstable_by_key(|span| span.start());
    let mut holes = Vec::new();
    let mut free_from = Some(within.start());
    for span in taken {
        let Some(start) = free_from.filter(|start| *start <= within.last()) else { break };
        let before = span.start().checked_sub(1);
        if let Some(last) = before.filter(|last| *last >= start) {
            holes.extend(Span::from_ends(start, last.min(within.last())));
        }
        if span.last() >= start {
            free_from = span.last().checked_add(1);
        }
    }
    let rest = free_from.and_then(|start| Span::from_ends(start, within.last()));
    holes.extend(rest);
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, last: u64) -> Span {
        Span::from_ends(start, last).unwrap()
    }

    fn reserving(spans: &[(u64, u64)]) -> Reservations {
        let mut reservations = Reservations::default();
        for (id, (start, last)) in (1..).zip(spans) {
            reservations.add(Owner::Device(id), span(*start, *last));
        }
        reservations
    }

    #[test]
    fn without_reservations_all_is_one_hole() {
        assert_eq!(reserving(&[]).holes(Span::WHOLE), [Span::WHOLE]);
    }

    #[test]
    fn holes_lie_between_overlapping_and_nested_spans_in_any_order() {
        let reserved = reserving(&[(50, 60), (10, 30), (12, 15), (25, 40), (41, 41)]);
        assert_eq!(reserved.holes(span(0, 70)), [span(0, 9), span(42, 49), span(61, 70)]);
        assert_eq!(reserved.holes(span(12, 50)), [span(42, 49)]);
        assert_eq!(reserved.holes(span(10, 41)), []);
        assert_eq!(reserved.holes(span(45, 46)), [span(45, 46)]);
    }

    #[test]
    fn ends_of_the_address_space_can_be_reserved() {
        let reserved = reserving(&[(0, 9), (100, u64::MAX)]);
        assert_eq!(reserved.holes(Span::WHOLE), [span(10, 99)]);
        assert_eq!(reserving(&[(0, u64::MAX)]).holes(Span::WHOLE), []);
    }

    #[test]
    fn a_span_stays_reserved_until_its_last_owner_goes() {
        let mut reserved = Reservations::default();
        reserved.add(Owner::Device(1), span(5, 9));
        reserved.add(Owner::PageTable(Mirror(1)), span(5, 9));
        reserved.release(Owner::Device(1));
        assert_eq!(reserved.meeting(span(9, 20)), Some(span(5, 9)));
        reserved.release(Owner::PageTable(Mirror(1)));
        assert_eq!(reserved.meeting(span(9, 20)), None);
    }
}
