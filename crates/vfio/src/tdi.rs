//! What stands between a bound TDI and what clients and the host do to its function.
//!
//! A TDI that is locked or runs takes a reset, and the end of bus master or memory enable, as a breach. So:
//!
//! | what touches the function | and a TDI |
//! |---|---|
//! | RESET, PCI_HOT_RESET, FLR in config space, D3hot that resets | [`ResetWhileBound`] decides |
//! | a client clears bus master or memory enable, or enters D3hot | [`ClientClearsBme`] decides |
//! | a client writes BARs or the MSI-X table | never reaches the function: `config.rs`, `region.rs` |
//! | message interrupts are set up while the client has decoding off | decoding is not turned off again where a TDI is bound: `set_irqs.rs` |
//! | `enable`, at BIND | nothing is bound to a device that was just made; if something is, it is unbound first |
//! | `disable`, at the last close | is unbound before, in the order `unbind-first`; in Linux 7.3's order takes it |
//! | `disable`, and the TDI did not answer its unbind | takes it: no DMA of it may go on |
//! | the host's own reset in both, and a TDI of a virtual function is bound | is left out, but in Linux 7.3's order |
//!
//! Whoever resets holds iommufd's guard for as long as it takes, so that nothing is bound meanwhile.
//!
//! Nothing here is called with a lock held, as iommufd asks the TSM. What unbinds owns no turn either, so that
//! nobody waits for a device's answer who need not.

use std::sync::Arc;

use iommufd::{Binding, ResetGuard, TdiState};
use pci::Reset;
use pci::regs::{command, sriov};

use crate::facts::Config;
use crate::hardware::Saved;
use crate::{
    ClientClearsBme, CloseOrder, Device, DeviceState, PolicyEvent, Refusal, ResetCause,
    ResetWhileBound,
};

/// The devices that a reset takes along, and what holds each of them.
pub(crate) struct Affected {
    devices: Vec<(Arc<Device>, Option<Arc<iommufd::Device>>)>,
}

/// The permission to reset. While it lives nothing is bound to a device that the reset takes along, unless a
/// policy has it so.
#[must_use = "what is bound is kept off only while this lives"]
pub(crate) struct Admitted<'a> {
    guards: Vec<ResetGuard<'a>>,
}

impl Admitted<'_> {
    /// The reset is done: ends the quarantine of a TDI that it unlocked. The device is asked, so the caller owns no
    /// turn.
    pub(crate) fn done(self) {
        for guard in self.guards {
            guard.done();
        }
    }
}

impl Affected {
    /// What a reset of these devices takes along.
    pub(crate) fn by_reset_of(devices: &[Arc<Device>]) -> Self {
        let held = |device: Arc<Device>| {
            let holder = device.holder();
            (device, holder)
        };
        Self { devices: devices.iter().cloned().map(held).collect() }
    }

    /// Unbinds what a reset that a client asks for would meet, where the policy says so. The caller owns no turn.
    pub(crate) fn unbind(&self, cause: ResetCause) {
        for (device, iommufd) in self.held() {
            let unbinds = device.settings().reset_while_bound == ResetWhileBound::Unbind;
            if unbinds && iommufd.tdi().is_bound() {
                iommufd.cancel_and_unbind();
                device.tell(PolicyEvent::UnboundForReset(cause));
            }
        }
    }

    /// Lets a reset that a client asks for begin, or not.
    ///
    /// # Errors
    /// [`Refusal::TdiBound`] – a TDI is bound, by now, and resets do not break that (`EBUSY`).
    pub(crate) fn admit(&self, cause: ResetCause) -> Result<Admitted<'_>, Refusal> {
        let mut guards = Vec::new();
        for (device, iommufd) in self.held() {
            match iommufd.begin_reset() {
                Ok(guard) => guards.push(guard),
                Err(_) => match device.settings().reset_while_bound {
                    ResetWhileBound::Refuse | ResetWhileBound::Unbind => {
                        device.tell(PolicyEvent::ResetRefused(cause));
                        return Err(Refusal::TdiBound);
                    }
                    ResetWhileBound::Error => {
                        device.tell(PolicyEvent::ResetReachedTdi(cause));
                    }
                },
            }
        }
        Ok(Admitted { guards })
    }

    /// Keeps unbound what is, if all is.
    fn keep_unbound(&self) -> Option<Admitted<'_>> {
        let guards: Result<_, _> = self.held().map(|(_, iommufd)| iommufd.begin_reset()).collect();
        Some(Admitted { guards: guards.ok()? })
    }

    fn held(&self) -> impl Iterator<Item = (&Device, &iommufd::Device)> {
        self.devices.iter().filter_map(|(device, holder)| Some((&**device, &**holder.as_ref()?)))
    }
}

