//! Serves an unmodified program tree.

#![forbid(unsafe_code)]

mod observer;

pub use observer::{Call, Left, Observer, OpenFile, Thread};
