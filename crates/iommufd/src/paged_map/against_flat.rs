//! The map over a page table against the plain one, operation by operation, and with readers beside writers.
//!
//! `OPERATIONS` says how many; by default few enough for a debug build.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::*;
use crate::in_flight::{InFlight, Visitors};
use crate::{MemoryGone, PinAccess, PinFault, Source};

/// Memory of a number. Reading tells it, and that it was let go of.
struct Memory {
    number: u64,
    gone: AtomicBool,
}

impl Memory {
    fn new(number: u64) -> Arc<Self> {
        Arc::new(Self { number, gone: AtomicBool::new(false) })
    }
}

impl Source for Memory {
    fn pin(&self, _: u64, _: u64, _: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        Err(PinFault::Unmapped)
    }
}

impl Pinned for Memory {
    fn read(&self, _: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        assert!(!self.gone.load(SeqCst), "memory {} was let go of", self.number);
        into.copy_from_slice(&self.number.to_ne_bytes()[..into.len()]);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryGone> {
        Err(MemoryGone)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Near each other, and near where something ends: a table, the tree, all addresses.
    fn page(&mut self) -> u64 {
        const BASES: [u64; 5] = [0, 500, (1 << 18) - 20, (1 << 36) - 24, (1 << 52) - 48];
        let index = usize::try_from(self.below(BASES.len() as u64)).unwrap();
        BASES[index] + self.below(48)
    }

    fn address(&mut self) -> u64 {
        let odd = if self.one_in(4) { self.below(PAGE_SIZE) } else { 0 };
        self.page() * PAGE_SIZE + odd
    }

    fn span(&mut self) -> Span {
        let pages = match self.below(12) {
            0 => 512 + self.below(600),
            1 => 512,
            2 => 1 << 18,
            _ => 1 + self.below(12),
        };
        let odd = if self.one_in(6) { self.below(PAGE_SIZE) } else { 0 };
        let start = self.address();
        let length = pages * PAGE_SIZE - odd;
        Span::new(start, length).or_else(|| Span::from_ends(start, u64::MAX)).unwrap()
    }
}

struct Pair {
    paged: PagedMap,
    flat: FlatMap,
    in_flight: InFlight,
    visitors: Visitors,
    sources: Vec<Arc<dyn Source>>,
    memories: Vec<Arc<dyn Pinned>>,
    random: Random,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let readers = Readers::new();
        Self {
            paged: PagedMap::new(&readers).unwrap(),
            flat: FlatMap::new(),
            in_flight: InFlight::Announced(readers),
            visitors: Visitors::default(),
            sources: (0..3).map(|number| Memory::new(number) as Arc<dyn Source>).collect(),
            memories: (0..3).map(|number| Memory::new(number) as Arc<dyn Pinned>).collect(),
            random: Random(seed),
        }
    }

    fn step(&mut self) {
        match self.random.below(64) {
            0..20 => self.insert(),
            20..28 => self.remove(),
            28 => self.empty_all(),
            29..33 => self.fill(),
            33..36 => self.cut(),
            36..48 => self.translate(),
            48..52 => self.look(),
            _ => self.first_fit(),
        }
        if self.random.one_in(64) {
            assert_eq!(self.paged.pinned_bytes(), self.flat.pinned_bytes());
        }
        if self.random.one_in(2000) {
            self.reclaim_all(Span::WHOLE);
        }
    }

    fn memory(&mut self) -> Arc<dyn Pinned> {
        let index = usize::try_from(self.random.below(3)).unwrap();
        Arc::clone(&self.memories[index])
    }

    fn insert(&mut self) {
        let span = self.random.span();
        if self.flat.meeting(span).is_some() || span.checked_length().is_none() {
            return;
        }
        let index = usize::try_from(self.random.below(3)).unwrap();
        let odd = if self.random.one_in(8) { self.random.below(PAGE_SIZE) } else { 0 };
        let rights = Rights { read: !self.random.one_in(4), write: !self.random.one_in(4) };
        let area = Area {
            source: Arc::clone(&self.sources[index]),
            at: self.random.page() % (1 << 30) * PAGE_SIZE + odd,
            length: span.length(),
            rights,
            writable: rights.write || self.random.one_in(2),
        };
        let memory = if self.random.one_in(3) { None } else { Some(self.memory()) };
        self.paged.insert(span, &area, memory.clone());
        self.flat.insert(span, &area, memory);
    }

    fn remove(&mut self) {
        let asked = match self.flat.meeting(self.random.span()) {
            Some(met) if !self.random.one_in(3) => met,
            _ => self.random.span(),
        };
        self.reclaim_all(asked);
    }

    fn reclaim_all(&self, asked: Span) {
        let (paged, flat) = (self.paged.remove(asked), self.flat.remove(asked));
        let told = |removed: &Removed| (removed.areas, removed.bytes, removed.sticks_out);
        assert_eq!(told(&paged), told(&flat), "{asked}");
        assert!(paged.left.reachable || !flat.left.reachable, "{asked} was reachable");
        self.paged.reclaim(paged.left);
    }

    fn empty_all(&self) {
        let left = self.paged.empty_all();
        assert_eq!(left.reachable, self.flat.empty_all().reachable);
        self.paged.reclaim(left);
    }

    fn fill(&mut self) {
        let span = self.flat.meeting(self.random.span()).unwrap_or(Span::WHOLE);
        let memory = self.memory();
        let untaken = self.paged.fill(span, Arc::clone(&memory)).is_some();
        assert_eq!(untaken, self.flat.fill(span, memory).is_some(), "{span}");
    }

    fn cut(&mut self) {
        let at = self.random.address();
        let Some(entry) = self.flat.next(at).filter(|entry| entry.span.contains(at)) else {
            return;
        };
        if entry.span.last() == at {
            return;
        }
        let paged = self.paged.next(at).unwrap();
        let left = self.paged.cut(&paged, at);
        self.paged.reclaim(left);
        self.flat.reclaim(self.flat.cut(&entry, at));
    }

    fn translate(&mut self) {
        let (iova, most) = (self.random.address(), 1 + self.random.below(1 << 16));
        let access = if self.random.one_in(2) { DmaAccess::Read } else { DmaAccess::Write };
        let stay = self.in_flight.enter(&self.visitors);
        let paged = self.paged.translate(&stay, iova, access, most);
        let flat = self.flat.translate(&stay, iova, access, most);
        match (paged, flat) {
            (Ok(paged), Ok(flat)) => {
                assert!(Arc::ptr_eq(&paged.memory, &flat.memory), "{iova:#x}");
                assert_eq!(paged.at, flat.at, "{iova:#x}");
                assert!(paged.left >= most.min(flat.left), "{iova:#x}: {:#x}", paged.left);
            }
            (paged, flat) => assert_eq!(paged.err(), flat.err(), "{iova:#x} {access:?}"),
        }
    }

    fn look(&mut self) {
        let from = self.random.address();
        let told = |entry: Entry| {
            let memory = entry.memory.map(|memory| Arc::as_ptr(&memory).addr());
            let Area { source, at, length, rights, writable } = entry.area;
            (entry.span, memory, Arc::as_ptr(&source).addr(), at, length, rights, writable)
        };
        assert_eq!(self.paged.next(from).map(told), self.flat.next(from).map(told), "{from:#x}");
        let span = self.random.span();
        assert_eq!(self.paged.meeting(span), self.flat.meeting(span), "{span}");
        assert_eq!(self.paged.first_hole(span), self.flat.first_hole(span), "{span}");
    }

    fn first_fit(&mut self) {
        let (at, least) =
            (self.random.address(), if self.random.one_in(3) { 1 } else { PAGE_SIZE });
        let length = match self.random.below(8) {
            0 => 1 + self.random.below(1 << 40),
            1 => 1 << (self.random.below(20) + 40),
            _ => self.random.span().length(),
        };
        let Ok(fit) = Fit::of(at, length, least) else { return };
        let ends = (self.random.address(), self.random.address());
        let within = Span::from_ends(ends.0.min(ends.1), ends.0.max(ends.1)).unwrap();
        assert_eq!(
            self.paged.first_fit(within, &fit),
            self.flat.first_fit(within, &fit),
            "{fit:?} in {within}"
        );
    }
}

fn operations(least: u64) -> u64 {
    std::env::var("OPERATIONS").map_or(least, |text| text.parse().unwrap())
}

#[test]
fn answers_are_those_of_the_plain_map() {
    let total = operations(60_000);
    for seed in 0..10 {
        let mut pair = Pair::new(seed);
        (0..total / 10).for_each(|_| pair.step());
    }
}

#[test]
fn more_backings_than_tags_are_areas_like_any_other() {
    let mut pair = Pair::new(7);
    for number in 0..5000 {
        pair.sources = vec![Memory::new(number) as Arc<dyn Source>; 3];
        pair.memories = vec![Memory::new(number) as Arc<dyn Pinned>; 3];
        let span = Span::new((1 << 30) + number * 2 * PAGE_SIZE, PAGE_SIZE).unwrap();
        let rights = Rights { read: true, write: true };
        let area = Area {
            source: Arc::clone(&pair.sources[0]),
            at: 0,
            length: PAGE_SIZE,
            rights,
            writable: true,
        };
        let memory = Some(Arc::clone(&pair.memories[0])).filter(|_| number % 2 == 0);
        pair.paged.insert(span, &area, memory.clone());
        pair.flat.insert(span, &area, memory);
        if number % 2 == 1 {
            let memory = Arc::clone(&pair.memories[0]);
            assert!(pair.paged.fill(span, Arc::clone(&memory)).is_none());
            assert!(pair.flat.fill(span, memory).is_none());
        }
    }
    assert_eq!(pair.paged.pinned_bytes(), 5000 * u128::from(PAGE_SIZE));
    (0..3000).for_each(|_| pair.step());
    pair.reclaim_all(Span::WHOLE);
    assert_eq!(pair.paged.pinned_bytes(), 0);
}

/// Each mapping has memory of its own, closed when its unmapping has returned; so tags come and go too.
#[test]
fn no_reader_meets_memory_that_was_let_go_of() {
    let total = operations(40_000);
    let readers = Readers::new();
    let paged = PagedMap::new(&readers).unwrap();
    let in_flight = InFlight::Announced(readers);
    let (stop, met) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (paged, in_flight, stop, met) = (&paged, &in_flight, &stop, &met);
            scope.spawn(move || {
                let (visitors, mut random) = (Visitors::default(), Random(seed));
                while !stop.load(SeqCst) {
                    let slot = random.below(SLOTS);
                    let stay = in_flight.enter(&visitors);
                    let found = paged.translate(&stay, slot_span(slot).start(), DmaAccess::Read, 1);
                    let Ok(found) = found else { continue };
                    let mut number = [0; 8];
                    found.memory.read(found.at, &mut number).unwrap();
                    assert_eq!(u64::from_ne_bytes(number) % SLOTS, slot, "another's memory");
                    met.fetch_add(1, SeqCst);
                }
            });
        }
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (paged, in_flight) = (&paged, &in_flight);
                scope.spawn(move || write(paged, in_flight, writer, total / 2))
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, SeqCst);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert!(met.load(SeqCst) > total / 1000, "readers hardly met a mapping");
}

