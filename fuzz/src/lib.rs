//! What the fuzz targets run: one module each, with `run(bytes)` that panics on a fault.
//!
//! | target | input is | must hold |
//! |---|---|---|
//! | [`commands`] | what a client does with its files | errors a kernel gives; nothing pinned, bound or alive when all is closed |
//! | [`device_io`] | reads and writes of a bound device | IDs stay, capability chains end |
//! | [`engine`] | accesses to the DMA engine, without VFIO in between | status words as documented, steps end |
//! | [`platform`] | a platform file | a mistake has a place inside the text |
//! | [`device_option`] | a `--device` option | likewise |
//! | [`overlay_path`] | paths and flags | answers agree with each other |
//! | [`spdm_messages`] | a message of SPDM | what is read is written and read as the same |
//! | [`spdm_sessions`] | exchanges of both roles, and what befalls their frames | nothing that was disturbed is taken |
//! | [`trace_decode`] | calls with any bytes | each prints as one line |
//! | [`security`] | messages of TDISP and IDE_KM | answers can be read, states change as the table says |
//! | [`dsm`] | requests to a device's security manager, and what is done to its functions | functions act as the state that is told |
//! | [`mock_commands`] | what a client does with the kernel's test interface | nothing pinned, charged or alive when all is closed; windows stay while mapped, what runs out changes nothing |
//! | [`guest`] | a guest's requests about a bound interface | answers fit, and unbind leaves the device unlocked |
//! | [`guest_streams`] | a guest's stream table entries, descriptors, tables and commands on SMMUv3 | DMA stays in what the parent shows, and ends; events tell of the guest's stream |
//! | [`guest_tables`] | a guest's page tables, and DMA through them | DMA stays in what the parent shows, and ends |
//! | [`words`] | scenarios and faults, as people write them | a mistake has a place inside the text |
//! | [`config_walk`] | config space | chains end, and lie inside |
//!
//! Run one with `cargo fuzz run -s none TARGET`. Seeds are written by `cargo run --example seeds`;
//! `cargo test` in this folder runs them without a fuzzer.

pub mod commands;
pub mod config_walk;
pub mod device_io;
pub mod device_option;
pub mod dsm;
pub mod engine;
pub mod guest;
pub mod guest_streams;
pub mod guest_tables;
pub mod mock_commands;
pub mod overlay_path;
pub mod platform;
pub mod security;
pub mod spdm_messages;
pub mod spdm_sessions;
pub mod trace_decode;
pub mod words;

pub mod descriptor;
pub mod input;

mod arena;
pub mod client;
mod eventfd;
mod mapped;
mod mock_client;
mod nested;
pub mod rig;
