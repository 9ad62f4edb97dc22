//! A client of the kernel's own test interface: mock devices, accesses, PASIDs, nested page tables, queues and buffers, in
//! any order, while any step that can run out of something does so once.
//!
//! When its files are closed nothing may be pinned or alive, and nobody charged. Words of structs are written by a byte
//! each, from what means something somewhere, so that little input goes deep.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use iommufd::mock::{AccessFile, Charged, MockMachine};
use iommufd::{
    Caller, Context, ContextSettings, DmaBuf, EventFile, Exhausted, FileFault, PageIdentity,
    PinFault, Quota, Resource, Signal, Source, Tvm, Unreachable,
};
use uapi::{COMMANDS, Command, CommandId, Errno, FileKind, Profile};

use crate::arena::{Access, Allowed, Arena, LENGTH, Ledger, Pinnable};
use crate::client::MEMORY_BASE;
use crate::commands::COMMAND_ERRORS;
use crate::input::Input;

/// Steps of one input.
const STEPS_MAX: usize = 200;
const CONTEXTS: usize = 2;
const PROCESS: u32 = 41;
/// A file that can be pinned.
const FILE: i32 = 3;
const FIRST_ACCESS: u32 = 100;
const FIRST_EVENTS: u32 = 150;
const FIRST_BUFFER: u32 = 200;
/// The last page of memory: where structs lie.
const STRUCTS: u64 = MEMORY_BASE + 0xf000;

/// What only test commands answer, and what gives files.
const TEST_ERRORS: &[Errno] = &[Errno::EIO, Errno::EMFILE];

/// Does what `bytes` say.
pub fn run(bytes: &[u8]) {
    answers(bytes);
}

/// Does what `bytes` say, and tells what commands answered.
pub fn answers(bytes: &[u8]) -> Vec<(CommandId, Result<u32, Errno>)> {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new(input.byte());
    let mut answers = Vec::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        answers.extend(rig.step(&mut input));
    }
    rig.finish();
    answers
}

/// A client and what it has open.
struct Rig {
    machine: Arc<MockMachine>,
    ledger: Arc<Ledger>,
    client: Client,
    contexts: [Option<Arc<Context>>; CONTEXTS],
    opened: Vec<Weak<Context>>,
}

/// Runs out once: at the question that is counted down to. At none if it starts from 0.
struct Once(AtomicU64);

impl Quota for Once {
    fn admit(&self, resource: Resource, _: u64) -> Result<(), Exhausted> {
        let counted =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if counted == Ok(1) { Err(Exhausted(resource)) } else { Ok(()) }
    }
}

impl Rig {
    fn new(runs_out_at: u8) -> Self {
        let machine = MockMachine::under(Arc::new(Once(AtomicU64::new(runs_out_at.into()))));
        let ledger = Arc::new(Ledger::default());
        ledger.allow_dma(Allowed::Anywhere);
        let client = Client {
            memory: Arena::new(MEMORY_BASE, PinFault::Unmapped, &ledger),
            file: Arena::new(0, PinFault::FileRange, &ledger),
            accesses: RefCell::default(),
            events: RefCell::default(),
            buffers: RefCell::default(),
        };
        let mut rig = Self { machine, ledger, client, contexts: [None, None], opened: Vec::new() };
        rig.open(0);
        rig
    }

    fn open(&mut self, index: usize) {
        self.close(index);
        let settings = ContextSettings { profile: Profile::Linux73, tvm: Tvm::Implicit };
        let context = Context::open_mock(settings, &self.machine);
        self.opened.push(Arc::downgrade(&context));
        self.contexts[index] = Some(context);
    }

    fn close(&mut self, index: usize) {
        if let Some(context) = self.contexts[index].take() {
            context.put_file();
        }
    }

    fn step(&mut self, input: &mut Input<'_>) -> Option<(CommandId, Result<u32, Errno>)> {
        match input.choice(16) {
            0 => self.open(input.choice(CONTEXTS)),
            1 => self.close(input.choice(CONTEXTS)),
            2 => {
                let at = usize::from(input.word() % 0xf000);
                self.client.memory.poke(at, &input.counted());
            }
            3 => self.client.protect(input),
            4 => self.client.let_go(input),
            5 => self.client.transfer(input),
            _ => return self.command(input),
        }
        None
    }

    fn command(&self, input: &mut Input<'_>) -> Option<(CommandId, Result<u32, Errno>)> {
        let context =
            self.contexts[input.choice(CONTEXTS)].as_ref().or(self.contexts[0].as_ref())?;
        let commands = || COMMANDS.iter().filter(|row| row.file == FileKind::Iommufd);
        let test = Command::of(CommandId::TestCmd);
        let picked = input.byte();
        // Half of all: it has as many operations as there are other commands.
        let row = match picked & 1 {
            0 => test,
            _ => commands().cycle().nth(usize::from(picked >> 1)).unwrap_or(test),
        };
        let words = (row.size / 4).saturating_sub(1);
        let mut bytes = row.size.to_ne_bytes().to_vec();
        bytes.extend((0..words).flat_map(|_| meaning(input.byte()).to_ne_bytes()));
        self.client.memory.poke(0xf000, &bytes);
        let answer = context.ioctl(&self.client, row.request, STRUCTS);
        if let Err(errno) = answer {
            let known = COMMAND_ERRORS.contains(&errno) || TEST_ERRORS.contains(&errno);
            assert!(known, "{}: {errno}", row.name);
        }
        Some((row.id, answer))
    }

