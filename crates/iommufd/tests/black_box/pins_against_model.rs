//! Random mapping, copying, attaching and pinning in two address spaces, with the pins of every page compared with a
//! ledger that is kept page by page. `OPERATIONS` says how much of it.

use iommufd::mock::MockMachine;
use models::PinLedger;
use proptest::prelude::*;
use uapi::CommandId;
use uapi::iommufd::{IoasCopy, map_flags};

use crate::support::client::READ_WRITE;
use crate::support::{Client, PAGE, cases};

const VA: u64 = 0x10_0000;
/// Where the mock's page tables begin.
const IOVA: u64 = 0x100_0000;
/// Pages of memory, and of addresses, that steps are about.
const SPREAD: u64 = 8;

#[derive(Clone, Copy, Debug)]
enum Step {
    Map { space: usize, at: u64, memory: u64, pages: u64 },
    Copy { from: (usize, u64), to: (usize, u64), pages: u64 },
    Unmap { space: usize, at: u64, pages: u64 },
    Attach { space: usize },
    Detach { space: usize },
    Pin { space: usize, at: u64, pages: u64 },
    Unpin { space: usize, nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let space = || 0..2_usize;
    let (at, pages) = (|| 0..SPREAD, || 1..4_u64);
    prop_oneof![
        4 => (space(), at(), at(), pages())
            .prop_map(|(space, at, memory, pages)| Step::Map { space, at, memory, pages }),
        2 => ((space(), at()), (space(), at()), pages())
            .prop_map(|(from, to, pages)| Step::Copy { from, to, pages }),
        3 => (space(), at(), 1..SPREAD)
            .prop_map(|(space, at, pages)| Step::Unmap { space, at, pages }),
        1 => space().prop_map(|space| Step::Attach { space }),
        1 => space().prop_map(|space| Step::Detach { space }),
        4 => (space(), at(), pages()).prop_map(|(space, at, pages)| Step::Pin { space, at, pages }),
        2 => (space(), 0..4_usize).prop_map(|(space, nth)| Step::Unpin { space, nth }),
    ]
}

/// A client with two address spaces and an access on each.
struct World {
    client: Client,
    spaces: [Space; 2],
    model: PinLedger,
}

struct Space {
    ioas: u32,
    access: i32,
    devices: Vec<u32>,
    /// Numbers of pins, of which some may be gone.
    pins: Vec<u32>,
}

impl World {
    fn new() -> Self {
        let client = Client::open_mock(&MockMachine::new());
        let space = |_| {
            let ioas = client.ioas();
            let access = client.create_access(ioas, 1).unwrap();
            Space { ioas, access, devices: Vec::new(), pins: Vec::new() }
        };
        let spaces = [0, 1].map(space);
        Self { client, spaces, model: PinLedger::new(2) }
    }

    /// Takes one step on both sides. Whether it was possible there, and here.
    fn take(&mut self, step: Step) -> (bool, bool) {
        let Self { client, spaces, model } = self;
        match step {
            Step::Map { space, at, memory, pages } => {
                let (iova, va) = (IOVA + at * PAGE, VA + memory * PAGE);
                let real = client.map_at(spaces[space].ioas, iova, va, pages * PAGE);
                (real.is_ok(), model.map(space, at, memory, pages))
            }
            Step::Copy { from, to, pages } => {
                let copy = IoasCopy {
                    flags: READ_WRITE | map_flags::FIXED_IOVA,
                    dst_ioas_id: spaces[to.0].ioas,
                    src_ioas_id: spaces[from.0].ioas,
                    length: pages * PAGE,
                    dst_iova: IOVA + to.1 * PAGE,
                    src_iova: IOVA + from.1 * PAGE,
                    ..IoasCopy::default()
                };
                let real = client.call(CommandId::IoasCopy, copy);
                (real.is_ok(), model.copy(from, to, pages))
            }
            Step::Unmap { space, at, pages } => {
                let real = client.unmap(spaces[space].ioas, IOVA + at * PAGE, pages * PAGE);
                let modelled = model.unmap(space, at, pages);
                assert_eq!(real.ok(), modelled.map(|pages| pages * PAGE));
                (true, true)
            }
            Step::Attach { space } => {
                let [stdev, ..] = client.mock_device(spaces[space].ioas).unwrap();
                spaces[space].devices.push(stdev);
                model.attach(space);
                (true, true)
            }
            Step::Detach { space } => {
                let stdev = spaces[space].devices.pop();
                let real = stdev.is_some_and(|stdev| client.destroy(stdev).is_ok());
                (real, model.detach(space))
            }
            Step::Pin { space, at, pages } => {
                let place = [IOVA + at * PAGE, pages * PAGE, 0];
                let Space { access, pins, .. } = &mut spaces[space];
                match client.access_pin(*access, 1, place) {
                    Ok(number) => {
                        pins.push(number);
                        (true, model.pin(space, number, at, pages))
                    }
                    Err(_) => (false, model.pin(space, u32::MAX, at, pages)),
                }
            }
            Step::Unpin { space, nth } => {
                let Space { access, pins, .. } = &mut spaces[space];
                if nth >= pins.len() {
                    return (true, true);
                }
                let number = pins.remove(nth);
                let real = client.access_unpin(*access, number).is_ok();
                (real, model.unpin(space, number))
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(128, 20)))]

    #[test]
    fn of_every_page(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            let (real, modelled) = world.take(step);
            prop_assert_eq!(real, modelled, "{:?}", step);
            for page in 0..SPREAD + 3 {
                let pins = u32::try_from(world.model.pins(page)).unwrap();
                let checked = world.client.check_refs(VA + page * PAGE, PAGE, pins);
                prop_assert_eq!(checked, Ok(()), "page {} is not pinned {} times", page, pins);
            }
        }
        for space in &world.spaces {
            world.client.access_file(space.access).unwrap().release();
        }
        world.client.ctx.put_file();
        prop_assert_eq!(world.client.memory.pinned(), []);
    }
}
