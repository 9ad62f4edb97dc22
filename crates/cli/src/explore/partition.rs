//! A part of a set of scenarios, so that several machines explore it together.

use std::fmt;
use std::str::FromStr;

/// Which part: `slice:K/N` takes each N-th scenario from the K-th on; `hash:K/N` goes by the scenario's name, so that a
/// scenario stays where it is when others come or go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    by: By,
    /// From 0.
    part: usize,
    parts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Slice,
    Hash,
}

/// A text that names no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoPartition(String);

impl fmt::Display for NoPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(f, "{text:?} is no part: say slice:K/N or hash:K/N, with K from 1 to N")
    }
}

impl std::error::Error for NoPartition {}

impl FromStr for Partition {
    type Err = NoPartition;

    fn from_str(text: &str) -> Result<Self, NoPartition> {
        let wrong = || NoPartition(text.to_owned());
        let (by, numbers) = text.split_once(':').ok_or_else(wrong)?;
        let by = match by {
            "slice" => By::Slice,
            "hash" => By::Hash,
            _ => return Err(wrong()),
        };
        let (part, parts) = numbers.split_once('/').ok_or_else(wrong)?;
        let number = |digits: &str| -> Result<usize, NoPartition> {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain).ok_or_else(wrong)
        };
        let (part, parts) = (number(part)?, number(parts)?);
        if part == 0 || part > parts {
            return Err(wrong());
        }
        Ok(Self { by, part: part - 1, parts })
    }
}

impl Partition {
    /// Whether the scenario with this name, at this place of the whole set, is in this part.
    pub(super) fn has(self, index: usize, name: &str) -> bool {
        let parts = self.parts as u64;
        let part = match self.by {
            By::Slice => index as u64 % parts,
            By::Hash => hash(name) % parts,
        };
        part == self.part as u64
    }
}

/// FNV-1a: the same on every machine and in every version.
fn hash(name: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    name.bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_together_all() {
        let names: Vec<String> = (0..100).map(|number| format!("s{number}.toml")).collect();
        for by in ["slice", "hash"] {
            for parts in [1, 2, 3, 7] {
                let all = (1..=parts).map(|part| format!("{by}:{part}/{parts}"));
                let all: Vec<Partition> = all.map(|text| text.parse().unwrap()).collect();
                for (index, name) in names.iter().enumerate() {
                    let holders = all.iter().filter(|part| part.has(index, name)).count();
                    assert_eq!(holders, 1, "{by} {parts} {name}");
                }
            }
        }
    }

    #[test]
    fn by_hash_a_scenario_stays_where_others_come() {
        let part: Partition = "hash:1/3".parse().unwrap();
        assert!((0..50).all(|index| part.has(index, "name") == part.has(0, "name")));
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "slice",
            "slice:1",
            "slice:0/2",
            "slice:3/2",
            "hash:a/2",
            "sum:1/2",
            "hash:+1/2",
            "hash:1/0",
        ] {
            assert!(text.parse::<Partition>().is_err(), "{text}");
        }
    }
}
