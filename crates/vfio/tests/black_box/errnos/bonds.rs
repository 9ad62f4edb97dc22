//! BIND_IOMMUFD, ATTACH and DETACH.

use vfio::{Settings, VirtualFunction};

use super::*;
use crate::support::{ARGUMENT, Shape};

const BIND: CommandId = C::DeviceBindIommufd;
const ATTACH: CommandId = C::DeviceAttachIommufdPt;
const DETACH: CommandId = C::DeviceDetachIommufdPt;
const FD: u64 = IOMMUFD as u64;
const BAD: u64 = CLOSED as u64;
/// The device, and the IOAS.
const DEVICE: u64 = 1;
const IOAS: u64 = 2;
const MISSING: u64 = 99;
/// The flag of BIND for a token, of the others for a PASID.
const MORE: u64 = 1;

pub(super) const ACTS: &[Act] = &[
    ("a file that is not bound", World::unbound, UNBOUND),
    ("a file that is bound", World::bound, BOUND),
    ("a device that takes PASIDs", World::bound_with_pasids, PASIDS),
    ("a device that is bound through another file", World::bound_elsewhere, ELSEWHERE),
    ("a group that is open", World::group_open, GROUP_OPEN),
    ("an iommu_group that another context owns", World::group_owned_elsewhere, OWNED),
    ("an IOMMU that does not isolate interrupts", World::unbound_not_isolated, NOT_ISOLATED),
    ("a virtual function that the host made", virtual_function, VIRTUAL),
    ("a virtual function that vfio-pci made", World::unbound_virtual, VIRTUAL_OF_VFIO),
];

fn virtual_function() -> World {
    let shape = Shape { virtual_function: true, ..Shape::default() };
    let made_by = VirtualFunction { vendor_id: 0x1234, device_id: 0x5679 };
    World::shaped(shape, Settings { virtual_function: Some(made_by), ..Settings::default() })
}

const UNBOUND: &[Step] = &[
    Refused(C::DeviceGetInfo, Value(0), E::EINVAL, "NotBound"),
    Refused(C::DeviceReset, Value(0), E::EINVAL, "NotBound"),
    Refused(C::DeviceQueryGfxPlane, Value(0), E::EINVAL, "NotBound"),
    Refused(ATTACH, Value(0), E::EINVAL, "NotBound"),
    Refused(BIND, Value(0), E::EFAULT, "Unreachable"),
    Refused(BIND, Then(&[("argsz", 15), ("iommufd", TOP)], &[1]), E::EINVAL, "Argsz"),
    Refused(BIND, Then(&[("iommufd", TOP)], &[1]), E::E2BIG, "DirtyTail"),
    Refused(BIND, Cut(&[("iommufd", TOP)], 16), E::EFAULT, "Unreachable"),
    Refused(BIND, Struct(&[("iommufd", TOP), ("flags", 2)]), E::EINVAL, "NegativeFd"),
    Refused(BIND, Struct(&[("iommufd", BAD), ("flags", 2)]), E::EINVAL, "Flags"),
    Refused(BIND, Struct(&[("iommufd", BAD), ("flags", MORE)]), E::EFAULT, "Unreachable"),
    Refused(
        BIND,
        Struct(&[("iommufd", BAD), ("flags", MORE), ("token_uuid_ptr", ARGUMENT)]),
        E::EINVAL,
        "TokenNotTaken",
    ),
    Refused(BIND, Struct(&[("iommufd", BAD)]), E::EBADF, "ClosedFd"),
    Refused(BIND, Struct(&[("iommufd", OTHER as u64)]), E::EBADFD, "NotIommufd"),
    Refused(BIND, ReadOnly(&[("iommufd", FD)]), E::EFAULT, "Unreachable"),
    Done(BIND, Struct(&[("iommufd", FD), ("argsz", 16)]), 0),
];

const BOUND: &[Step] = &[
    Refused(BIND, Struct(&[("iommufd", BAD), ("flags", 2)]), E::EINVAL, "Flags"),
    Refused(BIND, Struct(&[("iommufd", BAD), ("flags", MORE)]), E::EINVAL, "FileBound"),
    Refused(ATTACH, Value(0), E::EFAULT, "Unreachable"),
    Refused(ATTACH, Struct(&[("argsz", 11), ("flags", 2)]), E::EINVAL, "Argsz"),
    Refused(ATTACH, Struct(&[("flags", 2), ("pt_id", MISSING)]), E::EINVAL, "Flags"),
    Refused(ATTACH, Cut(&[("flags", MORE), ("pt_id", MISSING)], 12), E::EFAULT, "Unreachable"),
    Refused(
        ATTACH,
        Struct(&[("argsz", 15), ("flags", MORE), ("pt_id", MISSING)]),
        E::EINVAL,
        "Argsz",
    ),
    Refused(ATTACH, Struct(&[("pt_id", MISSING)]), E::ENOENT, "NoObject"),
    Refused(ATTACH, Struct(&[("pt_id", DEVICE)]), E::EINVAL, "OtherType"),
    Refused(ATTACH, Struct(&[("flags", MORE), ("pt_id", MISSING)]), E::ENOENT, "NoObject"),
    // As any page table that is made automatically.
    Refused(ATTACH, Struct(&[("flags", MORE), ("pt_id", IOAS), ("pasid", 5)]), E::EINVAL, "Pasid"),
    Refused(ATTACH, ReadOnly(&[("pt_id", IOAS)]), E::EFAULT, "Unreachable"),
    Refused(DETACH, Value(0), E::EFAULT, "Unreachable"),
    Refused(DETACH, Struct(&[("argsz", 7), ("flags", 2)]), E::EINVAL, "Argsz"),
    Refused(DETACH, Struct(&[("argsz", 8), ("flags", 2)]), E::EINVAL, "Flags"),
    Refused(DETACH, Cut(&[("flags", MORE)], 8), E::EFAULT, "Unreachable"),
    Refused(DETACH, Struct(&[("argsz", 11), ("flags", MORE)]), E::EINVAL, "Argsz"),
    Done(DETACH, Struct(&[]), 0),
    Done(DETACH, Struct(&[("flags", MORE), ("pasid", 7)]), 0),
    Done(ATTACH, Struct(&[("pt_id", IOAS)]), 0),
    Refused(ATTACH, Struct(&[("pt_id", MISSING)]), E::ENOENT, "NoObject"),
];

