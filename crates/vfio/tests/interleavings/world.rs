//! A program with `/dev/iommu` and a VFIO device open, and the calls that end what it has.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use explore::Model;
use iommufd::{
    Caller, Context, ContextSettings, Endpoint, FileFault, Geometry, Group, Iommu, Signal, Source,
    Tvm, Unreachable,
};
use pci::{DmaFault, Interrupt, Notices};
use span::Span;
use sync::{Refcount, WaitQueue};
use tdisp::State;
use tsm::{Binding, Registry};
use uapi::iommufd::{
    Destroy, HwptAlloc, IoasAlloc, TsmOp, VdeviceAlloc, ViommuAlloc, hwpt_flags, tsm_op,
    viommu_type,
};
use uapi::vfio::BindIommufd;
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{Device, DeviceFile, DeviceSet, Settings};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::device::{ADDRESS, Answers, Bare, Manager, connected};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Bind,
    Unbind,
    Destroy,
    CloseVfio,
    CloseIommu,
    Disconnect,
}

pub(crate) const CALLS: [Call; 6] =
    [Call::Bind, Call::Unbind, Call::Destroy, Call::CloseVfio, Call::CloseIommu, Call::Disconnect];

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bind => "bind",
            Self::Unbind => "unbind",
            Self::Destroy => "destroy",
            Self::CloseVfio => "close vfio",
            Self::CloseIommu => "close iommu",
            Self::Disconnect => "disconnect",
        })
    }
}

/// What a call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outcome(Result<(), Errno>);

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or_else(Errno::name, |()| "ok"))
    }
}

/// How the world is when threads begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) bound: bool,
    pub(crate) answers: Answers,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = if self.bound { "bound" } else { "unbound" };
        let answers = if self.answers == Answers::AtOnce { "at once" } else { "later" };
        write!(f, "{bound}, answers {answers}")
    }
}

/// Everything that the calls are about.
pub(crate) struct World {
    registry: Arc<Registry>,
    manager: Arc<Manager>,
    device: Arc<Device>,
    iommu: OpenFile,
    context: Arc<Context>,
    /// One until the file is closed.
    vfio_open: Refcount,
    file: Arc<DeviceFile>,
    vdevice: u32,
    viommu: u32,
    device_id: u32,
}

/// What a front end keeps of an open file: who runs a command on it.
struct OpenFile {
    open: Refcount,
    running: Refcount,
    idle: WaitQueue,
}

impl World {
    fn new(start: Start) -> Self {
        let (registry, manager) = connected();
        let endpoint = Endpoint::with_tsm(
            ADDRESS,
            Group::new(1),
            Iommu::new(geometry()),
            Arc::new(Deaf),
            Arc::clone(&registry),
        );
        let device = Device::new(Bare::new(), endpoint, DeviceSet::new(false), Settings::default());
        let settings = ContextSettings { profile: Profile::Rfc, tvm: Tvm::Implicit };
        let context = Context::open_plain(settings);
        let file = DeviceFile::open(&device, Default::default()).unwrap();
        let device_id = bind_iommufd(&file, &context);
        let ioas = made(&context, CommandId::IoasAlloc, IoasAlloc::default()).out_ioas_id;
        let parent = HwptAlloc {
            flags: hwpt_flags::NEST_PARENT,
            dev_id: device_id,
            pt_id: ioas,
            ..HwptAlloc::default()
        };
        let parent = made(&context, CommandId::HwptAlloc, parent).out_hwpt_id;
        let viommu = ViommuAlloc {
            r#type: viommu_type::ARM_SMMUV3,
            dev_id: device_id,
            hwpt_id: parent,
            ..ViommuAlloc::default()
        };
        let viommu = made(&context, CommandId::ViommuAlloc, viommu).out_viommu_id;
        let vdevice = made(&context, CommandId::VdeviceAlloc, vdevice_of(viommu, device_id));
        let world = Self {
            registry,
            manager,
            device,
            iommu: OpenFile::new(),
            context,
            vfio_open: Refcount::new(1),
            file,
            vdevice: vdevice.out_vdevice_id,
            viommu,
            device_id,
        };
        if start.bound {
            assert_eq!(world.call(Call::Bind), Outcome(Ok(())));
        }
        world.manager.answer(start.answers);
        world
    }

