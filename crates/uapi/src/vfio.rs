//! VFIO: the structs and constants of [uapi/vfio.h], for devices, groups, containers and migration.
//!
//! Commands' structs start with `argsz`, the bytes that the caller provides, payload included; each
//! command has its own least value. Structs keep the kernel's names without the `vfio_` and
//! `vfio_device_` in front. A trailing array is not part of a struct here: it starts at the
//! struct's end. Takes no lock. Deliberately absent: what commands do, and structs of other
//! architectures and buses (sPAPR TCE, EEH, s390).

mod container;
mod device;
mod feature;
mod graphics;
mod group;
mod interrupt;
mod migration;
mod region;
mod reset;

pub use container::*;
pub use device::*;
pub use feature::*;
pub use graphics::*;
pub use group::*;
pub use interrupt::*;
pub use migration::*;
pub use region::*;
pub use reset::*;

use crate::{Constant, Layout};

pub(crate) const LAYOUTS: &[&[&Layout]] = &[
    device::LAYOUTS,
    region::LAYOUTS,
    interrupt::LAYOUTS,
    reset::LAYOUTS,
    feature::LAYOUTS,
    migration::LAYOUTS,
    graphics::LAYOUTS,
    group::LAYOUTS,
    container::LAYOUTS,
];

pub(crate) const CONSTANTS: &[&[Constant]] = &[
    device::CONSTANTS,
    region::CONSTANTS,
    interrupt::CONSTANTS,
    reset::CONSTANTS,
    feature::CONSTANTS,
    migration::CONSTANTS,
    graphics::CONSTANTS,
    group::CONSTANTS,
    container::CONSTANTS,
];
