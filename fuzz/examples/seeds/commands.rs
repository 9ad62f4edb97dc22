//! What clients do that assign devices: open, bind, map, attach, and let go again.

use bindery_fuzz::client::MEMORY_BASE;
use bindery_fuzz::commands::{Place, Step};
use bindery_fuzz::descriptor::Descriptor;
use bindery_fuzz::input::Output;
use bindery_fuzz::rig::Kind;
use device::dma_engine::regs::{control, flag, operation, register};
use pci::regs::{command, header};
use uapi::iommufd::{
    Destroy, HwInfo, HwptAlloc, IoasAlloc, IoasIovaRanges, IoasMap, IoasMapFile, IoasUnmap,
    hwpt_flags, map_flags,
};
use uapi::vfio::{
    AttachIommufdPt, BindIommufd, DetachIommufdPt, DeviceInfo, Feature, HotReset, HotResetInfo,
    IrqInfo, IrqSet, LowPowerEntryWithWakeup, RegionInfo, bind_flags, feature_flags, feature_id,
    irq_index, irq_set, region_index,
};
use uapi::{CommandId, Profile};
use zerocopy::{Immutable, IntoBytes};

use crate::write;

const IOMMUFD: u8 = 0;
const DEVICE: u8 = 1;
const SECOND: u8 = 2;
const EVENTFD: u8 = 3;
const MEMFD: u8 = 4;
/// Indexes of the pair in the rig.
pub(crate) const PAIR: [u8; 2] = [2, 3];
/// Ids in the order in which a fresh context gives them: the device is bound first.
const DEVICE_ID: u32 = 1;
const IOAS_ID: u32 = 2;
/// What is mapped, at the address that it has: all but the page that arguments are in.
pub(crate) const MAPPED: u64 = MEMORY_BASE + 0x1000;
const MAPPED_LENGTH: u64 = 0xf000;

