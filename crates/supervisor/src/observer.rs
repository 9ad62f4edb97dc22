//! What the supervisor tells those who watch it serve.
//!
//! The front end calls an [`Observer`] after each call it served, with no lock of its own held and
//! before the program's thread goes on, so that what is told comes in the order in which the thread
//! saw it. Devices tell theirs through [`pci::Notices`] and through the tap around each function.
//! Absent on purpose: any way for an observer to change an answer.

use pci::{Address, DmaAccess, Interrupt, Notices};
use tdisp::{Breach, State};
use uapi::{Command, Errno, FileKind, Profile};
use vfio::PolicyEvent;

/// Someone who watches. Called from many threads at once; must not block for long, for the program
/// waits meanwhile. Every method but [`call`](Self::call) and [`released`](Self::released) has a
/// body that ignores what it is told.
pub trait Observer: Notices {
    /// Whether [`Call::Ioctl`], [`Call::Read`] and [`Call::Write`] should carry bytes. Asked once a
    /// call; where false the front end spares itself the copies and gives empty slices.
    fn wants_bytes(&self) -> bool {
        false
    }

    /// A call on one of our files was answered.
    fn call(&self, thread: Thread, call: &Call<'_>, answer: Result<u64, Errno>);

    /// The last reference to an open file went away and its release has completed.
    fn released(&self, file: &OpenFile, left: &Left);

    /// A function moved `length_bytes` bytes.
    fn dma(&self, function: Address, access: DmaAccess, iova: u64, length_bytes: u64) {
        let _ = (function, access, iova, length_bytes);
    }

    /// A function moved `length_bytes` bytes of a confidential guest's memory: DMA with the T bit.
    fn trusted_dma(&self, function: Address, access: DmaAccess, iova: u64, length_bytes: u64) {
        self.dma(function, access, iova, length_bytes);
    }

    /// The TSM did something about a function, or gave it up.
    fn tsm(&self, function: Address, notice: &tsm::Notice) {
        let _ = (function, notice);
    }

    /// A function's interface (TDI) changed its state, as the device has it. `cause` is the breach
    /// that took it to `ERROR`.
    fn tdi(&self, function: Address, from: State, to: State, cause: Option<Breach>) {
        let _ = (function, from, to, cause);
    }

    /// A policy came between a client and a TDI.
    fn policy(&self, function: Address, event: PolicyEvent) {
        let _ = (function, event);
    }

    /// A function raised an interrupt, heard or not.
    fn interrupt(&self, function: Address, interrupt: Interrupt) {
        let _ = (function, interrupt);
    }

    /// How TEE devices were used: told once, when every file was released, before
    /// [`finished`](Self::finished). `left` are TDIs that are bound or quarantined even now.
    fn tdis_ended(&self, counters: &tsm::Counters, left: &[(Address, tsm::Binding)]) {
        let _ = (counters, left);
    }

    /// The whole tree has ended and every file was released. Told once, last, in the process that
    /// served. `status` is the program's exit status (128+n on a signal); the answer is what we exit
    /// with.
    fn finished(&self, status: u8) -> u8 {
        status
    }
}

/// The thread that made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its process: the thread group's ID.
    pub process: i32,
    /// Itself.
    pub id: i32,
}

/// An open file of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Counts every open of this run from 1. Never used twice.
    pub serial: u64,
    /// Which commands it takes.
    pub kind: FileKind,
    /// Where it was opened, such as `/dev/iommu`.
    pub path: String,
    /// The process that opened it.
    pub opener: i32,
}

/// A call on one of our files, or one that opened it.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// `open`, `openat` or `openat2` of a path of ours; the answer is the new file descriptor.
    Open {
        /// The path as resolved.
        path: &'a str,
        /// The file, where the open succeeded.
        file: Option<&'a OpenFile>,
    },
    /// `ioctl`.
    Ioctl {
        /// The descriptor it was called on.
        fd: i32,
        /// The file behind it.
        file: &'a OpenFile,
        /// The request number.
        request: u32,
        /// The third argument: mostly the address of a struct.
        argument: u64,
        /// The struct as the program sent it, as far as it was read; a variable tail included.
        sent: &'a [u8],
        /// The struct as it stood after the answer; empty where nothing was written back.
        returned: &'a [u8],
    },
    /// A read of a device region.
    Read {
        /// The descriptor.
        fd: i32,
        /// The file.
        file: &'a OpenFile,
        /// The file offset as given, region index included.
        offset: u64,
        /// Bytes asked for.
        count: u64,
        /// What was read.
        bytes: &'a [u8],
    },
    /// A write to a device region.
    Write {
        /// The descriptor.
        fd: i32,
        /// The file.
        file: &'a OpenFile,
        /// The file offset as given, region index included.
        offset: u64,
        /// Bytes given.
        count: u64,
        /// What was written.
        bytes: &'a [u8],
    },
    /// `mmap` of a device region; the answer of one let through is 0.
    Map {
        /// The descriptor.
        fd: i32,
        /// The file.
        file: &'a OpenFile,
        /// The file offset as given, region index included.
        offset: u64,
        /// Bytes asked for.
        length: u64,
    },
}

/// What a file still held when it was released, beyond what its program took down itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Objects by type (`ioas`, `hwpt`, …) and how many; no entry for none.
    pub objects: Vec<(&'static str, u64)>,
    /// Mapped areas.
    pub maps: u64,
    /// Bytes in them.
    pub mapped_bytes: u64,
    /// The program had exited, or was killed, rather than close the file.
    pub at_exit: bool,
}

/// What a request number means on an open file. A context takes a container's commands too.
pub(crate) fn command_on(
    file: FileKind,
    profile: Profile,
    request: u32,
) -> Option<&'static Command> {
    let own = uapi::lookup(file, profile, request);
    if file == FileKind::Iommufd {
        return own.or_else(|| uapi::lookup(FileKind::VfioContainer, profile, request));
    }
    own
}
