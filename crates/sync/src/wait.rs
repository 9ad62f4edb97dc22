//! Sleeping until a condition may have changed.
//!
//! A queue counts its wake-ups. A sleeper notes that number, then evaluates its condition, then
//! sleeps only while the number is as noted. Whoever changes the condition changes it first and
//! wakes second; so a change that the evaluation missed raises the number after it was noted, and
//! no wake-up is lost.
//!
//! The queue's own lock is a leaf, held for the length of an addition, never around a condition.

use std::sync::PoisonError;

use crate::count::Refcount;
use crate::hook::{self, Kind, Object, ObjectId};
use crate::mutex::Guard;
use crate::rank::Rank;

#[expect(clippy::disallowed_types, reason = "the wait queue is what everyone else waits with")]
type Lock = std::sync::Mutex<Turns>;
#[expect(clippy::disallowed_types, reason = "the wait queue is what everyone else waits with")]
type Sleepers = std::sync::Condvar;

/// A queue of sleeping threads, all woken at once.
#[derive(Debug)]
pub struct WaitQueue {
    turns: Lock,
    sleepers: Sleepers,
    object: Object,
}

#[derive(Debug, Default)]
struct Turns {
    wake_ups: u64,
    /// Threads that sleep. Where there is none, waking makes no system call.
    asleep: u32,
}

impl WaitQueue {
    /// A queue without sleepers.
    pub fn new() -> Self {
        let object = Object::new(NAME);
        // Wake-ups make a difference to sleepers only, and are told to them.
        hook::holds(object.id(), || 0);
        Self { turns: Lock::default(), sleepers: Sleepers::new(), object }
    }

    /// Sleeps until `count` is zero. Whoever makes it zero then calls [`wake_all`](Self::wake_all).
    #[track_caller]
    pub fn wait_zero(&self, count: &Refcount) {
        self.wait_until(|| count.is_zero());
    }

    /// Sleeps, with the lock of `guard` given back, as long as `must_wait` holds. Returns the lock
    /// taken again, with `must_wait` false under it.
    ///
    /// `must_wait` is asked again after each wake-up and must carry nothing from a time when it held to the
    /// next: an explorer takes it to begin anew.
    ///
    /// Whoever may make `must_wait` false changes the data under the lock and calls
    /// [`wake_all`](Self::wake_all), under the lock or after. Other locks that the caller holds
    /// stay held: there should be none that the waker needs.
    #[track_caller]
    pub fn wait_while<'a, R: Rank, T>(
        &self,
        mut guard: Guard<'a, R, T>,
        mut must_wait: impl FnMut(&T) -> bool,
    ) -> Guard<'a, R, T> {
        guard.tell_if_unseen();
        loop {
            let noted = self.note();
            if !must_wait(guard.value()) {
                return guard;
            }
            let mutex = guard.mutex();
            drop(guard);
            self.sleep(noted);
            guard = mutex.lock();
        }
    }

    /// Wakes every thread that sleeps here; each evaluates its condition again. Called after the
    /// change that it announces.
    #[track_caller]
    pub fn wake_all(&self) {
        hook::before(Kind::Wake, self.object.id(), NAME);
        let anybody = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.wake_ups += 1;
            turns.asleep > 0
        };
        if anybody {
            self.sleepers.notify_all();
        }
    }

    pub(crate) const fn id(&self) -> ObjectId {
        self.object.id()
    }

    /// Sleeps until `done` holds of state that is not behind a lock.
    #[track_caller]
    pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
        loop {
            let noted = self.note();
            if done() {
                return;
            }
            self.sleep(noted);
        }
    }

    /// The wake-ups so far, to be noted before a condition is evaluated.
    #[track_caller]
    fn note(&self) -> u64 {
        hook::before(Kind::WaitCheck, self.object.id(), NAME);
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).wake_ups
    }

    /// Sleeps while there was no wake-up since `noted`.
    #[track_caller]
    fn sleep(&self, noted: u64) {
        hook::before(Kind::Sleep, self.object.id(), NAME);
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.asleep += 1;
        let woken = self.sleepers.wait_while(turns, |turns| turns.wake_ups == noted);
        woken.unwrap_or_else(PoisonError::into_inner).asleep -= 1;
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

const NAME: &str = "WaitQueue";
