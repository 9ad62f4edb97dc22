//! Everything that the engine's one lock guards, and what happens under it.
//!
//! Nothing here calls the host side or waits. A step of a transfer is cut out with
//! [`State::cut_step`], run by the caller without the lock, and given back to
//! [`State::finish_step`]; the generation tells whether what it was part of still stands.

use std::collections::VecDeque;
use std::sync::Arc;

use pci::{
    Bar, ConfigSpace, Dma, DmaAccess, DmaFault, DmaFaultReason, HostSide, PowerState, Reset,
};
use tdisp::Breach;

use super::descriptor::{Job, Work};
use super::gate::{Fixed, Security};
use super::mailbox::Mailbox;
use super::memory::{BarMemory, End};
use super::registers::{QueueView, Registers, Request, dwords};
use super::regs::{self, bar0, cause, flag, register, status_state};
use super::signals::{self, Signals};
use super::transfer::Step;

/// What a doorbell calls.
pub(super) type Waker = Arc<dyn Fn() + Send + Sync>;

/// The engine behind its lock.
pub(super) struct State {
    pub(super) config: ConfigSpace,
    pub(super) registers: Registers,
    pub(super) memory: BarMemory,
    /// BAR 4, which the engine itself never uses.
    pub(super) spare: BarMemory,
    pub(super) signals: Signals,
    pub(super) security: Security,
    pub(super) mailbox: Option<Mailbox>,
    /// Whether the engine can do trusted DMA.
    tee: bool,
    pub(super) host: Option<HostSide>,
    pub(super) waker: Option<Waker>,
    /// No step begins: the host said stop.
    pub(super) stopped: bool,
    /// No step begins: how many threads wait to end what is queued.
    pub(super) draining: u32,
    /// A step runs outside the lock.
    pub(super) in_flight: bool,
    /// Counts what makes a running step's work void: aborts and resets.
    pub(super) generation: u64,
    /// Descriptors in the order of their doorbells; the first may be running.
    queue: VecDeque<Job>,
    /// Whether the first of the queue has begun.
    running: bool,
    /// The step buffer, while no step has it.
    buffer: Vec<u8>,
}

/// What a write to config space broke.
pub(super) struct Judgement {
    /// The engine's own configuration.
    pub(super) broke: bool,
    /// The places of virtual functions, by index.
    pub(super) virtual_functions: Vec<(u16, Breach)>,
}

/// What [`State::cut_step`] found to do.
pub(super) enum Cut {
    /// To be run outside the lock and given back.
    Step(Step),
    /// A descriptor ended without one.
    Ended(Option<Refused>),
    /// Nothing may begin now.
    Nothing,
}

/// An access that the engine's security refused, and who is to hear of it.
pub(super) type Refused = (Arc<dyn Dma>, DmaFault);

impl State {
    pub(super) fn new(config: ConfigSpace, tee: bool, bar4_bytes: u64) -> Self {
        Self {
            mailbox: Mailbox::find(&config),
            config,
            registers: Registers::default(),
            memory: BarMemory::new(bar0::DESCRIPTORS, bar0::SIZE),
            spare: BarMemory::new(0, bar4_bytes),
            signals: Signals::new(),
            security: Security::default(),
            tee,
            host: None,
            waker: None,
            stopped: false,
            draining: 0,
            in_flight: false,
            generation: 0,
            queue: VecDeque::new(),
            running: false,
            buffer: Vec::new(),
        }
    }

    /// Queues the descriptor of a slot. Refused where there is no such slot, or the slot's last
    /// descriptor has not ended.
    pub(super) fn ring(&mut self, slot: u32) {
        if slot >= regs::SLOTS || self.queue.iter().any(|job| job.slot == slot) {
            self.registers.refuse();
        } else {
            let flags = if self.tee { flag::ALL } else { flag::ALL & !flag::TRUSTED };
            let job = self.memory.job(slot, flags);
            self.memory.show_progress(&job, status_state::PENDING);
            self.queue.push_back(job);
        }
        self.refresh();
    }

    /// Writes a register of BAR 0 and does what it asks for, but for what has to wait.
    pub(super) fn write_register(&mut self, offset: u64, value: u32) -> Request {
        let request = self.registers.write(offset, value);
        if let Request::Ring(slot) = request {
            self.ring(slot);
            return Request::None;
        }
        self.refresh();
        request
    }

    /// Writes config space, the mailbox in it included.
    pub(super) fn write_config(&mut self, offset: u16, from: &[u8]) {
        self.config.write(offset, from);
        if let Some(mailbox) = &mut self.mailbox {
            for (offset, value) in dwords(offset.into(), from) {
                mailbox.write(offset, value, &mut self.config);
            }
        }
    }

