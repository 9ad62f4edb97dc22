//! The open files we serve, found by what they are and not by number.
//!
//! Each has a memfd of its own. The program holds a second open description of it, and when that is
//! gone (`closes`) the file is released: from then on no command starts on it, those running are
//! cancelled and waited for, and only then is the object behind it let go.
//!
//! Two locks, leaves: the table and the list of contexts. Waiting goes through `sync`, which tells it to the listeners.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use iommufd::mock::AccessFile;
use iommufd::{Context, DmaBuf, EventFile};
use rustix::fs::OFlags;
use sync::{Refcount, WaitQueue};
use vfio::{Container, DeviceFile, GroupFile};

use crate::observer::OpenFile;
use crate::overlay::Attribute;
use crate::process::Identity;

/// All files open now.
#[derive(Default)]
pub(crate) struct Files {
    table: RwLock<HashMap<Identity, Arc<File>>>,
    opened: AtomicU64,
    /// Attributes being written. The file, and who wrote, may be gone by then.
    writes: AtomicUsize,
    /// Every context, with the open that made it. Bound devices keep some alive that nobody has open.
    contexts: Mutex<Vec<(OpenFile, Weak<Context>)>>,
}

/// An open file of ours.
pub(crate) struct File {
    /// What observers know of it.
    pub(crate) told: OpenFile,
    /// What serves it.
    pub(crate) object: Object,
    /// What its descriptor was opened for.
    pub(crate) access: Access,
    gate: Gate,
    /// Ours of the two descriptions; keeps inode and number from being used again.
    memfd: Option<OwnedFd>,
}

/// What a descriptor was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Access {
    /// What `open` flags ask for.
    pub(crate) fn of(flags: OFlags) -> Self {
        let mode = flags & OFlags::RWMODE;
        Self {
            read: mode == OFlags::RDONLY || mode == OFlags::RDWR,
            write: mode == OFlags::WRONLY || mode == OFlags::RDWR,
        }
    }
}

/// What serves an open file.
pub(crate) enum Object {
    /// `/dev/iommu`.
    Iommufd(Arc<Context>),
    /// `/dev/vfio/devices/vfioN`.
    Vfio {
        /// Which device.
        number: usize,
        /// The open file.
        file: Arc<DeviceFile>,
    },
    /// `/dev/vfio/GROUP`.
    Group(Arc<GroupFile>),
    /// `/dev/vfio/vfio`, where it is not an iommufd.
    Container(Arc<Container>),
    /// An access of the kernel's test interface.
    Access(Arc<AccessFile>),
    /// A queue of events.
    Events(Arc<EventFile>),
    /// A dma-buf of the kernel's test interface.
    DmaBuf(Arc<DmaBuf>),
    /// A sysfs attribute opened for writing.
    Attribute(Arc<dyn Attribute>),
}

impl Files {
    /// Number of the next open.
    pub(crate) fn next_serial(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts the write of an attribute, until what is returned is dropped.
    pub(crate) fn begin_write(&self) -> Writing<'_> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Writing(&self.writes)
    }

    /// How many commands run, on files that are open and on those that are not any more.
    pub(crate) fn serving(&self) -> usize {
        let is_written = |file: &File| matches!(file.object, Object::Attribute(_));
        let all = self.all();
        let commands = all.iter().filter(|(_, file)| !is_written(file));
        let commands: usize = commands.map(|(_, file)| file.commands()).sum();
        commands + self.writes.load(Ordering::Relaxed)
    }

    /// Enters a file.
    pub(crate) fn insert(
        &self,
        identity: Identity,
        told: OpenFile,
        object: Object,
        access: Access,
        memfd: Option<OwnedFd>,
    ) {
        if let Object::Iommufd(context) = &object {
            let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
            contexts.retain(|(_, context)| context.strong_count() > 0);
            contexts.push((told.clone(), Arc::downgrade(context)));
        }
        let file = Arc::new(File { told, object, access, gate: Gate::default(), memfd });
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(identity, file);
    }

