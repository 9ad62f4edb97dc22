//! Groups and VFIO's own container: what is undone when a step refuses, whose DMA reaches what, and tokens.

use std::sync::Arc;

use iommufd::{Context, Geometry, Group, Iommu};
use pci::{Address, Dma, DmaAccess, DmaFault, DmaFaultReason};
use span::Span;
use uapi::iommufd::{VfioIoas, vfio_ioas_op};
use uapi::vfio::{IommuType1DmaMap, IommuType1DmaUnmap, dma_map_flags, dma_unmap_flags, extension};
use uapi::{COMMANDS, Command, CommandId, Errno, FileKind, Profile};
use vfio::{Container, DeviceSet, DeviceState, GroupFile, Settings};
use zerocopy::IntoBytes;

use crate::support::{ADDRESS, ARGUMENT, Client, Fake, MEMORY, Shape, Stand, bind_argument, iommu};

const READ_WRITE: u32 = dma_map_flags::READ | dma_map_flags::WRITE;
const PAGE: u64 = 4096;
/// Where the memory that is mapped begins.
const VA: u64 = MEMORY + 0x8000;

/// A client with a group's file, and what it makes its container.
struct Session {
    client: Client,
    file: Arc<GroupFile>,
    container: Behind,
    fd: i32,
}

enum Behind {
    Context(Arc<Context>),
    Type1(Arc<Container>),
}

impl Session {
    fn on_context(stand: &Stand) -> Self {
        let context = Context::open(Profile::Linux73);
        let mut client = Client::new();
        let fd = client.open_iommufd(&context);
        let file = GroupFile::open(stand.device.group()).unwrap();
        Self { client, file, container: Behind::Context(context), fd }
    }

    fn on_type1(stand: &Stand) -> Self {
        let container = Container::new(Profile::Linux73);
        let mut client = Client::new();
        let fd = client.open_container(&container);
        let file = GroupFile::open(stand.device.group()).unwrap();
        Self { client, file, container: Behind::Type1(container), fd }
    }

    fn of_group(&self, id: CommandId, argument: &[u8]) -> Result<u32, Errno> {
        self.client.put(ARGUMENT, argument);
        self.file.ioctl(&self.client, Command::of(id).request, ARGUMENT)
    }

    fn set_container(&self) -> Result<u32, Errno> {
        self.of_group(CommandId::GroupSetContainer, &self.fd.to_le_bytes())
    }

    fn get_device(&self, name: &str) -> Result<u32, Errno> {
        self.of_group(CommandId::GroupGetDeviceFd, format!("{name}\0").as_bytes())
    }

    /// A container's command; what `argument` is, or points to.
    fn of_container(&self, id: CommandId, argument: u64) -> Result<u32, Errno> {
        let request = Command::of(id).request;
        match &self.container {
            Behind::Context(context) => context.ioctl(&self.client, request, argument),
            Behind::Type1(container) => container.ioctl(&self.client, request, argument),
        }
    }

    fn ready(&self) {
        assert_eq!(self.set_container(), Ok(0));
        assert_eq!(self.of_container(CommandId::SetIommu, extension::TYPE1V2_IOMMU), Ok(0));
    }

    fn map(&self, iova: u64, vaddr: u64, size: u64) -> Result<u32, Errno> {
        let flags = READ_WRITE;
        let argument = IommuType1DmaMap { argsz: 32, flags, vaddr, iova, size };
        self.client.put(ARGUMENT, argument.as_bytes());
        self.of_container(CommandId::IommuMapDma, ARGUMENT)
    }

    fn unmap_all(&self) -> Result<u64, Errno> {
        let flags = dma_unmap_flags::ALL;
        let argument = IommuType1DmaUnmap { argsz: 24, flags, iova: 0, size: 0 };
        self.client.put(ARGUMENT, argument.as_bytes());
        self.of_container(CommandId::IommuUnmapDma, ARGUMENT)?;
        Ok(self.client.take::<IommuType1DmaUnmap>(ARGUMENT).size)
    }

    fn end(self, stand: &Stand) {
        self.file.release();
        if let Behind::Context(context) = &self.container {
            context.put_file();
            assert!(!context.is_open(), "a group keeps the context open");
        }
        assert!(!stand.device.group().is_open());
        assert_eq!(stand.device.state(), DeviceState::Free);
    }
}

fn name() -> String {
    ADDRESS.to_string()
}