    fn call(&self, call: Call) -> Outcome {
        let result = match call {
            Call::Bind => self.tsm_op(tsm_op::BIND),
            Call::Unbind => self.tsm_op(tsm_op::UNBIND),
            Call::Destroy => {
                self.command(CommandId::Destroy, Destroy { id: self.vdevice, ..Default::default() })
            }
            Call::CloseVfio => self.close_vfio(),
            Call::CloseIommu => self.close_iommu(),
            Call::Disconnect => {
                self.registry.disconnect(ADDRESS, b"tsm0").map_err(|refusal| refusal.errno())
            }
        };
        Outcome(result)
    }

    fn tsm_op(&self, r#type: u32) -> Result<(), Errno> {
        let argument = TsmOp { r#type, vdevice_id: self.vdevice, ..TsmOp::default() };
        self.command(CommandId::VdeviceTsmOp, argument)
    }

    fn command<T: IntoBytes + Immutable>(&self, id: CommandId, argument: T) -> Result<(), Errno> {
        self.iommu.run(|| ioctl(&self.context, id, argument).map(|_| ()))
    }

    fn close_vfio(&self) -> Result<(), Errno> {
        if !self.vfio_open.dec_if_one() {
            return Err(Errno::EBADF);
        }
        self.file.release();
        // I1.
        assert!(!self.registry.binding(ADDRESS).is_bound(), "bound after the device's last close");
        Ok(())
    }

    fn close_iommu(&self) -> Result<(), Errno> {
        self.iommu.close(|| self.context.cancel_commands())?;
        self.context.put_file();
        Ok(())
    }

    /// What must hold whenever nothing runs.
    fn check_quiet(&self) {
        let host = self.registry.binding(ADDRESS);
        let vfio_open = self.vfio_open.read() == 1;
        // I1.
        assert!(vfio_open || !host.is_bound(), "bound, and the device's file is closed");
        self.check_states(host);
        let counts = self.context.counts();
        if self.iommu.open.read() == 1 {
            // I2: a vdevice stands in the way of another exactly while it is there.
            let again =
                self.command(CommandId::VdeviceAlloc, vdevice_of(self.viommu, self.device_id));
            let expected = match (vfio_open, counts.vdevices) {
                (false, 0) => Err(Errno::ENOENT),
                (true, 0) => Ok(()),
                (true, 1) => Err(Errno::EEXIST),
                other => panic!("{other:?}: whether the file is open, and vdevices"),
            };
            assert_eq!(again, expected, "the link between device and vdevice");
            self.check_ids(counts.tombstones);
        }
    }

    /// I9.
    fn check_states(&self, host: Binding) {
        let device = self.manager.state();
        match host {
            Binding::Unbound => assert_eq!(device, State::Unlocked, "the host says unbound"),
            Binding::Bound { state } => assert_eq!(device, state, "the host says bound"),
            Binding::Binding => panic!("a bind that nobody makes"),
            Binding::Unknown | Binding::Quarantined => {}
        }
    }

    /// I5.
    fn check_ids(&self, tombstones: usize) {
        assert!(tombstones <= 1);
        if tombstones == 1 {
            let fresh = made(&self.context, CommandId::IoasAlloc, IoasAlloc::default());
            assert_ne!(fresh.out_ioas_id, self.vdevice, "the id of what was ended by others");
            assert_eq!(self.call(Call::Destroy), Outcome(Err(Errno::ENOENT)));
        }
    }

    /// Closes all that is open, and looks for what is left.
    fn check_end(&self) {
        for call in [Call::CloseVfio, Call::CloseIommu, Call::Disconnect] {
            self.call(call);
        }
        let counters = self.registry.counters();
        // I3.
        assert_eq!(counters.binds, counters.unbinds, "{counters:?}");
        assert_eq!(self.registry.ledger(), [], "a connection is left");
        assert_eq!(self.device.state(), vfio::DeviceState::Free);
    }
}

impl OpenFile {
    fn new() -> Self {
        Self { open: Refcount::new(1), running: Refcount::new(1), idle: WaitQueue::new() }
    }

    fn run<T>(&self, command: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if !self.running.inc_not_zero() {
            return Err(Errno::EBADF);
        }
        let result = command();
        self.put();
        result
    }

    /// Lets no command begin, has those that run given up, and waits for them.
    fn close(&self, give_up: impl FnOnce()) -> Result<(), Errno> {
        if !self.open.dec_if_one() {
            return Err(Errno::EBADF);
        }
        give_up();
        self.put();
        self.idle.wait_zero(&self.running);
        Ok(())
    }

