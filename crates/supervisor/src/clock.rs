//! The clock behind every [`Deadline`](sync::Deadline): one thread that sleeps until the next is due.
//!
//! Core crates arm deadlines and know no time; this fires them. One lock, a leaf: it says only whether
//! the thread has to look again.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sync::Timers;

/// Fires the deadlines of its [`timers`](Self::timers) once it is [started](Self::start). Its thread
/// ends when this is dropped.
#[derive(Debug)]
pub struct Clock {
    timers: Timers,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct Bell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// A deadline may be nearer than the thread knows.
    nearer: bool,
    ended: bool,
}

impl Clock {
    /// A clock that stands still.
    pub fn new() -> Self {
        let bell = Arc::new(Bell::default());
        let rung = Arc::clone(&bell);
        Self { timers: Timers::new(move || rung.ring(|state| state.nearer = true)), bell }
    }

    /// Where deadlines are armed.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Lets it run, in a thread of its own. To be called once.
    ///
    /// # Errors
    /// `EAGAIN` – no thread can be started.
    pub fn start(&self) -> io::Result<()> {
        let (timers, bell) = (self.timers.clone(), Arc::clone(&self.bell));
        thread::Builder::new().name("clock".to_owned()).spawn(move || run(&timers, &bell))?;
        Ok(())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.bell.ring(|state| state.ended = true);
    }
}

fn run(timers: &Timers, bell: &Bell) {
    let start = Instant::now();
    let elapsed_ms = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    loop {
        timers.fire_due(elapsed_ms());
        // What was armed meanwhile has rung.
        let sleep_ms = timers.next_due().map(|due_ms| due_ms.saturating_sub(elapsed_ms()));
        if !bell.wait(sleep_ms.map(Duration::from_millis)) {
            return;
        }
    }
}

impl Bell {
    fn ring(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    /// Sleeps until it is rung, at most for `longest`; `false` where all is over.
    fn wait(&self, longest: Option<Duration>) -> bool {
        let asleep = |state: &mut State| !state.nearer && !state.ended;
        let state = self.lock();
        let mut state = match longest {
            Some(longest) => {
                let woken = self.changed.wait_timeout_while(state, longest, asleep);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let woken = self.changed.wait_while(state, asleep);
                woken.unwrap_or_else(PoisonError::into_inner)
            }
        };
        state.nearer = false;
        !state.ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync::{WaitQueue, rank};

    /// Sleeps until the deadline has fired.
    fn outwait(timers: &Timers, duration_ms: u64) {
        let queue = Arc::new(WaitQueue::new());
        let deadline = timers.arm(duration_ms, &queue);
        let nothing = sync::Mutex::<rank::Dsm, ()>::new(());
        drop(queue.wait_while(nothing.lock(), |()| !deadline.fired()));
    }

    #[test]
    fn deadlines_fire_when_they_are_due_and_a_nearer_one_first() {
        let clock = Clock::new();
        clock.start().unwrap();
        let begun = Instant::now();
        thread::scope(|scope| {
            let late = scope.spawn(|| {
                outwait(clock.timers(), 200);
                begun.elapsed()
            });
            outwait(clock.timers(), 20);
            let early = begun.elapsed();
            // The clock counts whole milliseconds.
            assert!(early >= Duration::from_millis(19), "{early:?}");
            assert!(!late.is_finished(), "{early:?}");
            let late = late.join().unwrap();
            assert!(late >= Duration::from_millis(199), "{late:?}");
        });
    }

    #[test]
    fn its_thread_ends_with_it() {
        let clock = Clock::new();
        clock.start().unwrap();
        let bell = Arc::downgrade(&clock.bell);
        drop(clock);
        let begun = Instant::now();
        while bell.strong_count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "the thread goes on");
            thread::yield_now();
        }
    }
}
