//! VFIO's own type1: what is mapped in a container, and the rules by which that changes.
//!
//! An *entry* is one mapping, as it was made; nothing cuts it. Version 1 unmaps an entry whose first byte is asked for
//! and says how much that was; version 2 refuses to unmap a part of one. The entry's memory can be moved: its owner says
//! that it will come back at another address (VADDR), for example in the program that it executes, and DMA goes on
//! in between.
//!
//! Whoever calls has the container's turn, and no lock is held. Source: [uapi/vfio.h]; order of checks as in Linux 7.3.

use std::collections::BTreeMap;
use std::sync::Arc;

use iommufd::{Context, HostMapping, HostSpace, Iommu, PinAccess, ReservedKind, Source};
use span::Span;
use uapi::vfio::{IommuType1DmaMap, IommuType1DmaUnmap, dma_map_flags, dma_unmap_flags};
use zerocopy::IntoBytes;

use crate::Refusal;
use crate::argument::Argument;
use movable::{Movable, MovableSource};

mod dirty;
mod info;
mod movable;

/// What a container with an IOMMU has.
pub(crate) struct Type1 {
    version: Version,
    space: Arc<HostSpace>,
    /// By the first address.
    entries: BTreeMap<u64, Entry>,
    /// Where entries may lie, ascending.
    allowed: Vec<Span>,
    /// Sizes that all IOMMUs have: bit n for pages of 2^n bytes.
    page_sizes: u64,
    /// Whether a client wants to know which pages were written.
    logs: bool,
}

/// The two versions of type1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// One mapping.
struct Entry {
    length: u64,
    memory: Arc<Movable>,
    access: PinAccess,
    /// Its memory is to come back at another address.
    moving: bool,
}

/// Most entries of a container: `dma_entry_limit`.
const ENTRIES_MOST: usize = 65535;
const PAGE_SIZE: u64 = 4096;

impl Type1 {
    /// Nothing mapped, for no IOMMU yet, in a context of its own. Ends with [`close`](Self::close).
    ///
    /// # Errors
    /// [`Refusal::Iommufd`] (`ENOMEM`).
    pub(crate) fn new(context: Arc<Context>, version: Version) -> Result<Self, Refusal> {
        Ok(Self {
            version,
            space: Arc::new(HostSpace::new(context)?),
            entries: BTreeMap::new(),
            allowed: vec![Span::WHOLE],
            page_sizes: !(PAGE_SIZE - 1),
            logs: false,
        })
    }

    /// Unmaps all and ends. No device is bound any more.
    pub(crate) fn close(self) {
        self.space.close();
    }

    /// What devices are bound to.
    pub(crate) fn space(&self) -> &Arc<HostSpace> {
        &self.space
    }

    /// Lets devices behind these IOMMUs reach what is mapped, and keeps entries to where all of them translate.
    ///
    /// # Errors
    /// - [`Refusal::MemoryMoves`] – the memory of an entry is on its way (`EBUSY`).
    /// - [`Refusal::OutsideRanges`] – an entry lies where they do not translate (`EINVAL`).
    /// - [`Refusal::Iommufd`] (`EPERM`, `EINVAL`, `EFAULT`, `ENOMEM`)
    pub(crate) fn admit(&mut self, iommus: &[Arc<Iommu>]) -> Result<(), Refusal> {
        if self.entries.values().any(|entry| entry.moving) {
            return Err(Refusal::MemoryMoves);
        }
        let (mut allowed, mut page_sizes) = (self.allowed.clone(), self.page_sizes);
        for iommu in iommus {
            let geometry = iommu.geometry();
            allowed =
                allowed.iter().filter_map(|span| span.intersection(geometry.aperture)).collect();
            let kept = |kind| kind != ReservedKind::DirectRelaxable;
            for reserved in geometry.reserved.iter().filter(|reserved| kept(reserved.kind)) {
                allowed = without(&allowed, reserved.span);
            }
            page_sizes = common_sizes(page_sizes, geometry.page_sizes);
        }
        for (&iova, entry) in &self.entries {
            check_inside(&allowed, span_of(iova, entry.length)?)?;
        }
        if iommus.iter().any(|iommu| !iommu.geometry().msi_isolated) {
            return Err(iommufd::Refusal::MsiNotIsolated.into());
        }
        for iommu in iommus {
            self.space.show_to(iommu)?;
        }
        (self.allowed, self.page_sizes) = (allowed, page_sizes);
        Ok(())
    }

