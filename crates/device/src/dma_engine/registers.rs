//! The registers of BAR 0's first page.
//!
//! Takes no lock. What a write sets off beyond the registers is told to the caller as a [`Request`].

use super::regs::{self, bar0, cause, control, register, state};

/// The registers that hold something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Registers {
    /// Work is done.
    pub(super) enabled: bool,
    /// Causes set.
    pub(super) cause: u32,
    mask: u32,
    completed: u64,
    faults: u32,
    refused: u32,
    scratch: u32,
}

/// What the queue looks like to the STATE register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueView {
    /// Descriptors pending or running.
    pub(super) queued: u32,
    /// The slot that is running.
    pub(super) running: Option<u32>,
}

/// What a register write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing more.
    None,
    /// Queue the descriptor of a slot, if there is such a slot.
    Ring(u32),
    /// End all queued work.
    Abort,
    /// Reset what BAR 0 shows.
    SoftReset,
}

impl Registers {
    /// A register, by its offset, which is a multiple of four. There is nothing between registers.
    pub(super) fn read(&self, offset: u64, queue: QueueView) -> u32 {
        match offset {
            register::ID => regs::ID_VALUE,
            register::VERSION => regs::VERSION_VALUE,
            register::CAPABILITIES => {
                regs::SLOTS
                    | u32::from(regs::MSIX_VECTORS) << 8
                    | u32::from(regs::MSI_VECTORS) << 16
            }
            register::OPERATIONS => regs::operation::ALL,
            register::DESCRIPTORS => low(bar0::DESCRIPTORS),
            register::STATUS_BLOCKS => low(bar0::STATUS_BLOCKS),
            register::WINDOW => low(bar0::WINDOW),
            register::WINDOW_LENGTH => low(bar0::WINDOW_LENGTH),
            register::CONTROL if self.enabled => control::ENABLE,
            register::STATE => {
                let running = if queue.running.is_some() { state::RUNNING } else { 0 };
                let slot = queue.running.unwrap_or(0) << state::SLOT_SHIFT;
                running | queue.queued << state::QUEUED_SHIFT | slot
            }
            register::INTERRUPT_CAUSE => self.cause,
            register::INTERRUPT_MASK => self.mask,
            register::COMPLETED => low(self.completed),
            register::COMPLETED_HIGH => low(self.completed >> 32),
            register::FAULTS => self.faults,
            register::REFUSED => self.refused,
            register::SCRATCH => self.scratch,
            _ => 0,
        }
    }

    /// Writes a register.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> Request {
        match offset {
            register::CONTROL => {
                self.enabled = value & control::ENABLE != 0;
                if value & control::SOFT_RESET != 0 {
                    return Request::SoftReset;
                }
                if value & control::ABORT != 0 {
                    return Request::Abort;
                }
            }
            register::DOORBELL => return Request::Ring(value),
            register::INTERRUPT_CAUSE => self.cause &= !value,
            register::INTERRUPT_MASK => self.mask = value & cause::ALL,
            register::SCRATCH => self.scratch = value,
            _ => {}
        }
        Request::None
    }

    /// Counts the end of a descriptor.
    pub(super) fn count_end(&mut self, fault: bool) {
        self.completed = self.completed.wrapping_add(1);
        self.faults = self.faults.wrapping_add(u32::from(fault));
    }

    /// Counts a doorbell that was refused.
    pub(super) fn refuse(&mut self) {
        self.refused = self.refused.wrapping_add(1);
        self.cause |= cause::REFUSED;
    }

    /// Whether a cause may raise an interrupt.
    pub(super) fn is_unmasked(&self, cause: u32) -> bool {
        self.mask & cause == 0
    }

    /// Whether a cause is set that may raise an interrupt.
    pub(super) fn wants_attention(&self) -> bool {
        self.cause & !self.mask != 0
    }
}

/// Copies a naturally aligned access of 1, 2, 4 or 8 bytes out of 32-bit registers.
pub(super) fn read_bytes(offset: u64, into: &mut [u8], register: impl Fn(u64) -> u32) {
    for (byte, at) in into.iter_mut().zip(offset..) {
        let [a, b, c, d] = register(at & !3).to_le_bytes();
        *byte = match at & 3 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        };
    }
}

/// The 32-bit registers that a write reaches, lower first. Narrower writes reach none.
pub(super) fn dwords(offset: u64, from: &[u8]) -> impl Iterator<Item = (u64, u32)> {
    let whole = from.chunks_exact(4).map(|bytes| {
        let mut value = [0; 4];
        value.copy_from_slice(bytes);
        u32::from_le_bytes(value)
    });
    (offset..).step_by(4).zip(whole).filter(|(offset, _)| offset.is_multiple_of(4))
}

/// The low half.
pub(super) fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