    fn put(&self) {
        if self.running.dec_and_test() {
            self.idle.wake_all();
        }
    }
}

/// All interleavings of calls on the shipped crates.
pub(crate) struct Shipped(pub(crate) Start);

impl Model for Shipped {
    type World = World;
    type Call = Call;
    type Outcome = Outcome;

    fn setup(&self) -> World {
        World::new(self.0)
    }

    fn call(&self, world: &World, call: &Call) -> Outcome {
        world.call(*call)
    }

    fn check(&self, world: &World) {
        world.check_quiet();
        world.check_end();
    }
}

fn vdevice_of(viommu_id: u32, dev_id: u32) -> VdeviceAlloc {
    VdeviceAlloc { viommu_id, dev_id, virt_id: 0x100, ..VdeviceAlloc::default() }
}

fn bind_iommufd(file: &Arc<DeviceFile>, context: &Arc<Context>) -> u32 {
    let argument = BindIommufd { argsz: 16, iommufd: 3, ..BindIommufd::default() };
    let memory = Memory::of(&argument, Some(context));
    let request = Command::of(CommandId::DeviceBindIommufd).request;
    file.ioctl(&memory, request, ARGUMENT).unwrap();
    memory.take::<BindIommufd>().out_devid
}

fn made<T: IntoBytes + Immutable + FromBytes>(
    context: &Arc<Context>,
    id: CommandId,
    argument: T,
) -> T {
    ioctl(context, id, argument).unwrap().take()
}

fn ioctl<T: IntoBytes + Immutable>(
    context: &Arc<Context>,
    id: CommandId,
    argument: T,
) -> Result<Memory<'_>, Errno> {
    let memory = Memory::of(&argument, Some(context));
    let size = u32::try_from(size_of::<T>()).unwrap();
    memory.bytes.borrow_mut()[..4].copy_from_slice(&size.to_ne_bytes());
    context.ioctl(&memory, Command::of(id).request, ARGUMENT)?;
    Ok(memory)
}

/// Where the struct of a command lies.
const ARGUMENT: u64 = 0x1000;

/// The memory of one command: its struct, and nothing else.
struct Memory<'a> {
    bytes: RefCell<Vec<u8>>,
    context: Option<&'a Arc<Context>>,
}

impl<'a> Memory<'a> {
    fn of(argument: &(impl IntoBytes + Immutable), context: Option<&'a Arc<Context>>) -> Self {
        Self { bytes: RefCell::new(argument.as_bytes().to_vec()), context }
    }

    fn take<T: FromBytes>(&self) -> T {
        T::read_from_bytes(&self.bytes.borrow()).unwrap()
    }
}

impl vfio::Caller for Memory<'_> {}

impl Caller for Memory<'_> {
    fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        let bytes = self.bytes.borrow();
        let from = usize::try_from(at - ARGUMENT).unwrap().min(bytes.len());
        let length = into.len().min(bytes.len() - from);
        into[..length].copy_from_slice(&bytes[from..from + length]);
        length
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable> {
        let to = usize::try_from(at - ARGUMENT).unwrap();
        self.bytes.borrow_mut()[to..to + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn memory(&self) -> Arc<dyn Source> {
        unreachable!("nothing is mapped")
    }

    fn file_memory(&self, _: i32) -> Result<Arc<dyn Source>, FileFault> {
        Err(FileFault::Closed)
    }

    fn eventfd(&self, _: i32) -> Result<Arc<dyn Signal>, FileFault> {
        Err(FileFault::Closed)
    }

    fn iommufd(&self, _: i32) -> Result<Arc<Context>, FileFault> {
        let context = self.context.ok_or(FileFault::Closed)?;
        assert!(context.get_file(), "the program holds it open");
        Ok(Arc::clone(context))
    }
}

pub(crate) fn geometry() -> Geometry {
    Geometry {
        aperture: Span::from_ends(0, (1 << 48) - 1).unwrap(),
        reserved: Vec::new(),
        page_sizes: 1 << 12,
        dirty_tracking: false,
        cache_coherent: true,
        msi_isolated: true,
        max_pasid_log2: 0,
    }
}

pub(crate) struct Deaf;

impl Notices for Deaf {
    fn dma_fault(&self, _: pci::Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: pci::Address, _: Interrupt) {}
}
