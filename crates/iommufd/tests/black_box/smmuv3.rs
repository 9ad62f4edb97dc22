//! Arm SMMUv3: what it says of itself, a guest's stream behind a vIOMMU, DMA through its tables, its commands and events.

use std::sync::Arc;

use iommufd::{Device, Geometry, Hardware};
use pci::{Dma, DmaFaultReason};
use uapi::iommufd::{
    HwInfo, HwInfoArmSmmuv3, HwptAlloc, HwptInvalidate, VdeviceAlloc, VeventqAlloc, ViommuAlloc,
    hw_info_flags, hw_info_type, hwpt_data, hwpt_flags, invalidate_data, veventq_type, viommu_type,
};
use uapi::{CommandId, Errno};
use zerocopy::{FromZeros, IntoBytes};

use crate::support::{Client, PAGE, Platform, plain};

/// Where a client keeps data of its commands.
const DATA: u64 = 0x30_0000;
/// Where the guest's memory is in the client's, and where the guest has it.
const VA: u64 = 0x10_0000;
const GPA: u64 = 0x8000_0000;
const GUEST_PAGES: u64 = 16;
/// What the guest knows the device by.
const STREAM: u64 = 0x108;

const STE_BYPASS: u64 = 1 | 4 << 1;
const STE_STAGE_1: u64 = 1 | 5 << 1;
/// The descriptor's first word: valid, AArch64, faults recorded and aborted, 48 bits out, no upper half, `T0SZ` 16.
const CD: u64 = 1 << 31 | 1 << 41 | 1 << 45 | 1 << 46 | 5 << 32 | 1 << 30 | 16;

/// Entries of the guest's tables.
mod entry {
    pub(super) const TABLE: u64 = 0b11;
    pub(super) const ACCESSED: u64 = 1 << 10;
    pub(super) const READ_ONLY: u64 = 1 << 7;
    pub(super) const PAGE: u64 = 0b11 | 1 << 6 | ACCESSED;
    pub(super) const BLOCK: u64 = 0b01 | 1 << 6 | ACCESSED;
}

struct World {
    client: Client,
    device: Arc<Device>,
    ioas: u32,
    parent: u32,
    viommu: u32,
}

const fn guest_page(number: u64) -> u64 {
    GPA + number * PAGE
}

impl World {
    fn new() -> Self {
        Self::of(plain())
    }

    fn of(geometry: Geometry) -> Self {
        let client = Client::open();
        let device = Platform::of(Hardware::Smmuv3, geometry).bind(&client);
        let ioas = client.ioas();
        let parent = client.hwpt(device.id(), ioas, hwpt_flags::NEST_PARENT).unwrap();
        client.map_at(ioas, GPA, VA, GUEST_PAGES * PAGE).unwrap();
        let viommu = client.viommu(viommu_type::ARM_SMMUV3, device.id(), parent).unwrap();
        Self { client, device, ioas, parent, viommu }
    }

    fn nested_with(&self, argument: HwptAlloc, ste: [u64; 2]) -> Result<u32, Errno> {
        self.client.memory.write(DATA, ste.as_bytes()).unwrap();
        let argument = HwptAlloc { dev_id: self.device.id(), ..argument };
        self.client.call(CommandId::HwptAlloc, argument).map(|answer| answer.out_hwpt_id)
    }

    fn asked(&self) -> HwptAlloc {
        HwptAlloc {
            pt_id: self.viommu,
            data_type: hwpt_data::ARM_SMMUV3,
            data_len: 16,
            data_uptr: DATA,
            ..HwptAlloc::default()
        }
    }

    fn nested(&self, ste: [u64; 2]) -> Result<u32, Errno> {
        self.nested_with(self.asked(), ste)
    }

    fn attach(&self, hwpt: u32) -> Result<u32, Errno> {
        self.device.attach(hwpt).map_err(|refusal| refusal.errno())
    }

    fn vdevice(&self) {
        let dev_id = self.device.id();
        let viommu_id = self.viommu;
        let argument =
            VdeviceAlloc { viommu_id, dev_id, virt_id: STREAM, ..VdeviceAlloc::default() };
        self.client.call(CommandId::VdeviceAlloc, argument).unwrap();
    }

    fn put(&self, page: u64, index: u64, word: u64) {
        self.client.memory.write(VA + page * PAGE + index * 8, word.as_bytes()).unwrap();
    }

