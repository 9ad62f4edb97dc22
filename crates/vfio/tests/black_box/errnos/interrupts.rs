//! SET_IRQS, by kind of interrupt and of data.

use uapi::vfio::{irq_index, irq_set};
use vfio::Settings;

use super::*;
use crate::support::Shape;

const SET: CommandId = C::DeviceSetIrqs;
const INTX: u64 = irq_index::INTX as u64;
const MSI: u64 = irq_index::MSI as u64;
const MSIX: u64 = irq_index::MSIX as u64;
const ERR: u64 = irq_index::ERR as u64;
const REQ: u64 = irq_index::REQ as u64;
const NONE: u64 = irq_set::DATA_NONE as u64;
const BOOL: u64 = irq_set::DATA_BOOL as u64;
const FDS: u64 = irq_set::DATA_EVENTFD as u64;
const MASK: u64 = irq_set::ACTION_MASK as u64;
const UNMASK: u64 = irq_set::ACTION_UNMASK as u64;
const TRIGGER: u64 = irq_set::ACTION_TRIGGER as u64;

pub(super) const ACTS: &[Act] = &[
    ("no interrupt is set up", World::bound, COMMON),
    ("the pin", World::bound_and_watched, PIN),
    ("the pin, and nobody watches eventfds", World::bound, PIN_UNWATCHED),
    ("MSI", World::bound, MESSAGES),
    ("MSI-X", World::bound, TABLE),
    ("MSI-X of which the host has one vector", one_vector, TABLE_OF_ONE),
    ("MSI-X of which the host has none", no_vector, TABLE_OF_NONE),
    ("a device without interrupts of its own", without, WITHOUT),
    ("what the host tells", World::bound, HOST),
];

fn limited(vector_limit: u16) -> World {
    let settings = Settings { vector_limit, ..Settings::default() };
    World::shaped(Shape::default(), settings).and_bound()
}

fn one_vector() -> World {
    limited(1)
}

fn no_vector() -> World {
    limited(0)
}

fn without() -> World {
    let shape = Shape { pin: false, msi: false, msix: false, ..Shape::default() };
    World::shaped(shape, Settings::default()).and_bound()
}

/// What is checked before the kind of interrupt matters.
const COMMON: &[Step] = &[
    Refused(SET, Value(0), E::EFAULT, "Unreachable"),
    Refused(SET, Struct(&[("argsz", 19), ("index", 5)]), E::EINVAL, "Argsz"),
    Refused(SET, Struct(&[("index", 5), ("flags", 64)]), E::EINVAL, "NoSuchInterrupt"),
    Refused(SET, Struct(&[("index", MSIX), ("flags", 64), ("start", 8)]), E::EINVAL, "Flags"),
    Refused(SET, Struct(&[("index", MSIX), ("start", 8)]), E::EINVAL, "VectorRange"),
    Refused(SET, Struct(&[("index", MSIX), ("start", 7), ("count", 2)]), E::EINVAL, "VectorRange"),
    Refused(
        SET,
        Struct(&[("index", MSIX), ("start", 1), ("count", TOP)]),
        E::EINVAL,
        "VectorRange",
    ),
    Refused(SET, Struct(&[("index", MSIX), ("count", 1)]), E::EINVAL, "Flags"),
    Refused(SET, Struct(&[("index", MSIX), ("flags", NONE | BOOL)]), E::EINVAL, "Flags"),
    Refused(SET, Struct(&[("index", MSIX), ("flags", BOOL), ("count", 1)]), E::EINVAL, "Argsz"),
    Refused(
        SET,
        Then(&[("index", MSIX), ("flags", FDS), ("count", 2)], &[CLOSED]),
        E::EINVAL,
        "Argsz",
    ),
    Refused(
        SET,
        Cut(&[("argsz", 28), ("index", MSIX), ("flags", FDS), ("count", 2)], 20),
        E::EFAULT,
        "Unreachable",
    ),
    Refused(SET, Struct(&[("index", MSIX), ("flags", NONE)]), E::ENOTTY, "InterruptAction"),
    Refused(
        SET,
        Struct(&[("index", MSIX), ("flags", NONE | TRIGGER | MASK)]),
        E::ENOTTY,
        "InterruptAction",
    ),
    Refused(
        SET,
        Then(&[("index", MSI), ("flags", FDS | MASK), ("count", 1)], &[CLOSED]),
        E::ENOTTY,
        "InterruptAction",
    ),
    Refused(
        SET,
        Struct(&[("index", MSIX), ("flags", NONE | UNMASK), ("count", 1)]),
        E::ENOTTY,
        "InterruptAction",
    ),
    Refused(
        SET,
        Struct(&[("index", ERR), ("flags", NONE | MASK), ("count", 1)]),
        E::ENOTTY,
        "InterruptAction",
    ),
    Refused(
        SET,
        Struct(&[("index", REQ), ("flags", NONE | UNMASK), ("count", 1)]),
        E::ENOTTY,
        "InterruptAction",
    ),
];

