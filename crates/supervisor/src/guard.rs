//! The process that the user started: thin, and there for others to see.
//!
//! It stands for the program towards whoever started it: forwards the signals sent to it, stops when
//! the program stops, ends with the program's status. It also holds the listener, so that calls wait
//! rather than fail if the supervisor dies; then it kills the whole tree.
//!
//! Takes no lock; one thread.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use host::signal::{Mask, Received, Signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::descendants;
use crate::link::{Link, Message};
use crate::run::{ExitStatus, OUR_FAILURE};

/// What we read rather than suffer. Those of a terminal reach the program without us; those that a
/// process sends to us are meant for the program.
pub(crate) const FORWARDED: &[Signal] = &[
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::CONT,
    Signal::TSTP,
    Signal::WINCH,
];

/// Long enough for a signal to a process group to reach its last member.
const GROUP_SIGNAL_TIME: Duration = Duration::from_millis(5);

/// Signals of this process, read one by one.
pub(crate) struct Inbox {
    signals: Signals,
    /// What was blocked before, which the program inherits.
    pub(crate) before: Mask,
}

impl Inbox {
    /// Blocks the signals that are read.
    pub(crate) fn open() -> io::Result<Self> {
        let mask = Mask::of(FORWARDED);
        let before = mask.apply()?;
        Ok(Self { signals: Signals::open(&mask)?, before })
    }
}

/// Stands before the supervisor and the program until both have ended.
pub(crate) fn stand(link: &Link, inbox: &Inbox, supervisor: Pid) -> ExitStatus {
    let mut guard = Guard { supervisor, program: None, early: vec![], _listener: None };
    loop {
        let mut sources =
            [PollFd::new(&inbox.signals, PollFlags::IN), PollFd::new(link, PollFlags::IN)];
        if poll(&mut sources, None).is_err() {
            continue;
        }
        let news = !sources[1].revents().is_empty();
        while let Ok(Some(received)) = inbox.signals.take() {
            guard.forward(received);
        }
        if news && let Some(status) = guard.hear(link) {
            return status;
        }
    }
}

struct Guard {
    supervisor: Pid,
    program: Option<Pid>,
    /// Signals that came before there was a program.
    early: Vec<Received>,
    /// Held, never used: trapped calls wait as long as someone holds it.
    _listener: Option<OwnedFd>,
}

impl Guard {
    fn forward(&mut self, received: Received) {
        let Some(program) = self.program else {
            self.early.push(received);
            return;
        };
        if !received.by_process {
            return;
        }
        if received.signal == Signal::CONT {
            // Mostly sent to the whole group by the shell, and then the program has it already.
            thread::sleep(GROUP_SIGNAL_TIME);
            if !is_stopped(program) {
                return;
            }
        }
        // The program may have ended; its status is under way.
        let _ = kill_process(program, received.signal);
    }

    /// Takes one message. Returns what to exit with once there is nothing left to wait for.
    fn hear(&mut self, link: &Link) -> Option<ExitStatus> {
        let Some(received) = link.receive() else {
            return Some(self.supervisor_died());
        };
        match received.message {
            Message::Started(program) => {
                self.program = Some(program);
                self._listener = received.file;
                for signal in std::mem::take(&mut self.early) {
                    self.forward(signal);
                }
            }
            // Stopped by the same terminal ourselves, we may read this when it goes on again.
            Message::Stopped if self.program.is_some_and(is_stopped) => {
                let _ = kill_process(getpid(), Signal::STOP);
            }
            Message::Ended(status) => {
                let _ = waitpid(Some(self.supervisor), WaitOptions::empty());
                return Some(ExitStatus(status));
            }
            Message::Stopped
            | Message::Continued
            | Message::NotExecuted(_)
            | Message::NotFiltered(_) => {}
        }
        None
    }

    fn supervisor_died(&self) -> ExitStatus {
        descendants::kill_all();
        let text = "bindery: the supervisor died, and so the program was killed";
        let _ = writeln!(io::stderr(), "{text}");
        OUR_FAILURE
    }
}

fn is_stopped(process: Pid) -> bool {
    descendants::stat(process).is_some_and(|stat| stat.state == 'T')
}
