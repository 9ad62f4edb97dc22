//! What the operations move, and what the status blocks say of it.

use bindery_device as device;

use std::sync::Arc;

use device::dma_engine::regs::{
    self, access, bar0, control, descriptor, operation, reason, register, state, status,
    status_state,
};
use device::dma_engine::{Bar0Mapping, Config, DmaEngine};
use pci::regs::{command, header};
use pci::{Function, HostSide, Progress, Reset};
use proptest::prelude::*;

use crate::client::{ADDRESS, Bench, Ears, RAM, RAM_LENGTH, READ_ONLY, Ram, Request, Status};

const END: u64 = RAM + RAM_LENGTH as u64;

fn noise(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

fn done(length: u32, cookie: u64) -> Status {
    Status { state: status_state::DONE, bytes_done: length, cookie, ..Status::default() }
}

#[test]
fn copies() {
    let bench = Bench::new();
    let bytes = noise(200_001);
    bench.ram.put(RAM + 3, &bytes);
    let copy = Request {
        operation: operation::COPY,
        source: RAM + 3,
        destination: RAM + 0x4_0001,
        length: 200_001,
        cookie: 42,
        ..Request::default()
    };
    bench.submit(31, copy);
    assert_eq!(bench.status(31).state, status_state::PENDING);
    assert_eq!(bench.engine.step(64 << 10), Progress::More);
    let part = bench.status(31);
    assert_eq!((part.state, part.bytes_done), (status_state::RUNNING, 64 << 10));
    assert_eq!(bench.read(register::STATE) & state::RUNNING, state::RUNNING);
    assert_eq!(bench.read(register::STATE) >> state::SLOT_SHIFT, 31);
    bench.run();
    assert_eq!(bench.status(31), done(200_001, 42));
    assert_eq!(bench.ram.get(RAM + 0x4_0001, bytes.len()), bytes);
    assert_eq!(bench.read(register::COMPLETED), 1);
    assert_eq!(bench.read(register::STATE), 0);
}

#[test]
fn a_bar_that_nobody_may_map_has_memory_all_the_same() {
    let mut config = Config::new(ADDRESS.parse().unwrap());
    config.bar0_mapping = Bar0Mapping::None;
    let ram = Ram::new();
    let engine = DmaEngine::new(&config);
    engine.connect(HostSide { dma: ram.clone(), interrupts: Arc::new(Ears::default()) });
    let bus_master = command::MEMORY | command::BUS_MASTER;
    engine.config_write(header::COMMAND, &bus_master.to_le_bytes());
    let write = |offset: u64, bytes: &[u8]| engine.bar_write(bar0::INDEX, offset, bytes);
    write(register::CONTROL, &control::ENABLE.to_le_bytes());
    let at = bar0::DESCRIPTORS;
    write(at + descriptor::OPERATION, &operation::COPY.to_le_bytes());
    write(at + descriptor::LENGTH, &5_u32.to_le_bytes());
    write(at + descriptor::SOURCE, &RAM.to_le_bytes());
    write(at + descriptor::DESTINATION, &(RAM + 64).to_le_bytes());
    ram.put(RAM, b"moved");
    write(register::DOORBELL, &0_u32.to_le_bytes());
    while engine.step(1 << 20) == Progress::More {}
    let mut state = [0; 4];
    engine.bar_read(bar0::INDEX, bar0::STATUS_BLOCKS + status::STATE, &mut state);
    assert_eq!(u32::from_le_bytes(state), status_state::DONE);
    assert_eq!(ram.get(RAM + 64, 5), b"moved");
    engine.reset(Reset::Function);
    let mut operation = [7; 4];
    engine.bar_read(bar0::INDEX, at + descriptor::OPERATION, &mut operation);
    assert_eq!(operation, [0; 4]);
}

#[test]
fn reads_into_and_writes_from_the_window() {
    let bench = Bench::new();
    let bytes = noise(5000);
    bench.ram.put(RAM, &bytes);
    let read = Request {
        operation: operation::READ,
        source: RAM,
        window: 100,
        length: 5000,
        ..Request::default()
    };
    bench.submit(0, read);
    let write = Request {
        operation: operation::WRITE,
        destination: RAM + 0x1_0000,
        window: 101,
        length: 4999,
        ..Request::default()
    };
    bench.submit(1, write);
    bench.run();
    let mut window = vec![0; 5000];
    bench.pages.read(usize::try_from(bar0::WINDOW).unwrap() + 100, &mut window);
    assert_eq!(window, bytes);
    assert_eq!(bench.ram.get(RAM + 0x1_0000, 4999), bytes[1..]);
    assert_eq!([bench.status(0), bench.status(1)], [done(5000, 0), done(4999, 0)]);
}

#[test]
fn nothing_takes_nothing() {
    let bench = Bench::new();
    bench.submit(0, Request { operation: operation::NOP, ..Request::default() });
    bench.submit(1, Request { operation: operation::COPY, ..Request::default() });
    bench.run();
    assert_eq!([bench.status(0), bench.status(1)], [done(0, 0), done(0, 0)]);
    assert_eq!(bench.ram.accesses(), 0);
}

#[test]
fn all_slots_queue_and_run_in_order() {
    let bench = Bench::new();
    for slot in (0..regs::SLOTS).rev() {
        let fill = Request {
            operation: operation::FILL,
            destination: RAM + 8,
            pattern: u64::from(slot),
            length: 8,
            ..Request::default()
        };
        bench.submit(slot, fill);
    }
    assert_eq!(bench.read(register::STATE) >> state::QUEUED_SHIFT, regs::SLOTS);
    assert_eq!(bench.engine.step(1), Progress::More);
    assert_eq!(bench.status(31), Status { bytes_done: 1, state: 2, ..Status::default() });
    bench.run();
    assert_eq!(bench.ram.get(RAM + 8, 8), 0u64.to_le_bytes(), "slot 0 was rung last");
    assert_eq!(bench.read(register::COMPLETED), regs::SLOTS);
}

#[test]
fn doorbells_are_refused() {
    let bench = Bench::new();
    bench.write(register::DOORBELL, regs::SLOTS);
    bench.write(register::DOORBELL, u32::MAX);
    bench.submit(5, Request { operation: operation::NOP, ..Request::default() });
    bench.write(register::DOORBELL, 5);
    assert_eq!(bench.read(register::REFUSED), 3);
    bench.run();
    bench.write(register::DOORBELL, 5);
    bench.run();
    assert_eq!(bench.read(register::REFUSED), 3, "a slot that ended may be rung again");
    assert_eq!(bench.read(register::COMPLETED), 2);
}

#[test]
fn a_descriptor_is_what_it_was_at_its_doorbell() {
    let bench = Bench::new();
    let fill = Request {
        operation: operation::FILL,
        destination: RAM,
        pattern: u64::MAX,
        length: 16,
        ..Request::default()
    };
    bench.submit(0, fill);
    bench.place(0, Request { destination: RAM + 0x100, length: 64, ..fill });
    bench.run();
    assert_eq!(bench.status(0), done(16, 0));
    assert_eq!(bench.ram.get(RAM, 16), [0xff; 16]);
    assert_eq!(bench.ram.get(RAM + 0x100, 16), [0; 16]);
}

#[test]
fn refused_accesses_are_faults() {
    let refused = |request: Request| {
        let bench = Bench::new();
        bench.submit(0, Request { cookie: 7, ..request });
        bench.submit(1, Request { operation: operation::NOP, ..Request::default() });
        bench.run();
        assert_eq!(bench.status(1).state, status_state::DONE, "the next runs");
        assert_eq!(bench.read(register::FAULTS), 1);
        bench.status(0)
    };
    let fault = |reason, fault_address, fault_access, bytes_done| Status {
        state: status_state::FAULT,
        reason,
        fault_address,
        fault_access,
        bytes_done,
        cookie: 7,
    };
    let copy = Request { operation: operation::COPY, length: 0x2_0000, ..Request::default() };
    let hole = refused(Request { source: RAM - 16, destination: RAM, ..copy });
    assert_eq!(hole, fault(reason::NOT_MAPPED, RAM - 16, access::READ, 0));
    let end = refused(Request { source: END - 0x1_8000, destination: RAM, ..copy });
    assert_eq!(end, fault(reason::NOT_MAPPED, END, access::READ, 0x1_0000));
    let read_only = refused(Request { source: RAM, destination: READ_ONLY - 8, ..copy });
    assert_eq!(read_only, fault(reason::PERMISSION, READ_ONLY, access::WRITE, 0));
}

#[test]
fn without_bus_master_nothing_leaves() {
    let bench = Bench::new();
    let fill =
        Request { operation: operation::FILL, destination: RAM, length: 9, ..Request::default() };
    bench.set_command(command::MEMORY);
    bench.submit(0, fill);
    bench.run();
    let status = bench.status(0);
    assert_eq!((status.state, status.reason), (status_state::FAULT, reason::BUS_MASTER_OFF));
    assert_eq!((status.fault_address, status.fault_access), (RAM, access::WRITE));

    bench.set_command(command::BUS_MASTER);
    bench.engine.disconnect();
    bench.submit(0, fill);
    bench.run();
    let status = bench.status(0);
    assert_eq!((status.state, status.reason), (status_state::FAULT, reason::NOT_ATTACHED));
    assert_eq!(bench.ram.accesses(), 0);
}

#[test]
fn what_is_not_understood_is_invalid() {
    let copy = Request {
        operation: operation::COPY,
        source: RAM,
        destination: RAM,
        length: 64,
        ..Request::default()
    };
    let read = Request { operation: operation::READ, ..copy };
    let window_end = u32::try_from(bar0::WINDOW_LENGTH).unwrap();
    let cases = [
        (Request { operation: 0, ..copy }, reason::OPERATION),
        (Request { operation: 6, ..copy }, reason::OPERATION),
        (Request { flags: 2, ..copy }, reason::RESERVED),
        (Request { reserved: 1, ..copy }, reason::RESERVED),
        (Request { flags: 1, vector: 16, ..copy }, reason::VECTOR),
        (Request { source: u64::MAX - 62, ..copy }, reason::ADDRESS),
        (Request { destination: u64::MAX, ..copy }, reason::ADDRESS),
        (Request { window: window_end - 63, ..read }, reason::WINDOW),
        (Request { window: u32::MAX, ..read }, reason::WINDOW),
    ];
    let bench = Bench::new();
    for (slot, (request, expected)) in (0..).zip(cases) {
        bench.submit(slot, request);
        bench.run();
        let status = bench.status(slot);
        assert_eq!((status.state, status.reason), (status_state::INVALID, expected), "{request:?}");
    }
    bench.submit(20, Request { window: window_end - 64, ..read });
    bench.submit(21, Request { flags: 0, vector: 99, ..copy });
    bench.run();
    assert_eq!(bench.status(20).state, status_state::DONE);
    assert_eq!(bench.status(21).state, status_state::DONE);
}

#[test]
fn the_last_byte_of_the_address_space_can_be_named() {
    let bench = Bench::new();
    let fill = Request { operation: operation::FILL, length: 1, ..Request::default() };
    let source = Request { operation: operation::READ, source: u64::MAX, ..fill };
    bench.submit(0, Request { length: 1, ..source });
    assert_eq!(bench.status(0).state, status_state::PENDING);
}

#[test]
fn disabled_it_waits() {
    let bench = Bench::new();
    bench.write(register::CONTROL, 0);
    bench.submit(0, Request { operation: operation::NOP, ..Request::default() });
    assert_eq!(bench.engine.step(1 << 20), Progress::Idle);
    assert_eq!(bench.status(0).state, status_state::PENDING);
    bench.write(register::CONTROL, control::ENABLE);
    bench.run();
    assert_eq!(bench.status(0).state, status_state::DONE);
}

#[test]
fn without_memory_under_the_bar_it_reads_zeros() {
    let engine = DmaEngine::new(&Config::new(ADDRESS.parse().unwrap()));
    engine.bar_write(bar0::INDEX, bar0::WINDOW, &[1; 8]);
    let mut bytes = [9; 8];
    engine.bar_read(bar0::INDEX, bar0::WINDOW, &mut bytes);
    assert_eq!(bytes, [0; 8]);
    engine.bar_write(bar0::INDEX, register::CONTROL, &control::ENABLE.to_le_bytes());
    engine.bar_write(bar0::INDEX, register::DOORBELL, &0u32.to_le_bytes());
    while engine.step(1 << 20) == Progress::More {}
    let mut completed = [0; 8];
    engine.bar_read(bar0::INDEX, register::COMPLETED, &mut completed);
    assert_eq!(completed, 1u64.to_le_bytes());
}

proptest! {
    /// A fill is its pattern from the first byte on, however it is cut into steps.
    #[test]
    fn fills_do_not_show_their_steps(pattern: u64, length in 1u32..3000, budget in 1usize..700) {
        let bench = Bench::new();
        let fill = Request {
            operation: operation::FILL,
            destination: RAM + 5,
            pattern,
            length,
            ..Request::default()
        };
        bench.submit(0, fill);
        while bench.engine.step(budget) == Progress::More {}
        let expected: Vec<u8> =
            pattern.to_le_bytes().into_iter().cycle().take(length as usize).collect();
        prop_assert_eq!(bench.ram.get(RAM + 5, length as usize), expected);
        prop_assert_eq!(bench.ram.get(RAM, 5), vec![0; 5]);
        prop_assert_eq!(bench.ram.get(RAM + 5 + u64::from(length), 1), vec![0]);
    }
}
