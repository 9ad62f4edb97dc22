//! The registers of one capability before they have a place in config space.

use crate::config::{Masks, Plane};

/// Registers with their reset values and masks, offsets counted from the start of the capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBlock {
    length: u16,
    values: Vec<u8>,
    writable: Vec<u8>,
    clear_on_one: Vec<u8>,
    sticky: Vec<u8>,
    kept_by_flr: Vec<u8>,
}

impl RegisterBlock {
    /// `length` bytes of read-only zeros.
    pub fn new(length: u16) -> Self {
        let zeros = vec![0; usize::from(length)];
        Self {
            length,
            values: zeros.clone(),
            writable: zeros.clone(),
            clear_on_one: zeros.clone(),
            sticky: zeros.clone(),
            kept_by_flr: zeros,
        }
    }

    /// Bytes of the block.
    pub fn length(&self) -> u16 {
        self.length
    }

    /// Places read-only bytes.
    pub fn bytes(mut self, at: u16, values: &[u8]) -> Self {
        put(&mut self.values, at, values);
        self
    }

    /// Places a 16-bit register: its reset value, and the bits that take what is written.
    pub fn word(mut self, at: u16, value: u16, writable: u16) -> Self {
        put(&mut self.values, at, &value.to_le_bytes());
        put(&mut self.writable, at, &writable.to_le_bytes());
        self
    }

    /// Places a 32-bit register: its reset value, and the bits that take what is written.
    pub fn dword(mut self, at: u16, value: u32, writable: u32) -> Self {
        put(&mut self.values, at, &value.to_le_bytes());
        put(&mut self.writable, at, &writable.to_le_bytes());
        self
    }

    /// Makes bits of a 32-bit register clear when one is written to them.
    pub fn clear_on_one(mut self, at: u16, bits: u32) -> Self {
        put(&mut self.clear_on_one, at, &bits.to_le_bytes());
        self
    }

    /// Lets no reset touch bits of a 32-bit register.
    pub fn sticky(mut self, at: u16, bits: u32) -> Self {
        put(&mut self.sticky, at, &bits.to_le_bytes());
        self
    }

    /// Lets a function-level reset not touch bits of a 16-bit register.
    pub fn kept_by_flr(mut self, at: u16, bits: u16) -> Self {
        put(&mut self.kept_by_flr, at, &bits.to_le_bytes());
        self
    }

    /// Whether a register was placed in these bytes.
    pub(crate) fn is_used(&self, at: u16, length: usize) -> bool {
        let mut used = self.values.iter().zip(&self.writable).skip(usize::from(at)).take(length);
        used.any(|(value, writable)| *value != 0 || *writable != 0)
    }

    /// Copies the block into config space at `offset`, which the builder has found free.
    pub(crate) fn place(&self, values: &mut Plane, masks: &mut Masks, offset: u16) {
        put(values, offset, &self.values);
        put(&mut masks.writable, offset, &self.writable);
        put(&mut masks.clear_on_one, offset, &self.clear_on_one);
        put(&mut masks.sticky, offset, &self.sticky);
        put(&mut masks.kept_by_flr, offset, &self.kept_by_flr);
    }
}

/// Writes bytes; what would lie beyond the end is dropped.
fn put(plane: &mut [u8], at: u16, bytes: &[u8]) {
    for (slot, byte) in plane.iter_mut().skip(usize::from(at)).zip(bytes) {
        *slot = *byte;
    }
}
