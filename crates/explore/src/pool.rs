//! Work shared among workers: whoever has none takes the first untried state of somebody else's path.
//!
//! One lock, a leaf, held for a few additions.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::frame::Frame;
use crate::seen::Seen;
use crate::settings::Budget;
use crate::tally::Counts;

/// A path whose last state is to be explored from its chosen move on.
pub(crate) struct Unit {
    pub(crate) path: Vec<Frame>,
}

/// The work that nobody does yet, and how far the work has come.
pub(crate) struct Pool {
    queue: Mutex<Queue>,
    changed: Condvar,
    seen: Seen,
    stopped: AtomicBool,
    hungry: AtomicBool,
    budget: Budget,
    began: Instant,
}

struct Queue {
    units: VecDeque<Unit>,
    working: usize,
    waiting: usize,
    counts: Counts,
    paths: u64,
    /// The share of all executions that is done, as guessed.
    done: f64,
    /// New states that the last report of each worker expected.
    ahead: HashMap<ThreadId, f64>,
    exhausted: Option<Limit>,
}

/// A limit of the [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Budget::time`].
    Time,
    /// [`Budget::memory_bytes`].
    Memory,
    /// [`Budget::paths`].
    Paths,
    /// [`Settings::violations_max`](crate::Settings::violations_max).
    Violations,
}

/// How far a search has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What it took so far.
    pub counts: Counts,
    /// For how long it has run.
    pub elapsed: Duration,
    /// The share of the work that is done, from 0 to 1, guessed. Where states are cached: the states seen, of
    /// those and what untried moves are expected to add, judging by what such moves added. Too high at first,
    /// while little is known of moves near the beginning. Else: each move is taken for as much work as the
    /// others from the same state.
    pub done: f64,
    /// The bound on preemptions, if there is one.
    pub preemptions: Option<u32>,
}

impl Progress {
    /// States a second.
    pub fn rate(&self) -> f64 {
        self.counts.states as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// How long the rest would take if it went on like this; `None` while too little is done to say.
    pub fn left(&self) -> Option<Duration> {
        if self.done < 1e-6 {
            return None;
        }
        let seconds = self.elapsed.as_secs_f64() * (1.0 - self.done).max(0.0) / self.done;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

impl Pool {
    /// A pool with the whole of a search in it.
    pub(crate) fn new(budget: Budget) -> Self {
        let queue = Queue {
            units: VecDeque::from([Unit { path: Vec::new() }]),
            working: 0,
            waiting: 0,
            counts: Counts::default(),
            paths: 0,
            done: 0.0,
            ahead: HashMap::new(),
            exhausted: None,
        };
        Self {
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            seen: Seen::new(),
            stopped: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
            budget,
            began: Instant::now(),
        }
    }

    /// The next unit. `None` once nobody works and nothing is left.
    pub(crate) fn take(&self) -> Option<Unit> {
        let mut queue = self.lock();
        queue.waiting += 1;
        let unit = loop {
            if self.is_stopped() {
                break None;
            }
            if let Some(unit) = queue.units.pop_front() {
                queue.working += 1;
                break Some(unit);
            }
            if queue.working == 0 {
                break None;
            }
            self.hungry.store(true, Relaxed);
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        queue.waiting -= 1;
        self.hungry.store(queue.waiting > queue.units.len(), Relaxed);
        drop(queue);
        self.changed.notify_all();
        unit
    }

    /// What [`take`](Self::take) gave out is done.
    pub(crate) fn finish(&self) {
        self.lock().working -= 1;
        self.changed.notify_all();
    }

    pub(crate) fn give(&self, unit: Unit) {
        let mut queue = self.lock();
        queue.units.push_back(unit);
        self.hungry.store(queue.waiting > queue.units.len(), Relaxed);
        drop(queue);
        self.changed.notify_all();
    }

    /// Whether somebody has nothing to do.
    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry.load(Relaxed)
    }

    pub(crate) fn stop(&self) {
        // Under the lock: nobody is between looking at the flag and waiting.
        let queue = self.lock();
        self.stopped.store(true, Relaxed);
        drop(queue);
        self.changed.notify_all();
    }

    /// Stops the search because of a limit that is not of the budget.
    pub(crate) fn stop_at(&self, limit: Limit) {
        self.lock().exhausted.get_or_insert(limit);
        self.stop();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Adds the counts and shares of so many paths, notes how many states their worker expects ahead, and stops
    /// the search where the budget is used up.
    pub(crate) fn report(
        &self,
        paths: u64,
        before: &Counts,
        after: &Counts,
        share: f64,
        ahead: f64,
    ) {
        let mut queue = self.lock();
        let looks = queue.paths / LOOK_EVERY;
        queue.paths += paths;
        let is_time_to_look = queue.paths / LOOK_EVERY > looks;
        queue.counts.executions += after.executions - before.executions;
        queue.counts.complete += after.complete - before.complete;
        queue.counts.steps += after.steps - before.steps;
        queue.counts.depth = queue.counts.depth.max(after.depth);
        queue.done += share;
        queue.ahead.insert(thread::current().id(), ahead);
        let limit = self.limit(queue.paths, is_time_to_look);
        if limit.is_some() {
            queue.exhausted = limit;
            drop(queue);
            self.stop();
        }
    }

    /// The limit that stopped the search, if one did.
    pub(crate) fn exhausted(&self) -> Option<Limit> {
        self.lock().exhausted
    }

    pub(crate) fn progress(&self, preemptions: Option<u32>) -> Progress {
        let queue = self.lock();
        let counts = Counts { states: self.seen.states() as u64, ..queue.counts };
        let ahead: f64 = queue.ahead.values().sum();
        let done = match counts.states {
            0 => queue.done.min(1.0),
            states => states as f64 / (states as f64 + ahead),
        };
        Progress { counts, elapsed: self.began.elapsed(), done, preemptions }
    }

    fn limit(&self, paths: u64, is_time_to_look: bool) -> Option<Limit> {
        if paths >= self.budget.paths {
            return Some(Limit::Paths);
        }
        if !is_time_to_look {
            return None;
        }
        if self.seen.bytes() >= self.budget.memory_bytes {
            return Some(Limit::Memory);
        }
        (self.began.elapsed() >= self.budget.time).then_some(Limit::Time)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Paths between looks at the clock.
const LOOK_EVERY: u64 = 32;
