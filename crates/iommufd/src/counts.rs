//! How much a context holds: for people, and for tests that nothing is left.
//!
//! Takes no lock itself.

use std::collections::BTreeMap;

use pci::DmaFaultReason;

/// What a context holds at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Devices bound.
    pub devices: usize,
    /// Address spaces.
    pub ioases: usize,
    /// Page tables, made by a command or for an attachment.
    pub hwpts: usize,
    /// Guests' views of an IOMMU.
    pub viommus: usize,
    /// Devices behind those.
    pub vdevices: usize,
    /// Ids that are used up.
    pub tombstones: usize,
    /// Mappings in all address spaces.
    pub areas: u64,
    /// Bytes of those, at most `u64::MAX`: address spaces can hold more than can be said.
    pub mapped_bytes: u64,
    /// Bytes of those whose memory is pinned.
    pub pinned_bytes: u64,
    /// Entries of guests' invalidations taken since the context was opened.
    pub invalidations: u64,
    /// DMA accesses refused since the context was opened.
    pub dma_faults: BTreeMap<DmaFaultReason, u64>,
}

impl Counts {
    /// Objects that a client can see.
    pub const fn objects(&self) -> usize {
        self.devices + self.ioases + self.hwpts + self.viommus + self.vdevices
    }
}
