//! The functions of one machine, its TSMs, and which function is connected to which.
//!
//! [`rank::TsmRegistry`] guards the table only: a call looks its function up, takes a counted
//! reference to the connection and drops the lock. Nothing else is taken inside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pci::Address;
use sync::{Mutex, Named, Timers, rank};
use tdisp::State;

use crate::care::Care;
use crate::fault::{Board, Fault};
use crate::line::Line;
use crate::{
    Backend, Binding, Cancel, ConnectionView, Counters, FunctionFacts, Notice, Notices, Refusal,
    VmId,
};

/// The PCI/TSM core of one machine.
pub struct Registry {
    table: Mutex<rank::TsmRegistry, Table>,
    timers: Timers,
    settings: Settings,
    notices: Arc<dyn Notices>,
    pub(crate) care: Care,
}

/// How the core behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a device may take over what one call has to say to it, in milliseconds.
    pub exchange_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { exchange_timeout_ms: 1000 }
    }
}

pub(crate) struct Table {
    pub(crate) tsms: BTreeMap<u32, Arc<dyn Backend>>,
    pub(crate) functions: BTreeMap<Address, Entry>,
    /// Of connections that are over.
    pub(crate) counters: Counters,
    /// VMs that were made up so far.
    vms: u64,
}

/// A function.
pub(crate) struct Entry {
    pub(crate) facts: FunctionFacts,
    /// It is there: not unplugged, and its VF enabled.
    pub(crate) present: bool,
    /// Its TSM context.
    pub(crate) line: Option<Arc<Line>>,
    /// Whether the connection is made: not while it is being set up.
    pub(crate) connected: bool,
    pub(crate) faults: Option<Arc<Board>>,
}

/// What a call finds about its function.
pub(crate) struct Found {
    pub(crate) line: Arc<Line>,
    pub(crate) facts: FunctionFacts,
    pub(crate) faults: Option<Arc<Board>>,
}

impl Registry {
    /// A core of `functions`: all that there can ever be, virtual ones too; [`Self::remove`] those
    /// that are not there at first. Deadlines are armed with `timers`.
    pub fn new(
        functions: Vec<FunctionFacts>,
        timers: Timers,
        settings: Settings,
        notices: Arc<dyn Notices>,
    ) -> Arc<Self> {
        let entry = |facts: FunctionFacts| {
            let entry = Entry { facts, present: true, line: None, connected: false, faults: None };
            (facts.address, entry)
        };
        let functions = functions.into_iter().map(entry).collect();
        let table =
            Table { tsms: BTreeMap::new(), functions, counters: Counters::default(), vms: 0 };
        let table = Mutex::new(table).named("registry", || "tsm".to_owned());
        Arc::new(Self { table, timers, settings, notices, care: Care::new() })
    }

    /// Registers a TSM and returns its number, the lowest that is free.
    pub fn register(&self, backend: Arc<dyn Backend>) -> u32 {
        let mut table = self.table.lock();
        let number = (0..u32::MAX).find(|number| !table.tsms.contains_key(number)).unwrap_or(0);
        table.tsms.insert(number, backend);
        number
    }

    /// Takes a TSM away. What is connected to it is disconnected first, in reverse order; all of it
    /// takes no longer than one disconnect.
    pub fn unregister(&self, tsm: u32) {
        self.table.lock().tsms.remove(&tsm);
        let mut lines = self.lines();
        lines.retain(|line| line.tsm == tsm);
        lines.reverse();
        self.tear_down_all(&lines);
    }

    /// The numbers of the registered TSMs.
    pub fn tsms(&self) -> Vec<u32> {
        self.table.lock().tsms.keys().copied().collect()
    }

    /// A VM that stands for a client which has none, told from every other. Its number has the top bit set,
    /// which an open VM's has not.
    pub fn new_vm(&self) -> VmId {
        let mut table = self.table.lock();
        table.vms += 1;
        VmId(VmId::IMPLICIT | table.vms)
    }

    /// Sets `cancel` and gives up what runs or waits under it about a function. Returns at once.
    pub fn cancel(&self, function: Address, cancel: &Cancel) {
        cancel.set();
        if let Some(found) = self.find(function) {
            found.line.cancel(cancel);
        }
    }

    /// The device was seen to change the state of a function's interface on its own: a breach, a
    /// reset. Returns at once; may be called while the device is spoken to. Real hosts have no such
    /// eye and hear of it when they ask.
    pub fn observed(&self, function: Address, state: State) {
        if let Some(found) = self.find(function) {
            found.line.observe(function, state);
        }
    }

    /// The host's view of a function's TDI.
    pub fn binding(&self, function: Address) -> Binding {
        let Some(found) = self.find(function) else { return Binding::Unbound };
        let record = found.line.lock();
        record.places.get(&function).map_or(Binding::Unbound, |place| place.binding)
    }

    /// Every connection, in order of the security manager's address.
    pub fn ledger(&self) -> Vec<ConnectionView> {
        self.lines().iter().filter_map(|line| line.view()).collect()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let (mut counters, lines) = {
            let table = self.table.lock();
            (table.counters, table.lines())
        };
        for line in lines {
            counters.add(&line.lock().counters);
        }
        counters
    }

