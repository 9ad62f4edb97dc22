//! The contenders behind one trait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bindery_pagetable::{Mapper, PageTable, Permission, Reader, Shape, Target};
use mem::SparseWords;
use nodit::NoditMap;
use nodit::interval::{Interval, ii};
use rangemap::RangeMap;
use span::Span;
use vm_memory::GuestAddress;
use vm_memory::iommu::Iotlb;

pub(crate) const PAGE: u64 = 4096;

/// A map from I/O virtual addresses that checks permissions.
pub(crate) trait Peer {
    const NAME: &'static str;

    fn new() -> Self;

    fn map(&mut self, iova: u64, length: u64, output: u64);

    /// Takes out exactly what was mapped.
    fn unmap(&mut self, iova: u64, length: u64);

    /// Takes out everything; returns the bytes.
    fn unmap_all(&mut self) -> u64;

    /// Translates for reading, piece by piece; returns the output of the first byte plus the bytes
    /// covered, `None` for a miss.
    fn translate(&mut self, iova: u64, length: u64) -> Option<u64>;

    /// Waits until what was unmapped is no longer in use.
    fn settle(&mut self) {}
}

/// The page table, with areas, permissions, and one announced walk for each translation.
pub(crate) struct Ours {
    pub(crate) table: Arc<PageTable>,
    pub(crate) mapper: Mapper,
    reader: Reader,
}

impl Peer for Ours {
    const NAME: &'static str = "bindery";

    fn new() -> Self {
        let (table, mapper) = PageTable::new(Shape::default()).expect("addresses");
        Self { reader: table.reader(), table, mapper }
    }

    fn map(&mut self, iova: u64, length: u64, output: u64) {
        let target = Target { output, permission: Permission::READ_WRITE, tag: 0 };
        let span = Span::new(iova, length).expect("a span");
        self.mapper.insert(span, target).expect("free");
    }

    fn unmap(&mut self, iova: u64, length: u64) {
        let removed = self.mapper.remove(Span::new(iova, length).expect("a span"));
        assert_eq!(removed.map(|removed| removed.bytes), Ok(length));
    }

    fn unmap_all(&mut self) -> u64 {
        self.mapper.remove_all().bytes
    }

    #[inline]
    fn translate(&mut self, iova: u64, length: u64) -> Option<u64> {
        translate(&mut self.reader, iova, length)
    }

    fn settle(&mut self) {
        self.mapper.wait_for_readers();
    }
}

#[inline]
pub(crate) fn translate(reader: &mut Reader, iova: u64, length: u64) -> Option<u64> {
    let walk = reader.walk();
    let mut first = None;
    let mut bytes = 0;
    let span = Span::new(iova, length)?;
    let each = |piece: bindery_pagetable::Piece| {
        first.get_or_insert(piece.output);
        bytes += piece.length;
    };
    walk.for_each_piece(span, Permission::READ, each).ok()?;
    first.map(|first| first + bytes)
}

/// One word a page in one linear array that the processor's own page tables make sparse: what a
/// look-up costs at least. It keeps no areas and no permissions.
pub(crate) struct Flat(SparseWords);

impl Peer for Flat {
    const NAME: &'static str = "flat floor";

    fn new() -> Self {
        Self(SparseWords::new(1 << 36).expect("addresses"))
    }

    fn map(&mut self, iova: u64, length: u64, output: u64) {
        for page in 0..length / PAGE {
            let word = self.0.get(iova / PAGE + page).expect("in the aperture");
            word.store((output + page * PAGE) | 1, Relaxed);
        }
    }

    fn unmap(&mut self, iova: u64, length: u64) {
        for page in 0..length / PAGE {
            self.0.get(iova / PAGE + page).expect("in the aperture").store(0, Relaxed);
        }
    }

    fn unmap_all(&mut self) -> u64 {
        self.0.discard(0..self.0.length());
        0
    }