#[test]
fn every_served_command_is_answered() {
    let stand = Stand::new();
    let session = Session::on_type1(&stand);
    session.ready();
    let served = |kind| COMMANDS.iter().filter(move |row| row.file == kind && row.served);
    for row in served(FileKind::VfioGroup) {
        let answer = session.file.ioctl(&session.client, row.request, 0);
        assert_ne!(answer, Err(Errno::ENOTTY), "{}", row.name);
    }
    session.ready();
    for row in served(FileKind::VfioContainer) {
        let answer = session.of_container(row.id, 0);
        assert_ne!(answer, Err(Errno::ENOTTY), "{}", row.name);
    }
    for request in [0, 0x3b63, 0x3b6b, 0x3bff] {
        let answer = session.file.ioctl(&session.client, request, 0);
        assert_eq!(answer, Err(Errno::ENOTTY), "{request:#x}");
    }
    session.end(&stand);
}

#[test]
fn dma_reaches_what_the_container_maps_and_ends_with_it() {
    let stand = Stand::new();
    for open in [Session::on_context, Session::on_type1] {
        let session = open(&stand);
        session.ready();
        assert_eq!(session.map(0x10_0000, VA, 2 * PAGE), Ok(0));
        assert_eq!(session.get_device(&name()), Ok(0));
        let file = session.client.given();
        let dma = file.iommufd().unwrap();
        session.client.put(VA + PAGE, b"told");
        let mut seen = [0; 4];
        dma.read(0x10_0000 + PAGE, &mut seen).unwrap();
        assert_eq!(&seen, b"told");
        dma.write(0x10_0000, b"back").unwrap();
        session.client.get(VA, &mut seen);
        assert_eq!(&seen, b"back");
        assert_eq!(session.map(0x20_0000, VA, PAGE), Ok(0), "while it is open, too");
        dma.read(0x20_0000, &mut seen).unwrap();
        assert_eq!(&seen, b"back");
        assert_eq!(session.unmap_all(), Ok(3 * PAGE));
        let fault = DmaFault {
            iova: 0x10_0000,
            access: DmaAccess::Read,
            reason: DmaFaultReason::NotMapped,
        };
        assert_eq!(dma.read(0x10_0000, &mut seen), Err(fault));
        drop(dma);
        file.release();
        session.end(&stand);
    }
}

#[test]
fn what_a_refused_open_began_is_undone() {
    let stand = Stand::new();
    let session = Session::on_context(&stand);
    session.ready();
    let clear = VfioIoas { size: 12, op: vfio_ioas_op::CLEAR, ..VfioIoas::default() };
    session.client.put(ARGUMENT, clear.as_bytes());
    assert_eq!(session.of_container(CommandId::VfioIoas, ARGUMENT), Ok(0));
    stand.function.events();
    assert_eq!(session.get_device(&name()), Err(Errno::ENODEV), "nothing to attach to");
    assert_eq!(stand.device.state(), DeviceState::Free);
    assert_eq!(session.get_device(&name()), Err(Errno::ENODEV), "and again");
    session.end(&stand);

    let session = Session::on_type1(&stand);
    assert_eq!(session.set_container(), Ok(0));
    assert_eq!(session.get_device(&name()), Err(Errno::EINVAL), "no IOMMU yet");
    assert_eq!(stand.device.state(), DeviceState::Free);
    assert_eq!(session.of_container(CommandId::SetIommu, extension::TYPE1V2_IOMMU), Ok(0));
    stand.device.withdraw();
    assert_eq!(session.get_device(&name()), Err(Errno::ENODEV), "it is being removed");
    stand.device.readmit();
    assert_eq!(session.get_device(&name()), Ok(0));
    session.client.given().release();
    session.end(&stand);
}

#[test]
fn a_device_that_is_bound_alone_keeps_its_group_shut() {
    let stand = Stand::new();
    let session = stand.bound();
    assert!(GroupFile::open(stand.device.group()).is_err());
    let refused = stand.open();
    let mut bind = bind_argument(session.iommufd);
    let again = session.client.call(&refused, CommandId::DeviceBindIommufd, &mut bind);
    assert_eq!(again, Err(Errno::EINVAL));
    assert!(GroupFile::open(stand.device.group()).is_err(), "a refused BIND opens nothing");
    refused.release();
    session.close();
    let group = GroupFile::open(stand.device.group()).unwrap();
    group.release();
}

