//! What a step did, so that it need not be run again where it would do the same.
//!
//! A thread is deterministic: what its next step does follows from what the thread has seen since its call
//! began and from what the objects hold that the step touches. That is also what makes two states the same, so
//! whoever trusts one trusts the other. A step that was run is kept as the objects it touched, each as it was
//! and as it was left, and where its thread is now. In a state where those objects are as they were, the same
//! step leads to a state that can be told without running anything. Takes no lock.

use std::sync::Arc;

use sync::hook::ObjectId;

use crate::fingerprint::Fingerprint;
use crate::footprint::Footprint;
use crate::picture::{Object, Picture};
use crate::places::PlaceId;
use crate::violation::Violation;

/// What a step did.
#[derive(Debug)]
pub(crate) struct Effect {
    /// What it touched.
    pub(crate) changes: Vec<Change>,
    /// What that adds to what all objects hold.
    pub(crate) difference: Fingerprint,
    /// Whether its thread had been woken before.
    pub(crate) was_woken: bool,
    /// Where its thread is now, and whether it has been woken; `None` where a deadline fired.
    pub(crate) thread: Option<Standing>,
    /// Queues that it woke.
    pub(crate) wakes: Vec<ObjectId>,
    pub(crate) armed: Vec<ArmedAt>,
    pub(crate) disarmed: Vec<ArmedAt>,
    pub(crate) footprint: Arc<Footprint>,
    /// What is wrong with it.
    pub(crate) violation: Option<Violation>,
}

/// An object before and after a step.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) object: ObjectId,
    pub(crate) before: Option<Object>,
    pub(crate) after: Option<Object>,
}

/// Where a thread stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) place: PlaceId,
    /// The queue that it waits on was woken since it last looked at the condition.
    pub(crate) woken: bool,
}

/// An armed deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArmedAt {
    pub(crate) deadline: ObjectId,
    /// The queue that it wakes.
    pub(crate) wakes: ObjectId,
}

/// What a step has touched so far.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) touched: Vec<(ObjectId, Option<Object>)>,
    pub(crate) wakes: Vec<ObjectId>,
    pub(crate) armed: Vec<ArmedAt>,
    pub(crate) disarmed: Vec<ArmedAt>,
}

impl Recording {
    /// What became of what was touched, and the difference to what all objects hold.
    pub(crate) fn changes(&mut self, now: &Picture) -> (Vec<Change>, Fingerprint) {
        let mut difference = Fingerprint::default();
        let mut changes = Vec::with_capacity(self.touched.len());
        for (object, before) in self.touched.drain(..) {
            let after = now.objects.get(&object).copied();
            if let Some(after) = after {
                difference = difference.with(after.share(object));
            }
            if let Some(before) = before {
                difference = difference.without(before.share(object));
            }
            changes.push(Change { object, before, after });
        }
        (changes, difference)
    }
}
