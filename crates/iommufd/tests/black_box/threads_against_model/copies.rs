//! One thread maps and unmaps in a first address space; another copies from there to a second, and unmaps there.
//!
//! Each space is changed by one thread alone, so its own order is known. What is not is how many changes of the first a copy
//! has seen: all that ended before it began, and none that began after it ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use iommufd::Device;
use iommufd::mock::MockMachine;
use models::PinLedger;
use pci::Dma;
use proptest::collection::vec;
use proptest::prelude::*;
use uapi::iommufd::{IoasCopy, map_flags};
use uapi::{CommandId, Errno};

use super::{IOVA, STEPS, THREADS, VA, rounds};
use crate::support::client::READ_WRITE;
use crate::support::{Client, PAGE, Platform, Start};

/// Pages of addresses that steps begin at. Places are in pages from `IOVA` on, memory from `VA` on.
const SPREAD: u64 = 6;
/// Pages of a step at most.
const PAGES: u64 = 3;
/// Which area is unmapped: one of so many, if there are.
const AREAS: usize = 3;
const MEMORY_PAGES: u64 = STEPS as u64 * PAGES;

#[derive(Clone, Copy, Debug)]
enum Change {
    Map {
        at: u64,
        pages: u64,
    },
    /// Of one area, so that it is one change.
    Unmap {
        nth: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Use {
    Copy { from: u64, to: u64, pages: u64 },
    Unmap { at: u64, pages: u64 },
}

/// A command, and the moments before and after it.
#[derive(Debug)]
struct Timed<T> {
    begun: u64,
    ended: u64,
    what: T,
}

/// What became of the first space.
#[derive(Debug)]
enum Changed {
    Mapped { at: u64, memory: u64, pages: u64 },
    Unmapped { at: u64, pages: u64 },
}

/// The pages of memory that a copy leads to, or how many pages were unmapped.
type Answer = Result<Vec<u64>, Errno>;

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => (0..SPREAD, 1..=PAGES).prop_map(|(at, pages)| Change::Map { at, pages }),
        2 => (0..AREAS).prop_map(|nth| Change::Unmap { nth }),
    ];
    vec(change, STEPS / 2..STEPS)
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let step = prop_oneof![
        3 => (0..SPREAD, 0..SPREAD, 1..=PAGES)
            .prop_map(|(from, to, pages)| Use::Copy { from, to, pages }),
        2 => (0..SPREAD, 1..=SPREAD).prop_map(|(at, pages)| Use::Unmap { at, pages }),
    ];
    vec(step, STEPS / 2..STEPS)
}

fn timed<T>(clock: &AtomicU64, command: impl FnOnce() -> T) -> Timed<T> {
    let begun = clock.fetch_add(1, SeqCst);
    let what = command();
    Timed { begun, ended: clock.fetch_add(1, SeqCst), what }
}

/// Maps memory of its own each time, and unmaps. Its answers depend on nobody else.
fn change(client: &Client, ioas: u32, clock: &AtomicU64, steps: &[Change]) -> Vec<Timed<Changed>> {
    let mut areas = BTreeMap::<u64, u64>::new();
    let mut changes = Vec::new();
    for (turn, step) in (0..).zip(steps) {
        match *step {
            Change::Map { at, pages } => {
                let memory = turn * PAGES;
                let (iova, va) = (IOVA + at * PAGE, VA + memory * PAGE);
                let call = || client.map_at(ioas, iova, va, pages * PAGE);
                let Timed { begun, ended, what } = timed(clock, call);
                if areas.iter().any(|(start, length)| *start < at + pages && at < start + length) {
                    assert_eq!(what, Err(Errno::EEXIST), "{step:?}");
                    continue;
                }
                assert_eq!(what, Ok(iova), "{step:?}");
                areas.insert(at, pages);
                changes.push(Timed { begun, ended, what: Changed::Mapped { at, memory, pages } });
            }
            Change::Unmap { nth } => {
                let Some((at, pages)) = areas.iter().nth(nth).map(|(at, pages)| (*at, *pages))
                else {
                    continue;
                };
                let call = || client.unmap(ioas, IOVA + at * PAGE, pages * PAGE);
                let Timed { begun, ended, what } = timed(clock, call);
                assert_eq!(what, Ok(pages * PAGE), "{step:?}");
                areas.remove(&at);
                changes.push(Timed { begun, ended, what: Changed::Unmapped { at, pages } });
            }
        }
    }
    changes
}

/// Copies from the first of `spaces` to the second, where `device` is, and unmaps there.
fn make_use(
    client: &Client,
    spaces: [u32; 2],
    device: &Device,
    clock: &AtomicU64,
    steps: &[Use],
) -> Vec<Timed<(Use, Answer)>> {
    let answer = |step: &Use| match *step {
        Use::Copy { from, to, pages } => {
            let copy = IoasCopy {
                flags: READ_WRITE | map_flags::FIXED_IOVA,
                dst_ioas_id: spaces[1],
                src_ioas_id: spaces[0],
                length: pages * PAGE,
                dst_iova: IOVA + to * PAGE,
                src_iova: IOVA + from * PAGE,
                ..IoasCopy::default()
            };
            let copied = timed(clock, || client.call(CommandId::IoasCopy, copy));
            let reached = |_| (to..to + pages).map(|at| reached(device, at).unwrap()).collect();
            let Timed { begun, ended, what } = copied;
            Timed { begun, ended, what: (*step, what.map(reached)) }
        }
        Use::Unmap { at, pages } => {
            let call = || client.unmap(spaces[1], IOVA + at * PAGE, pages * PAGE);
            let Timed { begun, ended, what } = timed(clock, call);
            Timed { begun, ended, what: (*step, what.map(|bytes| vec![bytes / PAGE])) }
        }
    };
    steps.iter().map(answer).collect()
}

