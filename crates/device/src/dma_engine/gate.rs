//! The engine's own view of its TDISP interface: what it may do, changed under the engine's lock
//! together with what changes it.
//!
//! A write that breaks what LOCK fixed closes the gate before it returns the lock, so no trusted
//! access begins after it. What happened waits here until the device's security manager takes it.
//! Takes no lock.

use std::sync::Weak;

use pci::regs::{command, header};
use pci::{ConfigSpace, PowerState, Reset, Virtualization};
use tdisp::{Breach, FunctionReset, State};

use crate::security::{Alarm, Event, Terms};

/// The gate, and what happened to it.
#[derive(Default)]
pub(super) struct Security {
    gate: Gate,
    /// What the manager has not taken yet: at most a breach and what ended it.
    events: Vec<Event>,
    /// Who hears that something happened.
    pub(super) alarm: Option<Weak<dyn Alarm>>,
    /// Counts changes of where virtual functions lie.
    pub(super) vf_changes: u64,
}

#[derive(Default)]
enum Gate {
    #[default]
    Open,
    Locked(Terms),
    Run(Terms),
    Error(FunctionReset),
}

impl Security {
    pub(super) fn state(&self) -> State {
        match self.gate {
            Gate::Open => State::Unlocked,
            Gate::Locked(_) => State::Locked,
            Gate::Run(_) => State::Run,
            Gate::Error(_) => State::Error,
        }
    }

    /// Whether trusted DMA may be done.
    pub(super) fn runs(&self) -> bool {
        matches!(self.gate, Gate::Run(_))
    }

    /// Whether nothing may be done.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.gate, Gate::Error(_))
    }

    /// Fixes the configuration.
    pub(super) fn lock(&mut self, terms: Terms) {
        self.gate = Gate::Locked(terms);
    }

    /// Lets trusted DMA be done; false where the interface is not locked.
    pub(super) fn start(&mut self) -> bool {
        match std::mem::take(&mut self.gate) {
            Gate::Locked(terms) => {
                self.gate = Gate::Run(terms);
                true
            }
            other @ (Gate::Open | Gate::Run(_) | Gate::Error(_)) => {
                self.gate = other;
                false
            }
        }
    }

    /// Closes the gate, if the breach counts; says whether it did.
    pub(super) fn breach(&mut self, breach: Breach) -> bool {
        let (Gate::Locked(terms) | Gate::Run(terms)) = &self.gate else { return false };
        let counts = breach.counts(terms.session, &terms.parameters);
        if counts {
            self.gate = Gate::Error(terms.function_reset);
            self.events.push(Event::Breached(breach));
        }
        counts
    }

    /// Opens the gate; says whether there was one.
    pub(super) fn unlock(&mut self) -> bool {
        let closed = !matches!(self.gate, Gate::Open);
        if closed {
            self.gate = Gate::Open;
            self.events.push(Event::Unlocked);
        }
        closed
    }

    /// What a reset does to the interface; says whether it did something.
    pub(super) fn reset(&mut self, kind: Reset) -> bool {
        let policy = match &self.gate {
            Gate::Open => return false,
            Gate::Locked(terms) | Gate::Run(terms) => terms.function_reset,
            Gate::Error(policy) => *policy,
        };
        match (kind, policy) {
            (Reset::Bus, _) | (Reset::Function, FunctionReset::Unlocks) => self.unlock(),
            (Reset::Function, FunctionReset::Breaches) => self.breach(Breach::FunctionReset),
        }
    }

    /// What happened since the last time.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

/// What of config space LOCK fixes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fixed {
    command: u16,
    power: PowerState,
    bars: [Option<u64>; pci::regs::BAR_COUNT],
    msix_control: Option<u16>,
    pub(super) virtualization: Option<Virtualization>,
}

impl Fixed {
    pub(super) fn of(config: &ConfigSpace) -> Self {
        let mut bars = [None; pci::regs::BAR_COUNT];
        for (index, bar) in bars.iter_mut().enumerate() {
            *bar = config.bar_address(index);
        }
        Self {
            command: config.word(header::COMMAND),
            power: config.power_state(),
            bars,
            msix_control: config.msix_control(),
            virtualization: config.virtualization(),
        }
    }

    /// What a write that led to `after` broke. A write that changes nothing breaks nothing: policy
    /// `unchanged-writes`.
    pub(super) fn broken_by(&self, after: &Self) -> impl Iterator<Item = Breach> {
        let cleared = |bit| self.command & bit != 0 && after.command & bit == 0;
        let broken = [
            (cleared(command::MEMORY), Breach::MemoryCleared),
            (cleared(command::BUS_MASTER), Breach::BusMasterCleared),
            (self.power == PowerState::D0 && after.power != PowerState::D0, Breach::LeftD0),
            (self.bars != after.bars, Breach::BarWritten),
            (self.msix_control != after.msix_control, Breach::MsixWritten),
        ];
        broken.into_iter().filter_map(|(broken, breach)| broken.then_some(breach))
    }

    /// Which virtual functions a write that led to `after` took away or moved, by index. `sizes` are
    /// those of a virtual function's BARs.
    pub(super) fn virtual_functions_broken_by(
        &self,
        after: &Self,
        sizes: &[(usize, u64)],
    ) -> Vec<(u16, Breach)> {
        let Some(before) = self.virtualization.filter(|before| before.enabled) else {
            return Vec::new();
        };
        let broken = |index: u16| {
            let now = after.virtualization.filter(|now| now.enabled && index < now.count);
            let Some(now) = now else { return Some(Breach::Disabled) };
            let place = |of: &Virtualization, (bar, size)| of.bar_address(bar, size, index);
            let moved = sizes.iter().any(|bar| place(&before, *bar) != place(&now, *bar));
            if before.memory_enabled && !now.memory_enabled {
                Some(Breach::MemoryCleared)
            } else {
                moved.then_some(Breach::BarWritten)
            }
        };
        (0..before.count).filter_map(|index| Some((index, broken(index)?))).collect()
    }
}
