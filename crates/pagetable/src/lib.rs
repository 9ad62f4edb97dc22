//! Translates I/O virtual addresses while they are being mapped and unmapped.
//!
//! A [`PageTable`] is a radix of 8-byte words, shared by two sides. Any number of readers, each with
//! a [`Reader`], translate inside a [`Walk`] without locks, atomic read-modify-writes or stores that
//! others see often. One [`Mapper`] changes the table; whoever has several threads that map puts it
//! into a lock of his own. The mapper deals in *areas*: runs of pages that were mapped together, can
//! only be unmapped together, and whose boundaries are two bits in the leaf. There is no other record
//! of them.
//!
//! - Who unmaps calls [`Mapper::wait_for_readers`] before he lets go of the memory: no walk then uses
//!   the old translation any more. Once for any number of unmappings.
//! - Automatic placement: [`Mapper::first_fit`], the lowest free place as Linux chooses it.
//! - [`DirtyLog`] notes what devices wrote.
//! - [`format`](mod@format) writes a table out as an IOMMU would read it.
//!
//! Addresses are multiples of 4 KiB here. An address space without page tables may hold areas of odd
//! sizes; those belong elsewhere, and so do the objects behind an area: the table knows an output
//! address and a [tag](Target::tag).
//!
//! Locks: the list of readers and the slab's free list, both leaves. Deliberately absent: ioctls,
//! files, pinning, quotas, reserved ranges (the caller passes the spans that are allowed).

#![forbid(unsafe_code)]

mod dirty;
mod entry;
pub mod format;
mod gaps;
mod mapper;
mod memory;
mod readers;
mod run_summary;
mod table;
mod table_use;
mod tag_use;
mod tree;

pub use dirty::{Clear, DirtyBits, DirtyLog, DirtyReader};
pub use entry::{Permission, Target};
pub use gaps::Fit;
pub use mapper::{Area, InsertError, Mapper, NotWhole, Removed, Retired};
pub use readers::{Readers, Visitor};
pub use table::{Fault, FaultReason, PageTable, Piece, Reader, Walk};
pub use tag_use::TagUse;

/// Binary logarithm of the smallest page, in bytes.
pub const PAGE_LG2: u32 = 12;

/// Binary logarithm of how many entries a table has. Two in loom's model, to keep it small.
const TABLE_LG2: u32 = if cfg!(loom) { 1 } else { 9 };
const TABLE_ENTRIES: usize = 1 << TABLE_LG2;

/// How large a table may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Addresses are below 2 to this power: at least 30, at most 57. With 57, two terabytes of the
    /// process's own addresses are reserved, though no memory.
    pub address_bits: u32,
    /// The largest leaf.
    pub largest_leaf: LeafSize,
    /// How many 4 KiB tables of small pages there may be; each covers 2 MiB.
    pub tables_max: u32,
}

/// 48 bits, all leaf sizes, and room for 2 TiB in small pages.
impl Default for Shape {
    fn default() -> Self {
        Self { address_bits: 48, largest_leaf: LeafSize::Huge, tables_max: 1 << 20 }
    }
}

/// How much one leaf covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeafSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Huge,
}
