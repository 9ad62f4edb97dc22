//! Sleeping on a 32-bit word until somebody changes it.
//!
//! Takes no lock. Source: [futex(2)].

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec};

/// Who sleeps on the same word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Threads of this process.
    Process,
    /// Any process that maps the memory.
    Shared,
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The word had another value already.
    Changed,
    /// The time was over.
    TimedOut,
    /// Woken, interrupted by a signal, or for no reason: look at the word again.
    Woken,
}

/// Sleeps while `word` is `expected`, until it is woken or `timeout` is over.
pub fn wait(word: &AtomicU32, expected: u32, scope: Scope, timeout: Option<Duration>) -> Ended {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match futex::wait(word, scope.flags(), expected, timeout.as_ref()) {
        Err(Errno::AGAIN) => Ended::Changed,
        Err(Errno::TIMEDOUT) => Ended::TimedOut,
        Ok(()) | Err(_) => Ended::Woken,
    }
}

/// Wakes at most `count` threads that sleep on `word` and returns how many there were.
pub fn wake(word: &AtomicU32, count: u32, scope: Scope) -> usize {
    futex::wake(word, scope.flags(), count).unwrap_or(0)
}

impl Scope {
    fn flags(self) -> Flags {
        match self {
            Self::Process => Flags::PRIVATE,
            Self::Shared => Flags::empty(),
        }
    }
}