/// Steps, in the making.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn open(&mut self, fd: u8, kind: Kind) -> &mut Self {
        self.0.push(Step::Open { fd, kind });
        self
    }

    fn close(&mut self, fd: u8) -> &mut Self {
        self.0.push(Step::Close { fd });
        self
    }

    fn call(
        &mut self,
        fd: u8,
        id: CommandId,
        argument: &(impl IntoBytes + Immutable),
    ) -> &mut Self {
        self.call_with(fd, id, argument, &[])
    }

    /// A command whose struct has a tail.
    fn call_with(
        &mut self,
        fd: u8,
        id: CommandId,
        argument: &(impl IntoBytes + Immutable),
        tail: &[u8],
    ) -> &mut Self {
        let bytes = [argument.as_bytes(), tail].concat();
        self.0.push(Step::Command { fd, row: id as u8, at: 0, bytes });
        self
    }

    fn bind(&mut self, fd: u8, iommufd: u8) -> &mut Self {
        let bind = BindIommufd { iommufd: iommufd.into(), ..BindIommufd::default() };
        self.call(fd, CommandId::DeviceBindIommufd, &bind)
    }

    /// Opens a context and a device, binds, maps, attaches.
    fn assign(&mut self, device: u8) -> &mut Self {
        let both = map_flags::READABLE | map_flags::WRITEABLE;
        let map = IoasMap {
            flags: map_flags::FIXED_IOVA | both,
            ioas_id: IOAS_ID,
            user_va: MAPPED,
            length: MAPPED_LENGTH,
            iova: MAPPED,
            ..IoasMap::default()
        };
        self.open(IOMMUFD, Kind::Iommufd(Profile::Rfc))
            .open(DEVICE, Kind::Device(device.into()))
            .bind(DEVICE, IOMMUFD)
            .call(IOMMUFD, CommandId::IoasAlloc, &IoasAlloc::default())
            .call(IOMMUFD, CommandId::IoasMap, &map)
            .attach(DEVICE, IOAS_ID)
    }

    fn attach(&mut self, fd: u8, pt_id: u32) -> &mut Self {
        let attach = AttachIommufdPt { pt_id, ..AttachIommufdPt::default() };
        self.call(fd, CommandId::DeviceAttachIommufdPt, &attach)
    }

    fn detach(&mut self, fd: u8) -> &mut Self {
        self.call(fd, CommandId::DeviceDetachIommufdPt, &DetachIommufdPt::default())
    }

    fn unmap_all(&mut self, ioas_id: u32) -> &mut Self {
        let all = IoasUnmap { ioas_id, length: u64::MAX, ..IoasUnmap::default() };
        self.call(IOMMUFD, CommandId::IoasUnmap, &all)
    }

    fn destroy(&mut self, id: u32) -> &mut Self {
        self.call(IOMMUFD, CommandId::Destroy, &Destroy { id, ..Destroy::default() })
    }

    fn set_irqs(&mut self, index: u32, action: u32, fds: &[i32]) -> &mut Self {
        let count = u32::try_from(fds.len()).expect("few");
        let data = if fds.is_empty() { irq_set::DATA_NONE } else { irq_set::DATA_EVENTFD };
        let set = IrqSet { flags: data | action, index, count, ..IrqSet::default() };
        self.call_with(DEVICE, CommandId::DeviceSetIrqs, &set, fds.as_bytes())
    }

    fn feature(&mut self, flags: u32, data: &[u8]) -> &mut Self {
        let feature = Feature { flags, ..Feature::default() };
        self.call_with(DEVICE, CommandId::DeviceFeature, &feature, data)
    }

    /// Writes to a region what is in memory at the second page.
    fn write(&mut self, region: u32, offset: u64, bytes: &[u8]) -> &mut Self {
        const BUFFER: u16 = 0x1000;
        let count = u16::try_from(bytes.len()).expect("few");
        let place = Place { region: region as u8, offset };
        self.0.push(Step::Poke { at: BUFFER, bytes: bytes.to_vec() });
        self.0.push(Step::Transfer { fd: DEVICE, write: true, at: BUFFER, count, place });
        self
    }

    fn read(&mut self, region: u32, offset: u64, count: u16) -> &mut Self {
        let place = Place { region: region as u8, offset };
        self.0.push(Step::Transfer { fd: DEVICE, write: false, at: 0x2000, count, place });
        self
    }

    fn set_command(&mut self) -> &mut Self {
        let bits = command::MEMORY | command::BUS_MASTER;
        self.write(region_index::CONFIG, header::COMMAND.into(), &bits.to_le_bytes())
    }

    /// Rings for a descriptor and lets the device work.
    fn submit(&mut self, device: u8, slot: u16, descriptor: Descriptor) -> &mut Self {
        let (at, bytes) = (Descriptor::offset(slot), descriptor.to_bytes());
        self.0.push(Step::Store { fd: DEVICE, at, bytes });
        self.write(region_index::BAR0, register::CONTROL, &control::ENABLE.to_le_bytes());
        self.write(region_index::BAR0, register::DOORBELL, &u32::from(slot).to_le_bytes());
        self.0.push(Step::Work { device, budget_lg2: 16 });
        self
    }

    fn then(&mut self, step: Step) -> &mut Self {
        self.0.push(step);
        self
    }

    fn save(&self, name: &str) {
        let mut out = Output::default();
        self.0.iter().for_each(|step| step.encode(&mut out));
        write("commands", name, &out.into_bytes());
    }
}

pub(crate) const COPY: Descriptor = Descriptor {
    operation: operation::COPY,
    flags: flag::INTERRUPT,
    length: 0x2000,
    source: MAPPED,
    destination: MAPPED + 0x4000,
    window: 0,
};

pub(crate) fn commands() {
    Steps::default()
        .assign(PAIR[0])
        .open(EVENTFD, Kind::Eventfd)
        .set_irqs(irq_index::MSIX, irq_set::ACTION_TRIGGER, &[EVENTFD.into(), -1])
        .set_command()
        .submit(PAIR[0], 0, COPY)
        .call(DEVICE, CommandId::DeviceReset, &[0_u8; 0])
        .set_irqs(irq_index::MSIX, irq_set::ACTION_TRIGGER, &[])
        .detach(DEVICE)
        .close(DEVICE)
        .unmap_all(IOAS_ID)
        .destroy(IOAS_ID)
        .save("copy");
    information();
    memory();
    rights();
    pair();
    interrupts();
    power();
    two_contexts();
}

