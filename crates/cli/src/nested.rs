//! `bindery run` inside `bindery run`.
//!
//! The kernel lets a process have one seccomp listener, so the inner one passes through: its program
//! sees the outer one's devices. That is what a cargo runner inside a Bindery shell should do.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::{env, fs, io, process};

use crate::exit;

/// The process of the instance that serves us; `None` where none does.
///
/// The variable alone proves nothing: it may be left over from elsewhere. An instance is always an
/// ancestor of what it serves, daemons included.
pub(crate) fn outer() -> Option<u32> {
    let instance: u32 = env::var("BINDERY").ok()?.parse().ok()?;
    let mut process = process::id();
    while process > 1 {
        if process == instance {
            return Some(instance);
        }
        process = parent(process)?;
    }
    None
}

/// Becomes `program`.
pub(crate) fn pass_through(instance: u32, program: &[impl AsRef<std::ffi::OsStr>]) -> ExitCode {
    let Some((name, arguments)) = program.split_first() else {
        eprintln!("bindery: already inside bindery run (process {instance}); nothing to do");
        return ExitCode::SUCCESS;
    };
    eprintln!(
        "bindery: already inside bindery run (process {instance}): {} gets its devices, not new ones",
        name.as_ref().display()
    );
    let error = Command::new(name).args(arguments).exec();
    eprintln!("bindery: cannot run {}: {error}", name.as_ref().display());
    ExitCode::from(status_of(&error))
}

/// What a program that cannot be started exits with.
fn status_of(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { exit::NOT_FOUND } else { exit::NOT_EXECUTABLE }
}

/// The parent of a process.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    parent_in(&stat)
}

/// The fourth field of `/proc/PID/stat`. The second is a name in parentheses that may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_skipped() {
        assert_eq!(parent_in("41 (a) S 7 (b c) R 40 41 41 0"), Some(40));
        assert_eq!(parent_in("41 (sh) S 40 41"), Some(40));
        assert_eq!(parent_in(""), None);
    }

    #[test]
    fn our_parent_is_found() {
        assert_eq!(parent(process::id()), Some(std::os::unix::process::parent_id()));
    }
}
