//! What a reader of the headers would not expect of `/dev/iommu`, and clients have come to rely on.
//!
//! | Fact | Also shown in |
//! |---|---|
//! | a missing page table to build on is invalid, a missing object elsewhere does not exist | `hwpt_alloc` |
//! | reading the log of writes succeeds whatever became of its bits, and ends at a hole | `dirty` |
//! | MAP and COPY leave the mapping where they cannot tell its address | `map` |
//! | UNMAP removes areas and then fails, and does not tell of them | `unmap` |
//! | COPY takes any part of an area | `copy` |
//! | INVALIDATE tells how many entries were done, whatever failed | `nested`, `vtd` |
//! | some reserved fields are not looked at | `vdevice` |
//! | a queue for events that a vIOMMU never has can be made | |
//! | files of events never wait, and faults can always be answered | `events` |
//! | lost events are counted, and what tells of them can vanish | `id_traces`, `events` |
//! | ids of vdevices go with their device | `id_traces`, `vdevice` |
//! | type1 unmaps nothing with success, and maps without access | `compat` |
//! | what a file is shows as it is pinned | `files` |
//! | a list of allowed ranges has no range of one byte, and binds no fixed mapping | `choices` |
//! | closing the file under a bound device frees nothing | `id_traces`, `close` |

use iommufd::mock::MockMachine;
use pci::Dma;
use uapi::iommufd::{
    FaultAlloc, HwptAlloc, HwptGetDirtyBitmap, HwptInvalidate, HwptSetDirtyTracking,
    IoasAllowIovas, IoasCopy, IoasMap, IoasUnmap, VeventqAlloc, ViommuAlloc, hwpt_flags, map_flags,
    viommu_type,
};
use uapi::vfio::{IommuType1DmaMap, IommuType1DmaUnmap};
use uapi::{Command, CommandId, Errno};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::support::client::PIPE;
use crate::support::mock_nest::{AT, HARDWARE};
use crate::support::{Client, MockNest, PAGE, Platform, READ_ONLY};

const VA: u64 = 0x10_0000;
const IOVA: u64 = 0x40_0000;
const MISSING: u32 = 99;
const READ: u32 = map_flags::READABLE;
const FIXED: u32 = map_flags::FIXED_IOVA;

/// Runs a command on a struct that cannot be written to.
fn call_unwritable<T>(client: &Client, id: CommandId, argument: &T) -> Result<u32, Errno>
where
    T: IntoBytes + FromBytes + Immutable,
{
    let mut elsewhere = client.thread(0);
    elsewhere.at = READ_ONLY.start;
    elsewhere.put(argument, size_of::<T>());
    client.ctx.ioctl(&elsewhere, Command::of(id).request, elsewhere.at)
}

#[test]
fn a_page_table_on_nothing_is_invalid_and_all_else_that_is_missing_does_not_exist() {
    let client = Client::open();
    let platform = Platform::new();
    let device = platform.bind(&client);
    let ioas = client.ioas();
    assert_eq!(client.hwpt(device.id(), MISSING, 0), Err(Errno::EINVAL));
    assert_eq!(client.hwpt(MISSING, ioas, 0), Err(Errno::ENOENT));
    assert_eq!(device.attach(MISSING).map_err(|refusal| refusal.errno()), Err(Errno::ENOENT));
    assert_eq!(client.map_at(MISSING, 0, VA, PAGE), Err(Errno::ENOENT));
    assert_eq!(client.destroy(MISSING), Err(Errno::ENOENT));
    let smmu = viommu_type::ARM_SMMUV3;
    assert_eq!(client.viommu(smmu, device.id(), MISSING), Err(Errno::ENOENT));
}

#[test]
fn reading_the_log_succeeds_whatever_became_of_its_bits() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    let hwpt_id = client.hwpt(device.id(), ioas, hwpt_flags::DIRTY_TRACKING).unwrap();
    device.attach(hwpt_id).unwrap();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    client.map_at(ioas, IOVA + 2 * PAGE, VA, PAGE).unwrap();
    let on = HwptSetDirtyTracking { hwpt_id, flags: 1, ..HwptSetDirtyTracking::default() };
    client.call(CommandId::HwptSetDirtyTracking, on).unwrap();
    let bits = |data, iova| {
        device.write(IOVA, &[1]).unwrap();
        device.write(IOVA + 2 * PAGE, &[1]).unwrap();
        client.memory.write(AT, &[0; 8]).unwrap();
        let argument = HwptGetDirtyBitmap {
            hwpt_id,
            iova,
            length: 4 * PAGE,
            page_size: PAGE,
            data,
            ..HwptGetDirtyBitmap::default()
        };
        let answer = client.call(CommandId::HwptGetDirtyBitmap, argument).map(drop);
        let mut seen = [0; 8];
        client.memory.read(AT, &mut seen).unwrap();
        (answer, u64::from_ne_bytes(seen))
    };
    assert_eq!(bits(AT, IOVA), (Ok(()), 0b1), "not past the hole");
    assert_eq!(bits(AT, IOVA + PAGE), (Ok(()), 0), "a hole at once");
    assert_eq!(bits(READ_ONLY.start, IOVA), (Ok(()), 0), "a bitmap that cannot be written");
}

