//! A client that does anything with its files, in any order.
//!
//! DMA must lead to what is mapped and nowhere else. After every step the contexts must hold mapped what
//! was mapped, and pinned what they say; after the last everything is closed and nothing may be left, and
//! every device must take a new client.

use iommufd::Signal;
use uapi::{COMMANDS, Errno, Profile};
use vfio::{MapRequest, REGION_BASE, REGION_SHIFT};

use crate::arena::{Access, PAGE_SIZE};
use crate::client::{DESCRIPTORS, File, MEMORY_BASE};

use crate::input::{Input, Output};
use crate::rig::{DEVICES, Kind, Rig};

/// Steps of one input.
const STEPS_MAX: usize = 256;

/// Does what `bytes` say.
pub fn run(bytes: &[u8]) {
    answers(bytes);
}

/// Does what `bytes` say, and tells what commands, reads and writes answered.
pub fn answers(bytes: &[u8]) -> Vec<(Step, Result<u64, Errno>)> {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new();
    let mut answers = Vec::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let step = Step::decode(&mut input);
        if let Some(answer) = take(&mut rig, &step) {
            answers.push((step, answer));
        }
        rig.watcher.serve();
        rig.check_memory();
    }
    rig.finish();
    answers
}

/// Something that a client or a device does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens a file as `fd`.
    Open {
        /// In place of what was open there.
        fd: u8,
        /// What.
        kind: Kind,
    },
    /// Closes `fd`.
    Close {
        /// Which.
        fd: u8,
    },
    /// Puts a command's struct into memory and issues the command.
    Command {
        /// On what.
        fd: u8,
        /// Index in [`COMMANDS`].
        row: u8,
        /// Where the struct lies, from the start of memory.
        at: u16,
        /// The struct of the row's size, and any tail. The first word, if zero, becomes the length.
        bytes: Vec<u8>,
    },
    /// Issues a command on what is in memory.
    Raw {
        /// On what.
        fd: u8,
        /// The request number.
        request: u32,
        /// The argument.
        argument: u64,
    },
    /// Changes memory.
    Poke {
        /// From the start of memory.
        at: u16,
        /// What is there from now on.
        bytes: Vec<u8>,
    },
    /// Changes what a page of memory, or of a memfd, admits.
    Protect {
        /// The memfd, or anything else for memory.
        fd: u8,
        /// The page.
        page: u8,
        /// Bits: not readable, not writable, gone.
        bits: u8,
    },
    /// Reads from or writes to a device.
    Transfer {
        /// The device's file.
        fd: u8,
        /// Whether it is a write.
        write: bool,
        /// Where from or to, from the start of memory.
        at: u16,
        /// Bytes.
        count: u16,
        /// Where in the device.
        place: Place,
    },
    /// Asks whether a mapping is allowed.
    Map {
        /// The device's file.
        fd: u8,
        /// Where.
        place: Place,
        /// Bytes.
        length: u64,
        /// Bits: shared, read, write, execute.
        bits: u8,
    },
    /// Writes to a mapped BAR 0.
    Store {
        /// The device's file.
        fd: u8,
        /// From the start of what can be mapped.
        at: u16,
        /// What is written.
        bytes: Vec<u8>,
    },
    /// A device works.
    Work {
        /// Which.
        device: u8,
        /// The most bytes that it moves, as a power of two.
        budget_lg2: u8,
    },
    /// The client writes to an eventfd.
    Kick {
        /// Which.
        fd: u8,
    },
    /// The host wants a device back, or tells of an error.
    Host {
        /// Which device.
        device: u8,
        /// Whether it is an error.
        error: bool,
    },
}

/// A place in a device file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The region.
    pub region: u8,
    /// The offset in it.
    pub offset: u64,
}

impl Place {
    fn position(self) -> u64 {
        let base = REGION_BASE.wrapping_add(u64::from(self.region) << REGION_SHIFT);
        base.wrapping_add(self.offset)
    }

    fn decode(input: &mut Input<'_>) -> Self {
        Self { region: input.byte(), offset: input.qword() }
    }

    fn encode(self, out: &mut Output) {
        out.put(&[self.region]);
        out.put(&self.offset.to_le_bytes());
    }
}

const NOT_READABLE: u8 = 1;
const NOT_WRITABLE: u8 = 2;
const GONE: u8 = 4;
const SHARED: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const EXECUTE: u8 = 8;

