//! Who is told of a descriptor's end, and when.

use std::sync::Arc;

use bindery_device as device;

use device::dma_engine::regs::{bar0, cause, flag, operation, register, status_state};
use device::dma_engine::{Config, DmaEngine};
use pci::regs::{cap_id, command, header, msi, msix, pm, status};
use pci::{Function, HostSide, Interrupts, Progress};
use sync::{Mutex, rank};

use crate::client::{ADDRESS, Bench, Heard, RAM, Ram, Request};

fn nop(vector: u32) -> Request {
    Request { operation: operation::NOP, flags: flag::INTERRUPT, vector, ..Request::default() }
}

fn interrupt_status(engine: &DmaEngine) -> bool {
    let mut bytes = [0; 2];
    engine.config_read(header::STATUS, &mut bytes);
    u16::from_le_bytes(bytes) & status::INTERRUPT != 0
}

#[test]
fn msix_tells_each_vector() {
    let bench = Bench::new();
    bench.enable_msix(0..16);
    bench.submit(0, nop(3));
    bench.submit(1, nop(15));
    bench.submit(2, nop(3));
    bench.submit(3, Request { flags: 0, ..nop(4) });
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(3), Heard::Msix(15), Heard::Msix(3)]);
}

/// Notes what the status block of slot 0 says at each message.
struct Witness {
    pages: Arc<mem::Pages>,
    seen: Mutex<rank::Irq, Vec<u32>>,
}

impl Interrupts for Witness {
    fn msix(&self, _vector: u16) {
        let state = usize::try_from(bar0::STATUS_BLOCKS).unwrap();
        self.seen.lock().push(self.pages.load_u32(state));
    }

    fn msi(&self, _vector: u16) {}

    fn intx(&self, _asserted: bool) {}
}

#[test]
fn the_end_is_visible_before_it_is_told() {
    let bench = Bench::new();
    let seen = Mutex::new(Vec::new());
    let witness = Arc::new(Witness { pages: bench.pages.clone(), seen });
    bench.engine.connect(HostSide { dma: bench.ram.clone(), interrupts: witness.clone() });
    bench.enable_msix(0..16);
    bench.submit(0, nop(0));
    bench.run();
    bench.submit(0, Request { operation: operation::READ, source: RAM - 1, length: 1, ..nop(0) });
    bench.run();
    assert_eq!(*witness.seen.lock(), [status_state::DONE, status_state::FAULT]);
}

#[test]
fn masked_vectors_wait() {
    let bench = Bench::new();
    bench.enable_msix([1]);
    bench.submit(0, nop(0));
    bench.submit(1, nop(1));
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(1)]);
    let mut pending = [0; 8];
    bench.engine.bar_read(2, 0x1000, &mut pending);
    assert_eq!(u64::from_le_bytes(pending), 1);
    bench.engine.bar_write(2, msix::ENTRY_CONTROL, &0u32.to_le_bytes());
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(0)]);

    let control = bench.capability(cap_id::MSIX) + msix::CONTROL;
    bench.engine.config_write(control, &(msix::ENABLE | msix::FUNCTION_MASK).to_le_bytes());
    bench.submit(0, nop(0));
    bench.run();
    assert_eq!(bench.ears.take(), []);
    bench.engine.config_write(control, &msix::ENABLE.to_le_bytes());
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(0)]);
}

#[test]
fn messages_wait_for_bus_master() {
    let bench = Bench::new();
    bench.enable_msix(0..16);
    bench.set_command(0);
    bench.submit(0, nop(2));
    bench.run();
    assert_eq!(bench.ears.take(), []);
    bench.set_command(command::BUS_MASTER);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(2)]);
}

#[test]
fn msi_folds_vectors_and_masks() {
    let bench = Bench::new();
    let at = bench.capability(cap_id::MSI);
    let enable = msi::ENABLE | 2 << msi::ENABLED_SHIFT;
    bench.engine.config_write(at + msi::CONTROL, &enable.to_le_bytes());
    bench.engine.config_write(at + msi::MASK_64, &2u32.to_le_bytes());
    bench.submit(0, nop(3));
    bench.submit(1, nop(6));
    bench.submit(2, nop(5));
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msi(3), Heard::Msi(2)]);
    let mut pending = [0; 4];
    bench.engine.config_read(at + msi::PENDING_64, &mut pending);
    assert_eq!(pending, [2, 0, 0, 0]);
    bench.engine.config_write(at + msi::MASK_64, &0u32.to_le_bytes());
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msi(1)]);
    bench.engine.config_read(at + msi::PENDING_64, &mut pending);
    assert_eq!(pending, [0; 4]);
}

