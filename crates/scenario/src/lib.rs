//! Scenarios: a few threads that make calls on device files, told in words, and what may come out.
//!
//! [`words`] is the one table of calls; [`script`] is the form on one line, [`file`](mod@file) the form in
//! TOML; [`stand`] is the machine of the shipped crates that they are made on, [`run`](mod@run) explores them, and
//! [`call_memory`] is what a client of this process brings to a call. [`mod@c_program`] makes the same calls in C. Mistakes
//! carry line and column.

#![forbid(unsafe_code)]

pub mod c_program;
pub mod call_memory;
pub mod exhaust;
pub mod file;
pub mod generate;
mod mistake;
mod models;
pub mod run;
pub mod script;
pub mod stand;
pub mod words;

pub use file::{Scenario, Verdict};
pub use mistake::Mistake;
pub use models::{Planned, Shipped};
pub use script::{Outcome, Step, Threads};
pub use words::{Call, Object, Verb, WordError};
