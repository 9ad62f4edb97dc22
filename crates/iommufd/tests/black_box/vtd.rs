//! Intel VT-d: what it says of itself, a guest's tables nested in a page table, DMA through them.

use std::sync::Arc;

use iommufd::{Device, Geometry, Hardware};
use pci::{Dma, DmaAccess, DmaFaultReason};
use span::Span;
use uapi::iommufd::{
    FaultAlloc, HwInfo, HwInfoVtd, HwptAlloc, HwptInvalidate, HwptVtdS1, HwptVtdS1Invalidate,
    hw_capabilities, hw_info_flags, hw_info_type, hw_info_vtd_flags, hwpt_data, hwpt_flags,
    invalidate_data, map_flags, viommu_type, vtd_invalidate_flags, vtd_s1_flags,
};
use uapi::{CommandId, Errno};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::support::{Client, PAGE, Platform, plain};

/// Where a client keeps data of its commands.
const DATA: u64 = 0x30_0000;
/// Where the guest's memory is in the client's, and where the guest has it.
const VA: u64 = 0x10_0000;
const GPA: u64 = 0x8000_0000;
const GUEST_PAGES: u64 = 16;
/// A span of 2 MiB of the guest whose first pages are mapped.
const LARGE: u64 = 0x4000_0000;

/// Entries of the guest's tables.
mod entry {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const ACCESSED: u64 = 1 << 5;
    pub(super) const DIRTY: u64 = 1 << 6;
    pub(super) const LARGE: u64 = 1 << 7;
    pub(super) const EXTENDED_ACCESSED: u64 = 1 << 10;
    pub(super) const ALL: u64 = PRESENT | WRITE | USER;
}

struct World {
    client: Client,
    platform: Platform,
    device: Arc<Device>,
    ioas: u32,
    parent: u32,
}

fn first_stage() -> HwptVtdS1 {
    HwptVtdS1 { pgtbl_addr: GPA, addr_width: 48, ..HwptVtdS1::new_zeroed() }
}

impl World {
    fn new() -> Self {
        Self::of(plain())
    }

    fn of(geometry: Geometry) -> Self {
        let client = Client::open();
        let platform = Platform::of(Hardware::Vtd, geometry);
        let device = platform.bind(&client);
        let ioas = client.ioas();
        let flags = hwpt_flags::NEST_PARENT | hwpt_flags::DIRTY_TRACKING;
        let parent = client.hwpt(device.id(), ioas, flags).unwrap();
        client.map_at(ioas, GPA, VA, GUEST_PAGES * PAGE).unwrap();
        client.map_at(ioas, LARGE + PAGE, VA + 0x10_0000, 2 * PAGE).unwrap();
        Self { client, platform, device, ioas, parent }
    }

    fn nested_with(&self, argument: HwptAlloc, stage: HwptVtdS1) -> Result<u32, Errno> {
        self.client.memory.write(DATA, stage.as_bytes()).unwrap();
        let argument = HwptAlloc { dev_id: self.device.id(), ..argument };
        self.client.call(CommandId::HwptAlloc, argument).map(|answer| answer.out_hwpt_id)
    }

    fn nested(&self, stage: HwptVtdS1) -> u32 {
        self.nested_with(self.asked(), stage).unwrap()
    }

    fn asked(&self) -> HwptAlloc {
        HwptAlloc {
            pt_id: self.parent,
            data_type: hwpt_data::VTD_S1,
            data_len: 24,
            data_uptr: DATA,
            ..HwptAlloc::default()
        }
    }

    /// Writes entry `index` of the guest's table `table`.
    fn put(&self, table: u64, index: u64, entry: u64) {
        let at = VA + table * PAGE + index * 8;
        self.client.memory.write(at, entry.as_bytes()).unwrap();
    }

    fn entry(&self, table: u64, index: u64) -> u64 {
        let mut entry = 0_u64;
        self.client.memory.read(VA + table * PAGE + index * 8, entry.as_mut_bytes()).unwrap();
        entry
    }

    /// Tables 0 to 3 lead address 0 on to pages 4, 5 (read-only) and nothing; 2 MiB lead to [`LARGE`].
    fn fill(&self) {
        for table in 0..3 {
            self.put(table, 0, guest_page(table + 1) | entry::ALL);
        }
        self.put(2, 1, LARGE | entry::LARGE | entry::ALL);
        self.put(3, 0, guest_page(4) | entry::ALL);
        self.put(3, 1, guest_page(5) | entry::PRESENT | entry::USER);
    }

