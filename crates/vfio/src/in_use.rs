//! What runs on an open file, so that its last close can wait for it.
//!
//! Takes no lock.

use sync::{Named, Refcount, WaitQueue};

/// Counts what runs on a file.
pub(crate) struct InUse {
    /// One until the last close.
    open: Refcount,
    /// What runs on the file, and one for the file itself.
    running: Refcount,
    idle: WaitQueue,
}

impl InUse {
    /// Of a file that was just opened, of what `name` returns.
    pub(crate) fn new(name: impl Fn() -> String) -> Self {
        Self {
            open: Refcount::new(1).named("open", &name),
            running: Refcount::new(1).named("running", &name),
            idle: WaitQueue::new().named("idle", &name),
        }
    }

    /// Runs something that the last close has to wait for; `None` where that has begun.
    pub(crate) fn run<T>(&self, what: impl FnOnce() -> T) -> Option<T> {
        if !self.running.inc_not_zero() {
            return None;
        }
        // What came before may run still, so the count alone does not keep others from beginning.
        let result = if self.open.read() == 0 { None } else { Some(what()) };
        if self.running.dec_and_test() {
            self.idle.wake_all();
        }
        result
    }

    /// Lets nothing begin any more. Called once.
    pub(crate) fn shut(&self) {
        self.open.dec_if_one();
        if self.running.dec_and_test() {
            self.idle.wake_all();
        }
    }

    /// Returns when nothing runs any more.
    pub(crate) fn outwait(&self) {
        self.idle.wait_zero(&self.running);
    }
}
