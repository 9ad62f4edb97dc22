//! The I/O address spaces of a program: what is mapped where, what is kept free, who uses them, and which pages of memory
//! are pinned for it. All of it in lists that are looked through from the beginning.
//!
//! | file | says |
//! |---|---|
//! | this one | what there is; mapping, copying, unmapping |
//! | `spaces/ranges.rs` | which addresses serve, and which is chosen |
//! | `spaces/users.rs` | page tables and software that use a space, and what they pin |

mod ranges;
mod users;

use std::collections::BTreeMap;

pub use users::Table;

/// Bytes of a page of memory.
const PAGE: u64 = 4096;

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// `EADDRINUSE`
    AddressInUse,
    /// `EEXIST`
    Exists,
    /// `EFAULT`
    Fault,
    /// `EINVAL`
    Invalid,
    /// `ENOENT`
    Missing,
    /// `EMSGSIZE`
    MessageSize,
    /// `ENOSPC`
    NoSpace,
    /// `EPERM`
    NotPermitted,
    /// `EOVERFLOW`
    Overflow,
}

/// Reading, writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether it reads.
    pub read: bool,
    /// Whether it writes.
    pub write: bool,
}

/// Where to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// At this address.
    Fixed(u64),
    /// Where the kernel chooses.
    Chosen,
}

/// Everything that a program has.
pub struct Spaces {
    spaces: Vec<Space>,
    /// What MAP commands named, each for as long as anything uses it.
    stores: Vec<Store>,
    /// The memory that there is: its first byte, and the one after its last.
    memory: (u64, u64),
}

struct Store {
    memory: u64,
    writable: bool,
}

/// One address space.
#[derive(Default)]
struct Space {
    /// By first address.
    areas: BTreeMap<u64, Area>,
    allowed: Vec<(u64, u64)>,
    /// Ranges kept free by nobody who could leave.
    reserved: Vec<(u64, u64)>,
    tables: BTreeMap<u32, Table>,
    /// Ranges kept free by devices, a list each.
    of_devices: Vec<(u64, u64)>,
    small_pages: bool,
    software: BTreeMap<usize, Software>,
}

#[derive(Clone, Copy)]
struct Area {
    last: u64,
    length: u64,
    store: usize,
    /// From the beginning of what the store's command named.
    offset: u64,
    access: Access,
}

/// Software that uses a space, and what it pinned: for each number the pages, and the areas' first addresses.
#[derive(Default)]
struct Software {
    pins: bool,
    pinned: BTreeMap<u32, Vec<(u64, usize, u64)>>,
}

impl Spaces {
    /// So many empty spaces, of a program that has memory from one address up to another.
    pub fn new(count: usize, memory: (u64, u64)) -> Self {
        let spaces = (0..count).map(|_| Space::default()).collect();
        Self { spaces, stores: Vec::new(), memory }
    }

