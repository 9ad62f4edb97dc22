//! Who may touch a device's hardware now.
//!
//! Resets, enabling and disabling wait for the device, and writes to its registers may be followed by
//! interrupts: neither may happen under a lock. So whoever does them owns the device's *turn*: a mark
//! under the `MEMORY` lock, waited for on a queue, with no lock held while it is owned. A thread owns the
//! turn of one device, or those of a set's devices taken by ascending address.

use crate::Device;
use crate::Refusal;

/// The right to touch the hardware of a device. Dropping it passes it on.
pub(crate) struct Turn<'a> {
    device: &'a Device,
    /// Whether the device had lent anything when the turn was taken: who lends owns it.
    is_lending: bool,
}

/// What a turn is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Something that others simply wait for.
    Access,
    /// A reset that a client asked for: a second one is refused instead of waiting.
    Reset,
}

impl Device {
    /// Waits for the turn.
    pub(crate) fn take_turn(&self) -> Turn<'_> {
        let memory = self.memory().lock();
        let mut memory = self.turn_passed().wait_while(memory, |memory| memory.turn.is_some());
        memory.turn = Some(Purpose::Access);
        Turn { device: self, is_lending: memory.lent.is_any() }
    }

    /// Takes the turn for a reset, unless another reset has it.
    ///
    /// # Errors
    /// [`Refusal::ResetRunning`] (`EAGAIN`).
    pub(crate) fn take_turn_for_reset(&self) -> Result<Turn<'_>, Refusal> {
        let memory = self.memory().lock();
        let waits_for = |turn| turn == Some(Purpose::Access);
        let mut memory = self.turn_passed().wait_while(memory, |memory| waits_for(memory.turn));
        if memory.turn.is_some() {
            return Err(Refusal::ResetRunning);
        }
        memory.turn = Some(Purpose::Reset);
        Ok(Turn { device: self, is_lending: memory.lent.is_any() })
    }
}

impl<'a> Turn<'a> {
    /// The device whose turn this is.
    pub(crate) fn device(&self) -> &'a Device {
        self.device
    }

    /// Whether there may be dma-bufs of the device's BARs.
    pub(crate) fn is_lending(&self) -> bool {
        self.is_lending
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.device.memory().lock().turn = None;
        self.device.turn_passed().wake_all();
    }
}
