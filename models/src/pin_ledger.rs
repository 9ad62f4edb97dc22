//! How often each page of memory is pinned, kept page by page.
//!
//! A page is pinned once by each command that mapped it, for as long as something holds it: an area in an address space
//! that devices use, or a software user's pin.

use std::collections::{BTreeMap, BTreeSet};

/// Address spaces, and what they hold. Addresses and memory are counted in pages.
#[derive(Debug)]
pub struct PinLedger {
    spaces: Vec<Space>,
    /// Commands and areas so far.
    names: u64,
}

#[derive(Clone, Debug, Default)]
struct Space {
    devices: u32,
    cells: BTreeMap<u64, Cell>,
    /// What software pinned: where, and which memory.
    pins: BTreeMap<u32, Vec<(u64, Hold)>>,
}

/// A page of an area.
#[derive(Clone, Copy, Debug)]
struct Cell {
    area: u64,
    hold: Hold,
}

/// A page of memory, and the command that named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hold {
    command: u64,
    page: u64,
}

impl PinLedger {
    /// So many empty address spaces.
    pub fn new(spaces: usize) -> Self {
        Self { spaces: vec![Space::default(); spaces], names: 0 }
    }

    /// Maps `pages` pages of memory from `memory` on. Says whether that is possible.
    pub fn map(&mut self, space: usize, at: u64, memory: u64, pages: u64) -> bool {
        let (command, area) = (self.name(), self.name());
        let cells = (0..pages).map(|page| {
            let hold = Hold { command, page: memory + page };
            (at + page, Cell { area, hold })
        });
        let cells: Vec<_> = cells.collect();
        self.insert(space, cells)
    }

    /// Maps at `to` what is mapped at `from`, an area for each. Says whether that is possible.
    pub fn copy(&mut self, from: (usize, u64), to: (usize, u64), pages: u64) -> bool {
        let mut areas = BTreeMap::new();
        let mut cells = Vec::new();
        for page in 0..pages {
            let Some(cell) = self.spaces[from.0].cells.get(&(from.1 + page)).copied() else {
                return false;
            };
            let area = *areas.entry(cell.area).or_insert_with(|| self.name());
            cells.push((to.1 + page, Cell { area, hold: cell.hold }));
        }
        self.insert(to.0, cells)
    }

    /// Unmaps the areas inside a range, ascending, up to the first that is only partly inside. The pages unmapped; `None`
    /// where there was such an area, or none at all.
    pub fn unmap(&mut self, space: usize, at: u64, pages: u64) -> Option<u64> {
        let inside = at..at + pages;
        let space = &mut self.spaces[space];
        let met = space.cells.range(inside.clone()).map(|(at, cell)| (*at, cell.area));
        let mut met: Vec<_> = met.collect();
        met.dedup_by_key(|(_, area)| *area);
        let mut unmapped = 0;
        for (_, area) in &met {
            let cells = space.cells.iter().filter(|(_, cell)| cell.area == *area);
            let cells: BTreeSet<u64> = cells.map(|(at, _)| *at).collect();
            if !cells.iter().all(|at| inside.contains(at)) {
                return None;
            }
            unmapped += cells.len() as u64;
            space.cells.retain(|at, _| !cells.contains(at));
            space.pins.retain(|_, pin| !pin.iter().any(|(at, _)| cells.contains(at)));
        }
        (unmapped > 0).then_some(unmapped)
    }

    /// One more device uses the address space.
    pub fn attach(&mut self, space: usize) {
        self.spaces[space].devices += 1;
    }

    /// One device less does. Says whether there was one.
    pub fn detach(&mut self, space: usize) -> bool {
        let devices = &mut self.spaces[space].devices;
        let had = *devices > 0;
        *devices -= u32::from(had);
        had
    }

    /// Software pins a range under `number`. Says whether all of it is mapped.
    pub fn pin(&mut self, space: usize, number: u32, at: u64, pages: u64) -> bool {
        let space = &mut self.spaces[space];
        let held = (at..at + pages).map(|at| Some((at, space.cells.get(&at)?.hold)));
        let Some(held) = held.collect() else { return false };
        space.pins.insert(number, held);
        true
    }

    /// Software gives back what it pinned. Says whether it had that still.
    pub fn unpin(&mut self, space: usize, number: u32) -> bool {
        self.spaces[space].pins.remove(&number).is_some()
    }

    /// Whether something is mapped at an address.
    pub fn is_mapped(&self, space: usize, at: u64) -> bool {
        self.spaces[space].cells.contains_key(&at)
    }

    /// How often a page of memory is pinned.
    pub fn pins(&self, page: u64) -> usize {
        let mut commands = BTreeSet::new();
        for space in &self.spaces {
            let areas = space.cells.values().filter(|_| space.devices > 0).map(|cell| cell.hold);
            let software = space.pins.values().flatten().map(|(_, hold)| *hold);
            let holds = areas.chain(software).filter(|hold| hold.page == page);
            commands.extend(holds.map(|hold| hold.command));
        }
        commands.len()
    }

    fn insert(&mut self, space: usize, cells: Vec<(u64, Cell)>) -> bool {
        let space = &mut self.spaces[space];
        if cells.iter().any(|(at, _)| space.cells.contains_key(at)) {
            return false;
        }
        space.cells.extend(cells);
        true
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_pinned_once_a_command() {
        let mut ledger = PinLedger::new(2);
        assert!(ledger.map(0, 0, 7, 2));
        assert!(!ledger.map(0, 1, 7, 1));
        assert_eq!(ledger.pins(7), 0);
        ledger.attach(0);
        ledger.attach(1);
        assert!(ledger.copy((0, 0), (1, 5), 2));
        assert_eq!([ledger.pins(7), ledger.pins(8), ledger.pins(9)], [1, 1, 0]);
        assert!(ledger.map(1, 0, 8, 1));
        assert_eq!(ledger.pins(8), 2);
        assert_eq!(ledger.unmap(1, 6, 1), None);
        assert_eq!([ledger.is_mapped(1, 6), ledger.is_mapped(1, 7)], [true, false]);
        assert_eq!(ledger.unmap(1, 0, 9), Some(3));
        assert!(ledger.pin(0, 3, 1, 1));
        assert!(ledger.detach(0));
        assert_eq!([ledger.pins(7), ledger.pins(8)], [0, 1]);
        assert_eq!(ledger.unmap(0, 0, 2), Some(2));
        assert!(!ledger.unpin(0, 3));
    }
}
