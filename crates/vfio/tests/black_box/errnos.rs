//! The errnos of each command on VFIO's files, in the order of its checks: a step is wrong in all that the steps below it
//! check, too.
//!
//! A step names the number and the reason, for most reasons are `EINVAL`. What runs out is in `exhaustion`. Source:
//! [uapi/vfio.h]; v7.3 `drivers/vfio`: `vfio_main.c`, `device_cdev.c`, `group.c`, `container.c`, `vfio_iommu_type1.c`,
//! `pci/vfio_pci_core.c`, `pci/vfio_pci_intrs.c`, `pci/vfio_pci_rdwr.c`, `pci/vfio_pci_config.c`.

mod accesses;
mod bonds;
mod containers;
mod features;
mod groups;
mod infos;
mod interrupts;
mod reasons;
mod resets;
mod tsm;
mod world;

use std::collections::BTreeSet;

use uapi::vfio::{feature_flags, feature_id};
use uapi::{COMMANDS, CommandId, Errno, FileKind};

use crate::support::ARGUMENT;

use world::World;

use CommandId as C;
use Errno as E;
use Given::{Cut, Fd, ReadOnly, Struct, Text, Then, Value};
use Step::{Done, Read, Refused, Write};

/// One call on a world.
#[derive(Debug)]
enum Step {
    /// A command that is refused with that number, for that reason, and changes nothing.
    Refused(CommandId, Given, Errno, &'static str),
    /// One that succeeds with that answer, for the sake of those that follow.
    Done(CommandId, Given, u32),
    /// So many bytes, to there in the client's memory, from that position of the device's file.
    Read(u64, u64, u64, Result<u64, (Errno, &'static str)>),
    /// So many bytes, from there in the client's memory, to that position.
    Write(u64, u64, u64, Result<u64, (Errno, &'static str)>),
}

/// A command's argument.
#[derive(Debug)]
enum Given {
    /// The argument itself.
    Value(u64),
    /// A struct with these fields; `argsz` is its size if not told, all else is zero.
    Struct(Fields),
    /// A struct, and what follows it.
    Then(Fields, &'static [i32]),
    /// A struct that cannot be written.
    ReadOnly(Fields),
    /// A struct of which so many bytes can be read.
    Cut(Fields, u64),
    /// A descriptor in memory.
    Fd(i32),
    /// Text in memory, with a zero at its end.
    Text(&'static str),
}

/// By the names in C.
type Fields = &'static [(&'static str, u64)];

/// A state of things, and what is tried in it one after the other.
type Act = (&'static str, fn() -> World, &'static [Step]);

const FAMILIES: &[&[Act]] = &[
    bonds::ACTS,
    infos::ACTS,
    interrupts::ACTS,
    accesses::ACTS,
    resets::ACTS,
    features::ACTS,
    tsm::ACTS,
    groups::ACTS,
    containers::ACTS,
];

// What each world has.
const IOMMUFD: i32 = 4;
const EVENTFD: i32 = 5;
const OTHER: i32 = 6;
const GROUP: i32 = 7;
const CONTAINER: i32 = 8;
const CLOSED: i32 = 99;
/// A physical function's token, as words, and where it lies in memory.
const TOKEN: [i32; 4] = [0x0101_0101; 4];
const TOKEN_AT: u64 = ARGUMENT + 0x100;
/// The feature that sets it.
const SET_TOKEN: u64 = (feature_id::PCI_VF_TOKEN | feature_flags::SET) as u64;
/// A descriptor of -1, and more than there is of anything.
const TOP: u64 = u64::MAX;

fn acts() -> impl Iterator<Item = &'static Act> {
    FAMILIES.iter().copied().flatten()
}

#[test]
fn each_command_refuses_in_the_kernels_order_and_changes_nothing() {
    let mut others = Vec::new();
    for (name, world, steps) in acts() {
        let mut world = world();
        for (number, step) in steps.iter().enumerate() {
            if let Err(answer) = world.play(step) {
                others.push(format!("{name} {number}: {step:x?} answered {answer:?}"));
            }
        }
        world.end();
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[test]
fn each_command_has_steps() {
    // No file of ours is a migration's data.
    let files = [FileKind::VfioDevice, FileKind::VfioGroup, FileKind::VfioContainer];
    let tried = |step: &Step, id| match step {
        Refused(tried, ..) | Done(tried, ..) => *tried == id,
        Read(..) | Write(..) => false,
    };
    let without: BTreeSet<_> = COMMANDS
        .iter()
        .filter(|command| files.contains(&command.file))
        .filter(|command| {
            !acts().any(|(.., steps)| steps.iter().any(|step| tried(step, command.id)))
        })
        .map(|command| command.name)
        .collect();
    assert_eq!(without, BTreeSet::new());
}
