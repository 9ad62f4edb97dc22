//! Attaching, replacing, detaching: ids, groups, reserved spans, and what a refusal leaves.

use std::sync::Arc;

use iommufd::mock::MockMachine;
use iommufd::{Device, Endpoint, Group, Iommu, Refusal};
use pci::{Address, Dma};
use uapi::Errno;
use uapi::iommufd::hwpt_flags;

use crate::support::{Client, PAGE, Platform, plain};

const VA: u64 = 0x10_0000;

fn errno(answer: Result<u32, Refusal>) -> Option<Errno> {
    answer.err().map(|refusal| refusal.errno())
}

#[test]
fn only_page_tables_and_address_spaces_can_be_attached_to() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    assert_eq!(errno(device.attach(9)), Some(Errno::ENOENT));
    assert_eq!(errno(device.attach(device.id())), Some(Errno::EINVAL));
}

#[test]
fn a_page_table_answers_its_own_id() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    let hwpt = client.hwpt(device.id(), ioas, 0).unwrap();
    assert_eq!(device.attach(hwpt), Ok(hwpt));
    assert_eq!(device.attach(hwpt), Ok(hwpt), "again is no change");
    device.detach();
    device.detach();
    client.destroy(hwpt).unwrap();
}

/// Trace D.
#[test]
fn an_address_space_answers_a_page_table_that_goes_with_the_attachment() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    assert_eq!((device.id(), client.ioas()), (1, 2));
    assert_eq!(device.attach(2), Ok(3));
    device.detach();
    assert_eq!(client.destroy(3), Err(Errno::ENOENT));
    assert_eq!(errno(device.attach(3)), Some(Errno::ENOENT));
    client.destroy(2).unwrap();
}

#[test]
fn devices_share_the_automatic_page_table_of_an_address_space() {
    let client = Client::open();
    let platform = Platform::new();
    let [first, second] = platform.bind_pair(&client);
    let single = platform.bind(&client);
    let ioas = client.ioas();
    let manual = client.hwpt(single.id(), ioas, 0).unwrap();
    let automatic = first.attach(ioas).unwrap();
    assert_ne!(automatic, manual);
    assert_eq!(second.attach(ioas), Ok(automatic));
    assert_eq!(single.attach(ioas), Ok(automatic));
    first.detach();
    second.detach();
    assert_eq!(client.destroy(automatic), Err(Errno::EBUSY));
    single.detach();
    assert_eq!(client.destroy(automatic), Err(Errno::ENOENT));
    client.destroy(manual).unwrap();
}

#[test]
fn a_group_is_attached_to_one_page_table() {
    let client = Client::open();
    let [first, second] = Platform::new().bind_pair(&client);
    let (one, two) = (client.ioas(), client.ioas());
    let hwpt = first.attach(one).unwrap();
    let refusal = second.attach(two).unwrap_err();
    assert_eq!(refusal, Refusal::AttachedElsewhere { group: 2, hwpt });
    assert_eq!(refusal.errno(), Errno::EINVAL);
    assert_eq!(client.ctx.counts().hwpts, 1, "nothing is left of the refusal");
    let manual = client.hwpt(second.id(), one, 0).unwrap();
    assert_eq!(errno(second.attach(manual)), Some(Errno::EINVAL));
    assert_eq!(second.attach(hwpt), Ok(hwpt));
}

#[test]
fn replacing_moves_the_whole_group() {
    let client = Client::open();
    let [first, second] = Platform::new().bind_pair(&client);
    let (one, two) = (client.ioas(), client.ioas());
    client.map_at(one, 0x1000, VA, PAGE).unwrap();
    client.map_at(two, 0x1000, VA + PAGE, PAGE).unwrap();
    let old = first.attach(one).unwrap();
    second.attach(one).unwrap();
    let new = first.attach(two).unwrap();
    assert_eq!(client.destroy(old), Err(Errno::ENOENT), "the old one went with its attachments");
    assert_eq!(client.memory.pinned(), [(VA + PAGE, PAGE)]);
    second.write(0x1000, b"moved").unwrap();
    let mut bytes = [0; 5];
    client.memory.read(VA + PAGE, &mut bytes).unwrap();
    assert_eq!(&bytes, b"moved");
    assert_eq!(client.ranges(one).0, [(0, u64::MAX)], "old reservations are gone");
    first.detach();
    assert_eq!(client.ranges(two).0.len(), 2, "the other device's stay");
    assert_eq!(client.destroy(new), Err(Errno::EBUSY));
    second.detach();
    assert_eq!(client.ranges(two).0.len(), 1);
}