#[test]
fn the_pin_is_a_level() {
    let bench = Bench::new();
    bench.submit(0, nop(0));
    bench.submit(1, nop(9));
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(true)]);
    assert!(interrupt_status(&bench.engine));
    assert_eq!(bench.read(register::INTERRUPT_CAUSE), cause::DONE);

    bench.set_command(command::BUS_MASTER | command::INTX_DISABLE);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(false)]);
    assert!(interrupt_status(&bench.engine), "pending whatever the disable bit says");
    bench.set_command(command::BUS_MASTER);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(true)]);

    bench.write(register::INTERRUPT_CAUSE, cause::ALL);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(false)]);
    assert!(!interrupt_status(&bench.engine));
    assert_eq!(bench.read(register::INTERRUPT_CAUSE), 0);
}

/// The host reads the level itself: after a fall it waits for a rise.
#[test]
fn each_fall_of_the_pin_is_told_before_the_next_rise() {
    let bench = Bench::new();
    bench.submit(0, nop(0));
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(true)]);
    bench.write(register::INTERRUPT_CAUSE, cause::ALL);
    bench.write(register::DOORBELL, 77);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(false), Heard::Pin(true)]);
}

#[test]
fn messages_leave_no_cause_behind() {
    let bench = Bench::new();
    bench.enable_msix(0..16);
    bench.submit(0, nop(3));
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(3)]);
    assert_eq!(bench.read(register::INTERRUPT_CAUSE), 0);
    bench.disable_msix();
    bench.run();
    assert_eq!(bench.ears.take(), [], "the pin stays low");
}

#[test]
fn causes_tell_how_it_ended() {
    let bench = Bench::new();
    let fault = Request { operation: operation::READ, source: RAM - 1, length: 1, ..nop(0) };
    let cases = [
        (nop(0), cause::DONE),
        (fault, cause::FAULT),
        (Request { operation: 0, ..nop(0) }, cause::INVALID),
        (nop(99), cause::INVALID),
    ];
    for (request, expected) in cases {
        bench.submit(0, request);
        bench.run();
        assert_eq!(bench.read(register::INTERRUPT_CAUSE), expected, "{request:?}");
        assert_eq!(bench.ears.take(), [Heard::Pin(true)]);
        bench.write(register::INTERRUPT_CAUSE, expected);
        bench.run();
        assert_eq!(bench.ears.take(), [Heard::Pin(false)]);
    }
    bench.write(register::DOORBELL, 77);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(true)]);
    assert_eq!(bench.read(register::INTERRUPT_CAUSE), cause::REFUSED);
}

#[test]
fn masked_causes_raise_nothing() {
    let bench = Bench::new();
    bench.write(register::INTERRUPT_MASK, cause::DONE);
    bench.submit(0, nop(0));
    bench.run();
    assert_eq!(bench.ears.take(), []);
    bench.write(register::INTERRUPT_MASK, 0);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(true)]);
    bench.write(register::INTERRUPT_MASK, cause::DONE);
    bench.enable_msix(0..16);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(false)]);
    bench.submit(0, nop(0));
    bench.run();
    assert_eq!(bench.ears.take(), []);
}

#[test]
fn a_virtual_function_has_no_pin() {
    let config = Config { vf: true, ..Config::new(ADDRESS.parse().unwrap()) };
    let bench = Bench::with(&config, Ram::new());
    bench.submit(0, nop(0));
    bench.run();
    assert_eq!(bench.status(0).state, status_state::DONE);
    assert_eq!(bench.ears.take(), []);
    bench.enable_msix(0..16);
    bench.submit(0, nop(7));
    bench.run();
    assert_eq!(bench.ears.take_msix(), [7].into());
}

#[test]
fn nobody_hears_while_disconnected() {
    let bench = Bench::new();
    bench.enable_msix(0..16);
    bench.engine.disconnect();
    bench.submit(0, nop(1));
    bench.run();
    let host = HostSide { dma: bench.ram.clone(), interrupts: bench.ears.clone() };
    bench.engine.connect(host);
    bench.run();
    assert_eq!(bench.ears.take(), []);
}

#[test]
fn asleep_it_pauses() {
    let bench = Bench::new();
    bench.enable_msix(0..16);
    let control = bench.capability(cap_id::PM) + pm::CONTROL;
    bench.engine.config_write(control, &pm::D3HOT.to_le_bytes());
    bench.submit(0, nop(1));
    assert_eq!(bench.engine.step(1 << 20), Progress::Idle);
    assert_eq!(bench.status(0).state, status_state::PENDING);
    bench.engine.config_write(control, &[0; 2]);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(1)]);
}
