//! What a value behind a lock contains, for who compares states.

use std::hash::Hasher;

/// A value that says all that it contains.
///
/// Two values that write the same must be the same to everybody who uses them: what is left out is
/// invisible to an explorer of interleavings, which then takes two states for one and skips what
/// follows. Handles (files, eventfds, other objects) count by their numbers, never by address.
/// Counts and locks inside are objects of their own and are left out.
pub trait Contents {
    /// Writes what the value contains to `into`.
    fn contents(&self, into: &mut dyn Hasher);
}
