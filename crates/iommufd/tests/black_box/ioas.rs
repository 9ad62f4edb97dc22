//! `IOMMU_IOAS_ALLOC` and `IOMMU_IOAS_IOVA_RANGES`.

use uapi::iommufd::{IoasAlloc, IoasIovaRanges};
use uapi::{Command, CommandId, Errno};

use crate::support::{Client, Platform, READ_ONLY, plain};

fn ask(ioas_id: u32, num_iovas: u32, allowed_iovas: u64) -> IoasIovaRanges {
    IoasIovaRanges { ioas_id, num_iovas, allowed_iovas, ..IoasIovaRanges::default() }
}

#[test]
fn an_answer_that_cannot_be_written_leaves_no_object() {
    let mut client = Client::open();
    let writable = client.at;
    client.at = READ_ONLY.start;
    let answer = client.call(CommandId::IoasAlloc, IoasAlloc::default());
    assert_eq!(answer, Err(Errno::EFAULT));
    assert_eq!(client.ctx.counts().objects(), 0);
    client.at = writable;
    assert_eq!(client.ioas(), 1);
}

#[test]
fn a_new_address_space_is_one_range() {
    let client = Client::open();
    let ioas = client.ioas();
    assert_eq!(client.ranges(ioas), (vec![(0, u64::MAX)], 1));
}

#[test]
fn ranges_of_what_is_no_address_space_do_not_exist() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    for id in [0, device.id(), 77] {
        let answer = client.call(CommandId::IoasIovaRanges, ask(id, 0, 0));
        assert_eq!(answer, Err(Errno::ENOENT));
    }
}

#[test]
fn a_page_table_reserves_what_it_cannot_translate_and_a_device_its_own() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    let hwpt = client.hwpt(device.id(), ioas, 0).unwrap();
    let aperture = (0, (1 << 48) - 1);
    assert_eq!(client.ranges(ioas), (vec![aperture], 0x1000));
    device.attach(hwpt).unwrap();
    let around_msi = vec![(0, 0xfedf_ffff), (0xfef0_0000, aperture.1)];
    assert_eq!(client.ranges(ioas), (around_msi, 0x1000));
    device.detach();
    assert_eq!(client.ranges(ioas), (vec![aperture], 0x1000));
    client.destroy(hwpt).unwrap();
    assert_eq!(client.ranges(ioas), (vec![(0, u64::MAX)], 1));
}

#[test]
fn regions_that_a_device_can_do_without_are_not_reserved() {
    let mut geometry = plain();
    geometry.reserved[0].kind = iommufd::ReservedKind::DirectRelaxable;
    let client = Client::open();
    let device = Platform::behind(geometry).bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    assert_eq!(client.ranges(ioas).0, [(0, (1 << 48) - 1)]);
}

#[test]
fn too_little_room_answers_how_much_there_should_be() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    let request = Command::of(CommandId::IoasIovaRanges).request;
    let buffer = 0x10_0000;
    for (room, written) in [(0, 0), (1, 16)] {
        client.memory.write(buffer, &[0xaa; 48]).unwrap();
        client.put(&ask(ioas, room, buffer), 32);
        let answer = client.ctx.ioctl(&client, request, client.at);
        assert_eq!(answer, Err(Errno::EMSGSIZE));
        let now: IoasIovaRanges = client.struct_now();
        assert_eq!((now.num_iovas, now.out_iova_alignment), (2, 0x1000));
        let mut bytes = [0; 48];
        client.memory.read(buffer, &mut bytes).unwrap();
        assert!(bytes[..written].iter().all(|byte| *byte != 0xaa));
        assert!(bytes[written..].iter().all(|byte| *byte == 0xaa));
    }
}

#[test]
fn ranges_that_cannot_be_written_answer_nothing() {
    let client = Client::open();
    let ioas = client.ioas();
    for at in [0, READ_ONLY.start, u64::MAX - 3] {
        let answer = client.call(CommandId::IoasIovaRanges, ask(ioas, 1, at));
        assert_eq!(answer, Err(Errno::EFAULT));
        let now: IoasIovaRanges = client.struct_now();
        assert_eq!((now.num_iovas, now.out_iova_alignment), (1, 0));
    }
}