    /// Judges a write to config space that was as `before`: closes the gate if it broke what is fixed
    /// there. Returns whether it did, and which virtual functions, by index, it took away or moved.
    pub(super) fn judge(&mut self, before: &Fixed, bars: &[Option<Bar>]) -> Judgement {
        let after = Fixed::of(&self.config);
        let broke = before.broken_by(&after).any(|breach| self.security.breach(breach));
        if before.virtualization == after.virtualization {
            return Judgement { broke, virtual_functions: Vec::new() };
        }
        self.security.vf_changes += 1;
        let sizes: Vec<_> = bars
            .iter()
            .enumerate()
            .filter_map(|(index, bar)| Some((index, bar.as_ref()?.size)))
            .collect();
        let virtual_functions = before.virtual_functions_broken_by(&after, &sizes);
        Judgement { broke, virtual_functions }
    }

    /// Ends everything queued and shows all ones, where the interface is in `ERROR`. Returns what the
    /// running descriptor is told.
    pub(super) fn fall_silent(&mut self) -> Option<Refused> {
        if !self.security.is_broken() {
            return None;
        }
        let told = self.queue.front().filter(|_| self.running).and_then(|job| {
            let fault = refused(job.work.ok()?, job.done, DmaFaultReason::TdiInError);
            Some((self.host.as_ref()?.dma.clone(), fault))
        });
        while let Some(job) = self.queue.pop_front() {
            let work = job.work.unwrap_or(Work::Nop);
            let fault = refused(work, job.done, DmaFaultReason::TdiInError);
            self.memory.show_end(&job, End::Fault(fault));
        }
        self.running = false;
        self.registers.cause = 0;
        self.signals.reset(None);
        self.refresh();
        self.read_as_ones();
        told
    }

    /// A register of BAR 0.
    pub(super) fn read_register(&self, offset: u64) -> u32 {
        let first = self.queue.front().filter(|_| self.running);
        let queue = QueueView {
            // At most one descriptor a slot.
            queued: u32::try_from(self.queue.len()).unwrap_or(regs::SLOTS),
            running: first.map(|job| job.slot),
        };
        let value = self.registers.read(offset, queue);
        let trusted = self.tee && offset == register::CAPABILITIES;
        value | if trusted { regs::CAPABILITY_TRUSTED } else { 0 }
    }

    /// Brings the signals in line with the registers and config space after either changed.
    pub(super) fn refresh(&mut self) {
        self.signals.refresh(&mut self.config, self.registers.wants_attention());
    }

    /// Whether a step would find something to do.
    pub(super) fn has_work(&self) -> bool {
        let signal = self.host.is_some() && self.signals.peek(&self.config).is_some();
        signal || self.may_work() && !self.queue.is_empty()
    }

    /// Cuts the next step of at most `bytes_max`, which is not zero, off the first descriptor, or
    /// ends it where it has none.
    pub(super) fn cut_step(&mut self, bytes_max: usize) -> Cut {
        let may_begin = self.may_work() && !self.in_flight;
        let Some(job) = self.queue.front().filter(|_| may_begin) else { return Cut::Nothing };
        if !self.running {
            self.memory.show_progress(job, status_state::RUNNING);
            self.running = true;
        }
        let (done, remaining) = (job.done, job.remaining());
        let work = match job.work {
            Err(reason) => return self.end_now(End::Invalid(reason)),
            Ok(work) if job.trusted && !self.security.runs() => {
                return self.refuse(refused(work, done, DmaFaultReason::TdiNotInRun));
            }
            Ok(_) if remaining == 0 => return self.end_now(End::Done),
            Ok(work) => work,
        };
        let dma = match self.way_to_memory() {
            Err(reason) => return self.end_now(End::Fault(refused(work, done, reason))),
            Ok(dma) => dma,
        };
        let trusted = job.trusted;
        let length = bytes_max.min(regs::STEP_MAX).min(to_usize(remaining));
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.resize(length, 0);
        if let Work::Write { window, .. } = work {
            self.memory.read(window_offset(window, done), &mut bytes);
        }
        self.in_flight = true;
        Cut::Step(Step { dma, work, trusted, done, bytes, generation: self.generation })
    }

    /// Takes a step back with what came of it.
    pub(super) fn finish_step(&mut self, step: Step, outcome: Result<(), DmaFault>) {
        self.in_flight = false;
        if step.generation == self.generation {
            match outcome {
                Ok(()) => self.advance(&step),
                Err(fault) => self.end_first(End::Fault(fault)),
            }
        }
        self.buffer = step.bytes;
    }

