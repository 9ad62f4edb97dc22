//! What clients of the kernel's test interface do: a sequence for each family of commands.

use bindery_fuzz::mock_commands::{Step, code_of};
use uapi::CommandId;
use uapi::iommufd::{
    FaultAlloc, HwInfo, HwQueueAlloc, HwptGetDirtyBitmap, HwptInvalidate, HwptSetDirtyTracking,
    IoasAllowIovas, IoasChangeProcess, IoasCopy, IoasIovaRanges, IoasNoiommuGetPa, IommuOption,
    VeventqAlloc, VfioIoas, dirty_tracking_flags, hwpt_flags, map_flags, option, test_op,
    vfio_ioas_op,
};
use uapi::vfio::{IommuType1DmaMap, IommuType1DmaUnmap, IommuType1Info, dma_map_flags, extension};

use crate::mock_sequence::{
    ACCESS, BOTH, BUFFER, DATA, DEVICE, EVENTS, FILE, GUEST_ID, HARDWARE, IOAS, IOVA, LENGTH, MOCK,
    NEXT, Sequence, TABLE, VA,
};

pub(crate) fn mock_commands() {
    memory();
    accesses();
    dirty_pages();
    pasids();
    nested();
    windows();
    hardware_queues();
    faults();
    events();
    buffers();
    addresses();
    locked_memory();
    running_out();
    type1();
}

/// Maps of memory and of a file, copies, settings; and all handed over to another process.
fn memory() {
    let second = NEXT;
    let per_process = IommuOption { val64: 1, ..IommuOption::default() };
    let large_pages = IommuOption {
        option_id: option::HUGE_PAGES,
        object_id: second,
        val64: 1,
        ..IommuOption::default()
    };
    let copy = IoasCopy {
        flags: BOTH,
        dst_ioas_id: second,
        src_ioas_id: IOAS,
        length: LENGTH,
        src_iova: IOVA,
        ..IoasCopy::default()
    };
    let ranges = IoasIovaRanges {
        ioas_id: IOAS,
        num_iovas: 2,
        allowed_iovas: DATA,
        ..IoasIovaRanges::default()
    };
    let allow = IoasAllowIovas {
        ioas_id: IOAS,
        num_iovas: 1,
        allowed_iovas: DATA,
        ..IoasAllowIovas::default()
    };
    Sequence::default()
        .call(CommandId::IommuOption, &per_process)
        .device()
        .map()
        .test(test_op::MD_CHECK_MAP, TABLE, [(0, IOVA), (2, LENGTH), (4, VA)])
        .test(test_op::MD_CHECK_REFS, 0, [(0, LENGTH), (2, VA), (4, 1)])
        .test(test_op::ADD_RESERVED, IOAS, [(0, IOVA << 1), (2, LENGTH)])
        .call(CommandId::IoasIovaRanges, &ranges)
        .call(CommandId::IoasAllowIovas, &allow)
        .map_file(FILE, BOTH)
        .ioas()
        .call(CommandId::IommuOption, &large_pages)
        .call(CommandId::IoasCopy, &copy)
        .unmap_all(second)
        .unmap_all(IOAS)
        .map_file(FILE, BOTH)
        .then(Step::BecomeProcess(1))
        .call(CommandId::IoasChangeProcess, &IoasChangeProcess::default())
        .destroy(MOCK)
        .save("memory");
}

/// Software that pins, copies, moves to another address space, and goes.
fn accesses() {
    const PINS: u64 = 1;
    const WRITES: u64 = 1;
    const FIRST_PIN: u64 = 0;
    /// The access has an id too.
    const SECOND: u64 = 3;
    const BATCH_BYTES: u64 = 32;
    Sequence::default()
        .test(test_op::SET_TEMP_MEMORY_LIMIT, 0, [(0, BATCH_BYTES)])
        .ioas()
        .map()
        .test(test_op::CREATE_ACCESS, IOAS, [(1, PINS)])
        .test(test_op::ACCESS_PAGES, ACCESS, [(0, WRITES), (2, IOVA), (4, 0x2000), (6, VA)])
        .test(test_op::MD_CHECK_REFS, 0, [(0, 0x1000), (2, VA), (4, 1)])
        .test(test_op::ACCESS_RW, ACCESS, [(0, IOVA), (2, 0x1000), (4, DATA), (6, WRITES)])
        .test(test_op::ACCESS_RW, ACCESS, [(0, IOVA), (2, 0x1000), (4, DATA)])
        .test(test_op::DESTROY_ACCESS_PAGES, ACCESS, [(0, FIRST_PIN)])
        .ioas()
        .test(test_op::ACCESS_REPLACE_IOAS, ACCESS, [(0, SECOND)])
        .then(Step::LetGo { kind: 0, index: 0 })
        .unmap_all(IOAS)
        .save("accesses");
}