    fn invalidate_as(&self, argument: HwptInvalidate) -> (Result<(), Errno>, u32) {
        let result = self.client.call(CommandId::HwptInvalidate, argument).map(|_| ());
        (result, self.client.struct_now::<HwptInvalidate>().entry_num)
    }

    fn invalidate(
        &self,
        hwpt_id: u32,
        entries: &[HwptVtdS1Invalidate],
    ) -> (Result<(), Errno>, u32) {
        self.client.memory.write(DATA, entries.as_bytes()).unwrap();
        self.invalidate_as(HwptInvalidate {
            hwpt_id,
            data_uptr: DATA,
            data_type: invalidate_data::VTD_S1,
            entry_len: 24,
            entry_num: u32::try_from(entries.len()).unwrap(),
            ..HwptInvalidate::default()
        })
    }

    fn reason(&self, answer: Result<(), pci::DmaFault>) -> (u64, DmaFaultReason) {
        let fault = answer.unwrap_err();
        assert_eq!(self.platform.heard.faults().last().unwrap().1, fault, "told");
        (fault.iova, fault.reason)
    }
}

const fn guest_page(number: u64) -> u64 {
    GPA + number * PAGE
}

#[test]
fn its_registers_follow_from_the_geometry() {
    let told = |geometry| {
        let world = World::of(geometry);
        let ask = HwInfo {
            dev_id: world.device.id(),
            data_len: 24,
            data_uptr: DATA,
            ..HwInfo::default()
        };
        let answer = world.client.call(CommandId::GetHwInfo, ask).unwrap();
        assert_eq!((answer.data_len, answer.out_data_type), (24, hw_info_type::INTEL_VTD));
        let mut told = HwInfoVtd::new_zeroed();
        world.client.memory.read(DATA, told.as_mut_bytes()).unwrap();
        assert_eq!((told.flags, told.reserved), (hw_info_vtd_flags::ERRATA_772415_SPR17, 0));
        (told.cap_reg, told.ecap_reg, answer.out_capabilities, answer.out_max_pasid_log2)
    };
    let field =
        |register: u64, last: u32, first: u32| register << (63 - last) >> (63 - last + first);
    let (cap, ecap, capabilities, pasids) = told(plain());
    let ours = hw_capabilities::DIRTY_TRACKING | hw_capabilities::PCI_ATS_NOT_SUPPORTED;
    assert_eq!((capabilities, pasids), (ours, 0));
    assert_eq!((field(cap, 21, 16), field(cap, 12, 8), field(cap, 37, 34)), (47, 0b100, 0b11));
    assert_eq!((field(cap, 56, 56), field(cap, 60, 60)), (1, 0));
    assert_eq!((field(ecap, 26, 26), field(ecap, 40, 40), field(ecap, 45, 45)), (1, 0, 1));
    let mut other = plain();
    other.aperture = Span::from_ends(0, (1 << 57) - 1).unwrap();
    other.page_sizes = 1 << 12 | 1 << 21;
    other.max_pasid_log2 = 20;
    let (cap, ecap, _, pasids) = told(other);
    assert_eq!((field(cap, 21, 16), field(cap, 12, 8), field(cap, 37, 34)), (56, 0b1100, 0b01));
    assert_eq!((field(cap, 56, 56), field(cap, 60, 60)), (0, 1));
    assert_eq!((field(ecap, 40, 40), field(ecap, 39, 35), pasids), (1, 19, 20));
}

