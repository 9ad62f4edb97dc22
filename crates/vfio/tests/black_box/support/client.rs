//! A client whose memory is a run of bytes.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use iommufd::{
    Caller, Context, DmaBuf, FileFault, MemoryGone, PinAccess, PinFault, Pinned, Signal, Source,
    Unreachable,
};
use mem::Pages;
use sync::{Mutex, rank};
use uapi::{Command, CommandId, Errno};
use vfio::{BarPages, Container, Device, DeviceFile, NotWatched, Refusal, Watch, Watching};

use super::{ARGUMENT, Plain};

/// Where the client's memory begins. Nothing else can be reached.
pub(crate) const MEMORY: u64 = 0x10_0000;
/// Its length in bytes.
pub(crate) const MEMORY_SIZE: usize = 1 << 20;
/// A page that can be read only: the last.
pub(crate) const READ_ONLY: u64 = MEMORY + MEMORY_SIZE as u64 - 0x1000;

/// Panics, in debug builds, if the thread holds any lock.
#[derive(Default)]
pub(crate) struct NoLock(Mutex<rank::VfioGroup, ()>);

impl NoLock {
    pub(crate) fn check(&self) {
        drop(self.0.lock());
    }
}

/// An eventfd that only counts.
#[derive(Default)]
pub(crate) struct Counter {
    count: AtomicU64,
    no_lock: NoLock,
}

impl Counter {
    /// Signals since the last call.
    pub(crate) fn taken(&self) -> u64 {
        self.count.swap(0, SeqCst)
    }
}

impl Signal for Counter {
    fn signal(&self) {
        self.no_lock.check();
        self.count.fetch_add(1, SeqCst);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.no_lock.check();
    }
}

enum Open {
    Iommufd(Arc<Context>),
    Eventfd(Arc<Counter>),
    Group(Arc<vfio::Group>),
    Container(Arc<Container>),
    Other,
}

/// A client.
pub(crate) struct Client {
    memory: Arc<Pages>,
    files: BTreeMap<i32, Open>,
    next_fd: i32,
    /// What groups gave, in that order.
    given: Mutex<rank::Objects, Vec<Arc<DeviceFile>>>,
    /// Dma-bufs, by descriptor from [`LENT_FD`] on. Past [`LENT_MOST`] there is no room.
    lent: Mutex<rank::Objects, Vec<Option<Arc<DmaBuf>>>>,
    reasons: Mutex<rank::Objects, Vec<Reason>>,
    no_lock: NoLock,
}

/// The first descriptor of a dma-buf.
pub(crate) const LENT_FD: i32 = 1000;
/// How many a client can have.
pub(crate) const LENT_MOST: usize = 5;

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// By a file of VFIO's.
    Vfio(Refusal),
    /// By a context.
    Iommufd(iommufd::Refusal),
}

impl Reason {
    /// The variant's name, of what refused in the end.
    pub(crate) fn name(&self) -> String {
        let shown = match self {
            Self::Vfio(Refusal::Iommufd(why)) | Self::Iommufd(why) => format!("{why:?}"),
            Self::Vfio(why) => format!("{why:?}"),
        };
        shown.chars().take_while(|char| char.is_alphanumeric()).collect()
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        let memory = Arc::new(Pages::anonymous(MEMORY_SIZE).unwrap());
        Self {
            memory,
            files: BTreeMap::new(),
            next_fd: 3,
            given: Mutex::new(Vec::new()),
            lent: Mutex::new(Vec::new()),
            reasons: Mutex::new(Vec::new()),
            no_lock: NoLock::default(),
        }
    }

    pub(crate) fn open_iommufd(&mut self, context: &Arc<Context>) -> i32 {
        self.install(Open::Iommufd(context.clone()))
    }

    pub(crate) fn open_eventfd(&mut self) -> (i32, Arc<Counter>) {
        let counter = Arc::new(Counter::default());
        (self.install(Open::Eventfd(counter.clone())), counter)
    }

    pub(crate) fn open_eventfds(&mut self, count: usize) -> (Vec<i32>, Vec<Arc<Counter>>) {
        (0..count).map(|_| self.open_eventfd()).unzip()
    }

