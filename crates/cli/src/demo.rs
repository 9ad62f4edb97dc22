//! `bindery demo`: a client made of crates.io crates is assigned a device, seen from both sides.
//!
//! The client is this very program, run under `bindery run` as any other would be. Both tell what
//! they do down a pipe, and the timeline is printed once both have ended.

mod timeline;

use std::env;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Command, ExitCode, ExitStatus};

use clap::Args;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::events::Stamped;
use crate::exit;
use crate::terminal::{Style, Tone, print};

/// Assign an emulated device to a real VFIO client and show what happens.
///
/// The client is made of the vfio-ioctls and iommufd-ioctls crates. It opens /dev/iommu and the
/// device, binds and attaches it, maps memory, has the device copy some of it by DMA, takes its
/// MSI-X interrupt, compares, resets and closes. Exits 0 where all of that worked.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> ExitCode {
    match perform() {
        Ok((status, events)) => conclude(status, &events),
        Err(error) => {
            eprintln!("bindery: the demo cannot run: {error}");
            ExitCode::from(exit::OURS)
        }
    }
}

/// Runs the client under supervision; returns how it ended and everything that was told.
fn perform() -> io::Result<(ExitStatus, Vec<Stamped>)> {
    let this_program = env::current_exe()?;
    let (reader, writer) = io::pipe()?;
    // Supervisor and client inherit the pipe under the number it has here.
    fcntl_setfd(&writer, FdFlags::empty())?;
    let fd = writer.as_raw_fd().to_string();
    let mut supervised = Command::new(&this_program)
        .args(["run", "--events", &fd, "--"])
        .arg(&this_program)
        .args(["demo-client", "--confidential", "--events", &fd])
        .spawn()?;
    drop(writer);
    let lines = BufReader::new(reader).lines();
    let events =
        lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<io::Result<Vec<Stamped>>>();
    Ok((supervised.wait()?, events?))
}

fn conclude(status: ExitStatus, events: &[Stamped]) -> ExitCode {
    let style = Style::of_stdout();
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::OURS);
    let (verdict, advice) = if code == 0 {
        let verdict = "The device was assigned, copied memory, interrupted and was reset. Its TDI was\n\
             bound, locked and run, and ended in six ways. The findings are intended.";
        let advice = "Your own program: bindery run -- PROGRAM. A shell: bindery run.";
        (style.paint(Tone::Green, verdict), advice)
    } else {
        let verdict = style.paint(Tone::Red, format_args!("The demo failed ({status})."));
        (verdict, "Can this machine do it? bindery doctor")
    };
    print(&format!("{}\n{verdict}\n{advice}\n", timeline::text(events, style)));
    ExitCode::from(code)
}
