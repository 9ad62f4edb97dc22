//! What a program may do with its address spaces, by random.

use models::Access;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{DEVICES, IOVA, IOVA_UNITS, SPACES, UNIT, VA, VA_UNITS};
use crate::support::{MEMORY_END, PAGE};

/// Where something is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spot {
    At(u64),
    /// In or beside the nth area that there is: from its beginning.
    Area(usize, i64),
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Map { space: usize, target: Option<Spot>, memory: u64, length: u64, access: Access },
    Copy { from: (usize, Spot), to: (usize, Option<Spot>), length: u64, access: Access },
    Unmap { space: usize, spot: Spot, length: u64 },
    UnmapAll { space: usize },
    Allow { space: usize, ranges: Vec<(u64, u64)> },
    Ranges { space: usize, room: u32 },
    Reserve { space: usize, start: u64, length: u64 },
    LargePages { space: usize, on: bool },
    Attach { device: usize, space: usize },
    Detach { device: usize },
    MakeMock { space: usize },
    EndMock { nth: usize },
    Pin { user: usize, spot: Spot, length: u64, write: bool },
    Unpin { nth: usize },
    CopyBySoftware { user: usize, spot: Spot, length: u64, write: bool },
    MoveSoftware { user: usize, space: usize },
    Dma { device: usize, spot: Spot, write: bool },
}

impl Step {
    /// Whether it is about addresses that it names, and nothing else of the space.
    pub(super) const fn is_of_a_window(&self) -> bool {
        match self {
            Self::Map { target, .. } | Self::Copy { to: (_, target), .. } => target.is_some(),
            Self::Unmap { .. }
            | Self::Pin { .. }
            | Self::Unpin { .. }
            | Self::CopyBySoftware { .. }
            | Self::Dma { .. } => true,
            Self::UnmapAll { .. }
            | Self::Allow { .. }
            | Self::Ranges { .. }
            | Self::Reserve { .. }
            | Self::LargePages { .. }
            | Self::Attach { .. }
            | Self::Detach { .. }
            | Self::MakeMock { .. }
            | Self::EndMock { .. }
            | Self::MoveSoftware { .. } => false,
        }
    }
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let space = || 0..SPACES;
    let length = || prop_oneof![4 => (1..6_u64).prop_map(|n| n * PAGE), 1 => (0..24_u64).prop_map(|n| n * UNIT)];
    let memory = prop_oneof![
        6 => (0..VA_UNITS / 4).prop_map(|n| VA + n * PAGE),
        2 => (0..VA_UNITS).prop_map(|n| VA + n * UNIT),
        1 => (0..16_u64).prop_map(|n| MEMORY_END - 2 * PAGE + n * UNIT),
    ];
    let access = || {
        prop_oneof![6 => Just((true, true)), 2 => Just((true, false)), 2 => Just((false, true)), 1 => Just((false, false))]
            .prop_map(|(read, write)| Access { read, write })
    };
    let target = || prop_oneof![2 => spot().prop_map(Some), 1 => Just(None)];
    let map = (space(), target(), memory, length(), access()).prop_map(
        |(space, target, memory, length, access)| Step::Map {
            space,
            target,
            memory,
            length,
            access,
        },
    );
    let copy = ((space(), spot()), (space(), target()), length(), access())
        .prop_map(|(from, to, length, access)| Step::Copy { from, to, length, access });
    let near = (0..IOVA_UNITS, 0..16_u64).prop_map(|(at, units)| {
        let start = IOVA + at * UNIT;
        (start, start + (units * UNIT).saturating_sub(1))
    });
    let range = prop_oneof![
        6 => near,
        1 => Just((0, u64::MAX)),
        1 => (0..8_u64).prop_map(|n| (PAGE * n, 0x200_0000)),
        1 => Just((0xf000_0000, 0xffff_ffff)),
    ];
    let (device, user) = (|| 0..DEVICES, || 0..2_usize);
    prop_oneof![
        10 => map,
        4 => copy,
        5 => (space(), spot(), length()).prop_map(|(space, spot, length)| Step::Unmap { space, spot, length }),
        1 => space().prop_map(|space| Step::UnmapAll { space }),
        1 => (space(), vec(range, 0..4)).prop_map(|(space, ranges)| Step::Allow { space, ranges }),
        1 => (space(), 0..6_u32).prop_map(|(space, room)| Step::Ranges { space, room }),
        1 => (space(), 0..IOVA_UNITS, 0..3_u64).prop_map(|(space, at, length)| Step::Reserve { space, start: 0x180_0000 + at * UNIT, length: length * UNIT }),
        1 => (space(), any::<bool>()).prop_map(|(space, on)| Step::LargePages { space, on }),
        2 => (device(), space()).prop_map(|(device, space)| Step::Attach { device, space }),
        1 => device().prop_map(|device| Step::Detach { device }),
        1 => space().prop_map(|space| Step::MakeMock { space }),
        1 => (0..3_usize).prop_map(|nth| Step::EndMock { nth }),
        3 => (user(), spot(), length(), any::<bool>()).prop_map(|(user, spot, length, write)| Step::Pin { user, spot, length, write }),
        2 => (0..4_usize).prop_map(|nth| Step::Unpin { nth }),
        3 => (user(), spot(), length(), any::<bool>()).prop_map(|(user, spot, length, write)| Step::CopyBySoftware { user, spot, length, write }),
        1 => (user(), space()).prop_map(|(user, space)| Step::MoveSoftware { user, space }),
        4 => (device(), spot(), any::<bool>()).prop_map(|(device, spot, write)| Step::Dma { device, spot, write }),
    ]
}

fn spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        3 => (0..IOVA_UNITS / 4).prop_map(|n| Spot::At(IOVA + n * PAGE)),
        1 => (0..IOVA_UNITS).prop_map(|n| Spot::At(IOVA + n * UNIT)),
        4 => (0..6_usize).prop_map(|nth| Spot::Area(nth, 0)),
        1 => (0..6_usize, -2..4_i64).prop_map(|(nth, pages)| Spot::Area(nth, pages * PAGE.cast_signed())),
        1 => (0..6_usize, -4..12_i64).prop_map(|(nth, units)| Spot::Area(nth, units * UNIT.cast_signed())),
    ]
}
