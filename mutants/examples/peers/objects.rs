//! When an operation may take effect, and what it changes for others: the rules of [`sync::hook::Hook::before`].
//!
//! Takes no lock; all of an execution happens on one OS thread.

use std::collections::{BTreeMap, BTreeSet};

use sync::Armed;
use sync::hook::{Kind, ObjectId, Operation};

/// Who does something: script threads from 0.
pub(crate) type Thread = usize;

/// Set-up and check, which run alone.
pub(crate) const ALONE: Thread = usize::MAX;

/// What is known of the primitives of one execution.
#[derive(Default)]
pub(crate) struct Objects {
    holders: BTreeMap<ObjectId, Thread>,
    wake_ups: BTreeMap<ObjectId, u64>,
    noted: BTreeMap<(Thread, ObjectId), u64>,
    pub(crate) armed: BTreeMap<ObjectId, Armed>,
    ended: BTreeSet<ObjectId>,
}

impl Objects {
    /// Before anything was done.
    pub(crate) const NONE: Self = Self {
        holders: BTreeMap::new(),
        wake_ups: BTreeMap::new(),
        noted: BTreeMap::new(),
        armed: BTreeMap::new(),
        ended: BTreeSet::new(),
    };

    /// Whether the operation of a thread may take effect now.
    pub(crate) fn can(&self, thread: Thread, operation: &Operation) -> bool {
        let object = operation.object;
        if operation.kind == Kind::Acquire {
            return !self.holders.contains_key(&object);
        }
        let sleeps_on = self.noted.get(&(thread, object)) == Some(&self.woken(object));
        operation.kind != Kind::Sleep || !sleeps_on
    }

    /// Notes what the operation does. What it answers is to be dropped outside of any borrow.
    pub(crate) fn take_effect(&mut self, thread: Thread, operation: &Operation) -> Option<Armed> {
        let object = operation.object;
        match operation.kind {
            Kind::Acquire => {
                self.holders.insert(object, thread);
            }
            Kind::Release => {
                self.holders.remove(&object);
            }
            Kind::WaitCheck => {
                self.noted.insert((thread, object), self.woken(object));
            }
            Kind::Wake => *self.wake_ups.entry(object).or_default() += 1,
            Kind::End => {
                self.ended.insert(object);
            }
            Kind::Use => assert!(!self.ended.contains(&object), "used after its end"),
            Kind::Disarm => return self.armed.remove(&object),
            Kind::Count(_)
            | Kind::Sleep
            | Kind::EpochEnter
            | Kind::EpochLeave
            | Kind::EpochFlip
            | Kind::Arm
            | Kind::Fire
            | Kind::Fired => {}
        }
        None
    }

    /// Takes the deadline that was armed first.
    pub(crate) fn next_deadline(&mut self) -> Option<Armed> {
        self.armed.pop_first().map(|(_, armed)| armed)
    }

    fn woken(&self, queue: ObjectId) -> u64 {
        self.wake_ups.get(&queue).copied().unwrap_or_default()
    }
}
