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
use crate::iova_map::{Entry, IovaMap, Left};
use crate::placement::{AUTOMATIC, Fit, Placement};
use crate::reservations::{Owner, Reservations, without};
use crate::written_pages::WrittenPages;
use crate::{Geometry, PAGE_SIZE, Pinned, Quota, Refusal, Resource};

mod allowed;
mod copy;
mod cut;
mod pins;
mod revoked;

pub(crate) use copy::Parts;
use pins::Accesses;
pub(crate) use pins::{AccessName, PinnedPart};

/// The state of an address space.
pub(crate) struct AddressSpace {
    map: Arc<dyn IovaMap>,
    quota: Arc<dyn Quota>,
    reserved: Reservations,
    /// Where addresses are chosen, ascending and apart; anywhere if there is none.
    allowed: Vec<Span>,
    /// Bytes that addresses and lengths are multiples of.
    alignment: u64,
    /// Whether page tables may have leaves larger than the client's pages.
    large_pages: bool,
    /// Page tables that mirror the map.
    tables: BTreeMap<Mirror, Table>,
    /// Page tables that ever did.
    mirrors: u64,
    /// Places of areas whose memory is being pinned before they are mapped. Not in the map.
    building: Vec<Span>,
    accesses: Accesses,
    areas: u64,
    mapped_bytes: u128,
}

/// A page table as its address space knows it.
struct Table {
    /// Bytes of its smallest page.
    smallest_page: u64,
    /// What notes the pages written through it.
    log: Option<Arc<WrittenPages>>,
    /// Whether it takes areas that are for reading only.
    takes_read_only: bool,
}

/// What a page table is like that is to mirror a space.
pub(crate) struct Shape<'g> {
    pub(crate) geometry: &'g Geometry,
    /// What notes the pages written through it.
    pub(crate) log: Option<Arc<WrittenPages>>,
    /// Whether it takes areas that are for reading only.
    pub(crate) takes_read_only: bool,
}

/// What becomes an area.
pub(crate) struct Piece {
    pub(crate) area: Area,
    /// Its memory, if that is pinned already.
    pub(crate) memory: Option<Arc<dyn Pinned>>,
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

/// What [`AddressSpace::unmap`] did: areas before the one that refused are gone.
pub(crate) struct Unmapped {
    pub(crate) outcome: Result<(), Refusal>,
    /// Bytes unmapped, modulo 2^64.
    pub(crate) bytes: u64,
    /// To be let go of once DMA in flight has ended.
    pub(crate) left: Left,
}

impl AddressSpace {
    pub(crate) fn new(map: Arc<dyn IovaMap>, quota: Arc<dyn Quota>) -> Self {
        Self {
            map,
            quota,
            reserved: Reservations::default(),
            allowed: Vec::new(),
            alignment: 1,
            large_pages: true,
            tables: BTreeMap::new(),
            mirrors: 0,
            building: Vec::new(),
            accesses: Accesses::default(),
            areas: 0,
            mapped_bytes: 0,
        }
    }

    /// Takes a place for `pieces`, at least one, which follow one another.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::Exhausted`] (`ENOMEM`)
    /// - [`Refusal::Misaligned`] (`EINVAL`): the length.
    /// - automatic: as [`Fit::of`] (`EOVERFLOW`, `EINVAL`), then [`Refusal::NoRoom`] (`ENOSPC`).
    /// - fixed: [`Refusal::Misaligned`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`),
    ///   [`Refusal::Reserved`] (`EINVAL`), [`Refusal::Overlap`] (`EEXIST`).
    /// - for each piece [`Refusal::ReadOnly`] (`EPERM`): for writing, of memory that was not mapped so; and
    ///   [`Refusal::Misaligned`] (`EINVAL`): the memory's offset into its page.
    pub(crate) fn begin_map(
        &mut self,
        pieces: &[Piece],
        placement: Placement,
    ) -> Result<Begun, Refusal> {
        let length = pieces.iter().map(|piece| piece.area.length()).sum();
        self.quota.admit(Resource::Area, self.areas + pieces.len() as u64)?;
        let at = pieces.first().map_or(0, |piece| piece.area.at());
        self.check_aligned(length)?;
        let span = match placement {
            Placement::Automatic => self.choose(at, length)?,
            Placement::Fixed(iova) => self.check_fixed(iova, length)?,
        };
        for Piece { area, .. } in pieces {
            if area.rights().write && !area.writable {
                return Err(Refusal::ReadOnly);
            }
            self.check_aligned(area.page_offset())?;
        }
        if self.tables.is_empty() {
            self.insert(span, pieces);
            return Ok(Begun::Mapped(span));
        }
        self.building.push(span);
        Ok(Begun::Pin(span))
    }

    /// Ends a mapping that had to be pinned.
    ///
    /// # Errors
    /// [`Refusal::NotForWriting`] (`EINVAL`). The place is given back then.
    pub(crate) fn finish_map(&mut self, span: Span, pieces: &[Piece]) -> Result<(), Refusal> {
        self.building.retain(|other| *other != span);
        let is_read_only = pieces.iter().any(|piece| !piece.area.rights().write);
        if is_read_only && !self.takes_read_only() {
            return Err(Refusal::NotForWriting { mapped: span });
        }
        self.insert(span, pieces);
        Ok(())
    }