const PIN: &[Step] = &[
    Refused(SET, Struct(&[("flags", NONE | MASK), ("count", 1)]), E::EINVAL, "InterruptState"),
    Refused(SET, Struct(&[("flags", NONE | UNMASK), ("count", 1)]), E::EINVAL, "InterruptState"),
    Refused(
        SET,
        Then(&[("flags", FDS | UNMASK), ("count", 1)], &[CLOSED]),
        E::EINVAL,
        "InterruptState",
    ),
    Refused(SET, Struct(&[("flags", NONE | TRIGGER)]), E::EINVAL, "VectorRange"),
    Refused(SET, Struct(&[("flags", FDS | TRIGGER)]), E::EINVAL, "VectorRange"),
    Refused(SET, Struct(&[("flags", NONE | TRIGGER), ("count", 1)]), E::EINVAL, "InterruptState"),
    Refused(
        SET,
        Then(&[("flags", BOOL | TRIGGER), ("count", 1)], &[1]),
        E::EINVAL,
        "InterruptState",
    ),
    Refused(SET, Then(&[("flags", FDS | TRIGGER), ("count", 1)], &[CLOSED]), E::EBADF, "ClosedFd"),
    Refused(
        SET,
        Then(&[("flags", FDS | TRIGGER), ("count", 1)], &[OTHER]),
        E::EINVAL,
        "NotEventfd",
    ),
    Done(SET, Then(&[("flags", FDS | TRIGGER), ("count", 1)], &[EVENTFD]), 0),
    Refused(SET, Struct(&[("flags", NONE | MASK)]), E::EINVAL, "VectorRange"),
    Refused(
        SET,
        Then(&[("flags", FDS | MASK), ("count", 1)], &[CLOSED]),
        E::ENOTTY,
        "InterruptAction",
    ),
    Refused(SET, Struct(&[("flags", NONE | UNMASK)]), E::EINVAL, "VectorRange"),
    Refused(SET, Then(&[("flags", FDS | UNMASK), ("count", 1)], &[CLOSED]), E::EBADF, "ClosedFd"),
    Refused(SET, Then(&[("flags", FDS | UNMASK), ("count", 1)], &[OTHER]), E::EINVAL, "NotEventfd"),
    Done(SET, Then(&[("flags", FDS | UNMASK), ("count", 1)], &[EVENTFD]), 0),
    Refused(SET, Then(&[("flags", FDS | UNMASK), ("count", 1)], &[CLOSED]), E::EBADF, "ClosedFd"),
    Refused(
        SET,
        Then(&[("flags", FDS | UNMASK), ("count", 1)], &[EVENTFD]),
        E::EBUSY,
        "AlreadyWatched",
    ),
    Refused(
        SET,
        Then(&[("index", MSI), ("flags", FDS | TRIGGER), ("count", 1)], &[CLOSED]),
        E::EINVAL,
        "InterruptState",
    ),
    Done(SET, Struct(&[("flags", NONE | TRIGGER)]), 0),
    Refused(SET, Struct(&[("flags", NONE | TRIGGER)]), E::EINVAL, "VectorRange"),
];

const PIN_UNWATCHED: &[Step] = &[
    Done(SET, Then(&[("flags", FDS | TRIGGER), ("count", 1)], &[EVENTFD]), 0),
    Refused(
        SET,
        Then(&[("flags", FDS | UNMASK), ("count", 1)], &[EVENTFD]),
        E::ENOTTY,
        "InterruptAction",
    ),
];

const MESSAGES: &[Step] = &[
    Refused(SET, Struct(&[("index", MSI), ("flags", NONE | TRIGGER)]), E::EINVAL, "InterruptState"),
    Refused(
        SET,
        Struct(&[("index", MSI), ("flags", NONE | TRIGGER), ("count", 1)]),
        E::EINVAL,
        "InterruptState",
    ),
    Refused(
        SET,
        Then(&[("index", MSI), ("flags", BOOL | TRIGGER), ("count", 1)], &[1]),
        E::EINVAL,
        "InterruptState",
    ),
    Refused(SET, Struct(&[("index", MSI), ("flags", FDS | TRIGGER)]), E::ERANGE, "NoVectors"),
    Refused(
        SET,
        Then(&[("index", MSI), ("flags", FDS | TRIGGER), ("count", 2)], &[EVENTFD, CLOSED]),
        E::EBADF,
        "ClosedFd",
    ),
    Refused(
        SET,
        Then(&[("index", MSI), ("flags", FDS | TRIGGER), ("count", 2)], &[EVENTFD, OTHER]),
        E::EINVAL,
        "NotEventfd",
    ),
    Done(SET, Then(&[("index", MSI), ("flags", FDS | TRIGGER), ("count", 1)], &[EVENTFD]), 0),
    Refused(
        SET,
        Then(&[("index", MSI), ("flags", FDS | TRIGGER), ("start", 1), ("count", 1)], &[CLOSED]),
        E::EINVAL,
        "VectorFixed",
    ),
    Refused(
        SET,
        Then(&[("index", MSIX), ("flags", FDS | TRIGGER), ("count", 1)], &[CLOSED]),
        E::EINVAL,
        "InterruptState",
    ),
    Refused(
        SET,
        Then(&[("flags", FDS | TRIGGER), ("count", 1)], &[CLOSED]),
        E::EINVAL,
        "InterruptState",
    ),
    Done(SET, Struct(&[("index", MSI), ("flags", NONE | TRIGGER)]), 0),
    Refused(SET, Struct(&[("index", MSI), ("flags", NONE | TRIGGER)]), E::EINVAL, "InterruptState"),
];

