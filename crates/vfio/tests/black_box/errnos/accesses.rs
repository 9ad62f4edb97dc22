//! Reads and writes of regions, ioeventfds, and mappings.

use vfio::MapRequest;

use super::*;
use crate::support::{ARGUMENT, READ_ONLY, Stand, TABLE_AT};

/// Where the client has bytes: zeros.
const AT: u64 = ARGUMENT + 0x8000;
const UNMAPPED: u64 = 0x7000_0000_0000;

const fn at(region: u64, offset: u64) -> u64 {
    vfio::REGION_BASE + (region << vfio::REGION_SHIFT) + offset
}

const ROM: u64 = 6;
const CONFIG: u64 = 7;
const VGA: u64 = 8;
/// The COMMAND register.
const COMMAND: u64 = at(CONFIG, 4);

pub(super) const ACTS: &[Act] = &[
    ("a file that is not bound", World::unbound, UNBOUND),
    ("a device that is bound", World::bound, BOUND),
    ("eventfds that are watched", World::bound_and_watched, IOEVENTFDS),
    ("eventfds that nobody watches", World::bound, UNWATCHED),
];

const UNBOUND: &[Step] =
    &[Read(0, 0, 0, Err((E::EINVAL, "NotBound"))), Write(0, 0, 0, Err((E::EINVAL, "NotBound")))];

const BOUND: &[Step] = &[
    Read(0, UNMAPPED, at(VGA, 0), Ok(0)),
    Write(0, UNMAPPED, at(VGA, 0), Ok(0)),
    Read(1, UNMAPPED, 0, Err((E::EINVAL, "NoSuchRegion"))),
    Read(1, UNMAPPED, at(VGA, 0), Err((E::EINVAL, "NoSuchRegion"))),
    Write(1, UNMAPPED, at(9, 0), Err((E::EINVAL, "NoSuchRegion"))),
    Read(1, UNMAPPED, at(CONFIG, 4096), Err((E::EFAULT, "OutsideConfig"))),
    Read(2, UNMAPPED, at(CONFIG, 4095), Err((E::EFAULT, "OutsideConfig"))),
    Write(2, UNMAPPED, at(CONFIG, 4095), Err((E::EFAULT, "OutsideConfig"))),
    Read(1, UNMAPPED, at(CONFIG, 4095), Err((E::EFAULT, "Unreachable"))),
    Write(1, UNMAPPED, at(CONFIG, 4095), Err((E::EFAULT, "Unreachable"))),
    Read(1, UNMAPPED, at(ROM, 0), Err((E::EINVAL, "OutsideRegion"))),
    Write(1, UNMAPPED, at(ROM, 0), Err((E::EINVAL, "ReadOnlyRegion"))),
    Read(1, UNMAPPED, at(1, 0), Err((E::EINVAL, "OutsideRegion"))),
    // Decoding is off until the client turns it on.
    Read(1, UNMAPPED, at(2, 0x1000), Err((E::EINVAL, "OutsideRegion"))),
    Write(1, UNMAPPED, at(2, 0x1000), Err((E::EINVAL, "OutsideRegion"))),
    Write(2, AT, COMMAND, Ok(2)),
    Read(1, UNMAPPED, at(2, 0), Err((E::EIO, "NotDecoded"))),
    Write(1, UNMAPPED, at(2, 0), Err((E::EIO, "NotDecoded"))),
    Read(1, UNMAPPED, at(4, 0), Err((E::EFAULT, "Unreachable"))),
    Read(2, READ_ONLY, at(CONFIG, 0), Err((E::EFAULT, "Unreachable"))),
    Read(0x21, AT, at(4, 0), Ok(0x20)),
    Write(0x21, AT, at(4, 0), Ok(0x20)),
];

const IOEVENTFD: CommandId = C::DeviceIoeventfd;
const BAD: u64 = CLOSED as u64;

