//! A client of the kernel's own test interface: mock devices, accesses, PASIDs, nested page tables, queues, windows and
//! buffers, in any order, while any step that can run out of something does so.
//!
//! When its files are closed nothing may be pinned or alive, and nobody charged; a window stays while it is mapped; a
//! command that something ran out for changes nothing. Words of structs are written by a byte each, from what means
//! something somewhere, so that little input goes deep.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use iommufd::mock::{Charged, MockMachine};
use iommufd::{Context, ContextSettings, Exhausted, Quota, Resource, Tvm};
use uapi::{COMMANDS, Command, CommandId, Errno, FileKind, Profile, SizeRule};

use crate::arena::{Access, Allowed, Ledger};
use crate::client::MEMORY_BASE;
use crate::commands::COMMAND_ERRORS;
use crate::input::{Input, Output};
use crate::mock_client::{Client, FILE, FIRST_ACCESS, FIRST_BUFFER, FIRST_EVENTS, PROCESSES};

/// Steps of one input.
const STEPS_MAX: usize = 200;
const CONTEXTS: usize = 2;
/// The last page of memory: where structs lie.
const STRUCTS: u64 = MEMORY_BASE + STRUCTS_OFFSET as u64;
const STRUCTS_OFFSET: usize = 0xf000;
const PAGE_BYTES: u64 = 0x1000;

/// What only test commands answer, and what gives files.
const TEST_ERRORS: &[Errno] = &[Errno::EBADE, Errno::EIO, Errno::EMFILE];

/// Does what `bytes` say.
pub fn run(bytes: &[u8]) {
    answers(bytes);
}

/// Does what `bytes` say, and tells what steps answered, those that have an answer.
pub fn answers(bytes: &[u8]) -> Vec<(Step, Result<u64, Errno>)> {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new(input.byte());
    let mut answers = Vec::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let step = Step::decode(&mut input);
        if let Some(answer) = rig.take(&step) {
            answers.push((step, answer));
        }
        rig.check_windows();
    }
    rig.finish();
    answers
}

/// Something that a client does, or that befalls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens a context, in place of the one that is open under this number.
    Open(u8),
    /// Closes a context.
    Close(u8),
    /// Changes memory.
    Poke {
        /// From its start.
        at: u16,
        /// What is there from now on.
        bytes: Vec<u8>,
    },
    /// Changes what a page admits.
    Protect {
        /// Which.
        page: u8,
        /// Bits: not readable, not writable, gone, of the file.
        bits: u8,
    },
    /// Closes a file that a command gave.
    LetGo {
        /// Of an access, of events, of a buffer.
        kind: u8,
        /// Which of those.
        index: u8,
    },
    /// Reads or writes a file of events.
    Transfer {
        /// Which.
        index: u8,
        /// Whether it is a write.
        write: bool,
        /// Where from or to, from the start of memory.
        at: u16,
        /// Bytes.
        count: u16,
    },
    /// Lets it lock so many pages.
    LimitLocked(u8),
    /// Makes it another process.
    BecomeProcess(u8),
    /// Says what it may do: lock memory, raise limits, do raw IO, a bit each.
    Privileges(u8),
    /// Has the step run out that is so many questions away.
    RunOut(u8),
    /// Maps pages of a context's file.
    MapWindow {
        /// Of which context.
        context: u8,
        /// From which page on.
        page: u8,
        /// How many.
        pages: u8,
    },
    /// Unmaps all of a context's file from a page on.
    UnmapWindows {
        /// Of which context.
        context: u8,
        /// The page.
        page: u8,
    },
    /// Issues a command.
    Command {
        /// On which context; on the first if there is none.
        context: u8,
        /// Which.
        id: CommandId,
        /// The words of its struct after the size, or what it takes instead of a struct: codes of [`code_of`].
        words: Vec<u8>,
    },
}

