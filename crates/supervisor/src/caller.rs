//! The program's thread behind a command, over its real process.
//!
//! Takes no lock of its own.

use std::cell::RefCell;
use std::sync::Arc;

use iommufd::mock::AccessFile;
use iommufd::{
    Caller, Context, DmaBuf, EventFile, FileFault, PageIdentity, Signal, Source, Unreachable,
};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use vfio::{BarPages, Container, DeviceFile, Group, Refusal};

use crate::capabilities::{self, Capability};
use crate::file_memory::FileMemory;
use crate::files::{File, Object};
use crate::front_end::FrontEnd;
use crate::memory::ProcessMemory;
use crate::process::Task;
use crate::requests::{access_file, dma_buf_file, event_file, granted, window};

/// Most bytes of one call that observers are shown.
const SHOWN_BYTES_MOST: usize = 64 << 10;

/// A thread whose call waits for our answer.
pub(crate) struct Client<'c> {
    pub(crate) front: &'c FrontEnd,
    /// Names the waiting call.
    pub(crate) call: u64,
    /// The thread.
    pub(crate) thread: i32,
    pub(crate) task: &'c Arc<Task>,
    /// What passed between us and the memory that the call points to, if anybody wants to know.
    pub(crate) record: Option<RefCell<Record>>,
}

/// Bytes copied from and to a run of the program's memory.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Where the run begins.
    start: u64,
    /// What was read.
    pub(crate) sent: Vec<u8>,
    /// What was there after writing; empty where nothing was written.
    pub(crate) returned: Vec<u8>,
}

impl Record {
    /// Of the memory from `start` on.
    pub(crate) fn from(start: u64) -> RefCell<Self> {
        RefCell::new(Self { start, ..Self::default() })
    }

    fn read(&mut self, at: u64, bytes: &[u8]) {
        put(&mut self.sent, self.start, at, bytes);
    }

    fn written(&mut self, at: u64, bytes: &[u8]) {
        if self.returned.is_empty() {
            self.returned.clone_from(&self.sent);
        }
        put(&mut self.returned, self.start, at, bytes);
    }
}

/// Lays `bytes` over a run, where they begin in it or right behind it.
fn put(run: &mut Vec<u8>, start: u64, at: u64, bytes: &[u8]) {
    let Some(offset) = at.checked_sub(start).and_then(|offset| usize::try_from(offset).ok()) else {
        return;
    };
    if offset > run.len() || offset > SHOWN_BYTES_MOST {
        return;
    }
    let bytes = &bytes[..bytes.len().min(SHOWN_BYTES_MOST - offset)];
    let end = offset + bytes.len();
    run.resize(run.len().max(end), 0);
    run[offset..end].copy_from_slice(bytes);
}

