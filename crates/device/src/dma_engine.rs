//! The reference DMA engine: moves memory between I/O virtual addresses. Its datasheet is
//! `docs/dma-engine.md`, its numbers are in [`regs`].
//!
//! A client writes descriptors into memory that it maps, rings a doorbell in a trapped page, and
//! reads status blocks in mapped memory. The engine works in [`step`](Function::step)s of at most
//! 64 KiB, called by one worker.
//!
//! # Locks
//! One lock of rank [`sync::rank::Function`] guards all state. It is held neither while [`pci::Dma`],
//! [`pci::Interrupts`] nor the waker is called. Interrupts are delivered by `step` only, never from a
//! config or BAR access, so a host may access the function under locks that its interrupt path
//! takes. `stop`, `disconnect`, `reset`, a config write that begins a function-level reset, a register
//! write that aborts or resets, and a write that breaks what TDISP has locked wait until no DMA is
//! running: at most one step. They must not be called from within [`pci::Dma`].
//!
//! # Deliberately absent
//! The engine does not know whether its BARs are decoded: who routes accesses to it does.

mod descriptor;
mod gate;
mod identity;
mod interface;
mod mailbox;
mod memory;
mod options;
mod registers;
pub mod regs;
mod signals;
mod state;
mod transfer;

use std::sync::Arc;

use mem::Pages;
use pci::{Address, Bar, Function, HostSide, Progress, Reset};
use sync::{Guard, Mutex, WaitQueue, rank};
use tdisp::Breach;

use self::descriptor::DESCRIPTOR_SIZE;
use self::gate::Fixed;
use self::mailbox::Mailbox;
use self::registers::{Request, dwords, read_bytes};
use self::regs::{bar0, bar2, bar4};
use self::signals::Signal;
use self::state::{Cut, Judgement, Refused, State, Waker};
use self::transfer::Step;
use crate::security::{Interface, Raised};

pub use self::options::{BadOption, KEYS};

/// How a DMA engine is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it sits.
    pub address: Address,
    /// Vendor ID; VFs read as all ones and have it from their physical function.
    pub vendor_id: u16,
    /// Device ID, likewise.
    pub device_id: u16,
    /// The width of BAR 0.
    pub bar0: Bar0Width,
    /// Whether clients may map the memory in BAR 0.
    pub bar0_mapping: Bar0Mapping,
    /// The size of BAR 4, if there is to be one: a power of two from [`regs::bar4::SIZE_MIN`] to
    /// [`regs::bar4::SIZE_MAX`].
    pub bar4_bytes: Option<u64>,
    /// Whether it takes part in TEE-IO: says so in Device Capabilities, and has DOE and IDE.
    pub tee: bool,
    /// Whether its device has other functions.
    pub multi_function: bool,
    /// Whether it is a virtual function: no INTx, no BARs and no IDs in config space.
    pub vf: bool,
    /// The virtual functions that a physical function can have.
    pub sriov: Option<Sriov>,
    /// The device serial number.
    pub serial: Option<u64>,
}

/// How many address bits BAR 0 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar0Width {
    /// Below 4 GiB.
    Bits32,
    /// Anywhere; takes BAR 1 too.
    Bits64,
}

/// Whether clients may map the memory in BAR 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar0Mapping {
    /// All but the page with registers, as the sparse-mmap capability says.
    Sparse,
    /// Not at all: for clients that take a BAR for mappable as a whole or not at all.
    None,
}

/// The virtual functions that a physical function can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sriov {
    /// How many.
    pub total_vfs: u16,
    /// Requester ID of the first less that of the physical function.
    pub first_offset: u16,
    /// Requester IDs from one to the next.
    pub stride: u16,
}

impl Config {
    /// A plain endpoint at `address` with a 64-bit BAR 0.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            vendor_id: regs::VENDOR_ID,
            device_id: regs::DEVICE_ID,
            bar0: Bar0Width::Bits64,
            bar0_mapping: Bar0Mapping::Sparse,
            bar4_bytes: None,
            tee: false,
            multi_function: false,
            vf: false,
            sriov: None,
            serial: None,
        }
    }
}

/// A DMA engine.
pub struct DmaEngine {
    address: Address,
    bars: [Option<Bar>; 6],
    is_virtual: bool,
    state: Mutex<rank::Function, State>,
    /// Woken when a step ends.
    step_ended: WaitQueue,
}

