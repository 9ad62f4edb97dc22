//! Readers and writers at once: no walk that begins after an unmapping was waited for sees it.
//!
//! Each page has a word that says which mapping of it is the current one, or that none is. A writer
//! changes it before it tells the table of a new mapping, and after it has waited for the readers of
//! an old one. So whatever a walk finds must be what the word said at some moment during the walk.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use bindery_pagetable::{PageTable, Permission, Reader, Shape, Target};
use span::Span;

const PAGE: u64 = 1 << 12;
const PAGES: usize = 4096;
/// Kept at a distance, so that tables come and go.
const STRIDE: u64 = 97;

/// What readers may find at each slot: the newest generation mapped, and the newest one of which the
/// unmapping is complete.
struct Slots {
    mapped: Vec<AtomicU64>,
    gone: Vec<AtomicU64>,
}

impl Slots {
    fn new() -> Self {
        let zeros = || (0..PAGES).map(|_| AtomicU64::new(0)).collect();
        Self { mapped: zeros(), gone: zeros() }
    }
}

fn span_of(slot: usize) -> Span {
    Span::new(slot as u64 * STRIDE * PAGE, pages_of(slot) * PAGE).unwrap()
}

/// Areas of different sizes, some across tables.
fn pages_of(slot: usize) -> u64 {
    1 + (slot as u64 * 7) % STRIDE
}

fn next(random: &mut u64) -> usize {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*random >> 33).unwrap()
}

#[test]
fn what_is_unmapped_is_not_found() {
    let operations: u64 = std::env::var("OPERATIONS").map_or(300_000, |text| text.parse().unwrap());
    let (table, mapper) =
        PageTable::new(Shape { tables_max: 1 << 12, ..Shape::default() }).unwrap();
    let mapper = Mutex::new(mapper);
    let slots = Slots::new();
    let stop = AtomicBool::new(false);
    let found = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..=2)
            .map(|seed| {
                let (slots, stop, found, reader) = (&slots, &stop, &found, table.reader());
                scope.spawn(move || read_until(stop, reader, slots, found, seed))
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (mapper, slots) = (&mapper, &slots);
                scope.spawn(move || write(mapper, slots, writer, operations / 2))
            })
            .collect();
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, SeqCst);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert!(found.load(SeqCst) > operations / 100, "readers hardly met a mapping");
    let removed = mapper.lock().unwrap().remove_all();
    let left: u64 =
        (0..PAGES).filter(|slot| is_mapped(&slots, *slot)).map(|slot| pages_of(slot) * PAGE).sum();
    assert_eq!(removed.bytes, left);
}

fn is_mapped(slots: &Slots, slot: usize) -> bool {
    slots.mapped[slot].load(SeqCst) != slots.gone[slot].load(SeqCst)
}

/// Maps and unmaps the slots of one writer, several unmappings to one wait.
fn write(mapper: &Mutex<bindery_pagetable::Mapper>, slots: &Slots, writer: usize, operations: u64) {
    let mut random = 77 + writer as u64;
    let mut leaving = Vec::new();
    let started = Instant::now();
    for operation in 0..operations {
        let slot = next(&mut random) % (PAGES / 2) * 2 + writer;
        if leaving.contains(&slot) {
            continue;
        }
        let generation = slots.mapped[slot].load(SeqCst);
        let mut mapper = mapper.lock().unwrap();
        if is_mapped(slots, slot) {
            mapper.remove(span_of(slot)).unwrap();
            leaving.push(slot);
        } else {
            slots.mapped[slot].store(generation + 1, SeqCst);
            mapper.insert(span_of(slot), target(slot, generation + 1)).unwrap();
        }
        if leaving.len() > 20 || operation + 1 == operations {
            mapper.wait_for_readers();
            for slot in leaving.drain(..) {
                slots.gone[slot].store(slots.mapped[slot].load(SeqCst), SeqCst);
            }
        }
    }
    assert!(started.elapsed().as_secs() < 300, "unmapping starves");
}

/// The output tells slot and generation, so that a reader knows which mapping it met.
fn target(slot: usize, generation: u64) -> Target {
    let output = (slot as u64) << 38 | (generation % (1 << 18)) << 20;
    let tag = u16::try_from(generation % 4096).unwrap();
    Target { output, permission: Permission::READ, tag }
}

fn read_until(stop: &AtomicBool, mut reader: Reader, slots: &Slots, found: &AtomicU64, seed: u64) {
    let mut random = seed;
    let mut met = 0;
    while !stop.load(SeqCst) {
        let slot = next(&mut random) % PAGES;
        let span = span_of(slot);
        let page = next(&mut random) as u64 % pages_of(slot);
        let walk = reader.walk();
        let gone = slots.gone[slot].load(SeqCst);
        let Ok(piece) = walk.translate(span.start() + page * PAGE, Permission::READ) else {
            continue;
        };
        let mapped = slots.mapped[slot].load(SeqCst);
        // All of these may have been current while the walk went on.
        let possible = (gone + 1..=mapped).any(|generation| {
            let target = target(slot, generation);
            piece.output == target.output + page * PAGE && piece.tag == target.tag
        });
        assert!(possible, "slot {slot}: {piece:x?} after {gone} was gone, {mapped} mapped");
        met += 1;
    }
    found.fetch_add(met, SeqCst);
}
