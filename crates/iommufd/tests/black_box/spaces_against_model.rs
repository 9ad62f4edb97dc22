//! Every command on address spaces, by random, with devices that come and go and software that pins and copies: each answer
//! is the model's, each address leads where it says, each page is pinned as often. `OPERATIONS` says how much of it.

mod steps;
mod threads;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;

use models::Why;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use uapi::Errno;

use self::steps::{Step, step};
use self::world::World;
use crate::support::{PAGE, cases};

const SPACES: usize = 2;
const DEVICES: usize = 2;
/// Numbers are multiples of this: less than the smallest page of any page table.
const UNIT: u64 = 1024;
/// Memory that is mapped: pages with their own addresses in them, and the last ones, after which there are none.
const VA: u64 = 0x10_0000;
const VA_UNITS: u64 = 64;
/// Where ranges and copies are.
const ARRAY: u64 = 0x20_0000;
const SCRATCH: u64 = 0x30_0000;
/// Addresses that are mapped at: from a little below where the mock's page tables begin.
const IOVA: u64 = 0x100_0000 - 8 * PAGE;
const IOVA_UNITS: u64 = 96;
/// How far apart threads are in memory, and in addresses: no step reaches from one to the other.
const VA_STRIDE: u64 = 0x4_0000;
const IOVA_STRIDE: u64 = 0x10_0000;

fn errno(why: Why) -> Errno {
    match why {
        Why::AddressInUse => Errno::EADDRINUSE,
        Why::Exists => Errno::EEXIST,
        Why::Fault => Errno::EFAULT,
        Why::Invalid => Errno::EINVAL,
        Why::Missing => Errno::ENOENT,
        Why::MessageSize => Errno::EMSGSIZE,
        Why::NoSpace => Errno::ENOSPC,
        Why::NotPermitted => Errno::EPERM,
        Why::Overflow => Errno::EOVERFLOW,
    }
}

/// What a step is called in the count of what was met.
fn name(step: &Step) -> String {
    let whole = format!("{step:?}");
    whole.split(' ').next().unwrap_or_default().to_owned()
}

const STEPS: usize = 300;
/// With so many operations each answer below must have been met.
const ENOUGH: u64 = 100_000;
const TO_BE_MET: &[(&str, &[Why])] = {
    use Why::{AddressInUse, Exists, Fault, Invalid, MessageSize, Missing, NoSpace, NotPermitted};
    &[
        ("Map", &[Exists, Fault, Invalid, NoSpace]),
        ("Copy", &[Exists, Fault, Invalid, Missing, NoSpace, NotPermitted]),
        ("Unmap", &[Invalid, Missing]),
        ("Allow", &[AddressInUse, Invalid]),
        ("Ranges", &[MessageSize]),
        ("Reserve", &[Invalid]),
        ("LargePages", &[AddressInUse, Invalid]),
        ("Attach", &[AddressInUse, Fault]),
        ("MakeMock", &[AddressInUse, Fault]),
        ("Pin", &[Fault, Invalid, Missing, NotPermitted]),
        ("Unpin", &[Missing]),
        ("CopyBySoftware", &[Fault, Invalid, Missing, NotPermitted]),
        ("MoveSoftware", &[AddressInUse]),
    ]
};

#[test]
fn of_every_command() {
    let met = RefCell::new(BTreeMap::<(String, Option<Why>), u64>::new());
    let config = ProptestConfig::with_cases(cases(24, u32::try_from(STEPS / 2).unwrap()));
    let outcome = TestRunner::new(config).run(&vec(step(), 1..STEPS), |steps| {
        let mut world = World::new();
        for (index, step) in steps.iter().enumerate() {
            let (real, modelled) = world.take(step);
            prop_assert_eq!(real, modelled.map_err(errno), "{:x?}", step);
            prop_assert_eq!(world.client.ctx.counts().mapped_bytes, world.model.mapped());
            *met.borrow_mut().entry((name(step), modelled.err())).or_default() += 1;
            if index % 64 == 63 {
                world.check();
            }
        }
        world.check();
        world.end();
        Ok(())
    });
    outcome.unwrap_or_else(|difference| panic!("{difference}"));
    let met = met.into_inner();
    let all: u64 = met.values().sum();
    println!("{all} operations");
    for ((step, why), count) in &met {
        println!(
            "{count:>9} {step} {}",
            why.map_or_else(|| "ok".into(), |why| errno(why).to_string())
        );
    }
    if all >= ENOUGH {
        for (step, reasons) in TO_BE_MET {
            for why in [None].into_iter().chain(reasons.iter().copied().map(Some)) {
                assert!(met.contains_key(&((*step).to_owned(), why)), "{step} never met {why:?}");
            }
        }
    }
}