/// A page table whose written pages are logged, and what the hardware says of itself.
fn dirty_pages() {
    const NO_CLEAR: u32 = 1;
    let track =
        |flags| HwptSetDirtyTracking { flags, hwpt_id: NEXT, ..HwptSetDirtyTracking::default() };
    let bitmap = |flags| HwptGetDirtyBitmap {
        hwpt_id: NEXT,
        flags,
        iova: IOVA,
        length: LENGTH,
        page_size: 0x1000,
        data: DATA,
        ..HwptGetDirtyBitmap::default()
    };
    let hardware = HwInfo { dev_id: DEVICE, data_len: 8, data_uptr: DATA, ..HwInfo::default() };
    Sequence::default()
        .device()
        .call(CommandId::GetHwInfo, &hardware)
        .table(hwpt_flags::DIRTY_TRACKING)
        .replace(NEXT)
        .map()
        .call(CommandId::HwptSetDirtyTracking, &track(dirty_tracking_flags::ENABLE))
        .poke(&[0b101])
        .test(test_op::DIRTY, NEXT, [(2, IOVA), (4, LENGTH), (6, 0x1000), (8, DATA)])
        .call(CommandId::HwptGetDirtyBitmap, &bitmap(NO_CLEAR))
        .call(CommandId::HwptGetDirtyBitmap, &bitmap(0))
        .call(CommandId::HwptSetDirtyTracking, &track(0))
        .replace(IOAS)
        .destroy(NEXT)
        .save("dirty-pages");
}

/// A PASID attached, moved, detached; and one that the mock's hardware takes every other time only.
fn pasids() {
    const HAS_PASIDS: u64 = 1 << 2;
    const FAILING: u64 = 1024;
    let attach = |op, pasid: u64, table: u32| (op, [(0, pasid), (1, table.into())]);
    let mut sequence = Sequence::default();
    sequence
        .ioas()
        .test(test_op::MOCK_DOMAIN_FLAGS, IOAS, [(3, HAS_PASIDS)])
        .table(hwpt_flags::PASID)
        .table(hwpt_flags::PASID)
        .replace(NEXT);
    for (op, fields) in [
        attach(test_op::PASID_ATTACH, 1, NEXT),
        attach(test_op::PASID_CHECK_HWPT, 1, NEXT),
        attach(test_op::PASID_REPLACE, 1, NEXT + 1),
        attach(test_op::PASID_DETACH, 1, 0),
        attach(test_op::PASID_CHECK_HWPT, 1, 0),
        attach(test_op::PASID_ATTACH, FAILING, NEXT),
        attach(test_op::PASID_REPLACE, FAILING, NEXT + 1),
        attach(test_op::PASID_CHECK_HWPT, FAILING, NEXT),
    ] {
        sequence.test(op, MOCK, fields);
    }
    sequence.destroy(MOCK).destroy(NEXT + 1).save("pasids");
}

