//! A client in this process, and devices for it.

mod client;
mod function;
mod tee;

use std::sync::Arc;

use device::dma_engine::{Config, DmaEngine};
use iommufd::{Context, Endpoint, Geometry, Group, Iommu};
use mem::Pages;
use pci::{Address, DmaFault, Function, Interrupt, Notices};
use span::Span;
use sync::{Mutex, rank};
use uapi::vfio::{AttachIommufdPt, BindIommufd};
use uapi::{Command, CommandId, Errno, Profile};
use vfio::{BarPages, Device, DeviceFile, DeviceSet, PolicyEvent, PolicyNotices, Settings};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) use client::{Client, Counter, MEMORY, MEMORY_SIZE, NoLock, READ_ONLY, Reason, Watcher};
pub(crate) use function::{Fake, Shape, TABLE_AT, VECTORS};
pub(crate) use tee::Tee;

/// The endpoint that most tests use.
pub(crate) const ADDRESS: Address = match Address::new(0xb1d0, 2, 0, 0) {
    Some(address) => address,
    None => panic!("an address"),
};

/// Where commands' structs lie in the client's memory.
pub(crate) const ARGUMENT: u64 = MEMORY + 0x1000;

/// What policies did, as people would read it.
#[derive(Default)]
pub(crate) struct Told(Mutex<rank::VfioGroup, Vec<PolicyEvent>>);

impl Told {
    /// What was told since the last call.
    pub(crate) fn taken(&self) -> Vec<PolicyEvent> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl PolicyNotices for Told {
    fn policy_applied(&self, _: Address, event: PolicyEvent) {
        self.0.lock().push(event);
    }
}

/// What went wrong, as people would read it.
#[derive(Default)]
pub(crate) struct Heard {
    unheard: Mutex<rank::VfioGroup, Vec<Interrupt>>,
    faults: Mutex<rank::VfioGroup, Vec<DmaFault>>,
}

impl Heard {
    pub(crate) fn unheard(&self) -> Vec<Interrupt> {
        self.unheard.lock().clone()
    }

    pub(crate) fn faults(&self) -> Vec<DmaFault> {
        self.faults.lock().clone()
    }
}

impl Notices for Heard {
    fn dma_fault(&self, _: Address, fault: &DmaFault) {
        self.faults.lock().push(*fault);
    }

    fn interrupt_unheard(&self, _: Address, interrupt: Interrupt) {
        self.unheard.lock().push(interrupt);
    }
}

/// One device of a machine, with what it belongs to.
pub(crate) struct Stand<F = Fake> {
    pub(crate) function: Arc<F>,
    pub(crate) device: Arc<Device>,
    pub(crate) set: Arc<DeviceSet>,
    pub(crate) group: Arc<Group>,
    pub(crate) iommu: Arc<Iommu>,
    pub(crate) heard: Arc<Heard>,
}

impl Stand<Fake> {
    pub(crate) fn new() -> Self {
        Self::shaped(Shape::default(), Settings::default())
    }

    pub(crate) fn shaped(shape: Shape, settings: Settings) -> Self {
        Self::of(Fake::new(ADDRESS, shape), settings)
    }

    /// Another device beside this one: on the same bus, and in the same iommu_group if `grouped`.
    pub(crate) fn neighbour(&self, address: Address, grouped: bool) -> Self {
        let group = if grouped { self.group.clone() } else { Group::new(99) };
        let function = Fake::new(address, Shape::default());
        Self::in_set(function, Settings::default(), self.set.clone(), group, self.iommu.clone())
    }
}

impl Stand<DmaEngine> {
    pub(crate) fn engine(settings: Settings) -> Self {
        Self::of(DmaEngine::new(&Config::new(ADDRESS)), settings)
    }
}

impl<F: Function + 'static> Stand<F> {
    pub(crate) fn of(function: Arc<F>, settings: Settings) -> Self {
        Self::in_set(function, settings, DeviceSet::new(true), Group::new(7), iommu())
    }

    pub(crate) fn in_set(
        function: Arc<F>,
        settings: Settings,
        set: Arc<DeviceSet>,
        group: Arc<Group>,
        iommu: Arc<Iommu>,
    ) -> Self {
        let heard = Arc::new(Heard::default());
        let address = function.address();
        let endpoint = Endpoint::new(address, group.clone(), iommu.clone(), heard.clone());
        Self::with_endpoint(function, settings, set, endpoint, heard)
    }

    /// A device whose TDI can be bound.
    pub(crate) fn with_tee(
        function: Arc<F>,
        settings: Settings,
        set: Arc<DeviceSet>,
        iommu: Arc<Iommu>,
        tee: &Tee,
    ) -> Self {
        let heard = Arc::new(Heard::default());
        let (group, tsm) = (Group::new(7), tee.registry.clone());
        let endpoint = Endpoint::with_tsm(function.address(), group, iommu, heard.clone(), tsm);
        Self::with_endpoint(function, settings, set, endpoint, heard)
    }

    fn with_endpoint(
        function: Arc<F>,
        settings: Settings,
        set: Arc<DeviceSet>,
        endpoint: Arc<Endpoint>,
        heard: Arc<Heard>,
    ) -> Self {
        let (group, iommu) = (endpoint.group().clone(), endpoint.iommu().clone());
        let device = Device::new(function.clone(), endpoint, set.clone(), settings);
        Self { function, device, set, group, iommu, heard }
    }

    /// Opens a file, with memory of its own under the BARs.
    pub(crate) fn open(&self) -> Arc<DeviceFile> {
        DeviceFile::open(&self.device, self.bar_pages()).unwrap()
    }

