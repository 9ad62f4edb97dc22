//! Breaks a rule of the shipped code at a time, and shows that the explorer sees it.
//!
//! A *mutant* is a patch of the crates that `bindery explore` explores, in a file of its own beside this crate's manifest.
//! What it says before the patch is read too: the rule that the patch breaks, the scenario in which that shows, and words
//! of what is then wrong.
//!
//! [`Tree`] is a copy of the workspace, cut down to the crates that are explored and to the `judge`, which explores one
//! scenario in them. It becomes one mutant after the other, so that each is compiled as far as it differs.
//!
//! Takes no lock. Deliberately absent: making up mutants. Each stands for a rule that somebody could leave out.

#![forbid(unsafe_code)]

mod mutant;
mod patch;
mod tree;
mod verdict;

pub use mutant::{Mutant, Unusable};
pub use patch::{BadPatch, Patch, Stale};
pub use tree::{Tree, TreeError};
pub use verdict::{Judged, judge};
