//! A TSM in software and the security manager of an engine's device, joined.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is the machine around the crates: it has a clock"
)]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use device::dma_engine::DmaEngine;
use device::security::{self, Interface, Manager};
use pci::Address;
use sync::{Mutex, Timers, rank};
use tdisp::{FunctionReset, SessionId};
use tsm::software;
use tsm::{
    Arch, Binding, Cancel, Counters, FunctionFacts, GuestRequest, Links, Memory, Op, Refusal,
    Registry, Reply, State, Transport,
};

use super::ADDRESS;

/// How long a device may take to answer, in milliseconds.
const EXCHANGE_TIMEOUT_MS: u64 = 300;

/// A connected device, and what knows of its interfaces.
pub(crate) struct Tee {
    pub(crate) registry: Arc<Registry>,
    pub(crate) manager: Arc<Manager>,
    /// The clock's thread ends with it.
    _clock: Arc<()>,
}

/// An engine and the one that it is a virtual function of.
pub(crate) type Engine = (Arc<DmaEngine>, Option<Address>);

impl Tee {
    /// Connects the device of [`ADDRESS`], which has these functions.
    pub(crate) fn of(engines: &[Engine], flr_while_locked: FunctionReset) -> Self {
        let interfaces = engines.iter().map(|(engine, _)| engine.clone() as Arc<dyn Interface>);
        let settings = security::Settings { flr_while_locked, ..security::Settings::default() };
        let manager = Manager::new(settings, interfaces.collect(), Arc::new(Counting::default()));
        let facts = engines.iter().map(|(engine, physical)| facts(engine, *physical)).collect();
        let settings = tsm::Settings { exchange_timeout_ms: EXCHANGE_TIMEOUT_MS };
        let (timers, clock) = clocked();
        let registry = Registry::new(facts, timers, settings, Arc::new(tsm::Untold));
        let links = Arc::new(Link(manager.clone()));
        let entropy = Arc::new(Counting::default());
        registry.register(software::Tsm::new(links, entropy, software::Settings::default()));
        registry.connect(ADDRESS, b"tsm0").unwrap();
        Self { registry, manager, _clock: clock }
    }

    /// What the host says.
    pub(crate) fn host(&self, function: Address) -> Binding {
        self.registry.binding(function)
    }

    /// What the device says.
    pub(crate) fn device(&self, function: Address) -> State {
        self.manager.state(function.requester_id()).unwrap()
    }

    /// Locks the TDI and lets it run, as a guest asks for it.
    pub(crate) fn run(&self, function: Address) {
        self.set_state(function, 1).unwrap();
        self.set_state(function, 2).unwrap();
        assert_eq!(self.device(function), State::Run);
    }

    /// Asks for a state as a guest of CCA does: 0 unlocked, 1 locked, 2 run.
    pub(crate) fn set_state(&self, function: Address, state: u32) -> Result<(), Refusal> {
        let request = &state.to_le_bytes()[..];
        let request =
            GuestRequest { arch: Arch::Cca, op: Op::SetTdiState, request, response_room: 0 };
        self.registry.request(function, &request, &NoMemory, &Cancel::new()).map(drop)
    }

    pub(crate) fn fault(&self, function: Address, fault: &str) {
        self.registry.set_fault(function, fault.parse().unwrap());
    }

    pub(crate) fn counters(&self) -> Counters {
        self.registry.counters()
    }
}

fn facts(engine: &DmaEngine, physical_function: Option<Address>) -> FunctionFacts {
    let address = pci::Function::address(engine);
    FunctionFacts {
        address,
        requester_id: address.requester_id(),
        physical_function,
        endpoint: true,
        tee_io: true,
        ide: true,
        secure_mailbox: true,
    }
}

/// Timers that a thread fires for as long as the second result lives.
fn clocked() -> (Timers, Arc<()>) {
    let (timers, clock) = (Timers::new(|| {}), Arc::new(()));
    let (fired, alive, begun) = (timers.clone(), Arc::downgrade(&clock), Instant::now());
    thread::spawn(move || {
        while alive.strong_count() > 0 {
            fired.fire_due(u64::try_from(begun.elapsed().as_millis()).unwrap());
            thread::sleep(Duration::from_millis(1));
        }
    });
    (timers, clock)
}

/// Bytes that differ.
#[derive(Default)]
struct Counting(Mutex<rank::Irq, u8>);

impl Counting {
    fn next(&self, into: &mut [u8]) {
        let mut last = self.0.lock();
        *last = last.wrapping_add(1);
        into.fill(*last);
    }
}

impl tsm::Entropy for Counting {
    fn fill(&self, into: &mut [u8]) {
        self.next(into);
    }
}

impl security::Entropy for Counting {
    fn fill(&self, into: &mut [u8]) -> bool {
        self.next(into);
        true
    }
}

struct Link(Arc<Manager>);

impl Links for Link {
    fn transport(&self, _: Address) -> Option<Arc<dyn Transport>> {
        Some(Arc::new(Wire(self.0.clone())))
    }
}

struct Wire(Arc<Manager>);

impl Transport for Wire {
    fn submit(&self, request: &[u8], _: Reply) -> Option<Vec<u8>> {
        let mut response = vec![0; 4096];
        let length = self.0.respond(SessionId(1), request, &mut response)?;
        response.truncate(length);
        Some(response)
    }

    fn abort(&self) {}
}

struct NoMemory;

impl Memory for NoMemory {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), tsm::Unreachable> {
        Err(tsm::Unreachable)
    }
}
