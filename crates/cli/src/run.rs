//! `bindery run`: a program on an emulated machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::{env, fmt};

use clap::Args;
use clap::builder::PossibleValuesParser;
use supervisor::{Observer, Options, Platform, ReportOptions, Reports, TraceTo};
use uapi::Profile;

use crate::events::{EventStream, Told};
use crate::terminal::print;
use crate::{daemons, exit, nested};

/// Run a program that sees the emulated devices.
///
/// PROGRAM and everything that it starts see /dev/iommu, /dev/vfio and PCI devices that are not
/// there; all else is as without Bindery. BINDERY_BDF and BINDERY_CDEV in its environment name the
/// first device that can be assigned: b1d0:01:00.0 and /dev/vfio/devices/vfio0. Without PROGRAM, runs
/// $SHELL.
///
/// What went wrong (DMA faults, interrupts that nobody heard, objects and maps left over) is told on
/// stderr when PROGRAM has ended, if there is anything.
///
/// Exits with PROGRAM's status: 128+n where signal n ended it; 127 where it does not exist, 126
/// where it cannot be executed, 125 where Bindery itself failed.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, override_usage = "bindery run [OPTIONS] [--] [PROGRAM [ARGS]...]")]
pub(crate) struct Arguments {
    /// Show the machine that FILE describes (see `bindery platform`)
    #[arg(long, value_name = "FILE")]
    platform: Option<PathBuf>,
    /// Add a device, such as `dma-engine,tee=true`; `help` lists models and keys
    #[arg(long = "device", value_name = "MODEL[,KEY=VALUE]...")]
    devices: Vec<String>,
    /// Serve the numbers of this kernel or patch series
    #[arg(long, value_name = "PROFILE", value_parser = profiles())]
    uapi: Option<String>,
    /// Print a line for every call on our files and every DMA fault and interrupt, as strace does, to
    /// stderr or FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    trace: Option<Option<PathBuf>>,
    /// Write what was found as JSON to FILE
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Exit with N where PROGRAM succeeds but there are findings
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    error_exitcode: Option<u8>,
    /// Tell what happens on this open file, for `bindery demo`
    #[arg(long, value_name = "FD", hide = true)]
    events: Option<u32>,
    /// The program and its arguments
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    pub(crate) program: Vec<OsString>,
}

const AFTER_HELP: &str = "\
Examples:
  bindery run -- sh -c 'cat /sys/bus/pci/devices/$BINDERY_BDF/vendor'
  bindery run --trace=calls.txt --report report.json -- ./your-vmm
  bindery run --error-exitcode 9 -- cargo test
  CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='bindery run --' cargo test";

pub(crate) fn run(mut arguments: Arguments) -> ExitCode {
    if arguments.devices.iter().any(|device| device == "help") {
        print(&supervisor::device_help());
        return ExitCode::SUCCESS;
    }
    if let Some(instance) = nested::outer() {
        return nested::pass_through(instance, &program_or_shell(&mut arguments.program));
    }
    match prepare(arguments).and_then(|options| supervisor::run(options).map_err(told)) {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("bindery: {error}");
            ExitCode::from(exit::OURS)
        }
    }
}

fn prepare(mut arguments: Arguments) -> Result<Options, String> {
    let program = program_or_shell(&mut arguments.program);
    let platform = platform(&arguments)?;
    let observer = observer(&arguments, &program, platform.settings.uapi)?;
    if let Some(warning) = daemons::warning(&program) {
        eprintln!("bindery: {warning}");
    }
    Ok(Options { platform, program, environment: Vec::new(), observer })
}

/// The platform of the file or the default one, with what the options change.
fn platform(arguments: &Arguments) -> Result<Platform, String> {
    let mut platform = match &arguments.platform {
        Some(file) => Platform::read(file).map_err(told)?,
        None => Platform::default(),
    };
    for device in &arguments.devices {
        platform.add_device(device).map_err(told)?;
    }
    if let Some(profile) = arguments.uapi.as_deref().and_then(Profile::from_name) {
        platform.settings.uapi = profile;
    }
    Ok(platform)
}

/// Who watches: the findings, and for the demo also a stream of events.
fn observer(
    arguments: &Arguments,
    program: &[OsString],
    profile: Profile,
) -> Result<Arc<dyn Observer>, String> {
    let reports = Reports::new(ReportOptions {
        profile,
        trace: arguments.trace.clone().map(|file| file.map_or(TraceTo::Stderr, TraceTo::File)),
        report: arguments.report.clone(),
        error_exitcode: arguments.error_exitcode,
        program: program.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
    })
    .map_err(told)?;
    Ok(match arguments.events {
        Some(fd) => {
            let stream = EventStream::open(fd)
                .map_err(|error| format!("cannot write events to descriptor {fd}: {error}"))?;
            Arc::new(Told::new(reports, stream, profile))
        }
        None => Arc::new(reports),
    })
}

fn program_or_shell(program: &mut Vec<OsString>) -> Vec<OsString> {
    if program.is_empty() {
        let shell = env::var_os("SHELL").filter(|shell| !shell.is_empty());
        program.push(shell.unwrap_or_else(|| "/bin/sh".into()));
    }
    std::mem::take(program)
}

fn profiles() -> PossibleValuesParser {
    PossibleValuesParser::new(Profile::ALL.iter().map(|profile| profile.name()))
}

fn told(error: impl fmt::Display) -> String {
    error.to_string()
}
