//! What is mapped, reserved and mirrored in one address space, as values that one lock guards.
//!
//! The commands' checks live here; pinning does not, because it may take as long as the client's memory
//! does. So what needs pinned memory comes in two halves: *begin* checks and notes what is to come, the
//! caller pins with no lock held, and *finish* or *fill* takes the memory unless it is no longer wanted.
//! Memory is wanted while at least one page table mirrors the space; a page table counts from the moment
//! its own begin is through, so that no area can slip between.
//!
//! Everything here happens under IOPT_IOVA; the map takes its own leaf lock inside.

use std::collections::BTreeMap;
use std::sync::Arc;

use span::Span;

use crate::area::Area;
use crate::iova_map::{Entry, IovaMap};
use crate::placement::{AUTOMATIC, Fit, Placement};
use crate::reservations::{Owner, Reservations};
use crate::{Geometry, PAGE_SIZE, Pinned, Refusal};

mod cut;

/// The state of an address space.
pub(crate) struct AddressSpace {
    map: Arc<dyn IovaMap>,
    reserved: Reservations,
    /// Bytes that addresses and lengths are multiples of.
    alignment: u64,
    /// Whether page tables may have leaves larger than the client's pages.
    large_pages: bool,
    /// Page tables that mirror the map, each with its smallest page in bytes.
    tables: BTreeMap<Mirror, u64>,
    /// Page tables that ever did.
    mirrors: u64,
    /// Areas whose memory is being pinned before they are mapped.
    building: Vec<Span>,
    usage: Usage,
}

/// Tells the page tables of an address space apart. Their ids do not: one that is being destroyed gives its
/// id back before it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mirror(pub(crate) u64);

/// How much is mapped. Wider than a length: an address space has 2^64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) areas: u64,
    pub(crate) mapped_bytes: u128,
    pub(crate) pinned_bytes: u128,
}

/// How far [`AddressSpace::begin_map`] came.
pub(crate) enum Begun {
    /// All the way: no page table wants the memory yet.
    Mapped(Span),
    /// The span is taken; pin, then [`finish_map`](AddressSpace::finish_map) or
    /// [`abort_map`](AddressSpace::abort_map).
    Pin(Span),
}

/// Areas to be pinned, and where each is mapped.
pub(crate) type Unfilled = Vec<(Span, Arc<Area>)>;

/// What [`AddressSpace::unmap`] did: areas before the one that refused are gone.
pub(crate) struct Unmapped {
    /// Bytes unmapped, modulo 2^64.
    pub(crate) outcome: Result<u64, Refusal>,
    /// The same, also where an area refused.
    pub(crate) bytes: u64,
    /// Memory to let go of once DMA in flight has ended.
    pub(crate) memory: Vec<Arc<dyn Pinned>>,
    /// What is unmapped, to be dropped with no lock held: that may close a file.
    pub(crate) areas: Vec<Arc<Area>>,
}

impl AddressSpace {
    pub(crate) fn new(map: Arc<dyn IovaMap>) -> Self {
        Self {
            map,
            reserved: Reservations::default(),
            alignment: 1,
            large_pages: true,
            tables: BTreeMap::new(),
            mirrors: 0,
            building: Vec::new(),
            usage: Usage::default(),
        }
    }

    /// Takes a place for `area`.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::Misaligned`] (`EINVAL`): the length.
    /// - automatic: as [`Fit::of`] (`EOVERFLOW`, `EINVAL`), then [`Refusal::NoRoom`] (`ENOSPC`).
    /// - fixed: [`Refusal::Misaligned`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`),
    ///   [`Refusal::Reserved`] (`EINVAL`), [`Refusal::Overlap`] (`EEXIST`).
    /// - [`Refusal::Misaligned`] (`EINVAL`): the memory's offset into its page.
    pub(crate) fn begin_map(
        &mut self,
        area: &Arc<Area>,
        placement: Placement,
    ) -> Result<Begun, Refusal> {
        self.check_aligned(area.length())?;
        let span = match placement {
            Placement::Automatic => self.choose(area)?,
            Placement::Fixed(iova) => self.check_fixed(iova, area.length())?,
        };
        self.check_aligned(area.page_offset())?;
        self.map.insert(span, Arc::clone(area));
        if self.tables.is_empty() {
            self.account_mapped(area);
            return Ok(Begun::Mapped(span));
        }
        self.building.push(span);
        Ok(Begun::Pin(span))
    }

