//! A function that writes down what is done to it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use mem::Pages;
use pci::capability::{
    BarOffset, CapabilityBlock, ExpressEndpoint, Msi, MsixTable, express_endpoint,
    message_signalled, msix, power_management, vendor_specific,
};
use pci::extended::{
    ExtendedBlock, VirtualFunctions, data_object_exchange, error_reporting, serial_number,
    single_root_virtualization,
};
use pci::regs::{cap_id, ext_id, pm};
use pci::{
    Address, Bar, BarKind, ConfigBuilder, ConfigSpace, Function, HostSide, Identity, Progress,
    RegisterBlock, Reset,
};
use sync::{Mutex, rank};

use super::NoLock;

/// MSI-X vectors of a [`Fake`].
pub(crate) const VECTORS: u16 = 8;
/// Where its MSI-X table begins in BAR 0.
pub(crate) const TABLE_AT: u64 = 0x800;

/// What a [`Fake`] can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) pin: bool,
    pub(crate) msi: bool,
    pub(crate) msix: bool,
    pub(crate) function_level_reset: bool,
    pub(crate) physical_function: bool,
    pub(crate) virtual_function: bool,
    /// Whether waking up from D3hot resets it.
    pub(crate) soft_reset: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            pin: true,
            msi: true,
            msix: true,
            function_level_reset: true,
            physical_function: false,
            virtual_function: false,
            soft_reset: false,
        }
    }
}

/// A function with registers that only keep what is written.
pub(crate) struct Fake {
    address: Address,
    bars: [Option<Bar>; 6],
    state: Mutex<rank::Function, State>,
    no_lock: NoLock,
}

struct State {
    config: ConfigSpace,
    memory: [Vec<u8>; 6],
    host: Option<HostSide>,
    backed: [Option<Arc<Pages>>; 6],
    events: Vec<String>,
    accesses: Vec<String>,
    config_accesses: Vec<String>,
    gate: Option<Gate>,
    reset_gate: Option<Gate>,
}

/// Where a read of a BAR or a reset is held up: it says that it has come, and goes on once it is told to.
pub(crate) type Gate = (Sender<()>, Receiver<()>);

impl Fake {
    pub(crate) fn new(address: Address, shape: Shape) -> Arc<Self> {
        let bars = bars();
        let memory = std::array::from_fn(|index| {
            let size = bars[index].as_ref().map_or(0, |bar| bar.size);
            vec![0; usize::try_from(size).unwrap()]
        });
        let state = State {
            config: config(shape, &bars),
            memory,
            host: None,
            backed: Default::default(),
            events: Vec::new(),
            accesses: Vec::new(),
            config_accesses: Vec::new(),
            gate: None,
            reset_gate: None,
        };
        let fake = Self { address, bars, state: Mutex::new(state), no_lock: NoLock::default() };
        fake.config_write(pci::regs::header::BAR0, &0x4000_0000_u32.to_le_bytes());
        Arc::new(fake)
    }

    /// What was done to it since the last call.
    pub(crate) fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().events)
    }

    /// How its BARs were accessed since the last call.
    pub(crate) fn accesses(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().accesses)
    }

    /// How its config space was accessed since the last call.
    pub(crate) fn config_accesses(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().config_accesses)
    }

    /// Its config space.
    pub(crate) fn real_config(&self) -> ConfigSpace {
        self.state.lock().config.clone()
    }

    /// Whom it is connected to.
    pub(crate) fn host(&self) -> Option<HostSide> {
        self.state.lock().host.clone()
    }

    pub(crate) fn backing(&self, index: usize) -> Option<Arc<Pages>> {
        self.state.lock().backed[index].clone()
    }

    pub(crate) fn bar_bytes(&self, index: usize, offset: usize, length: usize) -> Vec<u8> {
        self.state.lock().memory[index][offset..offset + length].to_vec()
    }

    /// Holds the next read of a BAR up.
    pub(crate) fn hold_next_read(&self, gate: Gate) {
        self.state.lock().gate = Some(gate);
    }

    /// Holds the next reset up.
    pub(crate) fn hold_next_reset(&self, gate: Gate) {
        self.state.lock().reset_gate = Some(gate);
    }

    /// Changes the level of its pin without telling.
    pub(crate) fn set_pin(&self, asserted: bool) {
        let bits = if asserted { pci::regs::status::INTERRUPT } else { 0 };
        let mut state = self.state.lock();
        state.config.set_bits(pci::regs::header::STATUS, pci::regs::status::INTERRUPT, bits);
    }

    /// Changes the level of its pin and tells its host.
    pub(crate) fn pull_pin(&self, asserted: bool) {
        self.set_pin(asserted);
        if let Some(host) = self.host() {
            host.interrupts.intx(asserted);
        }
    }

    /// Shows an error in the Status register.
    pub(crate) fn raise_status(&self, bits: u16) {
        self.state.lock().config.set_bits(pci::regs::header::STATUS, bits, bits);
    }

    fn note(&self, event: impl Into<String>) {
        self.no_lock.check();
        self.state.lock().events.push(event.into());
    }
}

fn bars() -> [Option<Bar>; 6] {
    let bar = |kind, size, mappable: &[(u64, u64)], msix_table| {
        Some(Bar { kind, size, mappable: mappable.to_vec(), msix_table })
    };
    let table = Some((TABLE_AT, u64::from(VECTORS) * 16));
    [
        bar(
            BarKind::Memory64 { prefetchable: true },
            0x4000,
            &[(0x2000, 0x1000), (0x1000, 0x1000)],
            table,
        ),
        None,
        bar(BarKind::Memory32 { prefetchable: false }, 0x1000, &[(0, 0x1000)], None),
        bar(BarKind::Memory32 { prefetchable: false }, 0x100, &[], None),
        bar(BarKind::Io, 0x20, &[], None),
        None,
    ]
}

