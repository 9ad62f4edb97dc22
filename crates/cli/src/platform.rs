//! `bindery platform`: the platform there is by default, or what a file of one's own says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use supervisor::{DEFAULT_TOML, Platform};

use crate::terminal::print;
use crate::{exit, ls};

/// Print the default platform file, or check one.
///
/// Without FILE, prints the platform that a program is shown unless told otherwise, with comments:
/// save it, change it, and use it with `bindery run --platform FILE`. With FILE, says what is wrong
/// with it, or lists the functions that it describes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A platform file to check
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let Some(file) = &arguments.file else {
        print(DEFAULT_TOML);
        return ExitCode::SUCCESS;
    };
    match Platform::read(file) {
        Ok(platform) => {
            let table = ls::table(&supervisor::function_rows(&platform));
            print(&format!("{} is a valid platform:\n\n{table}", file.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bindery: {error}");
            ExitCode::from(exit::OURS)
        }
    }
}
