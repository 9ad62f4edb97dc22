//! The client of [`mock_commands`](crate::mock_commands): memory, a file, what commands gave it, and what it may do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iommufd::mock::AccessFile;
use iommufd::{
    Caller, Context, DmaBuf, EventFile, FileFault, MemoryGone, PageIdentity, PinAccess, PinFault,
    Pinned, Signal, Source, Unreachable,
};
use uapi::Errno;

use crate::arena::{Access, Arena, Ledger, PAGE_SIZE, Pinnable};
use crate::client::MEMORY_BASE;

/// Numbers of the processes that it may be.
pub(crate) const PROCESSES: [u32; 2] = [41, 42];
/// A file that can be pinned.
pub(crate) const FILE: i32 = 3;
pub(crate) const FIRST_ACCESS: u32 = 100;
pub(crate) const FIRST_EVENTS: u32 = 150;
pub(crate) const FIRST_BUFFER: u32 = 200;

/// A program with memory, a file, and what commands gave it.
pub(crate) struct Client {
    pub(crate) memory: Arc<Arena>,
    pub(crate) file: Arc<Arena>,
    accesses: Files<AccessFile>,
    events: Files<EventFile>,
    buffers: Files<DmaBuf>,
    /// Those that it maps, of each context, by offset: their lengths.
    windows: RefCell<BTreeMap<(usize, u64), u64>>,
    lockable: Arc<Lockable>,
    /// Which of [`PROCESSES`] it is.
    process: Cell<usize>,
    privileges: Cell<u8>,
}

/// What it may do, as bits.
pub(crate) mod privilege {
    pub(crate) const LOCK_MEMORY: u8 = 1 << 0;
    pub(crate) const RAISE_LIMITS: u8 = 1 << 1;
    pub(crate) const RAW_IO: u8 = 1 << 2;
}

impl Client {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            memory: Arena::new(MEMORY_BASE, PinFault::Unmapped, ledger),
            file: Arena::new(0, PinFault::FileRange, ledger),
            accesses: RefCell::default(),
            events: RefCell::default(),
            buffers: RefCell::default(),
            windows: RefCell::default(),
            lockable: Arc::default(),
            process: Cell::new(0),
            privileges: Cell::new(privilege::RAISE_LIMITS | privilege::RAW_IO),
        }
    }

    /// Changes what a page of memory admits, or of the file.
    pub(crate) fn protect(&self, page: u8, bits: u8) {
        let access =
            Access { readable: bits & 1 == 0, writable: bits & 2 == 0, gone: bits & 4 != 0 };
        let memory = if bits & 8 == 0 { &self.memory } else { &self.file };
        memory.protect(usize::from(page), access);
    }

    /// Says how many pages it may lock from now on.
    pub(crate) fn limit_locked(&self, pages: u64) {
        self.lockable.pages_most.store(pages, Ordering::Relaxed);
    }

    /// Goes on as one of [`PROCESSES`].
    pub(crate) fn become_process(&self, number: u8) {
        self.process.set(usize::from(number) % PROCESSES.len());
    }

    /// Says what it may do from now on.
    pub(crate) fn set_privileges(&self, bits: u8) {
        self.privileges.set(bits);
    }

    /// Closes a file that a command gave.
    pub(crate) fn let_go(&self, kind: u8, index: u8) {
        let index = usize::from(index);
        match kind {
            0 => drop(take(&self.accesses, index).inspect(|file| file.release())),
            1 => drop(take(&self.events, index).inspect(|file| file.release())),
            _ => drop(take(&self.buffers, index)),
        }
    }

    /// Closes all of them.
    pub(crate) fn let_all_go(&self) {
        for file in self.accesses.take().into_iter().flatten() {
            file.release();
        }
        for file in self.events.take().into_iter().flatten() {
            file.release();
        }
        self.buffers.take();
    }

    /// Reads or writes a file of events. `None` if there is none.
    pub(crate) fn transfer(
        &self,
        index: u8,
        write: bool,
        at: u16,
        count: u16,
    ) -> Option<Result<u64, Errno>> {
        let (at, count) = (MEMORY_BASE + u64::from(at), u64::from(count));
        let file = self.events.borrow().get(usize::from(index) % FILES_MOST).cloned().flatten()?;
        let answer = if write { file.write(self, at, count) } else { file.read(self, at, count) };
        match answer {
            Ok(done) => assert!(done <= count, "{done} of {count}"),
            Err(errno) => assert!([Errno::EINVAL, Errno::EFAULT, Errno::ESPIPE].contains(&errno)),
        }
        Some(answer)
    }

    /// Maps bytes of a context's file if they are a window, and tells whether they are.
    pub(crate) fn map_window(&self, ctx: &Context, offset: u64, length: u64) -> bool {
        let is_window = ctx.has_window(offset, length);
        if is_window {
            self.windows.borrow_mut().insert((name(ctx), offset), length);
        }
        is_window
    }

    /// Unmaps whatever it maps of a context's file, from `offset` on.
    pub(crate) fn unmap_windows(&self, ctx: &Context, offset: u64) {
        self.windows.borrow_mut().retain(|mapped, _| mapped.0 != name(ctx) || mapped.1 < offset);
    }

    /// Checks that what it maps of a context's file is a window still.
    pub(crate) fn check_windows(&self, ctx: &Context) {
        for (mapped, length) in &*self.windows.borrow() {
            if mapped.0 == name(ctx) {
                assert!(ctx.has_window(mapped.1, *length), "a window goes while it is mapped");
            }
        }
    }

    /// How many pages it holds locked.
    pub(crate) fn locked_pages(&self) -> u64 {
        self.lockable.pages.load(Ordering::Relaxed)
    }

    fn may(&self, bit: u8) -> bool {
        self.privileges.get() & bit != 0
    }
}

