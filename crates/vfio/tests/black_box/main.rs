//! Device files from the outside, driven by a client in this process.

extern crate bindery_vfio as vfio;

mod bind;
mod close;
mod command_table;
mod config_space;
mod dma_bufs;
mod engine;
mod errnos;
mod exhaustion;
mod features;
mod groups;
mod infos;
mod interrupts;
mod ioeventfds;
mod regions;
mod resets;
mod stress;
mod support;
mod surprises;
mod tdi;
