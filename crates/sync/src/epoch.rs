//! Readers that never block, and a writer that outwaits those who may have seen the old state.
//!
//! Two counts of readers. A reader raises the count that is current; a writer first waits until the
//! other one is zero, then makes that one current and waits until the former is zero. The first
//! wait is for readers that chose their count just before the previous writer turned it over and
//! raised it just after. New readers never delay a writer, but for those few.
//!
//! Writers take turns under [`rank::Grace`]; readers take no lock, except that the last one to leave
//! wakes a waiting writer. Plain counters, one cache line each: a reader costs two atomic additions.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use crate::hook::{self, Kind, Object, ObjectId};
use crate::mutex::Mutex;
use crate::rank;
use crate::wait::WaitQueue;

/// A domain of readers and the writers that outwait them.
#[derive(Debug)]
pub struct Epoch {
    readers: [Readers; 2],
    /// Which of the two new readers raise.
    current: AtomicUsize,
    /// Writers inside [`advance_and_wait`](Self::advance_and_wait): leaving readers wake them.
    writers: AtomicU32,
    left: WaitQueue,
    /// How many grace periods have passed.
    passed: Mutex<rank::Grace, u64>,
    object: Object,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Readers(AtomicU32);

/// A reader's stay. What the reader found stays valid until this is dropped.
#[must_use = "the reader leaves when the guard is dropped"]
#[derive(Debug)]
pub struct EpochGuard<'a> {
    epoch: &'a Epoch,
    index: usize,
    _on_one_thread: std::marker::PhantomData<*const ()>,
}

impl Epoch {
    /// An epoch without readers.
    pub fn new() -> Self {
        let epoch = Self {
            readers: Default::default(),
            current: AtomicUsize::new(0),
            writers: AtomicU32::new(0),
            left: WaitQueue::new(),
            passed: Mutex::new(0),
            object: Object::new(NAME),
        };
        epoch.tell_state();
        epoch
    }

    /// Enters as a reader. Never blocks; may be nested.
    #[track_caller]
    pub fn enter(&self) -> EpochGuard<'_> {
        hook::before(Kind::EpochEnter, self.object.id(), NAME);
        let index = self.current.load(SeqCst);
        self.readers[index].0.fetch_add(1, SeqCst);
        self.tell_state();
        hook::saw(self.object.id(), || index as u64);
        rank::entered_epoch();
        EpochGuard { epoch: self, index, _on_one_thread: std::marker::PhantomData }
    }

    /// Returns when every reader that entered before the call has left. The caller makes its change
    /// first: readers that enter later see it.
    ///
    /// Hold no lock that a reader takes. Takes [`rank::Grace`].
    ///
    /// # Panics
    /// In debug builds, if this thread is a reader of any epoch.
    #[track_caller]
    pub fn advance_and_wait(&self) {
        rank::assert_outside_epochs();
        let mut passed = self.passed.lock();
        self.writers.fetch_add(1, SeqCst);
        self.tell_state();
        let current = self.current.load(SeqCst);
        self.wait_for(1 - current);
        hook::before(Kind::EpochFlip, self.object.id(), NAME);
        self.current.store(1 - current, SeqCst);
        self.tell_state();
        self.wait_for(current);
        self.writers.fetch_sub(1, SeqCst);
        self.tell_state();
        *passed += 1;
    }

    pub(crate) const fn id(&self) -> ObjectId {
        self.object.id()
    }

    #[track_caller]
    fn wait_for(&self, index: usize) {
        self.left.wait_until(|| {
            let none = self.readers[index].0.load(SeqCst) == 0;
            hook::saw(self.object.id(), || u64::from(none));
            none
        });
    }

    fn tell_state(&self) {
        hook::holds(self.object.id(), || {
            let readers = self.readers.iter().map(|readers| readers.0.load(SeqCst));
            let counts = readers.chain([self.writers.load(SeqCst)]);
            // Few enough of each for twenty bits where interleavings are explored.
            let current = self.current.load(SeqCst) as u64;
            counts.fold(current, |word, count| word << 20 | u64::from(count))
        });
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for EpochGuard<'_> {
    fn drop(&mut self) {
        hook::before(Kind::EpochLeave, self.epoch.object.id(), NAME);
        rank::left_epoch();
        let last = self.epoch.readers[self.index].0.fetch_sub(1, SeqCst) == 1;
        self.epoch.tell_state();
        hook::saw(self.epoch.object.id(), || u64::from(last));
        // A writer announces itself before it looks at the count, we look at writers after we
        // lowered it: one of the two sees the other.
        let awaited = self.epoch.writers.load(SeqCst) != 0;
        hook::saw(self.epoch.object.id(), || u64::from(awaited));
        if last && awaited {
            self.epoch.left.wake_all();
        }
    }
}

const NAME: &str = "Epoch";

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::hook::{Hook, Operation};

    /// A reader that chose its count before a writer turned it over and raised it after that
    /// writer was done: the next writer owes it the wait.
    #[test]
    fn a_reader_left_on_the_other_count_is_outwaited() {
        struct Straggler {
            epoch: &'static Epoch,
            slept: Cell<bool>,
        }
        impl Hook for Straggler {
            fn before(&self, operation: Operation) {
                if operation.kind == Kind::Sleep {
                    self.slept.set(true);
                    self.epoch.readers[0].0.fetch_sub(1, SeqCst);
                    self.epoch.left.wake_all();
                }
            }
        }
        let epoch: &Epoch = Box::leak(Box::default());
        epoch.advance_and_wait();
        epoch.readers[0].0.fetch_add(1, SeqCst);
        assert_eq!(epoch.current.load(SeqCst), 1, "new readers raise the other");
        let straggler = Rc::new(Straggler { epoch, slept: Cell::new(false) });
        let _installed = hook::install(straggler.clone());
        epoch.advance_and_wait();
        assert!(straggler.slept.get());
    }
}
