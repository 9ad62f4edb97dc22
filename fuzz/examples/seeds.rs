//! Writes the seeds of every target's corpus anew: inputs that lead deep from the start.

use std::fs;
use std::path::Path;

use bindery_fuzz::client::MEMORY_BASE;
use bindery_fuzz::commands::{Place, Step};
use bindery_fuzz::descriptor::Descriptor;
use bindery_fuzz::device_io::Access;
use bindery_fuzz::engine::{self, Deed, HostDeed};

use bindery_fuzz::guest::Asked;
use bindery_fuzz::input::Output;
use bindery_fuzz::overlay_path::Question;
use bindery_fuzz::rig::Kind;
use bindery_fuzz::trace_decode::Told;
use device::dma_engine::regs::{bar0, control, flag, operation, register};
use pci::regs::{command, header, msix};
use uapi::iommufd::{
    Destroy, HwInfo, HwptAlloc, IoasAlloc, IoasIovaRanges, IoasMap, IoasMapFile, IoasUnmap,
    hwpt_flags, map_flags,
};
use uapi::vfio::{
    AttachIommufdPt, BindIommufd, DetachIommufdPt, DeviceInfo, Feature, HotReset, HotResetInfo,
    IrqInfo, IrqSet, LowPowerEntryWithWakeup, RegionInfo, bind_flags, feature_flags, feature_id,
    irq_index, irq_set, region_index,
};
use uapi::{Command, CommandId, Profile};
use zerocopy::{Immutable, IntoBytes};

fn main() {
    commands();
    device_io();
    engine();
    platform();
    overlay_path();
    trace_decode();
    spdm_messages();
    spdm_sessions();
    security();
    dsm();
    guest();
    guest_tables();
    words();
    config_walk();
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder for seeds");
    fs::write(folder.join(format!("seed-{name}")), bytes).expect("a seed");
}

// ---- commands -------------------------------------------------------------------------------------

const IOMMUFD: u8 = 0;
const DEVICE: u8 = 1;
const SECOND: u8 = 2;
const EVENTFD: u8 = 3;
const MEMFD: u8 = 4;
/// Indexes of the pair in the rig.
const PAIR: [u8; 2] = [2, 3];
/// Ids in the order in which a fresh context gives them: the device is bound first.
const DEVICE_ID: u32 = 1;
const IOAS_ID: u32 = 2;
/// What is mapped, at the address that it has: all but the page that arguments are in.
const MAPPED: u64 = MEMORY_BASE + 0x1000;
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

const COPY: Descriptor = Descriptor {
    operation: operation::COPY,
    flags: flag::INTERRUPT,
    length: 0x2000,
    source: MAPPED,
    destination: MAPPED + 0x4000,
    window: 0,
};

