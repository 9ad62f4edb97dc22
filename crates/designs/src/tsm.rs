//! What the hardware believes: which device is bound, and whether its driver has let it go.
//!
//! The invariants about binding live here, as assertions: a bind too many, an unbind too many, a device that
//! is let go while it is bound.

use sync::{Mutex, Rank};

use crate::Refused;
use crate::object::lock;

/// The TSM, with its one device.
pub(crate) struct Tsm {
    state: Mutex<TsmLock, State>,
}

/// `pci_tsm_rwsem` and the lock of the device's security manager in one.
pub(crate) enum TsmLock {}

impl Rank for TsmLock {
    const ORDER: u8 = 40;
    const NAME: &'static str = "tsm";
    const ASSERTED: bool = false;
}

#[derive(Debug, Default, Hash)]
struct State {
    gone: bool,
    bound: bool,
    released: bool,
}

impl Tsm {
    pub(crate) fn new() -> Self {
        Self { state: lock(State::default()) }
    }

    /// `tsm_bind()`.
    pub(crate) fn bind(&self) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.gone {
            return Err(Refused::ENXIO);
        }
        assert!(!state.released, "a device is bound after VFIO let it go");
        assert!(!state.bound, "a device is bound twice");
        state.bound = true;
        Ok(())
    }

    /// `tsm_unbind()`. A TSM that is gone has unbound everything.
    pub(crate) fn unbind(&self) {
        let mut state = self.state.lock();
        if state.gone {
            return;
        }
        assert!(!state.released, "a device is unbound after VFIO let it go");
        assert!(state.bound, "a device is unbound that is not bound");
        state.bound = false;
    }

    /// The device goes back to the host: `iommu_device_release_dma_owner()`.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        assert!(!state.bound, "VFIO lets a device go that is bound");
        state.released = true;
    }

    /// The TSM goes and takes all bindings along: `tsm_unregister()`.
    pub(crate) fn unregister(&self) {
        let mut state = self.state.lock();
        state.gone = true;
        state.bound = false;
    }

    /// When all is closed.
    pub(crate) fn check_ended(&self) {
        assert!(!self.state.lock().bound, "a device is left bound with every file closed");
    }
}