    /// IOAS_MAP: `length` bytes of memory from `memory` on.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn map(
        &mut self,
        space: usize,
        target: Target,
        (memory, length): (u64, u64),
        access: Access,
    ) -> Result<u64, Why> {
        if !access.read && !access.write || length == 0 {
            return Err(Why::Invalid);
        }
        self.stores.push(Store { memory, writable: access.write });
        let part = Part { store: self.stores.len() - 1, offset: 0, length };
        self.place(space, target, &[part], access)
    }

    /// IOAS_COPY: what is mapped from `from` on, `length` bytes.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn copy(
        &mut self,
        (from_space, from): (usize, u64),
        length: u64,
        (space, target): (usize, Target),
        access: Access,
    ) -> Result<u64, Why> {
        if !access.read && !access.write || length == 0 {
            return Err(Why::Invalid);
        }
        from.checked_add(length - 1).ok_or(Why::Overflow)?;
        let parts = self.spaces[from_space].parts(from, length).ok_or(Why::Missing)?;
        let parts: Vec<Part> = parts.into_iter().map(|(_, part)| part).collect();
        self.place(space, target, &parts, access)
    }

    /// IOAS_UNMAP of a range. Areas are taken away in ascending order until one is not wholly inside.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn unmap(&mut self, space: usize, start: u64, length: u64) -> Result<u64, Why> {
        if length == 0 {
            return Err(Why::Invalid);
        }
        let last = start.checked_add(length - 1).ok_or(Why::Overflow)?;
        let space = &mut self.spaces[space];
        let mut bytes = 0;
        let met: Vec<u64> = space.areas.keys().copied().collect();
        for first in met {
            let area = space.areas[&first];
            if area.last < start || last < first {
                continue;
            }
            if first < start || last < area.last {
                return Err(Why::Missing);
            }
            bytes += space.take_away(first);
        }
        if bytes == 0 { Err(Why::Missing) } else { Ok(bytes) }
    }

    /// IOAS_UNMAP of everything.
    pub fn unmap_all(&mut self, space: usize) -> u64 {
        let space = &mut self.spaces[space];
        let all: Vec<u64> = space.areas.keys().copied().collect();
        all.into_iter().map(|first| space.take_away(first)).sum()
    }

    /// Bytes that are mapped, in all spaces.
    pub fn mapped(&self) -> u64 {
        let areas = self.spaces.iter().flat_map(|space| &space.areas);
        areas.map(|(first, area)| area.last - first + 1).sum()
    }

    /// The first and the last address of each area.
    pub fn areas(&self, space: usize) -> Vec<(u64, u64)> {
        let areas = self.spaces[space].areas.iter();
        areas.map(|(first, area)| (*first, area.last)).collect()
    }

    /// Which byte of memory an address leads to, for such an access.
    pub fn translate(&self, space: usize, address: u64, access: Access) -> Option<u64> {
        let (first, area) = self.spaces[space].area_at(address)?;
        let allowed = (area.access.read || !access.read) && (area.access.write || !access.write);
        allowed.then(|| self.stores[area.store].memory + area.offset + (address - first))
    }

    /// Puts parts one after the other.
    fn place(
        &mut self,
        space: usize,
        target: Target,
        parts: &[Part],
        access: Access,
    ) -> Result<u64, Why> {
        let length = parts.iter().map(|part| part.length).sum();
        let first = self.memory_of(&parts[0]);
        let start = match target {
            Target::Fixed(start) => {
                self.check_fixed(space, start, length)?;
                start
            }
            Target::Chosen => self.choose(space, first, length)?,
        };
        let alignment = self.alignment(space);
        let mut at = start;
        let mut placed = BTreeMap::new();
        for part in parts {
            if access.write && !self.stores[part.store].writable {
                return Err(Why::NotPermitted);
            }
            if !(self.memory_of(part) % PAGE).is_multiple_of(alignment) {
                return Err(Why::Invalid);
            }
            let Part { store, offset, length } = *part;
            placed.insert(at, Area { last: at + (length - 1), length, store, offset, access });
            // The last may end where addresses do.
            at = at.wrapping_add(length);
        }
        if !self.spaces[space].tables.is_empty() && !placed.values().all(|area| self.can_pin(area))
        {
            return Err(Why::Fault);
        }
        self.spaces[space].areas.extend(placed);
        Ok(start)
    }

    fn memory_of(&self, part: &Part) -> u64 {
        self.stores[part.store].memory + part.offset
    }
}

/// A part of a store.
#[derive(Clone, Copy)]
struct Part {
    store: usize,
    offset: u64,
    length: u64,
}

impl Space {
    fn area_at(&self, address: u64) -> Option<(u64, Area)> {
        let mut areas = self.areas.iter();
        let (first, area) = areas.find(|(first, area)| (**first..=area.last).contains(&address))?;
        Some((*first, *area))
    }

    /// What a range leads to, one part an area with the address where it begins; `None` where a byte of it leads nowhere.
    fn parts(&self, start: u64, length: u64) -> Option<Vec<(u64, Part)>> {
        let last = start.checked_add(length - 1)?;
        let mut parts = Vec::new();
        let mut at = start;
        loop {
            let (first, area) = self.area_at(at)?;
            let end = area.last.min(last);
            let part = Part {
                store: area.store,
                offset: area.offset + (at - first),
                length: end - at + 1,
            };
            parts.push((first, part));
            if end == last {
                return Some(parts);
            }
            at = end + 1;
        }
    }

    /// Removes an area, and every pin of software's that touches it. Its length in bytes.
    fn take_away(&mut self, first: u64) -> u64 {
        let Some(area) = self.areas.remove(&first) else { return 0 };
        for software in self.software.values_mut() {
            software.pinned.retain(|_, pages| pages.iter().all(|(area, ..)| *area != first));
        }
        area.last - first + 1
    }
}
