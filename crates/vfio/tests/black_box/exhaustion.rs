//! Every step of every command on a file of VFIO's that can run out of something does so once: what is refused
//! leaves all as it was, and the command then succeeds as if nothing had been.

use std::collections::BTreeSet;
use std::sync::Arc;

use iommufd::{
    Context, ContextSettings, Counts, Exhausted, Geometry, Group, Iommu, Quota, Resource, Tvm,
};
use sync::{Mutex, rank};
use uapi::iommufd::{HwptAlloc, IoasAlloc, hwpt_flags};
use uapi::vfio::{
    AttachIommufdPt, DetachIommufdPt, DeviceInfo, Feature, GroupStatus, HotReset, HotResetInfo,
    Ioeventfd, IommuType1DirtyBitmap, IommuType1DmaMap, IommuType1DmaUnmap, IommuType1Info,
    IrqInfo, RegionInfo, attach_flags, dirty_pages_flags, dma_map_flags, extension, feature_flags,
    feature_id, irq_index, irq_set,
};
use uapi::{COMMANDS, Command, CommandId, Errno, FileKind, Profile};
use vfio::{Container, DeviceFile, DeviceSet, GroupFile, Settings};
use zerocopy::IntoBytes;

use crate::support::{
    ADDRESS, ARGUMENT, Client, Fake, Irqs, MEMORY, Plain, Shape, Stand, Watcher, bind_argument,
    fds, iommu, position,
};

/// Runs out once, when told to.
#[derive(Default)]
struct RunningOut(Mutex<rank::Objects, Left>);

#[derive(Default)]
struct Left {
    /// Questions until the one that is refused.
    questions: Option<usize>,
    refused: Option<Resource>,
}

impl RunningOut {
    /// Refuses the question after `questions` more.
    fn after(&self, questions: usize) {
        *self.0.lock() = Left { questions: Some(questions), refused: None };
    }

    /// Refuses nothing any more, and tells what was refused.
    fn call_off(&self) -> Option<Resource> {
        std::mem::take(&mut *self.0.lock()).refused
    }
}

