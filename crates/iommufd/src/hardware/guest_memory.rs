//! A guest's memory as an IOMMU reaches it while it walks the guest's tables.
//!
//! Addresses are the guest's own, and lead through the page table that its tables are nested in. Takes PAGES for the
//! length of a look-up.

use pci::{DmaAccess, DmaFaultReason};

use crate::hwpt::Hwpt;
use crate::in_flight::Stay;
use crate::iova_map::Translation;

/// A guest's memory by guest-physical address.
pub(crate) trait GuestMemory {
    /// Reads bytes that lie in one page.
    ///
    /// # Errors
    /// What keeps an IOMMU from reading there.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), DmaFaultReason>;

    /// Sets flags in the byte at `at`, which was seen as `seen`. Where the guest has changed it since, the access came
    /// before that, and nothing is set.
    ///
    /// # Errors
    /// What keeps an IOMMU from writing there.
    fn set_flags(&self, at: u64, seen: u8, flags: u8) -> Result<(), DmaFaultReason>;

    /// The 8 bytes at a multiple of 8, least significant first.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_entry(&self, at: u64) -> Result<u64, DmaFaultReason> {
        let mut bytes = [0; size_of::<u64>()];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Memory that a parent page table shows, for the length of one DMA access.
pub(crate) struct ThroughParent<'s> {
    pub(crate) parent: &'s Hwpt,
    pub(crate) stay: &'s Stay<'s>,
}

impl ThroughParent<'_> {
    fn find(&self, at: u64, access: DmaAccess, length: u64) -> Result<Translation, DmaFaultReason> {
        let found = self.parent.ioas().map.translate(self.stay, at, access, length)?;
        if found.left < length { Err(DmaFaultReason::NotMapped) } else { Ok(found) }
    }
}

impl GuestMemory for ThroughParent<'_> {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), DmaFaultReason> {
        let found = self.find(at, DmaAccess::Read, into.len() as u64)?;
        found.memory.read(found.at, into).map_err(|_| DmaFaultReason::MemoryGone)
    }

    fn set_flags(&self, at: u64, seen: u8, flags: u8) -> Result<(), DmaFaultReason> {
        let found = self.find(at, DmaAccess::Write, 1)?;
        self.parent.note_write(self.stay, at, 1);
        let mut now = [0];
        found.memory.read(found.at, &mut now).map_err(|_| DmaFaultReason::MemoryGone)?;
        if now != [seen] {
            return Ok(());
        }
        found.memory.write(found.at, &[seen | flags]).map_err(|_| DmaFaultReason::MemoryGone)
    }
}
