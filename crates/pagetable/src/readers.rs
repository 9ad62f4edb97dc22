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
//! One lock inside, a leaf: the list of readers. Not held while a writer waits; walking takes no lock.

use std::hint;
use std::sync::{Arc, PoisonError};

use crate::memory::{AtomicU32, Barriers, Mutex, MutexGuard, Ordering};

/// Those who may be walking: in one table, or in several whose changes are waited for together.
#[derive(Debug)]
pub struct Readers {
    announcements: Mutex<Vec<Arc<Announcement>>>,
    barriers: Barriers,
}

impl Readers {
    /// Nobody yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { announcements: Mutex::default(), barriers: Barriers::new() })
    }

    /// Registers someone who will translate. Takes the list of readers.
    pub fn visitor(self: &Arc<Self>) -> Visitor {
        let announcement = Arc::new(Announcement::default());
        self.lock().push(Arc::clone(&announcement));
        Visitor { announcement, readers: Arc::clone(self) }
    }

    /// Returns when every walk that began before the call has ended. Walks that begin later see all
    /// changes made before the call. Costs one barrier on all threads, or nothing where nobody is
    /// registered. Never call it while walking.
    pub fn wait(&self) {
        for (announcement, seen) in self.walking() {
            announcement.wait_while(seen, &self.barriers);
        }
    }

    /// Those whose walks began before the call, and what they announced.
    fn walking(&self) -> Vec<(Arc<Announcement>, u32)> {
        let announcements = self.lock();
        if announcements.is_empty() {
            return Vec::new();
        }
        self.barriers.heavy();
        let sequences = announcements
            .iter()
            .map(|announcement| (announcement, announcement.sequence.load(Ordering::Acquire)));
        let walking = sequences.filter(|(_, sequence)| walking(*sequence));
        walking.map(|(announcement, sequence)| (Arc::clone(announcement), sequence)).collect()
    }

    /// How many are registered.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn forget(&self, announcement: &Arc<Announcement>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, announcement));
    }

    /// Announces a walk. Returns what [`end`](Self::end) must be told.
    #[inline]
    pub(crate) fn begin(&self, announcement: &Announcement) -> u32 {
        // Odd, even if the walk before never ended.
        let sequence = announcement.sequence.load(Ordering::Relaxed).wrapping_add(1) | 1;
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

/// A licence to translate through any table that has these readers. Unregisters itself when dropped.
#[derive(Debug)]
pub struct Visitor {
    announcement: Arc<Announcement>,
    readers: Arc<Readers>,
}

impl Visitor {
    /// Announces a stay: what is translated from now on stays valid until [`leave`](Self::leave). A
    /// second announcement changes nothing. Takes no lock and never waits.
    #[inline]
    pub fn enter(&mut self) {
        if !self.is_inside() {
            self.begin();
        }
    }

    /// Ends the stay, if there is one.
    #[inline]
    pub fn leave(&mut self) {
        let sequence = self.announcement.sequence.load(Ordering::Relaxed);
        if walking(sequence) {
            self.readers.end(&self.announcement, sequence);
        }
    }

    /// Whether a stay is announced.
    #[inline]
    pub fn is_inside(&self) -> bool {
        walking(self.announcement.sequence.load(Ordering::Relaxed))
    }

    pub(crate) const fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    pub(crate) const fn announcement(&self) -> &Arc<Announcement> {
        &self.announcement
    }

    #[inline]
    pub(crate) fn begin(&mut self) -> u32 {
        self.readers.begin(&self.announcement)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.leave();
        self.readers.forget(&self.announcement);
    }
}

/// What one reader tells. Alone on its cache line, and on the one that is fetched along with it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Announcement {
    /// Odd while walking. Written by the reader only.
    sequence: AtomicU32,
    /// How many writers sleep until `sequence` changes.
    awaited: AtomicU32,
}

impl Announcement {
    /// Returns once the walk that announced `seen` has ended.
    fn wait_while(&self, seen: u32, barriers: &Barriers) {
        if self.changes_soon(seen) {
            return;
        }
        self.awaited.fetch_add(1, Ordering::Relaxed);
        barriers.heavy();
        while self.sequence.load(Ordering::Acquire) == seen {
            self.sleep(seen);
        }
        self.awaited.fetch_sub(1, Ordering::Relaxed);
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
        mem::futex::wake(&self.sequence, u32::MAX >> 1, mem::futex::Scope::Process);
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
