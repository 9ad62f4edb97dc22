//! What all objects have: an id and two counts, and the hold that a lookup has of them.
//!
//! Takes no lock.

use std::hash::Hasher;
use std::ops::Deref;
use std::sync::Arc;

use sync::{Life, Named, Refcount, WaitQueue};

/// What the table needs of an object.
pub trait Headed {
    /// The object's id and counts.
    fn header(&self) -> &Header;

    /// Writes what it was made with and keeps for its life, as far as anybody looks at it.
    fn facts(&self, _into: &mut dyn Hasher) {}
}

impl<T: Headed> Headed for Arc<T> {
    fn header(&self) -> &Header {
        (**self).header()
    }

    fn facts(&self, into: &mut dyn Hasher) {
        (**self).facts(into);
    }
}

/// The part that all objects have.
pub struct Header {
    id: u32,
    pub(super) users: Refcount,
    in_flight: Refcount,
    idle: WaitQueue,
    life: Life,
}

impl Header {
    /// The header of an object of type `kind` that will be published under `id`.
    pub fn new(kind: &'static str, id: u32) -> Self {
        let name = || format!("{kind}{id}");
        Self {
            id,
            users: Refcount::new(1).named("users", name),
            in_flight: Refcount::new(1).named("in_flight", name),
            idle: WaitQueue::new().named("idle", name),
            life: Life::new().named("", name),
        }
    }

    /// The object's id.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// A number that tells the object from all others, those that had its id before too.
    pub(crate) const fn identity(&self) -> u64 {
        self.life.identity()
    }

    /// Adds a user. The caller holds the object by a lookup or another user.
    pub fn add_user(&self) {
        self.life.check();
        self.users.inc();
    }

    /// Adds a user unless the object has left the table. The caller keeps the object's memory by other
    /// means.
    pub fn try_add_user(&self) -> bool {
        self.users.inc_not_zero()
    }

    /// Drops a user that is not the last: the last is the table's.
    pub fn drop_user(&self) {
        let was_last = self.users.dec_and_test();
        assert!(!was_last, "object {} lost the object table's own user", self.id);
    }

    /// Marks the object as ended. Any later use is a bug, found in debug builds.
    pub fn end(&self) {
        self.life.end();
    }

    /// Takes a lookup's two counts, or none.
    fn try_hold(&self) -> bool {
        if !self.users.inc_not_zero() {
            return false;
        }
        if !self.in_flight.inc_not_zero() {
            self.users.dec_and_test();
            return false;
        }
        self.life.check();
        true
    }

    /// Gives a lookup's counts back: users first, so that who waits for `in_flight` finds no user left.
    fn release(&self) {
        self.drop_user();
        if self.in_flight.dec_and_test() {
            self.idle.wake_all();
        }
    }

    /// Gives up the life's own `in_flight` and waits until no lookup is left.
    pub(super) fn wait_idle(&self) {
        if !self.in_flight.dec_and_test() {
            self.idle.wait_zero(&self.in_flight);
        }
    }
}

/// An object held by a command for as long as this value lives.
pub struct Held<T: Headed> {
    object: T,
    /// Somebody else gives the counts back.
    is_kept: bool,
}

impl<T: Headed> Held<T> {
    /// Holds `object` unless it is on its way out.
    pub fn try_new(object: T) -> Option<Self> {
        if object.header().try_hold() { Some(Self { object, is_kept: false }) } else { None }
    }

    /// Turns the hold into one that lasts until [`release_kept`]: whoever keeps it is an object itself.
    pub fn keep(mut self) -> T
    where
        T: Clone,
    {
        self.is_kept = true;
        self.object.clone()
    }
}

/// Gives back what [`Held::keep`] took. Called once for each.
pub fn release_kept(object: &impl Headed) {
    object.header().release();
}

impl<T: Headed> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Headed> Drop for Held<T> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.object.header().release();
        }
    }
}