/// Every question that a device and a context answer.
fn information() {
    let region = |index| RegionInfo { index, ..RegionInfo::default() };
    let irq = |index| IrqInfo { index, ..IrqInfo::default() };
    let hw_info = HwInfo { dev_id: DEVICE_ID, ..HwInfo::default() };
    let ranges = IoasIovaRanges {
        ioas_id: IOAS_ID,
        num_iovas: 4,
        allowed_iovas: MEMORY_BASE + 0x3000,
        ..IoasIovaRanges::default()
    };
    Steps::default()
        .assign(0)
        .call_with(DEVICE, CommandId::DeviceGetInfo, &DeviceInfo::default(), &[0; 32])
        .call_with(DEVICE, CommandId::DeviceGetRegionInfo, &region(0), &[0; 64])
        .call(DEVICE, CommandId::DeviceGetRegionInfo, &region(region_index::CONFIG))
        .call(DEVICE, CommandId::DeviceGetIrqInfo, &irq(irq_index::MSIX))
        .call(IOMMUFD, CommandId::GetHwInfo, &hw_info)
        .call(IOMMUFD, CommandId::IoasIovaRanges, &ranges)
        .feature(feature_flags::PROBE | feature_flags::SET | feature_id::LOW_POWER_ENTRY, &[])
        .read(region_index::CONFIG, 0, 0x1000)
        .read(region_index::BAR0, 0, 0x60)
        .then(Step::Map {
            fd: DEVICE,
            place: Place { region: 0, offset: 0x1000 },
            length: 0xf000,
            bits: 7,
        })
        .save("information");
}

/// Mappings of all kinds, page tables, and memory that goes away under DMA.
fn memory() {
    let file = IoasMapFile {
        flags: map_flags::READABLE,
        ioas_id: IOAS_ID,
        fd: MEMFD.into(),
        length: 0x4000,
        ..IoasMapFile::default()
    };
    let automatic = IoasMap {
        flags: map_flags::READABLE | map_flags::WRITEABLE,
        ioas_id: IOAS_ID,
        user_va: MAPPED,
        length: 0x3000,
        ..IoasMap::default()
    };
    let table =
        |flags| HwptAlloc { flags, dev_id: DEVICE_ID, pt_id: IOAS_ID, ..HwptAlloc::default() };
    let unmap =
        IoasUnmap { ioas_id: IOAS_ID, iova: MAPPED, length: MAPPED_LENGTH, ..IoasUnmap::default() };
    Steps::default()
        .assign(1)
        .open(MEMFD, Kind::Memory)
        .call(IOMMUFD, CommandId::IoasMapFile, &file)
        .call(IOMMUFD, CommandId::IoasMap, &automatic)
        .call(IOMMUFD, CommandId::HwptAlloc, &table(hwpt_flags::NEST_PARENT))
        .call(IOMMUFD, CommandId::HwptAlloc, &table(hwpt_flags::DIRTY_TRACKING))
        .attach(DEVICE, 5)
        .set_command()
        .then(Step::Protect { fd: IOMMUFD, page: 5, bits: 4 })
        .submit(1, 1, COPY)
        .call(IOMMUFD, CommandId::IoasUnmap, &unmap)
        .attach(DEVICE, IOAS_ID)
        .destroy(5)
        .unmap_all(IOAS_ID)
        .submit(1, 2, COPY)
        .save("memory");
}

/// DMA that a mapping's rights refuse, either way.
fn rights() {
    let map = |flags, iova| IoasMap {
        flags: map_flags::FIXED_IOVA | flags,
        ioas_id: IOAS_ID,
        user_va: MAPPED,
        length: 0x2000,
        iova,
        ..IoasMap::default()
    };
    let (read_only, write_only) = (0x4_0000, 0x5_0000);
    Steps::default()
        .assign(PAIR[0])
        .call(IOMMUFD, CommandId::IoasMap, &map(map_flags::READABLE, read_only))
        .call(IOMMUFD, CommandId::IoasMap, &map(map_flags::WRITEABLE, write_only))
        .set_command()
        .submit(PAIR[0], 0, Descriptor { destination: read_only, ..COPY })
        .submit(PAIR[0], 1, Descriptor { source: write_only, ..COPY })
        .submit(PAIR[0], 2, Descriptor { source: read_only, destination: write_only, ..COPY })
        .save("rights");
}

