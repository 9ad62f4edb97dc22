//! Who is asked before each operation on shared state, and told what came of it.
//!
//! An explorer of interleavings runs every scenario thread as a coroutine on one OS thread and
//! [`install`]s a [`Hook`] there. [`Hook::before`] suspends the coroutine; it returns when the
//! operation may take effect without blocking. The other methods tell what the operation did: what a
//! thread [saw](Hook::saw) and what a primitive [holds](Hook::holds) now. From the two an explorer
//! knows when two states are the same. Threads without a hook pay one thread-local load and one
//! branch that is always predicted.
//!
//! Takes no lock. Knows nothing of coroutines or schedules.

use std::cell::{Cell, RefCell};
use std::hash::Hasher;
use std::panic::Location;
use std::rc::Rc;

use crate::{Armed, rank};

/// Is told every operation of the thread it is installed on: before it takes effect, and its effect.
///
/// Everything that one thread can learn of another's doing passes through [`saw`](Self::saw) or is
/// the data of a mutex, whose state [`holds`](Self::holds) told when it was last released.
pub trait Hook {
    /// Returns when `operation` may take effect. May let other coroutines of this OS thread run
    /// meanwhile, if it [is a scheduling point](Operation::is_scheduling_point).
    ///
    /// An [`Acquire`](Kind::Acquire) must not return before the lock is free, nor a
    /// [`Sleep`](Kind::Sleep) before its queue was woken: the thread would block for ever.
    fn before(&self, operation: Operation);

    /// A primitive was made. Followed by [`holds`](Self::holds) where its first state is a number or
    /// says what it contains; otherwise that state follows from what its maker has seen.
    fn created(&self, _object: ObjectId, _name: &'static str) {}

    /// The primitive is called `part` of `owner`: for people, and no part of any state. See
    /// [`Named`](crate::Named).
    fn named(&self, _object: ObjectId, _owner: &dyn Fn() -> String, _part: &'static str) {}

    /// A primitive is gone: nobody can reach it any more.
    fn dropped(&self, _object: ObjectId) {}

    /// The thread has learned `value` from `object`.
    fn saw(&self, _object: ObjectId, _value: u64) {}

    /// The thread has `mutex`, has not looked at its data, and is about to wait for a change of it.
    fn unseen(&self, _mutex: ObjectId) {}

    /// This is what `object` holds from now on.
    fn holds(&self, _object: ObjectId, _now: Now<'_>) {}

    /// A deadline was armed; whoever keeps `deadline` can fire it.
    fn armed(&self, _deadline: Armed) {}
}

/// What a primitive holds.
#[derive(Clone, Copy)]
pub enum Now<'a> {
    /// All of it, as a number.
    Number(u64),
    /// What it [contains](crate::Contents), written to the hasher; `false` if it does not say:
    /// then as [`Changed`](Self::Changed).
    Contents(&'a dyn Fn(&mut dyn Hasher) -> bool),
    /// Data that may have changed and says nothing of itself: a function of what it was before and
    /// of all that the thread had seen.
    Changed,
    /// The same as before.
    Unchanged,
}

/// Makes `hook` the hook of this thread until the result is dropped, and starts the numbering of
/// objects afresh so that equal runs number equally.
///
/// # Panics
/// If this thread has a hook already.
pub fn install(hook: Rc<dyn Hook>) -> Installed {
    let installed = install_before_sleep(hook);
    NEXT_OBJECT.set(1);
    INSTALLED.set(true);
    installed
}

/// As [`install`], for a hook that is asked [before](Hook::before) each [`Sleep`](Kind::Sleep) and is told nothing
/// else, so that all else costs what it costs without one. Objects keep their numbers.
///
/// # Panics
/// If this thread has a hook already.
pub fn install_before_sleep(hook: Rc<dyn Hook>) -> Installed {
    HOOK.with(|slot| {
        let mut slot = slot.borrow_mut();
        assert!(slot.is_none(), "this thread has a hook already");
        *slot = Some(hook);
    });
    BEFORE_SLEEP.set(true);
    Installed { _on_one_thread: std::marker::PhantomData }
}

/// Numbers the next objects of this thread from `next` and returns where the numbering stood. An
/// explorer gives each coroutine numbers of its own, so that an object is called the same whoever
/// ran before its maker.
pub fn number_objects_from(next: u64) -> u64 {
    NEXT_OBJECT.replace(next)
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
        BEFORE_SLEEP.set(false);
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
    /// Where in the source it is done; for what is done by dropping, inside this crate.
    pub at: &'static Location<'static>,
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
    /// Uses a living object.
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
        !matches!(self.kind, Kind::Release)
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
}

/// The number of a primitive, kept in it: tells when it is made and when it is gone.
#[derive(Debug)]
pub(crate) struct Object(ObjectId);

impl Object {
    pub(crate) fn new(name: &'static str) -> Self {
        let number = NEXT_OBJECT.get();
        NEXT_OBJECT.set(number + 1);
        let id = ObjectId(number);
        tell(|hook| hook.created(id, name));
        Self(id)
    }

    pub(crate) const fn id(&self) -> ObjectId {
        self.0
    }
}

impl ObjectId {
    /// The number as primitives tell it to [`Contents`](crate::Contents).
    pub(crate) const fn identity(self) -> u64 {
        self.0
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        tell(|hook| hook.dropped(self.0));
    }
}

/// Asks this thread's hook, if there is one.
#[inline]
#[track_caller]
pub(crate) fn before(kind: Kind, object: ObjectId, name: &'static str) {
    let wanted = if matches!(kind, Kind::Sleep) { BEFORE_SLEEP.get() } else { INSTALLED.get() };
    if wanted {
        ask(Operation { kind, object, name, at: Location::caller() });
    }
}

/// Tells the hook, if there is one, what the thread learned.
#[inline]
pub(crate) fn saw(object: ObjectId, value: impl FnOnce() -> u64) {
    tell(|hook| hook.saw(object, value()));
}

/// Tells the hook, if there is one, what `object` holds.
#[inline]
pub(crate) fn holds(object: ObjectId, number: impl FnOnce() -> u64) {
    tell(|hook| hook.holds(object, Now::Number(number())));
}

/// Tells the hook, if there is one.
#[inline]
pub(crate) fn tell(what: impl FnOnce(&dyn Hook)) {
    if INSTALLED.get() {
        with_hook(what);
    }
}

#[cold]
fn with_hook(what: impl FnOnce(&dyn Hook)) {
    // Cloned out of the cell: what the hook does may come through here.
    if let Some(hook) = HOOK.with(|slot| slot.borrow().clone()) {
        what(&*hook);
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
    static BEFORE_SLEEP: Cell<bool> = const { Cell::new(false) };
    static HOOK: RefCell<Option<Rc<dyn Hook>>> = const { RefCell::new(None) };
    static NEXT_OBJECT: Cell<u64> = const { Cell::new(1) };
}
