//! Open files that a client reads events from: those of fault queues and of vIOMMU event queues.
//!
//! Such a file keeps its context open and is a user of its queue, which the client destroys separately. Reading never
//! waits: an empty queue gives 0 bytes. Takes OBJECTS, a leaf; holds it neither while the caller's memory is read or
//! written nor while a bell rings. Source: [uapi/iommufd.h]; v7.3 `eventq.c`.

use std::sync::Arc;

use sync::{Mutex, rank};
use uapi::Errno;

use crate::fault_queue::FaultQueue;
use crate::registry::{Headed, Header};
use crate::veventq::Veventq;
use crate::{Caller, Context, Refusal};

/// An open file of events.
pub struct EventFile {
    ctx: Arc<Context>,
    queue: Queue,
    released: Mutex<rank::Objects, bool>,
}

/// What is behind it, of which it is a user.
pub(crate) enum Queue {
    Faults(Arc<FaultQueue>),
    Vevents(Arc<Veventq>),
}

/// Hears that a file may have become readable, or no longer is: to be asked then by [`EventFile::is_readable`].
pub trait Waker: Send + Sync {
    /// Called with no lock held.
    fn refresh(&self);
}

/// Rings for whoever polls a queue's file.
#[derive(Default)]
pub(crate) struct Bell(Mutex<rank::Objects, Option<Arc<dyn Waker>>>);

impl Bell {
    pub(crate) fn ring(&self) {
        let waker = self.0.lock().clone();
        if let Some(waker) = waker {
            waker.refresh();
        }
    }
}

impl EventFile {
    /// Opens the file of a queue that nobody can find yet, and keeps the context open.
    pub(crate) fn new(ctx: &Arc<Context>, queue: Queue) -> Arc<Self> {
        // Whoever asked could not be told if the context closed under it.
        assert!(ctx.get_file(), "a command runs on the context");
        queue.header().add_user();
        Arc::new(Self { ctx: Arc::clone(ctx), queue, released: Mutex::new(false) })
    }

    /// Gives the caller the file, and has `tell` write that as the answer: first with a number that is no descriptor,
    /// since one that was given cannot be taken back.
    ///
    /// # Errors
    /// The file is released then. What `tell` returns; [`Refusal::NoDescriptor`] (`EMFILE` and others).
    pub(crate) fn give(
        self: &Arc<Self>,
        caller: &dyn Caller,
        mut tell: impl FnMut(u32) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        const NONE: u32 = u32::MAX;
        let installed = tell(NONE).and_then(|()| {
            let installed = caller.install_events(self);
            let fd = installed.map_err(|errno| Refusal::NoDescriptor { errno })?;
            tell(fd.cast_unsigned())
        });
        installed.inspect_err(|_| self.release())
    }

    /// Reads whole events, as many as there are and fit into `count` bytes at `at`. Returns the bytes.
    ///
    /// # Errors
    /// - of faults: `ESPIPE` for bytes that are no whole records
    /// - `EINVAL` where the first does not fit
    /// - `EFAULT` where the first cannot be written; it stays in the queue
    pub fn read(&self, caller: &dyn Caller, at: u64, count: u64) -> Result<u64, Errno> {
        let read = match &self.queue {
            Queue::Faults(faults) => faults.read(caller, at, count),
            Queue::Vevents(vevents) => vevents.read(caller, at, count),
        };
        self.bell().ring();
        read
    }

    /// Answers faults. Returns the bytes of answers taken.
    ///
    /// # Errors
    /// - of events of a vIOMMU: `EINVAL`
    /// - `ESPIPE` for bytes that are no whole answers
    /// - for the first: `EFAULT`, `EINVAL` where it means nothing or answers no fault
    pub fn write(&self, caller: &dyn Caller, at: u64, count: u64) -> Result<u64, Errno> {
        match &self.queue {
            Queue::Faults(faults) => faults.answer(caller, at, count),
            Queue::Vevents(_) => Err(Errno::EINVAL),
        }
    }

    /// Whether there is something to read.
    pub fn is_readable(&self) -> bool {
        match &self.queue {
            Queue::Faults(faults) => faults.is_readable(),
            Queue::Vevents(vevents) => vevents.is_readable(),
        }
    }

    /// Whether it takes answers, which it then does at any time.
    pub const fn is_writable(&self) -> bool {
        matches!(self.queue, Queue::Faults(_))
    }

    /// Has `waker` hear from now on.
    pub fn set_waker(&self, waker: Arc<dyn Waker>) {
        let before = self.bell().0.lock().replace(waker);
        drop(before);
    }

    /// The file is closed for good: lets go of queue and context. Doing it again changes nothing.
    pub fn release(&self) {
        let released = std::mem::replace(&mut *self.released.lock(), true);
        if released {
            return;
        }
        let waker = self.bell().0.lock().take();
        drop(waker);
        self.queue.header().drop_user();
        self.ctx.put_file();
    }

    /// The context that it is of, which it keeps open.
    pub const fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    fn bell(&self) -> &Bell {
        match &self.queue {
            Queue::Faults(faults) => faults.bell(),
            Queue::Vevents(vevents) => vevents.bell(),
        }
    }
}

impl Queue {
    fn header(&self) -> &Header {
        match self {
            Self::Faults(faults) => faults.header(),
            Self::Vevents(vevents) => vevents.header(),
        }
    }
}