impl Quota for RunningOut {
    fn admit(&self, resource: Resource, _: u64) -> Result<(), Exhausted> {
        let mut left = self.0.lock();
        match left.questions {
            Some(0) => {
                *left = Left { questions: None, refused: Some(resource) };
                Err(Exhausted(resource))
            }
            Some(more) => {
                left.questions = Some(more - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A program with a device's file, a group's file and an iommufd that runs out.
struct World {
    quota: Arc<RunningOut>,
    stand: Stand,
    watcher: Watcher,
    client: Client,
    context: Arc<Context>,
    iommufd: i32,
    eventfd: i32,
    file: Option<Arc<DeviceFile>>,
    group: Option<(Arc<GroupFile>, i32)>,
    container: Option<Arc<Container>>,
    page_table_id: u32,
}

impl World {
    fn new() -> Self {
        let watcher = Watcher::default();
        let settings = Settings { watch: Some(Arc::new(watcher.clone())), ..Settings::default() };
        let geometry = Geometry { max_pasid_log2: 8, ..iommu().geometry().clone() };
        let function = Fake::new(ADDRESS, Shape::default());
        let (set, group) = (DeviceSet::new(true), Group::new(7));
        let stand = Stand::in_set(function, settings, set, group, Iommu::new(geometry));
        let quota = Arc::new(RunningOut::default());
        let settings = ContextSettings { profile: Profile::Linux73, tvm: Tvm::Implicit };
        let context = Context::open_under(settings, Arc::clone(&quota) as _);
        let mut client = Client::new();
        let iommufd = client.open_iommufd(&context);
        let (eventfd, _) = client.open_eventfd();
        Self {
            quota,
            stand,
            watcher,
            client,
            context,
            iommufd,
            eventfd,
            file: None,
            group: None,
            container: None,
            page_table_id: 0,
        }
    }

    /// With the device's file open.
    fn open() -> Self {
        let mut world = Self::new();
        world.file = Some(world.stand.open());
        world
    }

    /// With the device bound, and an address space.
    fn bound() -> Self {
        let mut world = Self::open();
        world.bind().unwrap();
        let alloc = IoasAlloc { size: 12, ..IoasAlloc::default() };
        world.page_table_id = world.on_iommufd(CommandId::IoasAlloc, alloc).out_ioas_id;
        world
    }

    /// With the device bound, and a page table for PASIDs.
    fn with_pasid_table() -> Self {
        let mut world = Self::bound();
        let (size, flags) = (56, hwpt_flags::PASID);
        let (dev_id, pt_id) = (1, world.page_table_id);
        let alloc = HwptAlloc { size, flags, dev_id, pt_id, ..HwptAlloc::default() };
        world.page_table_id = world.on_iommufd(CommandId::HwptAlloc, alloc).out_hwpt_id;
        world
    }

    /// With the group's file open.
    fn with_group() -> Self {
        let mut world = Self::new();
        let file = GroupFile::open(world.stand.device.group()).unwrap();
        let fd = world.client.open_group(world.stand.device.group());
        world.group = Some((file, fd));
        world
    }

    /// With the group's file open, and its container.
    fn with_container() -> Self {
        let world = Self::with_group();
        set_container(&world).unwrap();
        let request = Command::of(CommandId::SetIommu).request;
        world.context.ioctl(&world.client, request, extension::TYPE1V2_IOMMU).unwrap();
        world
    }

    /// With the group in a container of VFIO's own.
    fn in_container() -> Self {
        let mut world = Self::with_group();
        let container = Container::new_under(Profile::Linux73, Arc::clone(&world.quota) as _);
        let fd = world.client.open_container(&container);
        world.on_group(CommandId::GroupSetContainer, &fd.to_le_bytes()).unwrap();
        world.container = Some(container);
        world
    }

    /// With a page mapped there.
    fn in_type1() -> Self {
        let world = Self::in_container();
        set_type1(&world).unwrap();
        map_first(&world).unwrap();
        world
    }

    /// With a device of the group.
    fn of_group() -> Self {
        let mut world = Self::with_container();
        world.get_device().unwrap();
        world.file = Some(world.client.given());
        world
    }

    fn on_iommufd<T: Plain>(&self, id: CommandId, argument: T) -> T {
        self.client.put(ARGUMENT, argument.as_bytes());
        let request = Command::of(id).request;
        self.context.ioctl(&self.client, request, ARGUMENT).unwrap();
        self.client.take(ARGUMENT)
    }

    fn bind(&self) -> Result<(), Errno> {
        let mut bind = bind_argument(self.iommufd);
        let file = self.file.as_ref().unwrap();
        self.client.call(file, CommandId::DeviceBindIommufd, &mut bind).map(|_| ())
    }

    fn on_device<T: Plain>(&self, id: CommandId, mut argument: T) -> Result<(), Errno> {
        let file = self.file.as_ref().unwrap();
        self.client.call(file, id, &mut argument).map(|_| ())
    }

    fn set_irqs(&self, index: u32, action: u32) -> Result<(), Errno> {
        let flags = irq_set::DATA_EVENTFD | action;
        let data = fds(&[self.eventfd]);
        let mut bytes = Irqs { index, flags, start: 0, count: 1, data: &data }.bytes();
        let file = self.file.as_ref().unwrap();
        self.client.call_bytes(file, CommandId::DeviceSetIrqs, &mut bytes).map(|_| ())
    }

    fn on_group(&self, id: CommandId, argument: &[u8]) -> Result<(), Errno> {
        self.client.put(ARGUMENT, argument);
        let (file, _) = self.group.as_ref().unwrap();
        file.ioctl(&self.client, Command::of(id).request, ARGUMENT).map(|_| ())
    }

    fn on_container<T: Plain>(&self, id: CommandId, argument: T) -> Result<T, Errno> {
        self.client.put(ARGUMENT, argument.as_bytes());
        let container = self.container.as_ref().unwrap();
        container.ioctl(&self.client, Command::of(id).request, ARGUMENT)?;
        Ok(self.client.take(ARGUMENT))
    }

    /// How many more entries the container takes, if it has an IOMMU.
    fn container_state(&self) -> Option<Result<u32, Errno>> {
        self.container.as_ref()?;
        let mut info = [0; 128];
        info[0] = 128;
        let info = self.on_container(CommandId::IommuGetInfo, info);
        // In the second capability, after that of written pages.
        Some(info.map(|info| u32::from_le_bytes(*info[64..].first_chunk().unwrap())))
    }

    fn get_device(&self) -> Result<(), Errno> {
        self.on_group(CommandId::GroupGetDeviceFd, format!("{ADDRESS}\0").as_bytes())
    }

    /// All that a client can tell of it.
    fn state(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let device = &self.stand.device;
        // A device that is bound for a moment tries DMA, which is no business of the command's.
        let counts = Counts { dma_faults: Default::default(), ..self.context.counts() };
        let group = device.group();
        (
            (device.state(), counts, self.watcher.count()),
            (group.is_open(), group.iommufd().is_some(), self.container_state()),
            self.stand.function.real_config().msix().map(|msix| msix.enabled),
        )
    }
}

type Act = fn(&World) -> Result<(), Errno>;

/// What was refused, step by step, until `act` had none left. Each time all must be as before, and `act` succeed after.
fn sweep(make: fn() -> World, act: Act) -> Vec<Resource> {
    let mut refused = Vec::new();
    loop {
        let world = make();
        let before = world.state();
        world.quota.after(refused.len());
        let answer = act(&world);
        let Some(resource) = world.quota.call_off() else {
            assert_eq!(answer, Ok(()), "after {refused:?}");
            return refused;
        };
        assert_eq!(answer, Err(Errno::ENOMEM), "{refused:?}, then {resource:?}");
        assert_eq!(world.state(), before, "{refused:?}, then {resource:?}");
        assert_eq!(act(&world), Ok(()), "{refused:?}, then {resource:?}");
        refused.push(resource);
    }
}

/// A command, what it finds, what it does, and what it asks for on the way.
type Row = (CommandId, fn() -> World, Act, &'static [Resource]);

const ATTACH: &[Resource] = {
    use Resource::{Attachment, Mirror, Object, ReservedRange};
    &[Attachment, Object, Mirror, ReservedRange]
};

const SET_TYPE1: &[Resource] = {
    use Resource::{Mirror, Object, ReservedRange};
    &[Object, Object, Mirror, ReservedRange]
};

const OF_TYPE1: &[Resource] = {
    use Resource::{Attachment, BarPages, Object};
    &[Object, BarPages, Attachment]
};

const ROWS: &[Row] = {
    use Resource::{Attachment, BarPages, Buffer, Interrupt, Mirror, Object, ReservedRange, Watch};
    &[
        (CommandId::DeviceBindIommufd, World::open, World::bind, &[Object, BarPages]),
        (CommandId::DeviceAttachIommufdPt, World::bound, attach, ATTACH),
        (CommandId::DeviceAttachIommufdPt, World::with_pasid_table, attach_pasid, &[Attachment]),
        (CommandId::DeviceDetachIommufdPt, World::bound, detach, &[]),
        (CommandId::DeviceGetInfo, World::bound, info, &[]),
        (CommandId::DeviceGetRegionInfo, World::bound, region_info, &[Buffer]),
        (CommandId::DeviceGetIrqInfo, World::bound, irq_info, &[]),
        (CommandId::DeviceSetIrqs, World::bound, hear_msix, &[Buffer, Interrupt]),
        (CommandId::DeviceSetIrqs, World::bound, hear_errors, &[Buffer]),
        (CommandId::DeviceSetIrqs, hearing_the_pin, unmask, &[Buffer, Watch]),
        (CommandId::DeviceReset, World::bound, reset, &[]),
        (CommandId::DeviceGetPciHotResetInfo, World::bound, hot_reset_info, &[Buffer]),
        (CommandId::DevicePciHotReset, World::bound, hot_reset, &[]),
        (CommandId::DevicePciHotReset, World::of_group, hot_reset_by_group, &[Buffer]),
        (CommandId::DeviceIoeventfd, World::bound, ioeventfd, &[Watch]),
        (CommandId::DeviceFeature, World::bound, probe, &[]),
        (CommandId::DeviceFeature, World::bound, lend, &[Buffer, Buffer]),
        (CommandId::GroupGetStatus, World::with_group, status, &[]),
        (CommandId::GroupSetContainer, World::with_group, set_container, &[Object]),
        (CommandId::GroupUnsetContainer, World::with_container, unset_container, &[]),
        (
            CommandId::GroupGetDeviceFd,
            World::with_container,
            World::get_device,
            &[Object, BarPages, Attachment, Object, Mirror, ReservedRange],
        ),
        (CommandId::GetApiVersion, World::in_container, version, &[]),
        (CommandId::CheckExtension, World::in_container, extension_of_type1, &[]),
        (CommandId::SetIommu, World::in_container, set_type1, SET_TYPE1),
        (CommandId::IommuGetInfo, World::in_type1, container_info, &[]),
        (CommandId::IommuMapDma, World::in_type1, map_second, &[Resource::Area, Resource::Pages]),
        (CommandId::IommuUnmapDma, World::in_type1, unmap, &[]),
        (CommandId::IommuDirtyPages, World::in_type1, log, &[]),
        (CommandId::GroupGetDeviceFd, World::in_type1, World::get_device, OF_TYPE1),
    ]
};

#[test]
fn each_step_of_each_command_is_refused_once() {
    for (id, make, act, expected) in ROWS {
        assert_eq!(sweep(*make, *act), *expected, "{}", Command::of(*id).name);
    }
}

#[test]
fn every_command_has_a_row() {
    let kinds = [FileKind::VfioDevice, FileKind::VfioGroup, FileKind::VfioContainer];
    let served = COMMANDS.iter().filter(|row| {
        kinds.contains(&row.file) && row.served && row.profiles.contains(Profile::Linux73)
    });
    let told: BTreeSet<_> = ROWS.iter().map(|(id, ..)| Command::of(*id).name).collect();
    let untold: Vec<_> = served.map(|row| row.name).filter(|name| !told.contains(name)).collect();
    assert_eq!(untold, [""; 0]);
}

fn hearing_the_pin() -> World {
    let world = World::bound();
    world.set_irqs(irq_index::INTX, irq_set::ACTION_TRIGGER).unwrap();
    world
}

fn attach(world: &World) -> Result<(), Errno> {
    let argument = AttachIommufdPt { argsz: 12, pt_id: world.page_table_id, ..Default::default() };
    world.on_device(CommandId::DeviceAttachIommufdPt, argument)
}

fn attach_pasid(world: &World) -> Result<(), Errno> {
    let argument = AttachIommufdPt {
        argsz: 16,
        flags: attach_flags::PASID,
        pt_id: world.page_table_id,
        pasid: 5,
    };
    world.on_device(CommandId::DeviceAttachIommufdPt, argument)
}

fn detach(world: &World) -> Result<(), Errno> {
    let argument = DetachIommufdPt { argsz: 8, ..Default::default() };
    world.on_device(CommandId::DeviceDetachIommufdPt, argument)
}

fn info(world: &World) -> Result<(), Errno> {
    world.on_device(CommandId::DeviceGetInfo, DeviceInfo { argsz: 24, ..Default::default() })
}

fn region_info(world: &World) -> Result<(), Errno> {
    world.on_device(CommandId::DeviceGetRegionInfo, RegionInfo { argsz: 32, ..Default::default() })
}

fn irq_info(world: &World) -> Result<(), Errno> {
    world.on_device(CommandId::DeviceGetIrqInfo, IrqInfo { argsz: 16, ..Default::default() })
}

fn hear_msix(world: &World) -> Result<(), Errno> {
    world.set_irqs(irq_index::MSIX, irq_set::ACTION_TRIGGER)
}

fn hear_errors(world: &World) -> Result<(), Errno> {
    world.set_irqs(irq_index::ERR, irq_set::ACTION_TRIGGER)
}

fn unmask(world: &World) -> Result<(), Errno> {
    world.set_irqs(irq_index::INTX, irq_set::ACTION_UNMASK)
}

fn reset(world: &World) -> Result<(), Errno> {
    world.on_device(CommandId::DeviceReset, [0_u8; 0])
}

fn hot_reset_info(world: &World) -> Result<(), Errno> {
    let room = 12 + 16;
    let argument = HotResetInfo { argsz: room, ..Default::default() };
    world.on_device(CommandId::DeviceGetPciHotResetInfo, argument)
}

fn hot_reset(world: &World) -> Result<(), Errno> {
    world.on_device(CommandId::DevicePciHotReset, HotReset { argsz: 12, flags: 0, count: 0 })
}

fn hot_reset_by_group(world: &World) -> Result<(), Errno> {
    let (_, fd) = world.group.as_ref().unwrap();
    let words = [16, 0, 1, fd.cast_unsigned()];
    world.on_device(CommandId::DevicePciHotReset, words)
}

fn ioeventfd(world: &World) -> Result<(), Errno> {
    let (offset, fd) = (position(0, 0x1000), world.eventfd);
    let argument = Ioeventfd { argsz: 32, flags: 4, offset, fd, ..Default::default() };
    world.on_device(CommandId::DeviceIoeventfd, argument)
}

fn probe(world: &World) -> Result<(), Errno> {
    let flags = feature_id::LOW_POWER_ENTRY | feature_flags::SET | feature_flags::PROBE;
    world.on_device(CommandId::DeviceFeature, Feature { argsz: 8, flags })
}

fn lend(world: &World) -> Result<(), Errno> {
    let flags = feature_id::DMA_BUF | feature_flags::GET;
    // The first page of BAR 0.
    let words = [40, flags, 0, 0, 0, 1, 0, 0, 0x1000, 0];
    world.on_device(CommandId::DeviceFeature, words)
}

fn status(world: &World) -> Result<(), Errno> {
    let argument = GroupStatus { argsz: 8, flags: 0 };
    world.on_group(CommandId::GroupGetStatus, argument.as_bytes())
}

fn set_container(world: &World) -> Result<(), Errno> {
    world.on_group(CommandId::GroupSetContainer, &world.iommufd.to_le_bytes())
}

fn unset_container(world: &World) -> Result<(), Errno> {
    world.on_group(CommandId::GroupUnsetContainer, &[])
}

fn by_number(world: &World, id: CommandId, argument: u64) -> Result<(), Errno> {
    let container = world.container.as_ref().unwrap();
    container.ioctl(&world.client, Command::of(id).request, argument).map(|_| ())
}

fn version(world: &World) -> Result<(), Errno> {
    by_number(world, CommandId::GetApiVersion, 0)
}

fn extension_of_type1(world: &World) -> Result<(), Errno> {
    by_number(world, CommandId::CheckExtension, extension::TYPE1_IOMMU)
}

fn set_type1(world: &World) -> Result<(), Errno> {
    by_number(world, CommandId::SetIommu, extension::TYPE1V2_IOMMU)
}

fn container_info(world: &World) -> Result<(), Errno> {
    let argument = IommuType1Info { argsz: 24, ..IommuType1Info::default() };
    world.on_container(CommandId::IommuGetInfo, argument).map(|_| ())
}

fn map(world: &World, iova: u64) -> Result<(), Errno> {
    let flags = dma_map_flags::READ | dma_map_flags::WRITE;
    let (vaddr, size) = (MEMORY + 0x8000, 0x1000);
    let argument = IommuType1DmaMap { argsz: 32, flags, vaddr, iova, size };
    world.on_container(CommandId::IommuMapDma, argument).map(|_| ())
}

fn map_first(world: &World) -> Result<(), Errno> {
    map(world, 0x10_0000)
}

fn map_second(world: &World) -> Result<(), Errno> {
    map(world, 0x20_0000)
}

fn unmap(world: &World) -> Result<(), Errno> {
    let argument = IommuType1DmaUnmap { argsz: 24, iova: 0x10_0000, size: 0x1000, flags: 0 };
    world.on_container(CommandId::IommuUnmapDma, argument).map(|_| ())
}

fn log(world: &World) -> Result<(), Errno> {
    let argument = IommuType1DirtyBitmap { argsz: 8, flags: dirty_pages_flags::START };
    world.on_container(CommandId::IommuDirtyPages, argument).map(|_| ())
}
