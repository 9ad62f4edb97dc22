//! `/dev/iommu`: the structs and constants of [uapi/iommufd.h].
//!
//! Every command's struct starts with `size`, the bytes that the caller knows of it. Structs keep
//! the kernel's names without the `iommu_` in front. Takes no lock. Deliberately absent: what
//! commands do, and in which order they refuse.

mod address_space;
mod event;
mod hardware;
mod page_table;
mod test_command;
mod tsm;
mod viommu;

pub use address_space::*;
pub use event::*;
pub use hardware::*;
pub use page_table::*;
pub use test_command::*;
pub use tsm::*;
pub use viommu::*;

use crate::{Constant, Layout};

pub(crate) const LAYOUTS: &[&[&Layout]] = &[
    address_space::LAYOUTS,
    page_table::LAYOUTS,
    hardware::LAYOUTS,
    event::LAYOUTS,
    viommu::LAYOUTS,
    tsm::LAYOUTS,
    test_command::LAYOUTS,
];

pub(crate) const CONSTANTS: &[&[Constant]] = &[
    address_space::CONSTANTS,
    page_table::CONSTANTS,
    hardware::CONSTANTS,
    event::CONSTANTS,
    viommu::CONSTANTS,
    tsm::CONSTANTS,
    test_command::CONSTANTS,
];
