//! Who is asked before each operation on shared state.
//!
//! An explorer of interleavings runs every scenario thread as a coroutine on one OS thread and
//! [`install`]s a [`Hook`] there. [`Hook::before`] suspends the coroutine; it returns when the
//! operation may take effect without blocking. Threads without a hook pay one thread-local load and
//! one branch that is always predicted.
//!
//! Takes no lock. Knows nothing of coroutines or schedules.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::rank;

/// Is told every operation of the thread it is installed on, before it takes effect.
pub trait Hook {
    /// Returns when `operation` may take effect. May let other coroutines of this OS thread run
    /// meanwhile, if it [is a scheduling point](Operation::is_scheduling_point).
    ///
    /// An [`Acquire`](Kind::Acquire) must not return before the lock is free, nor a
    /// [`Sleep`](Kind::Sleep) before its queue was woken: the thread would block for ever.
    fn before(&self, operation: Operation);
}

/// Makes `hook` the hook of this thread until the result is dropped, and starts the numbering of
/// objects afresh so that equal runs number equally.
///
/// # Panics
/// If this thread has a hook already.
pub fn install(hook: Rc<dyn Hook>) -> Installed {
    HOOK.with(|slot| {
        let mut slot = slot.borrow_mut();
        assert!(slot.is_none(), "this thread has a hook already");
        *slot = Some(hook);
    });
    NEXT_OBJECT.set(1);
    INSTALLED.set(true);
    Installed { _on_one_thread: std::marker::PhantomData }
}

/// Keeps a hook installed on the thread that made it.
#[must_use = "the hook is removed when this is dropped"]
#[derive(Debug)]
pub struct Installed {
    _on_one_thread: std::marker::PhantomData<*const ()>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        INSTALLED.set(false);
        HOOK.with(|slot| slot.borrow_mut().take());
    }
}

/// One operation on one primitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// What is done.
    pub kind: Kind,
    /// To which primitive.
    pub object: ObjectId,
    /// What that primitive is called: the rank of a mutex, else its type.
    pub name: &'static str,
}

/// What an operation does. The closed set from which an explorer derives what commutes and what is
/// enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Takes a mutex; blocks while another thread holds it.
    Acquire,
    /// Gives a mutex back. Told, not a scheduling point.
    Release,
    /// Reads or changes a count.
    Count(CountOperation),
    /// Joins a wait queue's sleepers-to-be and evaluates the condition, in one step.
    WaitCheck,
    /// The condition said to wait: blocks until the queue is woken after the last
    /// [`WaitCheck`](Self::WaitCheck).
    Sleep,
    /// Wakes a wait queue.
    Wake,
    /// Uses a living object. Told, not a scheduling point.
    Use,
    /// Ends an object's life.
    End,
    /// A reader enters an epoch.
    EpochEnter,
    /// A reader leaves an epoch.
    EpochLeave,
    /// A writer turns new readers of an epoch to the other count.
    EpochFlip,
    /// Arms a deadline.
    Arm,
    /// Takes a deadline back, whether it has fired or not.
    Disarm,
    /// A deadline fires.
    Fire,
    /// Asks whether a deadline has fired.
    Fired,
}

/// What is done to a [`Refcount`](crate::Refcount).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountOperation {
    /// [`Refcount::inc`](crate::Refcount::inc).
    Inc,
    /// [`Refcount::inc_not_zero`](crate::Refcount::inc_not_zero).
    IncNotZero,
    /// [`Refcount::dec_and_test`](crate::Refcount::dec_and_test).
    DecAndTest,
    /// [`Refcount::dec_if_one`](crate::Refcount::dec_if_one).
    DecIfOne,
    /// [`Refcount::dec_not_last`](crate::Refcount::dec_not_last).
    DecNotLast,
    /// [`Refcount::read`](crate::Refcount::read).
    Read,
}

impl Operation {
    /// Whether another thread's step just before this one could make a difference.
    pub const fn is_scheduling_point(&self) -> bool {
        !matches!(self.kind, Kind::Release | Kind::Use)
    }
}

/// The number of a primitive in order of creation on its thread. Unique, and equal in equal runs,
/// where one OS thread runs everything: under an installed hook, the only reader of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(u64);

impl ObjectId {
    /// The bare number.
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn next() -> Self {
        let number = NEXT_OBJECT.get();
        NEXT_OBJECT.set(number + 1);
        Self(number)
    }
}

/// Asks this thread's hook, if there is one.
#[inline]
pub(crate) fn before(kind: Kind, object: ObjectId, name: &'static str) {
    if INSTALLED.get() {
        ask(Operation { kind, object, name });
    }
}

/// The locks that this coroutine holds are put aside while the hook runs others on the same thread.
#[cold]
fn ask(operation: Operation) {
    // Cloned out of the cell: other coroutines come through here before the call returns.
    let Some(hook) = HOOK.with(|slot| slot.borrow().clone()) else { return };
    let held = rank::put_aside();
    hook.before(operation);
    rank::take_up(held);
}

thread_local! {
    // Beside HOOK, not in it: a bool without a destructor is one load.
    static INSTALLED: Cell<bool> = const { Cell::new(false) };
    static HOOK: RefCell<Option<Rc<dyn Hook>>> = const { RefCell::new(None) };
    static NEXT_OBJECT: Cell<u64> = const { Cell::new(1) };
}
