//! Waiting until nobody walks the table as it was.
//!
//! A reader announces that it walks with a plain store to a cache line of its own, and again when it
//! is done. Who changed the table issues one barrier on all threads and then waits for those readers
//! that were walking: a short spin, because a walk is short, then a sleep, because a reader that
//! lost its processor is not.
//!
//! The barrier is why plain stores are enough: a reader whose announcement the writer does not see
//! made it after the barrier, and therefore sees what the writer changed before.
//!
//! One lock inside, a leaf: the list of readers. Held while a writer waits, so that a reader that
//! joins waits too; walking takes no lock.

use std::hint;
use std::sync::{Arc, PoisonError};

use crate::memory::{AtomicU32, Barriers, Mutex, MutexGuard, Ordering};

/// Those who may be walking.
#[derive(Debug)]
pub struct Readers {
    announcements: Mutex<Vec<Arc<Announcement>>>,
    barriers: Barriers,
}

impl Readers {
    pub(crate) fn new() -> Self {
        Self { announcements: Mutex::default(), barriers: Barriers::new() }
    }

    /// Returns when every walk that began before the call has ended. Walks that begin later see all
    /// changes made before the call. Costs one barrier on all threads, or nothing where nobody is
    /// registered. Never call it while walking.
    pub fn wait(&self) {
        let announcements = self.lock();
        if announcements.is_empty() {
            return;
        }
        self.barriers.heavy();
        for announcement in announcements.iter() {
            announcement.wait_until_outside(&self.barriers);
        }
    }

    /// How many are registered.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn join(&self) -> Arc<Announcement> {
        let announcement = Arc::new(Announcement::default());
        self.lock().push(Arc::clone(&announcement));
        announcement
    }

    pub(crate) fn leave(&self, announcement: &Arc<Announcement>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, announcement));
    }

    /// Announces a walk. Returns what [`end`](Self::end) must be told.
    #[inline]
    pub(crate) fn begin(&self, announcement: &Announcement) -> u32 {
        let sequence = announcement.sequence.load(Ordering::Relaxed).wrapping_add(1);
        announcement.sequence.store(sequence, Ordering::Relaxed);
        self.barriers.light();
        sequence
    }

    #[inline]
    pub(crate) fn end(&self, announcement: &Announcement, sequence: u32) {
        announcement.sequence.store(sequence.wrapping_add(1), Ordering::Release);
        self.barriers.light();
        if announcement.awaited.load(Ordering::Relaxed) != 0 {
            announcement.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Announcement>>> {
        self.announcements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one reader tells. Alone on its cache line, and on the one that is fetched along with it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Announcement {
    /// Odd while walking. Written by the reader only.
    sequence: AtomicU32,
    /// Not zero while a writer sleeps until `sequence` changes.
    awaited: AtomicU32,
}

impl Announcement {
    fn wait_until_outside(&self, barriers: &Barriers) {
        let seen = self.sequence.load(Ordering::Acquire);
        if !walking(seen) || self.changes_soon(seen) {
            return;
        }
        self.awaited.store(1, Ordering::Relaxed);
        barriers.heavy();
        while self.sequence.load(Ordering::Acquire) == seen {
            self.sleep(seen);
        }
        self.awaited.store(0, Ordering::Relaxed);
    }

    fn changes_soon(&self, seen: u32) -> bool {
        (0..SPINS).any(|_| {
            hint::spin_loop();
            self.sequence.load(Ordering::Acquire) != seen
        })
    }

    #[cfg(not(loom))]
    fn sleep(&self, seen: u32) {
        mem::futex::wait(&self.sequence, seen, mem::futex::Scope::Process, None);
    }

    #[cfg(not(loom))]
    #[cold]
    fn wake(&self) {
        mem::futex::wake(&self.sequence, 1, mem::futex::Scope::Process);
    }

    #[cfg(loom)]
    fn sleep(&self, _seen: u32) {
        loom::thread::yield_now();
    }

    #[cfg(loom)]
    fn wake(&self) {}
}

const fn walking(sequence: u32) -> bool {
    sequence % 2 == 1
}

/// Looks before sleeping: a few microseconds.
const SPINS: u32 = if cfg!(loom) { 0 } else { 200 };
