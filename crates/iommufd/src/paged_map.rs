//! The IOVA map in production: a page table that DMA walks without locks.
//!
//! An area is leaves, and nothing else: where it begins and ends and what devices may do are bits in them, the output
//! address is the memory's own (virtual address or file offset), and the tag names its [`Backing`](backings): which
//! memory, and whether that is pinned. So a million areas of one program's memory are a million words and one backing.
//!
//! What no page table can hold goes to a plain map beside it: areas that are not whole pages, or lie differently in
//! their pages than their memory, or above 2^48, or that devices may neither read nor write, or whose backing is one
//! too many; and the halves of areas that were cut. DMA looks there where the page table has nothing.
//!
//! Locks: `mapper` is PAGES, `backings` OBJECTS inside it; the plain map's own is taken while neither is held. DMA
//! takes OBJECTS for as long as it takes to look a tag up. Nothing here waits.

use std::io;
use std::sync::Arc;

use pagetable::{
    FaultReason, InsertError, Mapper, PAGE_LG2, PageTable, Permission, Piece, Readers, Shape,
    Target, Walk,
};
use pci::{DmaAccess, DmaFaultReason};
use span::Span;
use sync::{Guard, Mutex, rank};

use crate::area::{Area, Rights};
use crate::flat_map::{FlatMap, halves};
use crate::in_flight::Stay;
use crate::iova_map::{Entry, IovaMap, Left, Removed, Translation};
use crate::placement::Fit;
use crate::{PAGE_SIZE, Pinned};

use backings::{Backing, Backings};

mod backings;

/// An [`IovaMap`] over a page table.
pub(crate) struct PagedMap {
    table: Arc<PageTable>,
    mapper: Mutex<rank::Pages, Mapper>,
    backings: Mutex<rank::Objects, Backings>,
    /// What the page table cannot hold.
    odd: FlatMap,
}

impl PagedMap {
    /// An empty map for a context whose DMA is announced to `readers`.
    ///
    /// # Errors
    /// `ENOMEM`: no addresses of our own are left for the tables.
    pub(crate) fn new(readers: &Arc<Readers>) -> io::Result<Self> {
        let (table, mapper) = PageTable::with_readers(Shape::default(), Arc::clone(readers))?;
        Ok(Self {
            table,
            mapper: Mutex::new(mapper),
            backings: Mutex::new(Backings::default()),
            odd: FlatMap::new(),
        })
    }

    /// Writes the area's leaves, if they can be leaves. Returns the memory if not.
    fn insert_leaves(
        &self,
        span: Span,
        area: &Area,
        memory: Option<Arc<dyn Pinned>>,
    ) -> Result<(), Option<Arc<dyn Pinned>>> {
        let permission = permission(area.rights());
        let whole_pages = (span.start() | area.length() | area.at()).is_multiple_of(PAGE_SIZE);
        if !whole_pages || permission == Permission::NONE {
            return Err(memory);
        }
        let mut mapper = self.mapper.lock();
        let tag = self.backings.lock().tag_of(Backing::of(area, memory.clone()));
        let Some(tag) = tag else { return Err(memory) };
        match mapper.insert(span, Target { output: area.at(), permission, tag }) {
            Ok(()) => Ok(()),
            Err(InsertError::Overlap { .. }) => {
                panic!("the address space checked {span} against all areas")
            }
            Err(_) => {
                if mapper.tag_use(tag).areas == 0 {
                    // No leaf that a reader could have met ever named it.
                    let mut backings = self.backings.lock();
                    if backings.retire(tag).is_some() {
                        backings.free(tag);
                    }
                }
                Err(memory)
            }
        }
    }

    /// Takes out the leaves wholly inside `asked`.
    fn remove_leaves(&self, asked: Span) -> Removed {
        let mut mapper = self.mapper.lock();
        let (done, sticks_out) = match mapper.remove(asked) {
            Ok(done) => (done, None),
            Err(refused) => (refused.removed, mapper.area_at(refused.iova).map(|area| area.span)),
        };
        let mut removed = Removed {
            areas: done.areas,
            bytes: done.bytes.into(),
            sticks_out,
            left: Left::default(),
        };
        if done.areas > 0 {
            self.retire(&mut mapper, &mut removed.left);
        }
        removed
    }

    /// Collects what the mapper's changes so far have left.
    fn retire(&self, mapper: &mut Mapper, left: &mut Left) {
        let mut backings = self.backings.lock();
        // Without memory no reader can have followed a leaf anywhere.
        left.reachable |= backings.any_pinned();
        left.tables = Some(mapper.retire());
        let mut emptied = Vec::new();
        mapper.for_each_emptied_tag(|tag| emptied.push(tag));
        for tag in emptied.into_iter().filter(|tag| mapper.tag_use(*tag).areas == 0) {
            let Some(Backing { source, memory, .. }) = backings.retire(tag) else { continue };
            left.tags.push(tag);
            left.sources.push(source);
            left.memory.extend(memory);
        }
    }