    /// Gives back the place of areas that could not be pinned.
    pub(crate) fn abort_map(&mut self, span: Span) {
        self.building.retain(|other| *other != span);
    }

    /// Unmaps all areas inside `asked`, ascending, up to the first that refuses.
    ///
    /// # Errors
    /// In the outcome:
    /// - [`Refusal::AreaBusy`] (`EBUSY`): an area is still being mapped, or held.
    /// - [`Refusal::NotWhole`] (`ENOENT`): an area sticks out of `asked`.
    pub(crate) fn unmap(&mut self, asked: Span) -> Unmapped {
        let building = self.building.iter().copied().filter(|span| span.intersects(asked));
        let busy = building.chain(self.held_in(asked)).min_by_key(|span| span.start());
        let before_busy = match busy {
            Some(busy) => {
                let last = busy.start().checked_sub(1);
                last.and_then(|last| Span::from_ends(asked.start(), last))
            }
            None => Some(asked),
        };
        let mut removed = before_busy.map(|span| self.map.remove(span)).unwrap_or_default();
        if let Some(gone) = before_busy.and_then(|span| up_to(span, removed.sticks_out)) {
            removed.left.memory.extend(self.accesses.drop_pins_in(gone));
        }
        // An access copies inside a stay as DMA does, also where nothing is pinned.
        removed.left.reachable |= self.accesses.any();
        self.areas -= removed.areas;
        self.mapped_bytes -= removed.bytes;
        let outcome = match (removed.sticks_out, busy) {
            (Some(mapped), _) => Err(Refusal::NotWhole { asked, mapped }),
            (None, Some(mapped)) => Err(Refusal::AreaBusy { mapped }),
            (None, None) => Ok(()),
        };
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2^64, as the uAPI has it")]
        let bytes = removed.bytes as u64;
        Unmapped { outcome, bytes, left: removed.left }
    }

    /// Makes a page table mirror this space and returns its name. All areas must be pinned and passed to
    /// [`fill`](Self::fill) before a device is attached to it; see [`next_unfilled`](Self::next_unfilled).
    ///
    /// # Errors
    /// Nothing is changed then. In this order:
    /// - [`Refusal::PageSize`] (`EINVAL`): its smallest page is larger than the client's, or there is none.
    /// - [`Refusal::MisalignedArea`] (`EADDRINUSE`): an area violates the alignment that it needs.
    /// - [`Refusal::Exhausted`] (`ENOMEM`)
    /// - [`Refusal::ReservedMapped`], [`Refusal::ReservedAllowed`] (`EADDRINUSE`): an area, or what a client allows for
    ///   areas, lies outside its aperture.
    pub(crate) fn begin_table(&mut self, shape: Shape<'_>) -> Result<Mirror, Refusal> {
        let Shape { geometry, log, takes_read_only } = shape;
        let smallest = geometry.smallest_page();
        if smallest == 0 || smallest > PAGE_SIZE {
            return Err(Refusal::PageSize { smallest });
        }
        self.check_areas_aligned(smallest.max(self.alignment))?;
        self.quota.admit(Resource::Mirror, self.tables.len() as u64 + 1)?;
        let mirror = Mirror(self.mirrors);
        self.reserve(Owner::PageTable(mirror), geometry.outside_aperture())?;
        self.mirrors += 1;
        self.tables.insert(mirror, Table { smallest_page: smallest, log, takes_read_only });
        self.realign();
        Ok(mirror)
    }

    /// Says whether nothing that is mapped is for reading only.
    ///
    /// # Errors
    /// [`Refusal::NotForWriting`] (`EINVAL`)
    pub(crate) fn check_all_writable(&self) -> Result<(), Refusal> {
        match self.entries(0).find(|entry| !entry.area.rights().write) {
            Some(entry) => Err(Refusal::NotForWriting { mapped: entry.span }),
            None => Ok(()),
        }
    }

    fn takes_read_only(&self) -> bool {
        self.tables.values().all(|table| table.takes_read_only)
    }

    /// The lowest area from `from` on whose memory is not there, and not taken back for good either.
    pub(crate) fn next_unfilled(&self, from: u64) -> Option<(Span, Area)> {
        let wanting = |entry: &Entry| entry.memory.is_none() && !entry.area.is_revoked();
        let unfilled = self.entries(from).find(wanting)?;
        Some((unfilled.span, unfilled.area))
    }

    /// Takes the memory of an area that [`begin_table`](Self::begin_table) asked for. Returns it if the area
    /// is gone, was filled by another, was revoked, or is no longer wanted.
    pub(crate) fn fill(
        &mut self,
        span: Span,
        area: &Area,
        memory: Arc<dyn Pinned>,
    ) -> Option<Arc<dyn Pinned>> {
        let here = self.map.next(span.start());
        let same = here.is_some_and(|entry| entry.span == span && entry.area.same(area));
        let wanted = !self.tables.is_empty() && !area.is_revoked();
        if same && wanted { self.map.fill(span, memory) } else { Some(memory) }
    }

