//! Single-threaded work on all contenders: a machine's memory, a million small maps, and 64 GiB of
//! them.

use std::hint::black_box;

use crate::measure::{Random, Samples, time_each};
use crate::peers::{Flat, Nodit, Ours, PAGE, Peer, Ranges, Tree, VmMemory};

/// How much of everything.
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    pub(crate) small_maps: u64,
    pub(crate) queries: usize,
    pub(crate) whole_bytes: u64,
}

type Query = (u64, u64);

/// A virtual machine's memory: 50 sections, nearly all of it RAM.
pub(crate) fn machine(scale: &Scale, samples: &mut Samples) {
    let sections = sections();
    let mut random = Random(5);
    let uniform: Vec<Query> = (0..scale.queries)
        .map(|_| {
            let (iova, length, _) = sections[random.below(sections.len() as u64) as usize];
            (iova + random.below(length - 64), 64)
        })
        .collect();
    let ram: Vec<&(u64, u64, u64)> =
        sections.iter().filter(|section| section.1 >= 1 << 30).collect();
    let heavy: Vec<Query> = (0..scale.queries)
        .map(|_| {
            let length = random.log_uniform(6, 16);
            if random.below(100) < 95 {
                // In proportion to size: 27 of 30 GiB lie above 4 GiB.
                let (iova, size, _) = ram[usize::from(random.below(30) < 27)];
                (iova + random.below(size - length), length)
            } else {
                let (iova, size, _) = sections[random.below(sections.len() as u64) as usize];
                let length = length.min(size / 2);
                (iova + random.below(size - length), length)
            }
        })
        .collect();
    for _ in 0..scale.rounds {
        machine_of::<Ours>(&sections, &uniform, &heavy, samples);
        machine_of::<Tree>(&sections, &uniform, &heavy, samples);
        machine_of::<Ranges>(&sections, &uniform, &heavy, samples);
        machine_of::<Nodit>(&sections, &uniform, &heavy, samples);
        machine_of::<VmMemory>(&sections, &uniform, &heavy, samples);
    }
}

fn machine_of<P: Peer>(
    sections: &[(u64, u64, u64)],
    uniform: &[Query],
    heavy: &[Query],
    samples: &mut Samples,
) {
    let mut peer = P::new();
    sections.iter().for_each(|&(iova, length, output)| peer.map(iova, length, output));
    let expected = |(iova, length): Query| {
        let (start, _, output) = sections
            .iter()
            .find(|section| iova - section.0.min(iova) < section.1 && section.0 <= iova)?;
        Some(output + (iova - start) + length)
    };
    check(&mut peer, uniform, expected);
    check(&mut peer, heavy, expected);
    samples.add("uniform over 50", P::NAME, pipelined(&mut peer, uniform));
    samples.add("uniform over 50, dependent", P::NAME, dependent(&mut peer, uniform));
    samples.add("RAM-heavy", P::NAME, pipelined(&mut peer, heavy));
    samples.add("RAM-heavy, dependent", P::NAME, dependent(&mut peer, heavy));
}

/// Start, length and output, as a VMM with 30 GiB lays them out: RAM at addresses that are multiples of
/// 2 MiB, but not of 1 GiB.
fn sections() -> Vec<(u64, u64, u64)> {
    let mut sections = vec![(0, 3 << 30, 0x7f00_0020_0000), (4 << 30, 27 << 30, 0x7f10_0020_0000)];
    for index in 0..48_u64 {
        let length = PAGE << (index % 10);
        let iova = (3 << 30) + index * (8 << 20) + (index % 3) * PAGE;
        sections.push((iova, length, 0x7e00_0000_0000 + index * (64 << 20) + PAGE));
    }
    sections
}

