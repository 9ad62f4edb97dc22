//! The plain IOVA map: one ordered map of areas under one lock.
//!
//! Slow where there are many areas, and obvious. Takes PAGES, a leaf but for OBJECTS, for the length of one
//! operation.

use std::sync::Arc;

use pci::{DmaAccess, DmaFaultReason};
use span::{Span, SpanMap};
use sync::{Mutex, rank};

use crate::area::Area;
use crate::iova_map::{Entry, IovaMap, Removed, Translation};
use crate::placement::Fit;
use crate::{MemoryGone, Pinned};

/// An [`IovaMap`] over a balanced tree.
pub(crate) struct FlatMap {
    slots: Mutex<rank::Pages, SpanMap<Slot>>,
}

struct Slot {
    area: Arc<Area>,
    memory: Option<Arc<dyn Pinned>>,
}

impl FlatMap {
    pub(crate) fn new() -> Self {
        Self { slots: Mutex::new(SpanMap::new()) }
    }
}

/// Pinned memory of an area that was cut. All of it stays pinned until the last part goes.
struct Part {
    whole: Arc<dyn Pinned>,
    /// Where the part begins in it.
    offset: u64,
}

impl Pinned for Part {
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.whole.read(self.offset + offset, into)
    }

    fn write(&self, offset: u64, from: &[u8]) -> Result<(), MemoryGone> {
        self.whole.write(self.offset + offset, from)
    }
}

impl IovaMap for FlatMap {
    fn insert(&self, span: Span, area: Arc<Area>) {
        let slot = Slot { area, memory: None };
        let inserted = self.slots.lock().insert(span, slot);
        assert!(inserted.is_ok(), "the address space checked {span} against all areas");
    }

    fn remove(&self, span: Span) -> Option<Removed> {
        let slot = self.slots.lock().remove_exact(span)?;
        Some(Removed { memory: slot.memory })
    }

    fn fill(&self, span: Span, memory: Arc<dyn Pinned>) -> Result<(), Arc<dyn Pinned>> {
        let mut slots = self.slots.lock();
        match slots.get_mut(span.start()) {
            Some((at, slot)) if at == span && slot.memory.is_none() => {
                slot.memory = Some(memory);
                Ok(())
            }
            Some(_) | None => Err(memory),
        }
    }

    fn cut(&self, span: Span, last: u64, below: Arc<Area>, above: Arc<Area>) -> bool {
        let lower = Span::from_ends(span.start(), last);
        let upper = last.checked_add(1).and_then(|first| Span::from_ends(first, span.last()));
        let (Some(lower), Some(upper)) = (lower, upper) else { return false };
        let mut slots = self.slots.lock();
        let Some(whole) = slots.remove_exact(span) else { return false };
        let part = |offset| {
            let memory = whole.memory.as_ref()?;
            Some(Arc::new(Part { whole: Arc::clone(memory), offset }) as Arc<dyn Pinned>)
        };
        let slots_of_parts = [
            (lower, Slot { area: below, memory: part(0) }),
            (upper, Slot { area: above, memory: part(lower.length()) }),
        ];
        for (span, slot) in slots_of_parts {
            let inserted = slots.insert(span, slot);
            assert!(inserted.is_ok(), "{span} was one area's");
        }
        true
    }

    fn empty_all(&self) -> Vec<Arc<dyn Pinned>> {
        let mut slots = self.slots.lock();
        let mut memories = Vec::new();
        for (span, Slot { area, memory }) in slots.take_all() {
            memories.extend(memory);
            let inserted = slots.insert(span, Slot { area, memory: None });
            assert!(inserted.is_ok(), "{span} came out of this very map");
        }
        memories
    }

    fn translate(&self, iova: u64, access: DmaAccess) -> Result<Translation, DmaFaultReason> {
        let slots = self.slots.lock();
        let (span, slot) = slots.get(iova).ok_or(DmaFaultReason::NotMapped)?;
        let memory = slot.memory.as_ref().ok_or(DmaFaultReason::NotMapped)?;
        if !slot.area.rights().allow(access) {
            return Err(DmaFaultReason::Permission);
        }
        Ok(Translation {
            memory: Arc::clone(memory),
            offset: iova - span.start(),
            left: span.last() - iova + 1,
            page_offset: slot.area.page_offset(),
        })
    }

    fn next(&self, from: u64) -> Option<Entry> {
        let slots = self.slots.lock();
        let (span, slot) = slots.overlapping(Span::from_ends(from, u64::MAX)?).next()?;
        Some(Entry { span, area: Arc::clone(&slot.area), filled: slot.memory.is_some() })
    }

    fn first_fit(&self, within: Span, fit: &Fit) -> Option<Span> {
        self.slots.lock().gaps(within).find_map(|gap| fit.lowest_in(gap))
    }
}
