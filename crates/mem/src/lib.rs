//! Bytes shared with other processes, the few system calls that go with them, and a switch of stacks.
//!
//! - [`Pages`]: shared memory whose length cannot shrink, so that it is copied by plain loads and
//!   stores. Other processes may write it at any moment.
//! - [`Window`]: a file that may shrink under us, copied by system calls that answer with an error.
//! - [`membarrier`]: a memory barrier on every thread of the process.
//! - [`futex`]: sleeping on a word that may lie in shared memory.
//! - [`SparseWords`]: a long array of atomic words of which little is used.
//! - [`coroutine`]: code on a stack of its own, switched within one OS thread.
//! - [`store_series`]: many atomic words written at once.
//! - [`TableSlab`]: 512-entry tables of atomic words, named by index.
//!
//! One of the two crates that hold `unsafe` code; each module opts in and says what for. Callers see
//! none of it. What the bytes mean is not known here.
//!
//! Takes no lock that is held on return; [`TableSlab`] has one inside, a leaf.

mod copy;
pub mod coroutine;
pub mod futex;
mod mapping;
mod membarrier;
mod pages;
mod series;
mod slab;
mod sparse;
mod window;

pub use membarrier::membarrier;
pub use pages::{Pages, SealError};
pub use series::store_series;
pub use slab::{TABLE_ENTRIES, TableSlab};
pub use sparse::SparseWords;
pub use window::{Vanished, Window};