/// A million maps of one page each.
pub(crate) fn small(scale: &Scale, samples: &mut Samples) {
    let pages = scale.small_maps;
    let mut random = Random(11);
    let mut order: Vec<u64> = (0..pages).collect();
    random.shuffle(&mut order);
    let one: Vec<Query> = (0..scale.queries)
        .map(|_| (random.below(pages) * PAGE + random.below(63) * 64, 64))
        .collect();
    let many: Vec<Query> = (0..scale.queries)
        .map(|_| {
            let length = random.log_uniform(6, 16);
            (random.below(pages * PAGE - length), length)
        })
        .collect();
    let mut small = Small {
        ours: built(&order, samples),
        flat: built(&order, samples),
        tree: built(&order, samples),
        ranges: built(&order, samples),
        nodit: built(&order, samples),
        vm_memory: built(&order, samples),
    };
    let work = SmallWork { one, many, order, mixed: mixed_maps(scale) };
    for _ in 0..scale.rounds {
        small_of(&mut small.flat, &work, samples);
        small_of(&mut small.ours, &work, samples);
        small_of(&mut small.tree, &work, samples);
        small_of(&mut small.ranges, &work, samples);
        small_of(&mut small.nodit, &work, samples);
        small_of(&mut small.vm_memory, &work, samples);
        chase(pages * 8, "chase of the leaves' size", samples);
    }
}

struct SmallWork {
    one: Vec<Query>,
    many: Vec<Query>,
    order: Vec<u64>,
    mixed: Vec<(u64, u64, u64)>,
}

struct Small {
    ours: Ours,
    flat: Flat,
    tree: Tree,
    ranges: Ranges,
    nodit: Nodit,
    vm_memory: VmMemory,
}

/// Where page `page` of the small maps leads: neighbours never to neighbours, so that nothing merges.
pub(crate) const fn output_of(page: u64) -> u64 {
    ((page.wrapping_mul(0x9e37_79b1) & 0xff_ffff) + (page & 1)) * PAGE * 2
}

fn built<P: Peer>(order: &[u64], samples: &mut Samples) -> P {
    let mut peer = P::new();
    let time = time_each(order.len() as u64, || {
        order.iter().for_each(|page| peer.map(page * PAGE, PAGE, output_of(*page)));
    });
    samples.add("build 1M in random order", P::NAME, time);
    peer
}

fn small_of<P: Peer>(peer: &mut P, work: &SmallWork, samples: &mut Samples) {
    let SmallWork { one, many, order, mixed: maps } = work;
    let expected = |(iova, length): Query| Some(output_of(iova / PAGE) + iova % PAGE + length);
    check(peer, one, expected);
    check(peer, many, expected);
    // All of the leaves, so that caches hold what they can.
    let every: Vec<Query> =
        (0..order.len() as u64).step_by(8).map(|page| (page * PAGE, 64)).collect();
    pipelined(peer, &every);
    samples.add("1M, 64 B", P::NAME, pipelined(peer, one));
    samples.add("1M, 64 B, dependent", P::NAME, dependent(peer, one));
    samples.add("1M, 64 B-64 KiB", P::NAME, pipelined(peer, many));
    samples.add("1M, 64 B-64 KiB, dependent", P::NAME, dependent(peer, many));
    let churned = &order[..one.len().min(order.len())];
    samples.add("churn", P::NAME, churn(peer, churned, 64));
    samples.add("churn, each unmap waited for", P::NAME, churn(peer, churned, 1));
    mixed(peer, maps, samples);
    check(peer, one, expected);
}

/// Unmaps a page and maps it again.
fn churn<P: Peer>(peer: &mut P, pages: &[u64], settle_every: usize) -> f64 {
    time_each(pages.len() as u64, || {
        for (turn, page) in pages.iter().enumerate() {
            peer.unmap(page * PAGE, PAGE);
            if turn % settle_every == 0 {
                peer.settle();
            }
            peer.map(page * PAGE, PAGE, output_of(*page));
        }
    })
}

/// Maps of one page to 2 MiB that come and go beside the small ones, some across tables: address,
/// length, output. As many at a time as [`OUTSTANDING`].
fn mixed_maps(scale: &Scale) -> Vec<(u64, u64, u64)> {
    let mut random = Random(17);
    let free_from = scale.small_maps * PAGE;
    let maps = (0..scale.queries).map(|turn| {
        let pages = random.log_uniform(0, 9);
        let slot = free_from + (turn % OUTSTANDING) as u64 * (4 << 20);
        let output = random.below(1 << 24) * 2 * PAGE + PAGE;
        (slot + random.below(512) * PAGE, pages * PAGE, output)
    });
    maps.collect()
}

const OUTSTANDING: usize = 1024;

