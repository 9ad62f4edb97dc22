//! The machine's security managers, its TSM, and the way from the one to the other.
//!
//! Functions of one slot have one security manager, which function 0 speaks for. The TSM's requests
//! reach it as bytes within the process. Each connection is a session of its own; that of the one
//! before ends when the next says its first word. One lock, a leaf: which session is the last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use device::security::{Interface, Manager, Settings, TdiChange};
use pci::Address;
use tdisp::{RequestNumbering, SessionId, State};
use tsm::software::{self, Tsm};
use tsm::{Links, Reply, Transport};
use vfio::{PolicyEvent, PolicyNotices, TdiErrorEvent};

use super::hardware::Placed;
use super::{Assignable, facts};
use crate::clock::Clock;
use crate::entropy::KernelEntropy;
use crate::observer::Observer;
use crate::platform::Platform;

/// Longest answer of a security manager, in bytes. A report comes in portions.
const ANSWER_BYTES: usize = 4096;

/// The security managers, by the address of function 0 of their slot.
pub(super) type Managers = BTreeMap<Address, Arc<Manager>>;

/// A security manager for each slot that has TEE functions.
pub(super) fn managers(platform: &Platform, endpoints: &[Placed<'_>]) -> Managers {
    let settings = Settings {
        flr_while_locked: platform.settings.flr_while_locked,
        numbering: RequestNumbering::default(),
    };
    let mut slots: BTreeMap<Address, Vec<Arc<dyn Interface>>> = BTreeMap::new();
    for placed in endpoints.iter().filter(|placed| placed.is_tee()) {
        let engine = Arc::clone(&placed.engine);
        slots.entry(slot_of(placed)).or_default().push(engine);
    }
    slots
        .into_iter()
        .map(|(slot, parts)| (slot, Manager::new(settings, parts, Arc::new(KernelEntropy))))
        .collect()
}

/// Function 0 of the slot that a function, or its physical function, is in.
pub(super) fn slot_of(placed: &Placed<'_>) -> Address {
    let Address { domain, bus, .. } = placed.entry.address;
    let device = placed.entry.address.device();
    Address::new(domain, bus, device, 0).unwrap_or(placed.entry.address)
}

/// The PCI/TSM core of these functions, with one TSM in software and the faults that the platform
/// wants.
pub(super) fn registry(
    platform: &Platform,
    endpoints: &[Placed<'_>],
    managers: &Managers,
    clock: &Clock,
    told: Arc<Told>,
) -> Arc<tsm::Registry> {
    let facts = endpoints
        .iter()
        .map(|placed| facts::of(placed.engine.as_ref(), placed.physical_function()));
    let settings = tsm::Settings { exchange_timeout_ms: platform.settings.exchange_timeout_ms };
    let registry = tsm::Registry::new(facts.collect(), clock.timers().clone(), settings, told);
    let wires = managers.iter().map(|(slot, manager)| {
        let wire = Wire { manager: Arc::clone(manager), last: Mutex::default() };
        (*slot, Arc::new(wire))
    });
    let settings = software::Settings {
        dialect: platform.settings.tsm_dialect,
        lock_msix: platform.settings.lock_msix,
        ..software::Settings::default()
    };
    let links = Arc::new(Wires(wires.collect()));
    registry.register(Tsm::new(links, Arc::new(KernelEntropy), settings));
    for entry in &platform.faults {
        registry.set_fault(entry.function, entry.fault);
    }
    registry
}

/// Tells the host's TSM core, people and clients what becomes of the TDIs of `devices`.
pub(super) fn watch(
    devices: &[Assignable],
    tsm: &Arc<tsm::Registry>,
    event: TdiErrorEvent,
    told: &Arc<Told>,
) {
    let mut watched: Vec<&Arc<Manager>> = Vec::new();
    for manager in devices.iter().filter_map(|device| device.security.as_ref()) {
        if watched.iter().any(|other| Arc::ptr_eq(other, manager)) {
            continue;
        }
        watched.push(manager);
        let of_manager = devices.iter().filter(|device| {
            device.security.as_ref().is_some_and(|other| Arc::ptr_eq(other, manager))
        });
        let clients: BTreeMap<u16, (Address, Weak<vfio::Device>)> = of_manager
            .map(|device| {
                let client = Arc::downgrade(&device.vfio);
                (facts::requester_id(device.address), (device.address, client))
            })
            .collect();
        let (tsm, told) = (Arc::downgrade(tsm), Arc::clone(told));
        manager.watch(Arc::new(move |change: TdiChange| {
            let Some((address, client)) = clients.get(&change.requester_id) else { return };
            if let Some(tsm) = tsm.upgrade() {
                tsm.observed(*address, change.to);
            }
            told.tdi(*address, &change);
            let erred = change.to == State::Error && change.from != State::Error;
            if let (true, Some(device)) = (erred, client.upgrade()) {
                device.tdi_error(event);
            }
        }));
    }
}

/// The ways to the security managers, by the address of function 0.
struct Wires(BTreeMap<Address, Arc<Wire>>);

impl Links for Wires {
    fn transport(&self, function: Address) -> Option<Arc<dyn Transport>> {
        let wire = self.0.get(&function)?;
        Some(Arc::new(Channel { wire: Arc::clone(wire), session: wire.next_session() }))
    }
}

/// The way to one security manager.
struct Wire {
    manager: Arc<Manager>,
    last: Mutex<Sessions>,
}

/// Sessions of one security manager.
#[derive(Clone, Copy, Debug, Default)]
struct Sessions {
    /// How many there were.
    made: u32,
    /// The one that spoke last.
    speaks: u32,
}

impl Wire {
    fn next_session(&self) -> SessionId {
        let mut sessions = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.made += 1;
        SessionId(sessions.made)
    }

    /// Notes that a session speaks; answers the one that is over with that.
    fn speaks(&self, session: SessionId) -> Option<SessionId> {
        let mut sessions = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut sessions.speaks, session.0);
        (before != 0 && before != session.0).then_some(SessionId(before))
    }
}

/// One connection to a security manager.
struct Channel {
    wire: Arc<Wire>,
    session: SessionId,
}

impl Transport for Channel {
    /// Answers at once: a security manager in this process waits for no more than a function's DMA.
    /// Meanwhile the mailboxes are Busy to clients who see them.
    fn submit(&self, request: &[u8], _: Reply) -> Option<Vec<u8>> {
        let manager = &self.wire.manager;
        let _claim = manager.claim_mailbox();
        if let Some(over) = self.wire.speaks(self.session) {
            manager.session_ended(over);
        }
        let mut answer = vec![0; ANSWER_BYTES];
        let length = manager.respond(self.session, request, &mut answer)?;
        answer.truncate(length);
        Some(answer)
    }

    /// Nothing is outstanding.
    fn abort(&self) {}
}

/// Hands what the TSM, devices and policies tell to an observer, if there is one.
pub(super) struct Told(pub(super) Option<Arc<dyn Observer>>);

impl Told {
    fn tdi(&self, function: Address, change: &TdiChange) {
        if let Some(observer) = &self.0 {
            observer.tdi(function, change.from, change.to, change.cause);
        }
    }
}

impl tsm::Notices for Told {
    fn tsm(&self, function: Address, notice: &tsm::Notice) {
        if let Some(observer) = &self.0 {
            observer.tsm(function, notice);
        }
    }
}

impl PolicyNotices for Told {
    fn policy_applied(&self, function: Address, event: PolicyEvent) {
        if let Some(observer) = &self.0 {
            observer.policy(function, event);
        }
    }
}
