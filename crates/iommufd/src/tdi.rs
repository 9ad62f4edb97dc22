//! The TDI of a bound device: what is done with it, and what it is kept from.
//!
//! A device has a *gate* through which every TSM command about it goes. It hands out the token under which
//! the command can be given up, counts the binds under way, and stays shut to binds while the function is
//! being reset. That a TDI is bound, and in which state it is, the TSM core alone knows.
//!
//! Takes OBJECTS, a leaf, for the gate. Calls the TSM core with no lock held. Source: the series that
//! publish each command; policies around a reset are ours.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sync::{Contents, Mutex, Named, WaitQueue, rank};
use tsm::{Binding, Cancel};

use crate::object::Kind;
use crate::vdevice::Vdevice;
use crate::{Device, Refusal};

/// Where the TSM commands about a device pass.
pub(crate) struct Gate {
    /// The id of the device.
    device: u32,
    state: Mutex<rank::Objects, State>,
    /// Woken when the last bind under way is over while a reset waits for that.
    idle: WaitQueue,
}

struct State {
    /// Under which commands run. Set once the vdevice or the device ends; each vdevice has a fresh one.
    cancel: Cancel,
    /// Binds under way.
    binds: usize,
    /// Resets under way.
    resets: usize,
    /// No file of `/dev/iommu` that leads here is open: its commands are given up.
    is_closed: bool,
}

/// Which file a command came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `/dev/iommu`.
    Iommufd,
    /// The device's own.
    Vfio,
}

impl Gate {
    /// The gate of the device that has this id.
    pub(crate) fn new(device: u32) -> Self {
        let name = || name(device);
        let state = State { cancel: token(device), binds: 0, resets: 0, is_closed: false };
        let state = Mutex::with_contents(state).named("gate", name);
        Self { device, state, idle: WaitQueue::new().named("gate_idle", name) }
    }

    /// Gives a new vdevice a token that is not set. Called under GROUP, when no command runs.
    pub(crate) fn renew(&self) {
        let fresh = token(self.device);
        let old = std::mem::replace(&mut self.state.lock().cancel, fresh);
        drop(old);
    }

    /// The token of a command that begins now.
    ///
    /// # Errors
    /// [`tsm::Refusal::Cancelled`] (`EINTR`): no file that it could have come through is open.
    pub(crate) fn enter(&self, origin: Origin) -> Result<Cancel, Refusal> {
        self.state.lock().token(origin)
    }

    /// As [`enter`](Self::enter), for a bind; no reset begins until the result is dropped.
    ///
    /// # Errors
    /// [`Refusal::Resetting`] (`EBUSY`), then as [`enter`](Self::enter).
    fn enter_bind(&self, origin: Origin) -> Result<BindUnderWay<'_>, Refusal> {
        let mut state = self.state.lock();
        if state.resets > 0 {
            return Err(Refusal::Resetting);
        }
        let cancel = state.token(origin)?;
        state.binds += 1;
        Ok(BindUnderWay { gate: self, cancel })
    }

    /// The token to set when everything that runs, and all that begins, is to be given up.
    fn token(&self) -> Cancel {
        self.state.lock().cancel.clone()
    }

    /// The token to set when only what runs is to be given up.
    fn take_token(&self) -> Cancel {
        let fresh = token(self.device);
        std::mem::replace(&mut self.state.lock().cancel, fresh)
    }

    /// As [`take_token`](Self::take_token); from here on commands of `/dev/iommu` are refused.
    fn close(&self) -> Cancel {
        let fresh = token(self.device);
        let mut state = self.state.lock();
        state.is_closed = true;
        std::mem::replace(&mut state.cancel, fresh)
    }
}

/// A token that is not set.
fn token(device: u32) -> Cancel {
    Cancel::new().named("token", || name(device))
}

fn name(device: u32) -> String {
    format!("{}{device}", Device::NAME)
}

impl Contents for State {
    fn contents(&self, mut into: &mut dyn Hasher) {
        (self.cancel.identity(), self.binds, self.resets, self.is_closed).hash(&mut into);
    }
}

impl State {
    fn token(&self, origin: Origin) -> Result<Cancel, Refusal> {
        if self.is_closed && origin == Origin::Iommufd {
            return Err(Refusal::Tsm(tsm::Refusal::Cancelled));
        }
        Ok(self.cancel.clone())
    }
}

/// A bind that has passed the gate.
struct BindUnderWay<'g> {
    gate: &'g Gate,
    cancel: Cancel,
}

impl Drop for BindUnderWay<'_> {
    fn drop(&mut self) {
        let is_waited_for = {
            let mut state = self.gate.state.lock();
            state.binds -= 1;
            state.binds == 0 && state.resets > 0
        };
        if is_waited_for {
            self.gate.idle.wake_all();
        }
    }
}

/// Keeps a device's TDI unbound while its function is reset.
#[must_use = "binds are let through again when it is dropped"]
pub struct ResetGuard<'d> {
    device: &'d Device,
}

impl ResetGuard<'_> {
    /// The function was reset: ends a quarantine, as far as the device says that its TDI is unlocked.
    /// Bounded by the exchange timeout. Takes no lock while the device is waited for.
    pub fn done(self) {
        if let Some(tsm) = self.device.endpoint().tsm() {
            tsm.reset_done(self.device.endpoint().address());
        }
    }
}

impl Drop for ResetGuard<'_> {
    fn drop(&mut self) {
        self.device.gate().state.lock().resets -= 1;
    }
}

