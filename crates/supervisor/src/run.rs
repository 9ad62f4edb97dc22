//! `run`: three processes, so that whichever is killed leaves nothing behind.
//!
//! The process that calls [`run`] becomes the guard; its child is the supervisor; the program is the
//! supervisor's child. Takes no lock.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use host::process::{Forked, fork};
use rustix::process::set_child_subreaper;
use thiserror::Error;

use crate::guard::{self, Inbox};
use crate::link::Link;
use crate::observer::Observer;
use crate::platform::Platform;
use crate::serve;

/// What to run, on what machine, watched by whom.
pub struct Options {
    /// The machine the program is shown.
    pub platform: Platform,
    /// The program and its arguments; at least one.
    pub program: Vec<OsString>,
    /// Variables added to the program's environment, beside `BINDERY`, `BINDERY_BDF` and
    /// `BINDERY_CDEV`.
    pub environment: Vec<(OsString, OsString)>,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
}

/// What a run ends with: the program's exit status, 128+n where signal n ended it, 126 or 127 where
/// it could not be executed, 125 where we failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

/// The status where it is us who failed, not the program.
pub const OUR_FAILURE: ExitStatus = ExitStatus(125);

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.0)
    }
}

/// Why nothing was run.
#[derive(Debug, Error)]
pub enum RunError {
    /// No program was given.
    #[error("no program to run")]
    NoProgram,
    /// The machine could not be built.
    #[error("{0}")]
    Machine(Box<dyn std::error::Error + Send + Sync>),
    /// The program could not be executed.
    #[error("{}: {}", .program.display(), crate::run::reason(.cause))]
    NotExecuted {
        /// The program as given.
        program: OsString,
        /// Why.
        cause: io::Error,
    },
    /// The program could not be put under a filter.
    #[error("{}", filter_advice(.cause))]
    Filter {
        /// Why.
        cause: io::Error,
    },
    /// Another system call failed.
    #[error("{what}: {}", crate::run::reason(.cause))]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
}

impl RunError {
    /// What to exit with: 127 where the program does not exist, 126 where it cannot be executed, 125
    /// for all else.
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::NotExecuted { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                ExitStatus(127)
            }
            Self::NotExecuted { .. } => ExitStatus(126),
            Self::NoProgram | Self::Machine(_) | Self::Filter { .. } | Self::System { .. } => {
                OUR_FAILURE
            }
        }
    }
}

/// Runs a program on an emulated machine and returns when it and every process that came of it have
/// ended. What prevents its start in the supervisor is told on standard error, with the status for
/// it. Must be called before the process has started a thread.
///
/// # Errors
/// [`RunError`], where not even a supervisor could be started.
pub fn run(options: Options) -> Result<ExitStatus, RunError> {
    if options.program.is_empty() {
        return Err(RunError::NoProgram);
    }
    let system = |what| move |cause| RunError::System { what, cause };
    become_reaper()?;
    let inbox = Inbox::open().map_err(system("signalfd"))?;
    let (link, supervisors) = Link::pair().map_err(system("socketpair"))?;
    match fork().map_err(system("fork"))? {
        Forked::Parent(supervisor) => {
            drop(supervisors);
            let status = guard::stand(&link, &inbox, supervisor);
            // Where no program ran the caller goes on as it was.
            let _ = inbox.before.apply();
            Ok(status)
        }
        Forked::Child => {
            drop(link);
            serve::supervise(options, supervisors, inbox.before)
        }
    }
}

/// Makes orphans below this process its own children.
pub(crate) fn become_reaper() -> Result<(), RunError> {
    set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| RunError::System { what: "PR_SET_CHILD_SUBREAPER", cause: errno.into() })
}

/// The kernel's text without the number that Rust adds.
fn reason(cause: &io::Error) -> String {
    let text = cause.to_string();
    match text.rsplit_once(" (os error") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

fn filter_advice(cause: &io::Error) -> String {
    let why = match cause.raw_os_error() {
        Some(libc::EBUSY) => {
            "this process is already under another seccomp listener (another `bindery run`, a container \
             manager that intercepts system calls, or WSL2 with mirrored networking)"
        }
        Some(libc::EINVAL | libc::ENOSYS) => {
            "this kernel offers no seccomp listener that waits (Linux 5.19 or later is needed; gVisor has none)"
        }
        _ => return format!("seccomp filter refused: {}", reason(cause)),
    };
    why.to_owned()
}
