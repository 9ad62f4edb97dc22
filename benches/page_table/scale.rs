//! Automatic placement, memory, and what grows with the number of areas.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use bindery_pagetable::{Clear, DirtyBits, DirtyLog, Fit, PAGE_LG2};
use span::Span;

use crate::maps::{Scale, chase, output_of, pipelined};
use crate::measure::{Random, Samples, quantile, thread_time, time_each};
use crate::peers::{Flat, Ours, PAGE, Peer, Tree};

/// Places and maps a page, and unmaps it, in a full address space whose first hole is at the end;
/// then with holes that are too small or misaligned everywhere.
pub(crate) fn placement(scale: &Scale, samples: &mut Samples) {
    let pages = scale.small_maps;
    let mut ours: Ours = filled(1..pages);
    let mut starts: BTreeMap<u64, u64> = (1..pages).map(|page| (page * PAGE, PAGE)).collect();
    for _ in 0..scale.rounds {
        let (median, p99) = places(&mut ours, pages, PAGE);
        samples.add("automatic IOVA", "bindery", median);
        samples.add("automatic IOVA, p99", "bindery", p99);
        let time = time_each(3, || {
            for _ in 0..3 {
                assert_eq!(first_hole(&starts), pages * PAGE);
            }
        });
        samples.add("automatic IOVA", "BTreeMap walk", time);
    }
    // Every fourth pair of pages goes: holes of 8 KiB that are not aligned to 8 KiB.
    for page in (1..pages - 1).step_by(8) {
        ours.unmap(page * PAGE, PAGE);
        ours.unmap((page + 1) * PAGE, PAGE);
        starts.remove(&(page * PAGE));
    }
    for _ in 0..scale.rounds {
        let (median, p99) = places(&mut ours, pages.next_multiple_of(2), 2 * PAGE);
        samples.add("automatic IOVA, holes do not suit", "bindery", median);
        samples.add("automatic IOVA, holes do not suit, p99", "bindery", p99);
    }
}

/// Median and 99th percentile of choosing a place, mapping there, and unmapping.
fn places(ours: &mut Ours, expected_page: u64, length: u64) -> (f64, f64) {
    let within = Span::from_ends(PAGE, u64::MAX - PAGE).expect("a span");
    let fit = Fit::new(length, length, 0).expect("a fit");
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = std::time::Instant::now();
        let found = ours.mapper.first_fit(within, fit).expect("room");
        times.push(start.elapsed().as_nanos() as f64);
        assert_eq!(found.start(), expected_page * PAGE);
        ours.map(found.start(), length, PAGE);
        let next = ours.mapper.first_fit(within, fit).expect("room");
        assert_eq!(next.start(), expected_page * PAGE + length);
        ours.unmap(found.start(), length);
    }
    (quantile(&times, 0.5), quantile(&times, 0.99))
}

/// Linux's walk over areas, in a tree that is kinder to caches than its own.
fn first_hole(starts: &BTreeMap<u64, u64>) -> u64 {
    let mut free = PAGE;
    for (start, length) in starts {
        if *start > free {
            break;
        }
        free = start + length;
    }
    free
}

fn filled<P: Peer>(pages: std::ops::Range<u64>) -> P {
    let mut peer = P::new();
    pages.for_each(|page| peer.map(page * PAGE, PAGE, output_of(page)));
    peer
}

/// Memory, each in a process of its own.
pub(crate) fn memory(samples: &mut Samples) {
    for (workload, areas) in [("bytes an area, 1M", 1 << 20), ("bytes, empty", 0)] {
        for contender in ["bindery", "flat floor", "BTreeMap"] {
            if let Some(bytes) = ask(contender, areas) {
                let each = if areas == 0 { bytes } else { bytes / areas as f64 };
                samples.add(workload, contender, each);
            }
        }
    }
    samples.add("bytes, 50 sections", "bindery", ask("bindery", 50).unwrap_or(f64::NAN));
}

fn ask(contender: &str, areas: u64) -> Option<f64> {
    let own = std::env::current_exe().ok()?;
    let output =
        Command::new(own).args(["--memory", contender, &areas.to_string()]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// What `--memory` prints: bytes that the map has taken, the kernel's page tables for it included.
pub(crate) fn memory_of(contender: &str, areas: u64) -> u64 {
    match contender {
        "bindery" => taken::<Ours>(areas),
        "flat floor" => taken::<Flat>(areas),
        _ => taken::<Tree>(areas),
    }
}

fn taken<P: Peer>(areas: u64) -> u64 {
    // The first use of most things costs a page or two; not the map's.
    drop(filled::<P>(0..1));
    let before = resident();
    let peer: P = match areas {
        50 => crate::maps::machine_memory(),
        _ => filled(0..areas),
    };
    let after = resident();
    drop(peer);
    after.saturating_sub(before)
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    (field("RssAnon:").unwrap_or(0) + field("VmPTE:").unwrap_or(0)) << 10
}

/// Medians of each operation with a thousand areas and with 16.7 million.
pub(crate) fn growth(scale: &Scale, samples: &mut Samples) {
    for (areas, workloads) in [(1 << 10, SMALL), (scale.whole_bytes / PAGE, LARGE)] {
        let mut ours: Ours = filled(1..areas);
        for _ in 0..scale.rounds {
            operations(&mut ours, areas, workloads, samples);
            chase(areas * 8, workloads[5], samples);
        }
    }
}

const SMALL: [&str; 6] =
    ["1k: translate", "1k: unmap", "1k: map", "1k: place", "1k: clean read", "1k: chase"];
const LARGE: [&str; 6] = [
    "16.7M: translate",
    "16.7M: unmap",
    "16.7M: map",
    "16.7M: place",
    "16.7M: clean read",
    "16.7M: chase",
];

fn operations(ours: &mut Ours, areas: u64, workloads: [&'static str; 6], samples: &mut Samples) {
    let mut random = Random(41);
    let queries: Vec<(u64, u64)> =
        (0..50_000).map(|_| ((1 + random.below(areas - 1)) * PAGE, 64)).collect();
    samples.add(workloads[0], "bindery", pipelined(ours, &queries));
    let within = Span::from_ends(PAGE, u64::MAX - PAGE).expect("a span");
    let fit = Fit::new(PAGE, PAGE, 0).expect("a fit");
    ours.mapper.first_fit(within, fit);
    let mut times: [Vec<f64>; 3] = Default::default();
    for (page, _) in queries.iter().take(20_000) {
        let mut timed = |slot: usize, work: &mut dyn FnMut()| {
            let start = std::time::Instant::now();
            work();
            times[slot].push(start.elapsed().as_nanos() as f64);
        };
        timed(0, &mut || ours.unmap(*page, PAGE));
        timed(2, &mut || assert_eq!(ours.mapper.first_fit(within, fit), Span::new(*page, PAGE)));
        timed(1, &mut || ours.map(*page, PAGE, output_of(*page / PAGE)));
    }
    for (slot, times) in times.iter().enumerate() {
        samples.add(workloads[slot + 1], "bindery", quantile(times, 0.5));
    }
    let (_log, mut reader) = DirtyLog::new(48).expect("addresses");
    let span = Span::new(0, areas * PAGE).expect("a span");
    let mut words = vec![0; (areas / 64) as usize];
    let start = thread_time();
    for _ in 0..1000 {
        let mut bits = DirtyBits::new(span, PAGE_LG2, &mut words).expect("room");
        reader.read(span, Clear::Yes, ours.table.readers(), |_| PAGE_LG2, &mut bits);
    }
    let time = (thread_time() - start).as_secs_f64() * 1e6;
    samples.add(workloads[4], "bindery", time);
}