    fn entry(&self, mapper: &Mapper, from: u64) -> Option<Entry> {
        let pagetable::Area { span, target } = mapper.next_area(from)?;
        let backings = self.backings.lock();
        let backing = backings.get(target.tag)?;
        let rights = Rights {
            read: target.permission.allows(Permission::READ),
            write: target.permission.allows(Permission::WRITE),
        };
        let area = Area {
            source: Arc::clone(&backing.source),
            at: target.output,
            length: span.length(),
            rights,
            writable: backing.writable,
        };
        Some(Entry { span, area, memory: backing.memory.clone() })
    }

    fn lock(&self) -> Guard<'_, rank::Pages, Mapper> {
        self.mapper.lock()
    }
}

impl IovaMap for PagedMap {
    fn insert(&self, span: Span, area: &Area, memory: Option<Arc<dyn Pinned>>) {
        if let Err(memory) = self.insert_leaves(span, area, memory) {
            self.odd.insert(span, area, memory);
        }
    }

    fn remove(&self, asked: Span) -> Removed {
        let sticks_out = |met: &Span| met.start() < asked.start();
        if let Some(first) = self.odd.covering(asked.start()).filter(sticks_out) {
            return Removed { sticks_out: Some(first), ..Removed::default() };
        }
        let mut removed = self.remove_leaves(asked);
        if removed.sticks_out.is_some_and(|met| sticks_out(&met)) {
            return removed;
        }
        // What sticks out at the end is the last that `asked` meets.
        let odd = self.odd.remove(asked);
        removed.areas += odd.areas;
        removed.bytes += odd.bytes;
        removed.sticks_out = removed.sticks_out.or(odd.sticks_out);
        removed.left.reachable |= odd.left.reachable;
        removed.left.memory.extend(odd.left.memory);
        removed.left.sources.extend(odd.left.sources);
        removed
    }

    fn fill(&self, span: Span, memory: Arc<dyn Pinned>) -> Option<Arc<dyn Pinned>> {
        let mut mapper = self.mapper.lock();
        let here = self.entry(&mapper, span.start()).filter(|entry| entry.span == span);
        let Some(entry) = here else {
            drop(mapper);
            return self.odd.fill(span, memory);
        };
        if entry.memory.is_some() {
            return Some(memory);
        }
        // What changes here is retired with the next removal: the unpinned backing's tag, if it was the last area.
        let backing = Backing::of(&entry.area, Some(Arc::clone(&memory)));
        let tag = self.backings.lock().tag_of(backing);
        if tag.is_some_and(|tag| mapper.set_tag(span, tag)) {
            return None;
        }
        let removed = mapper.remove(span);
        drop(mapper);
        assert!(removed.is_ok(), "{span} is one area");
        self.odd.insert(span, &entry.area, Some(memory));
        None
    }

    fn empty_all(&self) -> Left {
        let mut left = self.odd.empty_all();
        left.memory.extend(self.backings.lock().empty_all());
        left.reachable = !left.memory.is_empty();
        left
    }

    fn cut(&self, entry: &Entry, last: u64) -> Left {
        if self.odd.covering(entry.span.start()).is_some() {
            return self.odd.cut(entry, last);
        }
        for (span, area) in halves(entry, last) {
            self.odd.insert(span, &area, entry.memory.clone());
        }
        self.remove_leaves(entry.span).left
    }

    fn translate(
        &self,
        inside: &Stay<'_>,
        iova: u64,
        access: DmaAccess,
        most: u64,
    ) -> Result<Translation, DmaFaultReason> {
        let Some(visitor) = inside.visitor() else { return Err(DmaFaultReason::NotMapped) };
        let found = run_from(&visitor.walk(&self.table), iova, access, most);
        match found {
            Ok(run) => {
                let memory = self.backings.lock().memory(run.tag);
                let memory = memory.ok_or(DmaFaultReason::NotMapped)?;
                Ok(Translation { memory, at: run.output, left: run.length })
            }
            Err(FaultReason::Denied) => {
                let pinned = self.entry(&self.lock(), iova).is_some_and(|e| e.memory.is_some());
                Err(if pinned { DmaFaultReason::Permission } else { DmaFaultReason::NotMapped })
            }
            Err(FaultReason::Unmapped) => self.odd.translate(inside, iova, access, most),
        }
    }

