//! The dirty log of 64 GiB.

use std::num::NonZeroUsize;

use bindery_pagetable::{
    Clear, DirtyBits, DirtyLog, DirtyReader, PAGE_LG2, PageTable, Reader, Shape,
};
use span::Span;
use vm_memory::bitmap::AtomicBitmap;

use crate::maps::Scale;
use crate::measure::{Random, Samples, time_each};
use crate::peers::PAGE;

const BYTES: u64 = 64 << 30;
const PAGES: u64 = BYTES / PAGE;

trait Log {
    const NAME: &'static str;

    /// Marks writes of `length` bytes each.
    fn mark_all(&mut self, addresses: impl Iterator<Item = u64>, length: u64);

    /// Reads and clears everything; returns how many pages were dirty.
    fn read(&mut self) -> u64;
}

struct Ours {
    marker: Reader,
    table: std::sync::Arc<PageTable>,
    log: std::sync::Arc<DirtyLog>,
    reader: DirtyReader,
    words: Vec<u64>,
}

impl Ours {
    fn new() -> Self {
        let (table, _mapper) = PageTable::new(Shape::default()).expect("addresses");
        let (log, reader) = DirtyLog::new(48).expect("addresses");
        let words = vec![0; (PAGES / 64) as usize];
        Self { marker: table.reader(), table, log, reader, words }
    }
}

impl Log for Ours {
    const NAME: &'static str = "bindery";

    /// Sixteen to a walk, as a request with a few descriptors would.
    fn mark_all(&mut self, mut addresses: impl Iterator<Item = u64>, length: u64) {
        loop {
            let walk = self.marker.walk();
            for _ in 0..16 {
                let Some(address) = addresses.next() else { return };
                if let Some(span) = Span::new(address, length) {
                    self.log.mark(&walk, span);
                }
            }
        }
    }

    fn read(&mut self) -> u64 {
        let span = Span::new(0, BYTES).expect("a span");
        let mut bits = DirtyBits::new(span, PAGE_LG2, &mut self.words).expect("room");
        self.reader.read(span, Clear::Yes, self.table.readers(), |_| PAGE_LG2, &mut bits);
        0
    }
}

impl Ours {
    /// Counts what was read, outside of the time measured, and forgets it.
    fn count(&mut self) -> u64 {
        let dirty = self.words.iter().map(|word| u64::from(word.count_ones())).sum();
        self.words.fill(0);
        dirty
    }
}

impl Log for AtomicBitmap {
    const NAME: &'static str = "vm-memory";

    fn mark_all(&mut self, addresses: impl Iterator<Item = u64>, length: u64) {
        addresses.for_each(|address| self.set_addr_range(address as usize, length as usize));
    }

    fn read(&mut self) -> u64 {
        let words = self.get_and_reset();
        std::hint::black_box(words.as_ptr());
        words.len() as u64
    }
}

pub(crate) fn dirty(scale: &Scale, samples: &mut Samples) {
    let mut ours = Ours::new();
    let page = NonZeroUsize::new(PAGE as usize).expect("not zero");
    let mut theirs = AtomicBitmap::new(BYTES as usize, page);
    let mut random = Random(23);
    let scattered: Vec<u64> = (0..scale.queries).map(|_| random.below(PAGES) * PAGE).collect();
    for _ in 0..scale.rounds {
        marks(&mut ours, &scattered, samples);
        let distinct: std::collections::BTreeSet<&u64> = scattered.iter().collect();
        assert_eq!(ours.count(), distinct.len() as u64 + 15, "pages marked");
        marks(&mut theirs, &scattered, samples);
        reads(&mut ours, samples, |ours| {
            let count = ours.count();
            assert!(count % 64 == 0, "whole runs were marked, {count} read");
            count
        });
        reads(&mut theirs, samples, |_| 0);
    }
}

fn marks<L: Log>(log: &mut L, scattered: &[u64], samples: &mut Samples) {
    let count = scattered.len() as u64;
    let time = time_each(count, || log.mark_all(scattered.iter().copied(), 64));
    samples.add("mark 4K, scattered", L::NAME, time);
    let hot = scattered[0];
    let time = time_each(count, || {
        log.mark_all(scattered.iter().map(|address| hot + (address >> 30 & 0xfc0)), 64);
    });
    samples.add("mark 4K, hot", L::NAME, time);
    let run = hot & !0xffff;
    let time = time_each(count, || log.mark_all((0..count).map(|_| run), 64 << 10));
    samples.add("mark 64K, hot", L::NAME, time);
    log.read();
}

fn reads<L: Log>(log: &mut L, samples: &mut Samples, count: impl Fn(&mut L) -> u64) {
    log.mark_all(std::iter::once(0), BYTES);
    samples.add("read all dirty", L::NAME, time_each(1, || _ = log.read()));
    assert!([0, PAGES].contains(&count(log)), "all pages are dirty");
    // Twice, so that the memory of both sides is there.
    log.mark_all(std::iter::once(0), BYTES);
    samples.add("read all dirty again", L::NAME, time_each(1, || _ = log.read()));
    assert!([0, PAGES].contains(&count(log)), "all pages are dirty");
    let step = 100 * 64 * PAGE;
    log.mark_all((0..BYTES / step).map(|run| run * step), 64 * PAGE);
    samples.add("read 1 % in runs of 256K", L::NAME, time_each(1, || _ = log.read()));
    assert!([0, BYTES / step * 64].contains(&count(log)), "the runs are dirty");
    let time = time_each(20, || (0..20).for_each(|_| _ = log.read()));
    samples.add("read clean", L::NAME, time);
    assert_eq!(count(log), 0, "nothing is dirty");
}
