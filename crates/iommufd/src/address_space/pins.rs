//! Software users of an address space, and what they have pinned.
//!
//! An access is attached to the address space, perhaps with the wish that all be whole pages, and pins ranges of what is
//! mapped, each under a number of its own. A pin keeps the memory of its areas, whether page tables want that too or
//! not. Unmapping an area takes every pin that touches it away first: that is how an access hears of it.
//!
//! As with mappings, pinning itself happens with no lock held: *begin* notes the pin, *finish* brings the memory,
//! unless the areas were unmapped in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use span::Span;

use super::copy::Parts;
use super::{AddressSpace, Piece};
use crate::access::AccessRefusal;
use crate::area::Area;
use crate::dma_buf::DmaBufRefusal;
use crate::iova_map::Left;
use crate::{PAGE_SIZE, Pinned, Refusal, Resource, Source};

/// Who is attached, and what they pinned.
#[derive(Default)]
pub(super) struct Accesses {
    /// Whether each wants whole pages.
    attached: BTreeMap<AccessName, bool>,
    /// Accesses that ever were.
    names: u64,
    pins: BTreeMap<(AccessName, u32), Pin>,
}

/// Tells the accesses of an address space apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AccessName(u64);

/// A range that an access pinned, or is about to.
struct Pin {
    span: Span,
    /// Of each area; none yet while it is being pinned.
    memory: Vec<PinnedPart>,
    /// Whether its areas cannot be unmapped.
    holds: bool,
}

/// A part of an area that an access pinned.
#[derive(Clone)]
pub(crate) struct PinnedPart {
    pub(crate) source: Arc<dyn Source>,
    /// Virtual address or file offset of its first byte.
    pub(crate) at: u64,
    pub(crate) length: u64,
    pub(crate) memory: Arc<dyn Pinned>,
}

impl Accesses {
    /// Bytes that addresses must be multiples of for the sake of those attached.
    pub(super) fn alignment(&self) -> u64 {
        let whole_pages = self.attached.values().any(|whole_pages| *whole_pages);
        if whole_pages { PAGE_SIZE } else { 1 }
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        !self.attached.is_empty()
    }

    /// Whether something in `span` is pinned.
    pub(super) fn pin_in(&self, span: Span) -> bool {
        self.pins.values().any(|pin| pin.span.intersects(span))
    }

    /// Takes away the pins that touch `span`, and gives what they held.
    pub(super) fn drop_pins_in(&mut self, span: Span) -> Vec<Arc<dyn Pinned>> {
        let touched = self.pins.extract_if(.., |_, pin| pin.span.intersects(span));
        touched.flat_map(|(_, pin)| pin.memory).map(|part| part.memory).collect()
    }
}

impl AddressSpace {
    /// Attaches an access that wants whole pages, or does not, and returns its name.
    ///
    /// # Errors
    /// [`Refusal::MisalignedArea`] (`EADDRINUSE`): an area is no whole number of pages; [`Refusal::Exhausted`]
    /// (`ENOMEM`).
    pub(crate) fn attach_access(&mut self, whole_pages: bool) -> Result<AccessName, Refusal> {
        if whole_pages {
            self.check_areas_aligned(PAGE_SIZE.max(self.alignment))?;
        }
        self.quota.admit(Resource::Access, self.accesses.attached.len() as u64 + 1)?;
        let name = AccessName(self.accesses.names);
        self.accesses.names += 1;
        self.accesses.attached.insert(name, whole_pages);
        self.realign();
        Ok(name)
    }

    /// Undoes [`attach_access`](Self::attach_access). Returns what the access had pinned.
    pub(crate) fn detach_access(&mut self, name: AccessName) -> Left {
        self.accesses.attached.remove(&name);
        let pins = self.accesses.pins.extract_if(.., |(owner, _), _| *owner == name);
        let memory = pins.flat_map(|(_, pin)| pin.memory).map(|part| part.memory).collect();
        self.realign();
        Left { memory, ..Left::default() }
    }

    /// The parts of areas that an access reaches at `asked`, up to the first that is refused: because it may not be written,
    /// or not be read ([`AccessRefusal::NotGranted`], `EPERM`), is of a dma-buf ([`DmaBufRefusal::NotForSoftware`],
    /// `EINVAL`), or is not mapped ([`Refusal::NotCovered`], `ENOENT`).
    ///
    /// # Errors
    /// [`AccessRefusal::NotAttached`] (`ENOENT`).
    pub(crate) fn reach(
        &self,
        name: AccessName,
        asked: Span,
        write: bool,
    ) -> Result<Parts, Refusal> {
        if !self.accesses.attached.contains_key(&name) {
            return Err(AccessRefusal::NotAttached.into());
        }
        Ok(self.each_part(asked, |part, area| check_granted(part, area, write)))
    }

