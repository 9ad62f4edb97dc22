//! DEVICE_FEATURE, by feature.

use uapi::vfio::{feature_flags, feature_id};
use vfio::Settings;

use super::*;
use crate::support::Shape;

const FEATURE: CommandId = C::DeviceFeature;
const DMA_BUF: u64 = feature_id::DMA_BUF as u64;
const PRECOPY: u64 = feature_id::MIG_PRECOPY_INFO_V2 as u64;
const GET: u64 = feature_flags::GET as u64;
const SET: u64 = feature_flags::SET as u64;
const PROBE: u64 = feature_flags::PROBE as u64;
const TOKEN: u64 = feature_id::PCI_VF_TOKEN as u64;
const ENTRY: u64 = feature_id::LOW_POWER_ENTRY as u64;
const WAKEUP: u64 = feature_id::LOW_POWER_ENTRY_WITH_WAKEUP as u64;
const EXIT: u64 = feature_id::LOW_POWER_EXIT as u64;

pub(super) const ACTS: &[Act] = &[
    ("a device that is bound", World::bound, BOUND),
    ("low power", World::bound, LOW_POWER),
    ("a physical function", physical_function, PHYSICAL),
];

fn physical_function() -> World {
    let shape = Shape { physical_function: true, ..Shape::default() };
    World::shaped(shape, Settings::default()).and_bound()
}

const fn lacks(flags: Fields) -> Step {
    Refused(FEATURE, Struct(flags), E::ENOTTY, "NoSuchFeature")
}

const BOUND: &[Step] = &[
    Refused(FEATURE, Value(0), E::EFAULT, "Unreachable"),
    Refused(FEATURE, Struct(&[("argsz", 7), ("flags", 1 << 19)]), E::EINVAL, "Argsz"),
    Refused(FEATURE, Struct(&[("flags", 1 << 19 | 0xffff)]), E::EINVAL, "Flags"),
    Refused(FEATURE, Struct(&[("flags", GET | SET | 0xffff)]), E::EINVAL, "Flags"),
    // What there is not, whatever is asked of it.
    lacks(&[("flags", TOKEN)]),
    lacks(&[("flags", TOKEN | SET)]),
    lacks(&[("flags", feature_id::MIGRATION as u64 | GET)]),
    lacks(&[("flags", feature_id::MIG_DEVICE_STATE as u64 | SET)]),
    lacks(&[("flags", feature_id::DMA_LOGGING_START as u64 | SET)]),
    lacks(&[("flags", feature_id::DMA_LOGGING_STOP as u64 | SET)]),
    lacks(&[("flags", feature_id::DMA_LOGGING_REPORT as u64 | GET)]),
    lacks(&[("flags", feature_id::MIG_DATA_SIZE as u64 | GET)]),
    lacks(&[("flags", feature_id::BUS_MASTER as u64 | SET)]),
    lacks(&[("flags", feature_id::ZPCI_ERROR as u64 | GET)]),
    // Which is no precopy, rather than no such feature.
    Refused(FEATURE, Struct(&[("flags", PRECOPY | GET)]), E::EINVAL, "NoPrecopy"),
    Refused(FEATURE, Struct(&[("flags", PRECOPY | SET | PROBE)]), E::EINVAL, "NoPrecopy"),
    // Before anything is looked at, as where a device does no peer-to-peer DMA.
    Refused(FEATURE, Struct(&[("flags", DMA_BUF)]), E::EOPNOTSUPP, "NoPeerToPeer"),
    lacks(&[("flags", 14 | GET | SET | PROBE)]),
    lacks(&[("flags", 0xffff)]),
];

const LOW_POWER: &[Step] = &[
    Refused(FEATURE, Struct(&[("flags", ENTRY | GET)]), E::EINVAL, "FeatureOperation"),
    Refused(
        FEATURE,
        Struct(&[("flags", ENTRY | GET | SET | PROBE)]),
        E::EINVAL,
        "FeatureOperation",
    ),
    Refused(FEATURE, Struct(&[("flags", ENTRY)]), E::EINVAL, "FeatureOperation"),
    Done(FEATURE, Struct(&[("flags", ENTRY | PROBE)]), 0),
    Done(FEATURE, Struct(&[("flags", ENTRY | SET)]), 0),
    Refused(FEATURE, Struct(&[("flags", ENTRY | SET)]), E::EINVAL, "LowPowerEngaged"),
    Refused(FEATURE, Then(&[("flags", WAKEUP | SET)], &[EVENTFD, 0]), E::EINVAL, "LowPowerEngaged"),
    Refused(FEATURE, Struct(&[("flags", EXIT | GET)]), E::EINVAL, "FeatureOperation"),
    Done(FEATURE, Struct(&[("flags", EXIT | SET)]), 0),
    Done(FEATURE, Struct(&[("flags", EXIT | SET)]), 0),
    Refused(FEATURE, Struct(&[("flags", WAKEUP)]), E::EINVAL, "FeatureOperation"),
    Refused(FEATURE, Then(&[("argsz", 15), ("flags", WAKEUP | SET)], &[-1, 0]), E::EINVAL, "Argsz"),
    Refused(FEATURE, Cut(&[("argsz", 16), ("flags", WAKEUP | SET)], 8), E::EFAULT, "Unreachable"),
    Refused(FEATURE, Then(&[("flags", WAKEUP | SET)], &[-1, 0]), E::EINVAL, "NegativeFd"),
    Refused(FEATURE, Then(&[("flags", WAKEUP | SET)], &[CLOSED, 0]), E::EBADF, "ClosedFd"),
    Refused(FEATURE, Then(&[("flags", WAKEUP | SET)], &[OTHER, 0]), E::EINVAL, "NotEventfd"),
    Done(FEATURE, Then(&[("flags", WAKEUP | SET)], &[EVENTFD, 7]), 0),
];

const PHYSICAL: &[Step] = &[
    Refused(FEATURE, Struct(&[("flags", TOKEN | GET)]), E::EINVAL, "FeatureOperation"),
    Refused(FEATURE, Struct(&[("flags", TOKEN)]), E::EINVAL, "FeatureOperation"),
    Done(FEATURE, Struct(&[("flags", TOKEN | SET | PROBE)]), 0),
    Refused(FEATURE, Cut(&[("argsz", 23), ("flags", TOKEN | SET)], 8), E::EINVAL, "Argsz"),
    Refused(FEATURE, Cut(&[("argsz", 24), ("flags", TOKEN | SET)], 8), E::EFAULT, "Unreachable"),
    Done(FEATURE, Then(&[("flags", TOKEN | SET)], &[1, 2, 3, 4]), 0),
];