    /// `VFIO_IOMMU_MAP_DMA`: maps the caller's memory where it says, or says where an entry's memory is now.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
    /// - [`Refusal::EmptyRange`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`).
    /// - [`Refusal::Flags`] – neither or both of rights and VADDR (`EINVAL`).
    /// - [`Refusal::Misaligned`] (`EINVAL`)
    /// - VADDR: [`Refusal::NoEntry`] (`ENOENT`), [`Refusal::NotThatEntry`] (`EINVAL`).
    /// - [`Refusal::EntryExists`] (`EEXIST`), [`Refusal::EntriesExhausted`] (`ENOSPC`), [`Refusal::OutsideRanges`]
    ///   (`EINVAL`).
    /// - [`Refusal::Iommufd`] – the memory (`EFAULT`, `EINVAL`, `ENOMEM`).
    pub(crate) fn map_dma(&mut self, argument: &Argument<'_>) -> Result<u32, Refusal> {
        let asked: IommuType1DmaMap = argument.read(size_of::<IommuType1DmaMap>())?;
        let rights = dma_map_flags::READ | dma_map_flags::WRITE;
        let unknown = asked.flags & !(rights | dma_map_flags::VADDR) != 0;
        if unknown {
            return Err(Refusal::Flags { flags: asked.flags });
        }
        if asked.size == 0 {
            return Err(Refusal::EmptyRange);
        }
        let span = span_of(asked.iova, asked.size)?;
        span_of(asked.vaddr, asked.size)?;
        let moves = asked.flags & dma_map_flags::VADDR != 0;
        if (asked.flags & rights != 0) == moves {
            return Err(Refusal::Flags { flags: asked.flags });
        }
        self.check_aligned(asked.size | asked.iova | asked.vaddr)?;
        let found = self.overlapping(span).next().map(|(iova, _)| iova);
        match found {
            _ if moves => self.move_memory(argument, &asked, found),
            Some(_) => Err(Refusal::EntryExists { span }),
            None => self.add(argument, &asked, span),
        }
    }

    /// `VFIO_IOMMU_UNMAP_DMA`: unmaps whole entries, and says how many bytes those were; or announces that their memory
    /// will come back at another address. Nothing mapped there is a success.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
    /// - with a bitmap: as [`dirty::Bitmap::read`] (`EFAULT`, `EINVAL`).
    /// - [`Refusal::Misaligned`], [`Refusal::Flags`], [`Refusal::EmptyRange`] (`EINVAL`), [`Refusal::PastTop`]
    ///   (`EOVERFLOW`).
    /// - with a bitmap: [`Refusal::NoLog`] (`EINVAL`).
    /// - version 2: [`Refusal::EntryBisected`] (`EINVAL`).
    /// - VADDR: [`Refusal::MemoryMovesAlready`] (`EINVAL`); then none is marked.
    /// - [`Refusal::Unreachable`] – the bitmap or the size; entries before are gone (`EFAULT`).
    pub(crate) fn unmap_dma(&mut self, argument: &Argument<'_>) -> Result<u32, Refusal> {
        let mut asked: IommuType1DmaUnmap = argument.read(size_of::<IommuType1DmaUnmap>())?;
        let (all, moves) = (dma_unmap_flags::ALL, dma_unmap_flags::VADDR);
        let with_bitmap = asked.flags & dma_unmap_flags::GET_DIRTY_BITMAP != 0;
        let unknown = asked.flags & !(all | moves | dma_unmap_flags::GET_DIRTY_BITMAP) != 0;
        if unknown || (with_bitmap && asked.flags & (all | moves) != 0) {
            return Err(Refusal::Flags { flags: asked.flags });
        }
        let bitmap = match with_bitmap {
            true => Some(dirty::Bitmap::of_unmap(argument, asked.argsz, asked.size)?),
            false => None,
        };
        let range = self.range_to_unmap(&asked)?;
        if bitmap.as_ref().is_some_and(|bitmap| !self.logs || bitmap.page != self.page()) {
            return Err(Refusal::NoLog);
        }
        if self.version == Version::Two && asked.flags & all == 0 {
            self.check_not_bisected(range)?;
        }
        asked.size = match asked.flags & moves != 0 {
            true => self.announce_move(range)?,
            false => self.remove(argument, range, bitmap.as_ref())?,
        };
        argument.write_at(0, asked.as_bytes())?;
        Ok(0)
    }