#[test]
fn a_description_is_cut_or_filled_up_to_the_callers_buffer() {
    let world = World::new();
    let ask = HwInfo { dev_id: world.device.id(), data_uptr: DATA, ..HwInfo::default() };
    let get = |ask| world.client.call(CommandId::GetHwInfo, ask);
    for (room, told) in [(0, 0), (3, 3), (24, 24), (40, 24)] {
        world.client.memory.write(DATA, &[0xaa; 48]).unwrap();
        assert_eq!(get(HwInfo { data_len: room, ..ask }).unwrap().data_len, 24);
        let mut bytes = [0; 48];
        world.client.memory.read(DATA, &mut bytes).unwrap();
        let room = room as usize;
        assert!(bytes[told..room].iter().all(|byte| *byte == 0), "{room}");
        assert!(bytes[room..].iter().all(|byte| *byte == 0xaa), "{room}");
        assert!(told == 0 || bytes[0] == 1);
    }
    let typed = HwInfo { flags: hw_info_flags::INPUT_TYPE, ..ask };
    for (wanted, answer) in [
        (hw_info_type::NONE, Ok(hw_info_type::INTEL_VTD)),
        (hw_info_type::INTEL_VTD, Ok(hw_info_type::INTEL_VTD)),
        (hw_info_type::ARM_SMMUV3, Err(Errno::EOPNOTSUPP)),
    ] {
        let told = get(HwInfo { out_data_type: wanted, ..typed });
        assert_eq!(told.map(|told| told.out_data_type), answer);
    }
    let nowhere = HwInfo { data_len: 24, data_uptr: 0, ..ask };
    assert_eq!(get(nowhere), Err(Errno::EFAULT));
}

#[test]
fn a_nested_page_table_is_refused_in_order() {
    let world = World::new();
    let plain = world.client.hwpt(world.device.id(), world.ioas, 0).unwrap();
    let asked = world.asked();
    let get = |argument| world.nested_with(argument, first_stage());
    let wrong_type = HwptAlloc { data_type: hwpt_data::ARM_SMMUV3, ..asked };
    let bad = HwptAlloc { flags: hwpt_flags::NEST_PARENT, pt_id: plain, ..wrong_type };
    assert_eq!(get(bad), Err(Errno::EOPNOTSUPP));
    assert_eq!(get(HwptAlloc { pt_id: plain, ..wrong_type }), Err(Errno::EINVAL));
    assert_eq!(get(HwptAlloc { data_len: 23, ..wrong_type }), Err(Errno::EOPNOTSUPP));
    for data_len in [1, 23, 25, 32] {
        assert_eq!(get(HwptAlloc { data_len, ..asked }), Err(Errno::EINVAL));
    }
    assert_eq!(get(HwptAlloc { data_uptr: 8, ..asked }), Err(Errno::EFAULT));
    let no_queue = HwptAlloc { flags: hwpt_flags::FAULT_ID_VALID, fault_id: 99, ..asked };
    assert_eq!(get(no_queue), Err(Errno::ENOENT));
    let on_ioas = HwptAlloc { pt_id: world.ioas, ..asked };
    assert_eq!(get(on_ioas), Err(Errno::EOPNOTSUPP), "data of a page table on an IOAS");
    let odd = HwptVtdS1 { flags: u64::MAX, addr_width: 7, reserved: 9, ..first_stage() };
    let odd = world.nested_with(asked, odd).unwrap();
    assert_eq!(get(HwptAlloc { pt_id: odd, ..asked }), Err(Errno::EINVAL), "on a nested one");
    assert_eq!(world.client.destroy(world.parent), Err(Errno::EBUSY));
    world.client.destroy(odd).unwrap();
    assert_eq!(world.client.destroy(world.parent), Ok(()));
}

#[test]
fn whether_hardware_can_walk_the_tables_is_asked_at_attachment() {
    let world = World::new();
    let attach = |stage| {
        let nested = world.nested(stage);
        let answer = world.device.attach(nested).map_err(|refusal| refusal.errno());
        answer.map(|id| assert_eq!(id, nested))
    };
    for addr_width in [0, 39, 47, 49, 57, 64] {
        let stage = HwptVtdS1 { addr_width, ..first_stage() };
        assert_eq!(attach(stage), Err(Errno::EINVAL), "{addr_width}");
    }
    let flags = vtd_s1_flags::SRE | vtd_s1_flags::EAFE | vtd_s1_flags::WPE;
    assert_eq!(attach(HwptVtdS1 { flags, ..first_stage() }), Ok(()));
    let before = world.device.page_table_id();
    assert_eq!(attach(HwptVtdS1 { addr_width: 57, ..first_stage() }), Err(Errno::EINVAL));
    assert_eq!(world.device.page_table_id(), before, "a refusal moves nothing");
}