#[test]
fn an_address_that_cannot_be_told_is_mapped_nevertheless() {
    let client = Client::open();
    let (ioas, other) = (client.ioas(), client.ioas());
    let flags = READ;
    let map = IoasMap { flags, ioas_id: ioas, user_va: VA, length: PAGE, ..IoasMap::default() };
    assert_eq!(call_unwritable(&client, CommandId::IoasMap, &map), Err(Errno::EFAULT));
    let at = client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    let copy = IoasCopy {
        flags,
        src_ioas_id: ioas,
        dst_ioas_id: other,
        src_iova: at,
        length: PAGE,
        ..IoasCopy::default()
    };
    assert_eq!(call_unwritable(&client, CommandId::IoasCopy, &copy), Err(Errno::EFAULT));
    assert_eq!(client.unmap_all(ioas), Ok(2 * PAGE));
    assert_eq!(client.unmap_all(other), Ok(PAGE));
}

#[test]
fn unmapping_can_fail_halfway_and_does_not_say_where() {
    let client = Client::open();
    let ioas = client.ioas();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    client.map_at(ioas, IOVA + PAGE, VA, 2 * PAGE).unwrap();
    assert_eq!(client.unmap(ioas, IOVA, 2 * PAGE), Err(Errno::ENOENT));
    assert_eq!(client.struct_now::<IoasUnmap>().length, 2 * PAGE, "as it was asked");
    assert_eq!(client.unmap(ioas, IOVA, PAGE), Err(Errno::ENOENT), "the first is gone");
    assert_eq!(client.unmap(ioas, IOVA + PAGE, 2 * PAGE), Ok(2 * PAGE), "the second is not");
}

#[test]
fn any_part_of_an_area_can_be_copied() {
    let client = Client::open();
    let (ioas, other) = (client.ioas(), client.ioas());
    client.map_at(ioas, IOVA, VA, 4 * PAGE).unwrap();
    let copy = IoasCopy {
        flags: READ | FIXED,
        src_ioas_id: ioas,
        dst_ioas_id: other,
        src_iova: IOVA + PAGE,
        dst_iova: 0,
        length: 2 * PAGE,
        ..IoasCopy::default()
    };
    client.call(CommandId::IoasCopy, copy).unwrap();
    assert_eq!(client.unmap_all(other), Ok(2 * PAGE));
}

#[test]
fn how_many_entries_were_dropped_is_told_whatever_failed() {
    let MockNest { client, device, automatic, parent, .. } = MockNest::new();
    let hwpt_id = client.nested(device, parent).unwrap();
    client.memory.write(AT, &[0; 8]).unwrap();
    let good = HwptInvalidate {
        hwpt_id,
        data_uptr: AT,
        data_type: HARDWARE,
        entry_len: 8,
        entry_num: 1,
        ..HwptInvalidate::default()
    };
    for (asked, answer, told) in [
        (good, None, 1),
        (HwptInvalidate { reserved: 1, ..good }, Some(Errno::EOPNOTSUPP), 0),
        (HwptInvalidate { data_uptr: 0, ..good }, Some(Errno::EINVAL), 0),
        (HwptInvalidate { hwpt_id: MISSING, ..good }, Some(Errno::ENOENT), 0),
        (HwptInvalidate { hwpt_id: automatic, ..good }, Some(Errno::EINVAL), 0),
        (HwptInvalidate { data_type: 1, ..good }, Some(Errno::EINVAL), 0),
    ] {
        assert_eq!(client.call(CommandId::HwptInvalidate, asked).err(), answer, "{asked:?}");
        assert_eq!(client.struct_now::<HwptInvalidate>().entry_num, told, "{asked:?}");
    }
}

