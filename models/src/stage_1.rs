//! A guest's stage 1 tables of AArch64 with a granule of 4 KiB, as an SMMUv3 walks them from a context descriptor, by
//! recursion and division.

use crate::Words;

/// What an access is stopped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage1Fault {
    /// `C_BAD_CD`
    BadDescriptor,
    /// `F_TRANSLATION`
    Translation,
    /// `F_ADDR_SIZE`
    AddressSize,
    /// `F_ACCESS`
    Access,
    /// `F_PERMISSION`
    Permission,
    /// The guest has no memory where a descriptor or an entry is.
    NoMemory,
}

/// Where an access leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage1Led {
    /// To this address, and so many bytes are translated alike from there.
    To(u64, u64),
    /// Nowhere, and whether the guest is told.
    Stopped(Stage1Fault, bool),
}

/// Walks by the descriptor at `at`, on hardware with so many bits of guest-physical addresses.
pub fn stage_1(words: &Words, at: u64, hardware_bits: u32, address: u64, write: bool) -> Stage1Led {
    use Stage1Fault::{BadDescriptor, NoMemory, Translation};
    let word = |index: u64| words.get(&(at + 8 * index)).copied();
    let (Some(flags), Some(lower), Some(upper)) = (word(0), word(1), word(2)) else {
        return Stage1Led::Stopped(NoMemory, false);
    };
    let is = |number| field(flags, number, 1) == 1;
    // Valid, of AArch64, aborting; little-endian, not stalling.
    if !(is(31) && is(41) && is(46)) || is(15) || is(44) {
        return Stage1Led::Stopped(BadDescriptor, true);
    }
    let is_upper = field(address, 55, 1) == 1;
    let half = if is_upper { 16 } else { 0 };
    let table = field(if is_upper { upper } else { lower }, 4, 48) * 16;
    let sizes = [32, 36, 40, 42, 44, 48];
    let told = sizes.get(usize::try_from(field(flags, 32, 3)).unwrap_or(0));
    let walk = Walk {
        words,
        address,
        write,
        output_bits: told.copied().unwrap_or(hardware_bits).min(hardware_bits),
        takes_access_clear: is(35),
    };
    let size_offset = field(flags, half, 6);
    let granule = if is_upper { 2 } else { 0 };
    let is_legal = field(flags, half + 6, 2) == granule
        && (16..=39).contains(&size_offset)
        && walk.fits(table);
    let records = is(45);
    if is(half + 14) {
        return Stage1Led::Stopped(Translation, records);
    }
    if !is_legal {
        return Stage1Led::Stopped(BadDescriptor, true);
    }
    let input_bits = u32::try_from(64 - size_offset).unwrap_or(0);
    let top = if is(if is_upper { 39 } else { 38 }) { 56 } else { 64 };
    let extends = (input_bits..top).all(|number| (field(address, number, 1) == 1) == is_upper);
    if !extends {
        return Stage1Led::Stopped(Translation, records);
    }
    let levels = (input_bits - 12).div_ceil(9);
    match walk.step(table, field(address, 0, input_bits), levels, (true, true)) {
        Ok((to, left)) => Stage1Led::To(to, left),
        Err(NoMemory) => Stage1Led::Stopped(NoMemory, false),
        Err(fault) => Stage1Led::Stopped(fault, records),
    }
}

struct Walk<'w> {
    words: &'w Words,
    address: u64,
    write: bool,
    output_bits: u32,
    takes_access_clear: bool,
}

impl Walk<'_> {
    /// What the entry of a table leads to, where tables above let so much be read and written.
    fn step(
        &self,
        table: u64,
        rest: u64,
        level: u32,
        (reads, writes): (bool, bool),
    ) -> Result<(u64, u64), Stage1Fault> {
        let bytes = 4096 * 512_u64.pow(level - 1);
        let entry = self.words.get(&(table + rest / bytes * 8)).copied();
        let entry = entry.ok_or(Stage1Fault::NoMemory)?;
        let target = field(entry, 12, 36) * 4096;
        let is_leaf = match (field(entry, 0, 2), level) {
            (3, 1) | (1, 2 | 3) => true,
            (3, _) => false,
            _ => return Err(Stage1Fault::Translation),
        };
        if !self.fits(target) {
            return Err(Stage1Fault::AddressSize);
        }
        if !is_leaf {
            let allowed = (reads && field(entry, 61, 1) == 0, writes && field(entry, 62, 1) == 0);
            return self.step(target, rest % bytes, level - 1, allowed);
        }
        if field(entry, 10, 1) == 0 && !self.takes_access_clear {
            return Err(Stage1Fault::Access);
        }
        let reads = reads && field(entry, 6, 1) == 1;
        let writes = writes && field(entry, 7, 1) == 0;
        if !reads || self.write && !writes {
            return Err(Stage1Fault::Permission);
        }
        let offset = self.address % bytes;
        Ok((target / bytes * bytes + offset, bytes - offset))
    }

    fn fits(&self, address: u64) -> bool {
        u128::from(address) < 1 << self.output_bits
    }
}

/// `count` bits of a value from bit `low` on.
fn field(value: u64, low: u32, count: u32) -> u64 {
    let value = u128::from(value) / 2_u128.pow(low) % 2_u128.pow(count);
    u64::try_from(value).unwrap_or(0)
}