    /// Ends a mapping that had to be pinned. Returns the memory if no page table wants it any more.
    pub(crate) fn finish_map(
        &mut self,
        span: Span,
        area: &Area,
        memory: Arc<dyn Pinned>,
    ) -> Option<Arc<dyn Pinned>> {
        self.building.retain(|other| *other != span);
        self.account_mapped(area);
        self.fill_if_wanted(span, area, memory)
    }

    /// Gives back the place of an area that could not be pinned.
    pub(crate) fn abort_map(&mut self, span: Span) {
        self.building.retain(|other| *other != span);
        self.map.remove(span);
    }

    /// Unmaps all areas inside `asked`, ascending, up to the first that refuses.
    ///
    /// # Errors
    /// In the outcome:
    /// - [`Refusal::AreaBusy`] (`EBUSY`): an area is still being mapped.
    /// - [`Refusal::NotWhole`] (`ENOENT`): an area sticks out of `asked`.
    pub(crate) fn unmap(&mut self, asked: Span) -> Unmapped {
        let mut unmapped =
            Unmapped { outcome: Ok(0), bytes: 0, memory: Vec::new(), areas: Vec::new() };
        let mut from = Some(asked.start());
        while let Some(entry) = from.and_then(|from| self.next_until(from, asked.last())) {
            if let Err(refusal) = self.check_removable(entry.span, asked) {
                unmapped.outcome = Err(refusal);
                return unmapped;
            }
            unmapped.memory.extend(self.remove(&entry));
            unmapped.bytes = unmapped.bytes.wrapping_add(entry.area.length());
            from = entry.span.last().checked_add(1);
            unmapped.areas.push(entry.area);
        }
        unmapped.outcome = Ok(unmapped.bytes);
        unmapped
    }

    /// Makes a page table mirror this space and returns its name and the areas that must be pinned and passed
    /// to [`fill`](Self::fill) before a device is attached to it.
    ///
    /// # Errors
    /// Nothing is changed then. In this order:
    /// - [`Refusal::PageSize`] (`EINVAL`): its smallest page is larger than the client's, or there is none.
    /// - [`Refusal::MisalignedArea`] (`EADDRINUSE`): an area violates the alignment that it needs.
    /// - [`Refusal::ReservedMapped`] (`EADDRINUSE`): an area lies outside its aperture.
    pub(crate) fn begin_table(
        &mut self,
        geometry: &Geometry,
    ) -> Result<(Mirror, Unfilled), Refusal> {
        let smallest = geometry.smallest_page();
        if smallest == 0 || smallest > PAGE_SIZE {
            return Err(Refusal::PageSize { smallest });
        }
        self.check_areas_aligned(smallest.max(self.alignment))?;
        let mirror = Mirror(self.mirrors);
        self.reserve(Owner::PageTable(mirror), geometry.outside_aperture())?;
        self.mirrors += 1;
        self.tables.insert(mirror, smallest);
        self.realign();
        Ok((mirror, self.unfilled()))
    }

    /// Takes the memory of an area that [`begin_table`](Self::begin_table) asked for. Returns it if the area
    /// is gone, was filled by another, or is no longer wanted.
    pub(crate) fn fill(
        &mut self,
        span: Span,
        area: &Arc<Area>,
        memory: Arc<dyn Pinned>,
    ) -> Option<Arc<dyn Pinned>> {
        let here = self.map.next(span.start());
        let same = here.is_some_and(|entry| Arc::ptr_eq(&entry.area, area));
        if same { self.fill_if_wanted(span, area, memory) } else { Some(memory) }
    }

    /// Ends the mirroring by a page table. Returns the memory to let go of: all, if it was the last.
    pub(crate) fn end_table(&mut self, mirror: Mirror) -> Vec<Arc<dyn Pinned>> {
        self.tables.remove(&mirror);
        self.reserved.release(Owner::PageTable(mirror));
        self.realign();
        if !self.tables.is_empty() {
            return Vec::new();
        }
        self.usage.pinned_bytes = 0;
        self.map.empty_all()
    }

    /// Keeps `spans` from being mapped until `owner` releases them.
    ///
    /// # Errors
    /// [`Refusal::ReservedMapped`] (`EADDRINUSE`): an area is there. Nothing is reserved then.
    pub(crate) fn reserve(
        &mut self,
        owner: Owner,
        spans: impl Iterator<Item = Span> + Clone,
    ) -> Result<(), Refusal> {
        self.check_reservable(spans.clone())?;
        for span in spans {
            self.reserved.add(owner, span);
        }
        Ok(())
    }

    /// Gives back all that `owner` reserved.
    pub(crate) fn release(&mut self, owner: Owner) {
        self.reserved.release(owner);
    }

