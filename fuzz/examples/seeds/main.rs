//! Writes the seeds of every target's corpus anew: inputs that lead deep from the start.

mod commands;
mod devices;
mod guests;
mod mock_commands;
mod mock_sequence;
mod security;
mod spdm;
mod texts;

use std::fs;
use std::path::Path;

fn main() {
    commands::commands();
    devices::device_io();
    devices::engine();
    devices::config_walk();
    guests::guest();
    guests::guest_tables();
    guests::guest_streams();
    mock_commands::mock_commands();
    security::security();
    security::dsm();
    spdm::spdm_messages();
    spdm::spdm_sessions();
    texts::platform();
    texts::overlay_path();
    texts::trace_decode();
    texts::words();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder for seeds");
    fs::write(folder.join(format!("seed-{name}")), bytes).expect("a seed");
}
