//! Asking: finding the sockets of running instances, and talking to them. Takes no lock.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use thiserror::Error;

use super::question::{
    Accounts, Answer, EvidenceRow, Listing, Question, Refused, TsmOrder, TsmStatus,
};
use super::{ANSWER_MAX, ControlError, be_patient, read_line, write_line};

/// How long an answer is waited for: longer than any teardown, or any exchange with a device, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why an order was not carried out.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody could follow it.
    #[error("no bindery run of yours is running")]
    Nobody,
    /// The instance that was named does not run.
    #[error("process {pid} is no bindery run of yours; there are:{}", list(.running))]
    NotRunning {
        /// Who was named.
        pid: u32,
        /// Those that run.
        running: Vec<Listing>,
    },
    /// Nobody was named, and several run.
    #[error("several runs of yours are going on; choose one with --pid:{}", list(.running))]
    Several {
        /// Those that run.
        running: Vec<Listing>,
    },
    /// The instance did not answer.
    #[error("process {pid} does not answer: {cause}")]
    Silent {
        /// Who was asked.
        pid: u32,
        /// Why.
        cause: io::Error,
    },
    /// It refused.
    #[error("{0}")]
    Refused(Refused),
}

fn list(running: &[Listing]) -> String {
    running.iter().map(|Listing { pid, program, .. }| format!("\n  {pid}  {program}")).collect()
}

/// Asks every running instance of this user what it serves, in the order of their process IDs.
/// Sockets that dead instances left are removed.
pub fn instances() -> Vec<Listing> {
    let listing = |answer| if let Answer::Ls(listing) = answer { Some(listing) } else { None };
    let mut listings = ask_all(&Question::Ls, listing);
    listings.sort_by_key(|listing| listing.pid);
    listings
}

/// Asks every running instance of this user what it holds, in the order of their process IDs. Releases
/// under way are waited for.
pub fn ledgers() -> Vec<Accounts> {
    let accounts = |answer| if let Answer::Ledger(all) = answer { Some(all) } else { None };
    let mut all = ask_all(&Question::Ledger, accounts);
    all.sort_by_key(|accounts| accounts.pid);
    all
}

/// Asks the instance of process `pid` what it holds.
///
/// # Errors
/// [`AskError`].
pub fn ledger(pid: u32) -> Result<Accounts, AskError> {
    let (pid, socket) = reach(Some(pid))?;
    let silent = |cause| silence(pid, cause);
    match ask(&socket, &Question::Ledger).map_err(silent)? {
        Answer::Ledger(accounts) => Ok(accounts),
        Answer::Refused(refused) => Err(AskError::Refused(refused)),
        Answer::Ls(_)
        | Answer::TsmStatus(_)
        | Answer::Evidence(_)
        | Answer::Done
        | Answer::Error(_) => Err(silent(io::Error::other(OTHER_QUESTION))),
    }
}

/// Asks every running instance of this user how its TSMs and TDIs stand, in the order of their process
/// IDs.
pub fn statuses() -> Vec<TsmStatus> {
    let status = |answer| if let Answer::TsmStatus(status) = answer { Some(status) } else { None };
    let mut all = ask_all(&Question::TsmStatus, status);
    all.sort_by_key(|status| status.pid);
    all
}

/// Has the instance of process `pid` do something: the only one that runs, where none is named. Returns
/// when it is done.
///
/// # Errors
/// [`AskError`].
pub fn order(pid: Option<u32>, order: TsmOrder) -> Result<(), AskError> {
    let (pid, socket) = reach(pid)?;
    let silent = |cause| silence(pid, cause);
    match ask(&socket, &Question::Tsm { order }).map_err(silent)? {
        Answer::Done => Ok(()),
        Answer::Refused(refused) => Err(AskError::Refused(refused)),
        Answer::Ls(_)
        | Answer::Ledger(_)
        | Answer::TsmStatus(_)
        | Answer::Evidence(_)
        | Answer::Error(_) => Err(silent(io::Error::other(OTHER_QUESTION))),
    }
}

const OTHER_QUESTION: &str = "it answers another question";

