//! VT-d's capability registers, made of a geometry.
//!
//! Takes no lock. Source: the VT-d specification, 11.4.2 and 11.4.3; names of fields as there.

use span::Span;

use crate::Geometry;

/// Bits of an input address that hardware of this geometry translates.
pub(super) fn address_bits(geometry: &Geometry) -> u32 {
    u64::BITS - geometry.aperture.last().leading_zeros()
}

/// Addresses that tables of the first stage translate for devices: those below the first whose highest bit is set.
pub(super) fn lower_half(geometry: &Geometry) -> Option<Span> {
    Span::from_ends(0, geometry.aperture.last() >> 1)
}

/// Whether a guest's tables can have five levels.
pub(super) fn has_five_levels(geometry: &Geometry) -> bool {
    address_bits(geometry) > BITS_OF_4_LEVELS
}

/// Whether a guest's tables can have pages of 1 GiB.
pub(super) const fn has_giant_pages(geometry: &Geometry) -> bool {
    geometry.page_sizes & GIANT_PAGE_BYTES != 0
}

/// The capability register.
pub(super) fn capability(geometry: &Geometry) -> u64 {
    let bits = address_bits(geometry);
    let widths = if bits <= BITS_OF_3_LEVELS {
        cap::SAGAW_3_LEVELS
    } else if bits <= BITS_OF_4_LEVELS {
        cap::SAGAW_4_LEVELS
    } else {
        cap::SAGAW_4_LEVELS | cap::SAGAW_5_LEVELS
    };
    let large = flag(geometry.page_sizes & LARGE_PAGE_BYTES != 0, cap::SLLPS_2_MIB);
    let giant = flag(has_giant_pages(geometry), cap::SLLPS_1_GIB | cap::FL1GP);
    let five_levels = flag(has_five_levels(geometry), cap::FL5LP);
    let mgaw = u64::from(bits.saturating_sub(1)) << cap::MGAW_SHIFT;
    cap::ALWAYS | widths | mgaw | large | giant | five_levels
}

/// The extended capability register.
pub(super) fn extended_capability(geometry: &Geometry) -> u64 {
    let pasids = match u64::from(geometry.max_pasid_log2) {
        0 => 0,
        bits => ecap::PASID | (bits - 1) << ecap::PSS_SHIFT,
    };
    let dirty = flag(geometry.dirty_tracking, ecap::SSADS);
    ecap::ALWAYS | pasids | dirty
}

/// Bits of an address that three levels of tables translate.
pub(super) const BITS_OF_3_LEVELS: u32 = 39;
/// Those of four levels.
pub(super) const BITS_OF_4_LEVELS: u32 = 48;
/// Those of five levels.
pub(super) const BITS_OF_5_LEVELS: u32 = 57;

const LARGE_PAGE_BYTES: u64 = 2 << 20;
const GIANT_PAGE_BYTES: u64 = 1 << 30;

const fn flag(is_set: bool, bits: u64) -> u64 {
    if is_set { bits } else { 0 }
}

/// Fields of the capability register.
mod cap {
    /// Domains of 16 bits.
    const ND: u64 = 6;
    pub(super) const SAGAW_3_LEVELS: u64 = 1 << 9;
    pub(super) const SAGAW_4_LEVELS: u64 = 1 << 10;
    pub(super) const SAGAW_5_LEVELS: u64 = 1 << 11;
    pub(super) const MGAW_SHIFT: u32 = 16;
    /// Reads of zero bytes from pages that can only be written.
    const ZLR: u64 = 1 << 22;
    /// Where the one fault record is, in units of 16 bytes.
    const FRO: u64 = 0x40 << 24;
    pub(super) const SLLPS_2_MIB: u64 = 1 << 34;
    pub(super) const SLLPS_1_GIB: u64 = 1 << 35;
    /// Invalidation of single pages, and of up to 2^18 at once.
    const PSI: u64 = 1 << 39 | 18 << 48;
    /// Writes and reads are drained.
    const DRAIN: u64 = 0b11 << 54;
    pub(super) const FL1GP: u64 = 1 << 56;
    pub(super) const FL5LP: u64 = 1 << 60;

    pub(super) const ALWAYS: u64 = ND | ZLR | FRO | PSI | DRAIN;
}

/// Fields of the extended capability register.
mod ecap {
    /// Tables are read coherently, and by scalable mode's walker too.
    const COHERENT: u64 = 1 << 0 | 1 << 48;
    /// Queued invalidation, interrupt remapping with 32-bit destinations.
    const QUEUES_AND_INTERRUPTS: u64 = 1 << 1 | 1 << 3 | 1 << 4;
    /// Pass-through and snoop control.
    const PASS_AND_SNOOP: u64 = 1 << 6 | 1 << 7;
    /// Where the IOTLB's registers are, in units of 16 bytes, and how many bits of handles can be masked.
    const IRO_AND_MHMV: u64 = 0x50 << 8 | 0xf << 20;
    /// Nested translation.
    const NEST: u64 = 1 << 26;
    /// Requests of supervisors.
    const SRS: u64 = 1 << 31;
    /// Extended accessed flags.
    const EAFS: u64 = 1 << 34;
    pub(super) const PSS_SHIFT: u32 = 35;
    pub(super) const PASID: u64 = 1 << 40;
    /// Scalable mode.
    const SMTS: u64 = 1 << 43;
    pub(super) const SSADS: u64 = 1 << 45;
    /// Second-stage and first-stage translation.
    const STAGES: u64 = 1 << 46 | 1 << 47;

    pub(super) const ALWAYS: u64 = COHERENT
        | QUEUES_AND_INTERRUPTS
        | PASS_AND_SNOOP
        | IRO_AND_MHMV
        | NEST
        | SRS
        | EAFS
        | SMTS
        | STAGES;
}
