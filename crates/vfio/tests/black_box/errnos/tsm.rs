//! DEVICE_TSM_BIND and DEVICE_TSM_UNBIND, where the profile has them and where not.

use uapi::Profile;
use vfio::Settings;

use super::*;
use crate::support::Shape;

const BIND: CommandId = C::DeviceTsmBind;
const UNBIND: CommandId = C::DeviceTsmUnbind;

pub(super) const ACTS: &[Act] = &[
    ("the profile of 2025-05", of_2025, HERE),
    ("the profile rfc", World::bound, NOWHERE),
    ("the profile linux-7.3", of_linux, NOWHERE),
    ("a file that is not bound", World::unbound, UNBOUND),
];

fn with_profile(profile: Profile) -> World {
    World::shaped(Shape::default(), Settings { profile, ..Settings::default() }).and_bound()
}

fn of_2025() -> World {
    with_profile(Profile::Rfc2025_05)
}

fn of_linux() -> World {
    with_profile(Profile::Linux73)
}

const HERE: &[Step] = &[
    Refused(BIND, Value(0), E::EFAULT, "Unreachable"),
    Refused(BIND, Struct(&[("argsz", 11), ("flags", 1)]), E::EINVAL, "Argsz"),
    Refused(BIND, Struct(&[("argsz", 12), ("flags", 1), ("vdevice_id", 99)]), E::EINVAL, "Flags"),
    Refused(BIND, Struct(&[("vdevice_id", 99)]), E::ENOENT, "NoObject"),
    // A device's id is no vdevice's.
    Refused(BIND, Struct(&[("vdevice_id", 1)]), E::ENOENT, "NoObject"),
    Refused(UNBIND, Value(0), E::EFAULT, "Unreachable"),
    Refused(UNBIND, Struct(&[("argsz", 7), ("flags", 1)]), E::EINVAL, "Argsz"),
    Refused(UNBIND, Struct(&[("flags", 1)]), E::EINVAL, "Flags"),
    Done(UNBIND, Struct(&[]), 0),
];

const NOWHERE: &[Step] = &[
    Refused(BIND, Value(0), E::ENOTTY, "NoSuchCommand"),
    Refused(UNBIND, Value(0), E::ENOTTY, "NoSuchCommand"),
];

const UNBOUND: &[Step] = &[
    Refused(BIND, Value(0), E::EINVAL, "NotBound"),
    Refused(UNBIND, Value(0), E::EINVAL, "NotBound"),
];
