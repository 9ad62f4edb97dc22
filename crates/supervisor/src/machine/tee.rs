//! The machine's security managers, its TSM, and the way from the one to the other.
//!
//! Functions of one slot have one security manager, which function 0 speaks for. What it has to say and
//! to hear goes as data objects within the process: SPDM, and TDISP and IDE_KM in its sessions. Takes
//! no lock of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use device::security::{Interface, MailboxClaim, Manager, Settings, TdiChange};
use pci::{Address, Function};
use tdisp::{RequestNumbering, State};
use tsm::software::{self, Tsm};
use tsm::{Links, Reply, Stream, Transport};
use vfio::{PolicyEvent, PolicyNotices, TdiErrorEvent};

use super::credentials::{self, Product, Vendor};
use super::hardware::Placed;
use super::stream::{HostStream, Streams};
use super::{Assignable, Bridge, facts};
use crate::clock::Clock;
use crate::entropy::KernelEntropy;
use crate::observer::Observer;
use crate::platform::Platform;

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
/// wants. The devices get their certificates.
pub(super) fn registry(
    platform: &Platform,
    endpoints: &[Placed<'_>],
    bridges: &[Bridge],
    managers: &Managers,
    clock: &Clock,
    streams: &Arc<Streams>,
    told: Arc<Told>,
) -> Arc<tsm::Registry> {
    let facts = endpoints
        .iter()
        .map(|placed| facts::of(placed.engine.as_ref(), placed.physical_function()));
    let settings = tsm::Settings { exchange_timeout_ms: platform.settings.exchange_timeout_ms };
    let registry = tsm::Registry::new(facts.collect(), clock.timers().clone(), settings, told);
    let vendor = Arc::new(Vendor::default());
    let mut wires = BTreeMap::new();
    let mut products = BTreeMap::new();
    for (slot, manager) in managers {
        let of_slot: Vec<_> =
            endpoints.iter().filter(|placed| placed.is_tee() && slot_of(placed) == *slot).collect();
        let Some(first) = of_slot.first() else { continue };
        let product = Product::of(first.engine.as_ref());
        manager.equip(vendor.equip(product.clone()));
        manager.keep_time(clock.timers().clone());
        products.insert(*slot, product);
        let stream = stream(&of_slot, bridges, streams);
        wires.insert(*slot, Wire { manager: Arc::clone(manager), stream });
    }
    let settings = software::Settings {
        dialect: platform.settings.tsm_dialect,
        lock_msix: platform.settings.lock_msix,
        ..software::Settings::default()
    };
    let security = credentials::security(&vendor, products);
    let links = Arc::new(Wires(wires));
    registry.register(Tsm::secure(links, Arc::new(KernelEntropy), settings, security));
    for entry in &platform.faults {
        registry.set_fault(entry.function, entry.fault);
    }
    registry
}

/// The IDE streams of a device, where there is a root port above it.
fn stream(
    of_slot: &[&Placed<'_>],
    bridges: &[Bridge],
    streams: &Arc<Streams>,
) -> Option<Arc<dyn Stream>> {
    let addresses = of_slot.iter().map(|placed| placed.engine.address());
    let last = addresses.max()?;
    let engine = Arc::clone(&of_slot.first()?.engine);
    let endpoint: Arc<dyn Function> = engine;
    let bridge = bridges.iter().find(|bridge| bridge.leads_to(endpoint.address()))?;
    let (port, streams) = (Arc::clone(&bridge.port), Arc::clone(streams));
    Some(Arc::new(HostStream { endpoint, last, port, streams }))
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
struct Wires(BTreeMap<Address, Wire>);

/// The way to one security manager.
struct Wire {
    manager: Arc<Manager>,
    stream: Option<Arc<dyn Stream>>,
}

impl Links for Wires {
    fn transport(&self, function: Address) -> Option<Arc<dyn Transport>> {
        let manager = Arc::clone(&self.0.get(&function)?.manager);
        Some(Arc::new(Channel { _claim: manager.claim_mailbox(), manager }))
    }

    fn stream(&self, function: Address) -> Option<Arc<dyn Stream>> {
        self.0.get(&function)?.stream.clone()
    }
}

/// One connection to a security manager, whose mailboxes are Busy meanwhile to clients who see them: a
/// client's GET_VERSION would end the TSM's session.
struct Channel {
    manager: Arc<Manager>,
    _claim: MailboxClaim,
}

impl Transport for Channel {
    /// Answers at once: a security manager in this process waits for no more than a function's DMA. An
    /// object that is not served gets none of any length.
    fn submit(&self, object: &[u8], _: Reply) -> Option<Vec<u8>> {
        Some(self.manager.exchange(object).unwrap_or_default())
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
