//! An open file as a front end keeps it: released once, when nobody has a descriptor of it any more, after what runs on it
//! was given up and has ended.
//!
//! Takes a leaf, where a scenario forks; whether there is a child is another.

use sync::{Mutex, Named, Rank, Refcount, WaitQueue};
use uapi::Errno;

/// Who has descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// The one whose threads make calls.
    Program,
    /// What it forked.
    Child,
}

/// The child that the program may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Child {
    /// There is none.
    None,
    /// It has what was open when it was forked.
    Runs,
    /// It closes what it has.
    Exits,
}

pub(super) enum ChildLock {}

impl Rank for ChildLock {
    const ORDER: u8 = 145;
    const NAME: &'static str = "child";
}

/// Who runs a command on a file, and whether the file is open.
pub(super) struct OpenFile {
    /// How many processes have a descriptor.
    descriptors: Refcount,
    /// Which have one, where there may be two.
    holders: Option<Mutex<HoldersLock, Holders>>,
    running: Refcount,
    idle: WaitQueue,
}

/// Which processes have a descriptor of a file.
#[derive(Debug, Hash)]
struct Holders {
    program: bool,
    child: bool,
}

pub(super) enum HoldersLock {}

impl Rank for HoldersLock {
    const ORDER: u8 = 144;
    const NAME: &'static str = "descriptors";
}

impl OpenFile {
    /// The program has the file that `name` returns. `forks` says whether another process may get it too.
    pub(super) fn new(forks: bool, name: impl Fn() -> String) -> Self {
        let holders = Holders { program: true, child: false };
        Self {
            descriptors: Refcount::new(1).named("descriptors", &name),
            holders: forks.then(|| Mutex::new(holders).named("holders", &name)),
            running: Refcount::new(1).named("running", &name),
            idle: WaitQueue::new().named("idle", &name),
        }
    }

    /// Whether anybody has it.
    pub(super) fn is_open(&self) -> bool {
        self.descriptors.read() > 0
    }

    /// Whether the program has it.
    pub(super) fn is_the_programs(&self) -> bool {
        match &self.holders {
            None => self.is_open(),
            Some(holders) => holders.lock().program,
        }
    }

    /// Gives the child what the program has.
    pub(super) fn fork(&self) {
        let Some(holders) = &self.holders else { return };
        let mut holders = holders.lock();
        if holders.program && !holders.child {
            self.descriptors.inc();
            holders.child = true;
        }
    }

    /// Runs a command of the program's.
    ///
    /// # Errors
    /// The command's; `EBADF` where the program has closed the file.
    pub(super) fn run<T>(&self, command: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if self.holders.is_some() && !self.is_the_programs() {
            return Err(Errno::EBADF);
        }
        if !self.running.inc_not_zero() {
            return Err(Errno::EBADF);
        }
        let result = command();
        self.put();
        result
    }

    /// Closes a process's descriptor. If it was the last: lets no command begin, has those that run given up, waits for
    /// them, and returns true.
    ///
    /// # Errors
    /// `EBADF` where the process has none.
    pub(super) fn close(&self, by: Process, give_up: impl FnOnce()) -> Result<bool, Errno> {
        let is_last = match &self.holders {
            None if self.descriptors.dec_if_one() => true,
            None => return Err(Errno::EBADF),
            Some(holders) => {
                let mut holders = holders.lock();
                let has = match by {
                    Process::Program => &mut holders.program,
                    Process::Child => &mut holders.child,
                };
                if !std::mem::take(has) {
                    return Err(Errno::EBADF);
                }
                self.descriptors.dec_and_test()
            }
        };
        if is_last {
            give_up();
            self.put();
            self.idle.wait_zero(&self.running);
        }
        Ok(is_last)
    }

    fn put(&self) {
        if self.running.dec_and_test() {
            self.idle.wake_all();
        }
    }
}
