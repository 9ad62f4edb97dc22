//! DEVICE_FEATURE, by feature.

use uapi::vfio::{feature_flags, feature_id};
use vfio::{DmaBufs, Settings};

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
    ("dma-bufs of BARs", World::bound, DMA_BUFS),
    ("a kernel without dma-bufs of BARs", without_dma_bufs, WITHOUT_DMA_BUFS),
    ("a physical function", physical_function, PHYSICAL),
];

fn physical_function() -> World {
    let shape = Shape { physical_function: true, ..Shape::default() };
    World::shaped(shape, Settings::default()).and_bound()
}

fn without_dma_bufs() -> World {
    let settings = Settings { dma_bufs: DmaBufs::Off, ..Settings::default() };
    World::shaped(Shape::default(), settings).and_bound()
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

const ASK: Fields = &[("flags", DMA_BUF | GET)];

/// A dma-buf: BAR, open flags, flags, number of ranges; then the ranges, by halves.
const fn asks(words: &'static [i32], errno: E, why: &'static str) -> Step {
    Refused(FEATURE, Then(ASK, words), errno, why)
}

const fn lends(words: &'static [i32], fd: u32) -> Step {
    Done(FEATURE, Then(ASK, words), fd)
}

const WITHOUT_DMA_BUFS: &[Step] =
    &[lacks(&[("flags", DMA_BUF | PROBE)]), lacks(&[("flags", DMA_BUF | GET)])];

const DMA_BUFS: &[Step] = &[
    Refused(FEATURE, Struct(&[("flags", DMA_BUF | SET)]), E::EINVAL, "FeatureOperation"),
    Refused(FEATURE, Struct(&[("flags", DMA_BUF | SET | PROBE)]), E::EINVAL, "FeatureOperation"),
    Done(FEATURE, Struct(&[("flags", DMA_BUF | PROBE)]), 0),
    Done(FEATURE, Struct(&[("flags", DMA_BUF | GET | PROBE)]), 0),
    Refused(FEATURE, Struct(&[("flags", DMA_BUF)]), E::EINVAL, "FeatureOperation"),
    Refused(FEATURE, Then(&[("argsz", 23), ("flags", DMA_BUF | GET)], &[]), E::EINVAL, "Argsz"),
    Refused(FEATURE, Cut(&[("argsz", 24), ("flags", DMA_BUF | GET)], 8), E::EFAULT, "Unreachable"),
    asks(&[9, 0, 1, 0], E::EINVAL, "NoRanges"),
    asks(&[9, 0, 1, 1], E::EINVAL, "Flags"),
    asks(&[6, 0, 0, -1], E::ENODEV, "NoSuchBar"),
    asks(&[-1, 0, 0, -1], E::ENODEV, "NoSuchBar"),
    // The upper half of a BAR, and none.
    asks(&[1, 0, 0, -1], E::ENODEV, "NoSuchBar"),
    asks(&[5, 0, 0, -1], E::ENODEV, "NoSuchBar"),
    asks(&[0, 0, 0, 0x4_0001], E::ENOMEM, "TooManyRanges"),
    asks(&[4, 0, 0, 0x4_0000], E::EFAULT, "Unreachable"),
    asks(&[4, 0, 0, 1, 0, 0, 0, 0], E::EINVAL, "DmaRange"),
    asks(&[4, 0, 0, 1, 0x100, 0, 0x1000, 0], E::EINVAL, "DmaRange"),
    asks(&[4, 0, 0, 1, 0, 0, 0x100, 0], E::EINVAL, "DmaRange"),
    asks(&[4, 0, 0, 1, 0, 0, 0, i32::MIN], E::EINVAL, "DmaRange"),
    asks(&[4, 0, 0, 2, 0, 0, 0, i32::MIN, 0, 0, 0, i32::MIN], E::EINVAL, "DmaRange"),
    asks(&[4, 0, 0, 1, 0, 0, 0x1000, 0], E::EINVAL, "NotMemory"),
    asks(&[0, 0, 0, 1, -0x1000, -1, 0x1000, 0], E::EOVERFLOW, "PastTop"),
    asks(&[0, 0, 0, 1, 0x4000, 0, 0x1000, 0], E::EINVAL, "DmaRange"),
    asks(&[0, 0, 0, 1, 0x1000, 0, 0x4000, 0], E::EINVAL, "DmaRange"),
    asks(&[0, 0, 0, 2, 0, 0, 0x1000, 0, 0x4000, 0, 0x1000, 0], E::EINVAL, "DmaRange"),
    lends(&[0, 0o2_000_002, 0, 1, 0, 0, 0x4000, 0], 1000),
    lends(&[0, 0, 0, 1, 0x1000, 0, 0x1000, 0], 1001),
    lends(&[0, 0, 0, 2, 0x1000, 0, 0x1000, 0, 0x1000, 0, 0x1000, 0], 1002),
    lends(&[2, 0, 0, 1, 0, 0, 0x1000, 0], 1003),
    // BARs smaller than a page have no whole page to lend.
    asks(&[3, 0, 0, 1, 0, 0, 0x1000, 0], E::EINVAL, "DmaRange"),
    lends(&[0, 0, 0, 1, 0, 0, 0x1000, 0], 1004),
    asks(&[0, 0, 0, 1, 0, 0, 0x1000, 0], E::EMFILE, "NotInstalled"),
];

const PHYSICAL: &[Step] = &[
    Refused(FEATURE, Struct(&[("flags", TOKEN | GET)]), E::EINVAL, "FeatureOperation"),
    Refused(FEATURE, Struct(&[("flags", TOKEN)]), E::EINVAL, "FeatureOperation"),
    Done(FEATURE, Struct(&[("flags", TOKEN | SET | PROBE)]), 0),
    Refused(FEATURE, Cut(&[("argsz", 23), ("flags", TOKEN | SET)], 8), E::EINVAL, "Argsz"),
    Refused(FEATURE, Cut(&[("argsz", 24), ("flags", TOKEN | SET)], 8), E::EFAULT, "Unreachable"),
    Done(FEATURE, Then(&[("flags", TOKEN | SET)], &[1, 2, 3, 4]), 0),
];
