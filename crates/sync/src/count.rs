//! A count of references, in the kernel's words.
//!
//! Takes no lock. A count says nothing about memory (`Arc` does that): it decides when an object
//! may be destroyed and who destroys it. Misuse (raising a count from zero, dropping one below it)
//! is a bug of ours and asserted in release builds too.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::hook::{self, CountOperation, Kind, Object, ObjectId};

/// A count of references that starts above zero and, once zero, stays there.
#[derive(Debug)]
pub struct Refcount {
    count: AtomicU32,
    object: Object,
}

impl Refcount {
    /// A count of `count`.
    pub fn new(count: u32) -> Self {
        let object = Object::new(NAME);
        hook::holds(object.id(), || u64::from(count));
        Self { count: AtomicU32::new(count), object }
    }

    /// A number that tells it from all others of a run, and is the same in equal runs: for
    /// [`Contents`](crate::Contents).
    pub const fn identity(&self) -> u64 {
        self.object.id().identity()
    }

    /// Adds one.
    ///
    /// # Panics
    /// If the count was zero (whoever calls must hold a reference) or was the highest.
    #[track_caller]
    pub fn inc(&self) {
        self.before(CountOperation::Inc);
        let before = self.update(|count| count.checked_add(1).filter(|_| count != 0));
        assert!(before.is_ok(), "reference taken from a count of {}", self.count.load(SeqCst));
    }

    /// Adds one unless the count is zero; says whether it did.
    ///
    /// # Panics
    /// If the count was the highest.
    #[track_caller]
    pub fn inc_not_zero(&self) -> bool {
        self.before(CountOperation::IncNotZero);
        let before = self.update(|count| count.checked_add(1).filter(|_| count != 0));
        assert!(before != Err(u32::MAX), "reference count overflows");
        self.saw(before.is_ok())
    }

    /// Takes one away; says whether the count is zero now. Where a thread sleeps on it, the one
    /// that gets `true` calls [`WaitQueue::wake_all`](crate::WaitQueue::wake_all).
    ///
    /// # Panics
    /// If the count was zero.
    #[track_caller]
    pub fn dec_and_test(&self) -> bool {
        self.before(CountOperation::DecAndTest);
        let before = self.update(|count| count.checked_sub(1));
        assert!(before.is_ok(), "reference put on a count of zero");
        self.saw(before == Ok(1))
    }

    /// Makes a count of one zero; says whether it did. Any other count is left alone.
    #[track_caller]
    pub fn dec_if_one(&self) -> bool {
        self.before(CountOperation::DecIfOne);
        let before = self.update(|count| if count == 1 { Some(0) } else { None });
        self.saw(before.is_ok())
    }

    /// Takes one away unless the count is one; says whether it did.
    ///
    /// # Panics
    /// If the count was zero.
    #[track_caller]
    pub fn dec_not_last(&self) -> bool {
        self.before(CountOperation::DecNotLast);
        let before = self.update(|count| if count > 1 { Some(count - 1) } else { None });
        assert!(before != Err(0), "reference put on a count of zero");
        self.saw(before.is_ok())
    }

    /// The count at some moment during the call. For reports and assertions: nobody promises that
    /// it still holds.
    #[track_caller]
    pub fn read(&self) -> u32 {
        self.before(CountOperation::Read);
        let count = self.count.load(SeqCst);
        hook::saw(self.object.id(), || u64::from(count));
        count
    }

    pub(crate) const fn id(&self) -> ObjectId {
        self.object.id()
    }

    /// Reads as part of a wait queue's check, which has asked the hook already.
    pub(crate) fn is_zero(&self) -> bool {
        self.saw(self.count.load(SeqCst) == 0)
    }

    fn update(&self, change: impl FnMut(u32) -> Option<u32>) -> Result<u32, u32> {
        let before = self.count.fetch_update(SeqCst, SeqCst, change);
        hook::holds(self.object.id(), || u64::from(self.count.load(SeqCst)));
        before
    }

    #[track_caller]
    fn before(&self, operation: CountOperation) {
        hook::before(Kind::Count(operation), self.object.id(), NAME);
    }

    /// Tells what the caller learns: no more than the answer, so that counts which differ where
    /// nobody looks make no difference.
    fn saw(&self, answer: bool) -> bool {
        hook::saw(self.object.id(), || u64::from(answer));
        answer
    }
}

const NAME: &str = "Refcount";

#[cfg(test)]
mod tests {
    use super::Refcount;

    #[test]
    fn zero_is_final() {
        let count = Refcount::new(1);
        assert!(count.dec_and_test());
        assert!(!count.inc_not_zero());
        assert!(!count.dec_if_one());
        assert_eq!(count.read(), 0);
    }

    #[test]
    fn the_last_reference_is_told_apart() {
        let count = Refcount::new(1);
        assert!(!count.dec_not_last());
        count.inc();
        assert!(!count.dec_if_one());
        assert!(count.dec_not_last());
        assert_eq!(count.read(), 1);
        assert!(count.inc_not_zero());
        assert!(!count.dec_and_test());
        assert!(count.dec_if_one());
        assert_eq!(count.read(), 0);
    }

    #[test]
    #[should_panic(expected = "from a count of 0")]
    fn a_dead_object_gets_no_reference() {
        Refcount::new(0).inc();
    }

    #[test]
    #[should_panic(expected = "count of zero")]
    fn one_reference_is_put_once() {
        Refcount::new(0).dec_and_test();
    }

    #[test]
    #[should_panic(expected = "count of zero")]
    fn dec_not_last_of_a_dead_object_is_a_bug() {
        Refcount::new(0).dec_not_last();
    }
}
