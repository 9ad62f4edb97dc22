//! An open file as a front end keeps it: closed once, after what runs on it was given up and has ended.
//!
//! Takes no lock.

use sync::{Refcount, WaitQueue};
use uapi::Errno;

/// Who runs a command on a file, and whether the file is open.
pub(super) struct OpenFile {
    /// One until the file is closed.
    open: Refcount,
    running: Refcount,
    idle: WaitQueue,
}

impl OpenFile {
    pub(super) fn new() -> Self {
        Self { open: Refcount::new(1), running: Refcount::new(1), idle: WaitQueue::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.read() == 1
    }

    /// Runs a command.
    ///
    /// # Errors
    /// The command's; `EBADF` where the file is closed.
    pub(super) fn run<T>(&self, command: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if !self.running.inc_not_zero() {
            return Err(Errno::EBADF);
        }
        let result = command();
        self.put();
        result
    }

    /// Lets no command begin, has those that run given up, and waits for them.
    ///
    /// # Errors
    /// `EBADF` where it is closed already.
    pub(super) fn close(&self, give_up: impl FnOnce()) -> Result<(), Errno> {
        if !self.open.dec_if_one() {
            return Err(Errno::EBADF);
        }
        give_up();
        self.put();
        self.idle.wait_zero(&self.running);
        Ok(())
    }

    fn put(&self) {
        if self.running.dec_and_test() {
            self.idle.wake_all();
        }
    }
}
