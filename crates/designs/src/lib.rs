//! Designs of the link between an `iommufd_device` and its `iommufd_vdevice`, each a small core over
//! [`sync`], to be explored under all interleavings.
//!
//! They share what no design changes: objects with the kernel's two counts and the table that holds them
//! (`object`), the files that keep a context alive (`world`), and the hardware's view of who is bound
//! (`tsm`). A design is an implementation of `Link`: when the pointers are set and cleared,
//! under which lock, who unbinds. Each file begins with what was proposed and where.
//!
//! | name | file | idea |
//! |---|---|---|
//! | `A`, `A-posted` | `reference_while_bound` | a bound vdevice has one user more |
//! | `B-nested`, `B-dropped`, `B-remove` | `two_locks` | two pointers, two locks, in three readings |
//! | `v3` | `abort` | the device's end aborts the vdevice itself |
//! | `D`, and `D` without one rule | `upstream` | Linux 7.3: counted references, *destroying*, tombstones |
//! | `E` | `upstream` | D, with a bind that holds its references while the device is slow |
//! | `G` | `under_group` | bind inside VDEVICE_ALLOC, under the group's lock |
//! | `template`, `template-held` | `template` | the device's end removes the vdevice: a file to copy for a design of your own |
//!
//! What must not happen is a panic here: [`sync::Life`] finds use after end, the TSM finds a bind too many or
//! one left, and the kernel's own `WARN_ON`s are assertions. A deadlock is the explorer's to find.
//!
//! No design here is served to any program; what is served is the crate `iommufd`, which has none of these
//! switches.

#![forbid(unsafe_code)]

mod abort;
mod link;
mod object;
mod reference_while_bound;
mod rules;
mod template;
mod tsm;
mod two_locks;
mod under_group;
mod upstream;
mod world;

use std::sync::Arc;

pub use rules::Rules;
pub use world::{Call, Outcome, Refused, World};

/// A design, by name.
#[derive(Clone, Copy)]
pub struct Design {
    /// What scenario files call it.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    open: fn(Rules) -> Arc<World>,
}

impl Design {
    /// A context with one bound device, its vdevice, and the files that hold them. Only `D` heeds `rules`.
    pub fn open(&self, rules: Rules) -> Arc<World> {
        (self.open)(rules)
    }

    /// The design of this name.
    pub fn of(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|design| design.name == name)
    }
}

/// Every design.
pub const ALL: &[Design] = &[
    Design {
        name: "A",
        summary: "a user of the vdevice is held while bound; the device's end removes the vdevice",
        open: |_| {
            World::open(
                Box::new(reference_while_bound::ReferenceWhileBound::removing()),
                Rules::BEFORE,
            )
        },
    },
    Design {
        name: "A-posted",
        summary: "a user of the vdevice is held while bound; the device's end knows no vdevice",
        open: |_| {
            World::open(
                Box::new(reference_while_bound::ReferenceWhileBound::posted()),
                Rules::BEFORE,
            )
        },
    },
    Design {
        name: "B-nested",
        summary: "two locks; the vdevice's end takes the group's lock inside its own",
        open: |_| World::open(Box::new(two_locks::TwoLocks::Nested), Rules::BEFORE),
    },
    Design {
        name: "B-dropped",
        summary: "two locks; the vdevice's end gives its own back before it takes the group's",
        open: |_| World::open(Box::new(two_locks::TwoLocks::Dropped), Rules::BEFORE),
    },
    Design {
        name: "B-remove",
        summary: "two locks; the device's end removes the vdevice as IOMMU_DESTROY would",
        open: |_| World::open(Box::new(two_locks::TwoLocks::Remove), Rules::BEFORE),
    },
    Design {
        name: "v3",
        summary: "the device's end aborts the vdevice under the group's lock and frees itself",
        open: |_| World::open(Box::new(abort::Abort), Rules::BEFORE),
    },
    Design {
        name: "D",
        summary: "Linux 7.3: the vdevice holds the device, destroying, tombstones",
        open: |rules| World::open(Box::new(upstream::Upstream { rules }), rules),
    },
    Design {
        name: "E",
        summary: "D, and bind keeps its references while the device does not answer",
        open: |_| World::open(Box::new(upstream::SlowBind), Rules::ALL),
    },
    Design {
        name: "G",
        summary: "bind inside VDEVICE_ALLOC under the group's lock, with a device that does not answer",
        open: |_| World::open(Box::new(under_group::UnderGroup), Rules::ALL),
    },
    Design {
        name: "template",
        summary: "the device's end removes the vdevice, which does not hold it; to be copied",
        open: |_| World::open(Box::new(template::Template { holds: false }), Rules::BEFORE),
    },
    Design {
        name: "template-held",
        summary: "the same, and the vdevice holds its device",
        open: |_| World::open(Box::new(template::Template { holds: true }), Rules::BEFORE),
    },
];