/// A guest's page table that the device goes through, and what the guest has dropped of it and of its device; then one
/// without a vIOMMU, with the id that the device's first page table had.
fn nested() {
    const ALL: u32 = 1;
    const HELD: u32 = 7;
    const OF_DEVICE: u64 = 0x00ba_ddad;
    let (parent, table, viommu) = (NEXT, NEXT + 3, NEXT + 1);
    let drop = |hwpt_id, entry_len| HwptInvalidate {
        hwpt_id,
        data_uptr: DATA,
        data_type: HARDWARE,
        entry_len,
        entry_num: 1,
        ..HwptInvalidate::default()
    };
    Sequence::default()
        .poke(&[HELD])
        .guest(0)
        .nested(viommu, 0)
        .replace(table)
        .test(test_op::MD_CHECK_IOTLB, table, [(0, 3), (1, HELD.into())])
        .test(test_op::DEV_CHECK_CACHE, DEVICE, [(0, 3), (1, OF_DEVICE)])
        .poke(&[ALL, 0])
        .call(CommandId::HwptInvalidate, &drop(table, 8))
        .poke(&[ALL, GUEST_ID, 0])
        .call(CommandId::HwptInvalidate, &drop(viommu, 12))
        .test(test_op::MD_CHECK_IOTLB, table, [(0, 3)])
        .test(test_op::DEV_CHECK_CACHE, DEVICE, [(0, 3)])
        .nested(parent, 0)
        .replace(TABLE)
        .replace(IOAS)
        .destroy(table)
        .save("nested");
}

/// A vIOMMU that stays while its window is mapped.
fn windows() {
    let map = Step::MapWindow { context: 0, page: 1, pages: 2 };
    Sequence::default()
        .poke(&[GUEST_ID, 0, 0, 0, 0, 0])
        .guest(24)
        .destroy(NEXT + 2)
        .then(Step::MapWindow { context: 0, page: 1, pages: 1 })
        .then(map)
        .destroy(NEXT + 1)
        .then(Step::UnmapWindows { context: 0, page: 1 })
        .destroy(NEXT + 1)
        .save("windows");
}

/// Two queues, of which the first stays while there is the second, and their ring, which stays mapped.
fn hardware_queues() {
    let queue = |index| HwQueueAlloc {
        viommu_id: NEXT + 1,
        r#type: HARDWARE,
        index,
        nesting_parent_iova: IOVA,
        length: 0x1000,
        ..HwQueueAlloc::default()
    };
    let first = NEXT + 3;
    Sequence::default()
        .guest(0)
        .map()
        .call(CommandId::HwQueueAlloc, &queue(0))
        .call(CommandId::HwQueueAlloc, &queue(1))
        .destroy(first)
        .unmap_all(IOAS)
        .destroy(first + 1)
        .destroy(first)
        .unmap_all(IOAS)
        .save("hardware-queues");
}

/// Page faults of a device and of a PASID, read and answered.
fn faults() {
    let (queue, parent, table) = (NEXT, NEXT + 1, NEXT + 2);
    let fault = |sequence: &mut Sequence, pasid| {
        let of = [(0, DEVICE.into()), (1, pasid), (2, 2), (3, 3), (4, IOVA)];
        sequence.test(test_op::TRIGGER_IOPF, 0, of);
    };
    let mut sequence = Sequence::default();
    sequence
        .device()
        .call(CommandId::FaultQueueAlloc, &FaultAlloc::default())
        .table(hwpt_flags::NEST_PARENT)
        .nested(parent, queue)
        .replace(table);
    fault(&mut sequence, 0);
    fault(&mut sequence, 1);
    sequence.read_events(80).poke(&[1, 0, 2, 1]).then(Step::Transfer {
        index: 0,
        write: true,
        at: 0,
        count: 16,
    });
    fault(&mut sequence, 0);
    sequence
        .replace(IOAS)
        .destroy(queue)
        .destroy(table)
        .then(Step::LetGo { kind: 1, index: 0 })
        .destroy(queue)
        .save("faults");
}

/// What a guest hears of its device, and that some of it was lost.
fn events() {
    let (viommu, table, queue) = (NEXT + 1, NEXT + 3, NEXT + 4);
    let alloc = VeventqAlloc {
        viommu_id: viommu,
        r#type: EVENTS,
        veventq_depth: 1,
        ..VeventqAlloc::default()
    };
    let mut sequence = Sequence::default();
    sequence.guest(0).nested(viommu, 0).call(CommandId::VeventqAlloc, &alloc).replace(table);
    for _ in 0..2 {
        sequence.test(test_op::TRIGGER_VEVENT, 0, [(0, DEVICE.into())]);
    }
    sequence
        .read_events(64)
        .destroy(queue)
        .then(Step::LetGo { kind: 1, index: 0 })
        .destroy(queue)
        .test(test_op::TRIGGER_VEVENT, 0, [(0, DEVICE.into())])
        .save("events");
}

