//! A program that has `/dev/iommu` open.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use iommufd::mock::{AccessFile, MockMachine};
use iommufd::{
    Caller, Context, ContextSettings, DmaBuf, EventFile, FileFault, PageIdentity, PinAccess,
    PinFault, Pinned, Quota, Refusal, Signal, Source, Tvm, Unreachable,
};
use sync::{Mutex, rank};
use uapi::iommufd::{
    Destroy, HwptAlloc, IoasAlloc, IoasIovaRanges, IoasMap, IoasMapFile, IoasUnmap, TsmOp,
    VdeviceAlloc, ViommuAlloc, hwpt_flags, map_flags, tsm_op,
};
use uapi::{Command, CommandId, Errno, Profile};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::memory::{FIRST, Memory, Pinnable, READ_ONLY};

/// A client and its memory. Each thread of it keeps its structs elsewhere.
pub(crate) struct Client {
    pub(crate) ctx: Arc<Context>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) file: Arc<Memory>,
    /// Where this thread's structs are.
    pub(crate) at: u64,
    /// Open files of accesses: descriptor [`FIRST_ACCESS`] and those that follow.
    accesses: Arc<Mutex<rank::DeviceSet, Vec<Arc<AccessFile>>>>,
    /// Open files of buffers: descriptor [`FIRST_BUFFER`] and those that follow.
    buffers: Arc<Mutex<rank::DeviceSet, Vec<Arc<DmaBuf>>>>,
    /// Open files of events: descriptor [`FIRST_EVENTS`] and those that follow.
    events: Arc<Mutex<rank::DeviceSet, Vec<Arc<EventFile>>>>,
    windows: Arc<Mutex<rank::DeviceSet, FileWindows>>,
    /// Whether it has `CAP_SYS_RAWIO`.
    pub(crate) does_raw_io: bool,
    /// Whether it has room for another open file of events.
    pub(crate) has_descriptors: bool,
    /// Why its commands were refused, where that is kept.
    reasons: Option<Arc<Mutex<rank::DeviceSet, Vec<Refusal>>>>,
}

/// What can be mapped of the open file, and which of it is.
#[derive(Default)]
struct FileWindows {
    /// By offset.
    bytes: BTreeMap<u64, Vec<u8>>,
    mapped: Option<u64>,
}

/// The descriptor of the first access.
const FIRST_ACCESS: i32 = 100;
/// The descriptor of the first buffer.
const FIRST_BUFFER: i32 = 200;
/// The descriptor of the first file of events.
const FIRST_EVENTS: i32 = 300;

/// The number of the client's process.
pub(crate) const PROCESS: u32 = 41;

/// A file that can be pinned.
pub(crate) const FILE: i32 = 5;
/// A file that cannot.
pub(crate) const PIPE: i32 = 6;
/// Bytes of [`FILE`].
pub(crate) const FILE_BYTES: u64 = 0x1_0000;

/// Flags of an ordinary mapping.
pub(crate) const READ_WRITE: u32 = map_flags::READABLE | map_flags::WRITEABLE;

impl Client {
    pub(crate) fn open() -> Self {
        Self::open_as(Profile::Linux73)
    }

    pub(crate) fn open_as(profile: Profile) -> Self {
        Self::open_with(ContextSettings { profile, tvm: Tvm::Implicit })
    }

    pub(crate) fn open_with(settings: ContextSettings) -> Self {
        Self::of(Context::open_with(settings))
    }

    /// As [`open`](Self::open), with room for as much as `quota` says.
    pub(crate) fn open_under(quota: Arc<dyn Quota>) -> Self {
        let settings = ContextSettings { profile: Profile::Linux73, tvm: Tvm::Implicit };
        Self::of(Context::open_under(settings, quota))
    }

    /// On a platform whose IOMMU is the kernel's mock.
    pub(crate) fn open_mock(machine: &Arc<MockMachine>) -> Self {
        let settings = ContextSettings { profile: Profile::Linux73, tvm: Tvm::Implicit };
        Self::of(Context::open_mock(settings, machine))
    }