    fn add(
        &mut self,
        argument: &Argument<'_>,
        asked: &IommuType1DmaMap,
        span: Span,
    ) -> Result<u32, Refusal> {
        if self.entries.len() >= ENTRIES_MOST {
            return Err(Refusal::EntriesExhausted);
        }
        check_inside(&self.allowed, span)?;
        let memory = Movable::new(asked.vaddr);
        let source = MovableSource::new(memory_of(argument), &memory);
        let (read, write) =
            (asked.flags & dma_map_flags::READ != 0, asked.flags & dma_map_flags::WRITE != 0);
        let mapping = HostMapping {
            source: Arc::new(source),
            at: asked.vaddr,
            length: asked.size,
            read,
            write,
        };
        self.space.map(mapping, asked.iova)?;
        let access = if write { PinAccess::Write } else { PinAccess::Read };
        let entry = Entry { length: asked.size, memory, access, moving: false };
        self.entries.insert(asked.iova, entry);
        Ok(0)
    }

    /// Says where the memory of the entry at `found` is now.
    fn move_memory(
        &mut self,
        argument: &Argument<'_>,
        asked: &IommuType1DmaMap,
        found: Option<u64>,
    ) -> Result<u32, Refusal> {
        let found = found.and_then(|iova| Some((iova, self.entries.get_mut(&iova)?)));
        let (iova, entry) = found.ok_or(Refusal::NoEntry)?;
        if !entry.moving || iova != asked.iova || entry.length != asked.size {
            return Err(Refusal::NotThatEntry);
        }
        let source = memory_of(argument);
        let pinned = source.pin(asked.vaddr, asked.size, entry.access);
        entry.memory.put(asked.vaddr, pinned.map_err(iommufd::Refusal::from)?);
        entry.moving = false;
        Ok(0)
    }

    fn range_to_unmap(&self, asked: &IommuType1DmaUnmap) -> Result<Span, Refusal> {
        self.check_aligned(asked.iova)?;
        if asked.flags & dma_unmap_flags::ALL != 0 {
            let whole = asked.iova == 0 && asked.size == 0;
            return if whole {
                Ok(Span::WHOLE)
            } else {
                Err(Refusal::Flags { flags: asked.flags })
            };
        }
        if asked.size == 0 {
            return Err(Refusal::EmptyRange);
        }
        self.check_aligned(asked.size)?;
        span_of(asked.iova, asked.size)
    }

    fn announce_move(&mut self, range: Span) -> Result<u64, Refusal> {
        let found = self.to_unmap(range);
        if found.iter().any(|iova| self.entries.get(iova).is_some_and(|entry| entry.moving)) {
            return Err(Refusal::MemoryMovesAlready);
        }
        let mut bytes = 0_u64;
        for iova in found {
            if let Some(entry) = self.entries.get_mut(&iova) {
                entry.moving = true;
                bytes = bytes.wrapping_add(entry.length);
            }
        }
        Ok(bytes)
    }

    fn remove(
        &mut self,
        argument: &Argument<'_>,
        range: Span,
        bitmap: Option<&dirty::Bitmap>,
    ) -> Result<u64, Refusal> {
        let mut bytes = 0_u64;
        for iova in self.to_unmap(range) {
            let Some(length) = self.entries.get(&iova).map(|entry| entry.length) else { continue };
            if let Some(bitmap) = bitmap {
                bitmap.mark(argument, range.start(), iova, length)?;
            }
            self.space.unmap(span_of(iova, length)?);
            self.entries.remove(&iova);
            bytes = bytes.wrapping_add(length);
        }
        Ok(bytes)
    }

