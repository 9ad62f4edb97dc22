//! RESET, and what a client writes into config space to the same end.
//!
//! Interrupts stay set up over a reset, and registers that the host keeps come back. No lock is held while the
//! function is reset; the device's turn is. What becomes of a bound TDI is `tdi.rs`'s to say.
//! Source: [uapi/vfio.h].

use std::sync::Arc;

use pci::Reset;

use crate::argument::Argument;
use crate::command::Bound;
use crate::enable::{POWER_D0, POWER_D3HOT};
use crate::hardware::Saved;
use crate::tdi::Affected;
use crate::turn::Turn;
use crate::{Device, PolicyEvent, Refusal, ResetCause};

/// `VFIO_DEVICE_RESET`: resets the function. The argument is not looked at.
///
/// # Errors
/// - [`Refusal::NoReset`] – the function cannot be reset alone (`EINVAL`).
/// - [`Refusal::ResetRunning`] – another reset of it runs (`EAGAIN`).
/// - [`Refusal::TdiBound`] – its TDI is bound, or one of its virtual functions', and the settings do not let a reset break that (`EBUSY`).
///
/// Takes `MEMORY`.
pub(crate) fn reset(bound: &Bound<'_>, _argument: &Argument<'_>) -> Result<u32, Refusal> {
    let device = bound.device;
    if !device.can_reset() {
        return Err(Refusal::NoReset);
    }
    let affected = Affected::by_reset_of(&device.with_virtual_functions());
    affected.unbind(ResetCause::Command);
    let turn = device.take_turn_for_reset()?;
    let admitted = affected.admit(ResetCause::Command)?;
    device.reset_function(&turn);
    drop(turn);
    admitted.done();
    Ok(0)
}

/// What a write to config space asks of the function as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FunctionChange {
    /// A function-level reset.
    Reset,
    /// A power state, as the control register numbers them.
    Power(u16),
}

impl Device {
    /// Does what a write to config space asked for, unless that is refused for a TDI. The caller owns no turn.
    pub(crate) fn change_from_config(self: &Arc<Self>, change: FunctionChange) {
        match change {
            FunctionChange::Reset => {
                self.reset_from_config(ResetCause::Config, |turn| self.reset_function(turn));
            }
            FunctionChange::Power(state) if self.resets_on_the_way_to(state) => {
                self.reset_from_config(ResetCause::Power, |turn| self.set_power_state(turn, state));
            }
            FunctionChange::Power(state) if state == POWER_D3HOT && self.keeps_enabled() => {
                self.tell(PolicyEvent::PowerKept(state));
            }
            FunctionChange::Power(state) => self.set_power_state(&self.take_turn(), state),
        }
    }

    /// Resets this function. The caller owns the turn.
    fn reset_function(&self, turn: &Turn<'_>) {
        self.set_power_state(turn, POWER_D0);
        turn.take_lent_back();
        let saved = Saved::of(self.function(), self.facts());
        self.function().reset(Reset::Function);
        self.put_back(turn, &saved);
        turn.settle_lent();
    }

    fn reset_from_config(self: &Arc<Self>, cause: ResetCause, reset: impl FnOnce(&Turn<'_>)) {
        let affected = Affected::by_reset_of(&self.with_virtual_functions());
        affected.unbind(cause);
        let turn = self.take_turn();
        if let Ok(admitted) = affected.admit(cause) {
            reset(&turn);
            drop(turn);
            admitted.done();
        }
    }

    /// Whether a function that goes to a power state is reset, now or once it comes back.
    fn resets_on_the_way_to(&self, state: u16) -> bool {
        let before = self.memory().lock().power;
        let passes = before != state && (before == POWER_D3HOT || state == POWER_D3HOT);
        passes && self.facts().pm.is_some_and(|pm| pm.soft_reset)
    }
}