    fn of(ctx: Arc<Context>) -> Self {
        Self {
            ctx,
            memory: Memory::new(),
            file: Memory::file(FILE_BYTES),
            at: FIRST,
            accesses: Arc::new(Mutex::new(Vec::new())),
            buffers: Arc::new(Mutex::new(Vec::new())),
            events: Arc::new(Mutex::new(Vec::new())),
            windows: Arc::new(Mutex::new(FileWindows::default())),
            does_raw_io: true,
            has_descriptors: true,
            reasons: None,
        }
    }

    /// Keeps from now on why commands are refused.
    pub(crate) fn keep_reasons(&mut self) {
        self.reasons = Some(Arc::new(Mutex::new(Vec::new())));
    }

    /// Why those since the last call were.
    pub(crate) fn reasons(&self) -> Vec<Refusal> {
        self.reasons.as_ref().map(|kept| std::mem::take(&mut *kept.lock())).unwrap_or_default()
    }

    /// What the window at an offset was filled with.
    pub(crate) fn window(&self, offset: u64) -> Option<Vec<u8>> {
        self.windows.lock().bytes.get(&offset).cloned()
    }

    /// Maps the window at an offset, or none.
    pub(crate) fn map_window(&self, offset: Option<u64>) {
        self.windows.lock().mapped = offset;
    }

    /// The file of events that was given last.
    pub(crate) fn event_file(&self) -> Arc<EventFile> {
        Arc::clone(self.events.lock().last().unwrap())
    }

    /// The file of an access.
    pub(crate) fn access_file(&self, fd: i32) -> Option<Arc<AccessFile>> {
        let index = usize::try_from(fd.checked_sub(FIRST_ACCESS)?).ok()?;
        self.accesses.lock().get(index).cloned()
    }

    /// Another thread of the same program. Up to six.
    pub(crate) fn thread(&self, number: u64) -> Self {
        Self {
            ctx: Arc::clone(&self.ctx),
            memory: Arc::clone(&self.memory),
            file: Arc::clone(&self.file),
            at: FIRST + number * 0x1000,
            accesses: Arc::clone(&self.accesses),
            buffers: Arc::clone(&self.buffers),
            events: Arc::clone(&self.events),
            windows: Arc::clone(&self.windows),
            does_raw_io: self.does_raw_io,
            has_descriptors: self.has_descriptors,
            reasons: self.reasons.clone(),
        }
    }

    /// Runs a command on `argument`, whose size field is set, and returns the struct as it is then.
    pub(crate) fn call<T>(&self, id: CommandId, argument: T) -> Result<T, Errno>
    where
        T: IntoBytes + FromBytes + Immutable,
    {
        self.put(&argument, size_of::<T>());
        self.ctx.ioctl(self, Command::of(id).request, self.at)?;
        Ok(self.struct_now())
    }

    /// Writes a struct where [`call`](Self::call) does, with another size in it.
    pub(crate) fn put<T: IntoBytes + Immutable>(&self, argument: &T, size: usize) {
        self.memory.write(self.at, argument.as_bytes()).unwrap();
        let size = u32::try_from(size).unwrap();
        self.memory.write(self.at, &size.to_ne_bytes()).unwrap();
    }

    /// The struct as it is in memory.
    pub(crate) fn struct_now<T: FromBytes + IntoBytes>(&self) -> T {
        let mut now = T::new_zeroed();
        self.memory.read(self.at, now.as_mut_bytes()).unwrap();
        now
    }

    pub(crate) fn ioas(&self) -> u32 {
        self.call(CommandId::IoasAlloc, IoasAlloc::default()).unwrap().out_ioas_id
    }

    pub(crate) fn destroy(&self, id: u32) -> Result<(), Errno> {
        self.call(CommandId::Destroy, Destroy { id, ..Destroy::default() }).map(|_| ())
    }

    /// Maps for reading and writing at `iova`.
    pub(crate) fn map_at(&self, ioas: u32, iova: u64, va: u64, length: u64) -> Result<u64, Errno> {
        self.map(ioas, READ_WRITE | map_flags::FIXED_IOVA, iova, va, length)
    }