    fn next(&self, from: u64) -> Option<Entry> {
        let odd = self.odd.next(from);
        // An area takes time in proportion to its leaves: not for one that is not wanted.
        let last = odd.as_ref().map_or(u64::MAX, |odd| odd.span.last());
        let even = {
            let mapper = self.lock();
            let nearer = mapper.first_mapped(Span::from_ends(from, last)?);
            nearer.and_then(|_| self.entry(&mapper, from))
        };
        match (even, odd) {
            (Some(even), Some(odd)) if odd.span.start() < even.span.start() => Some(odd),
            (even, odd) => even.or(odd),
        }
    }

    fn meeting(&self, span: Span) -> Option<Span> {
        let odd = self.odd.meeting(span);
        let mapper = self.lock();
        let even = mapper.first_mapped(span).and_then(|iova| mapper.area_at(iova));
        let even = even.map(|area| area.span);
        even.into_iter().chain(odd).min_by_key(|met| met.start())
    }

    fn first_hole(&self, span: Span) -> Option<u64> {
        let mut from = span.start();
        loop {
            let rest = Span::from_ends(from, span.last())?;
            let hole = self.first_hole_in_leaves(rest)?;
            match self.odd.covering(hole) {
                None => return Some(hole),
                Some(odd) => from = odd.last().checked_add(1)?,
            }
        }
    }

    fn first_fit(&self, within: Span, fit: &Fit) -> Option<Span> {
        self.odd.gaps(within).into_iter().find_map(|gap| self.first_fit_in_leaves(gap, fit))
    }

    fn pinned_bytes(&self) -> u128 {
        let mapper = self.lock();
        let backings = self.backings.lock();
        let pages = backings.pinned().map(|tag| mapper.tag_use(tag).pages);
        let leaves = pages.map(|pages| u128::from(pages) << PAGE_LG2).sum::<u128>();
        drop((backings, mapper));
        leaves + self.odd.pinned_bytes()
    }

    fn reclaim(&self, mut left: Left) {
        if left.tables.is_some() {
            let mut mapper = self.lock();
            left = self.put_back(&mut mapper, left);
        }
        drop(left);
    }
}

impl PagedMap {
    /// Frees tables and tags that no reader can meet any more, and returns the rest.
    fn put_back(&self, mapper: &mut Mapper, mut left: Left) -> Left {
        left.tables.take().into_iter().for_each(|tables| mapper.reclaim(tables));
        let mut backings = self.backings.lock();
        left.tags.drain(..).for_each(|tag| backings.free(tag));
        left
    }

    fn first_hole_in_leaves(&self, span: Span) -> Option<u64> {
        let mut mapper = self.lock();
        let above = self.table.aperture().last() + 1;
        mapper.first_hole(span).or_else(|| (span.last() >= above).then(|| above.max(span.start())))
    }

    /// As [`IovaMap::first_fit`], where no odd area is in `gap`.
    fn first_fit_in_leaves(&self, gap: Span, fit: &Fit) -> Option<Span> {
        let mut mapper = self.lock();
        if let Some(found) = fit.in_pages().and_then(|fit| mapper.first_fit(gap, fit)) {
            return Some(found);
        }
        let aperture = self.table.aperture();
        if gap.last() <= aperture.last() {
            return None;
        }
        // Only the last hole reaches beyond the aperture.
        let mut start = gap.start();
        while let Some(area) = mapper.next_area(start) {
            start = area.span.last() + 1;
        }
        fit.lowest_in(Span::from_ends(start, gap.last())?)
    }
}

const fn permission(rights: Rights) -> Permission {
    match (rights.read, rights.write) {
        (true, true) => Permission::READ_WRITE,
        (true, false) => Permission::READ,
        (false, true) => Permission::WRITE,
        (false, false) => Permission::NONE,
    }
}

/// The bytes from `iova` on that follow one another in memory, as leaves tell: `most` or a few more.
fn run_from(
    walk: &Walk<'_>,
    iova: u64,
    access: DmaAccess,
    most: u64,
) -> Result<Piece, FaultReason> {
    let access = match access {
        DmaAccess::Read => Permission::READ,
        DmaAccess::Write => Permission::WRITE,
    };
    let mut run = walk.translate(iova, access).map_err(|fault| fault.reason)?;
    while run.length < most {
        let Some(next) = iova.checked_add(run.length) else { break };
        let Ok(more) = walk.translate(next, access) else { break };
        if more.tag != run.tag || more.output != run.output + run.length {
            break;
        }
        run.length += more.length;
    }
    Ok(run)
}

#[cfg(test)]
mod against_flat;