/// The number that is in the page of memory that a device reaches.
fn reached(device: &Device, at: u64) -> Option<u64> {
    let mut found = [0; 8];
    device.read(IOVA + at * PAGE, &mut found).ok()?;
    Some(u64::from_ne_bytes(found))
}

/// Both spaces after some of the commands: which memory is where, and what that pins.
struct Order {
    first: BTreeMap<u64, u64>,
    second: BTreeMap<u64, u64>,
    ledger: PinLedger,
}

impl Order {
    /// The end of an order in which each use is answered as it was. Panics if there is none.
    ///
    /// A use comes as early as its answer allows. As no memory is mapped twice, a copy that succeeded tells which mappings
    /// it saw, so nothing is lost by that.
    fn of(changes: &[Timed<Changed>], uses: &[Timed<(Use, Answer)>]) -> Self {
        let mut ledger = PinLedger::new(2);
        ledger.attach(0);
        ledger.attach(1);
        let mut order = Self { first: BTreeMap::new(), second: BTreeMap::new(), ledger };
        let mut changes = changes.iter().peekable();
        for Timed { begun, ended, what: (step, answer) } in uses {
            while let Some(change) = changes.next_if(|change| change.ended < *begun) {
                order.change(&change.what);
            }
            while !order.make_use(*step, answer) {
                let change = changes.next_if(|change| change.begun < *ended);
                let change = change.unwrap_or_else(|| panic!("{step:?}: {answer:?} in no order"));
                order.change(&change.what);
            }
        }
        changes.for_each(|change| order.change(&change.what));
        order
    }

    fn change(&mut self, changed: &Changed) {
        match *changed {
            Changed::Mapped { at, memory, pages } => {
                self.first.extend((0..pages).map(|page| (at + page, memory + page)));
                assert!(self.ledger.map(0, at, memory, pages));
            }
            Changed::Unmapped { at, pages } => {
                self.first.retain(|page, _| !(at..at + pages).contains(page));
                assert_eq!(self.ledger.unmap(0, at, pages), Some(pages));
            }
        }
    }

    /// Makes a use if it is answered so now. Says whether it is.
    fn make_use(&mut self, step: Use, answer: &Answer) -> bool {
        match step {
            Use::Copy { from, to, pages } => {
                let memory = (from..from + pages).map(|at| self.first.get(&at).copied());
                let is_taken = self.second.range(to..to + pages).next().is_some();
                let expected = match memory.collect::<Option<Vec<u64>>>() {
                    None => Err(Errno::ENOENT),
                    Some(_) if is_taken => Err(Errno::EEXIST),
                    Some(memory) => Ok(memory),
                };
                if let (true, Ok(memory)) = (expected == *answer, &expected) {
                    self.second.extend((to..).zip(memory.iter().copied()));
                    assert!(self.ledger.copy((0, from), (1, to), pages));
                }
                expected == *answer
            }
            Use::Unmap { at, pages } => {
                // Nobody else changes the second space: there is one answer, which may leave areas below the one that
                // refused unmapped.
                let unmapped = self.ledger.unmap(1, at, pages);
                let expected = unmapped.map(|pages| vec![pages]).ok_or(Errno::ENOENT);
                assert_eq!(*answer, expected, "{step:?}");
                let ledger = &self.ledger;
                self.second.retain(|at, _| ledger.is_mapped(1, *at));
                true
            }
        }
    }
}

fn run(changes: &[Change], uses: &[Use]) {
    let client = Client::open_mock(&MockMachine::new());
    let platform = Platform::new();
    let devices = [platform.bind(&client), Device::bind(&client.ctx, &platform.pair[0]).unwrap()];
    let spaces = [client.ioas(), client.ioas()];
    for (device, space) in devices.iter().zip(spaces) {
        device.attach(space).unwrap();
    }
    for page in 0..MEMORY_PAGES {
        client.memory.write(VA + page * PAGE, &page.to_ne_bytes()).unwrap();
    }
    let clock = AtomicU64::new(0);
    let threads = [client.thread(1), client.thread(2)];
    let start = Start::of(THREADS);
    let (changes, uses) = std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            start.wait();
            change(&threads[0], spaces[0], &clock, changes)
        });
        start.wait();
        let uses = make_use(&threads[1], spaces, &devices[1], &clock, uses);
        (changes.join().unwrap(), uses)
    });
    let order = Order::of(&changes, &uses);
    for at in 0..SPREAD + PAGES {
        assert_eq!(reached(&devices[0], at), order.first.get(&at).copied(), "first: {at}");
        assert_eq!(reached(&devices[1], at), order.second.get(&at).copied(), "second: {at}");
    }
    let mapped = (order.first.len() + order.second.len()) as u64 * PAGE;
    assert_eq!(client.ctx.counts().mapped_bytes, mapped);
    for page in 0..MEMORY_PAGES {
        let pins = u32::try_from(order.ledger.pins(page)).unwrap();
        let checked = client.check_refs(VA + page * PAGE, PAGE, pins);
        assert_eq!(checked, Ok(()), "page {page} is not pinned {pins} times");
    }
    devices.iter().for_each(Device::end);
    client.ctx.put_file();
    assert_eq!(client.memory.pinned(), []);
}

#[test]
fn of_copies_of_what_another_maps() {
    let outcome = rounds().run(&(changes(), uses()), |(changes, uses)| {
        run(&changes, &uses);
        Ok(())
    });
    outcome.unwrap_or_else(|difference| panic!("{difference}"));
}
