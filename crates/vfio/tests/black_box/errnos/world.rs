//! Files in the state that steps are tried in.

use std::collections::BTreeMap;
use std::sync::Arc;

use iommufd::{Context, Counts, Geometry, Group, Iommu};
use pci::Address;
use uapi::{Command, CommandId, Errno, FileKind, Profile};
use vfio::{Container, DeviceFile, DeviceSet, DeviceState, GroupFile, Settings, VirtualFunction};

use super::{
    CONTAINER, EVENTFD, Fields, GROUP, Given, IOMMUFD, OTHER, SET_TOKEN, Step, TOKEN, TOKEN_AT,
};
use crate::support::{
    ADDRESS, ARGUMENT, Client, Fake, READ_ONLY, Reason, Shape, Stand, Watcher, bind_argument, iommu,
};

/// A device, a client that has the files of the constants, and those that commands go to.
pub(super) struct World {
    pub(super) stand: Stand,
    client: Client,
    context: Arc<Context>,
    container: Arc<Container>,
    /// Which of the two a container's commands go to.
    on_context: bool,
    file: Option<Arc<DeviceFile>>,
    group: Option<Arc<GroupFile>>,
    /// Other files, and other contexts, that are open.
    files: Vec<Arc<DeviceFile>>,
    contexts: Vec<Arc<Context>>,
    neighbours: Vec<Stand>,
    /// Why steps so far were refused.
    pub(super) reasons: Vec<Reason>,
}

/// What a step changes if it should not.
#[derive(Debug, PartialEq, Eq)]
struct State {
    device: DeviceState,
    group_is_open: bool,
    counts: Counts,
}

