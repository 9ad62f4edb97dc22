//! `bindery spdm`: SPDM, IDE_KM and TDISP for people who write firmware.

mod decode;
mod requester;
mod responder;
mod validate;

use std::process::ExitCode;

use ::spdm::certificate::DeviceName;
use clap::{Args, Subcommand};
use tdisp::InterfaceId;

/// Speak SPDM, IDE_KM and TDISP with firmware, or read what was said.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Decode(decode::Arguments),
    Requester(requester::Arguments),
    Responder(responder::Arguments),
    Validate(validate::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match &arguments.command {
        Command::Decode(arguments) => decode::run(arguments),
        Command::Requester(arguments) => requester::run(arguments),
        Command::Responder(arguments) => responder::run(arguments),
        Command::Validate(arguments) => validate::run(arguments),
    }
}

/// The interface that a function hosts: `01:00.0`, or with a domain, which TDISP does not know.
fn interface(text: &str) -> Result<InterfaceId, String> {
    let whole = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.into() };
    let address: pci::Address =
        whole.parse().map_err(|_| "a function is bb:dd.f, such as 01:00.0")?;
    Ok(InterfaceId::new(address.requester_id()))
}

/// Whom a certificate must name.
pub(crate) fn device_name(text: &str) -> Result<DeviceName, String> {
    match text.split_once(':') {
        Some(("pci", name)) => Ok(DeviceName::Pci(name.into())),
        Some(("dmtf", name)) => Ok(DeviceName::Dmtf(name.into())),
        _ => Err("a name is pci:NAME or dmtf:NAME".into()),
    }
}
