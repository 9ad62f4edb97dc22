//! `IOMMU_IOAS_UNMAP`.

use uapi::Errno;

use crate::support::{Client, PAGE, Platform, READ_ONLY};

const VA: u64 = 0x10_0000;

fn three_areas(client: &Client) -> u32 {
    let ioas = client.ioas();
    for iova in [0x1000, 0x2000, 0x5000] {
        client.map_at(ioas, iova, VA, PAGE).unwrap();
    }
    ioas
}

#[test]
fn refuses_in_the_kernels_order() {
    let client = Client::open();
    let ioas = client.ioas();
    assert_eq!(client.unmap(9, u64::MAX, 0), Err(Errno::ENOENT));
    assert_eq!(client.unmap(ioas, u64::MAX, 0), Err(Errno::EOVERFLOW));
    assert_eq!(client.unmap(ioas, 1, u64::MAX), Err(Errno::EOVERFLOW));
    assert_eq!(client.unmap(ioas, 1, 0), Err(Errno::EINVAL));
    assert_eq!(client.unmap(ioas, 3, u64::MAX - 1), Err(Errno::EOVERFLOW));
    assert_eq!(client.unmap(ioas, 2, u64::MAX - 1), Err(Errno::ENOENT));
}

#[test]
fn everything_can_be_nothing() {
    let client = Client::open();
    let ioas = three_areas(&client);
    assert_eq!(client.unmap_all(ioas), Ok(3 * PAGE));
    assert_eq!(client.unmap_all(ioas), Ok(0));
}

#[test]
fn holes_in_between_are_no_matter() {
    let client = Client::open();
    let ioas = three_areas(&client);
    assert_eq!(client.unmap(ioas, 0, 0x10_0000), Ok(3 * PAGE));
    assert_eq!(client.unmap(ioas, 0, 0x10_0000), Err(Errno::ENOENT));
}

#[test]
fn an_area_that_sticks_out_refuses_and_those_before_it_are_gone() {
    let client = Client::open();
    let ioas = client.ioas();
    client.map_at(ioas, 0x1000, VA, PAGE).unwrap();
    client.map_at(ioas, 0x2000, VA, 2 * PAGE).unwrap();
    assert_eq!(client.unmap(ioas, 0x3000, PAGE), Err(Errno::ENOENT));
    assert_eq!(client.ctx.counts().areas, 2);
    assert_eq!(client.unmap(ioas, 0x1000, 2 * PAGE), Err(Errno::ENOENT));
    let length = client.struct_now::<uapi::iommufd::IoasUnmap>().length;
    assert_eq!(length, 2 * PAGE, "what was removed is not told");
    assert_eq!(client.ctx.counts().areas, 1);
    client.map_at(ioas, 0x1000, VA, PAGE).unwrap();
}

#[test]
fn memory_is_unpinned_on_return() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = three_areas(&client);
    device.attach(ioas).unwrap();
    assert_eq!(client.memory.pinned().len(), 3);
    assert_eq!(client.unmap(ioas, 0x1000, 2 * PAGE), Ok(2 * PAGE));
    assert_eq!(client.memory.pinned().len(), 1);
    assert_eq!(client.ctx.counts().pinned_bytes, PAGE);
    client.unmap_all(ioas).unwrap();
    assert_eq!(client.memory.pinned(), []);
}

#[test]
fn an_answer_that_cannot_be_written_leaves_nothing_mapped() {
    let mut client = Client::open();
    let ioas = three_areas(&client);
    client.at = READ_ONLY.start;
    assert_eq!(client.unmap_all(ioas), Err(Errno::EFAULT));
    assert_eq!(client.ctx.counts().areas, 0);
}
