//! The walk of a guest's first-stage tables: four or five levels, pages of 4 KiB, 2 MiB, 1 GiB.
//!
//! All that an entry holds is a guest-physical address. The devices' requests carry no PASID, and so are a user's: every
//! entry on the way must be for users, and for writing where they write; what the kernel calls SRE and WPE is about
//! requests of supervisors, of which there are none. Once an access is allowed, entries on its way are marked as
//! accessed, and the last as dirty where it writes. Bits 52 and up of an entry are not looked at.
//!
//! Source: the VT-d specification, chapters 3.6 and 9; v7.3 `pasid.c` for what a client's flags do.

use pci::{DmaAccess, DmaFaultReason};
use uapi::iommufd::{HwptVtdS1, vtd_s1_flags};

use super::registers;
use crate::hardware::{GuestMemory, HardwareRefusal, Reached};
use crate::{Geometry, Refusal};

/// Where a guest's tables are and how they are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstStage {
    root: u64,
    flags: u64,
    /// As the client said, whatever that is.
    address_bits: u32,
    has_giant_pages: bool,
}

/// Entries that one access may pass.
const LEVELS_MOST: usize = 5;

/// An entry and where it was found.
#[derive(Clone, Copy, Default)]
struct Passed {
    at: u64,
    entry: u64,
}

impl FirstStage {
    /// What a client describes, on hardware of this geometry.
    pub(super) const fn new(geometry: &Geometry, asked: &HwptVtdS1) -> Self {
        Self {
            root: asked.pgtbl_addr & !(TABLE_BYTES - 1),
            flags: asked.flags,
            address_bits: asked.addr_width,
            has_giant_pages: registers::has_giant_pages(geometry),
        }
    }

    /// Says whether hardware of this geometry can walk it. All flags that the hardware has are taken, and others not
    /// looked at.
    ///
    /// # Errors
    /// [`HardwareRefusal::TableWidth`] (`EINVAL`)
    pub(crate) fn check_attach(&self, geometry: &Geometry) -> Result<(), Refusal> {
        let is_known = match self.address_bits {
            registers::BITS_OF_4_LEVELS => true,
            registers::BITS_OF_5_LEVELS => registers::has_five_levels(geometry),
            _ => false,
        };
        if is_known {
            return Ok(());
        }
        Err(HardwareRefusal::TableWidth { bits: self.address_bits }.into())
    }

    /// Where an address leads in the guest's memory.
    ///
    /// # Errors
    /// - [`DmaFaultReason::NotMapped`]: no address of its width, one that interrupts go to, an entry that is not present.
    /// - [`DmaFaultReason::BadTable`]: an entry with reserved bits.
    /// - [`DmaFaultReason::Permission`]: an entry on the way is not for users, or not for writing.
    /// - what keeps the walk from an entry in the guest's memory.
    pub(crate) fn walk(
        &self,
        memory: &dyn GuestMemory,
        address: u64,
        access: DmaAccess,
    ) -> Result<Reached, DmaFaultReason> {
        if !self.is_canonical(address) || INTERRUPTS.contains(&address) {
            return Err(DmaFaultReason::NotMapped);
        }
        let mut path = [Passed::default(); LEVELS_MOST];
        let mut allowed = entry::USER | entry::WRITE;
        let mut table = self.root;
        let top = self.levels();
        for (passed, level) in path.iter_mut().zip((1..=top).rev()) {
            let at = table + index(address, level) * ENTRY_BYTES;
            let entry = memory.read_entry(at)?;
            *passed = Passed { at, entry };
            self.check_entry(entry, level)?;
            allowed &= entry;
            if !is_leaf(entry, level) {
                table = entry & entry::ADDRESS;
                continue;
            }
            check_allowed(allowed, access)?;
            let used = &path[..(top - level + 1) as usize];
            self.mark(memory, used, access)?;
            return Ok(reached(entry, level, address));
        }
        unreachable!("an entry of the last level is a leaf")
    }

    fn levels(&self) -> u32 {
        if self.address_bits == registers::BITS_OF_5_LEVELS { 5 } else { 4 }
    }

    /// Whether all bits from the highest of the width on are the same.
    fn is_canonical(&self, address: u64) -> bool {
        let above = address >> (TABLE_BITS * self.levels() + PAGE_BITS - 1);
        let all = u64::MAX >> (TABLE_BITS * self.levels() + PAGE_BITS - 1);
        above == 0 || above == all
    }