fn config(shape: Shape, bars: &[Option<Bar>; 6]) -> ConfigSpace {
    let identity = Identity {
        vendor_id: 0x1234,
        device_id: 0x5678,
        revision: 1,
        class_code: 0x08_80_00,
        subsystem_vendor_id: 0x1234,
        subsystem_id: 0x5678,
        multi_function: false,
    };
    let express = ExpressEndpoint {
        function_level_reset: shape.function_level_reset,
        tee_io: false,
        virtual_function: shape.virtual_function,
    };
    let table = MsixTable {
        vectors: VECTORS,
        table: BarOffset { bar: 0, offset: u32::try_from(TABLE_AT).unwrap() },
        pba: BarOffset { bar: 0, offset: 0xc00 },
    };
    let msi = Msi { vectors_lg2: 2, address_64: true, maskable: true };
    let mut builder = ConfigBuilder::endpoint(&identity);
    if shape.virtual_function {
        builder = builder.virtual_function();
    } else {
        for (index, bar) in bars.iter().enumerate() {
            if let Some(bar) = bar {
                builder = builder.bar(index, bar);
            }
        }
        builder = builder.capability(if shape.soft_reset {
            let registers = RegisterBlock::new(pm::LENGTH);
            CapabilityBlock::new(cap_id::PM, registers.word(pm::CONTROL, 0, pm::STATE))
        } else {
            power_management()
        });
    }
    if shape.pin {
        builder = builder.interrupt_pin_a();
    }
    builder = builder.capability(vendor_specific(&[1, 2, 3, 4]));
    if shape.msi {
        builder = builder.capability(message_signalled(msi));
    }
    builder = builder.capability(express_endpoint(express));
    if shape.msix {
        builder = builder.capability(msix(table));
    }
    builder = builder
        .extended(data_object_exchange())
        .extended(error_reporting(false))
        .extended(data_object_exchange())
        .extended(serial_number(0x1122_3344_5566_7788))
        .extended(ExtendedBlock::new(ext_id::PASID, 1, RegisterBlock::new(8)))
        .extended(ExtendedBlock::new(ext_id::IDE, 1, RegisterBlock::new(0x20)));
    if shape.physical_function {
        builder = builder.extended(single_root_virtualization(&VirtualFunctions {
            total_vfs: 2,
            first_offset: 1,
            stride: 1,
            device_id: 0x5679,
            function: 0,
            bars: Default::default(),
        }));
    }
    builder.build().unwrap()
}

fn pass(gate: Option<Gate>) {
    if let Some((come, go)) = gate {
        come.send(()).unwrap();
        go.recv().unwrap();
    }
}

impl Function for Fake {
    fn address(&self) -> Address {
        self.address
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        let mut state = self.state.lock();
        state.config_accesses.push(format!("read {offset:#x} {}", into.len()));
        state.config.read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        self.no_lock.check();
        let mut state = self.state.lock();
        state.config_accesses.push(format!("write {offset:#x} {}", from.len()));
        state.config.write(offset, from);
    }

    fn bar(&self, index: usize) -> Option<&Bar> {
        self.bars.get(index)?.as_ref()
    }

    fn bar_read(&self, index: usize, offset: u64, into: &mut [u8]) {
        self.no_lock.check();
        let gate = self.state.lock().gate.take();
        pass(gate);
        let mut state = self.state.lock();
        state.accesses.push(format!("read {index} {offset:#x} {}", into.len()));
        assert!(into.len().is_power_of_two() && into.len() <= 8);
        assert!(offset.is_multiple_of(into.len() as u64));
        let at = usize::try_from(offset).unwrap();
        into.copy_from_slice(&state.memory[index][at..at + into.len()]);
    }

    fn bar_write(&self, index: usize, offset: u64, from: &[u8]) {
        self.no_lock.check();
        let mut state = self.state.lock();
        state.accesses.push(format!("write {index} {offset:#x} {}", from.len()));
        assert!(from.len().is_power_of_two() && from.len() <= 8);
        assert!(offset.is_multiple_of(from.len() as u64));
        let at = usize::try_from(offset).unwrap();
        state.memory[index][at..at + from.len()].copy_from_slice(from);
    }

    fn back_bar(&self, index: usize, pages: Arc<Pages>) {
        self.no_lock.check();
        self.state.lock().backed[index] = Some(pages);
    }

    fn connect(&self, host: HostSide) {
        self.note("connect");
        self.state.lock().host = Some(host);
    }

    fn disconnect(&self) {
        self.note("disconnect");
        let host = self.state.lock().host.take();
        drop(host);
    }

    /// Notes whether DMA still gets through, as it must while some may be running.
    fn stop(&self) {
        let attached = self.host().is_some_and(|host| host.dma.read(0, &mut [0]).is_ok());
        self.note(if attached { "stop, attached" } else { "stop" });
    }

    fn start(&self) {
        self.note("start");
    }

    fn reset(&self, kind: Reset) {
        let gate = self.state.lock().reset_gate.take();
        pass(gate);
        self.note(match kind {
            Reset::Function => "reset function",
            Reset::Bus => "reset bus",
        });
        self.state.lock().config.reset(kind);
    }

    fn step(&self, _: usize) -> Progress {
        Progress::Idle
    }

    fn set_waker(&self, _: Arc<dyn Fn() + Send + Sync>) {}
}
