//! What primitives are called where people read of them.
//!
//! A name is told to the thread's [`hook`](crate::hook) and kept nowhere else: without an explorer it is not even
//! made. It is no part of any state. Takes no lock.

use std::sync::Arc;

use crate::hook::{self, ObjectId};
use crate::{Deadline, Epoch, Life, Mutex, Rank, Refcount, WaitQueue};

/// A primitive, or what stands for one, that can be given a name.
pub trait Named: Sized {
    /// The number by which a hook knows it.
    fn object(&self) -> ObjectId;

    /// Calls it `part` of what `owner` returns: `users` of `vdevice5`. The owner itself is the part `""`. Names have
    /// no spaces. Of several with one name an explorer numbers the later ones.
    #[inline]
    fn named(self, part: &'static str, owner: impl Fn() -> String) -> Self {
        hook::tell(|hook| hook.named(self.object(), &owner, part));
        self
    }
}

impl Named for Life {
    fn object(&self) -> ObjectId {
        self.id()
    }
}

impl Named for Refcount {
    fn object(&self) -> ObjectId {
        self.id()
    }
}

impl Named for WaitQueue {
    fn object(&self) -> ObjectId {
        self.id()
    }
}

impl<R: Rank, T> Named for Mutex<R, T> {
    fn object(&self) -> ObjectId {
        self.id()
    }
}

impl Named for Epoch {
    fn object(&self) -> ObjectId {
        self.id()
    }
}

impl Named for Deadline {
    fn object(&self) -> ObjectId {
        self.id()
    }
}

impl<T: Named> Named for Arc<T> {
    fn object(&self) -> ObjectId {
        (**self).object()
    }
}
