//! A group's file, and the device's that it gives.

use vfio::{DeviceFile, GroupFile, Refusal};

use super::*;
use crate::support::Stand;

const STATUS: CommandId = C::GroupGetStatus;
const SET: CommandId = C::GroupSetContainer;
const UNSET: CommandId = C::GroupUnsetContainer;
const GET: CommandId = C::GroupGetDeviceFd;
const NAME: &str = "b1d0:02:00.0";
const WITH_TOKEN: &str = "b1d0:02:00.0 vf_token=52ac9bff-3a88-4fbd-901a-0d767c3b6c97";
/// A page of a name without an end.
const ENDLESS: &str = match std::str::from_utf8(&[b'b'; 4096]) {
    Ok(text) => text,
    Err(_) => panic!("text"),
};
/// The operation of `IOMMU_VFIO_IOAS` that clears it.
const CLEAR: u64 = uapi::iommufd::vfio_ioas_op::CLEAR as u64;

pub(super) const ACTS: &[Act] = &[
    ("a group on a context", World::group_on_context, ON_CONTEXT),
    ("a group on a container", World::group_on_type1, ON_TYPE1),
    ("a group whose devices are withdrawn", World::group_withdrawn, WITHDRAWN),
    ("an iommu_group that a context owns", World::group_claimed, CLAIMED),
];

const ON_CONTEXT: &[Step] = &[
    Refused(STATUS, Value(0), E::EFAULT, "Unreachable"),
    Refused(STATUS, Struct(&[("argsz", 7)]), E::EINVAL, "Argsz"),
    Refused(STATUS, ReadOnly(&[]), E::EFAULT, "Unreachable"),
    Done(STATUS, Struct(&[]), 0),
    Refused(UNSET, Value(0), E::EINVAL, "NoContainer"),
    Refused(GET, Value(0), E::EFAULT, "Unreachable"),
    Refused(GET, Text(ENDLESS), E::EINVAL, "NameTooLong"),
    Refused(GET, Text(""), E::ENODEV, "NoSuchDevice"),
    Refused(GET, Text("b1d0:02:00"), E::ENODEV, "NoSuchDevice"),
    Refused(GET, Text("b1d0:02:00.00"), E::ENODEV, "NoSuchDevice"),
    Refused(GET, Text("b1d0:02:00.0 token=x"), E::EINVAL, "DeviceOptions"),
    Refused(GET, Text(WITH_TOKEN), E::EINVAL, "TokenNotTaken"),
    Refused(GET, Text(NAME), E::EINVAL, "NoContainer"),
    Refused(SET, Value(0), E::EFAULT, "Unreachable"),
    Refused(SET, Fd(-1), E::EBADF, "ClosedFd"),
    Refused(SET, Fd(CLOSED), E::EBADF, "ClosedFd"),
    Refused(SET, Fd(OTHER), E::EBADFD, "NotContainer"),
    Done(SET, Fd(IOMMUFD), 0),
    Refused(SET, Fd(CLOSED), E::EBADF, "ClosedFd"),
    Refused(SET, Fd(OTHER), E::EINVAL, "ContainerSet"),
    Refused(SET, Fd(IOMMUFD), E::EINVAL, "ContainerSet"),
    Done(C::VfioIoas, Struct(&[("size", 12), ("op", CLEAR)]), 0),
    Refused(GET, Text(NAME), E::ENODEV, "NoCompatIoas"),
    Done(UNSET, Value(0), 0),
    Done(SET, Fd(IOMMUFD), 0),
    Done(GET, Text(NAME), 0),
    Refused(C::DeviceBindIommufd, Struct(&[("iommufd", 99), ("flags", 2)]), E::EINVAL, "Flags"),
    Refused(C::DeviceBindIommufd, Struct(&[("iommufd", 99), ("flags", 1)]), E::EINVAL, "OfGroup"),
    Refused(C::DeviceAttachIommufdPt, Value(0), E::ENOTTY, "NoSuchCommand"),
    Refused(C::DeviceDetachIommufdPt, Value(0), E::ENOTTY, "NoSuchCommand"),
    // An open device has the context for itself.
    Done(UNSET, Value(0), 0),
];

const ON_TYPE1: &[Step] = &[
    Refused(SET, Fd(OTHER), E::EBADFD, "NotContainer"),
    Done(SET, Fd(CONTAINER), 0),
    Refused(SET, Fd(CONTAINER), E::EINVAL, "ContainerSet"),
    Refused(GET, Text(WITH_TOKEN), E::EINVAL, "TokenNotTaken"),
    Refused(GET, Text(NAME), E::EINVAL, "NoContainerIommu"),
    Done(C::SetIommu, Value(3), 0),
    Done(GET, Text(NAME), 0),
    Refused(UNSET, Value(0), E::EBUSY, "ContainerInUse"),
];

const WITHDRAWN: &[Step] = &[
    Refused(STATUS, Struct(&[("argsz", 7)]), E::EINVAL, "Argsz"),
    Refused(STATUS, Struct(&[]), E::ENODEV, "Withdrawn"),
    Refused(SET, Fd(CLOSED), E::EBADF, "ClosedFd"),
    Refused(SET, Fd(OTHER), E::ENODEV, "Withdrawn"),
    Refused(GET, Text(NAME), E::ENODEV, "NoSuchDevice"),
];

const CLAIMED: &[Step] = &[Refused(SET, Fd(CONTAINER), E::EPERM, "GroupClaimed")];

#[test]
fn who_may_open_what() {
    let stand = Stand::new();
    let refused = |refusal: Refusal, errno| {
        assert_eq!(refusal.errno(), errno);
        refusal
    };
    let group = GroupFile::open(stand.device.group()).unwrap();
    let again = GroupFile::open(stand.device.group()).err().unwrap();
    assert_eq!(refused(again, E::EBUSY), Refusal::GroupInUse);
    group.release();
    let session = stand.bound();
    let bound_alone = GroupFile::open(stand.device.group()).err().unwrap();
    assert_eq!(refused(bound_alone, E::EBUSY), Refusal::GroupInUse);
    assert_eq!(refused(stand.device.reset_unopened().unwrap_err(), E::EBUSY), Refusal::DeviceOpen);
    session.close();
    stand.device.withdraw();
    let group = GroupFile::open(stand.device.group()).err().unwrap();
    assert_eq!(refused(group, E::ENODEV), Refusal::Withdrawn);
    let file = DeviceFile::open(&stand.device, stand.bar_pages()).err().unwrap();
    assert_eq!(refused(file, E::ENODEV), Refusal::Withdrawn);
}
