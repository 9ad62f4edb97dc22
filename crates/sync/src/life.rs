//! The logical lifetime of an object.
//!
//! Memory safety is Rust's: an `Arc` keeps the bytes. But an object that was destroyed is not to be
//! used even while somebody can still name it, and that is what a [`Life`] finds. Takes no lock.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::hook::{self, Kind, Object, ObjectId};

/// Whether an object has ended. A field of the object; ended where the kernel would free it.
#[derive(Debug)]
pub struct Life {
    ended: AtomicBool,
    object: Object,
}

impl Life {
    /// The life of an object that has not ended.
    pub fn new() -> Self {
        let object = Object::new(NAME);
        hook::holds(object.id(), || 0);
        Self { ended: AtomicBool::new(false), object }
    }

    /// A number that tells it from all others of a run, and is the same in equal runs: for
    /// [`Contents`](crate::Contents).
    pub const fn identity(&self) -> u64 {
        self.object.id().identity()
    }

    pub(crate) const fn id(&self) -> ObjectId {
        self.object.id()
    }

    /// Notes a use of the object.
    ///
    /// # Panics
    /// In debug builds, if the object has ended.
    #[track_caller]
    pub fn check(&self) {
        hook::before(Kind::Use, self.object.id(), NAME);
        debug_assert!(!self.ended.load(SeqCst), "use of an object after its end");
    }

    /// Ends the object.
    ///
    /// # Panics
    /// In debug builds, if it has ended before.
    #[track_caller]
    pub fn end(&self) {
        hook::before(Kind::End, self.object.id(), NAME);
        let ended = self.ended.swap(true, SeqCst);
        hook::holds(self.object.id(), || 1);
        debug_assert!(!ended, "an object ended twice");
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

const NAME: &str = "Life";

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::Life;

    #[test]
    #[should_panic(expected = "after its end")]
    fn use_after_the_end_is_found() {
        let life = Life::new();
        life.check();
        life.end();
        life.check();
    }

    #[test]
    #[should_panic(expected = "ended twice")]
    fn an_object_ends_once() {
        let life = Life::new();
        life.end();
        life.end();
    }
}
