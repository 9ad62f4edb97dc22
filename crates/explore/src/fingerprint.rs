//! A 128-bit hash, to tell states apart.
//!
//! Two lanes of 64 bits, each folding a multiplication by a constant of its own. Nobody chooses states to
//! make them collide, so what counts is spread: with `n` states the odds that any two share a fingerprint
//! are about `n² / 2¹²⁹`, which is 10⁻²⁴ for ten million. Takes no lock.

use std::hash::{Hash, Hasher};

/// What a state, or a part of one, hashes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint of `value`.
    pub(crate) fn of(value: &impl Hash) -> Self {
        let mut lanes = Lanes::default();
        value.hash(&mut lanes);
        lanes.fingerprint()
    }

    /// The fingerprint of this one followed by `value`.
    pub(crate) fn then(self, value: &impl Hash) -> Self {
        Self::of(&(self, value))
    }

    /// The fingerprint of a set with one member more. The order of additions makes no difference.
    pub(crate) fn with(self, member: Self) -> Self {
        Self(self.0.wrapping_add(member.0))
    }

    /// Undoes [`with`](Self::with).
    pub(crate) fn without(self, member: Self) -> Self {
        Self(self.0.wrapping_sub(member.0))
    }

    pub(crate) fn halves(self) -> [u64; 2] {
        [(self.0 >> 64) as u64, low_half(self.0)]
    }
}

/// Hashes words into two lanes.
pub(crate) struct Lanes {
    first: u64,
    second: u64,
}

impl Default for Lanes {
    fn default() -> Self {
        // Digits of pi: nothing up the sleeve.
        Self { first: 0x243f_6a88_85a3_08d3, second: 0x1319_8a2e_0370_7344 }
    }
}

impl Lanes {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let first = fold(self.first ^ self.second.rotate_left(32), MULTIPLIERS[2]);
        let second = fold(self.second ^ first, MULTIPLIERS[3]);
        Fingerprint(u128::from(first) << 64 | u128::from(second))
    }
}

impl Hasher for Lanes {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.first = fold(self.first ^ word, MULTIPLIERS[0]);
        self.second = fold(self.second.rotate_left(23) ^ word, MULTIPLIERS[1]);
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(low_half(word));
        self.write_u64((word >> 64) as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.fingerprint().halves()[0]
    }
}

/// Odd, with about as many ones as zeros in every byte.
const MULTIPLIERS: [u64; 4] =
    [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];

fn fold(word: u64, multiplier: u64) -> u64 {
    let product = u128::from(word) * u128::from(multiplier);
    (product >> 64) as u64 ^ low_half(product)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low_half(word: u128) -> u64 {
    word as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn near_values_share_no_part() {
        const VALUES: u32 = 1 << 16;
        let all: Vec<[u64; 2]> =
            (0..VALUES).map(|n| Fingerprint::of(&(n % 256, n / 256)).halves()).collect();
        for part in [0, 1] {
            let high: BTreeSet<u64> = all.iter().map(|halves| halves[part] >> 24).collect();
            let low: BTreeSet<u64> = all.iter().map(|halves| halves[part] << 24).collect();
            // Of 2^16 values in 2^40 places two meet with odds of 1 in 512.
            assert!(high.len() as u64 + 1 >= u64::from(VALUES));
            assert!(low.len() as u64 + 1 >= u64::from(VALUES));
        }
    }

    #[test]
    fn each_bit_of_the_value_changes_half_of_the_bits() {
        for bit in 0..64 {
            let mut changed = 0;
            for value in 0..64_u64 {
                let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let (one, other) = (Fingerprint::of(&value), Fingerprint::of(&(value ^ 1 << bit)));
                changed += (one.0 ^ other.0).count_ones();
            }
            assert!((60..=68).contains(&(changed / 64)), "bit {bit}: {}", changed / 64);
        }
    }

    #[test]
    fn members_come_and_go_in_any_order() {
        let [a, b] = [Fingerprint::of(&1), Fingerprint::of(&2)];
        assert_eq!(Fingerprint::default().with(a).with(b).without(a), b);
        assert_ne!(a.then(&2), b.then(&1));
    }
}