    /// Maps for reading and writing wherever there is room.
    pub(crate) fn map_anywhere(&self, ioas: u32, va: u64, length: u64) -> Result<u64, Errno> {
        self.map(ioas, READ_WRITE, 0, va, length)
    }

    pub(crate) fn map(
        &self,
        ioas_id: u32,
        flags: u32,
        iova: u64,
        user_va: u64,
        length: u64,
    ) -> Result<u64, Errno> {
        let argument = IoasMap { flags, ioas_id, user_va, length, iova, ..IoasMap::default() };
        self.call(CommandId::IoasMap, argument).map(|answer| answer.iova)
    }

    /// Maps bytes of a file for reading and writing: from `start` on, `length`, at `iova`.
    pub(crate) fn map_file(
        &self,
        ioas_id: u32,
        fd: i32,
        [start, length, iova]: [u64; 3],
    ) -> Result<u64, Errno> {
        let flags = READ_WRITE | map_flags::FIXED_IOVA;
        let argument =
            IoasMapFile { flags, ioas_id, fd, start, length, iova, ..IoasMapFile::default() };
        self.call(CommandId::IoasMapFile, argument).map(|answer| answer.iova)
    }

    pub(crate) fn unmap(&self, ioas_id: u32, iova: u64, length: u64) -> Result<u64, Errno> {
        let argument = IoasUnmap { ioas_id, iova, length, ..IoasUnmap::default() };
        self.call(CommandId::IoasUnmap, argument).map(|answer| answer.length)
    }

    pub(crate) fn unmap_all(&self, ioas: u32) -> Result<u64, Errno> {
        self.unmap(ioas, 0, u64::MAX)
    }

    pub(crate) fn hwpt(&self, dev_id: u32, pt_id: u32, flags: u32) -> Result<u32, Errno> {
        let argument = HwptAlloc { flags, dev_id, pt_id, ..HwptAlloc::default() };
        self.call(CommandId::HwptAlloc, argument).map(|answer| answer.out_hwpt_id)
    }

    /// A page table that others can be nested in, on an address space of its own.
    pub(crate) fn nest_parent(&self, dev_id: u32) -> u32 {
        self.hwpt(dev_id, self.ioas(), hwpt_flags::NEST_PARENT).unwrap()
    }