impl Device {
    /// Binds the TDI of the device's vdevice: `VFIO_DEVICE_TSM_BIND`. Waits for the device; the end of the
    /// device cancels it. Called with no lock held.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::NoObject`] (`ENOENT`): no such vdevice.
    /// - [`Refusal::OtherDevice`] (`EINVAL`): it is another device's.
    /// - [`Refusal::NoVm`] (`ENODEV`), [`Refusal::NoTsm`] (`EOPNOTSUPP`)
    /// - [`Refusal::Resetting`] (`EBUSY`)
    /// - [`Refusal::Tsm`]: as [`tsm::Registry::bind`].
    ///
    /// Takes OBJECTS. [tsm-rfc-2025-05]
    pub fn bind_tdi(&self, vdevice_id: u32) -> Result<(), Refusal> {
        let vdevice = self.context().get::<Vdevice>(vdevice_id)?;
        if !std::ptr::eq(&**vdevice.device(), self) {
            return Err(Refusal::OtherDevice { vdevice: vdevice_id });
        }
        vdevice.bind(Origin::Vfio)
    }

    /// Unbinds the device's TDI and nothing else; nothing happens where it is not bound. Waits its turn to
    /// speak to the device, which is bounded; what the device does not answer is quarantined. Called with no
    /// lock held. [tsm-rfc-2025-05] `VFIO_DEVICE_TSM_UNBIND`.
    pub fn unbind(&self) {
        if let Some(tsm) = self.endpoint().tsm() {
            tsm.unbind(self.endpoint().address());
        }
    }

    /// Gives up the TSM command that is running about the device, if there is one, and then unbinds as
    /// [`unbind`](Self::unbind) does: for a reset that policy allows while bound. Returns when no bind is under
    /// way any more. Called with no lock held.
    pub fn cancel_and_unbind(&self) {
        self.gate().state.lock().resets += 1;
        let _shut = ResetGuard { device: self };
        let token = self.gate().take_token();
        self.set(&token);
        self.unbind();
        let state = self.gate().state.lock();
        drop(self.gate().idle.wait_while(state, |state| state.binds > 0));
    }

    /// How the device's TDI stands, as the host sees it; `Unbound` where there is no TSM. Called with no lock
    /// held.
    pub fn tdi(&self) -> Binding {
        let endpoint = self.endpoint();
        endpoint.tsm().map_or(Binding::Unbound, |tsm| tsm.binding(endpoint.address()))
    }

    /// Begins a reset of the function: while the result lives no bind begins. Quarantine does not stand in
    /// the way, a reset is what ends it. Takes OBJECTS; called with no lock held.
    ///
    /// # Errors
    /// How the TDI stands, if it is bound or may be.
    pub fn begin_reset(&self) -> Result<ResetGuard<'_>, Binding> {
        {
            let mut state = self.gate().state.lock();
            if state.binds > 0 {
                return Err(Binding::Binding);
            }
            state.resets += 1;
        }
        let guard = ResetGuard { device: self };
        match self.tdi() {
            Binding::Unbound | Binding::Quarantined => Ok(guard),
            bound @ (Binding::Binding | Binding::Bound { .. } | Binding::Unknown) => Err(bound),
        }
    }

    /// Gives up the TSM command that is running about the device and all that begin later, until it has
    /// another vdevice: the device's file is being closed. Returns at once. Called with no lock held.
    pub fn cancel(&self) {
        let token = self.gate().token();
        self.set(&token);
    }

    /// Gives up the TSM command that is running about the device and all that begin later on the context.
    pub(crate) fn close_gate(&self) {
        let token = self.gate().close();
        self.set(&token);
    }

    fn set(&self, token: &Cancel) {
        if let Some(tsm) = self.endpoint().tsm() {
            tsm.cancel(self.endpoint().address(), token);
        }
    }
}

impl Vdevice {
    /// Binds its TDI to the VM of its vIOMMU. Waits for the device. The caller holds the vdevice.
    ///
    /// # Errors
    /// As [`Device::bind_tdi`], from [`Refusal::NoVm`] on.
    pub(crate) fn bind(&self, origin: Origin) -> Result<(), Refusal> {
        self.check_vm()?;
        let (tsm, function) = self.tsm()?;
        let vm = self.vm().ok_or(Refusal::NoTsm)?;
        let bind = self.device().gate().enter_bind(origin)?;
        Ok(tsm.bind(function, vm, self.virt_id(), &bind.cancel)?)
    }

    /// Unbinds its TDI. Waits its turn.
    ///
    /// # Errors
    /// [`Refusal::NoTsm`] (`EOPNOTSUPP`).
    pub(crate) fn unbind(&self) -> Result<(), Refusal> {
        let (tsm, function) = self.tsm()?;
        tsm.unbind(function);
        Ok(())
    }

    /// # Errors
    /// [`Refusal::NoVm`] (`ENODEV`): its vIOMMU was made without a VM.
    pub(crate) fn check_vm(&self) -> Result<(), Refusal> {
        self.viommu().check_vm()
    }

    /// The TSM core of its device, whose address that is.
    ///
    /// # Errors
    /// [`Refusal::NoTsm`] (`EOPNOTSUPP`).
    pub(crate) fn tsm(&self) -> Result<(&Arc<tsm::Registry>, pci::Address), Refusal> {
        let endpoint = self.device().endpoint();
        Ok((endpoint.tsm().ok_or(Refusal::NoTsm)?, endpoint.address()))
    }
}