/// Both functions of a group, moved to another page table together, and resets that take both.
fn pair() {
    let hot_reset = HotReset::default();
    let table = HwptAlloc { dev_id: DEVICE_ID, pt_id: 5, ..HwptAlloc::default() };
    Steps::default()
        .assign(PAIR[0])
        .open(SECOND, Kind::Device(PAIR[1].into()))
        .call_with(DEVICE, CommandId::DeviceGetPciHotResetInfo, &HotResetInfo::default(), &[0; 16])
        .bind(SECOND, IOMMUFD)
        .attach(SECOND, IOAS_ID)
        .call(IOMMUFD, CommandId::IoasAlloc, &IoasAlloc::default())
        .call(IOMMUFD, CommandId::HwptAlloc, &table)
        .attach(DEVICE, 6)
        .call(DEVICE, CommandId::DevicePciHotReset, &hot_reset)
        .close(IOMMUFD)
        .close(DEVICE)
        .call(SECOND, CommandId::DevicePciHotReset, &hot_reset)
        .save("pair");
}

/// The pin with masks and eventfds, and the host's own interrupts.
fn interrupts() {
    let eventfd = [i32::from(EVENTFD)];
    let second = [i32::from(SECOND)];
    Steps::default()
        .assign(PAIR[1])
        .open(EVENTFD, Kind::Eventfd)
        .open(SECOND, Kind::Eventfd)
        .set_irqs(irq_index::INTX, irq_set::ACTION_TRIGGER, &eventfd)
        .set_irqs(irq_index::INTX, irq_set::ACTION_UNMASK, &second)
        .set_command()
        .submit(PAIR[1], 0, COPY)
        .then(Step::Kick { fd: SECOND })
        .set_irqs(irq_index::INTX, irq_set::ACTION_TRIGGER, &[])
        .set_irqs(irq_index::MSI, irq_set::ACTION_TRIGGER, &eventfd)
        .submit(PAIR[1], 1, COPY)
        .set_irqs(irq_index::ERR, irq_set::ACTION_TRIGGER, &eventfd)
        .set_irqs(irq_index::REQ, irq_set::ACTION_TRIGGER, &eventfd)
        .then(Step::Host { device: PAIR[1], error: true })
        .then(Step::Host { device: PAIR[1], error: false })
        .save("interrupts");
}

/// Low power, tokens.
fn power() {
    let wakeup = LowPowerEntryWithWakeup { wakeup_eventfd: EVENTFD.into(), ..Default::default() };
    let set = |id| feature_flags::SET | id;
    let bind = BindIommufd {
        flags: bind_flags::TOKEN,
        iommufd: IOMMUFD.into(),
        token_uuid_ptr: MAPPED,
        ..BindIommufd::default()
    };
    Steps::default()
        .open(IOMMUFD, Kind::Iommufd(Profile::Linux73))
        .open(DEVICE, Kind::Device(0))
        .open(EVENTFD, Kind::Eventfd)
        .call(DEVICE, CommandId::DeviceBindIommufd, &bind)
        .feature(set(feature_id::PCI_VF_TOKEN), &[7; 16])
        .feature(set(feature_id::LOW_POWER_ENTRY), &[])
        .feature(set(feature_id::LOW_POWER_EXIT), &[])
        .feature(set(feature_id::LOW_POWER_ENTRY_WITH_WAKEUP), wakeup.as_bytes())
        .read(region_index::CONFIG, 0, 64)
        .save("power");
}

/// One device that two contexts want, and files that close in an unusual order.
fn two_contexts() {
    const OTHER: u8 = 5;
    Steps::default()
        .assign(PAIR[0])
        .open(OTHER, Kind::Iommufd(Profile::Rfc2025_05))
        .open(SECOND, Kind::Device(PAIR[1].into()))
        .bind(SECOND, OTHER)
        .close(IOMMUFD)
        .close(DEVICE)
        .bind(SECOND, OTHER)
        .then(Step::Raw { fd: OTHER, request: 0x3b81, argument: MEMORY_BASE + 0xfff8 })
        .then(Step::Raw { fd: OTHER, request: 0x3bff, argument: 0 })
        .save("two-contexts");
}