    pub(crate) fn viommu(&self, r#type: u32, dev_id: u32, hwpt_id: u32) -> Result<u32, Errno> {
        let argument = ViommuAlloc { r#type, dev_id, hwpt_id, ..ViommuAlloc::default() };
        self.call(CommandId::ViommuAlloc, argument).map(|answer| answer.out_viommu_id)
    }

    pub(crate) fn vdevice(&self, viommu_id: u32, dev_id: u32, virt_id: u64) -> Result<u32, Errno> {
        let argument = VdeviceAlloc { viommu_id, dev_id, virt_id, ..VdeviceAlloc::default() };
        self.call(CommandId::VdeviceAlloc, argument).map(|answer| answer.out_vdevice_id)
    }

    /// `IOMMU_VDEVICE_TSM_OP`.
    pub(crate) fn tsm_op(&self, r#type: u32, vdevice_id: u32) -> Result<(), Errno> {
        let argument = TsmOp { r#type, vdevice_id, ..TsmOp::default() };
        self.call(CommandId::VdeviceTsmOp, argument).map(|_| ())
    }

    pub(crate) fn tsm_bind(&self, vdevice_id: u32) -> Result<(), Errno> {
        self.tsm_op(tsm_op::BIND, vdevice_id)
    }

    pub(crate) fn tsm_unbind(&self, vdevice_id: u32) -> Result<(), Errno> {
        self.tsm_op(tsm_op::UNBIND, vdevice_id)
    }

    /// The ranges that can be mapped, and the alignment.
    pub(crate) fn ranges(&self, ioas_id: u32) -> (Vec<(u64, u64)>, u64) {
        const AT: u64 = 0x10_0000;
        let argument = IoasIovaRanges {
            ioas_id,
            num_iovas: 16,
            allowed_iovas: AT,
            ..IoasIovaRanges::default()
        };
        let answer = self.call(CommandId::IoasIovaRanges, argument).unwrap();
        let ranges = (0..u64::from(answer.num_iovas)).map(|index| {
            let mut ends = [[0; 8]; 2];
            self.memory.read(AT + index * 16, ends.as_mut_bytes()).unwrap();
            (u64::from_ne_bytes(ends[0]), u64::from_ne_bytes(ends[1]))
        });
        (ranges.collect(), answer.out_iova_alignment)
    }
}

impl Caller for Client {
    fn refused(&self, why: &(dyn Error + 'static)) {
        if let Some(kept) = &self.reasons {
            kept.lock().push(*why.downcast_ref().unwrap());
        }
    }

    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        let length = self.memory.bytes_from(at).min(into.len());
        self.memory.read(at, &mut into[..length]).map_or(0, |()| length)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable> {
        if at < READ_ONLY.end && READ_ONLY.start < at.saturating_add(from.len() as u64) {
            return Err(Unreachable);
        }
        self.memory.write(at, from).ok_or(Unreachable)
    }

    fn memory(&self) -> Arc<dyn Source> {
        Arc::new(Pinnable(Arc::clone(&self.memory)))
    }

    fn file_memory(&self, fd: i32) -> Result<Arc<dyn Source>, FileFault> {
        match fd {
            FILE => Ok(Arc::new(Pinnable(Arc::clone(&self.file)))),
            PIPE => Ok(Arc::new(Pipe)),
            _ => Err(FileFault::Closed),
        }
    }

    fn eventfd(&self, _: i32) -> Result<Arc<dyn Signal>, FileFault> {
        Err(FileFault::Closed)
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.memory.page(at)
    }

    fn may_do_raw_io(&self) -> bool {
        self.does_raw_io
    }

    fn may_lock_memory(&self) -> bool {
        false
    }

    fn process(&self) -> u32 {
        PROCESS
    }

    fn install_access(&self, file: &Arc<AccessFile>) -> Result<i32, Errno> {
        let mut accesses = self.accesses.lock();
        accesses.push(Arc::clone(file));
        Ok(FIRST_ACCESS + i32::try_from(accesses.len() - 1).unwrap())
    }

    fn install_events(&self, file: &Arc<EventFile>) -> Result<i32, Errno> {
        if !self.has_descriptors {
            return Err(Errno::EMFILE);
        }
        let mut events = self.events.lock();
        events.push(Arc::clone(file));
        Ok(FIRST_EVENTS + i32::try_from(events.len() - 1).unwrap())
    }

    fn fill_window(&self, _: &Context, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.windows.lock().bytes.insert(offset, bytes.to_vec());
        Ok(())
    }

    fn maps_window(&self, _: &Context, offset: u64, length: u64) -> bool {
        let mapped = self.windows.lock().mapped;
        mapped.is_some_and(|mapped| (offset..offset + length).contains(&mapped))
    }

    fn access(&self, fd: i32) -> Result<Arc<AccessFile>, FileFault> {
        self.access_file(fd).ok_or(FileFault::Closed)
    }

    fn install_dma_buf(&self, buffer: &Arc<DmaBuf>, _: u32) -> Result<i32, Errno> {
        let mut buffers = self.buffers.lock();
        buffers.push(Arc::clone(buffer));
        Ok(FIRST_BUFFER + i32::try_from(buffers.len() - 1).unwrap())
    }

    fn dma_buf(&self, fd: i32) -> Result<Arc<DmaBuf>, FileFault> {
        if fd == FILE || fd == PIPE {
            return Err(FileFault::OtherKind);
        }
        let index = usize::try_from(fd - FIRST_BUFFER).map_err(|_| FileFault::Closed)?;
        self.buffers.lock().get(index).cloned().ok_or(FileFault::Closed)
    }

    fn iommufd(&self, _: i32) -> Result<Arc<Context>, FileFault> {
        Err(FileFault::Closed)
    }
}

/// What is no memory.
struct Pipe;

impl Source for Pipe {
    fn pin(&self, _: u64, _: u64, _: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        Err(PinFault::FileRange)
    }
}
