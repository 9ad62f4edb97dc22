//! One step of a transfer: at most 64 KiB, done with no lock held.

use std::sync::Arc;

use pci::{Dma, DmaFault};

use super::descriptor::Work;

/// A part of a transfer, cut out under the engine's lock and run outside.
pub(super) struct Step {
    /// Where it goes.
    pub(super) dma: Arc<dyn Dma>,
    /// The operation it is part of.
    pub(super) work: Work,
    /// Bytes of the operation before this part.
    pub(super) done: u32,
    /// The bytes of this part: filled beforehand for a write from the window, afterwards holding what
    /// a read into the window brought.
    pub(super) bytes: Vec<u8>,
    /// The engine's generation when the part was cut.
    pub(super) generation: u64,
}

impl Step {
    /// Moves the bytes.
    ///
    /// # Errors
    /// The first byte refused. Bytes before it may have been moved.
    pub(super) fn run(&mut self) -> Result<(), DmaFault> {
        // The sums stay below 2^64: a descriptor is checked for that when it is rung.
        let done = u64::from(self.done);
        match self.work {
            Work::Nop => Ok(()),
            Work::Copy { source, destination, .. } => {
                self.dma.read(source.wrapping_add(done), &mut self.bytes)?;
                self.dma.write(destination.wrapping_add(done), &self.bytes)
            }
            Work::Fill { destination, pattern, .. } => {
                self.fill(pattern);
                self.dma.write(destination.wrapping_add(done), &self.bytes)
            }
            Work::Read { source, .. } => self.dma.read(source.wrapping_add(done), &mut self.bytes),
            Work::Write { destination, .. } => {
                self.dma.write(destination.wrapping_add(done), &self.bytes)
            }
        }
    }

    /// Repeats the pattern, counted from the first byte of the operation.
    fn fill(&mut self, pattern: u64) {
        let phase = self.done % 8;
        let pattern = pattern.rotate_right(8 * phase).to_le_bytes();
        for part in self.bytes.chunks_mut(pattern.len()) {
            part.copy_from_slice(&pattern[..part.len()]);
        }
    }
}