    fn check_entry(&self, entry: u64, level: u32) -> Result<(), DmaFaultReason> {
        if entry & entry::PRESENT == 0 {
            return Err(DmaFaultReason::NotMapped);
        }
        let reserved = match level {
            PAGE_LEVEL => 0,
            LARGE_LEVEL if entry & entry::LARGE != 0 => reserved_below(level),
            GIANT_LEVEL if entry & entry::LARGE != 0 && self.has_giant_pages => {
                reserved_below(level)
            }
            LARGE_LEVEL => 0,
            _ => entry::LARGE,
        };
        if entry & reserved == 0 { Ok(()) } else { Err(DmaFaultReason::BadTable) }
    }

    /// Marks entries that an access passes. One that it passes twice, of a table that leads to itself, is marked once,
    /// with all that both ways call for.
    fn mark(
        &self,
        memory: &dyn GuestMemory,
        path: &[Passed],
        access: DmaAccess,
    ) -> Result<(), DmaFaultReason> {
        let extended = self.flags & vtd_s1_flags::EAFE != 0;
        let accessed = if extended { entry::EXTENDED_ACCESSED } else { 0 } | entry::ACCESSED;
        let dirty = if access == DmaAccess::Write { entry::DIRTY } else { 0 };
        let last = path.last().map(|passed| passed.at);
        for (place, Passed { at, entry }) in path.iter().enumerate() {
            if path[..place].iter().any(|earlier| earlier.at == *at) {
                continue;
            }
            let flags = accessed | if Some(*at) == last { dirty } else { 0 };
            let missing = (flags & !entry).to_le_bytes();
            for ((at, seen), missing) in (*at..).zip(entry.to_le_bytes()).zip(missing) {
                if missing != 0 {
                    memory.set_flags(at, seen, missing)?;
                }
            }
        }
        Ok(())
    }
}

/// Where messages of interrupts go: never translated.
const INTERRUPTS: std::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

const PAGE_BITS: u32 = 12;
/// Bits of an address that one level of tables translates.
const TABLE_BITS: u32 = 9;
const TABLE_BYTES: u64 = 4096;
const ENTRY_BYTES: u64 = 8;

const PAGE_LEVEL: u32 = 1;
const LARGE_LEVEL: u32 = 2;
const GIANT_LEVEL: u32 = 3;

/// Bits of an entry.
mod entry {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const ACCESSED: u64 = 1 << 5;
    pub(super) const DIRTY: u64 = 1 << 6;
    /// Above the last level: a page, and no table.
    pub(super) const LARGE: u64 = 1 << 7;
    pub(super) const EXTENDED_ACCESSED: u64 = 1 << 10;
    pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// The lowest bit of a large page's address field is its memory type.
    pub(super) const LARGE_MEMORY_TYPE: u64 = 1 << 12;
}

const fn shift(level: u32) -> u32 {
    PAGE_BITS + TABLE_BITS * (level - 1)
}

/// Which entry of its table of a level an address leads through.
const fn index(address: u64, level: u32) -> u64 {
    (address >> shift(level)) & ((1 << TABLE_BITS) - 1)
}

const fn is_leaf(entry: u64, level: u32) -> bool {
    level == PAGE_LEVEL || entry & entry::LARGE != 0
}

/// Bits of a large page's address that would be below its size.
const fn reserved_below(level: u32) -> u64 {
    ((1 << shift(level)) - 1) & entry::ADDRESS & !entry::LARGE_MEMORY_TYPE
}

fn check_allowed(allowed: u64, access: DmaAccess) -> Result<(), DmaFaultReason> {
    let needed = match access {
        DmaAccess::Read => entry::USER,
        DmaAccess::Write => entry::USER | entry::WRITE,
    };
    if allowed & needed == needed { Ok(()) } else { Err(DmaFaultReason::Permission) }
}

/// Where an address leads through a leaf.
const fn reached(entry: u64, level: u32, address: u64) -> Reached {
    let inside = (1 << shift(level)) - 1;
    let offset = address & inside;
    Reached { address: entry & entry::ADDRESS & !inside | offset, left: inside - offset + 1 }
}
