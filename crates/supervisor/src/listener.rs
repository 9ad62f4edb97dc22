//! The threads that receive calls, answer them, and never all wait at once.
//!
//! Two listen at first. One that is about to run a command that may wait first makes sure that another
//! is there to receive; those made for that end again when there are more than enough.
//!
//! Takes no lock; two counts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::front_end::FrontEnd;
use crate::requests;

/// Listeners there always are.
const LISTENERS_LEAST: usize = 2;
/// Listeners there may be.
const LISTENERS_MOST: usize = 256;
/// Idle listeners beyond which one ends.
const IDLE_MOST: usize = 4;

/// The listening threads.
pub(crate) struct Listeners {
    pub(crate) front: Arc<FrontEnd>,
    idle: AtomicUsize,
    all: AtomicUsize,
}

impl Listeners {
    /// Starts the first.
    ///
    /// # Errors
    /// `EAGAIN` – no thread can be started.
    pub(crate) fn start(front: Arc<FrontEnd>) -> io::Result<Arc<Self>> {
        let listeners = Arc::new(Self { front, idle: AtomicUsize::new(0), all: AtomicUsize::new(0) });
        for _ in 0..LISTENERS_LEAST {
            listeners.add()?;
        }
        Ok(listeners)
    }

    /// Makes sure that someone receives calls while the caller waits, if that can be had.
    pub(crate) fn keep_listening(self: &Arc<Self>) {
        if self.idle.load(Ordering::SeqCst) == 0 && self.all.load(Ordering::SeqCst) < LISTENERS_MOST {
            // Without another thread calls wait longer, no more.
            let _ = self.add();
        }
    }

    fn add(self: &Arc<Self>) -> io::Result<()> {
        let listeners = Arc::clone(self);
        self.all.fetch_add(1, Ordering::SeqCst);
        // Counted from now, so that two who need one do not both rely on a third.
        self.idle.fetch_add(1, Ordering::SeqCst);
        let started = thread::Builder::new().name("listener".to_owned()).spawn(move || listeners.listen());
        if started.is_err() {
            self.all.fetch_sub(1, Ordering::SeqCst);
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
        started.map(drop)
    }

    fn listen(self: &Arc<Self>) {
        loop {
            let received = self.front.listener.receive();
            self.idle.fetch_sub(1, Ordering::SeqCst);
            match received {
                Ok(call) => requests::serve(self, &call),
                Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
                Err(_) if self.nobody_is_left() => break,
                Err(_) => {}
            }
            if self.idle.load(Ordering::SeqCst) >= IDLE_MOST
                && self.all.load(Ordering::SeqCst) > LISTENERS_LEAST
            {
                break;
            }
            self.idle.fetch_add(1, Ordering::SeqCst);
        }
        self.all.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether no process is under the filter any more.
    fn nobody_is_left(&self) -> bool {
        let mut source = [PollFd::new(&self.front.listener, PollFlags::IN)];
        let polled = poll(&mut source, Some(&Timespec::default()));
        polled.is_ok() && source[0].revents().contains(PollFlags::HUP)
    }
}
