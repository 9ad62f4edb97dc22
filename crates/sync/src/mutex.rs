//! A mutex with a place in the lock order and its data inside.
//!
//! Built on `std::sync::Mutex`; poison is ignored, because a thread that panicked is a bug reported
//! elsewhere and teardown must still work. There is no `try_lock`: see the crate documentation.

use std::cell::Cell;
use std::fmt;
use std::hash::Hasher;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use crate::Contents;
use crate::hook::{self, Kind, Now, Object, ObjectId};
use crate::rank::{self, Rank};

#[expect(clippy::disallowed_types, reason = "the ranked mutex is built on the plain one")]
type Plain<T> = std::sync::Mutex<T>;

/// A value that one thread at a time reaches, through a lock of rank `R`.
pub struct Mutex<R: Rank, T> {
    value: Plain<T>,
    object: Object,
    /// How the value says what it contains, if it does.
    contents: Option<Tell<T>>,
    rank: PhantomData<fn() -> R>,
}

/// Writes what a value contains; says whether that is all.
type Tell<T> = fn(&T, &mut dyn Hasher) -> bool;

/// The value of a locked [`Mutex`]; unlocks when dropped. Guards may be dropped in any order.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct Guard<'a, R: Rank, T> {
    value: std::sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<R, T>,
    /// Whether the value was borrowed mutably; if not, it is as it was.
    written: bool,
    /// Whether it was borrowed at all: if not, whoever has the lock knows nothing of it.
    looked_at: Cell<bool>,
}

impl<R: Rank, T> Mutex<R, T> {
    /// A mutex nobody holds.
    pub fn new(value: T) -> Self {
        let object = Object::new(R::NAME);
        Self { value: Plain::new(value), object, contents: None, rank: PhantomData }
    }

    /// A mutex nobody holds, whose value says what it contains: an explorer then knows states for the
    /// same that came about differently.
    pub fn with_contents(value: T) -> Self
    where
        T: Contents,
    {
        let contents: Tell<T> = |value, into| {
            let is_told = value.is_told();
            if is_told {
                value.contents(into);
            }
            is_told
        };
        let mutex = Self { contents: Some(contents), ..Self::new(value) };
        hook::tell(|hook| {
            let value = mutex.value.lock().unwrap_or_else(PoisonError::into_inner);
            hook.holds(mutex.object.id(), Now::Contents(&|hasher| contents(&value, hasher)));
        });
        mutex
    }

    pub(crate) const fn id(&self) -> ObjectId {
        self.object.id()
    }

    /// Waits until nobody else holds the lock and takes it.
    ///
    /// # Panics
    /// In debug builds, if this thread holds a lock that must not be outside one of rank `R`; the
    /// message names both ranks.
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, R, T> {
        rank::assert_may_take::<R>();
        hook::before(Kind::Acquire, self.object.id(), R::NAME);
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        rank::taken::<R>();
        Guard { value, mutex: self, written: false, looked_at: Cell::new(false) }
    }
}

impl<R: Rank, T: Default> Default for Mutex<R, T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<R: Rank, T> fmt::Debug for Mutex<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("rank", &R::NAME).finish_non_exhaustive()
    }
}

impl<'a, R: Rank, T> Guard<'a, R, T> {
    /// The mutex this guard locks.
    pub(crate) fn mutex(&self) -> &'a Mutex<R, T> {
        self.mutex
    }

    /// Tells the hook where nothing was learned from the data since the lock was taken.
    pub(crate) fn tell_if_unseen(&self) {
        if !self.looked_at.get() {
            hook::tell(|hook| hook.unseen(self.mutex.object.id()));
        }
    }

    /// The value, for one who changes nothing.
    pub(crate) fn value(&self) -> &T {
        &self.value
    }

    fn tell_state(&self, hook: &dyn hook::Hook) {
        let object = self.mutex.object.id();
        match self.mutex.contents {
            _ if !self.written => hook.holds(object, Now::Unchanged),
            Some(contents) => {
                hook.holds(object, Now::Contents(&|into| contents(&self.value, into)))
            }
            None => hook.holds(object, Now::Changed),
        }
    }
}

impl<R: Rank, T> Deref for Guard<'_, R, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.looked_at.set(true);
        &self.value
    }
}

impl<R: Rank, T> DerefMut for Guard<'_, R, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.written = true;
        self.looked_at.set(true);
        &mut self.value
    }
}

impl<R: Rank, T: fmt::Debug> fmt::Debug for Guard<'_, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<R: Rank, T> Drop for Guard<'_, R, T> {
    fn drop(&mut self) {
        hook::tell(|hook| self.tell_state(hook));
        hook::before(Kind::Release, self.mutex.object.id(), R::NAME);
        rank::released::<R>();
    }
}
