//! Serves an unmodified program tree: what the program opens, asks and maps of the devices of a
//! [`Platform`], while all else of it runs on the machine's own kernel.
//!
//! | file | what lives there |
//! |---|---|
//! | `run`, `guard`, `serve`, `start`, `link`, `descendants` | three processes: guard, supervisor, program |
//! | `filter`, `listener`, `requests` | which calls come to us, who receives them, what they mean |
//! | `front_end`, `files`, `closes`, `reach` | what is open, when it is released, and who waits for that |
//! | `process`, `caller`, `memory`, `file_memory`, `eventfds`, `vms`, `watch` | the program's side of a command |
//! | `platform`, `machine`, `workers`, `clock`, `entropy` | the devices, described, built and running |
//! | `overlay` | the paths under which they are found |
//! | `observer`, `trace`, `findings`, `control`, `ledger` | what is told to people |
//!
//! # Locks
//!
//! `closes` is held while it is asked what a release will change, and so around locks of `vfio`, `iommufd` and
//! `tsm`. All others are leaves. None is held while a file is released or a command runs.

#![forbid(unsafe_code)]

mod caller;
mod capabilities;
pub mod clock;
mod closes;
pub mod control;
mod descendants;
mod entropy;
mod eventfds;
mod fail_nth;
mod file_memory;
mod files;
mod filter;
mod findings;
mod front_end;
mod guard;
mod kept_memory;
pub mod ledger;
mod link;
mod listener;
mod locked_memory;
pub mod machine;
mod memory;
mod observer;
pub mod overlay;
pub mod platform;
mod process;
mod reach;
mod requests;
mod run;
mod serve;
mod start;
mod trace;
mod vms;
mod watch;
mod workers;

pub use control::function_rows;
pub use findings::{ReportOptions, Reports, TraceTo, Unwritable};
pub use observer::{Call, Left, Observer, OpenFile, Thread};
pub use platform::{DEFAULT_TOML, Platform, device_help};
pub use run::{ExitStatus, OUR_FAILURE, Options, RunError, run};
pub use trace::Tap;