    /// The descriptor is in page 0; tables 1 to 4 lead address 0 on to pages 5, 6 (read-only), 7 (never accessed).
    fn fill(&self) {
        self.put(0, 0, CD);
        self.put(0, 1, guest_page(1));
        for table in 1..4 {
            self.put(table, 0, guest_page(table + 1) | entry::TABLE);
        }
        self.put(4, 0, guest_page(5) | entry::PAGE);
        self.put(4, 1, guest_page(6) | entry::PAGE | entry::READ_ONLY);
        self.put(4, 2, guest_page(7) | entry::PAGE & !entry::ACCESSED);
        self.put(4, 3, 1 << 40 | entry::PAGE);
        self.put(3, 1, 0x8000_0000 | entry::BLOCK);
    }

    /// Goes through the guest's tables, and has an event queue.
    fn translated(&self) {
        self.fill();
        self.vdevice();
        let asked = VeventqAlloc {
            viommu_id: self.viommu,
            r#type: veventq_type::ARM_SMMUV3,
            veventq_depth: 8,
            ..VeventqAlloc::default()
        };
        self.client.call(CommandId::VeventqAlloc, asked).unwrap();
        self.attach(self.nested([STE_STAGE_1 | GPA, 0]).unwrap()).unwrap();
    }

    /// The record of the one event that is to be read, if there is any.
    fn event(&self) -> Option<[u64; 4]> {
        let file = self.client.event_file();
        let readable = file.is_readable();
        let got = file.read(&self.client, DATA, 40).unwrap();
        assert_eq!(readable, got != 0);
        let mut record = [0_u64; 4];
        self.client.memory.read(DATA + 8, record.as_mut_bytes()).unwrap();
        (got == 40).then_some(record)
    }

    fn invalidate(&self, commands: &[[u64; 2]]) -> (Result<(), Errno>, u32) {
        self.client.memory.write(DATA, commands.as_bytes()).unwrap();
        self.invalidate_as(HwptInvalidate {
            entry_num: u32::try_from(commands.len()).unwrap(),
            ..self.batch()
        })
    }

    fn batch(&self) -> HwptInvalidate {
        HwptInvalidate {
            hwpt_id: self.viommu,
            data_uptr: DATA,
            data_type: invalidate_data::VIOMMU_ARM_SMMUV3,
            entry_len: 16,
            ..HwptInvalidate::default()
        }
    }

    fn invalidate_as(&self, argument: HwptInvalidate) -> (Result<(), Errno>, u32) {
        let result = self.client.call(CommandId::HwptInvalidate, argument).map(|_| ());
        (result, self.client.struct_now::<HwptInvalidate>().entry_num)
    }
}

#[test]
fn its_registers_follow_from_the_geometry() {
    let world = World::new();
    let ask =
        HwInfo { dev_id: world.device.id(), data_len: 40, data_uptr: DATA, ..HwInfo::default() };
    let get = |ask| world.client.call(CommandId::GetHwInfo, ask);
    let answer = get(ask).unwrap();
    assert_eq!((answer.data_len, answer.out_data_type), (40, hw_info_type::ARM_SMMUV3));
    let mut told = HwInfoArmSmmuv3::new_zeroed();
    world.client.memory.read(DATA, told.as_mut_bytes()).unwrap();
    assert_eq!((told.idr[0] & 0b1111, told.idr[5], told.aidr), (0b1011, 1 << 4 | 5, 2));
    assert_eq!(told.idr[1] >> 6 & 0x1f, 0, "no substreams");
    let typed = HwInfo { flags: hw_info_flags::INPUT_TYPE, ..ask };
    let vtd = HwInfo { out_data_type: hw_info_type::INTEL_VTD, ..typed };
    assert_eq!(get(vtd), Err(Errno::EOPNOTSUPP));
}

#[test]
fn page_tables_that_others_are_nested_in_are_of_stage_2() {
    let world = World::new();
    let get = |flags| world.client.hwpt(world.device.id(), world.ioas, flags);
    let (nest, dirty) = (hwpt_flags::NEST_PARENT, hwpt_flags::DIRTY_TRACKING);
    assert_eq!(get(nest | dirty), Err(Errno::EOPNOTSUPP));
    assert_eq!(get(nest | hwpt_flags::PASID), Err(Errno::EOPNOTSUPP));
    for flags in [0, dirty, hwpt_flags::PASID, dirty | hwpt_flags::PASID] {
        get(flags).unwrap();
    }
}

