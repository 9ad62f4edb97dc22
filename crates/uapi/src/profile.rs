//! Profiles: which published shape of the ABI a client meets.
//!
//! Linux 7.3 knows no TSM; the patch series that add it came in several shapes, some under numbers
//! that 7.3 gives to other commands. A profile picks one. Takes no lock. Deliberately absent: what
//! is different behind the numbers.

use std::fmt;

/// A published shape of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Profile {
    /// Linux 7.3 with both shapes of the TSM series that do not exclude each other:
    /// `IOMMU_VDEVICE_TSM_OP` of v5, `IOMMU_VDEVICE_TSM_REQ` as taken for v7.
    #[default]
    Rfc,
    /// Linux 7.3 as released, without TSM.
    Linux73,
    /// The series' v5 of 2026-05. [tsm-rfc-v5]
    RfcV5_2026_05,
    /// The series' v7 of 2026-10, reconstructed from summaries. [tsm-rfc-v7]
    RfcV7_2026_10,
    /// The series of 2025-05, which binds by a VFIO command; it predates hardware queues.
    /// [tsm-rfc-2025-05]
    Rfc2025_05,
}

impl Profile {
    /// Every profile.
    pub const ALL: &[Self] =
        &[Self::Rfc, Self::Linux73, Self::RfcV5_2026_05, Self::RfcV7_2026_10, Self::Rfc2025_05];

    /// The name that settings use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rfc => "rfc",
            Self::Linux73 => "linux-7.3",
            Self::RfcV5_2026_05 => "rfc-v5-2026-05",
            Self::RfcV7_2026_10 => "rfc-v7-2026-10",
            Self::Rfc2025_05 => "rfc-2025-05",
        }
    }

    /// What was published, and where: a sentence or two.
    pub const fn source(self) -> &'static str {
        match self {
            Self::Rfc => {
                "Linux 7.3, and both published ways to a TSM at once: IOMMU_VDEVICE_TSM_OP of v4 and v5 \
                 (2026-04, 2026-05) and IOMMU_VDEVICE_TSM_REQ as posted after v5 (2026-06)."
            }
            Self::Linux73 => "Linux 7.3 as released. It has no TSM.",
            Self::RfcV5_2026_05 => {
                "Linux 7.3, and v5 of the TSM series, posted on 2026-05-25 to linux-coco and iommu \
                 (message 20260525154816.1029642)."
            }
            Self::RfcV7_2026_10 => {
                "Linux 7.3, and what summaries tell of v7 of the TSM series, posted on 2026-10-08 \
                 (message 20261008055955.4014342-1)."
            }
            Self::Rfc2025_05 => {
                "Linux 7.3 without hardware queues, and the TSM series posted on 2025-05-29 \
                 (message 20250529053513.1592088), which binds by a VFIO command."
            }
        }
    }

    /// What of it is not as published but concluded: a sentence or two.
    pub const fn reconstruction(self) -> &'static str {
        match self {
            Self::Rfc => {
                "The numbers of the operations of IOMMU_VDEVICE_TSM_REQ are those of the series' \
                 integration tree; that one kernel serves both ways is an offer of Bindery's."
            }
            Self::Linux73 => "Nothing.",
            Self::RfcV5_2026_05 => "The names of the scopes of IOMMU_VDEVICE_TSM_REQ.",
            Self::RfcV7_2026_10 => {
                "The text of v7 was not read: IOMMU_VDEVICE_TSM_REQ has the layout posted after v5 and \
                 the operation numbers of the series' integration tree."
            }
            Self::Rfc2025_05 => {
                "That commands which Linux gained since then stand next to it, and a later series' type \
                 of vIOMMU; the series itself was based on an older kernel."
            }
        }
    }

    /// Finds a profile by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|profile| profile.name() == name)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A set of profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profiles(u8);

impl Profiles {
    /// Every profile.
    pub const ALL: Self = Self::of(Profile::ALL);
    /// No profile.
    pub const NONE: Self = Self::of(&[]);

    /// Makes a set of the profiles given.
    pub const fn of(profiles: &[Profile]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < profiles.len() {
            bits |= bit(profiles[index]);
            index += 1;
        }
        Self(bits)
    }

    /// Every profile but those given.
    pub const fn except(profiles: &[Profile]) -> Self {
        Self(Self::ALL.0 & !Self::of(profiles).0)
    }

    /// Whether the profile is in the set.
    pub const fn contains(self, profile: Profile) -> bool {
        self.0 & bit(profile) != 0
    }
}

const fn bit(profile: Profile) -> u8 {
    1 << profile as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_profiles() {
        for &profile in Profile::ALL {
            assert_eq!(Profile::from_name(profile.name()), Some(profile));
        }
        assert_eq!(Profile::from_name("linux-7.2"), None);
    }

    #[test]
    fn sets_hold_what_they_were_made_of() {
        let made = Profiles::of(&[Profile::Linux73, Profile::Rfc2025_05]);
        let rest = Profiles::except(&[Profile::Linux73, Profile::Rfc2025_05]);
        for &profile in Profile::ALL {
            assert_eq!(made.contains(profile), !rest.contains(profile));
            assert!(Profiles::ALL.contains(profile));
            assert!(!Profiles::NONE.contains(profile));
        }
        assert!(made.contains(Profile::Rfc2025_05));
        assert!(!made.contains(Profile::Rfc));
    }
}
