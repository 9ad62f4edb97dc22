//! RESET, and the function-level reset that a client writes into config space.
//!
//! Interrupts stay set up over a reset, and registers that the host keeps come back. No lock is held while the
//! function is reset; the device's turn is. Source: [uapi/vfio.h].

use pci::Reset;

use crate::argument::Argument;
use crate::command::Bound;
use crate::enable::POWER_D0;
use crate::hardware::Saved;
use crate::turn::Turn;
use crate::{Device, Refusal};

/// `VFIO_DEVICE_RESET`: resets the function. The argument is not looked at.
///
/// # Errors
/// - [`Refusal::NoReset`] – the function cannot be reset alone (`EINVAL`).
/// - [`Refusal::ResetRunning`] – another reset of it runs (`EAGAIN`).
///
/// Takes `MEMORY`.
pub(crate) fn reset(bound: &Bound<'_>, _argument: &Argument<'_>) -> Result<u32, Refusal> {
    if !bound.device.can_reset() {
        return Err(Refusal::NoReset);
    }
    let turn = bound.device.take_turn_for_reset()?;
    bound.device.reset_function(&turn);
    Ok(0)
}

impl Device {
    /// Resets this function. The caller owns the turn.
    pub(crate) fn reset_function(&self, turn: &Turn<'_>) {
        self.set_power_state(turn, POWER_D0);
        let saved = Saved::of(self.function(), self.facts());
        self.function().reset(Reset::Function);
        self.put_back(turn, &saved);
    }
}
