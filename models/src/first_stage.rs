//! A guest's first-stage tables as VT-d walks them, by recursion and division.

use std::collections::BTreeMap;

/// Guest memory: the 8 bytes at each address that is there.
pub type Words = BTreeMap<u64, u64>;

/// How tables are read.
#[derive(Clone, Copy, Debug)]
pub struct FirstStage {
    /// Tables on the way, 4 or 5.
    pub levels: u32,
    /// Whether an entry of the third level can be a page.
    pub giant_pages: bool,
    /// Whether extended accessed flags are set.
    pub extended: bool,
}

/// Where an access leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// To this address, and so many bytes are translated alike from there.
    To(u64, u64),
    /// Nowhere.
    Nowhere,
    /// An entry is malformed.
    Malformed,
    /// It is not allowed.
    Refused,
}

impl FirstStage {
    /// Walks from the table at `root`, and marks what an allowed access passes.
    pub fn walk(self, words: &mut Words, root: u64, address: u64, write: bool) -> Walked {
        let bits = 12 + 9 * self.levels;
        let half = 1_u128 << (bits - 1);
        let is_low = u128::from(address) < half;
        let is_high = u128::from(address) >= (1 << 64) - half;
        let is_interrupt = address / (1 << 20) == 0xfee;
        if !(is_low || is_high) || is_interrupt {
            return Walked::Nowhere;
        }
        let mut passed = Vec::new();
        let found = self.step(words, root, address, self.levels, &mut passed);
        let Walked::To(..) = found else { return found };
        let allowed = |number| passed.iter().all(|at| bit(words[at], number));
        if !allowed(2) || write && !allowed(1) {
            return Walked::Refused;
        }
        let last = passed.last().copied();
        for at in passed {
            let mut entry = words[&at];
            set(&mut entry, 5);
            if self.extended {
                set(&mut entry, 10);
            }
            if write && Some(at) == last {
                set(&mut entry, 6);
            }
            words.insert(at, entry);
        }
        found
    }

    fn step(
        self,
        words: &Words,
        table: u64,
        address: u64,
        level: u32,
        passed: &mut Vec<u64>,
    ) -> Walked {
        let bytes = 4096 * 512_u64.pow(level - 1);
        let at = table + address / bytes % 512 * 8;
        let Some(&entry) = words.get(&at) else { return Walked::Nowhere };
        passed.push(at);
        if !bit(entry, 0) {
            return Walked::Nowhere;
        }
        let target = entry % (1 << 52) / 4096 * 4096;
        let is_page = level == 1 || bit(entry, 7);
        if !is_page {
            return self.step(words, target, address, level - 1, passed);
        }
        let can_be_page = level <= 2 || level == 3 && self.giant_pages;
        // The lowest bit of a large page's address is something else.
        let start = if level == 1 { target } else { target / 8192 * 8192 };
        if !can_be_page || start % bytes != 0 {
            return Walked::Malformed;
        }
        Walked::To(start + address % bytes, bytes - address % bytes)
    }
}

fn bit(value: u64, number: u32) -> bool {
    value / 2_u64.pow(number) % 2 == 1
}

fn set(value: &mut u64, number: u32) {
    if !bit(*value, number) {
        *value += 2_u64.pow(number);
    }
}
