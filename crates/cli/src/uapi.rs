//! `bindery uapi`: the ABI of a profile as a C header, and where a header of one's own differs.

mod check;
mod compiler;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};
use uapi::{Header, Profile};

use crate::exit;
use crate::terminal::print;

/// Print the C header of a kernel or patch series, or compare one's own with it.
///
/// The header holds all of iommufd and VFIO that the profile has, stands in for <linux/iommufd.h> and
/// <linux/vfio.h>, and compiles as C11 and as C++ on headers of any kernel.
///
/// With --check, builds small programs on HEADER with `cc` and lists every struct, offset, constant and
/// request number that is different, missing, or another profile's. Exits with 0 where nothing is
/// different, 1 where something is, 125 where it cannot be told.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, group(ArgGroup::new("task").required(true)))]
pub(crate) struct Arguments {
    /// Print the header of this profile
    #[arg(long, value_name = "PROFILE", group = "task", value_parser = profiles())]
    header: Option<String>,
    /// Compare this header: a kernel tree's iommufd.h or vfio.h, or one that has both
    #[arg(long, value_name = "HEADER", group = "task")]
    check: Option<PathBuf>,
    /// Compare with this profile, not with the one that is closest
    #[arg(long, value_name = "PROFILE", requires = "check", value_parser = profiles())]
    profile: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  bindery uapi --header rfc > bindery-uapi.h
  bindery uapi --check ~/linux/include/uapi/linux/iommufd.h --profile rfc-v5-2026-05";

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if let Some(profile) = named(arguments.header.as_deref()) {
        print(&Header::of(profile).to_string());
    }
    match &arguments.check {
        Some(header) => compare(header, named(arguments.profile.as_deref())),
        None => ExitCode::SUCCESS,
    }
}

fn compare(header: &Path, profile: Option<Profile>) -> ExitCode {
    match check::check(header, profile) {
        Ok(comparison) => {
            print(&comparison.to_string());
            ExitCode::from(u8::from(!comparison.is_clean()))
        }
        Err(error) => {
            eprintln!("bindery: {error}");
            ExitCode::from(exit::OURS)
        }
    }
}

fn named(name: Option<&str>) -> Option<Profile> {
    name.and_then(Profile::from_name)
}

fn profiles() -> PossibleValuesParser {
    PossibleValuesParser::new(Profile::ALL.iter().map(|profile| profile.name()))
}
