//! The SMMUv3's identification registers, made of a geometry.
//!
//! Takes no lock. Source: the SMMUv3 architecture, 6.3.1 to 6.3.6; names of fields as there.

use crate::Geometry;

/// `SMMU_IDR0` to `SMMU_IDR5`.
pub(super) fn identification(geometry: &Geometry) -> [u32; 6] {
    let substreams = u32::from(geometry.max_pasid_log2) << idr1::SSIDSIZE_SHIFT;
    [idr0::ALWAYS, idr1::ALWAYS | substreams, 0, 0, 0, idr5::GRAN4K | output_size(geometry)]
}

/// Architecture 3.2, which has page tables of AArch64 only.
pub(super) const ARCHITECTURE: u32 = 2;

/// Sizes of addresses by their number, in bits.
pub(super) const ADDRESS_BITS: [u32; 6] = [32, 36, 40, 42, 44, 48];

/// Bits of a guest-physical address.
pub(super) fn output_bits(geometry: &Geometry) -> u32 {
    u64::BITS - geometry.aperture.last().leading_zeros()
}

/// The number of the largest size that does not pass the geometry's.
fn output_size(geometry: &Geometry) -> u32 {
    let bits = output_bits(geometry);
    let larger = (1_u32..).zip(&ADDRESS_BITS[1..]);
    larger.take_while(|(_, size)| **size <= bits).last().map_or(0, |(number, _)| number)
}

/// Fields of `SMMU_IDR0`.
mod idr0 {
    const STAGES: u32 = 1 << 0 | 1 << 1;
    /// Tables of AArch64.
    const TTF: u32 = 0b10 << 2;
    const COHACC: u32 = 1 << 4;
    const ATS: u32 = 1 << 10;
    const ASID16: u32 = 1 << 12;
    const VMID16: u32 = 1 << 18;
    /// Context descriptors in two levels.
    const CD2L: u32 = 1 << 19;
    /// Tables are little-endian.
    const TTENDIAN: u32 = 0b10 << 21;
    /// Faulting requests do not stall.
    const STALL_MODEL: u32 = 0b01 << 24;
    /// Faulting requests are aborted, and never read as zero.
    const TERM_MODEL: u32 = 1 << 26;
    /// Stream tables in two levels.
    const ST_LEVEL: u32 = 0b01 << 27;

    pub(super) const ALWAYS: u32 = STAGES
        | TTF
        | COHACC
        | ATS
        | ASID16
        | VMID16
        | CD2L
        | TTENDIAN
        | STALL_MODEL
        | TERM_MODEL
        | ST_LEVEL;
}

/// Fields of `SMMU_IDR1`.
mod idr1 {
    pub(super) const SSIDSIZE_SHIFT: u32 = 6;
    /// Streams by 16 bits, the number of a PCI function.
    const SIDSIZE: u32 = 16;
    /// Queues of up to 2^19 commands and events.
    const QUEUES: u32 = 19 << 21 | 19 << 16;

    pub(super) const ALWAYS: u32 = SIDSIZE | QUEUES;
}

/// Fields of `SMMU_IDR5`.
mod idr5 {
    pub(super) const GRAN4K: u32 = 1 << 4;
}