/// A buffer mapped through its file, taken back, lent again.
fn buffers() {
    let revoke = |sequence: &mut Sequence, revoked| {
        sequence.test(test_op::DMABUF_REVOKE, 0, [(0, BUFFER.into()), (1, revoked)]);
    };
    let fd = BUFFER as i32;
    let mut sequence = Sequence::default();
    sequence
        .device()
        .test(test_op::DMABUF_GET, 0, [(0, 0x3000)])
        .map_file(fd, BOTH | map_flags::FIXED_IOVA);
    revoke(&mut sequence, 1);
    sequence.map_file(fd, BOTH).unmap_all(IOAS);
    revoke(&mut sequence, 0);
    sequence
        .map_file(fd, BOTH)
        .then(Step::LetGo { kind: 2, index: 0 })
        .destroy(MOCK)
        .unmap_all(IOAS)
        .save("buffers");
}

/// No address of memory is ever told: there is an IOMMU. A buffer that was taken back has none at all.
fn addresses() {
    let ask = IoasNoiommuGetPa {
        ioas_id: IOAS,
        iova: IOVA,
        length: 0x1000,
        ..IoasNoiommuGetPa::default()
    };
    Sequence::default()
        .device()
        .call(CommandId::IoasNoiommuGetPa, &ask)
        .map()
        .call(CommandId::IoasNoiommuGetPa, &ask)
        .unmap_all(IOAS)
        .test(test_op::DMABUF_GET, 0, [(0, 0x3000)])
        .map_file(BUFFER as i32, BOTH | map_flags::FIXED_IOVA)
        .test(test_op::DMABUF_REVOKE, 0, [(0, BUFFER.into()), (1, 1)])
        .call(CommandId::IoasNoiommuGetPa, &ask)
        .then(Step::Privileges(0))
        .call(CommandId::IoasNoiommuGetPa, &ask)
        .save("addresses");
}

/// A client that may lock too little, enough, and as much as it likes.
fn locked_memory() {
    const PAGES: u8 = 4;
    const LOCKS: u8 = 1;
    Sequence::default()
        .device()
        .then(Step::LimitLocked(PAGES - 1))
        .map()
        .then(Step::LimitLocked(PAGES))
        .map()
        .map_file(FILE, BOTH)
        .then(Step::Privileges(LOCKS))
        .map_file(FILE, BOTH)
        .unmap_all(IOAS)
        .save("locked-memory");
}

/// Commands in the middle of which something runs out, and that succeed afterwards.
fn running_out() {
    let mut sequence = Sequence::that_runs_out_at(1);
    sequence.ioas().device();
    for questions in 1..=3 {
        sequence.then(Step::RunOut(questions)).map().unmap_all(IOAS);
        sequence.then(Step::RunOut(questions)).table(hwpt_flags::DIRTY_TRACKING);
    }
    sequence.then(Step::RunOut(0)).map().table(hwpt_flags::DIRTY_TRACKING).save("running-out");
}

/// A container's commands on the compatibility IOAS.
fn type1() {
    const TYPE1_V2: u32 = extension::TYPE1V2_IOMMU as u32;
    let value = |id, value| {
        let words = vec![code_of(value).expect("a small number")];
        Step::Command { context: 0, id, words }
    };
    let set = VfioIoas { ioas_id: IOAS, op: vfio_ioas_op::SET, ..VfioIoas::default() };
    let map = IommuType1DmaMap {
        flags: dma_map_flags::READ | dma_map_flags::WRITE,
        vaddr: VA,
        iova: IOVA,
        size: LENGTH,
        ..IommuType1DmaMap::default()
    };
    let unmap = IommuType1DmaUnmap { iova: IOVA, size: LENGTH, ..IommuType1DmaUnmap::default() };
    Sequence::default()
        .device()
        .then(value(CommandId::GetApiVersion, 0))
        .then(value(CommandId::CheckExtension, TYPE1_V2))
        .call(CommandId::VfioIoas, &set)
        .then(value(CommandId::SetIommu, TYPE1_V2))
        .call(CommandId::IommuGetInfo, &IommuType1Info::default())
        .call(CommandId::IommuMapDma, &map)
        .call(CommandId::IommuUnmapDma, &unmap)
        .save("type1");
}
