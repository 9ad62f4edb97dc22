//! A program with sixteen descriptors and sixteen pages of memory.

use std::cell::RefCell;
use std::sync::Arc;

use iommufd::{
    Caller, Context, EventFile, FileFault, PinAccess, PinFault, Pinned, Signal, Source, Unreachable,
};
use uapi::Errno;
use vfio::{BarPages, DeviceFile};

use crate::arena::{Arena, Ledger, Pinnable};
use crate::eventfd::Eventfd;

/// Where the client's memory begins.
pub const MEMORY_BASE: u64 = 0x10_0000;
/// Descriptors are 0 up to this.
pub(crate) const DESCRIPTORS: usize = 16;

/// A client.
pub(crate) struct Client {
    pub(crate) memory: Arc<Arena>,
    pub(crate) files: [Option<File>; DESCRIPTORS],
    /// Files of events that it was given, where there are such.
    pub(crate) events: RefCell<Vec<Arc<EventFile>>>,
    pub(crate) takes_events: bool,
}

/// What a descriptor is open on.
pub(crate) enum File {
    Iommufd(Arc<Context>),
    Device(Arc<DeviceFile>, BarPages),
    Eventfd(Arc<Eventfd>),
    Memory(Arc<Arena>),
}

impl Client {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        let memory = Arena::new(MEMORY_BASE, PinFault::Unmapped, ledger);
        Self { memory, files: Default::default(), events: RefCell::default(), takes_events: false }
    }

    fn file(&self, fd: i32) -> Result<&File, FileFault> {
        let fd = usize::try_from(fd).ok().filter(|fd| *fd < DESCRIPTORS);
        fd.and_then(|fd| self.files[fd].as_ref()).ok_or(FileFault::Closed)
    }
}

impl vfio::Caller for Client {}

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
        Ok(match self.file(fd)? {
            File::Memory(arena) => Arc::new(Pinnable(Arc::clone(arena))),
            File::Iommufd(_) | File::Device(..) | File::Eventfd(_) => Arc::new(NoMemory),
        })
    }

    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Signal>, FileFault> {
        match self.file(fd)? {
            File::Eventfd(eventfd) => Ok(Arc::clone(eventfd) as Arc<dyn Signal>),
            File::Iommufd(_) | File::Device(..) | File::Memory(_) => Err(FileFault::OtherKind),
        }
    }

    fn install_events(&self, file: &Arc<EventFile>) -> Result<i32, Errno> {
        if !self.takes_events {
            return Err(Errno::EOPNOTSUPP);
        }
        self.events.borrow_mut().push(Arc::clone(file));
        Ok(DESCRIPTORS as i32)
    }

    fn iommufd(&self, fd: i32) -> Result<Arc<Context>, FileFault> {
        match self.file(fd)? {
            File::Iommufd(context) => {
                assert!(context.get_file(), "an open file has a reference");
                Ok(Arc::clone(context))
            }
            File::Device(..) | File::Eventfd(_) | File::Memory(_) => Err(FileFault::OtherKind),
        }
    }
}

/// A file without pages.
struct NoMemory;

impl Source for NoMemory {
    fn pin(&self, _: u64, _: u64, _: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        Err(PinFault::FileRange)
    }
}