/// Takes a step; gives the answer where there is one.
fn take(rig: &mut Rig, step: &Step) -> Option<Result<u64, Errno>> {
    match *step {
        Step::Open { fd, kind } => rig.open(usize::from(fd), kind),
        Step::Close { fd } => rig.close(usize::from(fd)),
        Step::Command { fd, row, at, ref bytes } => {
            let mut bytes = bytes.clone();
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            if let Some(first) = bytes.first_chunk_mut().filter(|first| **first == [0; 4]) {
                *first = length.to_le_bytes();
            }
            rig.client.memory.poke(usize::from(at), &bytes);
            let request = COMMANDS[usize::from(row)].request;
            return command(rig, fd, request, MEMORY_BASE + u64::from(at));
        }
        Step::Raw { fd, request, argument } => return command(rig, fd, request, argument),
        Step::Poke { at, ref bytes } => rig.client.memory.poke(usize::from(at), bytes),
        Step::Protect { fd, page, bits } => protect(rig, fd, page, bits),
        Step::Transfer { fd, write, at, count, place } => {
            return transfer(rig, fd, write, at, count, place);
        }
        Step::Map { fd, place, length, bits } => return map(rig, fd, place, length, bits),
        Step::Store { fd, at, ref bytes } => store(rig, fd, at, bytes),
        Step::Work { device, budget_lg2 } => rig.step(usize::from(device), 1 << budget_lg2),
        Step::Kick { fd } => {
            if let Some(File::Eventfd(eventfd)) = &rig.client.files[usize::from(fd)] {
                eventfd.signal();
            }
        }
        Step::Host { device, error } => {
            let device = &rig.machine.devices[usize::from(device)].vfio;
            if error {
                device.signal_error()
            } else {
                device.request_release()
            };
        }
    }
    None
}

fn command(rig: &mut Rig, fd: u8, request: u32, argument: u64) -> Option<Result<u64, Errno>> {
    let answer = rig.ioctl(usize::from(fd), request, argument)?;
    check_errno(answer, COMMAND_ERRORS);
    Some(answer.map(u64::from))
}

fn transfer(
    rig: &Rig,
    fd: u8,
    write: bool,
    at: u16,
    count: u16,
    place: Place,
) -> Option<Result<u64, Errno>> {
    let file = rig.device_file(fd)?;
    let (at, count) = (MEMORY_BASE + u64::from(at), u64::from(count));
    let answer = if write {
        file.write(&rig.client, at, count, place.position())
    } else {
        file.read(&rig.client, at, count, place.position())
    };
    assert!(answer.is_ok_and(|done| done <= count) || answer.is_err(), "{answer:?} of {count}");
    check_errno(answer, &[Errno::EINVAL, Errno::EFAULT, Errno::EIO]);
    Some(answer)
}

fn map(rig: &Rig, fd: u8, place: Place, length: u64, bits: u8) -> Option<Result<u64, Errno>> {
    let request = MapRequest {
        shared: bits & SHARED != 0,
        read: bits & READ != 0,
        write: bits & WRITE != 0,
        exec: bits & EXECUTE != 0,
    };
    let answer = rig.device_file(fd)?.mmap(place.position(), length, request);
    check_errno(answer, &[Errno::EINVAL]);
    Some(answer.map(|()| 0))
}

fn store(rig: &Rig, fd: u8, at: u16, bytes: &[u8]) {
    if let Some(File::Device(_, [Some(pages), ..])) = &rig.client.files[usize::from(fd)] {
        let at = PAGE_SIZE + usize::from(at) % (pages.len() - PAGE_SIZE);
        let length = bytes.len().min(pages.len() - at);
        pages.write(at, &bytes[..length]);
    }
}

fn protect(rig: &Rig, fd: u8, page: u8, bits: u8) {
    let access = Access {
        readable: bits & NOT_READABLE == 0,
        writable: bits & NOT_WRITABLE == 0,
        gone: bits & GONE != 0,
    };
    let memory = match &rig.client.files[usize::from(fd)] {
        Some(File::Memory(arena)) => arena,
        _ => &rig.client.memory,
    };
    memory.protect(usize::from(page), access);
}

/// What commands of Linux answer, and ours may.
pub(crate) const COMMAND_ERRORS: &[Errno] = &[
    Errno::E2BIG,
    Errno::EADDRINUSE,
    Errno::EAGAIN,
    Errno::EBADF,
    Errno::EBADFD,
    Errno::EBUSY,
    Errno::EEXIST,
    Errno::EFAULT,
    Errno::EINVAL,
    Errno::EMSGSIZE,
    Errno::ENODEV,
    Errno::ENOENT,
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::ENOTTY,
    Errno::EOPNOTSUPP,
    Errno::EOVERFLOW,
    Errno::EPERM,
    Errno::ERANGE,
];

fn check_errno<T>(answer: Result<T, Errno>, plausible: &[Errno]) {
    if let Err(errno) = answer {
        assert!(plausible.contains(&errno), "{errno}");
    }
}