#[test]
fn a_refused_replacement_leaves_the_old_attachment_working() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let (good, msi, bad) = (client.ioas(), client.ioas(), client.ioas());
    client.map_at(good, 0x1000, VA, PAGE).unwrap();
    client.map_at(msi, 0xfee0_0000, VA, PAGE).unwrap();
    client.map_at(bad, 0x1000, 0xdead_0000, PAGE).unwrap();
    let old = device.attach(good).unwrap();
    let before = client.ctx.counts();
    assert_eq!(errno(device.attach(msi)), Some(Errno::EADDRINUSE));
    assert_eq!(errno(device.attach(bad)), Some(Errno::EFAULT));
    assert_eq!(client.ctx.counts(), before);
    device.write(0x1000, b"works").unwrap();
    assert_eq!(device.attach(old), Ok(old));
}

#[test]
fn a_devices_reserved_spans_are_judged_before_memory_is_pinned() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    client.map_at(ioas, 0x1000, 0xdead_0000, PAGE).unwrap();
    client.map_at(ioas, 0xfeef_f000, VA, PAGE).unwrap();
    assert_eq!(errno(device.attach(ioas)), Some(Errno::EADDRINUSE));
    assert_eq!(client.memory.pins(), 0);
}

#[test]
fn a_page_table_can_be_for_another_iommu_if_that_can_do_as_much() {
    let client = Client::open();
    let able = Platform::new();
    let device = able.bind(&client);
    let lesser = |change: fn(&mut iommufd::Geometry)| {
        let mut geometry = plain();
        change(&mut geometry);
        let at = Address::new(0, 9, 0, 0).unwrap();
        let endpoint = Endpoint::new(at, Group::new(9), Iommu::new(geometry), able.heard.clone());
        Device::bind(&client.ctx, &endpoint).unwrap()
    };
    let ioas = client.ioas();
    let hwpt = client.hwpt(device.id(), ioas, hwpt_flags::DIRTY_TRACKING).unwrap();
    let changes: [fn(&mut iommufd::Geometry); 3] = [
        |geometry| geometry.dirty_tracking = false,
        |geometry| geometry.page_sizes = 1 << 12,
        |geometry| geometry.aperture = span::Span::from_ends(0, (1 << 39) - 1).unwrap(),
    ];
    for change in changes {
        let other = lesser(change);
        assert_eq!(other.attach(hwpt), Err(Refusal::Incompatible { hwpt }));
        assert_eq!(client.ranges(ioas).0.len(), 1, "its reservation is undone");
        other.end();
    }
    let same = lesser(|_| {});
    assert_eq!(same.attach(hwpt), Ok(hwpt));
    // An automatic page table that does not suit is passed over.
    let automatic = device.attach(ioas).unwrap();
    let small = lesser(|geometry| geometry.page_sizes = 1 << 12);
    let own = small.attach(ioas).unwrap();
    assert_ne!(own, automatic);
    let devices: [Arc<Device>; 3] = [device, same, small];
    devices.iter().for_each(Device::end);
    assert_eq!(client.ctx.counts().hwpts, 1);
}

#[test]
fn a_page_table_of_the_mock_is_not_for_other_devices() {
    let client = Client::open_mock(&MockMachine::new());
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    let [_, mocks, _] = client.mock_device(ioas).unwrap();
    assert_eq!(errno(device.attach(mocks)), Some(Errno::EINVAL));
    let own = device.attach(ioas).unwrap();
    assert_ne!(own, mocks, "an automatic page table of its own");
    assert_eq!(client.ranges(ioas).1, PAGE, "and its pages are larger");
    assert_eq!(client.mock_device(own).err(), Some(Errno::EINVAL));
    device.end();
}