#[test]
fn some_reserved_fields_may_hold_anything() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let (dev_id, pt_id) = (device.id(), client.ioas());
    let flags = hwpt_flags::NEST_PARENT | hwpt_flags::DIRTY_TRACKING;
    let table = HwptAlloc { flags, dev_id, pt_id, reserved2: 7, ..HwptAlloc::default() };
    let hwpt_id = client.call(CommandId::HwptAlloc, table).unwrap().out_hwpt_id;
    let on = HwptSetDirtyTracking { hwpt_id, flags: 1, reserved: 7, ..Default::default() };
    client.call(CommandId::HwptSetDirtyTracking, on).unwrap();
    let r#type = viommu_type::ARM_SMMUV3;
    let viommu = ViommuAlloc { r#type, dev_id, hwpt_id, reserved: 7, ..ViommuAlloc::default() };
    client.call(CommandId::ViommuAlloc, viommu).unwrap();
}

#[test]
fn a_viommu_takes_queues_for_events_that_it_never_has() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let parent = client.nest_parent(device.id());
    let viommu_id = client.viommu(viommu_type::ARM_SMMUV3, device.id(), parent).unwrap();
    let queue = |r#type| {
        let depth = VeventqAlloc { viommu_id, veventq_depth: 1, ..VeventqAlloc::default() };
        client.call(CommandId::VeventqAlloc, VeventqAlloc { r#type, ..depth }).err()
    };
    assert_eq!(queue(0), Some(Errno::EOPNOTSUPP));
    assert_eq!([2, 77, u32::MAX].map(queue), [None; 3]);
    assert_eq!(queue(77), Some(Errno::EEXIST));
}

#[test]
fn reading_no_events_is_no_wait_and_no_error() {
    let client = Client::open_mock(&MockMachine::new());
    client.call(CommandId::FaultQueueAlloc, FaultAlloc::default()).unwrap();
    let faults = client.event_file();
    assert_eq!(faults.read(&client, AT, 40), Ok(0));
    assert!(!faults.is_readable());
    assert!(faults.is_writable(), "also while there is nothing to answer");
}

#[test]
fn type1_unmaps_nothing_with_success_and_maps_without_access() {
    let client = Client::open();
    client.ctx.ensure_compat_ioas().unwrap();
    let ioas = client.ctx.compat_ioas_id().unwrap();
    let range = IommuType1DmaUnmap { iova: IOVA, size: PAGE, ..IommuType1DmaUnmap::default() };
    let answer = client.call(CommandId::IommuUnmapDma, range).unwrap();
    assert_eq!(answer.size, 0);
    assert_eq!(client.unmap(ioas, IOVA, PAGE), Err(Errno::ENOENT));
    let mapping = IommuType1DmaMap { iova: IOVA, vaddr: VA, size: PAGE, ..Default::default() };
    assert!(client.call(CommandId::IommuMapDma, mapping).is_ok());
    assert_eq!(client.map(ioas, FIXED, 0, VA, PAGE), Err(Errno::EINVAL), "neither read nor write");
}

#[test]
fn what_cannot_be_pinned_of_a_file_is_mapped_until_something_pins() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    assert_eq!(client.map_file(ioas, PIPE, [0, PAGE, IOVA]), Ok(IOVA));
    let attached = device.attach(ioas).map_err(|refusal| refusal.errno());
    assert_eq!(attached, Err(Errno::EINVAL));
    client.unmap_all(ioas).unwrap();
    device.attach(ioas).unwrap();
    assert_eq!(client.map_file(ioas, PIPE, [0, PAGE, IOVA]), Err(Errno::EINVAL));
}

#[test]
fn allowed_ranges_are_of_two_bytes_at_least_and_bind_no_fixed_mapping() {
    let client = Client::open();
    let ioas_id = client.ioas();
    let allow = |start: u64, last: u64| {
        client.memory.write(AT, [start, last].as_bytes()).unwrap();
        let list =
            IoasAllowIovas { ioas_id, num_iovas: 1, allowed_iovas: AT, ..Default::default() };
        client.call(CommandId::IoasAllowIovas, list).err()
    };
    assert_eq!(allow(0x1000, 0x1000), Some(Errno::EINVAL));
    assert_eq!(allow(0x1000, 0x1001), None);
    assert_eq!(client.map_anywhere(ioas_id, VA, PAGE), Err(Errno::ENOSPC));
    assert_eq!(client.map_at(ioas_id, IOVA, VA, PAGE), Ok(IOVA));
}