impl Step {
    /// The next step of an input.
    pub fn decode(input: &mut Input<'_>) -> Self {
        let context = |input: &mut Input<'_>| input.byte() % CONTEXTS as u8;
        match input.choice(16) {
            0 => Self::Open(context(input)),
            1 => Self::Close(context(input)),
            2 => Self::Poke { at: input.word() % STRUCTS_OFFSET as u16, bytes: input.counted() },
            3 => Self::Protect { page: input.byte(), bits: input.byte() },
            4 => Self::LetGo { kind: input.byte() % 3, index: input.byte() },
            5 => {
                let (index, write) = (input.byte(), input.byte() & 1 != 0);
                Self::Transfer { index, write, at: input.word(), count: input.word() }
            }
            6 => match (input.byte() % 4, input.byte()) {
                (0, pages) => Self::LimitLocked(pages),
                (1, number) => Self::BecomeProcess(number),
                (2, bits) => Self::Privileges(bits),
                (_, questions) => Self::RunOut(questions),
            },
            7 => match (context(input), input.byte(), input.byte() % 4) {
                (context, page, 0) => Self::UnmapWindows { context, page },
                (context, page, pages) => Self::MapWindow { context, page, pages },
            },
            _ => {
                let (context, id) = (context(input), picked(input.byte()));
                let mut words = input.take(words_of(id)).to_vec();
                words.resize(words_of(id), 0);
                Self::Command { context, id, words }
            }
        }
    }

    /// Writes the step so that [`decode`](Self::decode) reads it back.
    pub fn encode(&self, out: &mut Output) {
        match self {
            Self::Open(context) => out.put(&[0, *context]),
            Self::Close(context) => out.put(&[1, *context]),
            Self::Poke { at, bytes } => {
                out.put(&[2]);
                out.put(&at.to_le_bytes());
                out.counted(bytes);
            }
            Self::Protect { page, bits } => out.put(&[3, *page, *bits]),
            Self::LetGo { kind, index } => out.put(&[4, *kind, *index]),
            Self::Transfer { index, write, at, count } => {
                out.put(&[5, *index, (*write).into()]);
                out.put(&at.to_le_bytes());
                out.put(&count.to_le_bytes());
            }
            Self::LimitLocked(pages) => out.put(&[6, 0, *pages]),
            Self::BecomeProcess(number) => out.put(&[6, 1, *number]),
            Self::Privileges(bits) => out.put(&[6, 2, *bits]),
            Self::RunOut(questions) => out.put(&[6, 3, *questions]),
            Self::UnmapWindows { context, page } => out.put(&[7, *context, *page, 0]),
            Self::MapWindow { context, page, pages } => out.put(&[7, *context, *page, *pages]),
            Self::Command { context, id, words } => {
                out.put(&[8, *context, pick_of(*id)]);
                out.put(words);
            }
        }
    }
}

/// The commands that a context takes, but for those of tests.
fn rows() -> impl Iterator<Item = &'static Command> + Clone {
    let of =
        |file| COMMANDS.iter().filter(move |row| row.file == file && row.id != CommandId::TestCmd);
    of(FileKind::Iommufd).chain(of(FileKind::VfioContainer))
}

/// The command that a byte means: half of all are of tests, which has as many operations as there are other commands.
fn picked(byte: u8) -> CommandId {
    let row = if byte & 1 == 0 { None } else { rows().cycle().nth(usize::from(byte >> 1)) };
    row.map_or(CommandId::TestCmd, |row| row.id)
}

fn pick_of(id: CommandId) -> u8 {
    let index = rows().position(|row| row.id == id);
    index.map_or(0, |index| u8::try_from(2 * index + 1).expect("few commands"))
}

