//! IDs that a driver matches functions by, as `new_id` and `remove_id` take them.
//!
//! Takes no lock.

use crate::machine::Identity;

/// IDs that a driver matches, as `new_id` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    vendor: u32,
    device: u32,
    subsystem_vendor: u32,
    subsystem_device: u32,
    class: u32,
    class_mask: u32,
}

impl Id {
    /// Matches any subsystem.
    const ANY: u32 = u32::MAX;

    /// Hexadecimal numbers: vendor, device, then, optionally, subsystem vendor, subsystem device,
    /// class, class mask.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text
            .split_ascii_whitespace()
            .map_while(|word| u32::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        Some(Self {
            vendor: numbers.next()?,
            device: numbers.next()?,
            subsystem_vendor: numbers.next().unwrap_or(Self::ANY),
            subsystem_device: numbers.next().unwrap_or(Self::ANY),
            class: numbers.next().unwrap_or(0),
            class_mask: numbers.next().unwrap_or(0),
        })
    }

    /// Whether a function is one of those.
    pub(super) fn matches(&self, identity: &Identity) -> bool {
        let is = |id: u32, known: u16| id == Self::ANY || id == u32::from(known);
        is(self.vendor, identity.vendor)
            && is(self.device, identity.device)
            && is(self.subsystem_vendor, identity.subsystem_vendor)
            && is(self.subsystem_device, identity.subsystem_device)
            && (self.class ^ identity.class) & self.class_mask == 0
    }

    /// Whether `remove_id` with `other` removes this one.
    pub(super) fn same_kind(&self, other: &Self) -> bool {
        let ids = |id: &Self| (id.vendor, id.device, id.subsystem_vendor, id.subsystem_device);
        ids(self) == ids(other) && (self.class ^ other.class) & self.class_mask == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_matched() {
        let identity = Identity {
            vendor: 0x1234,
            device: 0xb1d0,
            subsystem_vendor: 1,
            subsystem_device: 2,
            class: 0x08_80_00,
            revision: 1,
        };
        for (text, matches) in [
            ("1234 b1d0", true),
            ("0x1234 0xb1d0", true),
            ("1234 b1d0 1 2", true),
            ("1234 b1d0 1 3", false),
            ("1234 ffffffff", true),
            ("1234 b1d0 1 2 088000 ffffff", true),
            ("1234 b1d0 1 2 088100 ffffff", false),
            ("8086 b1d0", false),
        ] {
            assert_eq!(Id::parse(text).map(|id| id.matches(&identity)), Some(matches), "{text}");
        }
        for text in ["", "1234", "nonsense b1d0", "1234 -1"] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