    #[inline]
    fn translate(&mut self, iova: u64, length: u64) -> Option<u64> {
        let mut first = None;
        for page in iova / PAGE..=(iova + length - 1) / PAGE {
            let word = self.0.get(page)?.load(Relaxed);
            if word & 1 == 0 {
                return None;
            }
            first.get_or_insert((word & !(PAGE - 1)) + iova % PAGE);
        }
        first.map(|first| first + length)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapped {
    last: u64,
    output: u64,
    writable: bool,
}

/// The shape of crosvm's and of older Cloud Hypervisor's virtio-iommu.
pub(crate) struct Tree(BTreeMap<u64, Mapped>);

impl Peer for Tree {
    const NAME: &'static str = "BTreeMap";

    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn map(&mut self, iova: u64, length: u64, output: u64) {
        let last = iova + length - 1;
        let before = self.0.range(..=last).next_back();
        assert!(before.is_none_or(|(_, mapped)| mapped.last < iova), "free");
        self.0.insert(iova, Mapped { last, output, writable: true });
    }

    fn unmap(&mut self, iova: u64, length: u64) {
        let removed = self.0.remove(&iova);
        assert!(removed.is_some_and(|mapped| mapped.last == iova + length - 1));
    }

    fn unmap_all(&mut self) -> u64 {
        let all = std::mem::take(&mut self.0);
        all.into_iter().map(|(start, mapped)| mapped.last - start + 1).sum()
    }

    fn translate(&mut self, iova: u64, length: u64) -> Option<u64> {
        translate_tree(&self.0, iova, length)
    }
}

pub(crate) fn translate_tree(tree: &BTreeMap<u64, Mapped>, iova: u64, length: u64) -> Option<u64> {
    let (mut at, last) = (iova, iova + length - 1);
    let mut first = None;
    loop {
        let (start, mapped) = tree.range(..=at).next_back()?;
        if mapped.last < at || !mapped.writable {
            return None;
        }
        first.get_or_insert(mapped.output + (at - start));
        if mapped.last >= last {
            return first.map(|first| first + length);
        }
        at = mapped.last + 1;
    }
}

impl Tree {
    pub(crate) const fn inner(&self) -> &BTreeMap<u64, Mapped> {
        &self.0
    }
}

/// The `rangemap` crate.
pub(crate) struct Ranges(RangeMap<u64, Shift>);

/// What to add to an address, so that equal values mean one mapping, as vm-memory has it.
#[derive(Clone, PartialEq, Eq)]
struct Shift {
    by: u64,
    writable: bool,
}

impl Peer for Ranges {
    const NAME: &'static str = "rangemap";

    fn new() -> Self {
        Self(RangeMap::new())
    }

    fn map(&mut self, iova: u64, length: u64, output: u64) {
        let shift = Shift { by: output.wrapping_sub(iova), writable: true };
        self.0.insert(iova..iova + length, shift);
    }

    fn unmap(&mut self, iova: u64, length: u64) {
        self.0.remove(iova..iova + length);
    }

    fn unmap_all(&mut self) -> u64 {
        let bytes = self.0.iter().map(|(range, _)| range.end - range.start).sum();
        self.0.clear();
        bytes
    }

    fn translate(&mut self, iova: u64, length: u64) -> Option<u64> {
        let (mut at, last) = (iova, iova + length - 1);
        let mut first = None;
        loop {
            let (range, shift) = self.0.get_key_value(&at)?;
            if !shift.writable {
                return None;
            }
            first.get_or_insert(at.wrapping_add(shift.by));
            if range.end > last {
                return first.map(|first| first + length);
            }
            at = range.end;
        }
    }
}

/// The `nodit` crate.
pub(crate) struct Nodit(NoditMap<u64, Interval<u64>, u64>);

impl Peer for Nodit {
    const NAME: &'static str = "nodit";

    fn new() -> Self {
        Self(NoditMap::new())
    }

    fn map(&mut self, iova: u64, length: u64, output: u64) {
        assert!(self.0.insert_strict(ii(iova, iova + length - 1), output).is_ok(), "free");
    }

    fn unmap(&mut self, iova: u64, length: u64) {
        let removed = self.0.remove_overlapping(&ii(iova, iova + length - 1)).count();
        assert_eq!(removed, 1);
    }

    fn unmap_all(&mut self) -> u64 {
        let bytes = self.0.iter().map(|(span, _)| span.end() - span.start() + 1).sum();
        self.0 = NoditMap::new();
        bytes
    }

    fn translate(&mut self, iova: u64, length: u64) -> Option<u64> {
        let (mut at, last) = (iova, iova + length - 1);
        let mut first = None;
        for (span, output) in self.0.overlapping(&ii(iova, last)) {
            if *span.start() > at {
                return None;
            }
            first.get_or_insert(output + (at - span.start()));
            at = span.end() + 1;
        }
        first.filter(|_| at > last).map(|first| first + length)
    }
}

/// vm-memory's IOTLB.
pub(crate) struct VmMemory(Iotlb);

impl Peer for VmMemory {
    const NAME: &'static str = "vm-memory";

    fn new() -> Self {
        Self(Iotlb::new())
    }

    fn map(&mut self, iova: u64, length: u64, output: u64) {
        let permission = vm_memory::Permissions::ReadWrite;
        let length = length as usize;
        let mapped =
            self.0.set_mapping(GuestAddress(iova), GuestAddress(output), length, permission);
        assert!(mapped.is_ok());
    }

    fn unmap(&mut self, iova: u64, length: u64) {
        self.0.invalidate_mapping(GuestAddress(iova), length as usize);
    }

    fn unmap_all(&mut self) -> u64 {
        self.0.invalidate_all();
        0
    }

    fn translate(&mut self, iova: u64, length: u64) -> Option<u64> {
        translate_iotlb(&self.0, iova, length)
    }
}

impl VmMemory {
    pub(crate) const fn inner(&self) -> &Iotlb {
        &self.0
    }
}

pub(crate) fn translate_iotlb(iotlb: &Iotlb, iova: u64, length: u64) -> Option<u64> {
    let access = vm_memory::Permissions::Read;
    let found = Iotlb::lookup(iotlb, GuestAddress(iova), length as usize, access).ok()?;
    let mut first = None;
    let mut bytes = 0;
    for piece in found {
        first.get_or_insert(piece.base.0);
        bytes += piece.length as u64;
    }
    first.map(|first| first + bytes)
}
