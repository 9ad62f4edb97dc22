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
    /// Its accesses have the T bit.
    pub(super) trusted: bool,
    /// Bytes of the operation before this part.
    pub(super) done: u32,
    /// The bytes of this part: filled beforehand for a write from the window, afterwards holding what
    /// a read into the window brought.
    pub(super) bytes: Vec<u8>,
    /// The engine's generation when the part was cut.
    pub(super) generation: u64,
}

impl Step {
    /// Moves the bytes. Where that takes two accesses, the second is left out unless `stands` says
    /// that what the part belongs to still stands.
    ///
    /// # Errors
    /// The first byte refused. Bytes before it may have been moved.
    pub(super) fn run(&mut self, stands: impl FnOnce(u64) -> bool) -> Result<(), DmaFault> {
        // The sums stay below 2^64: a descriptor is checked for that when it is rung.
        let done = u64::from(self.done);
        match self.work {
            Work::Nop => Ok(()),
            Work::Copy { source, destination, .. } => {
                self.read(source.wrapping_add(done))?;
                if stands(self.generation) {
                    self.write(destination.wrapping_add(done))
                } else {
                    Ok(())
                }
            }
            Work::Fill { destination, pattern, .. } => {
                self.fill(pattern);
                self.write(destination.wrapping_add(done))
            }
            Work::Read { source, .. } => self.read(source.wrapping_add(done)),
            Work::Write { destination, .. } => self.write(destination.wrapping_add(done)),
        }
    }

    fn read(&mut self, iova: u64) -> Result<(), DmaFault> {
        if self.trusted {
            self.dma.read_trusted(iova, &mut self.bytes)
        } else {
            self.dma.read(iova, &mut self.bytes)
        }
    }

    fn write(&self, iova: u64) -> Result<(), DmaFault> {
        if self.trusted {
            self.dma.write_trusted(iova, &self.bytes)
        } else {
            self.dma.write(iova, &self.bytes)
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
