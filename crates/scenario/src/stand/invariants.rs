//! What must hold once no thread runs, and once all is closed.

use tdisp::State;
use tsm::Binding;
use uapi::Errno;
use vfio::CloseOrder;

use super::{Device, Stand, card};
use crate::script::Outcome;
use crate::words::{Call, Verb};

impl Stand {
    /// Looks at the machine when no thread runs, closes what is open, and looks for what is left.
    /// `client_breaks` says whether a call was made that may break a TDI's configuration.
    ///
    /// # Panics
    /// If an invariant does not hold; the text begins with its number.
    pub fn check(&self, client_breaks: bool) {
        for (number, device) in self.devices.iter().enumerate() {
            self.check_binding(number, device, client_breaks);
        }
        // There may be none.
        let _ = self.exit_child();
        if self.iommu.is_open() {
            self.check_ids();
            self.check_links();
        }
        // What does not say that it is unbound is taken out of use all the same.
        let polite = self.settings.close_order == CloseOrder::UnbindFirst
            && self.settings.unbinds_are_answered();
        self.check_end(polite && !client_breaks);
    }

    /// I1 and I9.
    fn check_binding(&self, number: usize, device: &Device, client_breaks: bool) {
        let host = self.registry.binding(card::address(number));
        let is_open = device.opened.is_open();
        assert!(is_open || !host.is_bound(), "I1: vfio{number} is closed and the host says {host}");
        let state = self.card.state(number);
        let agrees = match host {
            Binding::Unbound => state == State::Unlocked,
            Binding::Bound { state: seen } => state == seen,
            Binding::Binding => false,
            Binding::Unknown | Binding::Quarantined => true,
        };
        // A host hears of what a device does on its own when it asks.
        let unheard = client_breaks && matches!(host, Binding::Bound { .. });
        assert!(agrees || unheard, "I9: dev{number} is {state} and the host says {host}");
    }

    /// I5: what a program asks for next has none of the ids that were taken from it.
    fn check_ids(&self) {
        let is_taken =
            |device: &&Device| !device.opened.is_open() && device.vdevice_kept.read() == 1;
        for device in self.devices.iter().filter(is_taken) {
            let destroyed = self.destroy(device.vdevice);
            assert_eq!(destroyed, Err(Errno::ENOENT), "I5: an id that was taken leads somewhere");
            // Lowest first: one of these would have it.
            while self.ioas_alloc().is_ok_and(|id| id < device.vdevice) {}
        }
    }

    /// I2: a vdevice stands in the way of another exactly while it is there.
    fn check_links(&self) {
        let there = self.context.counts().vdevices;
        let mut in_the_way = 0;
        for (number, device) in self.devices.iter().enumerate() {
            match self.vdevice_alloc(number, device) {
                Ok(id) => {
                    assert!(device.opened.is_open(), "I2: a vdevice of a device that is gone");
                    assert_eq!(self.destroy(id), Ok(()), "I2: what was made cannot be destroyed");
                }
                Err(Errno::EEXIST) => in_the_way += 1,
                Err(errno) => {
                    let gone = !device.opened.is_open() || self.destroy(device.viommu).is_err();
                    assert!(gone || self.may_refuse(), "I2: VDEVICE_ALLOC answers {errno}");
                }
            }
        }
        assert_eq!(there, in_the_way, "I2: vdevices, and devices that have one");
    }

    /// Whether a new vdevice may be refused for what befalls the bind that is part of it.
    fn may_refuse(&self) -> bool {
        self.settings.viommu == uapi::iommufd::viommu_type::ARM_REALM_SMMUV3
    }

    /// I3, and that nothing is left.
    fn check_end(&self, breaks_nothing: bool) {
        for (number, device) in self.devices.iter().enumerate() {
            self.close(Verb::CloseVfio, number);
            let state = device.vfio.state();
            assert_eq!(state, vfio::DeviceState::Free, "dev{number} is not given back");
        }
        self.close(Verb::CloseIommu, 0);
        self.close(Verb::CloseVm, 0);
        assert!(
            !breaks_nothing || self.card.breaches() == 0,
            "I7: the host broke what LOCK had fixed"
        );
        self.close(Verb::TsmDisconnect, 0);
        let counters = self.registry.counters();
        assert_eq!(counters.binds, counters.unbinds, "I3: backend binds and unbinds");
        assert_eq!(self.registry.ledger(), [], "a connection is left");
    }

    /// Closes something that may be closed already.
    fn close(&self, verb: Verb, number: usize) -> Outcome {
        self.call(Call { verb, number })
    }
}