    /// Ends everything queued, the running descriptor included.
    pub(super) fn abort(&mut self) {
        while !self.queue.is_empty() {
            self.end_first(End::Aborted);
        }
    }

    /// Puts the engine back to its reset state: what BAR 0 shows, and the function around it where a
    /// reset of that kind came from the host.
    pub(super) fn reset(&mut self, kind: Option<Reset>) {
        self.queue.clear();
        self.running = false;
        self.registers = Registers::default();
        self.memory.clear();
        self.spare.clear();
        self.signals.reset(kind);
        if let Some(kind) = kind {
            self.config.reset(kind);
            if let Some(mailbox) = &mut self.mailbox {
                mailbox.reset(&mut self.config);
            }
            self.security.vf_changes += 1;
        }
        if self.security.is_broken() {
            self.read_as_ones();
        }
        self.refresh();
    }

    /// What memory of an interface in `ERROR` reads as.
    pub(super) fn read_as_ones(&self) {
        self.memory.fill(u8::MAX);
        self.spare.fill(u8::MAX);
    }

    fn may_work(&self) -> bool {
        !self.stopped
            && self.draining == 0
            && !self.security.is_broken()
            && self.registers.enabled
            && self.config.power_state() == PowerState::D0
    }

    fn way_to_memory(&self) -> Result<Arc<dyn Dma>, DmaFaultReason> {
        if !self.config.bus_master() {
            return Err(DmaFaultReason::BusMasterOff);
        }
        let host = self.host.as_ref().ok_or(DmaFaultReason::NotAttached)?;
        Ok(host.dma.clone())
    }

    fn advance(&mut self, step: &Step) {
        if let Work::Read { window, .. } = step.work {
            self.memory.write(window_offset(window, step.done), &step.bytes);
        }
        let Some(job) = self.queue.front_mut() else { return };
        // A step is at most 64 KiB and never more than what remained.
        job.done += u32::try_from(step.bytes.len()).unwrap_or(0);
        if job.remaining() == 0 {
            self.end_first(End::Done);
        } else {
            self.memory.show_progress(job, status_state::RUNNING);
        }
    }

    fn end_now(&mut self, end: End) -> Cut {
        self.end_first(end);
        Cut::Ended(None)
    }

    /// Ends the first descriptor by a fault of which the host hears too.
    fn refuse(&mut self, fault: DmaFault) -> Cut {
        self.end_first(End::Fault(fault));
        Cut::Ended(self.host.as_ref().map(|host| (host.dma.clone(), fault)))
    }

    /// Takes the first descriptor off the queue, shows its end, and only then raises its interrupt.
    fn end_first(&mut self, end: End) {
        let Some(job) = self.queue.pop_front() else { return };
        self.running = false;
        self.memory.show_end(&job, end);
        self.registers.count_end(matches!(end, End::Fault(_)));
        if let Some(vector) = job.vector {
            self.raise(vector, cause_of(end));
        }
        self.refresh();
    }

    /// A message says all that its cause would; only a cause that goes out by the pin, or not at all, is
    /// kept until it is read. So no pin is left high when a driver that used messages turns them off.
    fn raise(&mut self, vector: u16, cause: u32) {
        if signals::uses_messages(&self.config) && self.registers.is_unmasked(cause) {
            if self.host.is_some() {
                self.signals.raise(vector, &self.config);
            }
        } else {
            self.registers.cause |= cause;
        }
    }
}

fn cause_of(end: End) -> u32 {
    match end {
        End::Done => cause::DONE,
        End::Fault(_) => cause::FAULT,
        End::Aborted => cause::ABORTED,
        End::Invalid(_) => cause::INVALID,
    }
}

/// The fault of a step that never left the engine: its first access is the one refused.
fn refused(work: Work, done: u32, reason: DmaFaultReason) -> DmaFault {
    let (start, access) = match work {
        Work::Nop => (0, DmaAccess::Read),
        Work::Copy { source, .. } | Work::Read { source, .. } => (source, DmaAccess::Read),
        Work::Fill { destination, .. } | Work::Write { destination, .. } => {
            (destination, DmaAccess::Write)
        }
    };
    DmaFault { iova: start.wrapping_add(u64::from(done)), access, reason }
}

fn window_offset(window: u32, done: u32) -> u64 {
    bar0::WINDOW + u64::from(window) + u64::from(done)
}

fn to_usize(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
