//! `IOMMU_DESTROY` and the ids of objects.

use uapi::Errno;

use crate::support::{Client, Platform};

#[test]
fn what_does_not_exist_cannot_be_destroyed() {
    let client = Client::open();
    for id in [0, 1, 2, u32::MAX] {
        assert_eq!(client.destroy(id), Err(Errno::ENOENT));
    }
}

#[test]
fn ids_are_the_lowest_free_from_one() {
    let client = Client::open();
    assert_eq!([client.ioas(), client.ioas(), client.ioas()], [1, 2, 3]);
    client.destroy(2).unwrap();
    client.destroy(1).unwrap();
    assert_eq!(client.destroy(1), Err(Errno::ENOENT));
    assert_eq!([client.ioas(), client.ioas(), client.ioas()], [1, 2, 4]);
}

#[test]
fn what_is_in_use_is_busy() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    let hwpt = client.hwpt(device.id(), ioas, 0).unwrap();
    assert_eq!(client.destroy(device.id()), Err(Errno::EBUSY));
    assert_eq!(client.destroy(ioas), Err(Errno::EBUSY));
    device.attach(hwpt).unwrap();
    assert_eq!(client.destroy(hwpt), Err(Errno::EBUSY));
    device.detach();
    client.destroy(hwpt).unwrap();
    client.destroy(ioas).unwrap();
    assert_eq!(client.destroy(device.id()), Err(Errno::EBUSY));
    device.end();
    assert_eq!(client.ctx.counts().objects(), 0);
}

#[test]
fn an_address_space_with_areas_is_destroyed_with_them() {
    let client = Client::open();
    let ioas = client.ioas();
    client.map_at(ioas, 0x1000, 0x10_0000, 0x1000).unwrap();
    client.destroy(ioas).unwrap();
    let again = client.ioas();
    assert_eq!(again, ioas);
    assert_eq!(client.unmap_all(again), Ok(0));
}

/// Trace A without the test commands: attach to an IOAS, be refused, let go.
#[test]
fn an_automatic_page_table_keeps_its_ids_neighbours_busy() {
    let client = Client::open();
    let platform = Platform::new();
    assert_eq!(client.ioas(), 1);
    let device = platform.bind(&client);
    assert_eq!(device.id(), 2);
    assert_eq!(device.attach(1), Ok(3));
    for id in [1, 2, 3] {
        assert_eq!(client.destroy(id), Err(Errno::EBUSY), "{id}");
    }
    device.end();
    assert_eq!(client.destroy(2), Err(Errno::ENOENT));
    assert_eq!(client.destroy(3), Err(Errno::ENOENT));
    client.destroy(1).unwrap();
    assert_eq!(client.ioas(), 1);
}
