//! The walk of a guest's stage 1 tables of AArch64: a granule of 4 KiB, blocks of 2 MiB and 1 GiB.
//!
//! All that an entry holds is a guest-physical address. Requests are unprivileged reads and writes of data. Hardware
//! sets no flags in the guest's tables (`HTTU` is 0). Takes no lock. Source: the Arm architecture, D8.

use pci::{DmaAccess, DmaFaultReason};

use super::event::EventId;
use super::stream::Stop;
use crate::hardware::{GuestMemory, Reached};

/// One half of all addresses, as a context descriptor has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half {
    pub(super) table: u64,
    /// Bits of an address that the tables translate.
    pub(super) input_bits: u32,
    /// Bits of a guest-physical address.
    pub(super) output_bits: u32,
    pub(super) disabled: bool,
    /// The top byte of an address does not count.
    pub(super) ignores_top: bool,
    /// Entries without the access flag do.
    pub(super) takes_access_clear: bool,
    pub(super) upper: bool,
}

/// The bit of an address that says which half it is in.
pub(super) const UPPER_HALF: u64 = 1 << 55;
/// Addresses have 64 bits less this many, at the least and the most.
pub(super) const SIZE_OFFSET_LEAST: u32 = 16;
pub(super) const SIZE_OFFSET_MOST: u32 = 39;

/// Where an address leads.
///
/// # Errors
/// - `F_TRANSLATION`: an address that no table is for, an entry that is not valid.
/// - `F_ADDR_SIZE`: an entry leads beyond guest-physical addresses.
/// - `F_ACCESS`, `F_PERMISSION`: the leaf's flags.
/// - untold: the parent does not show a table.
pub(super) fn walk(
    memory: &dyn GuestMemory,
    half: &Half,
    address: u64,
    access: DmaAccess,
) -> Result<Reached, Stop> {
    if half.disabled || !half.contains(address) {
        return Err(NOT_MAPPED);
    }
    let mut forbidden = 0;
    let mut table = half.table;
    for level in half.first_level()..=LAST_LEVEL {
        let entry = memory
            .read_entry(table + half.index(address, level) * ENTRY_BYTES)
            .map_err(Stop::untold)?;
        let kind = kind_of(entry, level).ok_or(NOT_MAPPED)?;
        let target = entry & entry::ADDRESS;
        if target >> half.output_bits != 0 {
            return Err(Stop::told(DmaFaultReason::BadTable, EventId::AddressSize));
        }
        match kind {
            EntryKind::Table => {
                forbidden |= entry;
                table = target;
            }
            EntryKind::Leaf => {
                half.check_leaf(entry, forbidden, access)?;
                let inside = (1 << shift(level)) - 1;
                let offset = address & inside;
                let address = target & !inside | offset;
                return Ok(Reached { address, left: inside - offset + 1 });
            }
        }
    }
    Err(NOT_MAPPED)
}

const NOT_MAPPED: Stop = Stop::told(DmaFaultReason::NotMapped, EventId::Translation);

impl Half {
    /// Whether all bits above those that are translated are the half's.
    fn contains(&self, address: u64) -> bool {
        let top = if self.ignores_top { u64::MAX << TOP_BYTE_SHIFT } else { 0 };
        let above = u64::MAX << self.input_bits & !top;
        address & above == if self.upper { above } else { 0 }
    }

    fn first_level(&self) -> u32 {
        let translated = self.input_bits - PAGE_BITS;
        LAST_LEVEL + 1 - translated.div_ceil(TABLE_BITS)
    }

    /// Which entry an address leads through. The first table has fewer where bits are left over.
    fn index(&self, address: u64, level: u32) -> u64 {
        let translated = address & !(u64::MAX << self.input_bits);
        translated >> shift(level) & ((1 << TABLE_BITS) - 1)
    }

    fn check_leaf(&self, entry: u64, forbidden: u64, access: DmaAccess) -> Result<(), Stop> {
        if entry & entry::ACCESSED == 0 && !self.takes_access_clear {
            return Err(Stop::told(DmaFaultReason::Permission, EventId::Access));
        }
        let reads = entry & entry::UNPRIVILEGED != 0 && forbidden & entry::TABLE_PRIVILEGED == 0;
        let writes = entry & entry::READ_ONLY == 0 && forbidden & entry::TABLE_READ_ONLY == 0;
        if reads && (writes || access == DmaAccess::Read) {
            return Ok(());
        }
        Err(Stop::told(DmaFaultReason::Permission, EventId::Permission))
    }
}

const PAGE_BITS: u32 = 12;
/// Bits of an address that one level of tables translates.
const TABLE_BITS: u32 = 9;
const ENTRY_BYTES: u64 = 8;
const TOP_BYTE_SHIFT: u32 = 56;
/// Levels count from 0, of the largest tables, down to pages.
const LAST_LEVEL: u32 = 3;

/// Bits of an entry.
mod entry {
    pub(super) const KIND: u64 = 0b11;
    pub(super) const BLOCK: u64 = 0b01;
    /// A table; at the last level a page.
    pub(super) const TABLE: u64 = 0b11;
    /// `AP[1]`: for unprivileged requests.
    pub(super) const UNPRIVILEGED: u64 = 1 << 6;
    /// `AP[2]`
    pub(super) const READ_ONLY: u64 = 1 << 7;
    pub(super) const ACCESSED: u64 = 1 << 10;
    pub(super) const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    /// `APTable[0]` and `APTable[1]`: for all that the table leads to.
    pub(super) const TABLE_PRIVILEGED: u64 = 1 << 61;
    pub(super) const TABLE_READ_ONLY: u64 = 1 << 62;
}

enum EntryKind {
    Table,
    Leaf,
}

/// `None` if the entry is not valid. There are no blocks of the largest tables' size, nor of pages'.
const fn kind_of(entry: u64, level: u32) -> Option<EntryKind> {
    match (entry & entry::KIND, level) {
        (entry::TABLE, LAST_LEVEL) | (entry::BLOCK, 1 | 2) => Some(EntryKind::Leaf),
        (entry::TABLE, _) => Some(EntryKind::Table),
        _ => None,
    }
}

const fn shift(level: u32) -> u32 {
    PAGE_BITS + TABLE_BITS * (LAST_LEVEL - level)
}
