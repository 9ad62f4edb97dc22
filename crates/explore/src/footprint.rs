//! What a step touched, and which steps may swap places.
//!
//! A step is what a thread does from one scheduling point to the next. Two neighbouring steps of different
//! threads lead to the same state in either order if they touched nothing in conflict. Takes no lock.

use sync::hook::{CountOperation, Kind, ObjectId, Operation};

/// The objects that a step touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    touched: Vec<(ObjectId, Access)>,
    locked: Vec<ObjectId>,
    unlocked: Vec<ObjectId>,
}

/// How an object was touched. Equal ways commute, but for [`Write`](Self::Write).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Looked at.
    Read,
    /// Changed in a way that commutes with itself: a count raised, sleepers woken.
    Add,
    /// Changed.
    Write,
}

impl Footprint {
    pub(crate) fn clear(&mut self) {
        self.touched.clear();
        self.locked.clear();
        self.unlocked.clear();
    }

    /// Notes an access; two of different kinds to one object count as a write.
    pub(crate) fn note(&mut self, object: ObjectId, access: Access) {
        match self.touched.iter_mut().find(|(other, _)| *other == object) {
            Some((_, noted)) if *noted != access => *noted = Access::Write,
            Some(_) => {}
            None => self.touched.push((object, access)),
        }
    }

    /// Notes an access unless the object was touched in this step: what an operation does to its own
    /// object follows from its kind.
    pub(crate) fn note_other(&mut self, object: ObjectId, access: Access) {
        if !self.touches(object) {
            self.touched.push((object, access));
        }
    }

    /// Takes back that an object was written: it was looked at only.
    pub(crate) fn only_read(&mut self, object: ObjectId) {
        if let Some((_, access)) = self.touched.iter_mut().find(|(other, _)| *other == object) {
            *access = Access::Read;
        }
    }

    /// Notes that a lock was taken.
    pub(crate) fn note_locked(&mut self, mutex: ObjectId) {
        self.locked.push(mutex);
    }

    /// Notes that a lock was given back.
    pub(crate) fn note_unlocked(&mut self, mutex: ObjectId) {
        self.unlocked.push(mutex);
    }

    /// Whether the step took a lock that the step `earlier` gave back and had not taken itself.
    pub(crate) fn locks_after(&self, earlier: &Self) -> bool {
        self.given_back_by(earlier).next().is_some()
    }

    /// The locks that the step took, of those that `earlier` gave back and had not taken itself: one that was
    /// taken and given back in one step conflicts, or does not, by what was done under it.
    pub(crate) fn given_back_by(&self, earlier: &Self) -> impl Iterator<Item = ObjectId> {
        let given_back = earlier.unlocked.iter().filter(|mutex| !earlier.locks(**mutex));
        given_back.filter(|mutex| self.locks(**mutex)).copied()
    }

    /// Whether the step took the lock.
    pub(crate) fn locks(&self, mutex: ObjectId) -> bool {
        self.locked.contains(&mutex)
    }

    /// Whether two steps of different threads with these footprints may not swap places.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        self.touched.iter().any(|(object, access)| {
            let mut theirs = other.touched.iter().filter(|(other, _)| other == object);
            theirs.any(|(_, theirs)| access != theirs || *access == Access::Write)
        })
    }

    fn touches(&self, object: ObjectId) -> bool {
        self.touched.iter().any(|(other, _)| *other == object)
    }
}

/// How an operation touches its object.
pub(crate) const fn access(operation: &Operation) -> Option<Access> {
    match operation.kind {
        Kind::Count(CountOperation::Inc | CountOperation::IncNotZero) | Kind::Wake => {
            Some(Access::Add)
        }
        Kind::Count(CountOperation::Read)
        | Kind::WaitCheck
        | Kind::Sleep
        | Kind::Use
        | Kind::Fired => Some(Access::Read),
        Kind::Acquire
        | Kind::Count(
            CountOperation::DecAndTest | CountOperation::DecIfOne | CountOperation::DecNotLast,
        )
        | Kind::End
        | Kind::EpochEnter
        | Kind::EpochLeave
        | Kind::EpochFlip
        | Kind::Arm
        | Kind::Disarm
        | Kind::Fire => Some(Access::Write),
        // Whoever waits for the lock cannot run before, so nobody can swap places with it.
        Kind::Release => None,
    }
}
