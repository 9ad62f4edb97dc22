//! System calls that no safe library offers: seccomp filters and their listeners, memory of other
//! processes, their mappings, fork, comparing open files, and signals as values.
//!
//! Each function is one call or one short sequence that makes it safe, with the kernel's own words
//! for what it does. What rustix offers safely is not repeated here. Takes no lock and keeps no
//! state. Absent on purpose: any idea of what the calls are for.

pub mod description;
pub mod mappings;
pub mod memory;
pub mod notify;
pub mod process;
pub mod seccomp;
pub mod signal;
