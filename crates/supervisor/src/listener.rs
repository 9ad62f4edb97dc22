//! The threads that receive calls, answer them, and never all wait at once.
//!
//! One thread receives; it serves what it received and receives again. (The kernel wakes every thread
//! that waits to receive for each call, so a second one would cost each call a wake-up.) Before it
//! waits, or where calls queue up, it passes its turn to another, which is parked or else made for it; when
//! it is done it parks in its turn. That a command is about to sleep, `sync` tells.
//!
//! One lock, a leaf.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use host::notify::Notification;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sync::hook::{self, Hook, Kind, Operation};

use crate::front_end::FrontEnd;
use crate::requests;

/// Listeners there may be.
const LISTENERS_MOST: usize = 256;
/// Listeners that stay parked; one more ends.
const PARKED_MOST: usize = 4;
/// Calls between two looks at whether more are queued.
const CALLS_BETWEEN_LOOKS: u32 = 8;

/// The listening threads.
pub(crate) struct Listeners {
    front: Arc<FrontEnd>,
    state: Mutex<State>,
    offered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Threads there are.
    all: usize,
    /// Threads that wait for a turn.
    parked: usize,
    /// The turn is nobody's: the next parked thread takes it.
    offered: bool,
}

/// The right to receive, as one thread has or lacks it.
pub(crate) struct Turn {
    listeners: Arc<Listeners>,
    held: Cell<bool>,
}

impl Listeners {
    /// Starts the first.
    ///
    /// # Errors
    /// `EAGAIN` – no thread can be started.
    pub(crate) fn start(front: Arc<FrontEnd>) -> io::Result<()> {
        let (state, offered) = (Mutex::default(), Condvar::new());
        let listeners = Arc::new(Self { front, state, offered });
        let mut state = listeners.lock();
        listeners.add(&mut state)
    }

    /// Starts a thread that has the turn.
    fn add(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let listeners = Arc::clone(self);
        thread::Builder::new().name("listener".to_owned()).spawn(move || listeners.listen())?;
        state.all += 1;
        Ok(())
    }

    fn listen(self: &Arc<Self>) {
        let turn = Rc::new(Turn { listeners: Arc::clone(self), held: Cell::new(true) });
        let _told_of_waits = hook::install_before_sleep(Rc::<Turn>::clone(&turn));
        let mut calls = 0_u32;
        loop {
            match self.front.listener.receive() {
                Ok(call) => {
                    calls = calls.wrapping_add(1);
                    turn.serve(&call, calls.is_multiple_of(CALLS_BETWEEN_LOOKS));
                }
                // Interrupted, or the caller was killed meanwhile.
                Err(_) if !self.polled().contains(PollFlags::HUP) => {}
                Err(_) => return,
            }
            if !turn.held.get() {
                if !self.park() {
                    return;
                }
                turn.held.set(true);
            }
        }
    }

    /// Waits for a turn; `false` where enough others do.
    fn park(&self) -> bool {
        let mut state = self.lock();
        if state.parked >= PARKED_MOST {
            state.all -= 1;
            return false;
        }
        state.parked += 1;
        while !state.offered {
            state = self.offered.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.offered = false;
        state.parked -= 1;
        true
    }

    /// What can be done on the listener now: `IN` where a call is queued, `HUP` where no process is left
    /// under the filter.
    fn polled(&self) -> PollFlags {
        let mut source = [PollFd::new(&self.front.listener, PollFlags::IN)];
        match poll(&mut source, Some(&Timespec::default())) {
            Ok(_) => source[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn serve(&self, call: &Notification, look: bool) {
        if look && self.listeners.polled().contains(PollFlags::IN) {
            self.pass();
        }
        requests::serve(&self.listeners.front, self, call);
    }

    /// Makes sure that somebody receives while the caller waits, if that can be had.
    pub(crate) fn pass(&self) {
        if !self.held.get() {
            return;
        }
        let mut state = self.listeners.lock();
        if state.parked > 0 {
            state.offered = true;
            drop(state);
            self.listeners.offered.notify_one();
            self.held.set(false);
        } else if state.all < LISTENERS_MOST {
            // Without another thread calls wait longer, no more.
            self.held.set(self.listeners.add(&mut state).is_err());
        }
    }

    /// To be called before a command that may wait. If this thread serves alone, nobody holds what it
    /// could wait for without telling, and it passes its turn when it does wait; so it need not yet.
    pub(crate) fn pass_unless_alone(&self) {
        let alone = {
            let state = self.listeners.lock();
            state.all == state.parked + 1
        };
        if !alone {
            self.pass();
        }
    }
}

impl Hook for Turn {
    fn before(&self, operation: Operation) {
        debug_assert_eq!(operation.kind, Kind::Sleep, "asked before nothing else");
        self.pass();
    }
}