fn mixed<P: Peer>(peer: &mut P, maps: &[(u64, u64, u64)], samples: &mut Samples) {
    let (first, rest) = maps.split_at(OUTSTANDING);
    first.iter().for_each(|&(iova, length, output)| peer.map(iova, length, output));
    let time = time_each(rest.len() as u64, || {
        for (turn, (old, new)) in maps.iter().zip(rest).enumerate() {
            peer.unmap(old.0, old.1);
            if turn % 64 == 0 {
                peer.settle();
            }
            peer.map(new.0, new.1, new.2);
        }
    });
    samples.add("mixed 4K-2M", P::NAME, time);
    let left = &rest[rest.len() - OUTSTANDING..];
    for &(iova, length, output) in left {
        assert_eq!(peer.translate(iova, length), Some(output + length), "{}", P::NAME);
        peer.unmap(iova, length);
    }
}

/// All memory in maps of one page, in order, and everything away at once.
pub(crate) fn whole(scale: &Scale, samples: &mut Samples) {
    let pages = scale.whole_bytes / PAGE;
    for _ in 0..scale.rounds {
        whole_of::<Ours>(pages, samples);
        whole_of::<Flat>(pages, samples);
        whole_of::<Tree>(pages, samples);
        whole_of::<VmMemory>(pages, samples);
    }
}

fn whole_of<P: Peer>(pages: u64, samples: &mut Samples) {
    let mut peer = P::new();
    let time = time_each(pages, || {
        (0..pages).for_each(|page| peer.map(page * PAGE, PAGE, output_of(page)));
    });
    samples.add("map 64 GiB in order", P::NAME, time);
    let sample: Vec<Query> = (0..2000).map(|turn| (turn * 7919 % pages * PAGE, 64)).collect();
    check(&mut peer, &sample, |(iova, length)| Some(output_of(iova / PAGE) + length));
    let mut bytes = 0;
    let time = time_each(1, || bytes = peer.unmap_all());
    assert!(bytes == 0 || bytes == pages * PAGE, "bytes unmapped");
    samples.add("unmap 64 GiB", P::NAME, time);
    assert!(peer.translate(0, 64).is_none() && peer.translate((pages - 1) * PAGE, 64).is_none());
}

/// The translation of some queries, against what is known.
fn check<P: Peer>(peer: &mut P, queries: &[Query], expected: impl Fn(Query) -> Option<u64>) {
    for query in queries.iter().step_by(queries.len().div_ceil(500)) {
        assert_eq!(peer.translate(query.0, query.1), expected(*query), "{} at {query:x?}", P::NAME);
    }
}

/// Nanoseconds a query, where none waits for another.
pub(crate) fn pipelined<P: Peer>(peer: &mut P, queries: &[Query]) -> f64 {
    let mut misses = 0;
    let mut sum = 0_u64;
    let time = time_each(queries.len() as u64, || {
        for (iova, length) in queries {
            match peer.translate(*iova, *length) {
                Some(found) => sum = sum.wrapping_add(found),
                None => misses += 1,
            }
        }
    });
    assert_eq!(misses, 0, "{} misses", P::NAME);
    black_box(sum);
    time
}

/// Nanoseconds a query, where each needs the answer to the one before.
fn dependent<P: Peer>(peer: &mut P, queries: &[Query]) -> f64 {
    let nothing = black_box(0);
    let mut answer = 0;
    let time = time_each(queries.len() as u64, || {
        for (iova, length) in queries {
            answer = peer.translate(*iova | answer & nothing, *length).unwrap_or(0);
        }
    });
    assert_ne!(answer, 0, "{} misses", P::NAME);
    time
}

/// Loads that each name the next, spread over `bytes`: what memory that large costs.
pub(crate) fn chase(bytes: u64, workload: &'static str, samples: &mut Samples) {
    let lines = (bytes / 64).max(16) as usize;
    let mut order: Vec<usize> = (0..lines).collect();
    Random(3).shuffle(&mut order);
    let mut next = vec![0_usize; lines * 8];
    for pair in order.windows(2) {
        next[pair[0] * 8] = pair[1] * 8;
    }
    next[order[lines - 1] * 8] = order[0] * 8;
    let mut at = order[0] * 8;
    for _ in 0..lines.min(200_000) {
        at = next[at];
    }
    let time = time_each(200_000, || (0..200_000).for_each(|_| at = next[at]));
    black_box(at);
    samples.add(workload, "dependent load", time);
}

/// A map of a virtual machine's memory.
pub(crate) fn machine_memory<P: Peer>() -> P {
    let mut peer = P::new();
    sections().iter().for_each(|&(iova, length, output)| peer.map(iova, length, output));
    peer
}
