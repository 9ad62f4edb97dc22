//! DMA of a bound device: through its page table, or a guest's and then its parent, to pinned memory, piece by piece.
//!
//! Each piece (what follows one another in memory, at most 64 KiB) is translated and copied inside one stay, and so is
//! the note that it was written. A guest whose tables stop it hears of it before that stay ends. Takes PAGES and OBJECTS
//! for the length of a look-up each, and holds no lock while it copies or reports.

use pci::{Dma, DmaAccess, DmaFault, DmaFaultReason};

use crate::hardware::Stopped;
use crate::hwpt::Hwpt;
use crate::iova_map::Translation;
use crate::nested::Nested;
use crate::{Device, MemoryGone, PAGE_SIZE, Pinned};

impl Dma for Device {
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        let length = into.len();
        self.each_piece(DmaAccess::Read, iova, length, |memory, at, range| {
            memory.read(at, &mut into[range])
        })
    }

    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.each_piece(DmaAccess::Write, iova, from.len(), |memory, at, range| {
            memory.write(at, &from[range])
        })
    }

    fn refused(&self, fault: &DmaFault) {
        self.context().count_dma_fault(fault.reason);
        self.endpoint().notices().dma_fault(self.endpoint().address(), fault);
    }
}

/// Bytes copied at most between entering the epoch and leaving it.
const PIECE_MAX: usize = 64 << 10;

/// Which bytes of the device's buffer.
type Bytes = std::ops::Range<usize>;

impl Device {
    /// Calls `copy` with where each piece is: the memory, the address there, and the bytes of the buffer.
    fn each_piece(
        &self,
        access: DmaAccess,
        iova: u64,
        length: usize,
        mut copy: impl FnMut(&dyn Pinned, u64, Bytes) -> Result<(), MemoryGone>,
    ) -> Result<(), DmaFault> {
        let mut done = 0;
        while done < length {
            match self.piece(access, iova, done..length, &mut copy) {
                Ok(copied) => done += copied,
                Err((refused, reason)) => {
                    let fault = DmaFault { iova: byte_at(iova, refused), access, reason };
                    self.context().count_dma_fault(reason);
                    self.endpoint().notices().dma_fault(self.endpoint().address(), &fault);
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Copies the first piece of the `bytes` that are left and returns how many that was; or the first byte
    /// refused, and why.
    fn piece(
        &self,
        access: DmaAccess,
        iova: u64,
        bytes: Bytes,
        copy: &mut impl FnMut(&dyn Pinned, u64, Bytes) -> Result<(), MemoryGone>,
    ) -> Result<usize, (usize, DmaFaultReason)> {
        let first = bytes.start;
        // Dropped last: what was found is let go before the access ends.
        let stay = self.context().enter_dma(self.visitors());
        let table = self.table().ok_or((first, DmaFaultReason::NotAttached))?;
        let address = iova.checked_add(first as u64).ok_or((first, DmaFaultReason::NotMapped))?;
        let reached = table.reach(&stay, address, access).map_err(|stopped| {
            self.tell_guest(&table, &stopped);
            (first, stopped.reason)
        })?;
        let alike = usize::try_from(reached.left).unwrap_or(usize::MAX);
        let most = bytes.len().min(PIECE_MAX).min(alike);
        let found = table.ioas().map.translate(&stay, reached.address, access, most as u64);
        let found = found.map_err(|reason| (first, reason))?;
        let now = most.min(usize::try_from(found.left).unwrap_or(usize::MAX));
        if access == DmaAccess::Write {
            table.bottom().note_write(&stay, reached.address, now as u64);
        }
        match copy(&*found.memory, found.at, first..first + now) {
            Ok(()) => Ok(now),
            Err(MemoryGone) => {
                let gone = first_gone(&found, first..first + now, copy);
                Err((gone, DmaFaultReason::MemoryGone))
            }
        }
    }

    /// Tells the guest whose tables stopped a request, if it knows the device.
    fn tell_guest(&self, table: &Hwpt, stopped: &Stopped) {
        let Some(viommu) = table.nested().and_then(Nested::viommu) else { return };
        if let Some(virt_id) = viommu.virt_id(self) {
            stopped.tell(viommu, virt_id);
        }
    }
}

/// The first byte that is gone of a piece that could not be copied as a whole. Memory goes by pages.
fn first_gone(
    found: &Translation,
    bytes: Bytes,
    copy: &mut impl FnMut(&dyn Pinned, u64, Bytes) -> Result<(), MemoryGone>,
) -> usize {
    let mut at = bytes.start;
    while at < bytes.end {
        let address = found.at + (at - bytes.start) as u64;
        let to_page_end = PAGE_SIZE - address % PAGE_SIZE;
        let to_page_end = usize::try_from(to_page_end).unwrap_or(usize::MAX);
        let end = bytes.end.min(at.saturating_add(to_page_end));
        if copy(&*found.memory, address, at..end).is_err() {
            break;
        }
        at = end;
    }
    at.min(bytes.end - 1)
}

/// The address of byte `index` of an access. One that passes the top goes on from zero, as the bus does.
const fn byte_at(iova: u64, index: usize) -> u64 {
    iova.wrapping_add(index as u64)
}