const SLOTS: u64 = 64;

/// Some slots are areas that no page table holds.
fn slot_span(slot: u64) -> Span {
    let odd = if slot.is_multiple_of(8) { 16 } else { 0 };
    Span::new(slot * 700 * PAGE_SIZE + odd, PAGE_SIZE * (1 + slot % 3)).unwrap()
}

fn write(paged: &PagedMap, in_flight: &InFlight, writer: u64, operations: u64) {
    let mut random = Random(99 + writer);
    let mut mapped: Vec<Option<Arc<Memory>>> = vec![None; usize::try_from(SLOTS).unwrap()];
    for generation in 1..=operations {
        let slot = random.below(SLOTS / 2) * 2 + writer;
        let span = slot_span(slot);
        match mapped[usize::try_from(slot).unwrap()].take() {
            Some(memory) => {
                let removed = paged.remove(span);
                assert_eq!(removed.areas, 1);
                if removed.left.reachable {
                    in_flight.outwait();
                }
                paged.reclaim(removed.left);
                memory.gone.store(true, SeqCst);
            }
            None => {
                let memory = Memory::new(generation * SLOTS + slot);
                let source = Memory::new(0) as Arc<dyn Source>;
                let rights = Rights { read: true, write: true };
                let area = Area { source, at: 0, length: span.length(), rights, writable: true };
                paged.insert(span, &area, Some(Arc::clone(&memory) as Arc<dyn Pinned>));
                mapped[usize::try_from(slot).unwrap()] = Some(memory);
            }
        }
    }
}