impl Caller for Client<'_> {
    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        let count = host::memory::read(self.thread, at, into);
        if let Some(record) = &self.record {
            record.borrow_mut().read(at, &into[..count]);
        }
        count
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable> {
        // Where the thread was killed its number may mean another by now.
        if !self.front.listener.waits(self.call) {
            return Err(Unreachable);
        }
        if host::memory::write(self.thread, at, from) != from.len() {
            return Err(Unreachable);
        }
        if let Some(record) = &self.record {
            record.borrow_mut().written(at, from);
        }
        Ok(())
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.task.process().address_space().ok()?.page_at(at)
    }

    fn memory(&self) -> Arc<dyn Source> {
        let memory = self.task.memory(|| ProcessMemory {
            process: Arc::clone(self.task.process()),
            refused: self.front.refused_device_files(),
        });
        Arc::clone(memory) as Arc<dyn Source>
    }

    fn file_memory(&self, fd: i32) -> Result<Arc<dyn Source>, FileFault> {
        let file = match self.task.process().copy_file(fd) {
            Ok(file) => file,
            Err(Errno::BADF) => return Err(FileFault::Closed),
            Err(_) => {
                // Forbidden here. Opening a regular file again is as good, and other kinds serve no one.
                let look = self.task.reopen(fd, OFlags::PATH).map_err(|_| FileFault::Closed)?;
                let kind = fstat(&look).map_err(|_| FileFault::Closed)?.st_mode;
                if FileType::from_raw_mode(kind) != FileType::RegularFile {
                    return Ok(Arc::new(FileMemory::new(look)));
                }
                let opened = self.task.reopen(fd, OFlags::RDWR);
                opened.or_else(|_| self.task.reopen(fd, OFlags::RDONLY)).unwrap_or(look)
            }
        };
        Ok(Arc::new(FileMemory::new(file)))
    }

    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Signal>, FileFault> {
        self.front.eventfds.import(self.task, fd)
    }

    fn may_lock_memory(&self) -> bool {
        self.holds(Capability::IpcLock)
    }

    fn may_do_raw_io(&self) -> bool {
        self.holds(Capability::SysRawio)
    }

    fn may_raise_limits(&self) -> bool {
        self.holds(Capability::SysResource)
    }

    fn charged(&self, memory: Arc<dyn Source>, to_process: bool) -> Arc<dyn Source> {
        if self.may_lock_memory() {
            return memory;
        }
        self.front.locked_memory.charged(memory, self.task.process(), to_process)
    }

    fn process(&self) -> u32 {
        self.task.process().pid().cast_unsigned()
    }

    fn install_access(&self, file: &Arc<AccessFile>) -> Result<i32, uapi::Errno> {
        access_file::install(self, file)
    }

    fn install_events(&self, file: &Arc<EventFile>) -> Result<i32, uapi::Errno> {
        event_file::install(self, file)
    }

    fn fill_window(&self, ctx: &Context, offset: u64, bytes: &[u8]) -> Result<(), uapi::Errno> {
        window::fill(self, ctx, offset, bytes)
    }

    fn maps_window(&self, ctx: &Context, offset: u64, length: u64) -> bool {
        window::is_mapped(self, ctx, offset, length)
    }

    fn access(&self, fd: i32) -> Result<Arc<AccessFile>, FileFault> {
        let file = self.file(fd)?;
        match &file.object {
            Object::Access(access) => Ok(Arc::clone(access)),
            Object::Iommufd(_)
            | Object::Vfio { .. }
            | Object::Group(_)
            | Object::Container(_)
            | Object::Events(_)
            | Object::DmaBuf(_)
            | Object::Attribute(_) => Err(FileFault::OtherKind),
        }
    }

    fn install_dma_buf(&self, buffer: &Arc<DmaBuf>, open_flags: u32) -> Result<i32, uapi::Errno> {
        dma_buf_file::install(self, buffer, open_flags)
    }

    fn dma_buf(&self, fd: i32) -> Result<Arc<DmaBuf>, FileFault> {
        let file = self.file(fd)?;
        if let Object::DmaBuf(buffer) = &file.object {
            return Ok(Arc::clone(buffer));
        }
        Err(FileFault::OtherKind)
    }

    fn iommufd(&self, fd: i32) -> Result<Arc<Context>, FileFault> {
        let file = self.file(fd)?;
        match &file.object {
            Object::Iommufd(context) if context.get_file() => Ok(Arc::clone(context)),
            Object::Iommufd(_) => Err(FileFault::Closed),
            Object::Vfio { .. }
            | Object::Group(_)
            | Object::Container(_)
            | Object::Access(_)
            | Object::Events(_)
            | Object::DmaBuf(_)
            | Object::Attribute(_) => Err(FileFault::OtherKind),
        }
    }
}

impl vfio::Caller for Client<'_> {
    fn group(&self, fd: i32) -> Result<Arc<Group>, FileFault> {
        let file = self.file(fd)?;
        match &file.object {
            Object::Group(group) => Ok(Arc::clone(group.group())),
            Object::Iommufd(_)
            | Object::Vfio { .. }
            | Object::Container(_)
            | Object::Access(_)
            | Object::Events(_)
            | Object::DmaBuf(_)
            | Object::Attribute(_) => Err(FileFault::OtherKind),
        }
    }

    fn container(&self, fd: i32) -> Result<Arc<Container>, FileFault> {
        let file = self.file(fd)?;
        match &file.object {
            Object::Container(container) => Ok(Arc::clone(container)),
            Object::Iommufd(_)
            | Object::Vfio { .. }
            | Object::Group(_)
            | Object::Access(_)
            | Object::Events(_)
            | Object::DmaBuf(_)
            | Object::Attribute(_) => Err(FileFault::OtherKind),
        }
    }

    fn memory_with_devices(&self) -> Arc<dyn Source> {
        let process = Arc::clone(self.task.process());
        Arc::new(ProcessMemory { process, refused: None })
    }

    fn install_device(
        &self,
        device: &Arc<vfio::Device>,
        open: &mut dyn FnMut(BarPages) -> Result<Arc<DeviceFile>, Refusal>,
    ) -> Result<u32, uapi::Errno> {
        granted::install(self, device, open)
    }
}

impl Client<'_> {
    fn holds(&self, capability: Capability) -> bool {
        capabilities::holds(self.front.machine.settings.capabilities, self.thread, capability)
    }

    /// The file of ours behind descriptor `fd`.
    fn file(&self, fd: i32) -> Result<Arc<File>, FileFault> {
        let identity = self.task.identify(fd).map_err(|_| FileFault::Closed)?;
        self.front.files.find(identity).ok_or(FileFault::OtherKind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_shows_the_struct_before_and_after() {
        let record = Record::from(1000);
        let mut record = record.into_inner();
        record.read(1000, &[1, 2, 3, 4]);
        record.read(5000, &[9]);
        record.read(1004, &[5, 6]);
        assert_eq!((&record.sent[..], record.returned.is_empty()), (&[1, 2, 3, 4, 5, 6][..], true));
        record.written(1002, &[7, 8]);
        assert_eq!(record.returned, [1, 2, 7, 8, 5, 6]);
        assert_eq!(record.sent, [1, 2, 3, 4, 5, 6]);
    }
}