/// Asks the instance of process `pid` for the evidence about a function; `nonce` is in hexadecimal. The only instance
/// that runs, where none is named.
///
/// # Errors
/// [`AskError`].
pub fn evidence(
    pid: Option<u32>,
    function: String,
    nonce: Option<String>,
) -> Result<Vec<EvidenceRow>, AskError> {
    let (pid, socket) = reach(pid)?;
    let silent = |cause| silence(pid, cause);
    match ask(&socket, &Question::Evidence { function, nonce }).map_err(silent)? {
        Answer::Evidence(rows) => Ok(rows),
        Answer::Refused(refused) => Err(AskError::Refused(refused)),
        Answer::Ls(_)
        | Answer::Ledger(_)
        | Answer::TsmStatus(_)
        | Answer::Done
        | Answer::Error(_) => Err(silent(io::Error::other(OTHER_QUESTION))),
    }
}

/// The instance that is meant, and where it listens. One that is named need not answer yet.
fn reach(pid: Option<u32>) -> Result<(u32, PathBuf), AskError> {
    if let Some(pid) = pid
        && let Some(socket) = socket_of(pid)
    {
        return Ok((pid, socket));
    }
    let pid = find(pid, instances())?;
    Ok((pid, socket_of(pid).ok_or(AskError::Nobody)?))
}

fn socket_of(pid: u32) -> Option<PathBuf> {
    let name = pid.to_string();
    all_sockets().find(|socket| socket.file_name().is_some_and(|found| *found == *name))
}

/// Why the instance of process `pid` did not answer: it is gone, or it is silent.
fn silence(pid: u32, cause: io::Error) -> AskError {
    let is_gone =
        matches!(cause.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
    if is_gone {
        AskError::NotRunning { pid, running: instances() }
    } else {
        let is_late = cause.kind() == io::ErrorKind::WouldBlock;
        let late = || io::Error::other(format!("not within {} s", PATIENCE.as_secs()));
        AskError::Silent { pid, cause: if is_late { late() } else { cause } }
    }
}

/// Which of those that run is meant.
pub(super) fn find(pid: Option<u32>, mut running: Vec<Listing>) -> Result<u32, AskError> {
    match pid {
        _ if running.is_empty() => Err(AskError::Nobody),
        Some(pid) if running.iter().any(|listing| listing.pid == pid) => Ok(pid),
        Some(pid) => Err(AskError::NotRunning { pid, running }),
        None if running.len() > 1 => Err(AskError::Several { running }),
        None => running.pop().map(|listing| listing.pid).ok_or(AskError::Nobody),
    }
}

fn ask_all<T>(question: &Question, wanted: impl Fn(Answer) -> Option<T>) -> Vec<T> {
    all_sockets().filter_map(|socket| ask(&socket, question).ok()).filter_map(wanted).collect()
}

fn all_sockets() -> impl Iterator<Item = PathBuf> {
    directories()
        .into_iter()
        .filter(|directory| is_private(directory))
        .flat_map(|directory| sockets(&directory))
}

/// Where instances of this user may listen.
fn directories() -> Vec<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute()).map(|path| path.join("bindery"));
    let fallback = PathBuf::from(format!("/tmp/bindery-{}", geteuid().as_raw()));
    runtime.into_iter().chain([fallback]).collect()
}

/// The first of [`directories`] that can be had.
pub(super) fn own_directory() -> Result<PathBuf, ControlError> {
    let mut refused = Err(ControlError::Exposed { path: PathBuf::from("/tmp") });
    for path in directories() {
        match make_private(&path) {
            Ok(()) => return Ok(path),
            Err(error) => refused = Err(error),
        }
    }
    refused
}

pub(super) fn make_private(path: &Path) -> Result<(), ControlError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(cause) => return Err(ControlError::System { path: path.to_owned(), cause }),
    }
    if is_private(path) { Ok(()) } else { Err(ControlError::Exposed { path: path.to_owned() }) }
}

/// Whether `path` is a directory, not a link to one, of ours alone. In `/tmp` anyone may have been
/// there first.
fn is_private(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| {
        found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0
    })
}

/// The sockets in a directory: what is named by a number.
pub(super) fn sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named_by_pid =
        |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    entries.filter(|entry| named_by_pid(&entry.file_name())).map(|entry| entry.path()).collect()
}

pub(super) fn ask(socket: &Path, question: &Question) -> io::Result<Answer> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) => {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                // Nobody listens and nobody will: names are of processes.
                let _ = fs::remove_file(socket);
            }
            return Err(error);
        }
    };
    be_patient(&stream, PATIENCE)?;
    write_line(&mut stream, question)?;
    let answer = read_line(&stream, ANSWER_MAX)?;
    if let Answer::Error(text) = answer { Err(io::Error::other(text)) } else { Ok(answer) }
}