    /// The file that this is, if it is ours.
    pub(crate) fn find(&self, identity: Identity) -> Option<Arc<File>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&identity).cloned()
    }

    /// Takes a file out, and lets no command start on it any more.
    pub(crate) fn remove(&self, identity: Identity) -> Option<Arc<File>> {
        let removed = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.remove(&identity)
        };
        if let Some(file) = &removed {
            file.gate.shut();
        }
        removed
    }

    /// Every file open now, in the order of opening.
    pub(crate) fn all(&self) -> Vec<(Identity, Arc<File>)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            table.iter().map(|(&identity, file)| (identity, Arc::clone(file))).collect();
        all.sort_by_key(|(_, file)| file.told.serial);
        all
    }

    /// Every context that is not closed, with the open that made it, in that order.
    pub(crate) fn contexts(&self) -> Vec<(OpenFile, Arc<Context>)> {
        let contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = contexts.iter().filter_map(|(told, context)| {
            let context = context.upgrade().filter(|context| context.is_open())?;
            Some((told.clone(), context))
        });
        let mut alive: Vec<_> = alive.collect();
        alive.sort_by_key(|(told, _)| told.serial);
        alive
    }

    /// The open file of a device that its group gave.
    pub(crate) fn granted(&self, device: usize) -> Option<(Identity, Arc<File>)> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let granted = |object: &Object| match object {
            Object::Vfio { number, file } => *number == device && file.is_of_group(),
            Object::Iommufd(_)
            | Object::Group(_)
            | Object::Container(_)
            | Object::Access(_)
            | Object::Events(_)
            | Object::DmaBuf(_)
            | Object::Attribute(_) => false,
        };
        let found = table.iter().find(|(_, file)| granted(&file.object));
        found.map(|(&identity, file)| (identity, Arc::clone(file)))
    }

    /// The process that opened `vfioN` first of those who have it open.
    pub(crate) fn opener_of(&self, device: usize) -> Option<i32> {
        let opens =
            |object: &Object| matches!(object, Object::Vfio { number, .. } if *number == device);
        self.all()
            .into_iter()
            .find(|(_, file)| opens(&file.object))
            .map(|(_, file)| file.told.opener)
    }
}

impl File {
    /// Ours of the descriptions of it, where it has a memory of its own.
    pub(crate) fn memfd(&self) -> Option<&OwnedFd> {
        self.memfd.as_ref()
    }

    /// Begins a command; `None` where the file is being released.
    pub(crate) fn begin(&self) -> Option<Running<'_>> {
        self.gate.enter()
    }

    /// Whether a command runs on it.
    pub(crate) fn is_busy(&self) -> bool {
        self.gate.is_busy()
    }

    /// How many commands run on it.
    pub(crate) fn commands(&self) -> usize {
        self.gate.commands()
    }

    /// Returns once no command runs on a file that was taken out.
    pub(crate) fn outwait_commands(&self) {
        self.gate.wait_empty();
    }
}

/// Counts the commands that run on a file, and one for the file itself while it is open.
struct Gate {
    running: Refcount,
    empty: WaitQueue,
}

/// An attribute is being written for as long as this lives.
pub(crate) struct Writing<'f>(&'f AtomicUsize);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A command runs on a file for as long as this lives.
pub(crate) struct Running<'f>(&'f Gate);

impl Default for Gate {
    fn default() -> Self {
        Self { running: Refcount::new(1), empty: WaitQueue::new() }
    }
}

impl Gate {
    fn enter(&self) -> Option<Running<'_>> {
        self.running.inc_not_zero().then(|| Running(self))
    }

    fn is_busy(&self) -> bool {
        self.commands() > 0
    }

    fn commands(&self) -> usize {
        usize::try_from(self.running.read().saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// Called once. What enters while something still runs inside is waited for too; nobody finds the
    /// file any more, so that it cannot go on for ever.
    fn shut(&self) {
        self.leave();
    }

    fn wait_empty(&self) {
        self.empty.wait_zero(&self.running);
    }

    fn leave(&self) {
        if self.running.dec_and_test() {
            self.empty.wake_all();
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn what_runs_is_waited_for_and_then_nothing_begins() {
        let gate = Gate::default();
        let running = gate.enter().unwrap();
        assert!(gate.is_busy());
        gate.shut();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                gate.wait_empty();
                Instant::now()
            });
            thread::sleep(Duration::from_millis(20));
            let left = Instant::now();
            drop(running);
            assert!(waiting.join().unwrap() >= left);
        });
        assert!(gate.enter().is_none());
    }
}
