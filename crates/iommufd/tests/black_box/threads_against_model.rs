//! Threads at once, each answer compared with what a model allows.
//!
//! In windows of one address space each thread has a model of its own, and each answer is that model's, whatever devices come
//! and go. Where one thread copies what another maps and unmaps, the answers must be those of some order of the commands that
//! keeps to what ended before what began. `OPERATIONS` says how much of it.

mod copies;
mod windows;

use proptest::test_runner::{Config, TestRunner};

use crate::support::cases;

/// How many steps each thread takes at most.
const STEPS: usize = 160;
const THREADS: usize = 2;
/// Where memory that is mapped begins.
const VA: u64 = 0x10_0000;
const IOVA: u64 = 0x100_0000;

/// What runs as many rounds as make up the operations asked for. Schedules do not repeat, so none is made smaller.
fn rounds() -> TestRunner {
    let operations = u32::try_from(STEPS / 2 * THREADS).unwrap();
    TestRunner::new(Config { max_shrink_iters: 0, ..Config::with_cases(cases(24, operations)) })
}
