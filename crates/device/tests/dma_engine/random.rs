//! Nothing that a client writes makes the engine panic or access what it may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bindery_device as device;

use device::dma_engine::regs::{bar0, control, operation, register};
use pci::regs::command;
use pci::{Function, Reset};
use proptest::prelude::*;

use crate::client::{Bench, RAM, Request};

#[derive(Clone, Debug)]
enum Action {
    Config { offset: u16, bytes: Vec<u8> },
    Bar { index: usize, offset: u64, width_lg2: u32, value: u64 },
    Register { register: u64, value: u32 },
    Ring { slot: u32 },
    Step { budget: usize },
    Reset(Reset),
    Pause(bool),
}

fn action() -> impl Strategy<Value = Action> {
    let registers = prop::sample::select(vec![
        register::CONTROL,
        register::DOORBELL,
        register::INTERRUPT_CAUSE,
        register::INTERRUPT_MASK,
        register::SCRATCH,
    ]);
    prop_oneof![
        (0u16..4096, prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(offset, bytes)| Action::Config { offset, bytes }),
        (0usize..7, 0u64..bar0::SIZE, 0u32..4, any::<u64>()).prop_map(
            |(index, offset, width_lg2, value)| Action::Bar { index, offset, width_lg2, value }
        ),
        (0u64..0x280, any::<u64>()).prop_map(|(at, value)| Action::Bar {
            index: 0,
            offset: bar0::DESCRIPTORS + at,
            width_lg2: 3,
            value: value & 0x7,
        }),
        (registers, any::<u32>())
            .prop_map(|(register, value)| Action::Register { register, value }),
        Just(Action::Register { register: register::CONTROL, value: control::ENABLE }),
        (0u32..40).prop_map(|slot| Action::Ring { slot }),
        (0usize..200_000).prop_map(|budget| Action::Step { budget }),
        prop::sample::select(vec![Reset::Function, Reset::Bus]).prop_map(Action::Reset),
        any::<bool>().prop_map(Action::Pause),
    ]
}

fn take(bench: &Bench, action: Action) {
    match action {
        Action::Config { offset, mut bytes } => {
            bytes.truncate(usize::from(4096 - offset));
            bench.engine.config_write(offset, &bytes);
            bench.engine.config_read(offset, &mut bytes);
        }
        Action::Bar { index, offset, width_lg2, value } => {
            let Some(size) = bench.engine.bar(index).map(|bar| bar.size) else { return };
            let offset = (offset % size) >> width_lg2 << width_lg2;
            let mut bytes = value.to_le_bytes();
            let bytes = &mut bytes[..1 << width_lg2];
            bench.engine.bar_write(index, offset, bytes);
            bench.engine.bar_read(index, offset, bytes);
        }
        Action::Register { register, value } => bench.write(register, value),
        Action::Ring { slot } => bench.write(register::DOORBELL, slot),
        Action::Step { budget } => {
            bench.engine.step(budget);
        }
        Action::Reset(kind) => bench.engine.reset(kind),
        Action::Pause(true) => bench.engine.stop(),
        Action::Pause(false) => bench.engine.start(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any sequence of accesses leaves an engine that a reset makes as good as new.
    #[test]
    fn any_accesses_leave_it_working(actions in prop::collection::vec(action(), 1..80)) {
        let bench = Bench::new();
        for action in actions {
            take(&bench, action);
        }
        bench.engine.reset(Reset::Bus);
        bench.engine.start();
        bench.set_command(command::BUS_MASTER);
        bench.write(register::CONTROL, control::ENABLE);
        let fill = Request {
            operation: operation::FILL,
            destination: RAM,
            pattern: 0x0102_0304_0506_0708,
            length: 8,
            ..Request::default()
        };
        bench.submit(3, fill);
        bench.run();
        prop_assert_eq!(bench.ram.get(RAM, 8), 0x0102_0304_0506_0708u64.to_le_bytes());
    }
}

/// A client that rewrites descriptors, status blocks and the window under the engine changes what is
/// moved and nothing else: every doorbell is answered, and the engine stays in its memory.
#[test]
fn a_client_may_scribble_while_it_works() {
    let bench = Arc::new(Bench::new());
    let quit = Arc::new(AtomicBool::new(false));
    let scribbler = {
        let (bench, quit) = (bench.clone(), quit.clone());
        std::thread::spawn(move || {
            let mut seed = 1u64;
            while !quit.load(Ordering::Relaxed) {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let request = Request {
                    operation: (seed >> 60) as u32 % 7,
                    length: (seed >> 40) as u32 & 0xffff,
                    source: RAM + (seed >> 30 & 0xffff),
                    destination: RAM + (seed >> 20 & 0xf_ffff),
                    window: (seed >> 50) as u32 & 0xfff,
                    ..Request::default()
                };
                bench.place((seed >> 55) as u32 % 32, request);
                bench.pages.write(0x1800 + (seed >> 57) as usize, &seed.to_le_bytes());
            }
        })
    };
    for round in 0..2000 {
        bench.write(register::DOORBELL, round % 32);
        bench.engine.step(1 << 16);
    }
    bench.run();
    quit.store(true, Ordering::Relaxed);
    scribbler.join().unwrap();
    let answered = bench.read(register::COMPLETED) + bench.read(register::REFUSED);
    assert_eq!(answered, 2000);
    assert!(bench.read(register::COMPLETED) > 0);
}
