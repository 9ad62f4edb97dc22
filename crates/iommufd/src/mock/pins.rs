//! The ledger of pins: which pages are pinned, how often, and who answers for them, over all contexts of a machine.
//!
//! Nothing is counted as it happens: whoever asks gets what areas and accesses hold at that moment. A page that several
//! areas or accesses hold by one mapping command is pinned once. Takes IOPT_IOVA of one address space at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::MockMachine;
use crate::caller::PageIdentity;
use crate::ioas::Ioas;
use crate::object::Object;
use crate::page_set::Charge;
use crate::{PAGE_SIZE, Pinned, Source};

/// What a process answers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// Bytes pinned: `VmPin`.
    pub pinned_bytes: u64,
    /// Bytes held against what the process may lock: they are part of `VmLck`.
    pub locked_bytes: u64,
}

impl MockMachine {
    /// What a process answers for, by its number.
    pub fn charged(&self, process: u32) -> Charged {
        let mut charged = Charged::default();
        self.each_pin(|pin| {
            let Some(owner) = pin.source.page_set().map(|set| set.owner()) else { return };
            if owner.process == process {
                charged.pinned_bytes += PAGE_SIZE;
                let locked = if owner.charge == Charge::Process { PAGE_SIZE } else { 0 };
                charged.locked_bytes += locked;
            }
        });
        charged
    }

    /// How often each page is pinned.
    pub(super) fn pins(&self) -> BTreeMap<PageIdentity, u32> {
        let mut pins = BTreeMap::new();
        self.each_pin(|pin| {
            if let Some(page) = pin.memory.page(pin.at) {
                *pins.entry(page).or_insert(0) += 1;
            }
        });
        pins
    }

    /// Calls `told` with each page that is pinned, once for each command that mapped it.
    fn each_pin(&self, mut told: impl FnMut(&Pin<'_>)) {
        let mut seen = BTreeSet::new();
        let contexts = self.contexts();
        let objects = contexts.iter().flat_map(|ctx| ctx.registry().published());
        for object in objects {
            let Object::Ioas(ioas) = object else { continue };
            for (source, first, bytes, memory) in held_by(&ioas) {
                let name = Arc::as_ptr(&source).addr();
                let (mut at, end) = (first & !(PAGE_SIZE - 1), first.saturating_add(bytes));
                while at < end {
                    if seen.insert((name, at)) {
                        told(&Pin { source: &*source, at, memory: &*memory });
                    }
                    at += PAGE_SIZE;
                }
            }
        }
    }
}

/// A page that is pinned.
struct Pin<'p> {
    source: &'p dyn Source,
    /// Its address, or its offset in a file.
    at: u64,
    memory: &'p dyn Pinned,
}

type HeldPart = (Arc<dyn Source>, u64, u64, Arc<dyn Pinned>);

/// What areas and accesses of an address space hold: of which memory, from where, how many bytes.
fn held_by(ioas: &Ioas) -> Vec<HeldPart> {
    let space = ioas.space.lock();
    let pinned = space.pinned_by_accesses();
    let mut held: Vec<HeldPart> = pinned
        .map(|part| (Arc::clone(&part.source), part.at, part.length, Arc::clone(&part.memory)))
        .collect();
    let mut from = Some(0);
    while let Some(entry) = from.and_then(|from| ioas.map.next(from)) {
        from = entry.span.last().checked_add(1);
        if let Some(memory) = entry.memory {
            held.push((entry.area.source.clone(), entry.area.at(), entry.area.length(), memory));
        }
    }
    held
}
