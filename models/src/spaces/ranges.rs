//! Which addresses serve, and which is chosen.

use super::{PAGE, Spaces, Why};

/// Room at the end of memory that no chosen address reaches.
const MARGIN: u64 = PAGE;
/// Chosen addresses are aligned no further.
const ALIGNMENT_MOST: u64 = 2 << 20;

impl Spaces {
    /// What addresses and lengths must be multiples of.
    pub fn alignment(&self, space: usize) -> u64 {
        let space = &self.spaces[space];
        let tables = space.tables.values().map(|table| table.smallest_page);
        let software = space.software.values().filter(|user| user.pins).map(|_| PAGE);
        let small = if space.small_pages { PAGE } else { 1 };
        tables.chain(software).chain([small]).max().unwrap_or(1)
    }

    /// IOAS_IOVA_RANGES: the ranges that nobody keeps free.
    pub fn ranges(&self, space: usize) -> Vec<(u64, u64)> {
        holes(&self.kept_free(space), 0, u64::MAX)
    }

    /// IOAS_ALLOW_IOVAS: where addresses are chosen from now on.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn allow(&mut self, space: usize, ranges: &[(u64, u64)]) -> Result<(), Why> {
        for (index, range) in ranges.iter().enumerate() {
            if range.0 >= range.1 || ranges[..index].iter().any(|other| meet(*other, *range)) {
                return Err(Why::Invalid);
            }
        }
        let kept = self.kept_free(space);
        if ranges.iter().any(|range| kept.iter().any(|other| meet(*other, *range))) {
            return Err(Why::AddressInUse);
        }
        self.spaces[space].allowed = ranges.to_vec();
        Ok(())
    }

    /// Keeps a range free for as long as the space lives.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn reserve(&mut self, space: usize, start: u64, length: u64) -> Result<(), Why> {
        if length == 0 {
            return Err(Why::Invalid);
        }
        let last = start.checked_add(length - 1).ok_or(Why::Overflow)?;
        self.check_keepable(space, (start, last))?;
        self.spaces[space].reserved.push((start, last));
        Ok(())
    }

    /// IOMMU_OPTION_HUGE_PAGES: off, everything is in whole pages.
    ///
    /// # Errors
    /// What the kernel refuses, in its order.
    pub fn set_large_pages(&mut self, space: usize, on: bool) -> Result<(), Why> {
        let now = &self.spaces[space];
        if on || now.small_pages {
            self.spaces[space].small_pages = !on;
            return Ok(());
        }
        if !now.tables.is_empty() && !now.areas.is_empty() {
            return Err(Why::Invalid);
        }
        self.check_alignment(space, PAGE)?;
        self.spaces[space].small_pages = true;
        Ok(())
    }

    /// Whether a range can be kept free: nothing may be mapped there, nor addresses chosen.
    pub(super) fn check_keepable(&self, space: usize, range: (u64, u64)) -> Result<(), Why> {
        let space = &self.spaces[space];
        let mut areas = space.areas.iter().map(|(first, area)| (*first, area.last));
        let taken = areas.any(|area| meet(area, range));
        if taken || space.allowed.iter().any(|allowed| meet(*allowed, range)) {
            return Err(Why::AddressInUse);
        }
        Ok(())
    }

    /// Whether all that is mapped is aligned so far. Nobody looks where that is asked of it already: parts of a copy may
    /// meet anywhere.
    pub(super) fn check_alignment(&self, space: usize, alignment: u64) -> Result<(), Why> {
        if alignment <= self.alignment(space) {
            return Ok(());
        }
        let aligned = self.spaces[space].areas.iter().all(|(first, area)| {
            let memory = self.stores[area.store].memory + area.offset;
            [*first, area.last - first + 1, memory % PAGE]
                .iter()
                .all(|number| number.is_multiple_of(alignment))
        });
        if aligned { Ok(()) } else { Err(Why::AddressInUse) }
    }

    pub(super) fn check_fixed(&self, space: usize, start: u64, length: u64) -> Result<(), Why> {
        let alignment = self.alignment(space);
        if !length.is_multiple_of(alignment) || !start.is_multiple_of(alignment) {
            return Err(Why::Invalid);
        }
        let last = start.checked_add(length - 1).ok_or(Why::Overflow)?;
        if self.kept_free(space).iter().any(|kept| meet(*kept, (start, last))) {
            return Err(Why::Invalid);
        }
        let areas = &self.spaces[space].areas;
        if areas.iter().any(|(first, area)| meet((*first, area.last), (start, last))) {
            return Err(Why::Exists);
        }
        Ok(())
    }

    /// The lowest place for `length` bytes of memory from `memory` on: as far into its page, and as aligned as the length
    /// and the memory are.
    pub(super) fn choose(&self, space: usize, memory: u64, length: u64) -> Result<u64, Why> {
        let needed = self.alignment(space);
        if !length.is_multiple_of(needed) {
            return Err(Why::Invalid);
        }
        let of_memory = if memory == 0 { u64::MAX } else { 1 << memory.trailing_zeros() };
        let alignment = length.next_power_of_two().min(of_memory).min(ALIGNMENT_MOST);
        if alignment < needed {
            return Err(Why::Invalid);
        }
        let fit = |start: u64, last: u64| {
            let start = start.checked_next_multiple_of(alignment)? | (memory % PAGE);
            (start < last && last - start >= length - 1).then_some(start)
        };
        let whole = vec![(PAGE, u64::MAX - MARGIN)];
        let here = &self.spaces[space];
        let mut allowed = if here.allowed.is_empty() { whole } else { here.allowed.clone() };
        allowed.sort_unstable();
        // What touches is one range, and the ends of the address space are left out.
        let beside = holes(&allowed, PAGE, u64::MAX - MARGIN);
        let allowed = holes(&beside, PAGE, u64::MAX - MARGIN);
        let mut taken = self.kept_free(space);
        taken.extend(here.areas.iter().map(|(first, area)| (*first, area.last)));
        for (first, last) in allowed {
            let Some(first) = fit(first, last) else { continue };
            let mut places = holes(&taken, first, last).into_iter();
            if let Some(start) = places.find_map(|(first, last)| fit(first, last)) {
                return Ok(start);
            }
        }
        Err(Why::NoSpace)
    }

    /// Every range that is kept free.
    fn kept_free(&self, space: usize) -> Vec<(u64, u64)> {
        let space = &self.spaces[space];
        let beside = space.tables.values().flat_map(|table| table.outside());
        let of_devices = space.of_devices.iter().copied();
        space.reserved.iter().copied().chain(beside).chain(of_devices).collect()
    }
}

pub(super) fn meet(one: (u64, u64), other: (u64, u64)) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}

/// What `taken` leaves of a range.
fn holes(taken: &[(u64, u64)], first: u64, last: u64) -> Vec<(u64, u64)> {
    let mut taken = taken.to_vec();
    taken.sort_unstable();
    let mut holes = Vec::new();
    let mut next = Some(first);
    for (start, end) in taken {
        let Some(from) = next else { break };
        if end < from {
            continue;
        }
        if start > last {
            break;
        }
        if start > from {
            holes.push((from, start - 1));
        }
        next = end.checked_add(1);
    }
    if let Some(from) = next.filter(|from| *from <= last) {
        holes.push((from, last));
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::holes;

    #[test]
    fn holes_are_what_is_left() {
        assert_eq!(holes(&[], 0, 9), [(0, 9)]);
        assert_eq!(holes(&[(2, 3), (3, 5), (8, 20)], 0, 9), [(0, 1), (6, 7)]);
        assert_eq!(holes(&[(0, u64::MAX)], 0, u64::MAX), []);
    }
}
