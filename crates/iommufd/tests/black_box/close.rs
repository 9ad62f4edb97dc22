//! The last file reference.

use uapi::Errno;

use crate::support::{Client, PAGE, Platform};

const VA: u64 = 0x10_0000;

/// Trace C: closing the iommufd under a bound device ends nothing, the device's end ends all.
#[test]
fn a_bound_device_keeps_its_context_open() {
    let client = Client::open();
    let platform = Platform::new();
    let device = platform.bind(&client);
    assert_eq!((device.id(), client.ioas()), (1, 2));
    assert_eq!(client.hwpt(1, 2, 0), Ok(3));
    assert_eq!(device.attach(3), Ok(3));
    client.map_at(2, 0x1000, VA, PAGE).unwrap();
    client.ctx.put_file();
    assert_eq!(client.ctx.counts().objects(), 3);
    assert_eq!(client.memory.pinned().len(), 1);
    assert!(client.ctx.get_file());
    client.ctx.put_file();
    device.end();
    assert_eq!(client.memory.pinned(), []);
    assert!(!client.ctx.get_file());
    let other = Client::open();
    assert_eq!(platform.bind(&other).id(), 1, "the group is free again");
}

#[test]
fn closing_destroys_users_before_what_they_use_whatever_their_ids() {
    let client = Client::open();
    let platform = Platform::new();
    let [first, second] = platform.bind_pair(&client);
    let ioas = client.ioas();
    first.end();
    // Page table 1 lies below the address space that it uses.
    assert_eq!(client.hwpt(second.id(), ioas, 0), Ok(1));
    client.map_at(ioas, 0x1000, VA, PAGE).unwrap();
    assert_eq!(client.destroy(ioas), Err(Errno::EBUSY));
    second.end();
    let left = client.ctx.counts();
    client.ctx.put_file();
    assert_eq!(client.memory.pinned(), []);
    assert_eq!((left.ioases, left.hwpts, left.areas), (1, 1, 1));
    assert_eq!(client.ctx.counts(), left, "what was left when it closed is remembered");
}

#[test]
fn an_attached_device_ends_without_help() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    device.begin_end();
    device.end();
    let counts = client.ctx.counts();
    assert_eq!((counts.devices, counts.hwpts, counts.ioases), (0, 0, 1));
}