const IOEVENTFDS: &[Step] = &[
    Refused(IOEVENTFD, Value(0), E::EFAULT, "Unreachable"),
    Refused(IOEVENTFD, Struct(&[("argsz", 27), ("flags", 3)]), E::EINVAL, "Argsz"),
    Refused(IOEVENTFD, Struct(&[("flags", 3), ("fd", TOP - 1)]), E::EINVAL, "Flags"),
    Refused(IOEVENTFD, Struct(&[("flags", 16), ("fd", TOP - 1)]), E::EINVAL, "Flags"),
    Refused(IOEVENTFD, Struct(&[("fd", TOP - 1)]), E::EINVAL, "Flags"),
    Refused(IOEVENTFD, Struct(&[("flags", 4), ("fd", TOP - 1)]), E::EINVAL, "NegativeFd"),
    Refused(IOEVENTFD, Struct(&[("flags", 4), ("fd", BAD)]), E::EINVAL, "NotBar"),
    Refused(
        IOEVENTFD,
        Struct(&[("flags", 4), ("fd", BAD), ("offset", at(CONFIG, 0))]),
        E::EINVAL,
        "NotBar",
    ),
    Refused(
        IOEVENTFD,
        Struct(&[("flags", 4), ("fd", BAD), ("offset", at(2, 0xffd))]),
        E::EINVAL,
        "OutsideRegion",
    ),
    Refused(
        IOEVENTFD,
        Struct(&[("flags", 4), ("fd", BAD), ("offset", at(0, TABLE_AT - 1))]),
        E::EINVAL,
        "OverMsixTable",
    ),
    Refused(
        IOEVENTFD,
        Struct(&[("flags", 4), ("fd", TOP), ("offset", at(2, 0))]),
        E::ENODEV,
        "NoIoeventfd",
    ),
    Refused(
        IOEVENTFD,
        Struct(&[("flags", 4), ("fd", BAD), ("offset", at(2, 0))]),
        E::EBADF,
        "ClosedFd",
    ),
    Refused(
        IOEVENTFD,
        Struct(&[("flags", 4), ("fd", OTHER as u64), ("offset", at(2, 0))]),
        E::EINVAL,
        "NotEventfd",
    ),
    Done(IOEVENTFD, Struct(&[("flags", 4), ("fd", EVENTFD as u64), ("offset", at(2, 0))]), 0),
    Refused(
        IOEVENTFD,
        Struct(&[("flags", 4), ("fd", BAD), ("offset", at(2, 0))]),
        E::EEXIST,
        "IoeventfdExists",
    ),
    Refused(
        IOEVENTFD,
        Struct(&[("flags", 8), ("fd", TOP), ("offset", at(2, 0))]),
        E::ENODEV,
        "NoIoeventfd",
    ),
    Done(IOEVENTFD, Struct(&[("flags", 4), ("fd", TOP), ("offset", at(2, 0))]), 0),
];

const UNWATCHED: &[Step] = &[Refused(
    IOEVENTFD,
    Struct(&[("flags", 4), ("fd", EVENTFD as u64), ("offset", at(2, 0))]),
    E::ENOMEM,
    "OutOfMemory",
)];

/// What is mapped has no caller that could be told a reason.
#[test]
fn what_cannot_be_mapped_is_invalid() {
    let shared = MapRequest { shared: true, read: true, write: true, exec: false };
    let private = MapRequest { shared: false, ..shared };
    let stand = Stand::new();
    let file = stand.open();
    assert_eq!(file.mmap(at(2, 0), 0x1000, shared), Err(E::EINVAL), "not bound");
    file.release();
    let session = stand.bound();
    for (offset, length, request, what) in [
        (at(2, 0), 0x1000, private, "private"),
        (at(2, 0), 0x2000, shared, "past the end"),
        (at(2, 0), 0, shared, "nothing"),
        (at(2, 0), u64::MAX, shared, "past the top"),
        (at(3, 0), 0x1000, shared, "less than a page"),
        (at(4, 0), 0x1000, shared, "of ports"),
        (at(1, 0), 0x1000, shared, "no BAR"),
        (at(ROM, 0), 0x1000, shared, "the ROM"),
        (at(CONFIG, 0), 0x1000, shared, "config space"),
        (at(VGA, 0), 0x1000, shared, "VGA"),
        (at(9, 0), 0x1000, shared, "no region"),
        (0, 0x1000, shared, "below all regions"),
    ] {
        assert_eq!(session.file.mmap(offset, length, request), Err(E::EINVAL), "{what}");
    }
    assert_eq!(session.file.mmap(at(2, 0), 0x1000, shared), Ok(()));
    session.close();
}