impl World {
    fn of(stand: Stand, profile: Profile) -> Self {
        let (context, container) = (Context::open(profile), Container::new(profile));
        let mut client = Client::new();
        assert_eq!(client.open_iommufd(&context), IOMMUFD);
        assert_eq!(client.open_eventfd().0, EVENTFD);
        assert_eq!(client.open_other(), OTHER);
        assert_eq!(client.open_group(stand.device.group()), GROUP);
        assert_eq!(client.open_container(&container), CONTAINER);
        Self {
            stand,
            client,
            context,
            container,
            on_context: false,
            file: None,
            group: None,
            files: Vec::new(),
            contexts: Vec::new(),
            neighbours: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// Nothing is open but the device's own file.
    pub(super) fn unbound() -> Self {
        Self::shaped(Shape::default(), Settings::default())
    }

    pub(super) fn shaped(shape: Shape, settings: Settings) -> Self {
        let profile = settings.profile;
        let mut world = Self::of(Stand::shaped(shape, settings), profile);
        world.file = Some(world.stand.open());
        world
    }

    /// The device's own file is bound, as device 1, and there is an IOAS, 2.
    pub(super) fn bound() -> Self {
        Self::unbound().and_bound()
    }

    pub(super) fn and_bound(mut self) -> Self {
        let file = self.file.as_ref().unwrap();
        let mut bind = bind_argument(IOMMUFD);
        assert_eq!(self.client.call(file, CommandId::DeviceBindIommufd, &mut bind), Ok(0));
        let ioas = self.run(CommandId::IoasAlloc, &Given::Struct(&[("size", 12)]));
        assert_eq!((ioas, bind.out_devid), (Ok(0), 1));
        self.reasons.clear();
        self
    }

    /// A device that takes PASIDs is bound.
    pub(super) fn bound_with_pasids() -> Self {
        let pasids = Geometry { max_pasid_log2: 8, ..iommu().geometry().clone() };
        let function = Fake::new(ADDRESS, Shape::default());
        let (set, group) = (DeviceSet::new(true), Group::new(7));
        let stand = Stand::in_set(function, Settings::default(), set, group, Iommu::new(pasids));
        let mut world = Self::of(stand, Profile::default());
        world.file = Some(world.stand.open());
        world.and_bound()
    }

    /// A virtual function that vfio-pci made, of a physical one whose token is known.
    pub(super) fn unbound_virtual() -> Self {
        let physical = Shape { physical_function: true, ..Shape::default() };
        let physical = Self::shaped(physical, Settings::default()).and_bound();
        let token = Given::Then(&[("flags", SET_TOKEN)], &TOKEN);
        assert_eq!(physical.run(CommandId::DeviceFeature, &token), Ok(0));
        let made_by = VirtualFunction { vendor_id: 0x1234, device_id: 0x5679 };
        let settings = Settings { virtual_function: Some(made_by), ..Settings::default() };
        let shape = Shape { virtual_function: true, ..Shape::default() };
        let function = Fake::new(Address::new(0xb1d0, 2, 0, 1).unwrap(), shape);
        let Self { stand, file, context, .. } = physical;
        let (set, group) = (stand.set.clone(), Group::new(12));
        let own = Stand::in_set(function, settings, set, group, stand.iommu.clone());
        own.device.set_physical_function(Some(&stand.device));
        let mut world = Self::of(own, Profile::default());
        world.file = Some(world.stand.open());
        world.client.put(TOKEN_AT, &TOKEN.map(i32::to_le_bytes).concat());
        world.files.extend(file);
        world.contexts.push(context);
        world.neighbours.push(stand);
        world
    }

    /// The device is behind an IOMMU that does not isolate interrupts.
    pub(super) fn unbound_not_isolated() -> Self {
        let geometry = Geometry { msi_isolated: false, ..iommu().geometry().clone() };
        let function = Fake::new(ADDRESS, Shape::default());
        let (set, group) = (DeviceSet::new(true), Group::new(7));
        let stand = Stand::in_set(function, Settings::default(), set, group, Iommu::new(geometry));
        let mut world = Self::of(stand, Profile::default());
        world.file = Some(world.stand.open());
        world
    }

    /// Eventfds are watched.
    pub(super) fn bound_and_watched() -> Self {
        let watch: Arc<dyn vfio::Watch> = Arc::new(Watcher::default());
        let settings = Settings { watch: Some(watch), ..Settings::default() };
        Self::shaped(Shape::default(), settings).and_bound()
    }

    /// The device is bound through another file.
    pub(super) fn bound_elsewhere() -> Self {
        let mut world = Self::bound();
        let bound = world.file.replace(world.stand.open());
        world.files.extend(bound);
        world
    }

    /// A device of the same iommu_group is bound to another context.
    pub(super) fn group_owned_elsewhere() -> Self {
        let mut world = Self::unbound();
        let sibling = world.stand.neighbour(Address::new(0xb1d0, 2, 0, 1).unwrap(), true);
        world.bind_elsewhere(&sibling);
        world.neighbours.push(sibling);
        world
    }

    /// A device of another iommu_group is on the bus.
    pub(super) fn bound_beside_a_stranger() -> Self {
        let mut world = Self::bound();
        world.neighbours.push(world.stand.neighbour(Address::new(0xb1d0, 2, 1, 0).unwrap(), false));
        world
    }

    /// The bus cannot be reset.
    pub(super) fn bound_without_bus_reset() -> Self {
        let function = Fake::new(ADDRESS, Shape::default());
        let (set, group) = (DeviceSet::new(false), Group::new(7));
        let stand = Stand::in_set(function, Settings::default(), set, group, iommu());
        let mut world = Self::of(stand, Profile::default());
        world.file = Some(world.stand.open());
        world.and_bound()
    }

    /// The group's file is open; the device's own is open too, and not bound.
    pub(super) fn group_open() -> Self {
        let mut world = Self::unbound();
        world.group = Some(GroupFile::open(world.stand.device.group()).unwrap());
        world
    }

    /// The group's file is open, and a container's commands go to the context.
    pub(super) fn group_on_context() -> Self {
        let mut world = Self::of(Stand::new(), Profile::default());
        world.group = Some(GroupFile::open(world.stand.device.group()).unwrap());
        world.on_context = true;
        world
    }

    /// The group's file is open, and a container's commands go to VFIO's own.
    pub(super) fn group_on_type1() -> Self {
        Self { on_context: false, ..Self::group_on_context() }
    }

    /// A device of another iommu_group is on the bus.
    pub(super) fn group_beside_a_stranger() -> Self {
        let mut world = Self::group_on_context();
        world.neighbours.push(world.stand.neighbour(Address::new(0xb1d0, 2, 1, 0).unwrap(), false));
        world
    }

    /// The group is open, and its devices are withdrawn.
    pub(super) fn group_withdrawn() -> Self {
        let world = Self::group_on_context();
        world.stand.device.withdraw();
        world
    }

    /// The group's file is open; its device is behind an IOMMU that does not isolate interrupts.
    pub(super) fn group_not_isolated() -> Self {
        let mut world = Self::unbound_not_isolated();
        world.file.take().unwrap().release();
        world.group = Some(GroupFile::open(world.stand.device.group()).unwrap());
        world
    }

    /// A device of the iommu_group, not of this VFIO group, is bound to another context.
    pub(super) fn group_claimed() -> Self {
        let mut world = Self::group_on_type1();
        let sibling = world.stand.neighbour(Address::new(0xb1d0, 2, 0, 1).unwrap(), true);
        world.bind_elsewhere(&sibling);
        world.neighbours.push(sibling);
        world
    }

    fn bind_elsewhere(&mut self, stand: &Stand) {
        let (file, context) = (stand.open(), Context::open(Profile::default()));
        let mut client = Client::new();
        let mut bind = bind_argument(client.open_iommufd(&context));
        assert_eq!(client.call(&file, CommandId::DeviceBindIommufd, &mut bind), Ok(0));
        self.files.push(file);
        self.contexts.push(context);
    }

    /// Tries a step.
    ///
    /// # Errors
    /// What happened, if that is something else.
    pub(super) fn play(&mut self, step: &Step) -> Result<(), String> {
        let before = self.state();
        let (answer, expected) = match step {
            Step::Refused(id, given, errno, why) => {
                (self.run(*id, given).map(u64::from), Err((*errno, *why)))
            }
            Step::Done(id, given, answer) => {
                (self.run(*id, given).map(u64::from), Ok(u64::from(*answer)))
            }
            Step::Read(count, at, position, expected) => {
                (self.file().read(&self.client, *at, *count, *position), *expected)
            }
            Step::Write(count, at, position, expected) => {
                (self.file().write(&self.client, *at, *count, *position), *expected)
            }
        };
        let reasons = self.client.reasons();
        let name = reasons.last().map(Reason::name).unwrap_or_default();
        self.reasons.extend(reasons);
        let answer = answer.map_err(|errno| (errno, name.as_str()));
        if answer != expected {
            return Err(format!("{answer:?}"));
        }
        match self.state() {
            after if answer.is_err() && after != before => {
                Err(format!("{before:?}, then {after:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Closes all.
    pub(super) fn end(self) {
        let given = self.client.given_any();
        for file in self.file.iter().chain(&given).chain(&self.files) {
            file.release();
        }
        if let Some(group) = &self.group {
            group.release();
        }
        self.context.put_file();
        self.contexts.iter().for_each(|context| context.put_file());
        assert_eq!(self.stand.device.state(), DeviceState::Free);
        assert!(!self.context.is_open());
    }

    fn run(&self, id: CommandId, given: &Given) -> Result<u32, Errno> {
        let (command, at) = (Command::of(id), self.put(id, given));
        match command.file {
            FileKind::VfioDevice => self.file().ioctl(&self.client, command.request, at),
            FileKind::VfioGroup => {
                self.group.as_ref().unwrap().ioctl(&self.client, command.request, at)
            }
            FileKind::VfioContainer if !self.on_context => {
                self.container.ioctl(&self.client, command.request, at)
            }
            FileKind::VfioContainer | FileKind::Iommufd => {
                self.context.ioctl(&self.client, command.request, at)
            }
            FileKind::MigrationData => panic!("no such file"),
        }
    }

    /// Puts an argument into the client's memory; returns it.
    fn put(&self, id: CommandId, given: &Given) -> u64 {
        let (bytes, at) = match given {
            Given::Value(value) => return *value,
            Given::Fd(fd) => (fd.to_le_bytes().to_vec(), ARGUMENT),
            Given::Text(text) => (format!("{text}\0").into_bytes(), ARGUMENT),
            Given::Struct(fields) => (bytes_of(id, fields, &[]), ARGUMENT),
            Given::Then(fields, words) => (bytes_of(id, fields, words), ARGUMENT),
            Given::ReadOnly(fields) => (bytes_of(id, fields, &[]), READ_ONLY),
            Given::Cut(fields, readable) => {
                let mut bytes = bytes_of(id, fields, &[]);
                bytes.truncate(usize::try_from(*readable).unwrap());
                (bytes, READ_ONLY + 0x1000 - readable)
            }
        };
        if at == ARGUMENT {
            self.client.put(ARGUMENT, &[0; 128]);
        }
        self.client.put(at, &bytes);
        at
    }

    /// What a device's commands go to: its own file, or what the group gave.
    fn file(&self) -> Arc<DeviceFile> {
        self.file.clone().unwrap_or_else(|| self.client.given())
    }

    fn state(&self) -> State {
        State {
            device: self.stand.device.state(),
            group_is_open: self.stand.device.group().is_open(),
            // What the function did meanwhile is not the command's.
            counts: Counts { dma_faults: BTreeMap::new(), ..self.context.counts() },
        }
    }
}

fn bytes_of(id: CommandId, fields: Fields, words: &[i32]) -> Vec<u8> {
    let layout = Command::of(id).argument.unwrap_or_else(|| panic!("{id:?} takes no struct"));
    let mut bytes = vec![0; layout.size];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    let size = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    for (name, value) in fields {
        let field = layout.field(name).unwrap_or_else(|| panic!("{id:?} has no field {name}"));
        bytes[field.offset..field.offset + field.size]
            .copy_from_slice(&value.to_le_bytes()[..field.size]);
    }
    bytes
}
