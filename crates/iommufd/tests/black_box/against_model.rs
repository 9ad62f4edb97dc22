//! Random mapping and unmapping, compared with a model that has one cell a byte. `OPERATIONS` says how much of it.

use models::{AddressSpace, Outcome, Place};
use pci::Dma;
use proptest::prelude::*;
use uapi::Errno;

use crate::support::{Client, PAGE, PAGE_BYTES, Platform, cases};

/// One command. Addresses stay well below the model's size.
#[derive(Clone, Copy, Debug)]
enum Step {
    Map { place: Place, memory: u64, length: u64 },
    Unmap { start: u64, length: u64 },
    UnmapAll,
}

/// Steps whose numbers are multiples of `unit`.
fn step(unit: u64) -> impl Strategy<Value = Step> {
    let place =
        prop_oneof![Just(Place::Anywhere), (0..SPREAD).prop_map(move |at| Place::At(at * unit)),];
    let map = (place, 0..SPREAD, 0..5_u64).prop_map(move |(place, memory, length)| Step::Map {
        place,
        memory: VA + memory * unit,
        length: length * unit,
    });
    let unmap = (0..SPREAD, 1..SPREAD).prop_map(move |(start, length)| Step::Unmap {
        start: start * unit,
        length: length * unit,
    });
    prop_oneof![6 => map, 3 => unmap, 1 => Just(Step::UnmapAll)]
}

const SPREAD: u64 = 12;
const VA: u64 = 0x10_0000;

fn expected(outcome: Outcome) -> Result<u64, Errno> {
    match outcome {
        Outcome::Value(value) => Ok(value),
        Outcome::Exists => Err(Errno::EEXIST),
        Outcome::Invalid => Err(Errno::EINVAL),
        Outcome::Missing => Err(Errno::ENOENT),
    }
}

/// Runs one step on both sides and compares the answers.
fn run(
    client: &Client,
    ioas: u32,
    model: &mut AddressSpace,
    step: Step,
) -> Result<(), TestCaseError> {
    let (real, modelled) = match step {
        Step::Map { place: Place::At(at), memory, length } => {
            (client.map_at(ioas, at, memory, length), model.map(Place::At(at), memory, length))
        }
        Step::Map { place: Place::Anywhere, memory, length } => {
            (client.map_anywhere(ioas, memory, length), model.map(Place::Anywhere, memory, length))
        }
        Step::Unmap { start, length } => {
            (client.unmap(ioas, start, length), model.unmap(start, length))
        }
        Step::UnmapAll => (client.unmap_all(ioas), Outcome::Value(model.unmap_all())),
    };
    prop_assert_eq!(real, expected(modelled), "{:x?}", step);
    prop_assert_eq!(client.ctx.counts().mapped_bytes, model.mapped());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(96, 6)))]

    /// Without a page table, byte by byte.
    #[test]
    fn of_bytes(steps in prop::collection::vec(step(0x234), 1..12)) {
        let client = Client::open();
        let ioas = client.ioas();
        let mut model = AddressSpace::new(1);
        for step in steps {
            run(&client, ioas, &mut model, step)?;
        }
        prop_assert_eq!(client.memory.pins(), 0);
    }

    /// With one, page by page; and each address reaches the byte of memory that it should.
    #[test]
    fn of_pages(steps in prop::collection::vec(step(PAGE), 1..12)) {
        let client = Client::open();
        let device = Platform::new().bind(&client);
        let ioas = client.ioas();
        device.attach(ioas).unwrap();
        for page in VA / PAGE..VA / PAGE + 2 * SPREAD {
            client.memory.write(page * PAGE, &page.to_ne_bytes()).unwrap();
        }
        let mut model = AddressSpace::new(PAGE);
        for step in steps {
            run(&client, ioas, &mut model, step)?;
            prop_assert_eq!(client.ctx.counts().pinned_bytes, model.mapped());
            for iova in (0..AddressSpace::SIZE).step_by(PAGE_BYTES) {
                let mut found = [0; 8];
                let reached = device.read(iova, &mut found).ok().map(|()| found);
                let page = model.translate(iova).map(|memory| (memory / PAGE).to_ne_bytes());
                prop_assert_eq!(reached, page, "{:#x}", iova);
            }
        }
        device.end();
        client.ctx.put_file();
        prop_assert_eq!(client.memory.pinned(), []);
    }
}
