//! `bindery`: gives an unmodified program the devices of a machine that is not there.
//!
//! A file per subcommand; each has its arguments and a function that runs them. What is printed for
//! people goes to stdout where it is what was asked for, and to stderr where it is about a run, whose
//! stdout is the program's. Takes no lock.

#![forbid(unsafe_code)]

mod daemons;
mod demo;
mod demo_client;
mod doctor;
mod events;
mod evidence;
mod exit;
mod explore;
mod ls;
mod nested;
mod platform;
mod run;
mod spdm;
mod terminal;
mod tsm;
mod uapi;

use std::env;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// Device assignment without hardware: gives an unmodified program /dev/iommu, VFIO device files,
/// sysfs, and emulated PCI devices behind them.
#[derive(Debug, Parser)]
#[command(name = "bindery", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Bindery {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  bindery demo                                     see it work
  bindery doctor                                   will it work on this machine?
  bindery run                                      a shell in which the devices exist
  bindery run -- qemu-system-x86_64 -object iommufd,id=i0 \\
      -device vfio-pci,host=b1d0:01:00.0,iommufd=i0 ...
  CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='bindery run --' cargo test";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Ls(ls::Arguments),
    Tsm(tsm::Arguments),
    Platform(platform::Arguments),
    Doctor(doctor::Arguments),
    Demo(demo::Arguments),
    Explore(explore::Arguments),
    Uapi(uapi::Arguments),
    Spdm(spdm::Arguments),
    Evidence(evidence::Arguments),
    Verify(evidence::Verify),
    #[command(hide = true)]
    DemoClient(demo_client::Arguments),
}

fn main() -> ExitCode {
    match Bindery::try_parse() {
        Ok(Bindery { command }) => execute(command),
        Err(error) => refuse(&error),
    }
}

fn execute(command: Command) -> ExitCode {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Ls(arguments) => ls::run(&arguments),
        Command::Tsm(arguments) => tsm::run(arguments),
        Command::Platform(arguments) => platform::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Explore(arguments) => explore::run(&arguments),
        Command::Uapi(arguments) => uapi::run(&arguments),
        Command::Spdm(arguments) => spdm::run(&arguments),
        Command::Evidence(arguments) => evidence::run(arguments),
        Command::Verify(arguments) => evidence::verify(&arguments),
        Command::DemoClient(arguments) => demo_client::run(&arguments),
    }
}

/// Prints what clap says: help that was asked for, or what is wrong with the arguments. For `run`
/// a wrong argument is a failure of ours, not a status of the program's.
fn refuse(error: &clap::Error) -> ExitCode {
    // Where stdout or stderr is closed there is nobody to tell.
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    let is_run = env::args_os().nth(1).is_some_and(|word| word == "run");
    ExitCode::from(if is_run { exit::OURS } else { exit::USAGE })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Bindery::command().debug_assert();
    }

    fn parsed(words: &[&str]) -> run::Arguments {
        let command = Bindery::try_parse_from(words).unwrap().command;
        let Command::Run(arguments) = command else { panic!("{command:?}") };
        arguments
    }

    #[test]
    fn program_keeps_its_own_options() {
        for words in [
            &["bindery", "run", "--trace", "--", "vmm", "--trace=x", "--", "-h"][..],
            &["bindery", "run", "--trace", "vmm", "--trace=x", "--", "-h"],
        ] {
            assert_eq!(parsed(words).program, ["vmm", "--trace=x", "--", "-h"], "{words:?}");
        }
    }

    #[test]
    fn a_misspelt_option_is_no_program() {
        assert!(Bindery::try_parse_from(["bindery", "run", "--devise", "x", "vmm"]).is_err());
    }
}
