//! The guest's stream table entry: whether its device's requests are aborted, passed on or translated.
//!
//! Takes no lock. Source: the SMMUv3 architecture, 5.2; order of checks from v7.3 `arm-smmu-v3-iommufd.c`.

use pci::{DmaAccess, DmaFaultReason};

use super::context;
use super::event::EventId;
use super::registers;
use crate::hardware::{GuestMemory, HardwareRefusal, Reached};
use crate::{Geometry, Refusal};

/// What a guest says of a device's stream, as far as it may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamEntry {
    words: [u64; 2],
    /// Bits of the largest substream that hardware has.
    substream_bits: u32,
    /// Bits of a guest-physical address.
    output_bits: u32,
}

/// Why a request goes nowhere: what people are told, and what the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) reason: DmaFaultReason,
    pub(super) event: Option<EventId>,
}

impl Stop {
    /// One that the guest is told of.
    pub(super) const fn told(reason: DmaFaultReason, event: EventId) -> Self {
        Self { reason, event: Some(event) }
    }

    /// One of which the guest hears nothing: what the parent does not show is its host's business.
    pub(super) const fn untold(reason: DmaFaultReason) -> Self {
        Self { reason, event: None }
    }
}

impl StreamEntry {
    /// Takes an entry as the guest has it. One that is not valid counts as one that aborts.
    ///
    /// # Errors
    /// [`HardwareRefusal::StreamEntry`] (`EIO`): bits that are not the guest's, an unknown configuration or kind of ATS.
    pub(super) fn new(geometry: &Geometry, words: [u64; 2]) -> Result<Self, Refusal> {
        let words = if words[0] & ste0::VALID == 0 { [0; 2] } else { words };
        let [first, second] = words;
        let entry = Self {
            words,
            substream_bits: geometry.max_pasid_log2.into(),
            output_bits: registers::output_bits(geometry),
        };
        let foreign = first & !ste0::ALLOWED != 0 || second & !ste1::ALLOWED != 0;
        let known = [config::ABORT, config::BYPASS, config::STAGE_1].contains(&entry.config());
        let ats_known = [ste1::EATS_NONE, ste1::EATS_FULL].contains(&(second & ste1::EATS));
        if foreign || !known || !ats_known {
            return Err(HardwareRefusal::StreamEntry { words }.into());
        }
        Ok(entry)
    }

    /// Whether requests go through the guest's tables, so that its faults and commands name the device.
    pub(crate) fn translates(&self) -> bool {
        self.config() == config::STAGE_1
    }

    /// Where an address leads in the guest's memory.
    ///
    /// # Errors
    /// What stops the request. The guest is told where the architecture says so, but of what the parent does not show.
    pub(super) fn translate(
        &self,
        memory: &dyn GuestMemory,
        address: u64,
        access: DmaAccess,
    ) -> Result<Reached, Stop> {
        let untranslated = Reached { address, left: u64::MAX };
        match self.config() {
            config::BYPASS => return Ok(untranslated),
            config::STAGE_1 => {}
            _ => return Err(Stop::untold(DmaFaultReason::Permission)),
        }
        let descriptors = self.words[0] >> ste0::S1CDMAX_SHIFT;
        let default = self.words[1] & ste1::S1DSS;
        if descriptors > u64::from(self.substream_bits) {
            return Err(bad_entry());
        }
        let table = self.words[0] & ste0::S1CONTEXTPTR;
        // Without substreams, the pointer leads to the one descriptor.
        if descriptors == 0 {
            return context::translate(memory, self.output_bits, table, address, access);
        }
        match default {
            ste1::S1DSS_TERMINATE => {
                Err(Stop::told(DmaFaultReason::Permission, EventId::StreamDisabled))
            }
            ste1::S1DSS_BYPASS => Ok(untranslated),
            ste1::S1DSS_SUBSTREAM_0 => {
                let at = match self.words[0] & ste0::S1FMT {
                    ste0::S1FMT_LINEAR => table,
                    ste0::S1FMT_4K_LEAVES | ste0::S1FMT_64K_LEAVES => {
                        context::first_of_two_levels(memory, table)?
                    }
                    _ => return Err(bad_entry()),
                };
                context::translate(memory, self.output_bits, at, address, access)
            }
            _ => Err(bad_entry()),
        }
    }

    fn config(&self) -> u64 {
        self.words[0] & ste0::CONFIG
    }
}

const fn bad_entry() -> Stop {
    Stop::told(DmaFaultReason::BadTable, EventId::BadStreamEntry)
}

/// What is done with requests, in the entry's first word.
mod config {
    pub(super) const ABORT: u64 = 0;
    pub(super) const BYPASS: u64 = 4 << 1;
    pub(super) const STAGE_1: u64 = 5 << 1;
}

/// Fields of the first word.
mod ste0 {
    pub(super) const VALID: u64 = 1 << 0;
    pub(super) const CONFIG: u64 = 0b111 << 1;
    pub(super) const S1FMT: u64 = 0b11 << 4;
    pub(super) const S1FMT_LINEAR: u64 = 0;
    pub(super) const S1FMT_4K_LEAVES: u64 = 1 << 4;
    pub(super) const S1FMT_64K_LEAVES: u64 = 2 << 4;
    pub(super) const S1CONTEXTPTR: u64 = 0x000f_ffff_ffff_ffc0;
    pub(super) const S1CDMAX_SHIFT: u32 = 59;
    const S1CDMAX: u64 = 0x1f << S1CDMAX_SHIFT;
    pub(super) const ALLOWED: u64 = VALID | CONFIG | S1FMT | S1CONTEXTPTR | S1CDMAX;
}

/// Fields of the second word.
mod ste1 {
    pub(super) const S1DSS: u64 = 0b11;
    pub(super) const S1DSS_TERMINATE: u64 = 0;
    pub(super) const S1DSS_BYPASS: u64 = 1;
    pub(super) const S1DSS_SUBSTREAM_0: u64 = 2;
    /// Cacheability and shareability of fetched descriptors.
    const FETCHES: u64 = 0b11 << 2 | 0b11 << 4 | 0b11 << 6;
    const S1STALLD: u64 = 1 << 27;
    pub(super) const EATS: u64 = 0b11 << 28;
    pub(super) const EATS_NONE: u64 = 0;
    pub(super) const EATS_FULL: u64 = 1 << 28;
    pub(super) const ALLOWED: u64 = S1DSS | FETCHES | S1STALLD | EATS;
}
