//! Every step of every command on a device's or a group's file that can run out of something does so once: what is refused
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
    Ioeventfd, IrqInfo, RegionInfo, attach_flags, extension, feature_flags, feature_id, irq_index,
    irq_set,
};
use uapi::{COMMANDS, Command, CommandId, Errno, FileKind, Profile};
use vfio::{DeviceFile, DeviceSet, GroupFile, Settings};
use zerocopy::IntoBytes;

use crate::support::{
    ADDRESS, ARGUMENT, Client, Fake, Irqs, Plain, Shape, Stand, Watcher, bind_argument, fds, iommu,
    position,
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
            (group.is_open(), group.iommufd().is_some()),
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
        (CommandId::GroupGetStatus, World::with_group, status, &[]),
        (CommandId::GroupSetContainer, World::with_group, set_container, &[Object]),
        (CommandId::GroupUnsetContainer, World::with_container, unset_container, &[]),
        (
            CommandId::GroupGetDeviceFd,
            World::with_container,
            World::get_device,
            &[Object, BarPages, Attachment, Object, Mirror, ReservedRange],
        ),
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
    let kinds = [FileKind::VfioDevice, FileKind::VfioGroup];
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
