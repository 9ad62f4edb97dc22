//! Closed address intervals, maps over them, and the words for them.
//!
//! The words, the same in every crate:
//!
//! | word | is |
//! |---|---|
//! | `start`, `last` | the first and the last byte of a span: `start..=last`, both inside |
//! | `end` | one past the last: open, so it cannot name the top of the address space |
//! | `length` | bytes; never zero in a span |
//! | `index`, `count` | counted from 0; how many |
//! | `offset` | bytes from the start of something named |
//! | `address` | a byte's place where the kind is plain; else `iova` (a device's), `va` (a process's) |
//! | `_lg2` | the binary logarithm of what the name says |
//!
//! Closed, because an IOMMU's aperture may reach the topmost byte, whose open end is not a `u64`.
//!
//! Takes no lock. Knows nothing of memory or devices.

#![forbid(unsafe_code)]

mod interval;
mod map;

pub use interval::Span;
pub use map::SpanMap;