    fn finish(mut self) {
        self.client.memory.protect_all(Access::ALL);
        for file in self.client.accesses.take().into_iter().flatten() {
            file.release();
        }
        for file in self.client.events.take().into_iter().flatten() {
            file.release();
        }
        (0..CONTEXTS).for_each(|index| self.close(index));
        assert_eq!(self.ledger.pinned_bytes(), 0, "bytes pinned for a closed file");
        let alive = self.opened.iter().filter(|context| context.strong_count() > 0).count();
        assert_eq!(alive, 0, "contexts alive after everything was closed");
        assert_eq!(self.machine.charged(PROCESS), Charged::default());
    }
}

/// What a byte of input stands for in a word of a struct.
fn meaning(byte: u8) -> u32 {
    const SPECIAL: [u32; 8] = [
        u32::MAX,
        0xdead_beef,
        0xbeef_beef,
        0xdead,
        0x00ba_ddad,
        FILE as u32,
        0xff,
        STRUCTS as u32,
    ];
    let low = u32::from(byte & 0x0f);
    match byte >> 4 {
        0x0..=0x3 => u32::from(byte),
        0x4 | 0x5 => u32::from(byte & 0x1f) << 12,
        0x6 => MEMORY_BASE as u32 + (low << 12),
        0x7 => MEMORY_BASE as u32 + (low << 3),
        0x8 => SPECIAL[(low & 7) as usize],
        0x9 | 0xa => 1 << (byte & 0x1f),
        0xb => FIRST_ACCESS + low,
        0xc => FIRST_EVENTS + low,
        0xd => FIRST_BUFFER + low,
        _ => (low << 12) + 0x80,
    }
}

/// A program with memory, a file, and what commands gave it.
struct Client {
    memory: Arc<Arena>,
    file: Arc<Arena>,
    accesses: RefCell<Vec<Option<Arc<AccessFile>>>>,
    events: RefCell<Vec<Option<Arc<EventFile>>>>,
    buffers: RefCell<Vec<Option<Arc<DmaBuf>>>>,
}

impl Client {
    /// Changes what a page admits.
    fn protect(&self, input: &mut Input<'_>) {
        let (page, bits) = (usize::from(input.byte()), input.byte());
        let access =
            Access { readable: bits & 1 == 0, writable: bits & 2 == 0, gone: bits & 4 != 0 };
        let memory = if bits & 8 == 0 { &self.memory } else { &self.file };
        memory.protect(page, access);
    }

    /// Closes a file that a command gave.
    fn let_go(&self, input: &mut Input<'_>) {
        let (kind, index) = (input.choice(3), usize::from(input.byte()));
        match kind {
            0 => drop(take(&self.accesses, index).inspect(|file| file.release())),
            1 => drop(take(&self.events, index).inspect(|file| file.release())),
            _ => drop(take(&self.buffers, index)),
        }
    }

    /// Reads or writes a file of events.
    fn transfer(&self, input: &mut Input<'_>) {
        let (index, write) = (usize::from(input.byte()), input.byte() & 1 != 0);
        let (at, count) = (MEMORY_BASE + u64::from(input.word()), u64::from(input.word()));
        let events = self.events.borrow();
        let Some(file) = events.get(index % 16).cloned().flatten() else { return };
        drop(events);
        let answer = if write { file.write(self, at, count) } else { file.read(self, at, count) };
        match answer {
            Ok(done) => assert!(done <= count, "{done} of {count}"),
            Err(errno) => assert!([Errno::EINVAL, Errno::EFAULT, Errno::ESPIPE].contains(&errno)),
        }
    }
}

type Files<T> = RefCell<Vec<Option<Arc<T>>>>;

fn take<T>(files: &Files<T>, index: usize) -> Option<Arc<T>> {
    let mut files = files.borrow_mut();
    let count = files.len().max(1);
    files.get_mut(index % count)?.take()
}

fn keep<T>(files: &Files<T>, file: &Arc<T>, first: u32) -> Result<i32, Errno> {
    const MOST: usize = 16;
    let mut files = files.borrow_mut();
    if files.len() == MOST {
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
            Ok(Arc::new(Pinnable(Arc::clone(&self.file))))
        } else {
            Err(FileFault::Closed)
        }
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        let offset = at.checked_sub(MEMORY_BASE).filter(|offset| *offset < LENGTH as u64)?;
        Some(PageIdentity { object: (0, 0), offset })
    }

    fn eventfd(&self, _: i32) -> Result<Arc<dyn Signal>, FileFault> {
        Err(FileFault::Closed)
    }

    fn may_lock_memory(&self) -> bool {
        false
    }

    fn process(&self) -> u32 {
        PROCESS
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
