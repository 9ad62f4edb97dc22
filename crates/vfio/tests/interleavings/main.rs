//! VFIO's files under all interleavings of calls on them.

#![expect(clippy::disallowed_types, reason = "what only the owner of a turn touches")]

extern crate bindery_vfio as vfio;

mod argument;
mod bare;
mod dma_bufs;
mod exhaustive;
mod groups;
mod ioeventfds;
