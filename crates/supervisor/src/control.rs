//! The control socket: how `bindery ls` and `bindery tsm` talk to a running instance.
//!
//! An instance listens at `$XDG_RUNTIME_DIR/bindery/PID`, or `/tmp/bindery-UID/PID` where there is no
//! such directory. A question is a line of JSON, the answer another. Only the same user is answered:
//! the directory is 0700, the socket 0600, and the peer's user ID is asked of the kernel. What can be
//! changed through it is what the host's administrator could change: TSM connections, and faults
//! on demand of its devices. Absent on purpose: any way to change what the program holds.
//!
//! Takes no lock; each question has a thread, for some wait for a device.

mod ask;
mod instance;
mod question;
mod rows;
mod status;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{process, thread};

use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use ask::{AskError, evidence, instances, ledger, ledgers, order, statuses};
pub(crate) use instance::Running;
pub use question::{
    Accounts, EvidenceRow, FunctionRow, Listing, Owner, TsmCounts, TsmOrder, TsmRow, TsmStatus,
};
use question::{Answer, Question, Refused};
pub use rows::function_rows;

/// Longest question in bytes.
const QUESTION_MAX: u64 = 4096;
/// Longest answer in bytes.
const ANSWER_MAX: u64 = 16 << 20;
/// How long an instance waits for a silent peer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who answers.
pub(crate) trait Instance: Send + Sync + 'static {
    /// What it has assigned to whom.
    fn listing(&self) -> Listing;

    /// What it holds. Waits for releases under way.
    fn accounts(&self) -> Accounts;

    /// How its TSMs and TDIs stand.
    fn tsm_status(&self) -> TsmStatus;

    /// Does what is asked for. May wait for a device.
    ///
    /// # Errors
    /// [`Refused`], with an errno where the kernel's attribute has one.
    fn obey(&self, order: &TsmOrder) -> Result<(), Refused>;

    /// The evidence about a function, of measurements over `nonce` where one is given. May wait for a device.
    ///
    /// # Errors
    /// As [`obey`](Self::obey).
    fn evidence(&self, function: &str, nonce: Option<&str>) -> Result<Vec<EvidenceRow>, Refused>;
}

/// An instance's socket. Dropping it removes the socket's name.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
}

