//! A start for threads.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Where threads wait for one another, awake: one that had to be woken would begin when the others have ended.
pub(crate) struct Start(AtomicUsize);

impl Start {
    /// Of so many.
    pub(crate) const fn of(threads: usize) -> Self {
        Self(AtomicUsize::new(threads))
    }

    /// Returns when all are here.
    pub(crate) fn wait(&self) {
        self.0.fetch_sub(1, SeqCst);
        while self.0.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}
