//! A client with memory of its own, and a platform of two groups behind one IOMMU.

pub(crate) mod client;
mod memory;
mod platform;

pub(crate) use client::Client;
pub(crate) use memory::{MEMORY_BYTES, READ_ONLY};
pub(crate) use platform::{Platform, plain};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// The same, to count what is in memory of our own.
pub(crate) const PAGE_BYTES: usize = 4096;