    /// The entries that go with `range`, by their first address.
    fn to_unmap(&self, range: Span) -> Vec<u64> {
        // Version 1 stops where one begins below the range, which only the first can.
        let stops = |iova| self.version == Version::One && iova < range.start();
        self.overlapping(range).map(|(iova, _)| iova).take_while(|&iova| !stops(iova)).collect()
    }

    fn check_not_bisected(&self, range: Span) -> Result<(), Refusal> {
        let mut ends = [range.start(), range.last()].into_iter();
        let bisected = ends.any(|end| {
            let cuts = |(iova, entry): (u64, &Entry)| {
                let last = iova + (entry.length - 1);
                iova < range.start() || last > range.last()
            };
            Span::from_ends(end, end).is_some_and(|byte| self.overlapping(byte).any(cuts))
        });
        if bisected { Err(Refusal::EntryBisected { range }) } else { Ok(()) }
    }

    /// The entries that share a byte with `span`, ascending.
    fn overlapping(&self, span: Span) -> impl Iterator<Item = (u64, &Entry)> {
        let below = self.entries.range(..span.start()).next_back();
        let below = below.filter(move |(iova, entry)| **iova + (entry.length - 1) >= span.start());
        let inside = self.entries.range(span.start()..=span.last());
        below.into_iter().chain(inside).map(|(&iova, entry)| (iova, entry))
    }

    fn check_aligned(&self, values: u64) -> Result<(), Refusal> {
        let alignment = self.page();
        match values.is_multiple_of(alignment) {
            true => Ok(()),
            false => Err(Refusal::Misaligned { value: values, alignment }),
        }
    }

    /// Bytes of the smallest page.
    fn page(&self) -> u64 {
        self.page_sizes & self.page_sizes.wrapping_neg()
    }
}

/// Page sizes that both have. Those below the client's own page count as that.
fn common_sizes(one: u64, other: u64) -> u64 {
    let small = PAGE_SIZE - 1;
    let other = if other & small == 0 { other } else { other & !small | PAGE_SIZE };
    one & other
}

/// The caller's memory, BARs too, held against what its process may lock.
fn memory_of(argument: &Argument<'_>) -> Arc<dyn Source> {
    argument.caller.charged(argument.caller.memory_with_devices(), true)
}

fn span_of(start: u64, length: u64) -> Result<Span, Refusal> {
    Span::new(start, length).ok_or(Refusal::PastTop { start, length })
}

fn check_inside(allowed: &[Span], span: Span) -> Result<(), Refusal> {
    match allowed.iter().any(|range| range.contains_span(span)) {
        true => Ok(()),
        false => Err(Refusal::OutsideRanges { span }),
    }
}

/// What is left of `spans` without the bytes of `taken`.
fn without(spans: &[Span], taken: Span) -> Vec<Span> {
    let parts = |span: &Span| {
        if !span.intersects(taken) {
            return [Some(*span), None];
        }
        let below =
            taken.start().checked_sub(1).and_then(|last| Span::from_ends(span.start(), last));
        let above =
            taken.last().checked_add(1).and_then(|first| Span::from_ends(first, span.last()));
        [below, above]
    };
    spans.iter().flat_map(parts).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, last: u64) -> Span {
        Span::from_ends(start, last).unwrap()
    }

    #[test]
    fn what_is_taken_splits_shortens_or_ends_spans() {
        let spans = [span(0, 9), span(20, 29), span(40, u64::MAX)];
        assert_eq!(without(&spans, span(3, 4)), [span(0, 2), span(5, 9), spans[1], spans[2]]);
        assert_eq!(without(&spans, span(5, 24)), [span(0, 4), span(25, 29), spans[2]]);
        assert_eq!(without(&spans, span(20, u64::MAX)), [spans[0]]);
        assert_eq!(without(&spans, span(10, 19)), spans);
        assert_eq!(without(&spans, Span::WHOLE), []);
    }

    #[test]
    fn sizes_below_a_page_count_as_a_page() {
        assert_eq!(common_sizes(!0xfff, 0x20_1000), 0x20_1000);
        assert_eq!(common_sizes(!0xfff, 0x20_0800), 0x20_1000);
    }
}
