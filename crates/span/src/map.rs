//! Values keyed by spans that do not overlap.
//!
//! A `BTreeMap` by start: every look-up is one descent, because what precedes an address is the only
//! entry that can cover it.

use std::collections::BTreeMap;
use std::collections::btree_map;

use crate::Span;

/// An ordered map from spans to values. No two spans in it share a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanMap<T> {
    by_start: BTreeMap<u64, Entry<T>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry<T> {
    span: Span,
    value: T,
}

impl<T> SpanMap<T> {
    /// An empty map.
    pub const fn new() -> Self {
        Self { by_start: BTreeMap::new() }
    }

    /// Adds a value under `span`.
    ///
    /// # Errors
    /// The first span already in the map that shares a byte with `span`; the value is dropped.
    pub fn insert(&mut self, span: Span, value: T) -> Result<(), Span> {
        if let Some((overlapped, _)) = self.overlapping(span).next() {
            return Err(overlapped);
        }
        self.by_start.insert(span.start(), Entry { span, value });
        Ok(())
    }

    /// Takes out the value of exactly `span`; `None` where the map holds no such span, even if it
    /// holds some that overlap.
    pub fn remove_exact(&mut self, span: Span) -> Option<T> {
        match self.by_start.entry(span.start()) {
            btree_map::Entry::Occupied(entry) if entry.get().span == span => {
                Some(entry.remove().value)
            }
            btree_map::Entry::Occupied(_) | btree_map::Entry::Vacant(_) => None,
        }
    }

    /// Takes everything out, in ascending order.
    pub fn take_all(&mut self) -> impl Iterator<Item = (Span, T)> + use<T> {
        std::mem::take(&mut self.by_start).into_values().map(|entry| (entry.span, entry.value))
    }

    /// The span that covers `address`, and its value.
    pub fn get(&self, address: u64) -> Option<(Span, &T)> {
        let (_, entry) = self.by_start.range(..=address).next_back()?;
        entry.span.contains(address).then_some((entry.span, &entry.value))
    }

    /// As [`get`](Self::get), to change the value.
    pub fn get_mut(&mut self, address: u64) -> Option<(Span, &mut T)> {
        let (_, entry) = self.by_start.range_mut(..=address).next_back()?;
        entry.span.contains(address).then_some((entry.span, &mut entry.value))
    }

    /// Every span in ascending order, with its value.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Span, &T)> {
        self.by_start.values().map(|entry| (entry.span, &entry.value))
    }

    /// The spans that share a byte with `span`, whole, in ascending order.
    pub fn overlapping(&self, span: Span) -> impl DoubleEndedIterator<Item = (Span, &T)> {
        let from = self.get(span.start()).map_or(span.start(), |(first, _)| first.start());
        self.by_start.range(from..=span.last()).map(|(_, entry)| (entry.span, &entry.value))
    }

    /// The longest runs inside `within` that no span covers, in ascending order.
    pub fn gaps(&self, within: Span) -> impl Iterator<Item = Span> {
        let mut covered = self.overlapping(within).map(|(span, _)| span);
        // The byte after what is behind us; `None` where there is no such byte.
        let mut at = Some(within.start());
        std::iter::from_fn(move || {
            loop {
                let start = at?;
                let Some(next) = covered.next() else {
                    at = None;
                    return Span::from_ends(start, within.last());
                };
                at = next.last().checked_add(1);
                if let Some(before) = next.start().checked_sub(1)
                    && let Some(gap) = Span::from_ends(start, before)
                {
                    return Some(gap);
                }
            }
        })
    }

    /// How many spans it holds.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }
}

impl<T> Default for SpanMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, last: u64) -> Span {
        Span::from_ends(start, last).unwrap()
    }

    #[test]
    fn an_overlap_names_the_first_span_met() {
        let mut map = SpanMap::new();
        map.insert(span(10, 19), 'a').unwrap();
        map.insert(span(30, 39), 'b').unwrap();
        assert_eq!(map.insert(span(0, 50), 'c'), Err(span(10, 19)));
        assert_eq!(map.insert(span(19, 19), 'c'), Err(span(10, 19)));
        assert_eq!(map.insert(span(20, 30), 'c'), Err(span(30, 39)));
        assert_eq!(map.insert(span(20, 29), 'c'), Ok(()));
    }

    #[test]
    fn only_the_exact_span_is_removed() {
        let mut map = SpanMap::new();
        map.insert(span(10, 19), 'a').unwrap();
        assert_eq!(map.remove_exact(span(10, 18)), None);
        assert_eq!(map.remove_exact(span(11, 19)), None);
        assert_eq!(map.remove_exact(span(10, 19)), Some('a'));
        assert!(map.is_empty());
    }

    #[test]
    fn gaps_reach_both_ends_of_the_address_space() {
        let mut map = SpanMap::new();
        assert_eq!(map.gaps(Span::WHOLE).collect::<Vec<_>>(), [Span::WHOLE]);
        map.insert(span(10, 19), ()).unwrap();
        let ends = [span(0, 9), span(20, u64::MAX)];
        assert_eq!(map.gaps(Span::WHOLE).collect::<Vec<_>>(), ends);
        map.insert(span(0, 9), ()).unwrap();
        map.insert(span(20, u64::MAX), ()).unwrap();
        assert_eq!(map.gaps(Span::WHOLE).count(), 0);
    }

    #[test]
    fn spans_come_out_in_order() {
        let mut map = SpanMap::new();
        map.insert(span(30, 39), 'b').unwrap();
        map.insert(span(10, 19), 'a').unwrap();
        *map.get_mut(35).unwrap().1 = 'c';
        let found: Vec<_> = map.take_all().collect();
        assert_eq!(found, [(span(10, 19), 'a'), (span(30, 39), 'c')]);
        assert!(map.is_empty());
    }
}