    pub(crate) fn bar_pages(&self) -> BarPages {
        std::array::from_fn(|index| {
            let bar = self.function.bar(index).filter(|bar| !bar.mappable.is_empty())?;
            Some(Arc::new(Pages::anonymous(usize::try_from(bar.size).unwrap()).unwrap()))
        })
    }

    /// Opens a file and binds it to a new context.
    pub(crate) fn bound(&self) -> Session {
        Session::bind(self.open())
    }
}

pub(crate) fn iommu() -> Arc<Iommu> {
    Iommu::new(Geometry {
        aperture: Span::from_ends(0, (1 << 48) - 1).unwrap(),
        reserved: Vec::new(),
        page_sizes: 1 << 12 | 1 << 21 | 1 << 30,
        dirty_tracking: true,
        cache_coherent: true,
        msi_isolated: true,
        max_pasid_log2: 0,
    })
}

/// A client with a bound file.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) file: Arc<DeviceFile>,
    pub(crate) context: Arc<Context>,
    pub(crate) iommufd: i32,
    pub(crate) device_id: u32,
}

impl Session {
    pub(crate) fn bind(file: Arc<DeviceFile>) -> Self {
        let context = Context::open(Profile::default());
        let mut client = Client::new();
        let iommufd = client.open_iommufd(&context);
        Self::bind_to(file, client, context, iommufd)
    }

    pub(crate) fn bind_to(
        file: Arc<DeviceFile>,
        client: Client,
        context: Arc<Context>,
        iommufd: i32,
    ) -> Self {
        let mut bind = bind_argument(iommufd);
        assert_eq!(client.call(&file, CommandId::DeviceBindIommufd, &mut bind), Ok(0));
        Self { client, file, context, iommufd, device_id: bind.out_devid }
    }

    pub(crate) fn call<T: Plain>(&self, id: CommandId, argument: &mut T) -> Result<u32, Errno> {
        self.client.call(&self.file, id, argument)
    }

    /// Runs a command on raw bytes, which it may change.
    pub(crate) fn call_bytes(&self, id: CommandId, argument: &mut [u8]) -> Result<u32, Errno> {
        self.client.call_bytes(&self.file, id, argument)
    }

    /// Runs a command of `/dev/iommu`.
    pub(crate) fn iommu_call<T: Plain>(
        &self,
        id: CommandId,
        argument: &mut T,
    ) -> Result<u32, Errno> {
        self.client.put(ARGUMENT, argument.as_bytes());
        let result = self.context.ioctl(&self.client, Command::of(id).request, ARGUMENT);
        *argument = self.client.take(ARGUMENT);
        result
    }

    pub(crate) fn attach(&self, pt_id: u32) -> Result<u32, Errno> {
        let mut attach = AttachIommufdPt { argsz: 12, pt_id, ..Default::default() };
        self.call(CommandId::DeviceAttachIommufdPt, &mut attach)?;
        Ok(attach.pt_id)
    }

    pub(crate) fn read(&self, position: u64, into: &mut [u8]) -> Result<u64, Errno> {
        let at = ARGUMENT + 0x1000;
        let result = self.file.read(&self.client, at, into.len() as u64, position);
        self.client.get(at, into);
        result
    }

    pub(crate) fn write(&self, position: u64, from: &[u8]) -> Result<u64, Errno> {
        let at = ARGUMENT + 0x1000;
        self.client.put(at, from);
        self.file.write(&self.client, at, from.len() as u64, position)
    }

    pub(crate) fn config<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert_eq!(self.read(config_position(offset), &mut bytes), Ok(N as u64));
        bytes
    }

    pub(crate) fn config_word(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.config(u64::from(offset)))
    }

    pub(crate) fn config_dword(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.config(u64::from(offset)))
    }

    pub(crate) fn set_config(&self, offset: u16, from: &[u8]) {
        let position = config_position(u64::from(offset));
        assert_eq!(self.write(position, from), Ok(from.len() as u64));
    }

    /// SET_IRQS with what follows the struct.
    pub(crate) fn set_irqs(&self, irqs: Irqs<'_>) -> Result<u32, Errno> {
        let mut bytes = irqs.bytes();
        self.call_bytes(CommandId::DeviceSetIrqs, &mut bytes)
    }

    /// Closes both files, the device's first.
    pub(crate) fn close(self) {
        self.file.release();
        self.context.put_file();
    }
}

/// A SET_IRQS request.
#[derive(Clone, Copy)]
pub(crate) struct Irqs<'a> {
    pub(crate) index: u32,
    pub(crate) flags: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
    pub(crate) data: &'a [u8],
}

impl Irqs<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let argsz = 20 + u32::try_from(self.data.len()).unwrap();
        let words = [argsz, self.flags, self.index, self.start, self.count];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(self.data);
        bytes
    }
}

/// Descriptors as SET_IRQS takes them.
pub(crate) fn fds(fds: &[i32]) -> Vec<u8> {
    fds.iter().flat_map(|fd| fd.to_le_bytes()).collect()
}

pub(crate) fn bind_argument(iommufd: i32) -> BindIommufd {
    BindIommufd { argsz: 16, iommufd, ..Default::default() }
}

pub(crate) fn position(region: u32, offset: u64) -> u64 {
    vfio::REGION_BASE + (u64::from(region) << vfio::REGION_SHIFT) + offset
}

pub(crate) fn config_position(offset: u64) -> u64 {
    position(uapi::vfio::region_index::CONFIG, offset)
}

/// What an ABI struct is made of.
pub(crate) trait Plain: FromBytes + IntoBytes + KnownLayout + Immutable {}
impl<T: FromBytes + IntoBytes + KnownLayout + Immutable> Plain for T {}