/// What a context is told from others by, while it is open.
fn name(ctx: &Context) -> usize {
    std::ptr::from_ref(ctx).addr()
}

/// Pages held locked, and how many may be.
struct Lockable {
    pages: AtomicU64,
    pages_most: AtomicU64,
}

impl Default for Lockable {
    fn default() -> Self {
        Self { pages: AtomicU64::new(0), pages_most: AtomicU64::new(u64::MAX) }
    }
}

/// Memory whose pins are held against what may be locked.
struct Charged {
    memory: Arc<dyn Source>,
    lockable: Arc<Lockable>,
}

impl Source for Charged {
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        let pages = length.div_ceil(PAGE_SIZE as u64);
        let held = self.lockable.pages.fetch_add(pages, Ordering::Relaxed) + pages;
        let locked = Locked { lockable: Arc::clone(&self.lockable), pages };
        if held > self.lockable.pages_most.load(Ordering::Relaxed) {
            return Err(PinFault::Limit);
        }
        Ok(Arc::new(ChargedPin { pinned: self.memory.pin(at, length, access)?, _locked: locked }))
    }

    fn is_file(&self) -> bool {
        self.memory.is_file()
    }
}

struct ChargedPin {
    pinned: Arc<dyn Pinned>,
    _locked: Locked,
}

impl Pinned for ChargedPin {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.pinned.read(at, into)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        self.pinned.write(at, from)
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.pinned.page(at)
    }
}

struct Locked {
    lockable: Arc<Lockable>,
    pages: u64,
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.lockable.pages.fetch_sub(self.pages, Ordering::Relaxed);
    }
}

/// How many files of a kind it can have.
const FILES_MOST: usize = 16;

type Files<T> = RefCell<Vec<Option<Arc<T>>>>;

fn take<T>(files: &Files<T>, index: usize) -> Option<Arc<T>> {
    let mut files = files.borrow_mut();
    let count = files.len().max(1);
    files.get_mut(index % count)?.take()
}

fn keep<T>(files: &Files<T>, file: &Arc<T>, first: u32) -> Result<i32, Errno> {
    let mut files = files.borrow_mut();
    if files.len() == FILES_MOST {
        return Err(Errno::EMFILE);
    }
    files.push(Some(Arc::clone(file)));
    Ok((first + files.len() as u32 - 1).cast_signed())
}

fn find<T>(files: &Files<T>, fd: i32, first: u32) -> Result<Arc<T>, FileFault> {
    let index = fd.cast_unsigned().checked_sub(first).ok_or(FileFault::Closed)?;
    files.borrow().get(index as usize).cloned().flatten().ok_or(FileFault::Closed)
}

impl Caller for Client {
    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        self.memory.read_prefix(at, into)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable> {
        self.memory.write(at, from)
    }

    fn memory(&self) -> Arc<dyn Source> {
        Arc::new(Pinnable(Arc::clone(&self.memory)))
    }

    fn file_memory(&self, fd: i32) -> Result<Arc<dyn Source>, FileFault> {
        if fd == FILE {
            Ok(Arc::new(File(Pinnable(Arc::clone(&self.file)))))
        } else {
            Err(FileFault::Closed)
        }
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.memory.page(at)
    }

    fn eventfd(&self, _: i32) -> Result<Arc<dyn Signal>, FileFault> {
        Err(FileFault::Closed)
    }

    fn may_lock_memory(&self) -> bool {
        self.may(privilege::LOCK_MEMORY)
    }

    fn may_raise_limits(&self) -> bool {
        self.may(privilege::RAISE_LIMITS)
    }

    fn may_do_raw_io(&self) -> bool {
        self.may(privilege::RAW_IO)
    }

    fn charged(&self, memory: Arc<dyn Source>, _: bool) -> Arc<dyn Source> {
        Arc::new(Charged { memory, lockable: Arc::clone(&self.lockable) })
    }

    fn process(&self) -> u32 {
        PROCESSES[self.process.get()]
    }

    fn fill_window(&self, _: &Context, _: u64, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }

    fn maps_window(&self, ctx: &Context, offset: u64, length: u64) -> bool {
        self.windows.borrow().get(&(name(ctx), offset)) == Some(&length)
    }

    fn install_access(&self, file: &Arc<AccessFile>) -> Result<i32, Errno> {
        keep(&self.accesses, file, FIRST_ACCESS)
    }

    fn access(&self, fd: i32) -> Result<Arc<AccessFile>, FileFault> {
        find(&self.accesses, fd, FIRST_ACCESS)
    }

    fn install_events(&self, file: &Arc<EventFile>) -> Result<i32, Errno> {
        keep(&self.events, file, FIRST_EVENTS)
    }

    fn install_dma_buf(&self, buffer: &Arc<DmaBuf>, _: u32) -> Result<i32, Errno> {
        keep(&self.buffers, buffer, FIRST_BUFFER)
    }

    fn dma_buf(&self, fd: i32) -> Result<Arc<DmaBuf>, FileFault> {
        find(&self.buffers, fd, FIRST_BUFFER)
    }

    fn iommufd(&self, _: i32) -> Result<Arc<Context>, FileFault> {
        Err(FileFault::Closed)
    }
}

/// A file, which outlives whoever maps it.
struct File(Pinnable);

impl Source for File {
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        self.0.pin(at, length, access)
    }

    fn is_file(&self) -> bool {
        true
    }
}