    /// Says whether [`reserve`](Self::reserve) would succeed now.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn check_reservable(
        &self,
        mut spans: impl Iterator<Item = Span>,
    ) -> Result<(), Refusal> {
        let conflict = spans.find_map(|reserved| {
            let entry = self.next_until(reserved.start(), reserved.last())?;
            Some(Refusal::ReservedMapped { reserved, mapped: entry.span })
        });
        conflict.map_or(Ok(()), Err)
    }

    /// Spans that can be mapped, areas ignored, ascending.
    pub(crate) fn ranges(&self) -> Vec<Span> {
        self.reserved.holes(Span::WHOLE)
    }

    /// Bytes that addresses and lengths are multiples of.
    pub(crate) const fn alignment(&self) -> u64 {
        self.alignment
    }

    /// How much is mapped.
    pub(crate) const fn usage(&self) -> Usage {
        self.usage
    }

    fn choose(&self, area: &Area) -> Result<Span, Refusal> {
        let fit = Fit::of(area, self.alignment)?;
        let holes = self.reserved.holes(AUTOMATIC);
        let found = holes.into_iter().find_map(|hole| self.map.first_fit(hole, &fit));
        found.ok_or(Refusal::NoRoom { length: area.length() })
    }

    fn check_fixed(&self, iova: u64, length: u64) -> Result<Span, Refusal> {
        self.check_aligned(iova)?;
        let asked = Span::new(iova, length).ok_or(Refusal::PastTop { start: iova, length })?;
        if let Some(reserved) = self.reserved.meeting(asked) {
            return Err(Refusal::Reserved { asked, reserved });
        }
        match self.next_until(asked.start(), asked.last()) {
            Some(entry) => Err(Refusal::Overlap { asked, mapped: entry.span }),
            None => Ok(asked),
        }
    }

    const fn check_aligned(&self, value: u64) -> Result<(), Refusal> {
        if value.is_multiple_of(self.alignment) {
            Ok(())
        } else {
            Err(Refusal::Misaligned { value, alignment: self.alignment })
        }
    }

    fn check_areas_aligned(&self, alignment: u64) -> Result<(), Refusal> {
        if alignment == self.alignment {
            return Ok(());
        }
        let violates = |entry: &Entry| {
            let area = &entry.area;
            let values = [entry.span.start(), area.length(), area.page_offset()];
            !values.iter().all(|value| value.is_multiple_of(alignment))
        };
        match self.entries().find(violates) {
            Some(entry) => Err(Refusal::MisalignedArea { mapped: entry.span, alignment }),
            None => Ok(()),
        }
    }

    fn check_removable(&self, mapped: Span, asked: Span) -> Result<(), Refusal> {
        if self.building.contains(&mapped) {
            return Err(Refusal::AreaBusy { mapped });
        }
        if !asked.contains_span(mapped) {
            return Err(Refusal::NotWhole { asked, mapped });
        }
        Ok(())
    }

    fn remove(&mut self, entry: &Entry) -> Option<Arc<dyn Pinned>> {
        let length = u128::from(entry.area.length());
        let memory = self.map.remove(entry.span)?.memory;
        self.usage.areas -= 1;
        self.usage.mapped_bytes -= length;
        if memory.is_some() {
            self.usage.pinned_bytes -= length;
        }
        memory
    }

    fn fill_if_wanted(
        &mut self,
        span: Span,
        area: &Area,
        memory: Arc<dyn Pinned>,
    ) -> Option<Arc<dyn Pinned>> {
        if self.tables.is_empty() {
            return Some(memory);
        }
        match self.map.fill(span, memory) {
            Ok(()) => {
                self.usage.pinned_bytes += u128::from(area.length());
                None
            }
            Err(memory) => Some(memory),
        }
    }

    fn account_mapped(&mut self, area: &Area) {
        self.usage.areas += 1;
        self.usage.mapped_bytes += u128::from(area.length());
    }

    fn realign(&mut self) {
        let least = if self.large_pages { 1 } else { PAGE_SIZE };
        self.alignment = self.tables.values().copied().max().unwrap_or(1).max(least);
    }

    /// Finished areas whose memory is not there.
    fn unfilled(&self) -> Unfilled {
        self.entries()
            .filter(|entry| !entry.filled && !self.building.contains(&entry.span))
            .map(|entry| (entry.span, entry.area))
            .collect()
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let entry = self.map.next(from?)?;
            from = entry.span.last().checked_add(1);
            Some(entry)
        })
    }

    /// The lowest area that shares a byte with `from..=last`.
    fn next_until(&self, from: u64, last: u64) -> Option<Entry> {
        self.map.next(from).filter(|entry| entry.span.start() <= last)
    }
}