    /// Adds a fault to a function. An unknown function has none.
    pub fn set_fault(&self, function: Address, fault: Fault) {
        let board = {
            let mut table = self.table.lock();
            let entry = table.functions.get_mut(&function);
            entry.map(|entry| Arc::clone(entry.faults.get_or_insert_default()))
        };
        if let Some(board) = board {
            board.add(fault);
        }
    }

    /// Takes all faults of a function away, but for operations that run.
    pub fn clear_faults(&self, function: Address) {
        if let Some(entry) = self.table.lock().functions.get_mut(&function) {
            entry.faults = None;
        }
    }

    /// The faults of a function that can still strike.
    pub fn faults(&self, function: Address) -> Vec<Fault> {
        let board = self.table.lock().functions.get(&function).and_then(|e| e.faults.clone());
        board.map_or(Vec::new(), |board| board.list())
    }

    pub(crate) fn table(&self) -> sync::Guard<'_, rank::TsmRegistry, Table> {
        self.table.lock()
    }

    pub(crate) fn new_line(
        &self,
        tsm: u32,
        dsm: FunctionFacts,
        backend: Arc<dyn Backend>,
    ) -> Arc<Line> {
        let timeout_ms = self.settings.exchange_timeout_ms;
        Line::new(tsm, dsm, backend, self.timers.clone(), timeout_ms)
    }

    /// The connection of a function, being made or made.
    pub(crate) fn find(&self, function: Address) -> Option<Found> {
        let table = self.table.lock();
        let entry = table.functions.get(&function)?;
        let line = Arc::clone(entry.line.as_ref()?);
        Some(Found { line, facts: entry.facts, faults: entry.faults.clone() })
    }

    /// The faults of each of these functions.
    pub(crate) fn faults_of(&self, functions: &[Address]) -> Vec<Option<Arc<Board>>> {
        let table = self.table.lock();
        let faults = |function| table.functions.get(function).and_then(|e| e.faults.clone());
        functions.iter().map(faults).collect()
    }

    /// Tells what happened. Hold no lock.
    pub(crate) fn tell(&self, notices: &[(Address, Notice)]) {
        for (function, notice) in notices {
            self.notices.tsm(*function, notice);
        }
    }

    fn lines(&self) -> Vec<Arc<Line>> {
        self.table.lock().lines()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("tsms", &self.tsms()).finish_non_exhaustive()
    }
}

impl Table {
    /// Connections, in order of the security manager's address.
    pub(crate) fn lines(&self) -> Vec<Arc<Line>> {
        let of_dsm = self.functions.values().filter_map(|entry| {
            let line = entry.line.as_ref()?;
            (line.dsm.address == entry.facts.address).then(|| Arc::clone(line))
        });
        of_dsm.collect()
    }

    /// A function that has the attributes `connect` and `disconnect`.
    pub(crate) fn connectable(&self, function: Address) -> Result<&Entry, Refusal> {
        let entry = self.functions.get(&function);
        let has_them =
            |entry: &&Entry| entry.present && entry.facts.is_connectable() && !self.tsms.is_empty();
        entry.filter(has_them).ok_or(Refusal::Absent { function })
    }

    /// The functions that come into a connection with `dsm`, in the order in which they are walked.
    pub(crate) fn dependents(&self, dsm: Address) -> Vec<FunctionFacts> {
        let of_slot = |entry: &&Entry| {
            entry.present
                && entry.line.is_none()
                && entry.facts.address != dsm
                && entry.facts.is_of_slot(dsm)
        };
        let mut dependents: Vec<_> =
            self.functions.values().filter(of_slot).map(|entry| entry.facts).collect();
        dependents.sort_by_key(FunctionFacts::walk_order);
        dependents
    }

    /// Makes a connection the context of a function that is there. Says whether it is.
    pub(crate) fn join(&mut self, function: Address, line: &Arc<Line>) -> bool {
        let entry = self.functions.get_mut(&function).filter(|entry| entry.present);
        let Some(entry) = entry else { return false };
        (entry.line, entry.connected) = (Some(Arc::clone(line)), true);
        true
    }

    /// Notes that a function is there; answers the connection that it may join, if there is one.
    pub(crate) fn welcome(&mut self, function: Address) -> Option<(Arc<Line>, FunctionFacts)> {
        let entry = self.functions.get_mut(&function)?;
        entry.present = true;
        let facts = entry.facts;
        if entry.line.is_some() || facts.is_connectable() {
            return None;
        }
        let of_slot = |entry: &&Entry| entry.connected && facts.is_of_slot(entry.facts.address);
        let dsm =
            self.functions.values().filter(of_slot).find(|entry| entry.facts.is_connectable());
        let line = dsm?.line.as_ref().filter(|line| line.dsm.tee_io)?;
        Some((Arc::clone(line), facts))
    }

    /// Takes a function's context away.
    pub(crate) fn part(&mut self, function: Address) {
        if let Some(entry) = self.functions.get_mut(&function) {
            entry.line = None;
            entry.connected = false;
        }
    }

    /// Takes a connection that is over, with these counters, away from every function that has it.
    pub(crate) fn part_all(&mut self, line: &Arc<Line>, counters: &Counters) {
        let of_line =
            |entry: &&mut Entry| entry.line.as_ref().is_some_and(|own| Arc::ptr_eq(own, line));
        let mut any = false;
        for entry in self.functions.values_mut().filter(of_line) {
            (entry.line, entry.connected) = (None, false);
            any = true;
        }
        // Whoever comes second finds nothing to count.
        if any {
            self.counters.add(counters);
        }
    }
}
