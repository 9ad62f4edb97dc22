//! A client with memory of its own, and a platform of two groups behind one IOMMU.

mod before_lock;
mod bound;
pub(crate) mod client;
mod memory;
pub(crate) mod mock_nest;
mod platform;
mod running_out;
mod start;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a device and a wall clock of the tests' own"
)]
mod tee;
pub(crate) mod test_command;

pub(crate) use before_lock::BeforeLock;
pub(crate) use bound::{Confidential, GUEST_ID};
pub(crate) use client::Client;
pub(crate) use memory::{FIRST, MEMORY_BYTES, MEMORY_END, READ_ONLY};
pub(crate) use mock_nest::MockNest;
pub(crate) use platform::{Platform, plain, single_address};
pub(crate) use running_out::RunningOut;
pub(crate) use start::Start;
pub(crate) use tee::{Answers, TIMEOUT_MS, Tee};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// The same, to count what is in memory of our own.
pub(crate) const PAGE_BYTES: usize = 4096;

/// How many cases of so many steps each: `least`, or as many as make up `OPERATIONS` steps.
pub(crate) fn cases(least: u32, steps: u32) -> u32 {
    let operations = std::env::var("OPERATIONS").ok();
    operations.map_or(least, |text| text.parse::<u32>().unwrap().div_ceil(steps))
}