/// Page tables for PASIDs, and for none.
const WITH: u64 = 3;
const WITHOUT: u64 = 4;
const FOR_PASIDS: u64 = uapi::iommufd::hwpt_flags::PASID as u64;

const PASIDS: &[Step] = &[
    Done(C::HwptAlloc, Struct(&[("flags", FOR_PASIDS), ("dev_id", DEVICE), ("pt_id", IOAS)]), 0),
    Done(C::HwptAlloc, Struct(&[("dev_id", DEVICE), ("pt_id", IOAS)]), 0),
    attach_refused(&[("flags", MORE), ("pt_id", MISSING), ("pasid", 256)], E::ENOENT, "NoObject"),
    attach_refused(&[("flags", MORE), ("pt_id", DEVICE), ("pasid", 256)], E::EINVAL, "OtherType"),
    attach_refused(&[("flags", MORE), ("pt_id", IOAS), ("pasid", 5)], E::EINVAL, "Pasid"),
    attach_refused(&[("flags", MORE), ("pt_id", WITHOUT), ("pasid", 5)], E::EINVAL, "Pasid"),
    attach_refused(&[("flags", MORE), ("pt_id", WITH), ("pasid", 256)], E::EINVAL, "Pasid"),
    attach_refused(&[("flags", MORE), ("pt_id", WITH)], E::EINVAL, "Pasid"),
    Done(ATTACH, Struct(&[("pt_id", WITHOUT)]), 0),
    // What bears no PASID goes through a page table for none.
    attach_refused(&[("flags", MORE), ("pt_id", WITH), ("pasid", 5)], E::EINVAL, "Pasid"),
    Done(ATTACH, Struct(&[("pt_id", WITH)]), 0),
    Done(ATTACH, Struct(&[("flags", MORE), ("pt_id", WITH), ("pasid", 5)]), 0),
    attach_refused(&[("pt_id", WITHOUT)], E::EINVAL, "Pasid"),
    attach_refused(&[("pt_id", IOAS)], E::EINVAL, "Pasid"),
    Done(DETACH, Struct(&[("flags", MORE), ("pasid", 5)]), 0),
    Done(DETACH, Struct(&[("flags", MORE), ("pasid", 5)]), 0),
    Done(ATTACH, Struct(&[("pt_id", WITHOUT)]), 0),
];

const fn attach_refused(fields: Fields, errno: Errno, why: &'static str) -> Step {
    Refused(ATTACH, Struct(fields), errno, why)
}

const ELSEWHERE: &[Step] = &[
    Refused(BIND, Struct(&[("iommufd", BAD)]), E::EBADF, "ClosedFd"),
    Refused(BIND, Struct(&[("iommufd", FD)]), E::EINVAL, "DeviceBound"),
];

const GROUP_OPEN: &[Step] = &[
    Refused(BIND, Struct(&[("iommufd", TOP)]), E::EINVAL, "NegativeFd"),
    Refused(BIND, Struct(&[("iommufd", BAD), ("flags", MORE)]), E::EBUSY, "GroupInUse"),
];

const OWNED: &[Step] = &[Refused(BIND, Struct(&[("iommufd", FD)]), E::EPERM, "OwnedElsewhere")];

const NOT_ISOLATED: &[Step] =
    &[Refused(BIND, Struct(&[("iommufd", FD)]), E::EPERM, "MsiNotIsolated")];

const VIRTUAL: &[Step] = &[
    Refused(
        BIND,
        Struct(&[("iommufd", BAD), ("flags", MORE), ("token_uuid_ptr", ARGUMENT)]),
        E::EINVAL,
        "TokenNotTaken",
    ),
    Refused(BIND, Struct(&[("iommufd", BAD)]), E::EBADF, "ClosedFd"),
];

const VIRTUAL_OF_VFIO: &[Step] = &[
    Refused(BIND, Struct(&[("iommufd", BAD), ("flags", MORE)]), E::EFAULT, "Unreachable"),
    Refused(BIND, Struct(&[("iommufd", BAD)]), E::EACCES, "TokenMissing"),
    Refused(
        BIND,
        Struct(&[("iommufd", BAD), ("flags", MORE), ("token_uuid_ptr", TOKEN_AT + 16)]),
        E::EACCES,
        "TokenWrong",
    ),
    Refused(
        BIND,
        Struct(&[("iommufd", BAD), ("flags", MORE), ("token_uuid_ptr", TOKEN_AT)]),
        E::EBADF,
        "ClosedFd",
    ),
];