impl Device {
    /// What holds the device, if a file is bound to it, also while that is being opened or closed.
    pub(crate) fn holder(&self) -> Option<Arc<iommufd::Device>> {
        self.set().holder(self.address())
    }

    /// The device and the virtual functions that its reset takes along.
    pub(crate) fn with_virtual_functions(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut devices = vec![Arc::clone(self)];
        devices.extend(self.virtual_functions());
        devices
    }

    /// The virtual functions that its reset takes along, as far as they are in its set.
    fn virtual_functions(&self) -> Vec<Arc<Self>> {
        let Some(at) = self.facts().sriov else { return Vec::new() };
        let config = Config(self.function());
        if config.word(at + sriov::CONTROL) & sriov::VF_ENABLE == 0 {
            return Vec::new();
        }
        let first = config.word(at + sriov::FIRST_VF_OFFSET);
        let stride = config.word(at + sriov::VF_STRIDE);
        let first = self.address().requester_id().wrapping_add(first);
        let id_of = |index: u16| first.wrapping_add(stride.wrapping_mul(index));
        let ids: Vec<u16> = (0..config.word(at + sriov::NUM_VFS)).map(id_of).collect();
        let is_mine = |device: &Arc<Self>| {
            device.facts().virtual_function.is_some()
                && device.address().domain == self.address().domain
                && ids.contains(&device.address().requester_id())
        };
        self.set().devices().into_iter().filter(is_mine).collect()
    }

    /// Resets the function for the host, while no program has a file of it open, or of a virtual function that the
    /// reset takes along. Registers that the host keeps come back.
    ///
    /// # Errors
    /// [`Refusal::DeviceOpen`] – one is open; nothing was done (`EBUSY`).
    ///
    /// Takes `DEVICE_SET`, then `MEMORY`; holds neither while the function is reset.
    pub fn reset_unopened(self: &Arc<Self>) -> Result<(), Refusal> {
        let is_open = |device: &Arc<Self>| device.state() != DeviceState::Free;
        if self.with_virtual_functions().iter().any(is_open) {
            return Err(Refusal::DeviceOpen);
        }
        let _turn = self.take_turn();
        let saved = Saved::of(self.function(), self.facts());
        self.function().reset(Reset::Function);
        saved.restore(self.function());
        Ok(())
    }

    /// Resets the function because the host wants it fresh, if it can be reset alone. While a TDI of one of its
    /// virtual functions is bound it is left as it is; its own is not bound.
    ///
    /// Where the order of close is Linux 7.3's, either may be bound, and takes the reset. Returns the guard under which it was done, if it was. The caller owns the turn.
    pub(crate) fn reset_afresh<'a>(&self, iommufd: &'a iommufd::Device) -> Option<ResetGuard<'a>> {
        if !self.can_reset() {
            return None;
        }
        let affected = Affected::by_reset_of(&self.virtual_functions());
        let (others, own) = (affected.keep_unbound(), iommufd.begin_reset());
        if others.is_none() && self.settings().close_order == CloseOrder::UnbindFirst {
            self.tell(PolicyEvent::ResetRefused(ResetCause::Host));
            return None;
        }
        if others.is_none() || own.is_err() {
            self.tell(PolicyEvent::ResetReachedTdi(ResetCause::Host));
        }
        let virtualization = Saved::of_virtualization(self.function(), self.facts());
        self.function().reset(Reset::Function);
        virtualization.restore(self.function());
        own.ok()
    }

    /// Bits of COMMAND that a client may not clear now.
    pub(crate) fn command_bits_to_keep(&self) -> u16 {
        if self.keeps_enabled() { command::BUS_MASTER | command::MEMORY } else { 0 }
    }

    /// Whether a client's write may not take the function out of use now. A lock that is under way at the same
    /// moment may still meet a write that was let through.
    pub(crate) fn keeps_enabled(&self) -> bool {
        let refuses = self.settings().client_clears_bme == ClientClearsBme::Refuse;
        refuses && self.holder().is_some_and(|iommufd| may_be_locked(iommufd.tdi()))
    }

    /// Tells people what a policy did.
    pub(crate) fn tell(&self, event: PolicyEvent) {
        if let Some(notices) = &self.settings().notices {
            notices.policy_applied(self.address(), event);
        }
    }
}

fn may_be_locked(binding: Binding) -> bool {
    match binding {
        Binding::Bound { state } => matches!(state, TdiState::Locked | TdiState::Run),
        Binding::Unknown => true,
        Binding::Unbound | Binding::Binding | Binding::Quarantined => false,
    }
}
