//! Page tables nested in others, by the mock's hardware: made, attached, and what a guest has dropped.

use uapi::iommufd::{HwptAlloc, HwptInvalidate, hwpt_flags};
use uapi::{CommandId, Errno};

use crate::support::MockNest;
use crate::support::mock_nest::{AT, HARDWARE, TABLE_DATA as DATA};
use crate::support::test_command::{Word, op};

/// What the IOTLB of a new page table holds, and a device's cache.
const IOTLB: u32 = 77;
const CACHE: u32 = 0x00ba_ddad;
const GUEST_ID: u32 = 0x99;

impl MockNest {
    fn nested_with(
        &self,
        pt_id: u32,
        flags: u32,
        data_type: u32,
        data_len: u32,
    ) -> Result<u32, Errno> {
        self.client.memory.write(AT, &IOTLB.to_ne_bytes()).unwrap();
        let data_uptr = if data_len == 0 { 0 } else { AT };
        let argument = HwptAlloc {
            flags,
            dev_id: self.device,
            pt_id,
            data_type,
            data_len,
            data_uptr,
            ..HwptAlloc::default()
        };
        self.client.call(CommandId::HwptAlloc, argument).map(|answer| answer.out_hwpt_id)
    }

    fn nested(&self, pt_id: u32) -> u32 {
        self.nested_with(pt_id, 0, DATA, 4).unwrap()
    }

    /// Has entries of `length` bytes dropped; how many were.
    fn drop_entries(&self, id: u32, length: u32, words: &[u32]) -> (Result<(), Errno>, u32) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.client.memory.write(AT, &bytes).unwrap();
        let number = u32::try_from(bytes.len()).unwrap().checked_div(length).unwrap_or(1).max(1);
        let argument = HwptInvalidate {
            hwpt_id: id,
            data_uptr: AT,
            data_type: HARDWARE,
            entry_len: length,
            entry_num: number,
            ..HwptInvalidate::default()
        };
        let result = self.client.call(CommandId::HwptInvalidate, argument).map(|_| ());
        (result, self.client.struct_now::<HwptInvalidate>().entry_num)
    }

    fn holds(&self, op: u32, id: u32, values: [u32; 4]) -> bool {
        (0..).zip(values).all(|(entry, value)| {
            self.client.test(op, id, &[Word(16, entry), Word(20, value)]).is_ok()
        })
    }
}

#[test]
fn creation_is_refused_in_order() {
    let world = MockNest::new();
    let plain = world.client.hwpt(world.device, world.ioas, 0).unwrap();
    let nest = hwpt_flags::NEST_PARENT;
    assert_eq!(world.nested_with(world.parent, nest, DATA, 4), Err(Errno::EOPNOTSUPP));
    assert_eq!(world.nested_with(world.parent, 0, 0, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(world.nested_with(plain, 0, DATA + 1, 4), Err(Errno::EINVAL), "no nest parent");
    assert_eq!(world.nested_with(world.parent, 0, DATA + 1, 4), Err(Errno::EOPNOTSUPP));
    assert_eq!(world.nested_with(world.parent, 0, DATA, 3), Err(Errno::EINVAL));
    assert_eq!(world.nested_with(world.parent, 0, DATA, 9), Err(Errno::EINVAL));
    let faults = hwpt_flags::FAULT_ID_VALID;
    assert_eq!(world.nested_with(world.parent, faults, DATA, 4), Err(Errno::ENOENT));
    let nested = world.nested(world.parent);
    assert_eq!(world.nested_with(nested, 0, DATA, 4), Err(Errno::EINVAL), "on a nested one");
    assert_eq!(world.client.destroy(world.parent), Err(Errno::EBUSY));
    assert_eq!(world.client.destroy(nested), Ok(()));
    assert_eq!(world.client.destroy(world.parent), Ok(()));
}

#[test]
fn entries_are_dropped_up_to_the_first_that_is_refused() {
    let world = MockNest::new();
    let nested = world.nested(world.parent);
    let held = |values| world.holds(op::MD_CHECK_IOTLB, nested, values);
    assert!(held([IOTLB; 4]));
    assert_eq!(world.drop_entries(nested, 8, &[0, 1, 2, 0]), (Err(Errno::EOPNOTSUPP), 1));
    assert!(held([IOTLB, 0, IOTLB, IOTLB]));
    assert_eq!(world.drop_entries(nested, 8, &[0, 0, 0, 4]), (Err(Errno::EINVAL), 1));
    assert_eq!(world.drop_entries(nested, 8, &[1, 9]), (Ok(()), 1));
    assert!(held([0; 4]));
    for length in [0, 4, 4097] {
        assert_eq!(world.drop_entries(nested, length, &[0, 0]).0, Err(Errno::EINVAL), "{length}");
    }
    assert_eq!(world.drop_entries(world.parent, 8, &[0, 0]), (Err(Errno::EINVAL), 0));
    assert_eq!(world.drop_entries(99, 8, &[0, 0]), (Err(Errno::ENOENT), 0));
    assert_eq!(world.client.test(op::MD_CHECK_IOTLB, world.parent, &[]).err(), Some(Errno::ENOENT));
}

#[test]
fn behind_a_viommu_a_device_has_a_vdevice_first() {
    let world = MockNest::new();
    let viommu = world.viommu();
    assert_eq!(world.client.viommu(1, world.device, world.parent), Err(Errno::EOPNOTSUPP));
    let nested = world.nested(viommu);
    assert_eq!(world.client.destroy(viommu), Err(Errno::EBUSY));
    assert_eq!(world.attach(nested), Err(Errno::ENOENT));
    let vdevice = world.client.vdevice(viommu, world.device, GUEST_ID.into()).unwrap();
    assert_eq!(world.attach(nested), Ok(()));
    assert_eq!(world.client.destroy(nested), Err(Errno::EBUSY));
    assert_eq!(world.attach(world.ioas), Ok(()));
    for id in [nested, vdevice, viommu] {
        assert_eq!(world.client.destroy(id), Ok(()));
    }
}

#[test]
fn a_guest_names_devices_whose_caches_it_has_dropped() {
    let world = MockNest::new();
    let viommu = world.viommu();
    assert_eq!(world.drop_entries(viommu, 12, &[0, GUEST_ID, 0]), (Err(Errno::EINVAL), 0));
    let vdevice = world.client.vdevice(viommu, world.device, GUEST_ID.into()).unwrap();
    let held = |values| world.holds(op::DEV_CHECK_CACHE, world.device, values);
    assert!(held([CACHE; 4]));
    let second_is_bad = [0, GUEST_ID, 0, 2, GUEST_ID, 1];
    assert_eq!(world.drop_entries(viommu, 12, &second_is_bad), (Err(Errno::EOPNOTSUPP), 1));
    assert!(held([0, CACHE, CACHE, CACHE]));
    let longer = [0, GUEST_ID, 1, 0, 0, GUEST_ID, 2, 5];
    assert_eq!(world.drop_entries(viommu, 16, &longer), (Err(Errno::E2BIG), 0));
    assert!(held([0, CACHE, CACHE, CACHE]), "all are read before any is dropped");
    assert_eq!(world.drop_entries(viommu, 12, &[1, GUEST_ID, 7]), (Ok(()), 1));
    assert!(held([0; 4]));
    world.client.destroy(vdevice).unwrap();
    assert_eq!(world.drop_entries(viommu, 12, &[0, GUEST_ID, 0]), (Err(Errno::EINVAL), 0));
}