impl DmaEngine {
    /// An engine after power-on, not connected to a host. BARs that may be mapped have no memory yet; one that may
    /// not has its own, or none where the system has none left: then it reads as zero.
    pub fn new(config: &Config) -> Arc<Self> {
        let bars = identity::bars(config);
        let space = identity::config_space(config, &bars);
        let mut state = State::new(space, config.tee, config.bar4_bytes.unwrap_or(0));
        if config.bar0_mapping == Bar0Mapping::None
            && let Ok(pages) = Pages::anonymous(BAR0_BYTES)
        {
            // Nobody lends pages for what nobody may map.
            state.memory.back(Arc::new(pages));
        }
        Arc::new(Self {
            address: config.address,
            bars,
            is_virtual: config.vf,
            state: Mutex::new(state),
            step_ended: WaitQueue::new(),
        })
    }

    /// Voids what is running, waits until it has stopped, then changes the state.
    fn interrupt<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        state.draining += 1;
        state.generation += 1;
        let mut state = self.no_step_runs(state);
        let result = change(&mut state);
        state.draining -= 1;
        drop(state);
        self.wake();
        result
    }

    fn no_step_runs<'a>(
        &self,
        state: Guard<'a, rank::Function, State>,
    ) -> Guard<'a, rank::Function, State> {
        self.step_ended.wait_while(state, |state| state.in_flight)
    }

    /// Calls the waker if there is something to do.
    fn wake(&self) {
        let waker: Option<Waker> = {
            let state = self.state.lock();
            state.waker.clone().filter(|_| state.has_work())
        };
        if let Some(waker) = waker {
            waker();
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        let request = {
            let mut state = self.state.lock();
            if state.security.is_broken() {
                return;
            }
            state.write_register(offset, value)
        };
        match request {
            Request::None | Request::Ring(_) => {}
            Request::Abort => self.interrupt(State::abort),
            // Also puts back the ENABLE that came with the request.
            Request::SoftReset => self.interrupt(|state| state.reset(None)),
        }
    }

    /// Runs a step without the lock and returns its bytes.
    fn run(&self, mut step: Step) -> usize {
        let outcome = step.run(|generation| self.state.lock().generation == generation);
        let length = step.bytes.len();
        self.state.lock().finish_step(step, outcome);
        self.step_ended.wake_all();
        length
    }

    /// Writes to the MSI-X table, which may be locked.
    fn write_table(&self, offset: u64, from: &[u8]) {
        let broke = {
            let mut state = self.state.lock();
            if state.security.is_broken() {
                return;
            }
            let mut changed = false;
            for (offset, value) in dwords(offset, from) {
                changed |= state.signals.write(offset, value);
            }
            changed && state.security.breach(Breach::MsixWritten)
        };
        self.act_on(Judgement { broke, virtual_functions: Vec::new() });
    }

    /// Does what a write that broke something leads to. Returns when no DMA runs that it forbids.
    fn act_on(&self, judgement: Judgement) {
        if judgement.broke {
            self.fall_silent();
        }
        let Judgement { broke: events, virtual_functions } = judgement;
        if events || !virtual_functions.is_empty() {
            let virtual_functions = self.by_requester_id(virtual_functions);
            self.raise(Raised { events, virtual_functions, reset: None });
        }
    }

    /// Ends all work once the interface is in `ERROR`.
    fn fall_silent(&self) {
        tell(self.interrupt(State::fall_silent));
    }

    /// Tells the security manager what happened, if there is one.
    fn raise(&self, raised: Raised) {
        let alarm = self.state.lock().security.alarm.clone();
        if let Some(alarm) = alarm.and_then(|alarm| alarm.upgrade()) {
            alarm.raised(self.requester_id(), raised);
        }
    }

    /// Delivers what there is to tell.
    fn deliver(&self) {
        loop {
            let (host, signal) = {
                let mut state = self.state.lock();
                let state = &mut *state;
                let Some(host) = &state.host else { return };
                let Some(signal) = state.signals.next(&mut state.config) else { return };
                (host.interrupts.clone(), signal)
            };
            match signal {
                Signal::Msix(vector) => host.msix(vector),
                Signal::Msi(vector) => host.msi(vector),
                Signal::Pin(asserted) => host.intx(asserted),
            }
        }
    }
}