/// How many words follow the size; one where there is no struct.
fn words_of(id: CommandId) -> usize {
    (Command::of(id).size as usize / 4).saturating_sub(1).max(1)
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

/// The byte that stands for a word, if one does.
pub fn code_of(word: u32) -> Option<u8> {
    (0..=u8::MAX).find(|byte| meaning(*byte) == word)
}

/// A client and what it has open.
struct Rig {
    machine: Arc<MockMachine>,
    quota: Arc<Once>,
    ledger: Arc<Ledger>,
    client: Client,
    contexts: [Option<Arc<Context>>; CONTEXTS],
    opened: Vec<Weak<Context>>,
}

/// Runs out once: at the question that is counted down to. At none if it starts from 0.
struct Once {
    left: AtomicU64,
    has_run_out: AtomicBool,
}

impl Once {
    fn at(&self, question: u8) {
        self.left.store(question.into(), Ordering::Relaxed);
    }

    /// Whether it has run out since the last call.
    fn take_run_out(&self) -> bool {
        self.has_run_out.swap(false, Ordering::Relaxed)
    }
}

impl Quota for Once {
    fn admit(&self, resource: Resource, _: u64) -> Result<(), Exhausted> {
        let less = |left: u64| left.checked_sub(1);
        let counted = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if counted != Ok(1) {
            return Ok(());
        }
        self.has_run_out.store(true, Ordering::Relaxed);
        Err(Exhausted(resource))
    }
}

impl Rig {
    fn new(runs_out_at: u8) -> Self {
        let left = AtomicU64::new(runs_out_at.into());
        let quota = Arc::new(Once { left, has_run_out: AtomicBool::new(false) });
        let machine = MockMachine::under(Arc::clone(&quota) as _);
        let ledger = Arc::new(Ledger::default());
        ledger.allow_dma(Allowed::Anywhere);
        let client = Client::new(&ledger);
        let (contexts, opened) = ([None, None], Vec::new());
        let mut rig = Self { machine, quota, ledger, client, contexts, opened };
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

    /// Closes a context, of whose file nothing is mapped any more.
    fn close(&mut self, index: usize) {
        if let Some(context) = self.contexts[index].take() {
            self.client.unmap_windows(&context, 0);
            context.put_file();
        }
    }

    fn take(&mut self, step: &Step) -> Option<Result<u64, Errno>> {
        let client = &self.client;
        match *step {
            Step::Open(context) => self.open(context.into()),
            Step::Close(context) => self.close(context.into()),
            Step::Poke { at, ref bytes } => client.memory.poke(at.into(), bytes),
            Step::Protect { page, bits } => client.protect(page, bits),
            Step::LetGo { kind, index } => client.let_go(kind, index),
            Step::Transfer { index, write, at, count } => {
                return client.transfer(index, write, at, count);
            }
            Step::LimitLocked(pages) => client.limit_locked(pages.into()),
            Step::BecomeProcess(number) => client.become_process(number),
            Step::Privileges(bits) => client.set_privileges(bits),
            Step::RunOut(questions) => self.quota.at(questions),
            Step::MapWindow { context, page, pages } => {
                let [offset, length] = [page, pages].map(|count| u64::from(count) * PAGE_BYTES);
                let mapped = client.map_window(self.context(context)?, offset, length);
                return Some(if mapped { Ok(length) } else { Err(Errno::EINVAL) });
            }
            Step::UnmapWindows { context, page } => {
                client.unmap_windows(self.context(context)?, u64::from(page) * PAGE_BYTES);
            }
            Step::Command { context, id, ref words } => return self.command(context, id, words),
        }
        None
    }

    /// The context of this number, or the first.
    fn context(&self, number: u8) -> Option<&Arc<Context>> {
        self.contexts[usize::from(number)].as_ref().or(self.contexts[0].as_ref())
    }

    fn command(&self, number: u8, id: CommandId, words: &[u8]) -> Option<Result<u64, Errno>> {
        let context = self.context(number)?;
        let row = Command::of(id);
        let mut words = words.iter().map(|code| meaning(*code));
        let argument = match row.rule {
            SizeRule::Value => words.next_back().map_or(0, u64::from),
            _ => {
                let struct_words = std::iter::once(row.size).chain(words);
                let bytes: Vec<u8> = struct_words.flat_map(u32::to_ne_bytes).collect();
                self.client.memory.poke(STRUCTS_OFFSET, &bytes);
                STRUCTS
            }
        };
        let held = || (context.counts(), self.ledger.pinned_bytes(), self.client.locked_pages());
        let before = held();
        self.quota.take_run_out();
        let answer = context.ioctl(&self.client, row.request, argument);
        if self.quota.take_run_out() && answer.is_err() {
            assert_eq!(held(), before, "{}: something ran out", row.name);
        }
        if let Err(errno) = answer {
            let known = COMMAND_ERRORS.contains(&errno) || TEST_ERRORS.contains(&errno);
            assert!(known, "{}: {errno}", row.name);
        }
        Some(answer.map(u64::from))
    }

    fn check_windows(&self) {
        self.contexts.iter().flatten().for_each(|context| self.client.check_windows(context));
    }

    fn finish(mut self) {
        self.client.memory.protect_all(Access::ALL);
        self.client.let_all_go();
        (0..CONTEXTS).for_each(|index| self.close(index));
        assert_eq!(self.ledger.pinned_bytes(), 0, "bytes pinned for a closed file");
        let alive = self.opened.iter().filter(|context| context.strong_count() > 0).count();
        assert_eq!(alive, 0, "contexts alive after everything was closed");
        assert_eq!(self.client.locked_pages(), 0, "pages locked for a closed file");
        for process in PROCESSES {
            assert_eq!(self.machine.charged(process), Charged::default());
        }
    }
}