#[test]
fn page_tables_are_of_the_first_stage_where_that_will_do() {
    let world = World::new();
    let client = &world.client;
    let last = |flags: Option<u32>| {
        let ioas = client.ioas();
        match flags {
            Some(flags) => drop(client.hwpt(world.device.id(), ioas, flags).unwrap()),
            None => drop(world.device.attach(ioas).unwrap()),
        }
        client.ranges(ioas).0.last().unwrap().1
    };
    let (lower_half, all) = ((1 << 47) - 1, (1 << 48) - 1);
    assert_eq!(last(None), lower_half);
    assert_eq!(last(Some(0)), lower_half);
    assert_eq!(last(Some(hwpt_flags::PASID)), lower_half, "also without PASIDs");
    assert_eq!(last(Some(hwpt_flags::NEST_PARENT)), all);
    assert_eq!(last(Some(hwpt_flags::DIRTY_TRACKING)), all);
    let above = client.ioas();
    client.map_at(above, 1 << 47, VA, PAGE).unwrap();
    assert_eq!(client.hwpt(world.device.id(), above, 0), Err(Errno::EADDRINUSE));
    client.hwpt(world.device.id(), above, hwpt_flags::DIRTY_TRACKING).unwrap();
}

#[test]
fn it_has_no_viommu_and_takes_fault_queues() {
    let world = World::new();
    for viommu_type in [viommu_type::ARM_SMMUV3, 7] {
        let answer = world.client.viommu(viommu_type, world.device.id(), world.parent);
        assert_eq!(answer, Err(Errno::EOPNOTSUPP));
    }
    let queue = world.client.call(CommandId::FaultQueueAlloc, FaultAlloc::default()).unwrap();
    let flags = hwpt_flags::FAULT_ID_VALID;
    let asked = HwptAlloc { flags, fault_id: queue.out_fault_id, ..world.asked() };
    let nested = world.nested_with(asked, first_stage()).unwrap();
    assert_eq!(world.client.destroy(queue.out_fault_id), Err(Errno::EBUSY));
    world.client.destroy(nested).unwrap();
    world.client.event_file().release();
    assert_eq!(world.client.destroy(queue.out_fault_id), Ok(()));
}

#[test]
fn dma_goes_through_the_guests_tables_and_then_the_parent() {
    let world = World::new();
    world.fill();
    world.device.attach(world.nested(first_stage())).unwrap();
    world.device.write(0x123, b"through four levels").unwrap();
    let mut found = [0; 19];
    world.client.memory.read(VA + 4 * PAGE + 0x123, &mut found).unwrap();
    assert_eq!(&found, b"through four levels");
    let used = entry::ALL | entry::ACCESSED;
    assert_eq!(world.entry(0, 0), guest_page(1) | used);
    assert_eq!(world.entry(2, 0), guest_page(3) | used);
    assert_eq!(world.entry(3, 0), guest_page(4) | used | entry::DIRTY);
    world.client.memory.write(VA + 5 * PAGE, b"read-only").unwrap();
    let mut read = [0; 9];
    world.device.read(0x1000, &mut read).unwrap();
    assert_eq!(&read, b"read-only");
    let only = entry::PRESENT | entry::USER | entry::ACCESSED;
    assert_eq!(world.entry(3, 1), guest_page(5) | only, "read, and so not dirty");
    // A page of 2 MiB, of which the parent has 8 KiB.
    let large = 2 << 20;
    world.device.write(large + PAGE + 0xff0, &[7; 32]).unwrap();
    let mut found = [0; 33];
    world.client.memory.read(VA + 0x10_0ff0, &mut found).unwrap();
    assert_eq!((found[..32].to_vec(), found[32]), (vec![7; 32], 0));
    let outside = world.device.write(large + 3 * PAGE - 1, &[1; 2]);
    assert_eq!(world.reason(outside), (large + 3 * PAGE, DmaFaultReason::NotMapped));
}

