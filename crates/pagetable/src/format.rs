//! Tables as hardware walks them.
//!
//! [`write_out`] copies a table into an [`Image`]: tables of 512 words at addresses of the caller's
//! choice, in one of the formats below. Each format is one file that says what its words mean; all
//! have four levels of 9 bits over 4 KiB pages, and differ in how a word spells the next table, a
//! leaf and a permission. Areas that permit nothing are left out.

mod amd_v1;
mod arm_lpae;
mod vtd;
mod x86_64;

pub use amd_v1::AmdV1;
pub use arm_lpae::ArmLpaeStage2;
pub use vtd::VtdSecondStage;
pub use x86_64::X86FirstStage;

use crate::{Mapper, PAGE_LG2, Permission};

/// How a kind of hardware spells its tables.
pub trait Format {
    /// Output addresses are below 2 to this power.
    const OUTPUT_BITS: u32;

    /// The word that leads from a table of `level` to the one at `address`, one level down, with the
    /// address in bits 12 to 51. Leaves of 4 KiB are at level 0.
    fn table(address: u64, level: u32) -> u64;

    /// The word of a leaf in a table of `level`. What a format cannot spell, it widens, and says so.
    fn leaf(output: u64, permission: Permission, level: u32) -> u64;
}

/// Why a table cannot be written in a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// An address of the table needs more than the format's four levels.
    #[error("I/O virtual address {0:#x} is beyond four levels")]
    Address(u64),
    /// An output address has more bits than the format.
    #[error("output address {0:#x} does not fit the format")]
    Output(u64),
}

/// A table in memory, as a walker reads it. The root is the first table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    base: u64,
    tables: Vec<[u64; ENTRIES]>,
}

/// Writes `mapper`'s table out, the root at `base`, a multiple of 4 KiB below 2^48, and the others
/// behind it, 4 KiB each.
///
/// # Errors
/// [`FormatError`], for the lowest area that does not fit.
pub fn write_out<F: Format>(mapper: &Mapper, base: u64) -> Result<Image, FormatError> {
    let mut image = Image { base, tables: vec![[0; ENTRIES]] };
    let mut outcome = Ok(());
    mapper.for_each_leaf(|leaf| {
        if outcome.is_ok() && leaf.permission != Permission::NONE {
            outcome = image.put::<F>(leaf);
        }
    });
    outcome.map(|()| image)
}

/// A leaf of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The first I/O virtual address that it translates.
    pub iova: u64,
    /// Binary logarithm of the bytes that it covers.
    pub size_lg2: u32,
    /// Where they are.
    pub output: u64,
    /// What a device may do.
    pub permission: Permission,
}

impl Image {
    /// The address of the root.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// The word at `address`, as a walker loads it; `None` outside of the tables.
    pub fn word(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let word = offset / size_of::<u64>();
        self.tables.get(word / ENTRIES).map(|table| table[word % ENTRIES])
    }

    /// How many tables there are.
    pub const fn tables(&self) -> usize {
        self.tables.len()
    }

    fn put<F: Format>(&mut self, leaf: Leaf) -> Result<(), FormatError> {
        if leaf.iova >> ADDRESS_BITS != 0 {
            return Err(FormatError::Address(leaf.iova));
        }
        if leaf.output >> F::OUTPUT_BITS != 0 {
            return Err(FormatError::Output(leaf.output));
        }
        let bottom = (leaf.size_lg2 - PAGE_LG2) / LEVEL_BITS;
        let mut table = 0;
        for level in (bottom + 1..LEVELS).rev() {
            table = self.next_table::<F>(table, index_at(leaf.iova, level), level);
        }
        self.tables[table][index_at(leaf.iova, bottom)] =
            F::leaf(leaf.output, leaf.permission, bottom);
        Ok(())
    }

    /// The table below an entry; made if it is not there.
    fn next_table<F: Format>(&mut self, table: usize, at: usize, level: u32) -> usize {
        let found = self.tables[table][at];
        if found != 0 {
            return index(((found & TABLE_ADDRESS) - self.base) >> PAGE_LG2);
        }
        self.tables.push([0; ENTRIES]);
        let next = self.tables.len() - 1;
        self.tables[table][at] = F::table(self.address(next), level);
        next
    }

    const fn address(&self, table: usize) -> u64 {
        self.base + ((table as u64) << PAGE_LG2)
    }
}

const fn index_at(iova: u64, level: u32) -> usize {
    index(iova >> (PAGE_LG2 + LEVEL_BITS * level)) & (ENTRIES - 1)
}

#[expect(clippy::cast_possible_truncation, reason = "an index into memory of ours")]
const fn index(index: u64) -> usize {
    index as usize
}

/// Where all formats have the next table's address.
const TABLE_ADDRESS: u64 = (1 << 52) - (1 << PAGE_LG2);
const ENTRIES: usize = 1 << LEVEL_BITS;
const LEVEL_BITS: u32 = 9;
const LEVELS: u32 = 4;
const ADDRESS_BITS: u32 = PAGE_LG2 + LEVELS * LEVEL_BITS;
