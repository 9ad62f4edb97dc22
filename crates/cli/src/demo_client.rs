//! `bindery demo-client`: the demo client, as `bindery demo` runs it under supervision.

use std::process::ExitCode;

use clap::Args;
use demo::{Failure, Settings, Timed};

use crate::events::{Event, EventStream};
use crate::terminal::print;

/// Drive the device that BINDERY_BDF names, with the vfio-ioctls and iommufd-ioctls crates.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How often to go through it all
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// Go on as the VMM of a confidential VM: bind, lock and run the device's TDI, and end it in every order
    #[arg(long)]
    confidential: bool,
    /// Tell the steps on this open file instead of stdout
    #[arg(long, value_name = "FD")]
    events: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match drive(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bindery: the demo client failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn drive(arguments: &Arguments) -> Result<(), Failure> {
    let stream = arguments.events.map(EventStream::open).transpose();
    let stream =
        stream.map_err(|cause| Failure::System { doing: "open the event stream", cause })?;
    let settings = Settings {
        device: demo::device_from_environment()?,
        rounds: arguments.rounds,
        confidential: arguments.confidential,
    };
    demo::run(&settings, &mut |done: Timed| match &stream {
        Some(stream) => stream.tell(Event::Step { done }),
        None => print(&format!("round {}: {}\n", done.round, done.step)),
    })
}