/// A device in a group of its own, behind an IOMMU with these addresses.
fn behind(aperture: Span, address: Address) -> Stand {
    behind_iommu(Geometry { aperture, ..iommu().geometry().clone() }, address)
}

fn behind_iommu(geometry: Geometry, address: Address) -> Stand {
    let (set, group) = (DeviceSet::new(true), Group::new(11));
    let settings = Settings { group: Some(vfio::Group::new(11)), ..Settings::default() };
    let function = Fake::new(address, Shape::default());
    Stand::in_set(function, settings, set, group, Iommu::new(geometry))
}

#[test]
fn a_group_joins_a_container_only_where_its_iommu_translates_all_that_is_mapped() {
    let stand = Stand::new();
    let session = Session::on_type1(&stand);
    session.ready();
    assert_eq!(session.map(0x1_0000_0000, VA, PAGE), Ok(0));
    let low = Span::from_ends(0, 0xffff_ffff).unwrap();
    let narrow = behind(low, Address::new(0xb1d0, 9, 0, 0).unwrap());
    let other = GroupFile::open(narrow.device.group()).unwrap();
    let request = Command::of(CommandId::GroupSetContainer).request;
    let join_as = |group: &GroupFile| {
        session.client.put(ARGUMENT, &session.fd.to_le_bytes());
        group.ioctl(&session.client, request, ARGUMENT)
    };
    let join = || join_as(&other);
    let unsafe_too = Geometry { aperture: low, msi_isolated: false, ..iommu().geometry().clone() };
    let unsafe_too = behind_iommu(unsafe_too, Address::new(0xb1d0, 10, 0, 0).unwrap());
    let third = GroupFile::open(unsafe_too.device.group()).unwrap();
    assert_eq!(join(), Err(Errno::EINVAL));
    assert_eq!(join_as(&third), Err(Errno::EINVAL), "before its interrupts are looked at");
    assert_eq!(session.unmap_all(), Ok(PAGE));
    assert_eq!(join_as(&third), Err(Errno::EPERM));
    third.release();
    assert_eq!(join(), Ok(0));
    assert_eq!(session.map(0x1_0000_0000, VA, PAGE), Err(Errno::EINVAL), "one cannot");
    assert_eq!(session.map(0x1000, VA, PAGE), Ok(0));
    other.release();
    session.end(&stand);
}

#[test]
fn no_group_joins_a_container_whose_memory_moves() {
    let stand = Stand::new();
    let session = Session::on_type1(&stand);
    session.ready();
    assert_eq!(session.map(0x1000, VA, PAGE), Ok(0));
    let flags = dma_unmap_flags::VADDR;
    let moves = IommuType1DmaUnmap { argsz: 24, flags, iova: 0x1000, size: PAGE };
    session.client.put(ARGUMENT, moves.as_bytes());
    assert_eq!(session.of_container(CommandId::IommuUnmapDma, ARGUMENT), Ok(0));
    let all = Span::from_ends(0, (1 << 48) - 1).unwrap();
    let beside = behind(all, Address::new(0xb1d0, 9, 0, 0).unwrap());
    let other = GroupFile::open(beside.device.group()).unwrap();
    let request = Command::of(CommandId::GroupSetContainer).request;
    let join = || {
        session.client.put(ARGUMENT, &session.fd.to_le_bytes());
        other.ioctl(&session.client, request, ARGUMENT)
    };
    assert_eq!(join(), Err(Errno::EBUSY));
    let flags = dma_map_flags::VADDR;
    let moved = IommuType1DmaMap { argsz: 32, flags, vaddr: VA, iova: 0x1000, size: PAGE };
    session.client.put(ARGUMENT, moved.as_bytes());
    assert_eq!(session.of_container(CommandId::IommuMapDma, ARGUMENT), Ok(0));
    assert_eq!(join(), Ok(0));
    other.release();
    session.end(&stand);
}

#[test]
fn a_container_has_so_many_entries_and_no_more() {
    const MOST: u64 = 65535;
    let stand = Stand::new();
    let session = Session::on_type1(&stand);
    session.ready();
    for entry in 0..MOST {
        assert_eq!(session.map(entry * PAGE, VA, PAGE), Ok(0), "{entry}");
    }
    assert_eq!(session.map(0, VA, PAGE), Err(Errno::EEXIST), "looked at before");
    assert_eq!(session.map(1 << 48, VA, PAGE), Err(Errno::ENOSPC), "where no IOMMU translates");
    assert_eq!(session.unmap_all(), Ok(MOST * PAGE));
    session.end(&stand);
}

