//! An I/O address space as one cell a byte.
//!
//! Covers addresses below [`AddressSpace::SIZE`]; users keep to those. Where the client leaves the choice of
//! address to the kernel every address is tried in turn.

use std::collections::BTreeMap;

/// What is mapped, byte by byte.
pub struct AddressSpace {
    /// For each address the area that covers it.
    cells: Vec<Option<Name>>,
    /// Where each area is, and the memory it begins with.
    areas: BTreeMap<Name, Area>,
    next_name: Name,
    alignment: u64,
}

/// Tells areas apart.
type Name = u16;

struct Area {
    start: u64,
    length: u64,
    memory: u64,
}

/// Where to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    At(u64),
    /// At the lowest that serves.
    Anywhere,
}

/// How the kernel answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Success, with an address (map) or a number of bytes (unmap).
    Value(u64),
    /// `EEXIST`
    Exists,
    /// `EINVAL`
    Invalid,
    /// `ENOENT`
    Missing,
}

impl AddressSpace {
    /// How many addresses there are.
    pub const SIZE: u64 = 1 << 18;

    /// An empty space where addresses and lengths are multiples of `alignment`, a power of two.
    pub fn new(alignment: u64) -> Self {
        Self {
            cells: vec![None; index(Self::SIZE)],
            areas: BTreeMap::new(),
            next_name: 0,
            alignment,
        }
    }

    /// Maps `length` bytes of memory from `memory` on.
    pub fn map(&mut self, place: Place, memory: u64, length: u64) -> Outcome {
        if length == 0 || !length.is_multiple_of(self.alignment) {
            return Outcome::Invalid;
        }
        let start = match place {
            Place::At(start) if !start.is_multiple_of(self.alignment) => return Outcome::Invalid,
            Place::At(start) if !self.is_free(start, length) => return Outcome::Exists,
            Place::At(start) => start,
            Place::Anywhere => match self.lowest(memory, length) {
                Some(start) => start,
                None => return Outcome::Invalid,
            },
        };
        if !(memory % PAGE).is_multiple_of(self.alignment) {
            return Outcome::Invalid;
        }
        let name = self.next_name;
        self.next_name += 1;
        self.range(start, length).fill(Some(name));
        self.areas.insert(name, Area { start, length, memory });
        Outcome::Value(start)
    }

    /// Unmaps whole areas in ascending order until one is not wholly inside.
    pub fn unmap(&mut self, start: u64, length: u64) -> Outcome {
        let mut bytes = 0;
        for address in start..start + length {
            let Some(name) = self.cells[index(address)] else { continue };
            let Area { start: first, length: whole, .. } = self.areas[&name];
            if first < start || first + whole > start + length {
                return Outcome::Missing;
            }
            self.range(first, whole).fill(None);
            self.areas.remove(&name);
            bytes += whole;
        }
        if bytes == 0 { Outcome::Missing } else { Outcome::Value(bytes) }
    }

    /// Which byte of memory an address reaches.
    pub fn translate(&self, address: u64) -> Option<u64> {
        let area = &self.areas[&self.cells[index(address)]?];
        Some(area.memory + (address - area.start))
    }

    /// Unmaps all areas and returns how many bytes those were.
    pub fn unmap_all(&mut self) -> u64 {
        let bytes = self.mapped();
        *self = Self::new(self.alignment);
        bytes
    }

    /// How many bytes are mapped.
    pub fn mapped(&self) -> u64 {
        self.areas.values().map(|area| area.length).sum()
    }

    /// The lowest address that is as far into its page as `memory` and at least as aligned as both the
    /// memory and its length allow. `None` if that is less aligned than the space asks.
    fn lowest(&self, memory: u64, length: u64) -> Option<u64> {
        let mut alignment = 1;
        while alignment < length && memory.is_multiple_of(alignment * 2) {
            alignment *= 2;
        }
        if alignment < self.alignment {
            return None;
        }
        // A run of free cells is judged by its first one: that is rounded up, then moved into its page. So is the first
        // address of all.
        let mut first = PAGE.next_multiple_of(alignment) | (memory % PAGE);
        loop {
            while self.cells[index(first)].is_some() {
                first += 1;
            }
            let mut rounded = first;
            while !rounded.is_multiple_of(alignment) {
                rounded += 1;
            }
            let start = rounded | (memory % PAGE);
            if (first..start + length).all(|address| self.cells[index(address)].is_none()) {
                return Some(start);
            }
            while self.cells[index(first)].is_none() {
                first += 1;
            }
        }
    }

    fn is_free(&self, start: u64, length: u64) -> bool {
        (start..start + length).all(|address| self.cells[index(address)].is_none())
    }

    fn range(&mut self, start: u64, length: u64) -> &mut [Option<Name>] {
        &mut self.cells[index(start)..index(start + length)]
    }
}

const PAGE: u64 = 4096;

fn index(address: u64) -> usize {
    usize::try_from(address).expect("addresses are below SIZE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_place_keeps_alignment_and_page_offset() {
        let mut space = AddressSpace::new(1);
        assert_eq!(space.map(Place::Anywhere, 0x8000, 0x3000), Outcome::Value(0x4000));
        assert_eq!(space.map(Place::Anywhere, 0x8010, 0x10), Outcome::Value(0x1010));
        assert_eq!(space.translate(0x1011), Some(0x8011));
        assert_eq!(space.unmap(0x1000, 0x6000), Outcome::Value(0x3010));
        assert_eq!(space.mapped(), 0);
    }

    #[test]
    fn unmapping_stops_at_an_area_that_sticks_out() {
        let mut space = AddressSpace::new(0x1000);
        assert_eq!(space.map(Place::At(0x1000), 0, 0x1000), Outcome::Value(0x1000));
        assert_eq!(space.map(Place::At(0x2000), 0, 0x2000), Outcome::Value(0x2000));
        assert_eq!(space.unmap(0x1000, 0x2000), Outcome::Missing);
        assert_eq!(space.mapped(), 0x2000);
    }
}
