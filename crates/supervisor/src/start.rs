//! Starting the program under the filter.
//!
//! The new process puts itself under the filter, hands us the listener, and executes the program. Its
//! own calls are notified from then on, so someone must serve before it can get through the exec.
//! Takes no lock.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

use host::notify::Listener;
use host::process::{Forked, fork};
use host::seccomp::Instruction;
use host::signal::Mask;
use rustix::process::{Pid, Signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};

use crate::link::{Link, Message};
use crate::run::RunError;

/// What to start and how.
pub(crate) struct Start<'a> {
    /// The program and its arguments: at least one.
    pub(crate) program: &'a [OsString],
    /// Variables added to its environment.
    pub(crate) environment: &'a [(OsString, OsString)],
    /// The signals it blocks at first.
    pub(crate) mask: Mask,
    /// The filter it runs under.
    pub(crate) filter: &'a [Instruction],
}

/// A process about to execute the program.
pub(crate) struct Starting {
    /// Its number, which stays the program's.
    pub(crate) pid: Pid,
    /// What its calls come through.
    pub(crate) listener: Listener,
    /// Where [`finish`] hears of the exec.
    pub(crate) link: Link,
}

impl Start<'_> {
    /// Makes the process. This process must have one thread.
    ///
    /// # Errors
    /// [`RunError::System`], [`RunError::Filter`].
    pub(crate) fn begin(&self) -> Result<Starting, RunError> {
        let system = |what| move |cause| RunError::System { what, cause };
        let (link, childs) = Link::pair().map_err(system("socketpair"))?;
        match fork().map_err(system("fork"))? {
            Forked::Child => {
                drop(link);
                self.become_program(&childs)
            }
            Forked::Parent(pid) => {
                drop(childs);
                let received = link.receive();
                let message = received.as_ref().map(|received| received.message);
                match (message, received.and_then(|received| received.file)) {
                    (Some(Message::Started(_)), Some(file)) => {
                        Ok(Starting { pid, listener: Listener::from(file), link })
                    }
                    (Some(Message::NotFiltered(errno)), _) => {
                        Err(RunError::Filter { cause: io::Error::from_raw_os_error(errno) })
                    }
                    _ => Err(RunError::System {
                        what: "starting the program",
                        cause: io::ErrorKind::UnexpectedEof.into(),
                    }),
                }
            }
        }
    }

    fn become_program(&self, link: &Link) -> ! {
        let errno = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        match self.filter_this_process() {
            Err(error) => link.send(Message::NotFiltered(errno(&error)), None),
            Ok(listener) => {
                link.send(Message::Started(rustix::process::getpid()), Some(listener.as_fd()));
                drop(listener);
                let error = Command::new(&self.program[0])
                    .args(&self.program[1..])
                    .envs(self.environment.iter().map(|(name, value)| (name, value)))
                    .exec();
                link.send(Message::NotExecuted(errno(&error)), None);
            }
        }
        process::exit(i32::from(crate::run::OUR_FAILURE.0))
    }

    fn filter_this_process(&self) -> io::Result<Listener> {
        self.mask.apply()?;
        // If guard and supervisor die together, at least the program itself goes too.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let effective = capabilities(None)?.effective;
        if !effective.contains(CapabilitySet::SYS_ADMIN) {
            set_no_new_privs(true)?;
        }
        host::seccomp::install(self.filter)
    }
}

/// Waits until the program is executed. Someone must serve its calls meanwhile.
///
/// # Errors
/// The exec's; its process then ends by itself.
pub(crate) fn finish(link: &Link) -> io::Result<()> {
    match link.receive().map(|received| received.message) {
        Some(Message::NotExecuted(errno)) => Err(io::Error::from_raw_os_error(errno)),
        _ => Ok(()),
    }
}
