//! Page tables and software that use a space, and which pages of memory are pinned for them.

use std::collections::BTreeSet;

use super::ranges::meet;
use super::{Access, Area, PAGE, Software, Spaces, Why};

/// A page table that mirrors a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Bytes of its smallest page.
    pub smallest_page: u64,
    /// The first and the last address that it translates.
    pub aperture: (u64, u64),
}

impl Table {
    /// What it does not translate.
    pub(super) fn outside(&self) -> Vec<(u64, u64)> {
        let (first, last) = self.aperture;
        let below = (first > 0).then(|| (0, first - 1));
        let above = (last < u64::MAX).then(|| (last + 1, u64::MAX));
        below.into_iter().chain(above).collect()
    }
}

impl Spaces {
    /// Lets a page table mirror a space, under a name of its own.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn add_table(&mut self, space: usize, name: u32, table: Table) -> Result<(), Why> {
        for range in table.outside() {
            self.check_keepable(space, range)?;
        }
        self.check_alignment(space, table.smallest_page.max(self.alignment(space)))?;
        let mut areas = self.spaces[space].areas.values();
        if !areas.all(|area| self.can_pin(area)) {
            return Err(Why::Fault);
        }
        self.spaces[space].tables.insert(name, table);
        Ok(())
    }

    /// Ends that.
    pub fn remove_table(&mut self, space: usize, name: u32) {
        self.spaces[space].tables.remove(&name);
    }

    /// Whether the space has a page table of this name.
    pub fn has_table(&self, space: usize, name: u32) -> bool {
        self.spaces[space].tables.contains_key(&name)
    }

    /// Keeps a range free for a device.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn add_device_range(&mut self, space: usize, range: (u64, u64)) -> Result<(), Why> {
        self.check_keepable(space, range)?;
        self.spaces[space].of_devices.push(range);
        Ok(())
    }

    /// Ends that, of one device.
    pub fn remove_device_range(&mut self, space: usize, range: (u64, u64)) {
        let ranges = &mut self.spaces[space].of_devices;
        if let Some(at) = ranges.iter().position(|other| *other == range) {
            ranges.remove(at);
        }
    }

    /// Lets software use a space, in whole pages if it pins.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn add_software(&mut self, space: usize, name: usize, pins: bool) -> Result<(), Why> {
        if pins {
            self.check_alignment(space, PAGE)?;
        }
        self.spaces[space].software.insert(name, Software { pins, ..Software::default() });
        Ok(())
    }

    /// Lets software use another space; what it pinned it gives back. The one it has: nothing to do.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn move_software(&mut self, from: usize, to: usize, name: usize) -> Result<(), Why> {
        if from == to {
            return Ok(());
        }
        let pins = self.spaces[from].software[&name].pins;
        self.add_software(to, name, pins)?;
        self.spaces[from].software.remove(&name);
        Ok(())
    }

    /// Software pins a range under a number.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn pin(
        &mut self,
        (space, name): (usize, usize),
        number: u32,
        (start, length): (u64, u64),
        write: bool,
    ) -> Result<(), Why> {
        if length == 0 {
            return Err(Why::Invalid);
        }
        let last = start.checked_add(length - 1).ok_or(Why::Overflow)?;
        let mut pages = Vec::new();
        let mut at = start;
        loop {
            let (first, area) = self.spaces[space].area_at(at).ok_or(Why::Missing)?;
            let memory = self.stores[area.store].memory + area.offset + (at - first);
            let end = area.last.min(last);
            // What follows begins with a page, too.
            let ends_inside = end != last && !(memory + (end - at) + 1).is_multiple_of(PAGE);
            if !memory.is_multiple_of(PAGE) || ends_inside {
                return Err(Why::Invalid);
            }
            self.check_right(&area, write)?;
            let part = (memory, memory + (end - at));
            if !self.there(part) {
                return Err(Why::Fault);
            }
            let whole = part.0 / PAGE..=part.1 / PAGE;
            pages.extend(whole.map(|page| (first, area.store, page)));
            if end == last {
                break;
            }
            at = end + 1;
        }
        if let Some(software) = self.spaces[space].software.get_mut(&name) {
            software.pinned.insert(number, pages);
        }
        Ok(())
    }

    /// Software gives back what it pinned under a number.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn unpin(&mut self, (space, name): (usize, usize), number: u32) -> Result<(), Why> {
        let software = self.spaces[space].software.get_mut(&name);
        let had = software.and_then(|software| software.pinned.remove(&number));
        had.map(|_| ()).ok_or(Why::Missing)
    }

    /// Whether software may copy from or to a range, of memory that is there.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn copy_by_software(
        &self,
        space: usize,
        (start, length): (u64, u64),
        write: bool,
    ) -> Result<(), Why> {
        if length == 0 {
            return Err(Why::Invalid);
        }
        let last = start.checked_add(length - 1).ok_or(Why::Overflow)?;
        let mut at = start;
        loop {
            let (first, area) = self.spaces[space].area_at(at).ok_or(Why::Missing)?;
            self.check_right(&area, write)?;
            let memory = self.stores[area.store].memory + area.offset + (at - first);
            let end = area.last.min(last);
            if !self.there((memory, memory + (end - at))) {
                return Err(Why::Fault);
            }
            if end == last {
                return Ok(());
            }
            at = end + 1;
        }
    }

    /// How often a page of memory is pinned: once for each command that named it and of which something is pinned.
    pub fn pins(&self, page: u64) -> usize {
        let mut stores = BTreeSet::new();
        for space in &self.spaces {
            let mirrored = space.areas.values().filter(|_| !space.tables.is_empty());
            let mirrored = mirrored.filter(|area| {
                meet(self.memory_range(area), (page * PAGE, page * PAGE + PAGE - 1))
            });
            stores.extend(mirrored.map(|area| area.store));
            let software = space.software.values().flat_map(|software| software.pinned.values());
            let software = software.flatten().filter(|(.., pinned)| *pinned == page);
            stores.extend(software.map(|(_, store, _)| *store));
        }
        stores.len()
    }

    fn check_right(&self, area: &Area, write: bool) -> Result<(), Why> {
        let Access { read, write: writes } = area.access;
        if if write { writes } else { read } { Ok(()) } else { Err(Why::NotPermitted) }
    }

    pub(super) fn can_pin(&self, area: &Area) -> bool {
        self.there(self.memory_range(area))
    }

    /// The first and the last byte of memory of an area.
    fn memory_range(&self, area: &Area) -> (u64, u64) {
        let first = self.stores[area.store].memory + area.offset;
        (first, first + (area.length - 1))
    }

    /// Whether the pages of a range of memory are all there.
    fn there(&self, (first, last): (u64, u64)) -> bool {
        first / PAGE * PAGE >= self.memory.0 && (last / PAGE + 1) * PAGE <= self.memory.1
    }
}