#[test]
fn faults_say_why_and_where() {
    let world = World::new();
    world.fill();
    world.device.attach(world.nested(first_stage())).unwrap();
    let mut bytes = [0; 2 * 4096];
    let read_only = world.device.write(0xfff, &bytes[..2]);
    assert_eq!(world.reason(read_only), (0x1000, DmaFaultReason::Permission));
    assert_eq!(world.entry(3, 1) & entry::ACCESSED, 0, "a refused access marks nothing");
    let hole = world.device.read(0x1000, &mut bytes);
    assert_eq!(world.reason(hole), (0x2000, DmaFaultReason::NotMapped));
    let non_canonical = world.device.read(1 << 47, &mut bytes[..1]);
    assert_eq!(world.reason(non_canonical), (1 << 47, DmaFaultReason::NotMapped));
    world.put(3, 2, guest_page(4) | entry::PRESENT | entry::WRITE);
    let supervisor = world.device.read(0x2000, &mut bytes[..1]);
    assert_eq!(world.reason(supervisor).1, DmaFaultReason::Permission);
    world.put(0, 0, guest_page(1) | entry::ALL | entry::LARGE);
    let reserved = world.device.read(0, &mut bytes[..1]);
    assert_eq!(world.reason(reserved).1, DmaFaultReason::BadTable);
    world.put(0, 0, (GPA - PAGE) | entry::ALL);
    let table_not_there = world.device.read(0, &mut bytes[..1]);
    assert_eq!(world.reason(table_not_there).1, DmaFaultReason::NotMapped);
    let faults = world.client.ctx.counts().dma_faults;
    assert_eq!((faults[&DmaFaultReason::Permission], faults[&DmaFaultReason::BadTable]), (2, 1));
    let told = world.platform.heard.faults();
    assert!(told.iter().any(|(_, fault)| fault.access == DmaAccess::Write));
}

#[test]
fn a_table_that_leads_to_itself_is_marked_once_for_all() {
    let world = World::new();
    world.put(0, 0, GPA | entry::ALL);
    world.device.attach(world.nested(first_stage())).unwrap();
    world.device.write(0x800, &[1]).unwrap();
    assert_eq!(world.entry(0, 0), GPA | entry::ALL | entry::ACCESSED | entry::DIRTY);
    assert_eq!(world.entry(0, 0x100), 1);
}

#[test]
fn extended_accessed_flags_are_set_where_they_are_enabled() {
    let world = World::new();
    world.fill();
    let flags = vtd_s1_flags::EAFE;
    world.device.attach(world.nested(HwptVtdS1 { flags, ..first_stage() })).unwrap();
    world.device.write(0, &[1]).unwrap();
    let marks = entry::ACCESSED | entry::EXTENDED_ACCESSED;
    assert_eq!(world.entry(1, 0), guest_page(2) | entry::ALL | marks);
    assert_eq!(world.entry(3, 0), guest_page(4) | entry::ALL | marks | entry::DIRTY);
}

#[test]
fn tables_of_five_levels_begin_above() {
    let mut geometry = plain();
    geometry.aperture = Span::from_ends(0, (1 << 57) - 1).unwrap();
    let world = World::of(geometry);
    world.fill();
    world.put(6, 3, guest_page(0) | entry::ALL);
    let stage = HwptVtdS1 { pgtbl_addr: guest_page(6) | 0xfff, addr_width: 57, ..first_stage() };
    world.device.attach(world.nested(stage)).unwrap();
    world.device.write(3 << 48 | 0x10, b"five").unwrap();
    let mut found = [0; 4];
    world.client.memory.read(VA + 4 * PAGE + 0x10, &mut found).unwrap();
    assert_eq!(&found, b"five");
    let hole = world.device.write(0, &[1]);
    assert_eq!(world.reason(hole).1, DmaFaultReason::NotMapped);
}

#[test]
fn invalidations_are_judged_one_by_one_and_counted() {
    let world = World::new();
    let nested = world.nested(first_stage());
    let all = HwptVtdS1Invalidate { npages: u64::MAX, ..HwptVtdS1Invalidate::new_zeroed() };
    let flags = vtd_invalidate_flags::LEAF;
    let one = HwptVtdS1Invalidate { addr: 0x7000, npages: 1, flags, reserved: 0 };
    assert_eq!(world.invalidate(nested, &[one, all, one]), (Ok(()), 3));
    for (bad, errno) in [
        (HwptVtdS1Invalidate { flags: 2, addr: 1, ..one }, Errno::EOPNOTSUPP),
        (HwptVtdS1Invalidate { reserved: 1, ..one }, Errno::EOPNOTSUPP),
        (HwptVtdS1Invalidate { addr: 0x7008, ..one }, Errno::EINVAL),
        (HwptVtdS1Invalidate { addr: 0x7000, ..all }, Errno::EINVAL),
    ] {
        assert_eq!(world.invalidate(nested, &[one, bad, one]), (Err(errno), 1));
    }
    let argument = HwptInvalidate { hwpt_id: nested, ..HwptInvalidate::default() };
    assert_eq!(world.invalidate_as(argument), (Ok(()), 0));
    let other_type = HwptInvalidate { data_type: 1, ..argument };
    assert_eq!(world.invalidate_as(other_type), (Err(Errno::EINVAL), 0));
    let on_parent = HwptInvalidate { hwpt_id: world.parent, ..argument };
    assert_eq!(world.invalidate_as(on_parent), (Err(Errno::EINVAL), 0));
    assert_eq!(world.client.ctx.counts().invalidations, 7);
}

