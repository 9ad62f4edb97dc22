//! `IOMMU_IOAS_COPY`.

use iommufd::Device;
use pci::Dma;
use uapi::iommufd::{IoasCopy, map_flags};
use uapi::{CommandId, Errno};

use crate::support::client::FILE;
use crate::support::{Client, PAGE, Platform};

const VA: u64 = 0x10_0000;
const READ: u32 = map_flags::READABLE;
const READ_WRITE: u32 = map_flags::READABLE | map_flags::WRITEABLE;
const FIXED: u32 = map_flags::FIXED_IOVA;

/// From `src_iova` of the first to `dst_iova` of the second.
fn copy(
    client: &Client,
    flags: u32,
    [src_ioas_id, dst_ioas_id]: [u32; 2],
    [src_iova, dst_iova, length]: [u64; 3],
) -> Result<u64, Errno> {
    let argument = IoasCopy {
        flags,
        src_ioas_id,
        dst_ioas_id,
        src_iova,
        dst_iova,
        length,
        ..IoasCopy::default()
    };
    client.call(CommandId::IoasCopy, argument).map(|answer| answer.dst_iova)
}

/// A client with two address spaces; the first maps four pages at 0x10000 and four read-only ones behind them.
fn two_spaces() -> (Client, [u32; 2]) {
    let client = Client::open();
    let both = [client.ioas(), client.ioas()];
    client.map_at(both[0], 0x1_0000, VA, 4 * PAGE).unwrap();
    client.map(both[0], READ | FIXED, 0x1_4000, VA + 0x2_0000, 4 * PAGE).unwrap();
    (client, both)
}

fn attach(client: &Client, ioas: u32) -> std::sync::Arc<Device> {
    let device = Platform::new().bind(client);
    device.attach(ioas).unwrap();
    device
}

#[test]
fn checks_come_in_the_order_of_linux() {
    let (client, both) = two_spaces();
    let refused = |flags, spaces, numbers| copy(&client, flags, spaces, numbers).unwrap_err();
    let none = [77, 78];
    assert_eq!(refused(8, none, [u64::MAX; 3]), Errno::EOPNOTSUPP);
    for numbers in [[u64::MAX, 0, 0], [0, u64::MAX, 0], [0, 0, u64::MAX]] {
        assert_eq!(refused(FIXED, none, numbers), Errno::EOVERFLOW);
    }
    assert_eq!(refused(FIXED, none, [0; 3]), Errno::EINVAL, "no access");
    assert_eq!(refused(READ, none, [0; 3]), Errno::ENOENT, "source");
    let no_target = [both[0], 78];
    assert_eq!(refused(READ, no_target, [0x1_0000, 0, 0]), Errno::EINVAL, "no length");
    assert_eq!(refused(READ, no_target, [0x1_0000, 0, u64::MAX - 1]), Errno::EOVERFLOW);
    assert_eq!(refused(READ, no_target, [0xf000, 0, PAGE]), Errno::ENOENT, "not mapped");
    assert_eq!(refused(READ, no_target, [0x1_0000, 0, 9 * PAGE]), Errno::ENOENT, "half mapped");
    assert_eq!(refused(READ, no_target, [0x1_0000, 0, PAGE]), Errno::ENOENT, "target");
    let onto = [0x1_0000, 0x1_1000, 2 * PAGE];
    assert_eq!(refused(READ | FIXED, [both[0]; 2], onto), Errno::EEXIST);
    let read_only = [0x1_3000, 0, 2 * PAGE];
    assert_eq!(refused(READ_WRITE, both, read_only), Errno::EPERM);
    assert_eq!(
        refused(READ_WRITE | FIXED, [both[0]; 2], [0x1_4000, 0x1_0000, PAGE]),
        Errno::EEXIST
    );
    assert_eq!(client.ctx.counts().areas, 2);
}

