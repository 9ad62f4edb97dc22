//! The machine's TSM, and the way from it to the devices' security managers.
//!
//! Takes no lock.

use std::sync::Arc;

use pci::Address;
use vfio::{PolicyEvent, PolicyNotices};

use super::facts;
use super::hardware::Placed;
use crate::clock::Clock;
use crate::observer::Observer;
use crate::platform::Platform;

/// The PCI/TSM core of these functions, with the faults that the platform wants.
pub(super) fn registry(
    platform: &Platform,
    endpoints: &[Placed<'_>],
    clock: &Clock,
    told: Arc<Told>,
) -> Arc<tsm::Registry> {
    let facts = endpoints
        .iter()
        .map(|placed| facts::of(placed.engine.as_ref(), placed.physical_function()));
    let settings = tsm::Settings { exchange_timeout_ms: platform.settings.exchange_timeout_ms };
    let registry = tsm::Registry::new(facts.collect(), clock.timers().clone(), settings, told);
    for entry in &platform.faults {
        registry.set_fault(entry.function, entry.fault);
    }
    registry
}

/// Hands what the TSM and policies tell to an observer, if there is one.
pub(super) struct Told(pub(super) Option<Arc<dyn Observer>>);

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
