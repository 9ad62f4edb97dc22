//! GET_INFO, GET_REGION_INFO and GET_IRQ_INFO, and what no device here answers.

use super::*;

pub(super) const ACTS: &[Act] = &[("a device that is bound", World::bound, BOUND)];

const BOUND: &[Step] = &[
    Refused(C::DeviceGetInfo, Value(0), E::EFAULT, "Unreachable"),
    Refused(C::DeviceGetInfo, Struct(&[("argsz", 15)]), E::EINVAL, "Argsz"),
    Refused(C::DeviceGetInfo, ReadOnly(&[]), E::EFAULT, "Unreachable"),
    Done(C::DeviceGetInfo, Struct(&[("argsz", 16)]), 0),
    Refused(C::DeviceGetRegionInfo, Value(0), E::EFAULT, "Unreachable"),
    Refused(C::DeviceGetRegionInfo, Struct(&[("argsz", 31), ("index", 9)]), E::EINVAL, "Argsz"),
    Refused(C::DeviceGetRegionInfo, ReadOnly(&[("index", 9)]), E::EINVAL, "NoSuchRegion"),
    Refused(C::DeviceGetRegionInfo, Struct(&[("index", 8)]), E::EINVAL, "NoSuchRegion"),
    Refused(C::DeviceGetRegionInfo, ReadOnly(&[]), E::EFAULT, "Unreachable"),
    Done(C::DeviceGetRegionInfo, Struct(&[("index", 1)]), 0),
    Refused(C::DeviceGetIrqInfo, Value(0), E::EFAULT, "Unreachable"),
    Refused(C::DeviceGetIrqInfo, Struct(&[("argsz", 15), ("index", 5)]), E::EINVAL, "Argsz"),
    Refused(C::DeviceGetIrqInfo, ReadOnly(&[("index", 5)]), E::EINVAL, "NoSuchInterrupt"),
    Refused(C::DeviceGetIrqInfo, ReadOnly(&[]), E::EFAULT, "Unreachable"),
    Done(C::DeviceGetIrqInfo, Struct(&[("index", 4)]), 0),
    Refused(C::DeviceQueryGfxPlane, Value(0), E::ENOTTY, "NoSuchCommand"),
    Refused(C::DeviceGetGfxDmabuf, Value(0), E::ENOTTY, "NoSuchCommand"),
];
