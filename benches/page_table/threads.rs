//! Readers and writers at once. Wall clock, so a busy machine shows.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use vm_memory::iommu::Iotlb;

use crate::maps::{Scale, output_of};
use crate::measure::{Random, Samples, quantile};
use crate::peers::{
    Mapped, Ours, PAGE, Peer, Tree, VmMemory, translate, translate_iotlb, translate_tree,
};

const WINDOW: Duration = Duration::from_millis(250);

/// A map that several threads translate through while one changes it.
trait Shared: Sync {
    const NAME: &'static str;

    /// Translates pages until `stop`; returns how many.
    fn read(&self, pages: u64, seed: u64, stop: &AtomicBool) -> u64;

    /// Unmaps a page, waits until nobody uses it, and maps it again.
    fn change(&self, page: u64);
}

struct LockFree {
    ours: Mutex<Ours>,
    table: std::sync::Arc<bindery_pagetable::PageTable>,
}

impl Shared for LockFree {
    const NAME: &'static str = "bindery";

    fn read(&self, pages: u64, seed: u64, stop: &AtomicBool) -> u64 {
        let mut reader = self.table.reader();
        count(pages, seed, stop, |iova| translate(&mut reader, iova, 64))
    }

    fn change(&self, page: u64) {
        let mut ours = self.ours.lock().expect("not poisoned");
        ours.unmap(page * PAGE, PAGE);
        ours.settle();
        ours.map(page * PAGE, PAGE, output_of(page));
    }
}

/// Our own table behind a lock, as a map that is no better would be.
struct LockedOurs(RwLock<(Ours, Mutex<()>)>, std::sync::Arc<bindery_pagetable::PageTable>);

impl Shared for LockedOurs {
    const NAME: &'static str = "RwLock<bindery>";

    fn read(&self, pages: u64, seed: u64, stop: &AtomicBool) -> u64 {
        let mut reader = self.1.reader();
        count(pages, seed, stop, |iova| {
            let guard = self.0.read().expect("not poisoned");
            black_box(&guard);
            translate(&mut reader, iova, 64)
        })
    }

    fn change(&self, page: u64) {
        let mut guard = self.0.write().expect("not poisoned");
        guard.0.unmap(page * PAGE, PAGE);
        guard.0.map(page * PAGE, PAGE, output_of(page));
    }
}

struct LockedTree(RwLock<Tree>);

impl Shared for LockedTree {
    const NAME: &'static str = "RwLock<BTreeMap>";

    fn read(&self, pages: u64, seed: u64, stop: &AtomicBool) -> u64 {
        count(pages, seed, stop, |iova| {
            let guard = self.0.read().expect("not poisoned");
            let tree: &BTreeMap<u64, Mapped> = guard.inner();
            translate_tree(tree, iova, 64)
        })
    }

    fn change(&self, page: u64) {
        let mut guard = self.0.write().expect("not poisoned");
        guard.unmap(page * PAGE, PAGE);
        guard.map(page * PAGE, PAGE, output_of(page));
    }
}

struct LockedVmMemory(RwLock<VmMemory>);

impl Shared for LockedVmMemory {
    const NAME: &'static str = "RwLock<vm-memory>";

    fn read(&self, pages: u64, seed: u64, stop: &AtomicBool) -> u64 {
        count(pages, seed, stop, |iova| {
            let guard = self.0.read().expect("not poisoned");
            let iotlb: &Iotlb = guard.inner();
            translate_iotlb(iotlb, iova, 64)
        })
    }

    fn change(&self, page: u64) {
        let mut guard = self.0.write().expect("not poisoned");
        guard.unmap(page * PAGE, PAGE);
        guard.map(page * PAGE, PAGE, output_of(page));
    }
}

/// Random pages until told to stop. A page that is being changed may be missed; a wrong answer ends
/// the run.
fn count(
    pages: u64,
    seed: u64,
    stop: &AtomicBool,
    mut translate: impl FnMut(u64) -> Option<u64>,
) -> u64 {
    let mut random = Random(seed);
    let mut done = 0;
    while !stop.load(Relaxed) {
        for _ in 0..256 {
            let page = random.next() % pages;
            if let Some(found) = translate(page * PAGE) {
                assert_eq!(found, output_of(page) + 64, "page {page}");
            }
        }
        done += 256;
    }
    done
}

pub(crate) fn threads(scale: &Scale, samples: &mut Samples) {
    let ours: Ours = built(scale.small_maps);
    let locked: Ours = built(scale.small_maps);
    let ours = LockFree { table: ours.table.clone(), ours: Mutex::new(ours) };
    let table = locked.table.clone();
    let locked = LockedOurs(RwLock::new((locked, Mutex::new(()))), table);
    let tree = LockedTree(RwLock::new(built(scale.small_maps)));
    let vm_memory = LockedVmMemory(RwLock::new(built(scale.small_maps)));
    for _ in 0..scale.rounds {
        all_of(&ours, scale.small_maps, samples);
        all_of(&locked, scale.small_maps, samples);
        all_of(&tree, scale.small_maps, samples);
        all_of(&vm_memory, scale.small_maps, samples);
    }
}

fn built<P: Peer>(pages: u64) -> P {
    let mut peer = P::new();
    (0..pages).for_each(|page| peer.map(page * PAGE, PAGE, output_of(page)));
    peer
}

/// All figures are nanoseconds of wall clock for each translation of all threads together.
fn all_of<S: Shared>(shared: &S, pages: u64, samples: &mut Samples) {
    samples.add("1 reader", S::NAME, run(shared, pages, 1, None).0);
    samples.add("2 readers", S::NAME, run(shared, pages, 2, None).0);
    let pause = Some(Duration::from_micros(100));
    let (time, changes) = run(shared, pages, 2, pause);
    samples.add("2 readers, 10k unmaps/s", S::NAME, time);
    samples.add("p99 of an unmap beside 2 readers", S::NAME, quantile(&changes, 0.99));
    let (time, _) = run(shared, pages, 1, pause);
    samples.add("1 reader, 10k unmaps/s", S::NAME, time);
    let (time, changes) = run(shared, pages, 1, Some(Duration::ZERO));
    samples.add("1 reader, 1 writer", S::NAME, time);
    samples.add("that writer, a pair", S::NAME, WINDOW.as_nanos() as f64 / changes.len() as f64);
    samples.add("p99 of an unmap beside 1 reader", S::NAME, quantile(&changes, 0.99));
}

/// Nanoseconds a translation, and of each change.
fn run<S: Shared>(
    shared: &S,
    pages: u64,
    readers: u64,
    pause: Option<Duration>,
) -> (f64, Vec<f64>) {
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let mut changes = Vec::new();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for seed in 1..=readers {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || done.fetch_add(shared.read(pages, seed * 77, stop), Relaxed));
        }
        match pause {
            None => std::thread::sleep(WINDOW),
            Some(pause) => changes = change_until(shared, pages, started + WINDOW, pause),
        }
        stop.store(true, Relaxed);
    });
    let elapsed = started.elapsed().as_nanos() as f64;
    (elapsed / done.load(Relaxed) as f64, changes)
}

fn change_until<S: Shared>(shared: &S, pages: u64, end: Instant, pause: Duration) -> Vec<f64> {
    let mut random = Random(99);
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        if start >= end {
            return times;
        }
        shared.change(random.below(pages));
        times.push(start.elapsed().as_nanos() as f64);
        if !pause.is_zero() {
            std::thread::sleep(pause.saturating_sub(start.elapsed()));
        }
    }
}
