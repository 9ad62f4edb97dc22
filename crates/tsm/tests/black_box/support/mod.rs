//! A machine with TEE devices, a clock that is told when to go, and devices that do as they are told.

mod clock;
mod device;
mod machine;
mod secure;

use sync::Rank;

pub(crate) use clock::Clock;
pub(crate) use device::{Answers, Device};
pub(crate) use machine::{
    Counting, Heard, Machine, NoMemory, ORDINARY, OTHER, PF, TIMEOUT_MS, VF1, VF2, VM, settings,
    wait_until,
};

pub(crate) use secure::{Shown, Spoil, secure, secure_as};

/// A lock that nobody may take while holding another.
pub(crate) enum Outermost {}

impl Rank for Outermost {
    const ORDER: u8 = 0;
    const NAME: &'static str = "Outermost";
}