/// Why there is no socket.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
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
    /// Makes this process's socket and answers on it for `instance`, in threads of its own, for as long
    /// as the process lives.
    ///
    /// # Errors
    /// [`ControlError`]. A run goes on without its socket; only those who ask do not see it.
    pub(crate) fn serve(instance: impl Instance) -> Result<Self, ControlError> {
        Self::serve_in(&ask::own_directory()?, instance)
    }

    fn serve_in(directory: &Path, instance: impl Instance) -> Result<Self, ControlError> {
        let path = directory.join(process::id().to_string());
        let failed = |cause| ControlError::System { path: path.clone(), cause };
        // Named by a number only once it answers: who finds one that does not removes it. A socket of either
        // name is of a process that had our number before us.
        let early = path.with_extension("early");
        let _ = fs::remove_file(&early);
        let listener = UnixListener::bind(&early).map_err(failed)?;
        let control = Self { path: path.clone() };
        fs::set_permissions(&early, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        fs::rename(&early, &path).map_err(failed)?;
        let thread = thread::Builder::new().name("control".to_owned());
        thread.spawn(move || answer_all(&listener, &Arc::new(instance))).map_err(failed)?;
        Ok(control)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

fn answer_all(listener: &UnixListener, instance: &Arc<impl Instance>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let instance = Arc::clone(instance);
                // A peer that went away, or spoke nonsense, is its own problem; so is one that asks when no
                // thread can be had.
                let answer = move || drop(answer(stream, &*instance));
                let _ = thread::Builder::new().name("question".to_owned()).spawn(answer);
            }
            // Out of descriptors, say: wait instead of spinning.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn answer(mut stream: UnixStream, instance: &impl Instance) -> io::Result<()> {
    if socket_peercred(&stream)?.uid.as_raw() != geteuid().as_raw() {
        return Ok(());
    }
    be_patient(&stream, PATIENCE)?;
    let answer = match read_line(&stream, QUESTION_MAX) {
        Ok(Question::Ls) => Answer::Ls(instance.listing()),
        Ok(Question::Ledger) => Answer::Ledger(instance.accounts()),
        Ok(Question::TsmStatus) => Answer::TsmStatus(instance.tsm_status()),
        Ok(Question::Tsm { order }) => match instance.obey(&order) {
            Ok(()) => Answer::Done,
            Err(refused) => Answer::Refused(refused),
        },
        Ok(Question::Evidence { function, nonce }) => {
            match instance.evidence(&function, nonce.as_deref()) {
                Ok(rows) => Answer::Evidence(rows),
                Err(refused) => Answer::Refused(refused),
            }
        }
        Err(error) => Answer::Error(error.to_string()),
    };
    write_line(&mut stream, &answer)
}

fn be_patient(stream: &UnixStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))
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
    use std::env;
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::ask::{find, make_private, sockets};
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

    /// An instance that refuses every order but one.
    struct Told;

    impl Instance for Told {
        fn listing(&self) -> Listing {
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

        fn accounts(&self) -> Accounts {
            Accounts { pid: process::id(), ..Accounts::default() }
        }

        fn tsm_status(&self) -> TsmStatus {
            TsmStatus { tsms: vec!["tsm0".to_owned()], ..TsmStatus::default() }
        }

        fn obey(&self, order: &TsmOrder) -> Result<(), Refused> {
            match order {
                TsmOrder::Connect { function, tsm: None } if function == "b1d0:01:00.0" => Ok(()),
                TsmOrder::Connect { .. } | TsmOrder::Disconnect { .. } | TsmOrder::Fault { .. } => {
                    Err(Refused::new(Some(uapi::Errno::ENXIO), "no"))
                }
            }
        }

        fn evidence(&self, _: &str, _: Option<&str>) -> Result<Vec<EvidenceRow>, Refused> {
            Err(Refused::new(Some(uapi::Errno::EINVAL), "nothing is connected"))
        }
    }

    fn order(function: &str) -> Question {
        Question::Tsm { order: TsmOrder::Connect { function: function.to_owned(), tsm: None } }
    }

    #[test]
    fn an_instance_answers_and_its_name_goes_with_it() {
        let scratch = Scratch::new();
        let control = Control::serve_in(&scratch.0, Told).unwrap();
        let names = sockets(&scratch.0);
        assert_eq!(fs::metadata(&names[0]).unwrap().mode() & 0o777, 0o600);
        let ask = |question| ask::ask(&names[0], &question).unwrap();
        assert_eq!(ask(Question::Ls), Answer::Ls(Told.listing()));
        assert_eq!(ask(Question::Ledger), Answer::Ledger(Told.accounts()), "a second question");
        assert_eq!(ask(Question::TsmStatus), Answer::TsmStatus(Told.tsm_status()));
        assert_eq!(ask(order("b1d0:01:00.0")), Answer::Done);
        let refused = ask(order("b1d0:02:00.0"));
        assert!(matches!(&refused, Answer::Refused(why) if why.to_string() == "no (ENXIO)"));
        drop(control);
        assert_eq!(sockets(&scratch.0), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_silent_peer_holds_up_nobody() {
        let scratch = Scratch::new();
        let _control = Control::serve_in(&scratch.0, Told).unwrap();
        let socket = &sockets(&scratch.0)[0];
        let _silent = UnixStream::connect(socket).unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(ask::ask(socket, &Question::Ls).unwrap(), Answer::Ls(Told.listing()));
        assert!(begun.elapsed() < PATIENCE);
    }

    #[test]
    fn nonsense_is_answered_with_an_error() {
        let scratch = Scratch::new();
        let _control = Control::serve_in(&scratch.0, Told).unwrap();
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
        assert!(ask::ask(&socket, &Question::Ls).is_err());
        assert!(!socket.exists());
    }

    #[test]
    fn a_directory_that_others_enter_is_refused() {
        let scratch = Scratch::new();
        fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(make_private(&scratch.0), Err(ControlError::Exposed { .. })));
    }

    #[test]
    fn an_order_goes_to_one_instance() {
        let listing = |pid| Listing { pid, program: format!("vmm {pid}"), functions: Vec::new() };
        let text = |pid, running: Vec<u32>| {
            let running = running.into_iter().map(listing).collect();
            find(pid, running).map_err(|error| error.to_string())
        };
        assert_eq!(text(None, vec![7]), Ok(7));
        assert_eq!(text(Some(8), vec![7, 8]), Ok(8));
        let several =
            "several runs of yours are going on; choose one with --pid:\n  7  vmm 7\n  8  vmm 8";
        assert_eq!(text(None, vec![7, 8]), Err(several.to_owned()));
        assert_eq!(text(None, vec![]), Err("no bindery run of yours is running".to_owned()));
        let other = "process 9 is no bindery run of yours; there are:\n  7  vmm 7";
        assert_eq!(text(Some(9), vec![7]), Err(other.to_owned()));
    }
}
