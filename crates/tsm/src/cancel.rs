//! A request to give a command up.
//!
//! Takes no lock. Deliberately absent: waking the command, which [`crate::Registry::cancel`] does.

use std::fmt;
use std::sync::Arc;

use sync::hook::ObjectId;
use sync::{Named, Refcount};

/// Whether the commands that run under it are to be given up. Sticky: once set it stays so, and a
/// command that begins under it is refused. Cloning shares it.
#[derive(Clone)]
pub struct Cancel {
    /// One until it is set.
    live: Arc<Refcount>,
}

impl Cancel {
    /// A token that is not set.
    pub fn new() -> Self {
        Self { live: Arc::new(Refcount::new(1)) }
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.live.read() == 0
    }

    /// Sets it. Whoever sleeps under it is not woken by this.
    pub(crate) fn set(&self) {
        self.live.dec_if_one();
    }

    /// A number that tells it and its clones from all others, for [`sync::Contents`].
    pub fn identity(&self) -> u64 {
        self.live.identity()
    }

    /// Whether `other` is a clone of this token.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.live, &other.live)
    }
}

impl Named for Cancel {
    fn object(&self) -> ObjectId {
        self.live.object()
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_set_in_every_clone() {
        let (cancel, other) = (Cancel::new(), Cancel::new());
        let clone = cancel.clone();
        assert!(!clone.is_set());
        cancel.set();
        cancel.set();
        assert!(clone.is_set());
        assert!(!other.is_set());
        assert!(clone.is(&cancel) && !clone.is(&other));
    }
}
