//! Context descriptors: where the guest's stage 1 tables are, and how they are read.
//!
//! The devices' requests carry no PASID, so that theirs is the first of a table. Takes no lock. Source: the SMMUv3
//! architecture, 5.3 and 5.4.

use pci::{DmaAccess, DmaFaultReason};

use super::event::EventId;
use super::registers::ADDRESS_BITS;
use super::stage_1::{self, Half};
use super::stream::Stop;
use crate::hardware::{GuestMemory, Reached};

/// Where the first descriptor is, of a table in two levels.
///
/// # Errors
/// There is no second level (`C_BAD_SUBSTREAMID`), or the parent does not show the first.
pub(super) fn first_of_two_levels(memory: &dyn GuestMemory, table: u64) -> Result<u64, Stop> {
    let pointer = memory.read_entry(table).map_err(Stop::untold)?;
    if pointer & level_1::VALID == 0 {
        return Err(Stop::told(DmaFaultReason::BadTable, EventId::BadSubstream));
    }
    Ok(pointer & level_1::ADDRESS)
}

/// Where an address leads by the descriptor at `at`, on hardware of so many bits of guest-physical addresses.
///
/// # Errors
/// The descriptor is illegal (`C_BAD_CD`); else what stops the walk, of which a guest that records no events hears
/// nothing.
pub(super) fn translate(
    memory: &dyn GuestMemory,
    output_bits: u32,
    at: u64,
    address: u64,
    access: DmaAccess,
) -> Result<Reached, Stop> {
    let mut words = [0; 3];
    for (word, at) in words.iter_mut().zip((at..).step_by(size_of::<u64>())) {
        *word = memory.read_entry(at).map_err(Stop::untold)?;
    }
    let [flags, ..] = words;
    let half = half_of(words, output_bits, address).ok_or(BAD_DESCRIPTOR)?;
    stage_1::walk(memory, &half, address, access).map_err(|stop| {
        if flags & cd0::RECORDS_FAULTS == 0 { Stop::untold(stop.reason) } else { stop }
    })
}

const BAD_DESCRIPTOR: Stop = Stop::told(DmaFaultReason::BadTable, EventId::BadContextDescriptor);

/// What the descriptor says of the half of all addresses that one is in; `None` if it is illegal.
fn half_of(words: [u64; 3], output_bits: u32, address: u64) -> Option<Half> {
    let [flags, lower_table, upper_table] = words;
    if flags & cd0::MUST != cd0::MUST || flags & cd0::MUST_NOT != 0 {
        return None;
    }
    let size = usize::try_from(flags >> cd0::IPS_SHIFT & cd0::IPS_MASK).ok()?;
    // Sizes beyond what hardware has count as its own.
    let output_bits = ADDRESS_BITS.get(size).map_or(output_bits, |bits| output_bits.min(*bits));
    let upper = address & stage_1::UPPER_HALF != 0;
    let shift = if upper { cd0::UPPER_SHIFT } else { 0 };
    let disabled = flags >> shift & cd0::EPD != 0;
    let size_offset = u32::try_from(flags >> shift & cd0::TSZ_MASK).ok()?;
    let granule = flags >> shift & cd0::TG;
    let ignores_top = flags >> u32::from(upper) & cd0::TBI != 0;
    let table = if upper { upper_table } else { lower_table } & cd1::TABLE;
    let granule_4k = if upper { cd0::TG1_4K } else { cd0::TG0_4K };
    let sizes = stage_1::SIZE_OFFSET_LEAST..=stage_1::SIZE_OFFSET_MOST;
    let legal = granule == granule_4k && sizes.contains(&size_offset) && table >> output_bits == 0;
    if !disabled && !legal {
        return None;
    }
    let takes_access_clear = flags & cd0::AFFD != 0;
    let input_bits = u64::BITS.saturating_sub(size_offset);
    Some(Half { table, input_bits, output_bits, disabled, ignores_top, takes_access_clear, upper })
}

/// Fields of a pointer in the first of two levels.
mod level_1 {
    pub(super) const VALID: u64 = 1 << 0;
    pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// Fields of the first word; those of the lower half also stand, higher up, for the upper.
mod cd0 {
    pub(super) const TSZ_MASK: u64 = 0x3f;
    pub(super) const TG: u64 = 0b11 << 6;
    pub(super) const TG0_4K: u64 = 0b00 << 6;
    pub(super) const TG1_4K: u64 = 0b10 << 6;
    /// The half is not to be walked.
    pub(super) const EPD: u64 = 1 << 14;
    const BIG_ENDIAN: u64 = 1 << 15;
    pub(super) const UPPER_SHIFT: u32 = 16;
    const VALID: u64 = 1 << 31;
    pub(super) const IPS_SHIFT: u32 = 32;
    pub(super) const IPS_MASK: u64 = 0b111;
    /// Entries that were never accessed do not fault.
    pub(super) const AFFD: u64 = 1 << 35;
    /// The top byte of an address is ignored, in the lower half; the bit above for the upper.
    pub(super) const TBI: u64 = 1 << 38;
    const AA64: u64 = 1 << 41;
    const STALLS: u64 = 1 << 44;
    pub(super) const RECORDS_FAULTS: u64 = 1 << 45;
    /// A faulting request is aborted.
    const ABORTS: u64 = 1 << 46;
    pub(super) const MUST: u64 = VALID | AA64 | ABORTS;
    pub(super) const MUST_NOT: u64 = BIG_ENDIAN | STALLS;
}

/// Fields of the second and third word.
mod cd1 {
    pub(super) const TABLE: u64 = 0x000f_ffff_ffff_fff0;
}
