//! `bindery spdm`: SPDM, IDE_KM and TDISP for people who write firmware.

mod decode;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Speak SPDM, IDE_KM and TDISP with firmware, or read what was said.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Decode(decode::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match &arguments.command {
        Command::Decode(arguments) => decode::run(arguments),
    }
}