impl Function for DmaEngine {
    fn address(&self) -> Address {
        self.address
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.state.lock().config.read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        let (resets, judgement, sent) = {
            let mut state = self.state.lock();
            let resets = state.config.initiates_flr(offset, from);
            let before = Fixed::of(&state.config);
            state.write_config(offset, from);
            let judgement = state.judge(&before, &self.bars);
            state.refresh();
            (resets, judgement, state.mailbox.as_mut().and_then(Mailbox::take_sent))
        };
        self.act_on(judgement);
        if let Some(sent) = sent {
            self.answer(&sent);
        }
        if resets {
            self.reset(Reset::Function);
        } else {
            self.wake();
        }
    }

    fn bar(&self, index: usize) -> Option<&Bar> {
        self.bars.get(index)?.as_ref()
    }

    fn bar_read(&self, index: usize, offset: u64, into: &mut [u8]) {
        let state = self.state.lock();
        if state.security.is_broken() {
            into.fill(u8::MAX);
            return;
        }
        match index {
            bar0::INDEX if offset < bar0::REGISTERS_LENGTH => {
                read_bytes(offset, into, |offset| state.read_register(offset));
            }
            bar0::INDEX => state.memory.read(offset, into),
            bar2::INDEX => read_bytes(offset, into, |offset| state.signals.read(offset)),
            bar4::INDEX => state.spare.read(offset, into),
            _ => into.fill(u8::MAX),
        }
    }

    fn bar_write(&self, index: usize, offset: u64, from: &[u8]) {
        match index {
            bar0::INDEX if offset < bar0::REGISTERS_LENGTH => {
                for (offset, value) in dwords(offset, from) {
                    self.write_register(offset, value);
                }
            }
            bar0::INDEX => {
                let state = self.state.lock();
                if !state.security.is_broken() {
                    state.memory.write(offset, from);
                }
            }
            bar2::INDEX => self.write_table(offset, from),
            bar4::INDEX => {
                let state = self.state.lock();
                if !state.security.is_broken() {
                    state.spare.write(offset, from);
                }
            }
            _ => {}
        }
        self.wake();
    }

    fn back_bar(&self, index: usize, pages: Arc<Pages>) {
        let mut state = self.state.lock();
        match index {
            bar0::INDEX => state.memory.back(pages),
            bar4::INDEX => state.spare.back(pages),
            _ => return,
        }
        if state.security.is_broken() {
            state.read_as_ones();
        }
    }

    fn connect(&self, host: HostSide) {
        let mut state = self.state.lock();
        state.host = Some(host);
        state.signals.forget_pin();
        drop(state);
        self.wake();
    }

    fn disconnect(&self) {
        let mut state = self.state.lock();
        state.host = None;
        drop(self.no_step_runs(state));
    }

    fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        drop(self.no_step_runs(state));
    }

    fn start(&self) {
        self.state.lock().stopped = false;
        self.wake();
    }

    fn reset(&self, kind: Reset) {
        let events = self.interrupt(|state| {
            let events = state.security.reset(kind);
            state.reset(Some(kind));
            events
        });
        self.raise(Raised { events, reset: Some(kind), ..Raised::default() });
    }

    fn step(&self, budget_bytes: usize) -> Progress {
        let mut left = budget_bytes;
        self.deliver();
        while left > 0 {
            let cut = self.state.lock().cut_step(left);
            let cost = match cut {
                Cut::Nothing => break,
                Cut::Ended(refused) => {
                    tell(refused);
                    0
                }
                Cut::Step(step) => self.run(step),
            };
            left = left.saturating_sub(cost.max(DESCRIPTOR_COST));
            self.deliver();
        }
        if self.state.lock().has_work() { Progress::More } else { Progress::Idle }
    }

    fn set_waker(&self, waker: Arc<dyn Fn() + Send + Sync>) {
        self.state.lock().waker = Some(waker);
        self.wake();
    }
}

/// Lets the host hear of an access that never left the engine.
fn tell(refused: Option<Refused>) {
    if let Some((dma, fault)) = refused {
        dma.refused(&fault);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a few pages")]
const BAR0_BYTES: usize = bar0::SIZE as usize;

/// What a descriptor that moves nothing costs of a step's budget, in bytes.
const DESCRIPTOR_COST: usize = DESCRIPTOR_SIZE;
