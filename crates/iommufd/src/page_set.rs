//! What one mapping command named: memory that is pinned once, however often it is copied, and charged to somebody.
//!
//! A context of the mock platform remembers each, so that pins and charges can be counted as the kernel counts them: by
//! command and by page. On other platforms nothing is charged, and areas of one memory are told apart by address alone.
//! `owner` is OBJECTS, a leaf.

use std::sync::Arc;

use sync::{Mutex, rank};

use crate::{Caller, PinAccess, PinFault, Pinned, Source};

/// Memory as one command mapped it.
pub struct PageSet {
    memory: Arc<dyn Source>,
    owner: Mutex<rank::Objects, Owner>,
}

/// Who answers for what is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The process, by its number.
    pub(crate) process: u32,
    pub(crate) charge: Charge,
}

/// What pinned pages are held against, beside being told of as pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// Nothing: the process may lock as much as it likes.
    Nothing,
    /// What its user may lock.
    User,
    /// What it may lock itself.
    Process,
}

impl PageSet {
    /// Of memory that `caller` maps in a context that charges processes, or users.
    pub(crate) fn new(
        memory: Arc<dyn Source>,
        caller: &dyn Caller,
        charges_process: bool,
    ) -> Arc<Self> {
        let charge = match (caller.may_lock_memory(), charges_process) {
            (true, _) => Charge::Nothing,
            (false, true) => Charge::Process,
            (false, false) => Charge::User,
        };
        let owner = Owner { process: caller.process(), charge };
        Arc::new(Self { memory, owner: Mutex::new(owner) })
    }

    /// Who answers for it.
    pub(crate) fn owner(&self) -> Owner {
        *self.owner.lock()
    }

    /// Makes another process answer for it. What it is held against stays.
    pub(crate) fn hand_over(&self, process: u32) {
        self.owner.lock().process = process;
    }
}

impl Source for PageSet {
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        self.memory.pin(at, length, access)
    }

    fn is_file(&self) -> bool {
        self.memory.is_file()
    }

    fn page_set(&self) -> Option<&PageSet> {
        Some(self)
    }
}