    /// Ends the mirroring by a page table. Returns what to let go of: all memory, if it was the last.
    pub(crate) fn end_table(&mut self, mirror: Mirror) -> Left {
        self.tables.remove(&mirror);
        self.reserved.release(Owner::PageTable(mirror));
        self.realign();
        if self.tables.is_empty() { self.map.empty_all() } else { Left::default() }
    }

    /// Keeps `spans` from being mapped until `owner` releases them.
    ///
    /// # Errors
    /// [`Refusal::ReservedMapped`], [`Refusal::ReservedAllowed`] (`EADDRINUSE`): an area is there, or what a client
    /// allows for areas; [`Refusal::Exhausted`] (`ENOMEM`). Nothing is reserved then.
    pub(crate) fn reserve(
        &mut self,
        owner: Owner,
        spans: impl Iterator<Item = Span> + Clone,
    ) -> Result<(), Refusal> {
        self.check_reservable(spans.clone())?;
        let more = (1..).zip(spans.clone());
        let held = self.reserved.count() as u64;
        more.map(|(more, _)| held + more)
            .try_for_each(|held| self.quota.admit(Resource::ReservedRange, held))?;
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
            let mapped = self.meeting(reserved);
            let mapped = mapped.map(|mapped| Refusal::ReservedMapped { reserved, mapped });
            mapped.or_else(|| self.meeting_allowed(reserved))
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
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            areas: self.areas,
            mapped_bytes: self.mapped_bytes,
            pinned_bytes: self.map.pinned_bytes(),
        }
    }

    fn choose(&self, at: u64, length: u64) -> Result<Span, Refusal> {
        let fit = Fit::of(at, length, self.alignment)?;
        let anywhere = [AUTOMATIC];
        let allowed = if self.allowed.is_empty() { &anywhere } else { &self.allowed[..] };
        let found = allowed.iter().find_map(|within| {
            // Its beginning is rounded as a hole's is, and holes are looked for from there.
            let within = within.intersection(AUTOMATIC)?;
            let within = Span::from_ends(fit.lowest_in(within)?.start(), within.last())?;
            let holes = self.reserved.holes(within).into_iter();
            let mut holes = holes.flat_map(|hole| without(hole, &self.building));
            holes.find_map(|hole| self.map.first_fit(hole, &fit))
        });
        found.ok_or(Refusal::NoRoom { length })
    }

    fn check_fixed(&self, iova: u64, length: u64) -> Result<Span, Refusal> {
        self.check_aligned(iova)?;
        let asked = Span::new(iova, length).ok_or(Refusal::PastTop { start: iova, length })?;
        if let Some(reserved) = self.reserved.meeting(asked) {
            return Err(Refusal::Reserved { asked, reserved });
        }
        match self.meeting(asked) {
            Some(mapped) => Err(Refusal::Overlap { asked, mapped }),
            None => Ok(asked),
        }
    }

    /// Adds areas in a place that is theirs.
    fn insert(&mut self, span: Span, pieces: &[Piece]) {
        let wanted = !self.tables.is_empty();
        // Marks of what was mapped there before are not theirs.
        for log in self.tables.values().filter_map(|table| table.log.as_ref()) {
            log.forget(span);
        }
        let mut start = span.start();
        for Piece { area, memory } in pieces {
            let Some(place) = Span::new(start, area.length()) else { return };
            self.map.insert(place, area, memory.clone().filter(|_| wanted && !area.is_revoked()));
            self.areas += 1;
            self.mapped_bytes += u128::from(area.length());
            start = place.last().wrapping_add(1);
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
        match self.entries(0).find(violates) {
            Some(entry) => Err(Refusal::MisalignedArea { mapped: entry.span, alignment }),
            None => Ok(()),
        }
    }

    fn realign(&mut self) {
        let least = if self.large_pages { 1 } else { PAGE_SIZE };
        self.alignment =
            self.tables.values().map(|table| table.smallest_page).max().unwrap_or(1).max(least);
        self.alignment = self.alignment.max(self.accesses.alignment());
    }

    fn entries(&self, from: u64) -> impl Iterator<Item = Entry> {
        let mut from = Some(from);
        std::iter::from_fn(move || {
            let entry = self.map.next(from?)?;
            from = entry.span.last().checked_add(1);
            Some(entry)
        })
    }

    /// The place of an area that shares a byte with `span`.
    fn meeting(&self, span: Span) -> Option<Span> {
        let building = self.building.iter().find(|building| building.intersects(span));
        building.copied().or_else(|| self.map.meeting(span))
    }
}

/// What of `span` lies below the area that sticks out of it.
fn up_to(span: Span, sticks_out: Option<Span>) -> Option<Span> {
    match sticks_out {
        None => Some(span),
        Some(area) => Span::from_ends(span.start(), area.start().checked_sub(1)?),
    }
}