    /// Notes that an access pins `asked` under `number`, which it does not use, unless a part is refused. Returns the parts
    /// of areas there, to be pinned and passed to [`finish_pin`](Self::finish_pin). A part is refused as by
    /// [`reach`](Self::reach), and before its rights because the memory of the first does not begin with a page, or areas
    /// meet inside one ([`Refusal::Misaligned`], `EINVAL`).
    ///
    /// # Errors
    /// [`AccessRefusal::NotAttached`] (`ENOENT`), [`Refusal::Exhausted`] (`ENOMEM`).
    pub(crate) fn begin_pin(
        &mut self,
        name: AccessName,
        number: u32,
        asked: Span,
        write: bool,
    ) -> Result<Parts, Refusal> {
        if !self.accesses.attached.contains_key(&name) {
            return Err(AccessRefusal::NotAttached.into());
        }
        let parts = self.each_part(asked, |part, area| {
            check_page_boundary(area.at())?;
            if part.last() != asked.last() {
                check_page_boundary(area.at().wrapping_add(area.length()))?;
            }
            check_granted(part, area, write)
        });
        if parts.refusal.is_none() {
            self.quota.admit(Resource::AccessPin, self.accesses.pins.len() as u64 + 1)?;
            self.accesses
                .pins
                .insert((name, number), Pin { span: asked, memory: Vec::new(), holds: false });
        }
        Ok(parts)
    }

    /// As [`begin_pin`](Self::begin_pin), to be read, and until it ends its areas cannot be unmapped.
    ///
    /// # Errors
    /// As there, and what is said against the first part that is refused.
    pub(crate) fn begin_hold(
        &mut self,
        name: AccessName,
        number: u32,
        asked: Span,
    ) -> Result<Vec<Piece>, Refusal> {
        let pieces = self.begin_pin(name, number, asked, false)?.all()?;
        if let Some(pin) = self.accesses.pins.get_mut(&(name, number)) {
            pin.holds = true;
        }
        Ok(pieces)
    }

    /// The areas inside `asked` that cannot be unmapped.
    pub(super) fn held_in(&self, asked: Span) -> impl Iterator<Item = Span> {
        let held = self.accesses.pins.values().filter(|pin| pin.holds);
        let areas = held.flat_map(|pin| {
            let areas = self.entries(pin.span.start()).map(|entry| entry.span);
            areas.take_while(|area| area.start() <= pin.span.last())
        });
        areas.filter(move |area| asked.contains_span(*area))
    }

    /// Ends a pin with its memory. Gives it back where what was to be pinned was unmapped meanwhile, to be let go of with
    /// no lock held.
    pub(crate) fn finish_pin(
        &mut self,
        name: AccessName,
        number: u32,
        memory: Vec<PinnedPart>,
    ) -> Result<(), Vec<PinnedPart>> {
        match self.accesses.pins.get_mut(&(name, number)) {
            Some(pin) => {
                pin.memory = memory;
                Ok(())
            }
            None => Err(memory),
        }
    }

    /// Ends a pin, finished or not. Returns what it held.
    ///
    /// # Errors
    /// [`AccessRefusal::NoPin`] (`ENOENT`): there is none of this number, or what it pinned was unmapped.
    pub(crate) fn unpin(&mut self, name: AccessName, number: u32) -> Result<Left, Refusal> {
        let pin = self.accesses.pins.remove(&(name, number));
        let pin = pin.ok_or(AccessRefusal::NoPin { number })?;
        let memory = pin.memory.into_iter().map(|part| part.memory).collect();
        Ok(Left { memory, ..Left::default() })
    }

    /// All that accesses have pinned.
    pub(crate) fn pinned_by_accesses(&self) -> impl Iterator<Item = &PinnedPart> {
        self.accesses.pins.values().flat_map(|pin| &pin.memory)
    }
}

fn check_granted(part: Span, area: &Area, write: bool) -> Result<(), Refusal> {
    let rights = area.rights();
    let granted = if write { rights.write } else { rights.read };
    let iova = part.start();
    if !granted {
        return Err(AccessRefusal::NotGranted { iova }.into());
    }
    match area.source.import() {
        Some(_) => Err(DmaBufRefusal::NotForSoftware { iova }.into()),
        None => Ok(()),
    }
}

const fn check_page_boundary(value: u64) -> Result<(), Refusal> {
    if value.is_multiple_of(PAGE_SIZE) {
        Ok(())
    } else {
        Err(Refusal::Misaligned { value, alignment: PAGE_SIZE })
    }
}