fn commands() {
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

// ---- devices --------------------------------------------------------------------------------------

fn device_io() {
    let config = |offset: u32, bytes: &[u8]| Access::Write {
        region: region_index::CONFIG as u8,
        offset,
        bytes: bytes.to_vec(),
    };
    let bar = |region: u32, offset: u64, bytes: &[u8]| Access::Write {
        region: region as u8,
        offset: offset as u32,
        bytes: bytes.to_vec(),
    };
    let bits = command::MEMORY | command::BUS_MASTER;
    let descriptor = Descriptor { source: MAPPED, destination: MAPPED + 0x4000, ..COPY };
    let transfer = [
        Access::Msix { vectors: 2 },
        config(header::COMMAND.into(), &bits.to_le_bytes()),
        bar(0, bar0::DESCRIPTORS, &descriptor.to_bytes()),
        bar(0, register::CONTROL, &control::ENABLE.to_le_bytes()),
        bar(0, register::DOORBELL, &[0; 4]),
        Access::Work,
        Access::Read { region: 0, offset: bar0::STATUS_BLOCKS as u32, count: 32 },
        Access::Reset,
    ];
    save_accesses("transfer", PAIR[0], &transfer);
    let sizing = (0..6_u32).flat_map(|index| {
        let offset = u32::from(header::BAR0) + 4 * index;
        let region = region_index::CONFIG as u8;
        [config(offset, &[0xff; 4]), Access::Read { region, offset, count: 4 }]
    });
    save_accesses("sizing", PAIR[1], &sizing.collect::<Vec<_>>());
    for device in [0, 1, 2] {
        save_accesses(&format!("capabilities-{device}"), device, &capability_writes(device));
    }
    let table = [
        bar(2, 0, &[0xff; 16]),
        bar(2, msix::ENTRY_CONTROL, &[0; 4]),
        Access::Read { region: 2, offset: 0, count: 0x1010 },
        config(0, &[0; 64]),
    ];
    save_accesses("table", PAIR[0], &table);
}

/// Writes all ones, then zeros, into each capability's first registers: power, FLR, MSI and the rest.
fn capability_writes(device: u8) -> Vec<Access> {
    let platform = supervisor::platform::Platform::default();
    let machine = supervisor::machine::Machine::build(
        &platform,
        std::sync::Arc::new(bindery_fuzz::rig::Deaf),
    );
    // The default machine has the same kinds of function in the same order.
    let function = &machine.devices[usize::from(device)].function;
    let read = |offset, into: &mut [u8]| function.config_read(offset, into);
    let write = |offset: u16, byte: u8| Access::Write {
        region: region_index::CONFIG as u8,
        offset: offset.into(),
        bytes: vec![byte; 12],
    };
    pci::walk::capabilities(read)
        .iter()
        .flat_map(|found| [write(found.offset, 0xff), write(found.offset, 0)])
        .collect()
}

fn save_accesses(name: &str, device: u8, accesses: &[Access]) {
    let mut out = Output::default();
    out.put(&[device]);
    accesses.iter().for_each(|access| access.encode(&mut out));
    write("device_io", name, &out.into_bytes());
}

fn engine() {
    let command = (command::MEMORY | command::BUS_MASTER).to_le_bytes();
    let set = |offset: u64, value: u32| Deed::Write {
        table: false,
        offset: offset as u16,
        width_lg2: 2,
        value: value.into(),
    };
    let ram = |offset: u64| engine::RAM + offset;
    let describe = |slot: u8, operation: u32, source: u64, destination: u64| Deed::Describe {
        slot,
        bytes: Descriptor {
            operation,
            flags: flag::INTERRUPT,
            length: 0x1800,
            source,
            destination,
            window: 0x100,
        }
        .to_bytes(),
    };
    let begin = [
        Deed::Config { offset: header::COMMAND, bytes: command.to_vec() },
        set(register::CONTROL, control::ENABLE),
    ];
    let operations =
        [operation::NOP, operation::COPY, operation::FILL, operation::READ, operation::WRITE];
    for (name, kind, destination) in
        [("good", 0, ram(0x4000)), ("refused", 1, ram(0x1_7800)), ("wraps", 5, u64::MAX - 8)]
    {
        let mut deeds = begin.to_vec();
        for (slot, operation) in (0..).zip(operations) {
            deeds.push(describe(slot, operation, ram(0), destination));
            deeds.push(set(register::DOORBELL, slot.into()));
        }
        deeds.push(Deed::Step { budget_lg2: 12 });
        deeds.push(Deed::Host(HostDeed::Stop));
        deeds.push(set(register::CONTROL, control::ENABLE | control::ABORT));
        deeds.push(Deed::Host(HostDeed::Start));
        deeds.push(Deed::Step { budget_lg2: 16 });
        deeds.push(Deed::Host(HostDeed::ResetFunction));
        save_deeds(name, kind, &deeds);
    }
}

fn save_deeds(name: &str, kind: u8, deeds: &[Deed]) {
    let mut out = Output::default();
    out.put(&[kind]);
    deeds.iter().for_each(|deed| deed.encode(&mut out));
    write("engine", name, &out.into_bytes());
}

// ---- guests ---------------------------------------------------------------------------------------

fn guest() {
    let ask = |op: u8, payload: &[u8], room| Asked { arch: 0, op, room, payload: payload.to_vec() };
    let state = |state: u32| ask(1, &state.to_le_bytes(), 0);
    let whole_report = [3_u32.to_le_bytes(), [0; 4], [0; 4], [0; 4]].concat();
    let requests = [
        state(1),
        ask(6, &3_u32.to_le_bytes(), 4),
        ask(4, &whole_report, 256),
        state(2),
        ask(0, &[0_u64, 0x1000, 0xc000_0000].map(u64::to_le_bytes).concat(), 0),
        ask(7, &[], 4),
        ask(5, &[3_u64, 1, 0x1000].map(u64::to_le_bytes).concat(), 0),
        ask(8, &[], 8),
        state(0),
    ];
    let mut out = Output::default();
    requests.iter().for_each(|request| request.encode(&mut out));
    write("guest", "life", &out.into_bytes());
}

/// Tables 0 to 3 that lead to page 4, and to 2 MiB; accesses through them, one before they are there.
fn guest_tables() {
    const NEST: [u8; 4] = [0, 0, 0b10, 0];
    let entry = |table: u8, index: u8, target: u8| [3, index << 4 | table, target];
    let access = |how: u8, [low, high]: [u8; 2], through: [u8; 3]| {
        [&[5, how], &[low, high][..], &through].concat()
    };
    let mut steps = Output::default();
    steps.put(&[0b10]);
    steps.put(&NEST);
    steps.put(&access(1 | 8, [0x10, 0], [0; 3]));
    for table in 0..4 {
        steps.put(&entry(table, 0, table + 1));
    }
    steps.put(&entry(2, 1, 0x80));
    steps.put(&access(1 | 8, [0x10, 0], [0; 3]));
    steps.put(&access(0xfc, [0xf0, 0xf], [0, 0x10, 0]));
    steps.put(&[1]);
    steps.put(&[0; 48]);
    steps.put(&[2, 0x84]);
    steps.put(&access(8, [0x10, 0], [0; 3]));
    write("guest_tables", "four-levels", &steps.into_bytes());
}

fn words() {
    let file = "title = \"a race\"\nnumber = \"S12\"\nexpect = \"safe\"\n[settings]\nbind = \"slow\"\n\
                [setup]\ncalls = [\"tsm_bind vdev0\"]\n[[thread]]\ncalls = [\"destroy vdev0 -> ok\"]\n";
    for (name, text) in [
        ("file", file),
        ("line", "tsm_bind vdev0; tsm_unbind vdev0 | destroy vdev0 -> ok, EBUSY | close vfio0"),
        ("fault", "bind=slow:500*2"),
        ("wrong", "close vdev0 -> ok, EFOO | ; |\u{e4}"),
    ] {
        write("words", name, text.as_bytes());
    }
}

// ---- texts ----------------------------------------------------------------------------------------

fn platform() {
    let bare: String = supervisor::platform::DEFAULT_TOML
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    write("platform", "default", bare.as_bytes());
    for (name, text) in [
        ("type", "[settings]\nuapi = 3\n"),
        ("value", "[settings]\nuapi = 'rfx'\nclose_order = \"linux-7.3\"\n"),
        ("span", "[iommu]\naperture = { first = 0x1000, last = 0xfff }\n"),
        ("function", "[[function]]\naddress = 'b1d0:02:00.0'\nmodel = \"dma-engine\"\ngroup = 7\n"),
        ("syntax", "[settings\r\n\tuapi = \"\u{e4}\"\n"),
    ] {
        write("platform", name, text.as_bytes());
    }
    for (name, text) in [
        ("plain", "dma-engine"),
        ("keys", "dma-engine,bar0=32,tee=on,serial=0x10,vendor=0x1b36,device=17,vfs=2"),
        ("address", "dma-engine,address=b1d0:09:00.0,group=7,driver=none\ndma-engine"),
        ("wrong", "dma-engine,\nnvme\ndma-engine,bar0=16\ndma-engine,tee=on,tee=on\n\u{1f600}=,"),
    ] {
        write("device_option", name, text.as_bytes());
    }
}

fn overlay_path() {
    const READ: u32 = 0;
    const WRITE: u32 = 1;
    const DIRECTORY: u32 = 0o200_000;
    const PATH: u32 = 0o10_000_000;
    let device = "sys/bus/pci/devices/b1d0:01:00.0";
    let attributes =
        ["vendor", "config", "resource", "iommu_group/type", "driver_override", "uevent"];
    let attributes: Vec<_> = attributes.map(|name| (READ, format!("{device}/{name}"), "")).into();
    save_questions("attributes", &attributes);
    save_questions(
        "directories",
        &[
            (DIRECTORY, "dev/vfio/devices".to_owned(), ""),
            (DIRECTORY, format!("{device}/vfio-dev"), ""),
            (PATH, "sys/class/vfio-dev/vfio0/device/../driver".to_owned(), ""),
            (READ, "sys/kernel//iommu_groups/./1000/devices/".to_owned(), ""),
            (READ, "dev/vfio/devices/vfio0".to_owned(), ""),
            (READ, "dev/iommu".to_owned(), ""),
        ],
    );
    let driver = "sys/bus/pci/drivers/vfio-pci";
    save_questions(
        "writes",
        &[
            (WRITE, format!("{driver}/unbind"), "b1d0:02:00.0"),
            (WRITE, format!("{device}/driver_override"), "vfio-pci\n"),
            (WRITE, format!("{driver}/bind"), "b1d0:02:00.0\n"),
            (WRITE, format!("{driver}/new_id"), "1234 b1d0"),
            (WRITE, format!("{device}/reset"), "1"),
            (WRITE, format!("{device}/sriov_numvfs"), "0"),
            (WRITE, "sys/bus/pci/drivers_probe".to_owned(), "b1d0:02:00.0"),
        ],
    );
}

fn save_questions(name: &str, questions: &[(u32, String, &str)]) {
    let mut out = Output::default();
    for (flags, path, written) in questions {
        let (path, written) = (path.clone().into_bytes(), written.as_bytes().to_vec());
        Question { flags: *flags, path, written }.encode(&mut out);
    }
    write("overlay_path", name, &out.into_bytes());
}

fn trace_decode() {
    const EINVAL: u8 = 22;
    let told = |call, id: CommandId| Told {
        call,
        row: id as u8,
        request: 0,
        errno: 0,
        offset: 0x4000_0700_0000_0004,
        count: 4,
        sent: vec![1; Command::of(id).size as usize],
        returned: vec![2; Command::of(id).size as usize],
    };
    let vectors = IrqSet { argsz: 28, flags: 0x24, index: 2, start: 0, count: 2 };
    let told_vectors = Told {
        sent: [vectors.as_bytes(), &[9, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat(),
        errno: EINVAL,
        ..told(0, CommandId::DeviceSetIrqs)
    };
    let mut out = Output::default();
    out.put(&[0]);
    for line in [
        told(0, CommandId::IoasMap),
        told_vectors,
        told(0, CommandId::DeviceFeature),
        told(0, CommandId::HwptAlloc),
        Told { request: 0x3bff, ..told(0, CommandId::DeviceReset) },
        Told { sent: b"/dev/iommu".to_vec(), ..told(1, CommandId::IoasMap) },
        told(2, CommandId::DeviceReset),
        told(3, CommandId::DeviceReset),
        told(4, CommandId::DeviceReset),
    ] {
        line.encode(&mut out);
    }
    write("trace_decode", "calls", &out.into_bytes());
}

// ---- spdm_sessions --------------------------------------------------------------------------------

/// A whole session, in one piece and in chunks; and one whose last answer loses a bit.
fn spdm_sessions() {
    const CALM: [u8; 2] = [0, 0];
    const BIT: [u8; 4] = [0, 250, 90, 0];
    let whole: [&[u8]; 13] =
        [&[0], &[2], &[3], &[5], &[6], &[7], &[12], &[10], &[11], &[6], &[3], &[2], &[14]];
    for (name, chunks) in [("whole", 0_u8), ("chunks", 1)] {
        let mut out = Output::default();
        out.put(&[chunks]);
        for choice in whole {
            out.put(choice);
            out.put(&CALM);
            match choice[0] {
                3 | 5 => out.put(&[0]),
                6 => out.put(&[0xff, 1]),
                11 => out.put(&[1]),
                12 => out.counted(&[7; 200]),
                _ => {}
            }
        }
        write("spdm_sessions", name, &out.into_bytes());
    }
    let mut out = Output::default();
    out.put(&[0]);
    for choice in [0, 3, 7] {
        out.put(&[choice]);
        out.put(&CALM);
        if choice == 3 {
            out.put(&[0]);
        }
    }
    out.put(&[10]);
    out.put(&BIT);
    out.put(&[10]);
    out.put(&CALM);
    out.put(&[15, 1]);
    out.counted(&[0xff; 40]);
    write("spdm_sessions", "disturbed", &out.into_bytes());
}

// ---- spdm_messages --------------------------------------------------------------------------------

/// A message of each shape that a decoder has.
fn spdm_messages() {
    use spdm::algorithm::Version;
    use spdm::message::{
        Block, Capabilities, CapabilityFlags, Certificate, KeyExchange, Limits, Measurements,
        NegotiateAlgorithms, OTHER_PARAMS_OPAQUE_FORMAT_1, Structure, VendorDefined,
        VersionResponse, encode, supported_secured_versions,
    };

    const CHOICE: u8 = 0b0_0111;
    let shape = bindery_fuzz::spdm_messages::shape(CHOICE);
    let structure = |kind| Structure { kind, bits: 1 };
    let limits = Limits {
        timeout_exponent: 10,
        flags: CapabilityFlags::CERTIFICATE,
        transfer_bytes_max: 4608,
        message_bytes_max: 4608,
    };
    let seeds = [
        ("version", encode(&VersionResponse::of(&Version::ALL), &shape)),
        ("capabilities", encode(&Capabilities(limits), &shape)),
        (
            "negotiate",
            encode(
                &NegotiateAlgorithms {
                    measurement_specification: 1,
                    other_params: OTHER_PARAMS_OPAQUE_FORMAT_1,
                    asymmetric: 0x80,
                    hash: 2,
                    log_specification: 0,
                    structures: [Structure::DHE, Structure::AEAD].map(structure).into(),
                },
                &shape,
            ),
        ),
        (
            "certificate",
            encode(
                &Certificate { slot: 0, model: 0, portion: vec![0x30; 9], remainder: 0 },
                &shape,
            ),
        ),
        (
            "measurements",
            encode(
                &Measurements {
                    total: 0,
                    slot_and_change: 0,
                    blocks: vec![Block { index: 1, kind: 1, value: vec![7; 32] }],
                    nonce: [1; 32],
                    opaque: Vec::new(),
                    context: [0; 8],
                    signature: Vec::new(),
                },
                &shape,
            ),
        ),
        (
            "key-exchange",
            encode(
                &KeyExchange {
                    summary: 0,
                    slot: 0,
                    session: 1,
                    policy: 0,
                    random: [2; 32],
                    exchange: vec![3; 64],
                    opaque: supported_secured_versions(),
                },
                &shape,
            ),
        ),
        ("vendor-defined", encode(&VendorDefined::pci_sig(vec![1, 0x10, 0x81]), &shape)),
        ("opaque", Ok(supported_secured_versions())),
    ];
    for (name, message) in seeds {
        let mut out = Output::default();
        out.put(&[CHOICE]);
        out.put(&message.expect("a message that can be written"));
        write("spdm_messages", name, &out.into_bytes());
    }
}

fn security() {
    use bindery_fuzz::security::{ANSWER, IDE_KM, NONCE, PAGES, TDISP};
    use tdisp::exchange::{GetReport, GetState, LockInterface, StartInterface, StopInterface};
    use tdisp::ide_km::{self, Direction, KeyId, KeyKind, KeyMaterial, SubStream};
    use tdisp::{InterfaceId, LockFlags, Request};

    let mut out = Output::default();
    let mut message = [0; 256];
    let kind = KeyKind::new(false, Direction::Receive, SubStream::Posted);
    let key = KeyId { stream: 1, kind, port: 0 };
    let material = KeyMaterial::new([7; 32], 1);
    for request in [
        ide_km::Request::Query { port: 0 },
        ide_km::Request::KeyProg { key, material },
        ide_km::Request::SetGo(key),
        ide_km::Request::SetStop(key),
    ] {
        let length = request.encode(&mut message).expect("room for a request");
        out.put(&[IDE_KM]);
        out.counted(&message[..length]);
    }
    let lock = LockInterface {
        flags: LockFlags::LOCK_MSIX,
        mmio_reporting_offset: PAGES,
        ..LockInterface::default()
    };
    for request in [
        Request::LockInterface(lock),
        Request::GetReport(GetReport { offset: 0, length: 0xffff }),
        Request::StartInterface(StartInterface { nonce: NONCE }),
        Request::GetState(GetState),
        Request::StopInterface(StopInterface),
    ] {
        let length = request.encode(InterfaceId::new(0), &mut message).expect("room for a request");
        out.put(&[TDISP]);
        out.counted(&message[..length]);
    }
    let portion = tdisp::exchange::ReportPortion { remainder: 0, portion: &[0; 20] };
    let answer = tdisp::Response::ReportPortion(portion);
    let length = answer.encode(InterfaceId::new(0), &mut message).expect("room for an answer");
    out.put(&[ANSWER]);
    out.counted(&message[..length]);
    write("tdisp", "life", &out.into_bytes());
}

// ---- dsm ------------------------------------------------------------------------------------------

/// Keys, and for each function: locked, running, broken in its own way, stopped.
fn dsm() {
    use bindery_fuzz::dsm::{Deed, IDS, NONCE};
    use tdisp::exchange::{GetReport, LockInterface, StartInterface, StopInterface};
    use tdisp::ide_km::{self, Direction, KeyId, KeyKind, KeyMaterial, SubStream};
    use tdisp::payload::{ProtocolId, join};
    use tdisp::{InterfaceId, LockFlags, Request};
    let mut out = Output::default();
    out.put(&[0]);
    let ask = |out: &mut Output, protocol, write: &dyn Fn(&mut [u8]) -> Option<usize>| {
        let mut payload = [0; 128];
        let full = tdisp::EncodeFault::NoRoom { needed: 0, room: 0 };
        let length = join(protocol, &mut payload, |into| write(into).ok_or(full));
        let payload = payload[..length.expect("room enough")].to_vec();
        Deed::Ask { session: 1, payload }.encode(out);
    };
    for sub in SubStream::ALL {
        for direction in Direction::ALL {
            let key = KeyId { stream: 0, kind: KeyKind::new(false, direction, sub), port: 0 };
            let material = KeyMaterial::new([7; 32], 1);
            for request in [ide_km::Request::KeyProg { key, material }, ide_km::Request::SetGo(key)]
            {
                ask(&mut out, ProtocolId::IDE_KM, &|into| request.encode(into).ok());
            }
        }
    }
    let off = vec![0, 0];
    let breaches = [
        Deed::Config { function: 0, offset: header::COMMAND, bytes: off },
        Deed::Write { function: 1, table: true, offset: 8, value: 5 },
        Deed::Reset { function: 2, bus: false },
    ];
    for (id, breach) in IDS.into_iter().zip(breaches) {
        let lock = LockInterface { flags: LockFlags::LOCK_MSIX, ..LockInterface::default() };
        for request in [
            Request::LockInterface(lock),
            Request::GetReport(GetReport { offset: 0, length: 200 }),
            Request::StartInterface(StartInterface { nonce: NONCE }),
        ] {
            let interface = InterfaceId::new(id);
            ask(&mut out, ProtocolId::TDISP, &|into| request.encode(interface, into).ok());
        }
        breach.encode(&mut out);
        let (stop, interface) = (Request::StopInterface(StopInterface), InterfaceId::new(id));
        ask(&mut out, ProtocolId::TDISP, &|into| stop.encode(interface, into).ok());
    }
    Deed::EndSession(1).encode(&mut out);
    Deed::LoseKeys.encode(&mut out);
    Deed::Reset { function: 0, bus: true }.encode(&mut out);
    write("dsm", "life", &out.into_bytes());
}

fn config_walk() {
    let platform = supervisor::platform::Platform::default();
    let machine = supervisor::machine::Machine::build(
        &platform,
        std::sync::Arc::new(bindery_fuzz::rig::Deaf),
    );
    let mut space = vec![0; 4096];
    machine.devices[0].function.config_read(0, &mut space);
    let used = space.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    write("config_walk", "endpoint", &space[..used]);
}
