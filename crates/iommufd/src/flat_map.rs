//! The plain IOVA map: one ordered map of areas under one lock.
//!
//! Slow where there are many areas, and obvious: what exploration of interleavings runs, and what the map over a
//! page table keeps odd areas in. Takes PAGES, a leaf but for OBJECTS, for the length of one operation.

use std::sync::Arc;

use pci::{DmaAccess, DmaFaultReason};
use span::{Span, SpanMap};
use sync::{Mutex, Named, rank};

use crate::Pinned;
use crate::area::Area;
use crate::in_flight::Stay;
use crate::iova_map::{Entry, IovaMap, Left, Removed, Translation};
use crate::placement::Fit;

/// An [`IovaMap`] over a balanced tree.
pub(crate) struct FlatMap {
    slots: Mutex<rank::Pages, SpanMap<Slot>>,
}

struct Slot {
    area: Area,
    memory: Option<Arc<dyn Pinned>>,
}

impl FlatMap {
    pub(crate) fn new() -> Self {
        Self { slots: Mutex::new(SpanMap::new()).named("slots", || "map".to_owned()) }
    }

    /// The free runs inside `within`, ascending.
    pub(crate) fn gaps(&self, within: Span) -> Vec<Span> {
        self.slots.lock().gaps(within).collect()
    }

    /// The area that covers `address`.
    pub(crate) fn covering(&self, address: u64) -> Option<Span> {
        self.slots.lock().get(address).map(|(span, _)| span)
    }
}

impl IovaMap for FlatMap {
    fn insert(&self, span: Span, area: &Area, memory: Option<Arc<dyn Pinned>>) {
        let slot = Slot { area: area.clone(), memory };
        let inserted = self.slots.lock().insert(span, slot);
        assert!(inserted.is_ok(), "the address space checked {span} against all areas");
    }

    fn remove(&self, asked: Span) -> Removed {
        let mut removed = Removed::default();
        let mut slots = self.slots.lock();
        loop {
            let met = slots.overlapping(asked).next().map(|(span, _)| span);
            let Some(span) = met else { break };
            if !asked.contains_span(span) {
                removed.sticks_out = Some(span);
                break;
            }
            let Some(slot) = slots.remove_exact(span) else { break };
            removed.areas += 1;
            removed.bytes += u128::from(slot.area.length());
            removed.left.memory.extend(slot.memory);
            removed.left.sources.push(slot.area.source);
        }
        removed.left.reachable = !removed.left.memory.is_empty();
        removed
    }

    fn fill(&self, span: Span, memory: Arc<dyn Pinned>) -> Option<Arc<dyn Pinned>> {
        let mut slots = self.slots.lock();
        match slots.get_mut(span.start()) {
            Some((at, slot)) if at == span && slot.memory.is_none() => {
                slot.memory = Some(memory);
                None
            }
            Some(_) | None => Some(memory),
        }
    }

    fn empty_all(&self) -> Left {
        let mut slots = self.slots.lock();
        let mut left = Left::default();
        for (span, Slot { area, memory }) in slots.take_all() {
            left.memory.extend(memory);
            let inserted = slots.insert(span, Slot { area, memory: None });
            assert!(inserted.is_ok(), "{span} came out of this very map");
        }
        left.reachable = !left.memory.is_empty();
        left
    }

    fn cut(&self, entry: &Entry, last: u64) -> Left {
        let mut slots = self.slots.lock();
        let mut left = Left::default();
        let Some(whole) = slots.remove_exact(entry.span) else { return left };
        for (span, area) in halves(entry, last) {
            let inserted = slots.insert(span, Slot { area, memory: whole.memory.clone() });
            assert!(inserted.is_ok(), "{span} was one area's");
        }
        left.memory.extend(whole.memory);
        left.sources.push(whole.area.source);
        left
    }

    fn translate(
        &self,
        _inside: &Stay<'_>,
        iova: u64,
        access: DmaAccess,
        _most: u64,
    ) -> Result<Translation, DmaFaultReason> {
        let slots = self.slots.lock();
        let (span, slot) = slots.get(iova).ok_or(DmaFaultReason::NotMapped)?;
        let memory = slot.memory.as_ref().ok_or(DmaFaultReason::NotMapped)?;
        if !slot.area.rights().allow(access) {
            return Err(DmaFaultReason::Permission);
        }
        Ok(Translation {
            memory: Arc::clone(memory),
            at: slot.area.at() + (iova - span.start()),
            left: span.last() - iova + 1,
        })
    }

    fn next(&self, from: u64) -> Option<Entry> {
        let slots = self.slots.lock();
        let (span, slot) = slots.overlapping(Span::from_ends(from, u64::MAX)?).next()?;
        Some(Entry { span, area: slot.area.clone(), memory: slot.memory.clone() })
    }

    fn meeting(&self, span: Span) -> Option<Span> {
        self.slots.lock().overlapping(span).next().map(|(met, _)| met)
    }

    fn first_hole(&self, span: Span) -> Option<u64> {
        self.slots.lock().gaps(span).next().map(Span::start)
    }

    fn first_fit(&self, within: Span, fit: &Fit) -> Option<Span> {
        self.slots.lock().gaps(within).find_map(|gap| fit.lowest_in(gap))
    }

    fn pinned_bytes(&self) -> u128 {
        let slots = self.slots.lock();
        let filled = slots.iter().filter(|(_, slot)| slot.memory.is_some());
        filled.map(|(_, slot)| u128::from(slot.area.length())).sum()
    }

    fn reclaim(&self, left: Left) {
        drop(left);
    }
}

/// The two areas that the one which `entry` shows becomes when it is cut after the byte at `last`.
pub(crate) fn halves(entry: &Entry, last: u64) -> impl Iterator<Item = (Span, Area)> {
    let lower = Span::from_ends(entry.span.start(), last);
    let upper = last.checked_add(1).and_then(|first| Span::from_ends(first, entry.span.last()));
    [lower, upper]
        .into_iter()
        .flatten()
        .map(|span| (span, entry.area.part(span.start() - entry.span.start(), span.length())))
}