#[test]
fn a_bus_reset_wants_the_group_of_each_device_on_the_bus() {
    let stand = Stand::new();
    let stranger = stand.neighbour(Address::new(0xb1d0, 2, 1, 0).unwrap(), false);
    let mut session = Session::on_type1(&stand);
    session.ready();
    assert_eq!(session.get_device(&name()), Ok(0));
    let file = session.client.given();
    let own = session.client.open_group(stand.device.group());
    let others = session.client.open_group(stranger.device.group());
    let other = session.client.open_other();
    let reset = |groups: &[i32]| {
        let count = groups.len().try_into().unwrap();
        let words = [12_u32, 0, count];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(groups.iter().flat_map(|fd| fd.to_le_bytes()));
        session.client.call_bytes(&file, CommandId::DevicePciHotReset, &mut bytes)
    };
    assert_eq!(reset(&[]), Err(Errno::EINVAL), "no group");
    assert_eq!(reset(&[own, others, own]), Err(Errno::EINVAL), "more than devices");
    assert_eq!(reset(&[own, 99]), Err(Errno::EBADF));
    assert_eq!(reset(&[own, other]), Err(Errno::EINVAL), "no group's file");
    assert_eq!(reset(&[own]), Err(Errno::EINVAL), "a stranger is on the bus");
    stand.function.events();
    stranger.function.events();
    assert_eq!(reset(&[own, others]), Ok(0));
    assert_eq!(stand.function.events(), ["reset bus"]);
    assert_eq!(stranger.function.events(), ["reset bus"]);
    file.release();
    session.end(&stand);
}

/// A physical function, and a virtual one beside it.
fn with_virtual() -> (Stand, Stand) {
    let physical = Shape { physical_function: true, ..Shape::default() };
    let stand = Stand::shaped(physical, Settings::default());
    let made_by = vfio::VirtualFunction { vendor_id: 0x1234, device_id: 0x5679 };
    let settings = Settings { virtual_function: Some(made_by), ..Settings::default() };
    let address = Address::new(0xb1d0, 2, 0, 1).unwrap();
    let shape = Shape { virtual_function: true, ..Shape::default() };
    let function = Fake::new(address, shape);
    let (set, group) = (stand.set.clone(), Group::new(12));
    let other = Stand::in_set(function, settings, set, group, stand.iommu.clone());
    (stand, other)
}

#[test]
fn who_makes_virtual_functions_decides_about_tokens() {
    const RIGHT: &str = "vf_token=52ac9bff-3a88-4fbd-901a-0d767c3b6c97";
    const WRONG: &str = "vf_token=88594674-90a0-47a9-aea8-9d9b352ac08a";
    let (physical, virtual_function) = with_virtual();
    let of_physical = Session::on_context(&physical);
    of_physical.ready();
    let of_virtual = Session::on_context(&virtual_function);
    of_virtual.ready();
    let name = virtual_function.device.address().to_string();
    let with = |token: &str| of_virtual.get_device(&format!("{name} {token}"));
    assert_eq!(with(RIGHT), Err(Errno::EINVAL), "the host made it");
    assert_eq!(with(""), Ok(0));
    of_virtual.client.given().release();
    virtual_function.device.set_physical_function(Some(&physical.device));
    for token in ["", RIGHT, WRONG] {
        assert_eq!(with(token), Err(Errno::EACCES), "nobody said a token: {token}");
    }
    let own = |token: &str| of_physical.get_device(&format!("{ADDRESS} {token}"));
    assert_eq!(own(RIGHT), Ok(0));
    of_physical.client.given().release();
    assert_eq!(with(WRONG), Err(Errno::EACCES));
    assert_eq!(with(RIGHT), Ok(0), "it stays when the physical function is closed");
    for token in ["", WRONG] {
        assert_eq!(own(token), Err(Errno::EACCES), "a virtual one is open: {token}");
    }
    assert_eq!(own(RIGHT), Ok(0));
    of_physical.client.given().release();
    virtual_function.device.set_physical_function(None);
    of_virtual.client.given().release();
    assert_eq!(own(WRONG), Ok(0), "none is open, so it is the token from now on");
    of_physical.client.given().release();
    of_virtual.end(&virtual_function);
    of_physical.end(&physical);
}