    pub(crate) fn open_group(&mut self, group: &Arc<vfio::Group>) -> i32 {
        self.install(Open::Group(group.clone()))
    }

    pub(crate) fn open_container(&mut self, container: &Arc<Container>) -> i32 {
        self.install(Open::Container(container.clone()))
    }

    /// What a group gave last.
    pub(crate) fn given(&self) -> Arc<DeviceFile> {
        self.given.lock().last().unwrap().clone()
    }

    /// All that groups gave.
    pub(crate) fn given_any(&self) -> Vec<Arc<DeviceFile>> {
        self.given.lock().clone()
    }

    /// Why what was refused since the last call was.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        std::mem::take(&mut self.reasons.lock())
    }

    /// Closes a dma-buf.
    pub(crate) fn close_dma_buf(&self, fd: u32) {
        let index = fd.cast_signed() - LENT_FD;
        let closed = self.lent.lock()[usize::try_from(index).unwrap()].take();
        drop(closed.unwrap());
    }

    pub(crate) fn open_other(&mut self) -> i32 {
        self.install(Open::Other)
    }

    fn install(&mut self, open: Open) -> i32 {
        self.next_fd += 1;
        self.files.insert(self.next_fd, open);
        self.next_fd
    }

    pub(crate) fn put(&self, at: u64, from: &[u8]) {
        self.memory.write(offset(at), from);
    }

    pub(crate) fn get(&self, at: u64, into: &mut [u8]) {
        self.memory.read(offset(at), into);
    }

    pub(crate) fn take<T: Plain>(&self, at: u64) -> T {
        let mut value = T::new_zeroed();
        self.get(at, value.as_mut_bytes());
        value
    }

    pub(crate) fn call<T: Plain>(
        &self,
        file: &Arc<DeviceFile>,
        id: CommandId,
        argument: &mut T,
    ) -> Result<u32, Errno> {
        self.call_bytes(file, id, argument.as_mut_bytes())
    }

    pub(crate) fn call_bytes(
        &self,
        file: &Arc<DeviceFile>,
        id: CommandId,
        argument: &mut [u8],
    ) -> Result<u32, Errno> {
        self.put(ARGUMENT, argument);
        let result = file.ioctl(self, Command::of(id).request, ARGUMENT);
        self.get(ARGUMENT, argument);
        result
    }
}

fn offset(at: u64) -> usize {
    usize::try_from(at - MEMORY).unwrap()
}

/// How many bytes from `at` on can be reached.
fn reachable(at: u64) -> usize {
    let end = MEMORY + MEMORY_SIZE as u64;
    if (MEMORY..end).contains(&at) { usize::try_from(end - at).unwrap() } else { 0 }
}

impl vfio::Caller for Client {
    fn group(&self, fd: i32) -> Result<Arc<vfio::Group>, FileFault> {
        self.no_lock.check();
        match self.files.get(&fd) {
            Some(Open::Group(group)) => Ok(group.clone()),
            Some(_) => Err(FileFault::OtherKind),
            None => Err(FileFault::Closed),
        }
    }

    fn container(&self, fd: i32) -> Result<Arc<Container>, FileFault> {
        self.no_lock.check();
        match self.files.get(&fd) {
            Some(Open::Container(container)) => Ok(container.clone()),
            Some(_) => Err(FileFault::OtherKind),
            None => Err(FileFault::Closed),
        }
    }

    fn install_device(
        &self,
        _: &Arc<Device>,
        open: &mut dyn FnMut(BarPages) -> Result<Arc<DeviceFile>, Refusal>,
    ) -> Result<u32, Errno> {
        self.no_lock.check();
        let file = open(BarPages::default()).map_err(|refusal| refusal.errno())?;
        self.given.lock().push(file);
        Ok(0)
    }
}