#[test]
fn a_viommus_type_and_parent_are_asked_but_not_its_data() {
    let world = World::new();
    let get = |viommu_type, hwpt| world.client.viommu(viommu_type, world.device.id(), hwpt);
    for other in [viommu_type::TEGRA241_CMDQV, viommu_type::ARM_REALM_SMMUV3] {
        assert_eq!(get(other, world.parent), Err(Errno::EOPNOTSUPP));
    }
    let plain = world.client.hwpt(world.device.id(), world.ioas, 0).unwrap();
    assert_eq!(get(viommu_type::ARM_SMMUV3, plain), Err(Errno::EINVAL));
    let with_data = ViommuAlloc {
        r#type: viommu_type::ARM_SMMUV3,
        dev_id: world.device.id(),
        hwpt_id: world.parent,
        data_len: 8,
        data_uptr: 8,
        ..ViommuAlloc::default()
    };
    world.client.call(CommandId::ViommuAlloc, with_data).unwrap();
}

#[test]
fn a_stream_table_entry_is_refused_in_order() {
    let world = World::new();
    let asked = world.asked();
    let bad = [STE_STAGE_1 | 1 << 56, 0];
    let get = |argument| world.nested_with(argument, bad);
    assert_eq!(get(HwptAlloc { pt_id: world.parent, ..asked }), Err(Errno::EOPNOTSUPP));
    let wrong_type = HwptAlloc { data_type: hwpt_data::VTD_S1, data_len: 15, ..asked };
    let pasid = HwptAlloc { flags: hwpt_flags::PASID, ..wrong_type };
    assert_eq!(get(pasid), Err(Errno::EOPNOTSUPP));
    assert_eq!(get(wrong_type), Err(Errno::EINVAL));
    for data_len in [15, 17] {
        assert_eq!(get(HwptAlloc { data_len, ..asked }), Err(Errno::EINVAL));
    }
    assert_eq!(get(HwptAlloc { data_uptr: 8, ..asked }), Err(Errno::EFAULT));
    assert_eq!(get(asked), Err(Errno::EIO));
    for ste in [[1 | 6 << 1, 0], [1 | 7 << 1, 0], [STE_STAGE_1, 2 << 28], [STE_BYPASS, 1 << 19]] {
        assert_eq!(world.nested(ste), Err(Errno::EIO), "{ste:x?}");
    }
    for ste in [[!1, !0], [1, 0], [STE_BYPASS, 0], [STE_STAGE_1 | GPA, 1 << 28 | 1 << 27]] {
        world.nested(ste).unwrap();
    }
}

#[test]
fn only_a_stream_that_is_translated_needs_a_vdevice() {
    let world = World::new();
    let translated = world.nested([STE_STAGE_1 | GPA, 0]).unwrap();
    assert_eq!(world.attach(translated), Err(Errno::ENOENT));
    for ste in [[0, 0], [1, 0]] {
        world.attach(world.nested(ste).unwrap()).unwrap();
        assert_eq!(world.device.write(GPA, &[1]).unwrap_err().reason, DmaFaultReason::Permission);
    }
    world.attach(world.nested([STE_BYPASS, 0]).unwrap()).unwrap();
    world.device.write(GPA + 9, &[7]).unwrap();
    let mut found = [0];
    world.client.memory.read(VA + 9, &mut found).unwrap();
    assert_eq!(found, [7]);
    world.vdevice();
    assert_eq!(world.attach(translated), Ok(translated));
}

#[test]
fn dma_goes_through_the_guests_tables_and_then_the_parent() {
    let world = World::new();
    world.translated();
    world.device.write(0x123, b"four levels").unwrap();
    let mut found = [0; 11];
    world.client.memory.read(VA + 5 * PAGE + 0x123, &mut found).unwrap();
    assert_eq!(&found, b"four levels");
    world.device.read(0x1123, &mut found).unwrap();
    let block = 2 << 20;
    world.device.write(block + 5 * PAGE + 0x123, b"a block").unwrap();
    world.device.read(0x123, &mut found[..7]).unwrap();
    assert_eq!(&found[..7], b"a block");
    assert_eq!(world.event(), None);
    let outside = world.device.write(block + GUEST_PAGES * PAGE, &[1]).unwrap_err();
    assert_eq!(outside.reason, DmaFaultReason::NotMapped);
    assert_eq!(world.event(), None, "what the parent does not show is the host's business");
}

