//! The control socket: how `bindery ls` asks a running instance what it assigned to whom.
//!
//! An instance listens at `$XDG_RUNTIME_DIR/bindery/PID`, or `/tmp/bindery-UID/PID` where there is no
//! such directory. A question is a line of JSON, the answer another. Only the same user is answered:
//! the directory is 0700, the socket 0600, and the peer's user ID is asked of the kernel. Absent on
//! purpose: any way to change what an instance does.
//!
//! Takes no lock; one thread serves one question after another.

mod rows;

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, process, thread};

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use rows::function_rows;
pub(crate) use rows::rows;

/// What an instance runs and what it has assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The instance's process.
    pub pid: u32,
    /// The program that it serves, with its arguments.
    pub program: String,
    /// Every function of its platform, by address.
    pub functions: Vec<FunctionRow>,
}

/// One function of a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRow {
    /// `b1d0:01:00.0`.
    pub address: String,
    /// What it is: `dma-engine`.
    pub model: String,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// What it can do, and does, as a TEE device: `-` for nothing.
    pub tee: String,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// Its VFIO device: `vfio0`.
    pub vfio: Option<String>,
    /// Who has it open.
    pub owner: Option<Owner>,
}

/// A process that has a device open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process that opened it.
    pub pid: i32,
    /// Its name, as the kernel keeps it.
    pub program: String,
}

/// A question to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
enum Question {
    Ls,
}

/// What an instance answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ls(Listing),
    Error(String),
}

/// Longest question in bytes.
const QUESTION_MAX: u64 = 4096;
/// Longest answer in bytes.
const ANSWER_MAX: u64 = 16 << 20;
/// How long a silent peer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// An instance's socket. Dropping it removes the socket's name.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
}

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The directory belongs to someone else, or others may enter it.
    #[error("{} is not a directory that only this user can enter", .path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{}: {cause}", .path.display())]
    System {
        /// The file concerned.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl Control {
    /// Makes this process's socket and answers on it, in a thread of its own, for as long as the
    /// process lives. `listing` is called for each question.
    ///
    /// # Errors
    /// [`ControlError`]. A run goes on without its socket; only `bindery ls` does not see it.
    pub fn serve(listing: impl Fn() -> Listing + Send + 'static) -> Result<Self, ControlError> {
        Self::serve_in(&own_directory()?, listing)
    }

    fn serve_in(
        directory: &Path,
        listing: impl Fn() -> Listing + Send + 'static,
    ) -> Result<Self, ControlError> {
        let path = directory.join(process::id().to_string());
        // A socket of this name is of a process that had our number before us.
        let _ = fs::remove_file(&path);
        let failed = |cause| ControlError::System { path: path.clone(), cause };
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let control = Self { path: path.clone() };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let thread = thread::Builder::new().name("control".to_owned());
        thread.spawn(move || answer_all(&listener, listing)).map_err(failed)?;
        Ok(control)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks every running instance of this user what it serves, in the order of their process IDs.
/// Sockets that dead instances left are removed.
pub fn instances() -> Vec<Listing> {
    let mut listings: Vec<_> = directories()
        .iter()
        .filter(|directory| is_private(directory))
        .flat_map(|directory| sockets(directory))
        .filter_map(|socket| ask(&socket).ok())
        .collect();
    listings.sort_by_key(|listing| listing.pid);
    listings
}

/// Where instances of this user may listen.
fn directories() -> Vec<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute()).map(|path| path.join("bindery"));
    let fallback = PathBuf::from(format!("/tmp/bindery-{}", geteuid().as_raw()));
    runtime.into_iter().chain([fallback]).collect()
}

/// The first of [`directories`] that can be had.
fn own_directory() -> Result<PathBuf, ControlError> {
    let mut refused = Err(ControlError::Exposed { path: PathBuf::from("/tmp") });
    for path in directories() {
        match make_private(&path) {
            Ok(()) => return Ok(path),
            Err(error) => refused = Err(error),
        }
    }
    refused
}

fn make_private(path: &Path) -> Result<(), ControlError> {
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
fn sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named_by_pid =
        |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    entries.filter(|entry| named_by_pid(&entry.file_name())).map(|entry| entry.path()).collect()
}

fn ask(socket: &Path) -> io::Result<Listing> {
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
    be_patient(&stream)?;
    write_line(&mut stream, &Question::Ls)?;
    match read_line(&stream, ANSWER_MAX)? {
        Answer::Ls(listing) => Ok(listing),
        Answer::Error(text) => Err(io::Error::other(text)),
    }
}

fn answer_all(listener: &UnixListener, listing: impl Fn() -> Listing) {
    loop {
        match listener.accept() {
            // A peer that went away, or spoke nonsense, is its own problem.
            Ok((stream, _)) => drop(answer(stream, &listing)),
            // Out of descriptors, say: wait instead of spinning.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn answer(mut stream: UnixStream, listing: impl Fn() -> Listing) -> io::Result<()> {
    if socket_peercred(&stream)?.uid.as_raw() != geteuid().as_raw() {
        return Ok(());
    }
    be_patient(&stream)?;
    let answer = match read_line(&stream, QUESTION_MAX) {
        Ok(Question::Ls) => Answer::Ls(listing()),
        Err(error) => Answer::Error(error.to_string()),
    };
    write_line(&mut stream, &answer)
}

fn be_patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn read_line<T: for<'a> Deserialize<'a>>(stream: &UnixStream, length_max: u64) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(length_max)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory of the test's own.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("bindery-control-{}-{number}", process::id());
            let path = env::temp_dir().join(name);
            make_private(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn listing() -> Listing {
        let function = FunctionRow {
            address: "b1d0:01:00.0".to_owned(),
            model: "dma-engine".to_owned(),
            group: Some(1),
            tee: "-".to_owned(),
            driver: Some("vfio-pci".to_owned()),
            vfio: Some("vfio0".to_owned()),
            owner: Some(Owner { pid: 41, program: "vmm".to_owned() }),
        };
        Listing { pid: process::id(), program: "vmm -x".to_owned(), functions: vec![function] }
    }

    #[test]
    fn an_instance_answers_and_its_name_goes_with_it() {
        let scratch = Scratch::new();
        let control = Control::serve_in(&scratch.0, listing).unwrap();
        let names = sockets(&scratch.0);
        assert_eq!(fs::metadata(&names[0]).unwrap().mode() & 0o777, 0o600);
        assert_eq!(ask(&names[0]).unwrap(), listing());
        assert_eq!(ask(&names[0]).unwrap(), listing(), "a second question");
        drop(control);
        assert_eq!(sockets(&scratch.0), Vec::<PathBuf>::new());
    }

    #[test]
    fn nonsense_is_answered_with_an_error() {
        let scratch = Scratch::new();
        let _control = Control::serve_in(&scratch.0, listing).unwrap();
        let mut stream = UnixStream::connect(&sockets(&scratch.0)[0]).unwrap();
        stream.write_all(b"{\"ask\":\"everything\"}\n").unwrap();
        let answer = read_line::<Answer>(&stream, ANSWER_MAX).unwrap();
        assert!(matches!(answer, Answer::Error(text) if text.contains("everything")));
    }

    #[test]
    fn the_socket_of_a_dead_instance_is_removed() {
        let scratch = Scratch::new();
        let socket = scratch.0.join("1");
        drop(UnixListener::bind(&socket).unwrap());
        assert!(ask(&socket).is_err());
        assert!(!socket.exists());
    }

    #[test]
    fn a_directory_that_others_enter_is_refused() {
        let scratch = Scratch::new();
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(make_private(&scratch.0), Err(ControlError::Exposed { .. })));
    }
}
