//! What a value behind a lock contains, for who compares states.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A value that says all that it contains.
///
/// Two values that write the same must be the same to everybody who uses them: what is left out is
/// invisible to an explorer of interleavings, which then takes two states for one and skips what
/// follows. Handles (files, eventfds, other objects) count by their numbers, never by address.
/// Counts and locks inside are objects of their own and are left out; a primitive that comes and goes
/// counts by its `identity()`.
pub trait Contents {
    /// Writes what the value contains to `into`.
    fn contents(&self, into: &mut dyn Hasher);

    /// Whether it can say now all that it contains. Where it cannot, an explorer takes it for a function of all
    /// that led to it, as it does with a value that never says anything: safe, and more states.
    fn is_told(&self) -> bool {
        true
    }
}

impl<T: Hash> Contents for BTreeSet<T> {
    fn contents(&self, mut into: &mut dyn Hasher) {
        self.hash(&mut into);
    }
}

impl<T: Contents + ?Sized> Contents for Arc<T> {
    fn contents(&self, into: &mut dyn Hasher) {
        (**self).contents(into);
    }

    fn is_told(&self) -> bool {
        (**self).is_told()
    }
}

impl<T: Contents> Contents for Option<T> {
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_u8(self.is_some().into());
        if let Some(value) = self {
            value.contents(into);
        }
    }

    fn is_told(&self) -> bool {
        self.as_ref().is_none_or(T::is_told)
    }
}

impl<T: Contents> Contents for Vec<T> {
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_usize(self.len());
        for value in self {
            value.contents(into);
        }
    }

    fn is_told(&self) -> bool {
        self.iter().all(T::is_told)
    }
}
