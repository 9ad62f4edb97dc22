//! Serves an unmodified program tree.

#![forbid(unsafe_code)]

pub mod control;
mod findings;
mod observer;
mod trace;

pub use findings::{ReportOptions, Reports, TraceTo, Unwritable};
pub use observer::{Call, Left, Observer, OpenFile, Thread};
pub use trace::Tap;