#[test]
fn entries_may_be_longer_and_not_shorter() {
    let world = World::new();
    let nested = world.nested(first_stage());
    let asked = HwptInvalidate {
        hwpt_id: nested,
        data_uptr: DATA,
        entry_len: 32,
        entry_num: 2,
        ..HwptInvalidate::default()
    };
    world.client.memory.write(DATA, &[0; 64]).unwrap();
    assert_eq!(world.invalidate_as(asked), (Ok(()), 2));
    world.client.memory.write(DATA + 63, &[1]).unwrap();
    assert_eq!(world.invalidate_as(asked), (Err(Errno::E2BIG), 1));
    let short = HwptInvalidate { entry_len: 23, ..asked };
    assert_eq!(world.invalidate_as(short), (Err(Errno::EINVAL), 0));
    let nowhere = HwptInvalidate { data_uptr: 8, ..asked };
    assert_eq!(world.invalidate_as(nowhere), (Err(Errno::EFAULT), 0));
}

#[test]
fn nothing_is_mapped_read_only_in_what_others_are_nested_in() {
    let world = World::new();
    let client = &world.client;
    let flags = map_flags::FIXED_IOVA | map_flags::READABLE;
    let map = |ioas, at| client.map(ioas, flags, at, VA, PAGE);
    let (used, pinned) = (client.ranges(world.ioas), client.memory.pinned());
    assert_eq!(map(world.ioas, 0x1000), Err(Errno::EINVAL));
    let unmapped = client.map(world.ioas, flags, 0x1000, 0x1000_0000, PAGE);
    assert_eq!(unmapped, Err(Errno::EFAULT), "memory that is not there is told first");
    assert_eq!((client.ranges(world.ioas), client.memory.pinned()), (used, pinned));
    client.map_at(world.ioas, 0x1000, VA, PAGE).unwrap();
    let other = client.ioas();
    map(other, 0x1000).unwrap();
    let (dev, nest) = (world.device.id(), hwpt_flags::NEST_PARENT);
    let plain = client.hwpt(dev, other, 0).unwrap();
    assert_eq!(client.hwpt(dev, other, nest), Err(Errno::EINVAL));
    map(other, 0x2000).unwrap();
    assert_eq!(client.unmap_all(other), Ok(2 * PAGE));
    let parent = client.hwpt(dev, other, nest).unwrap();
    assert_eq!(map(other, 0x1000), Err(Errno::EINVAL));
    client.destroy(parent).unwrap();
    assert_eq!(map(other, 0x1000), Ok(0x1000));
    client.destroy(plain).unwrap();
}

#[test]
fn what_dma_writes_is_logged_by_the_parent() {
    use uapi::iommufd::{HwptGetDirtyBitmap, HwptSetDirtyTracking, dirty_tracking_flags};
    let world = World::new();
    world.fill();
    let hwpt_id = world.parent;
    let flags = dirty_tracking_flags::ENABLE;
    let on = HwptSetDirtyTracking { hwpt_id, flags, ..HwptSetDirtyTracking::default() };
    world.client.call(CommandId::HwptSetDirtyTracking, on).unwrap();
    world.device.attach(world.nested(first_stage())).unwrap();
    world.device.write(0x10, &[1]).unwrap();
    let ask = HwptGetDirtyBitmap {
        hwpt_id,
        iova: GPA,
        length: GUEST_PAGES * PAGE,
        page_size: PAGE,
        data: DATA,
        ..HwptGetDirtyBitmap::default()
    };
    world.client.memory.write(DATA, &[0; 8]).unwrap();
    world.client.call(CommandId::HwptGetDirtyBitmap, ask).unwrap();
    let mut bits = [0; 8];
    world.client.memory.read(DATA, &mut bits).unwrap();
    assert_eq!(u64::read_from_bytes(&bits[..]).unwrap(), 0b1_1111, "tables 0 to 3, and the page");
}