impl Caller for Client {
    fn refused(&self, why: &(dyn Error + 'static)) {
        self.no_lock.check();
        let reason = match (why.downcast_ref::<Refusal>(), why.downcast_ref()) {
            (Some(why), _) => Reason::Vfio(why.clone()),
            (None, Some(why)) => Reason::Iommufd(*why),
            (None, None) => panic!("{why} is no refusal of these crates"),
        };
        self.reasons.lock().push(reason);
    }

    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        self.no_lock.check();
        let length = into.len().min(reachable(at));
        if length > 0 {
            self.memory.read(offset(at), &mut into[..length]);
        }
        length
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable> {
        self.no_lock.check();
        let writable = reachable(at) >= from.len() && at + from.len() as u64 <= READ_ONLY;
        if !writable {
            return Err(Unreachable);
        }
        self.memory.write(offset(at), from);
        Ok(())
    }

    fn memory(&self) -> Arc<dyn Source> {
        Arc::new(Memory(self.memory.clone()))
    }

    fn file_memory(&self, _: i32) -> Result<Arc<dyn Source>, FileFault> {
        Err(FileFault::Closed)
    }

    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Signal>, FileFault> {
        self.no_lock.check();
        match self.files.get(&fd) {
            Some(Open::Eventfd(counter)) => Ok(counter.clone()),
            Some(_) => Err(FileFault::OtherKind),
            None => Err(FileFault::Closed),
        }
    }

    fn install_dma_buf(&self, buffer: &Arc<DmaBuf>, _: u32) -> Result<i32, Errno> {
        self.no_lock.check();
        let mut lent = self.lent.lock();
        if lent.len() == LENT_MOST {
            return Err(Errno::EMFILE);
        }
        lent.push(Some(Arc::clone(buffer)));
        Ok(LENT_FD + i32::try_from(lent.len() - 1).unwrap())
    }

    fn dma_buf(&self, fd: i32) -> Result<Arc<DmaBuf>, FileFault> {
        self.no_lock.check();
        let index = usize::try_from(fd - LENT_FD).map_err(|_| FileFault::OtherKind)?;
        self.lent.lock().get(index).cloned().flatten().ok_or(FileFault::Closed)
    }

    fn iommufd(&self, fd: i32) -> Result<Arc<Context>, FileFault> {
        self.no_lock.check();
        match self.files.get(&fd) {
            Some(Open::Iommufd(context)) => {
                assert!(context.get_file(), "the client holds it open");
                Ok(context.clone())
            }
            Some(_) => Err(FileFault::OtherKind),
            None => Err(FileFault::Closed),
        }
    }
}

struct Memory(Arc<Pages>);

impl Source for Memory {
    fn pin(&self, at: u64, length: u64, _: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        if (reachable(at) as u64) < length {
            return Err(PinFault::Unmapped);
        }
        Ok(Arc::new(Pin { memory: self.0.clone() }))
    }
}

struct Pin {
    memory: Arc<Pages>,
}

impl Pinned for Pin {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.memory.checked_read(offset(at), into).ok_or(MemoryGone)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        self.memory.checked_write(offset(at), from).ok_or(MemoryGone)
    }
}

type Then = Box<dyn Fn() + Send + Sync>;

/// Calls back when told to, instead of watching.
#[derive(Clone, Default)]
pub(crate) struct Watcher {
    watched: Arc<Mutex<rank::Objects, BTreeMap<u64, Arc<Then>>>>,
}

impl Watcher {
    /// How many eventfds are watched.
    pub(crate) fn count(&self) -> usize {
        self.watched.lock().len()
    }

    /// What was watched first is signalled.
    pub(crate) fn signal_first(&self) {
        let first = self.watched.lock().values().next().cloned();
        first.unwrap()();
    }

    /// The callbacks, as a watcher that is late has them.
    pub(crate) fn callbacks(&self) -> Vec<Arc<Then>> {
        self.watched.lock().values().cloned().collect()
    }
}

impl Watch for Watcher {
    fn watch(&self, _: Arc<dyn Signal>, then: Then) -> Result<Box<dyn Watching>, NotWatched> {
        let mut watched = self.watched.lock();
        let name = watched.last_key_value().map_or(0, |(last, _)| last + 1);
        watched.insert(name, Arc::new(then));
        Ok(Box::new(Watched { watcher: self.clone(), name, no_lock: NoLock::default() }))
    }
}

struct Watched {
    watcher: Watcher,
    name: u64,
    no_lock: NoLock,
}

impl Watching for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        self.no_lock.check();
        self.watcher.watched.lock().remove(&self.name);
    }
}
