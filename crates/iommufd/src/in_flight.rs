//! DMA in flight: who may be using translations, and waiting until those have left.
//!
//! A DMA access stays from before it looks at its device's page table until it has copied. Whoever takes
//! something away makes his change first and then outwaits the stays of before.
//!
//! Two ways of counting. By announcement: each device writes a word of its own, and who waits issues one barrier on
//! all threads; nothing that DMA of two devices shares is written. By a `sync::Epoch`, whose every step an explorer
//! of interleavings sees, for contexts with plain maps. Takes OBJECTS, to borrow a visitor of the device.

use std::sync::Arc;

use pagetable::{Readers, Visitor};
use sync::{Epoch, EpochGuard, Mutex, rank};

/// The stays of all DMA through a context.
pub(crate) enum InFlight {
    Announced(Arc<Readers>),
    Counted(Box<Epoch>),
}

/// What one device announces its DMA with: one visitor, or as many as it ever had accesses at once.
#[derive(Default)]
pub(crate) struct Visitors(Mutex<rank::Objects, Vec<Visitor>>);

/// A DMA access: what it finds stays valid until this is dropped.
#[must_use = "the access ends when this is dropped"]
pub(crate) struct Stay<'a>(Kind<'a>);

enum Kind<'a> {
    Announced { visitor: Option<Visitor>, of: &'a Visitors },
    Counted { _guard: EpochGuard<'a> },
}

impl InFlight {
    /// Begins an access of the device that `visitors` are of. Never waits for who outwaits.
    pub(crate) fn enter<'a>(&'a self, visitors: &'a Visitors) -> Stay<'a> {
        match self {
            Self::Counted(epoch) => Stay(Kind::Counted { _guard: epoch.enter() }),
            Self::Announced(readers) => {
                let idle = visitors.0.lock().pop();
                let mut visitor = idle.unwrap_or_else(|| readers.visitor());
                visitor.enter();
                Stay(Kind::Announced { visitor: Some(visitor), of: visitors })
            }
        }
    }

    /// Returns when every access that had begun before has ended. Called with no lock held, outside of any access.
    pub(crate) fn outwait(&self) {
        match self {
            Self::Counted(epoch) => epoch.advance_and_wait(),
            Self::Announced(readers) => readers.wait(),
        }
    }
}

impl Stay<'_> {
    /// Who stays; `None` where stays are only counted.
    pub(crate) const fn visitor(&self) -> Option<&Visitor> {
        match &self.0 {
            Kind::Announced { visitor, .. } => visitor.as_ref(),
            Kind::Counted { .. } => None,
        }
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        if let Kind::Announced { visitor, of } = &mut self.0
            && let Some(mut visitor) = visitor.take()
        {
            visitor.leave();
            of.0.lock().push(visitor);
        }
    }
}