impl Step {
    /// The next step of an input.
    pub fn decode(input: &mut Input<'_>) -> Self {
        let step = input.choice(12);
        let fd = |input: &mut Input<'_>| input.byte() % DESCRIPTORS as u8;
        match step {
            0 => Self::Open { fd: fd(input), kind: decode_kind(input) },
            1 => Self::Close { fd: fd(input) },
            2 => {
                let (fd, row) = (fd(input), input.choice(COMMANDS.len()));
                let (at, tail) = (input.word(), usize::from(input.byte()));
                let size = COMMANDS[row].size as usize;
                let mut bytes = input.take(size + tail).to_vec();
                bytes.resize(size + tail, 0);
                Self::Command { fd, row: row as u8, at, bytes }
            }
            3 => Self::Raw { fd: fd(input), request: input.dword(), argument: input.qword() },
            4 => Self::Poke { at: input.word(), bytes: input.counted() },
            5 => Self::Protect { fd: fd(input), page: input.byte(), bits: input.byte() },
            6 => Self::Transfer {
                fd: fd(input),
                write: input.byte() & 1 != 0,
                at: input.word(),
                count: input.word(),
                place: Place::decode(input),
            },
            7 => Self::Map {
                fd: fd(input),
                place: Place::decode(input),
                length: input.qword(),
                bits: input.byte(),
            },
            8 => Self::Store { fd: fd(input), at: input.word(), bytes: input.counted() },
            9 => Self::Work { device: input.choice(DEVICES) as u8, budget_lg2: input.byte() % 21 },
            10 => Self::Kick { fd: fd(input) },
            _ => Self::Host { device: input.choice(DEVICES) as u8, error: input.byte() & 1 != 0 },
        }
    }

    /// The bytes that [`decode`](Self::decode) takes for this step.
    pub fn encode(&self, out: &mut Output) {
        match self {
            Self::Open { fd, kind } => out.put(&[0, *fd, encode_kind(*kind)]),
            Self::Close { fd } => out.put(&[1, *fd]),
            Self::Command { fd, row, at, bytes } => {
                out.put(&[2, *fd, *row]);
                out.put(&at.to_le_bytes());
                let tail = bytes.len() - COMMANDS[usize::from(*row)].size as usize;
                out.put(&[u8::try_from(tail).expect("a tail is short")]);
                out.put(bytes);
            }
            Self::Raw { fd, request, argument } => {
                out.put(&[3, *fd]);
                out.put(&request.to_le_bytes());
                out.put(&argument.to_le_bytes());
            }
            Self::Poke { at, bytes } => {
                out.put(&[4]);
                out.put(&at.to_le_bytes());
                out.counted(bytes);
            }
            Self::Protect { fd, page, bits } => out.put(&[5, *fd, *page, *bits]),
            Self::Transfer { fd, write, at, count, place } => {
                out.put(&[6, *fd, u8::from(*write)]);
                out.put(&at.to_le_bytes());
                out.put(&count.to_le_bytes());
                place.encode(out);
            }
            Self::Map { fd, place, length, bits } => {
                out.put(&[7, *fd]);
                place.encode(out);
                out.put(&length.to_le_bytes());
                out.put(&[*bits]);
            }
            Self::Store { fd, at, bytes } => {
                out.put(&[8, *fd]);
                out.put(&at.to_le_bytes());
                out.counted(bytes);
            }
            Self::Work { device, budget_lg2 } => out.put(&[9, *device, *budget_lg2]),
            Self::Kick { fd } => out.put(&[10, *fd]),
            Self::Host { device, error } => out.put(&[11, *device, u8::from(*error)]),
        }
    }
}

fn decode_kind(input: &mut Input<'_>) -> Kind {
    const PROFILES: usize = Profile::ALL.len();
    const EVENTFD: usize = PROFILES + DEVICES;
    match input.choice(EVENTFD + 2) {
        profile if profile < PROFILES => Kind::Iommufd(Profile::ALL[profile]),
        device if device < EVENTFD => Kind::Device(device - PROFILES),
        EVENTFD => Kind::Eventfd,
        _ => Kind::Memory,
    }
}

fn encode_kind(kind: Kind) -> u8 {
    let profiles = Profile::ALL.len();
    let number = match kind {
        Kind::Iommufd(profile) => {
            Profile::ALL.iter().position(|one| *one == profile).expect("ALL has all")
        }
        Kind::Device(index) => profiles + index,
        Kind::Eventfd => profiles + DEVICES,
        Kind::Memory => profiles + DEVICES + 1,
    };
    number as u8
}