#[test]
fn a_part_of_several_areas_is_as_many_areas_elsewhere() {
    let (client, both) = two_spaces();
    let at = copy(&client, READ | FIXED, both, [0x1_1000, 0x50_0000, 6 * PAGE]).unwrap();
    assert_eq!((at, client.ctx.counts().areas), (0x50_0000, 4));
    assert_eq!(client.unmap(both[1], 0x50_0000, PAGE), Err(Errno::ENOENT), "a part of one");
    assert_eq!(client.unmap(both[1], 0x50_0000, 3 * PAGE), Ok(3 * PAGE));
    assert_eq!(client.unmap(both[1], 0x50_3000, 3 * PAGE), Ok(3 * PAGE));
    let first = copy(&client, READ, both, [0x1_1000, 0, 2 * PAGE]).unwrap();
    assert_eq!(first, 0x1000, "as aligned as the memory");
    let own = copy(&client, READ, [both[0]; 2], [0x1_0000, 0, PAGE]).unwrap();
    assert_eq!(own, 0x1000);
}

#[test]
fn devices_reach_the_same_memory_pinned_once() {
    let (client, both) = two_spaces();
    let device = attach(&client, both[0]);
    let pins = client.memory.pins();
    let other = Platform::new().bind(&client);
    other.attach(both[1]).unwrap();
    copy(&client, READ | FIXED, both, [0x1_3000, 0x7000, 2 * PAGE]).unwrap();
    assert_eq!(client.memory.pins(), pins, "shared");
    device.write(0x1_3ffe, &[7; 2]).unwrap();
    client.memory.write(VA + 0x2_0000, &[8; 2]).unwrap();
    let mut seen = [0; 4];
    other.read(0x7ffe, &mut seen).unwrap();
    assert_eq!(seen, [7, 7, 8, 8]);
    assert!(other.write(0x7ffe, &[1]).is_err(), "a copy for reading");
    // What was copied does not depend on where it came from.
    assert_eq!(client.unmap_all(both[0]), Ok(8 * PAGE));
    other.read(0x7ffe, &mut seen).unwrap();
    assert_eq!(seen, [7, 7, 8, 8]);
    assert_eq!(client.unmap_all(both[1]), Ok(2 * PAGE));
    assert_eq!(client.memory.pinned(), []);
}

#[test]
fn what_is_not_pinned_is_pinned_for_who_needs_it() {
    let (client, both) = two_spaces();
    let device = attach(&client, both[1]);
    client.memory.fail_pin_after(1);
    let refused = copy(&client, READ | FIXED, both, [0x1_3000, 0x7000, 2 * PAGE]);
    assert_eq!(refused, Err(Errno::ENOMEM));
    assert_eq!(client.memory.pinned(), [], "of both or none");
    copy(&client, READ | FIXED, both, [0x1_3000, 0x7000, 2 * PAGE]).unwrap();
    let pinned = client.memory.pinned();
    assert_eq!(pinned, [(VA + 0x3000, PAGE), (VA + 0x2_0000, PAGE)]);
    device.read(0x7000, &mut [0; 8192]).unwrap();
}

#[test]
fn memory_mapped_for_writing_may_be_copied_for_less_and_back() {
    let (client, both) = two_spaces();
    copy(&client, READ | FIXED, both, [0x1_0000, 0x9000, PAGE]).unwrap();
    copy(&client, READ_WRITE | FIXED, [both[1]; 2], [0x9000, 0xa000, PAGE]).unwrap();
    let device = attach(&client, both[1]);
    assert!(device.write(0x9000, &[1]).is_err());
    device.write(0xa000, &[1]).unwrap();
}

#[test]
fn files_are_copied_too() {
    let (client, both) = two_spaces();
    client.map_file(both[0], FILE, [0x3000, PAGE, 0x20_0000]).unwrap();
    copy(&client, READ_WRITE | FIXED, both, [0x20_0000, 0x30_0000, PAGE]).unwrap();
    let device = attach(&client, both[1]);
    device.write(0x30_0000, &[5; 3]).unwrap();
    let mut seen = [0; 3];
    client.file.read(0x3000, &mut seen).unwrap();
    assert_eq!(seen, [5; 3]);
}
