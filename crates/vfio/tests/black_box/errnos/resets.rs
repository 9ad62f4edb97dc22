//! RESET, GET_PCI_HOT_RESET_INFO and PCI_HOT_RESET.

use vfio::Settings;

use super::*;
use crate::support::Shape;

const INFO: CommandId = C::DeviceGetPciHotResetInfo;
const RESET: CommandId = C::DevicePciHotReset;
const NAME: Given = Text("b1d0:02:00.0");

pub(super) const ACTS: &[Act] = &[
    ("a device that cannot be reset alone", no_reset, ALONE),
    ("a bus that cannot be reset", World::bound_without_bus_reset, NO_BUS_RESET),
    ("a bus with a stranger on it", World::bound_beside_a_stranger, STRANGER),
    ("a device of a group", World::group_on_context, OF_GROUP),
    ("a device of a group, and a stranger", World::group_beside_a_stranger, OF_GROUP_STRANGER),
];

fn no_reset() -> World {
    let shape = Shape { function_level_reset: false, ..Shape::default() };
    World::shaped(shape, Settings::default()).and_bound()
}

const ALONE: &[Step] =
    &[Refused(C::DeviceReset, Value(0), E::EINVAL, "NoReset"), Done(RESET, Struct(&[]), 0)];

const NO_BUS_RESET: &[Step] = &[
    Refused(INFO, Struct(&[("argsz", 11)]), E::EINVAL, "Argsz"),
    Refused(INFO, Struct(&[]), E::ENODEV, "NoBusReset"),
    Refused(RESET, Struct(&[("argsz", 11), ("flags", 1)]), E::EINVAL, "Argsz"),
    Refused(RESET, Struct(&[("flags", 1), ("count", 1)]), E::EINVAL, "Flags"),
    Refused(RESET, Struct(&[("count", 1)]), E::EINVAL, "GroupsGiven"),
    Refused(RESET, Struct(&[]), E::ENODEV, "NoBusReset"),
    Done(C::DeviceReset, Value(0), 0),
];

const STRANGER: &[Step] = &[
    Refused(INFO, Value(0), E::EFAULT, "Unreachable"),
    Refused(INFO, Then(&[("argsz", 27)], &[0; 4]), E::ENOSPC, "ListTooShort"),
    Refused(INFO, ReadOnly(&[]), E::EFAULT, "Unreachable"),
    Refused(INFO, ReadOnly(&[("argsz", 28)]), E::EFAULT, "Unreachable"),
    Done(INFO, Then(&[], &[0; 4]), 0),
    Refused(RESET, Value(0), E::EFAULT, "Unreachable"),
    Refused(RESET, Struct(&[]), E::EINVAL, "BusNotOwned"),
];

const OF_GROUP: &[Step] = &[
    Done(C::GroupSetContainer, Fd(IOMMUFD), 0),
    Done(C::GroupGetDeviceFd, NAME, 0),
    Refused(RESET, Struct(&[("flags", 1), ("count", 2)]), E::EINVAL, "Flags"),
    Refused(RESET, Struct(&[]), E::EINVAL, "GroupsGiven"),
    Refused(RESET, Cut(&[("count", 2)], 12), E::EINVAL, "GroupsGiven"),
    Refused(RESET, Cut(&[("count", 1)], 12), E::EFAULT, "Unreachable"),
    Refused(RESET, Then(&[("count", 1)], &[CLOSED]), E::EBADF, "ClosedFd"),
    Refused(RESET, Then(&[("count", 1)], &[OTHER]), E::EINVAL, "NotGroup"),
    Done(RESET, Then(&[("count", 1)], &[GROUP]), 0),
];

const OF_GROUP_STRANGER: &[Step] = &[
    Done(C::GroupSetContainer, Fd(IOMMUFD), 0),
    Done(C::GroupGetDeviceFd, NAME, 0),
    Refused(INFO, Then(&[], &[0; 2]), E::ENOSPC, "ListTooShort"),
    Refused(RESET, Then(&[("count", 2)], &[GROUP, CLOSED]), E::EBADF, "ClosedFd"),
    Refused(RESET, Then(&[("count", 1)], &[GROUP]), E::EINVAL, "BusNotOwned"),
];
