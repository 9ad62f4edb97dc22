//! Runs code under every interleaving of its threads.
//!
//! Code that shares state only through [`sync`] is run as it ships: each thread of a [`Script`] becomes a
//! coroutine, and before each operation on shared state the explorer decides who goes on. [`explore`] tries
//! all decisions that could make a difference and says that nothing goes wrong, or shows the shortest way
//! to what does: a panic, a deadlock, a wake-up that was lost, an object used after its end.
//!
//! ```
//! use bindery_explore::{Act, Program, Script, Settings, Verdict, explore};
//! use sync::{Mutex, rank::Irq, rank::Memory};
//!
//! struct Account {
//!     money: Mutex<Memory, u32>,
//!     paid: Mutex<Irq, u32>,
//! }
//! // Looks, gives the lock back, and acts on what it saw.
//! let pay = Act::new("pay", |account: &Account| {
//!     let enough = *account.money.lock() >= 10;
//!     if enough {
//!         *account.money.lock() -= 10;
//!         *account.paid.lock() += 1;
//!     }
//! });
//! let account = Program::new(
//!     || Account { money: Mutex::new(15), paid: Mutex::new(0) },
//!     |account| assert_eq!(*account.paid.lock(), 1),
//! );
//! let script = Script::new([vec![pay], vec![pay]]);
//! let report = explore(&account, &script, &Settings::default(), &mut |_| {})?;
//! let Verdict::Counterexample(found) = report.verdict else { panic!("{}", report.verdict) };
//! assert_eq!(found.preemptions, 1);
//! println!("{}", found.schedule);
//! # Ok::<(), bindery_explore::Nondeterminism>(())
//! ```
//!
//! # How it searches
//!
//! By repetition: an execution repeats the moves of the one before up to the last state where another move
//! is left to try. First all interleavings with no preemption, with one, with two: there most of what is
//! wrong shows, and what is found is easiest to follow. Then everything, in which two reductions save what
//! shows nothing new ([`Reduction`]): a *state* is left only once, a state being what all objects hold and
//! what each thread has seen since its call began; and of two orders of steps that commute one is run. A
//! third, [`Reduction::Dpor`], shares nothing with the first and checks it.
//!
//! A counterexample is shrunk: threads and calls are dropped while it stays one. Its [`Schedule`] is text
//! that can be kept; [`Schedule::replay`] runs it again and notices if the program has changed.
//!
//! # What it takes for granted
//!
//! - Sequential consistency, which is what code without data races has.
//! - The code is deterministic but for the order of its steps: no clock, no address in a decision, no
//!   iteration of a hash map. A run that differs is told as [`Nondeterminism`].
//! - All that threads share is behind [`sync`], and so is what a call leaves for the next one of its thread.
//! - A deadline may fire at any moment while it is armed, in any order with others.
//! - The code may not spin: a loop that waits without sleeping has no end, and is told as one.
//!
//! # Deliberately absent
//!
//! No knowledge of what is explored: scenarios, their words and their pictures are elsewhere. No weak memory.
//! No random walks: where a script is too big for all interleavings the bounds on preemptions say what is
//! known.
//!
//! Locks: the workers' queue and the shards of the states seen, each a leaf.

#![forbid(unsafe_code)]

mod course;
mod depth_first;
mod dpor;
mod effect;
mod execution;
mod fingerprint;
mod footprint;
mod frame;
mod learned;
mod model;
mod moves;
mod names;
mod outlook;
mod picture;
mod places;
mod pool;
mod runtime;
mod schedule;
mod search;
mod seen;
mod settings;
mod shrink;
mod sketch;
mod tally;
pub mod timeline;
mod violation;

pub use fingerprint::Fingerprint;
pub use model::{Act, Done, Model, Program, Script};
pub use names::Names;
pub use picture::Event;
pub use pool::{Limit, Progress};
pub use schedule::{BadSchedule, Diverged, Replayed, Schedule};
pub use search::{Counterexample, Report, Verdict, explore};
pub use settings::{Budget, Reduction, Replay, Settings, Steps};
pub use tally::{Counts, Nondeterminism};
pub use violation::{Violation, ViolationKind};
