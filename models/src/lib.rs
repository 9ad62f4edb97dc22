//! Oracles: models that are slow and obvious, for tests to compare the real crates with.
//!
//! Nothing here shares code with what it judges. Takes no lock. Deliberately absent: speed, threads, anything
//! that a shipped crate would use.

#![forbid(unsafe_code)]

mod address_space;
mod first_stage;
mod pin_ledger;
mod spaces;
mod stage_1;

pub use address_space::{AddressSpace, Outcome, Place};
pub use first_stage::{FirstStage, Walked, Words};
pub use pin_ledger::PinLedger;
pub use spaces::{Access, Spaces, Table, Target, Why};
pub use stage_1::{Stage1Fault, Stage1Led, stage_1};