const TABLE: &[Step] = &[
    Refused(SET, Struct(&[("index", MSIX), ("flags", FDS | TRIGGER)]), E::ERANGE, "NoVectors"),
    Refused(
        SET,
        Struct(&[("index", MSIX), ("flags", NONE | TRIGGER), ("count", 1)]),
        E::EINVAL,
        "InterruptState",
    ),
    Done(SET, Then(&[("index", MSIX), ("flags", FDS | TRIGGER), ("count", 1)], &[EVENTFD]), 0),
    Done(
        SET,
        Then(&[("index", MSIX), ("flags", FDS | TRIGGER), ("start", 7), ("count", 1)], &[EVENTFD]),
        0,
    ),
    Refused(
        SET,
        Then(&[("index", MSIX), ("flags", FDS | TRIGGER), ("start", 2), ("count", 1)], &[CLOSED]),
        E::EBADF,
        "ClosedFd",
    ),
    Done(SET, Struct(&[("index", MSIX), ("flags", NONE | TRIGGER)]), 0),
    Refused(
        SET,
        Struct(&[("index", MSIX), ("flags", NONE | TRIGGER)]),
        E::EINVAL,
        "InterruptState",
    ),
];

const TABLE_OF_ONE: &[Step] = &[
    Done(SET, Then(&[("index", MSIX), ("flags", FDS | TRIGGER), ("count", 2)], &[-1, -1]), 1),
    Done(SET, Then(&[("index", MSIX), ("flags", FDS | TRIGGER), ("count", 1)], &[EVENTFD]), 0),
    Refused(
        SET,
        Then(&[("index", MSIX), ("flags", FDS | TRIGGER), ("start", 1), ("count", 1)], &[EVENTFD]),
        E::ENOSPC,
        "VectorsExhausted",
    ),
];

const TABLE_OF_NONE: &[Step] = &[Refused(
    SET,
    Then(&[("index", MSIX), ("flags", FDS | TRIGGER), ("count", 1)], &[CLOSED]),
    E::ENOSPC,
    "VectorsExhausted",
)];

const WITHOUT: &[Step] = &[
    Refused(SET, Struct(&[("index", INTX), ("flags", NONE)]), E::EINVAL, "VectorRange"),
    Refused(SET, Struct(&[("index", MSI), ("flags", NONE)]), E::EINVAL, "VectorRange"),
    Refused(SET, Struct(&[("index", MSIX), ("flags", NONE)]), E::EINVAL, "VectorRange"),
];

const HOST: &[Step] = &[
    Refused(
        SET,
        Struct(&[("index", ERR), ("flags", NONE), ("start", 1)]),
        E::EINVAL,
        "VectorRange",
    ),
    Refused(
        SET,
        Struct(&[("index", REQ), ("flags", NONE), ("count", 2)]),
        E::EINVAL,
        "VectorRange",
    ),
    Refused(SET, Struct(&[("index", ERR), ("flags", NONE | TRIGGER)]), E::EINVAL, "InterruptState"),
    Refused(
        SET,
        Struct(&[("index", REQ), ("flags", NONE | TRIGGER), ("count", 1)]),
        E::EINVAL,
        "InterruptState",
    ),
    Refused(SET, Struct(&[("index", ERR), ("flags", BOOL | TRIGGER)]), E::EINVAL, "VectorRange"),
    Refused(SET, Struct(&[("index", REQ), ("flags", FDS | TRIGGER)]), E::EINVAL, "VectorRange"),
    Refused(
        SET,
        Then(&[("index", ERR), ("flags", FDS | TRIGGER), ("count", 1)], &[-2]),
        E::EINVAL,
        "NegativeFd",
    ),
    Refused(
        SET,
        Then(&[("index", REQ), ("flags", FDS | TRIGGER), ("count", 1)], &[CLOSED]),
        E::EBADF,
        "ClosedFd",
    ),
    Refused(
        SET,
        Then(&[("index", REQ), ("flags", FDS | TRIGGER), ("count", 1)], &[OTHER]),
        E::EINVAL,
        "NotEventfd",
    ),
    Done(SET, Then(&[("index", ERR), ("flags", FDS | TRIGGER), ("count", 1)], &[-1]), 0),
    Done(SET, Then(&[("index", ERR), ("flags", FDS | TRIGGER), ("count", 1)], &[EVENTFD]), 0),
    Done(SET, Struct(&[("index", ERR), ("flags", NONE | TRIGGER), ("count", 1)]), 0),
    Done(SET, Struct(&[("index", ERR), ("flags", NONE | TRIGGER)]), 0),
    Refused(SET, Struct(&[("index", ERR), ("flags", NONE | TRIGGER)]), E::EINVAL, "InterruptState"),
];