#[test]
fn a_guest_is_told_what_stops_its_devices() {
    const CLASS_INPUT: u64 = 2 << 40;
    const READ: u64 = 1 << 35;
    let world = World::new();
    world.translated();
    let record = |id, second, address| Some([STREAM << 32 | id, second, address, 0]);
    for (at, id) in [(0x1008, 0x13), (0x2000, 0x12), (0x3000, 0), (0x4000, 0x10), (1 << 48, 0x10)] {
        world.device.write(at, &[1]).unwrap_err();
        let told = if id == 0 { None } else { record(id, CLASS_INPUT, at) };
        assert_eq!(world.event(), told, "{at:x}");
    }
    world.put(0, 0, CD & !(7 << 32));
    world.device.read(0x3008, &mut [0]).unwrap_err();
    assert_eq!(world.event(), record(0x11, CLASS_INPUT | READ, 0x3008));
    world.put(0, 0, CD & !(1 << 45));
    world.device.write(0x4000, &[1]).unwrap_err();
    assert_eq!(world.event(), None, "faults are not recorded");
    world.put(0, 0, 0);
    world.device.write(0, &[1]).unwrap_err();
    assert_eq!(world.event(), record(0x0a, 0, 0));
    world.attach(world.nested([STE_STAGE_1 | GPA | 1 << 59, 0]).unwrap()).unwrap();
    world.device.write(0, &[1]).unwrap_err();
    assert_eq!(world.event(), record(0x04, 0, 0), "more substreams than there are");
}

#[test]
fn commands_are_judged_one_by_one_and_all_are_read_first() {
    let world = World::new();
    world.vdevice();
    let stream = STREAM << 32;
    let good = [
        [0x30, 0],
        [0x10 | 7 << 32, 0],
        [0x11 | 7 << 32 | 9 << 48, 0],
        [0x12 | 9 << 48, 0x1000 | 1],
        [0x13, 0x1000 | 1],
        [0x40 | stream, 0x1000 | 52],
        [0x05 | stream, 1],
        [0x06 | stream, 0],
    ];
    assert_eq!(world.invalidate(&good), (Ok(()), 8));
    for bad in [
        [0x04, 0],
        [0x30 | 1 << 32, 0],
        [0x13 | 1 << 48, 0],
        [0x12 | 1 << 12, 0],
        [0x40 | stream, 53],
        [0x40 | stream | 1 << 11, 0],
        [0x05 | stream | 1 << 12, 0],
        [0x06 | stream, 1],
        [0x06 | 1 << 32, 0],
    ] {
        assert_eq!(world.invalidate(&[good[0], bad, good[0]]), (Err(Errno::EIO), 1), "{bad:x?}");
    }
    let batch = HwptInvalidate { entry_num: 1, ..world.batch() };
    assert_eq!(world.invalidate(&[]), (Err(Errno::EINVAL), 0));
    let wrong_type = HwptInvalidate { data_type: 0, data_uptr: 8, ..batch };
    assert_eq!(world.invalidate_as(wrong_type), (Err(Errno::EINVAL), 0));
    let nowhere = HwptInvalidate { data_uptr: 8, ..batch };
    assert_eq!(world.invalidate_as(nowhere), (Err(Errno::EFAULT), 0));
    world.client.memory.write(DATA, [[0x30_u64, 0, 0], [0x30, 0, 1]].as_bytes()).unwrap();
    let long = HwptInvalidate { entry_len: 24, entry_num: 2, ..batch };
    assert_eq!(world.invalidate_as(long), (Err(Errno::E2BIG), 0), "none is done then");
    let nested = world.nested([STE_BYPASS, 0]).unwrap();
    let on_table = HwptInvalidate { hwpt_id: nested, ..batch };
    assert_eq!(world.invalidate_as(on_table), (Err(Errno::EOPNOTSUPP), 0));
}

#[test]
fn with_substreams_the_entry_says_what_requests_without_one_use() {
    let world = World::of(Geometry { max_pasid_log2: 4, ..plain() });
    world.translated();
    let (two_levels, substreams) = (2 << 4, 4 << 59);
    let attach = |ste| world.attach(world.nested(ste).unwrap()).unwrap();
    attach([STE_STAGE_1 | guest_page(9) | two_levels | substreams, 2]);
    world.device.write(0, &[1]).unwrap_err();
    assert_eq!(world.event(), Some([STREAM << 32 | 0x08, 0, 0, 0]), "no second level");
    world.put(9, 0, GPA | 1);
    world.device.write(0, &[1]).unwrap();
    attach([STE_STAGE_1 | GPA | substreams, 0]);
    world.device.write(0, &[1]).unwrap_err();
    assert_eq!(world.event(), Some([STREAM << 32 | 0x06, 0, 0, 0]));
    attach([STE_STAGE_1 | GPA | substreams, 1]);
    world.device.write(guest_page(5), &[1]).unwrap();
}
