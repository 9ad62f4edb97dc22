//! `IOMMU_IOAS_MAP`: the order of refusals, placement, and that nothing is touched before it is needed.

use iommufd::{Reserved, ReservedKind};
use span::Span;
use uapi::iommufd::{IoasMap, map_flags};
use uapi::{CommandId, Errno};

use crate::support::{Client, PAGE, Platform, READ_ONLY, plain};

const VA: u64 = 0x10_0000;
const FIXED: u32 = map_flags::FIXED_IOVA;
const READ: u32 = map_flags::READABLE;

#[test]
fn refuses_in_the_kernels_order() {
    let client = Client::open();
    let ioas = client.ioas();
    let map = |ioas, flags, iova, va, length| client.map(ioas, flags, iova, va, length);
    // Each call is wrong in what its line tests and in everything that is tested later.
    let max = u64::MAX;
    assert_eq!(map(9, 8, max, max, max), Err(Errno::EOPNOTSUPP));
    assert_eq!(map(9, 0, max, max, 0), Err(Errno::EOVERFLOW));
    assert_eq!(map(9, 0, 0, max, max), Err(Errno::EOVERFLOW));
    assert_eq!(map(9, FIXED, 1, max, 0), Err(Errno::EINVAL));
    assert_eq!(map(9, READ, 1, max, 1), Err(Errno::ENOENT));
    assert_eq!(map(ioas, READ, 1, max, 1), Err(Errno::EOVERFLOW));
    assert_eq!(map(ioas, READ, 1, max, 0), Err(Errno::EINVAL));
    assert_eq!(map(ioas, READ, 1, 0, max - 1), Err(Errno::EINVAL));
    assert_eq!(map(ioas, READ, 0, 0, max / 2), Err(Errno::EOVERFLOW));
    assert_eq!(map(ioas, READ | FIXED, PAGE + 2, 0, max - PAGE), Err(Errno::EOVERFLOW));
}

#[test]
fn all_ones_as_address_overflows_even_where_it_is_not_used() {
    let client = Client::open();
    let ioas = client.ioas();
    assert_eq!(client.map(ioas, READ, u64::MAX, VA, PAGE), Err(Errno::EOVERFLOW));
}

#[test]
fn with_a_page_table_everything_is_aligned_to_pages() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    let fixed = |iova, va, length| client.map_at(ioas, iova, va, length);
    assert_eq!(fixed(0x1000, VA, 0x800), Err(Errno::EINVAL));
    assert_eq!(fixed(0x1800, VA, 0x1000), Err(Errno::EINVAL));
    assert_eq!(fixed(0x1000, VA + 0x800, 0x1000), Err(Errno::EINVAL));
    assert_eq!(client.map_anywhere(ioas, VA + 0x800, 0x1000), Err(Errno::EINVAL));
    // A misaligned address is seen before an occupied one, an occupied one before misaligned memory.
    fixed(0x1000, VA, 0x1000).unwrap();
    assert_eq!(fixed(0x1001, VA, 0x1000), Err(Errno::EINVAL));
    assert_eq!(fixed(0x1000, VA + 0x800, 0x1000), Err(Errno::EEXIST));
    // A reserved span is seen before an area: it is not reached by one that covers both.
    fixed(0xfedf_f000, VA, 0x1000).unwrap();
    assert_eq!(fixed(0xfedf_f000, VA, 0x2000), Err(Errno::EINVAL));
    assert_eq!(fixed(0xfee0_0000, VA, 0x1000), Err(Errno::EINVAL));
    assert_eq!(fixed(1 << 48, VA, 0x1000), Err(Errno::EINVAL));
    assert_eq!(fixed(u64::MAX - 0xfff, VA, 0x2000), Err(Errno::EOVERFLOW));
}

#[test]
fn without_a_page_table_bytes_can_be_mapped() {
    let client = Client::open();
    let ioas = client.ioas();
    client.map_at(ioas, 3, VA + 1, 5).unwrap();
    assert_eq!(client.map_at(ioas, 7, VA, 1), Err(Errno::EEXIST));
    client.map_at(ioas, 8, VA, 1).unwrap();
    client.map_at(ioas, u64::MAX - 1, VA, 1).unwrap();
    assert_eq!(client.ctx.counts().mapped_bytes, 7);
}

#[test]
fn automatic_addresses_are_first_fit_and_aligned_like_the_memory() {
    let client = Client::open();
    let ioas = client.ioas();
    let map = |va, length| client.map_anywhere(ioas, va, length).unwrap();
    assert_eq!(map(0x7fff_0000_0000, 0x1000), 0x1000);
    assert_eq!(map(0x7fff_0000_0000, 0x1000), 0x2000);
    assert_eq!(map(0x7fff_0000_0000, 0x3000), 0x4000);
    assert_eq!(map(0x7fff_0000_0000, 0x1000), 0x3000);
    assert_eq!(map(0x7fff_0000_0123, 0x10), 0x7123);
    assert_eq!(map(0x4000_0000, 1 << 30), 0x20_0000);
    assert_eq!(client.unmap(ioas, 0x2000, 0x1000), Ok(0x1000));
    assert_eq!(map(0x7fff_0000_0000, 0x1000), 0x2000);
}

#[test]
fn automatic_addresses_avoid_what_is_reserved() {
    let mut geometry = plain();
    let low = Span::from_ends(0, 0x2_0fff).unwrap();
    geometry.reserved.push(Reserved { span: low, kind: ReservedKind::Reserved });
    let client = Client::open();
    let device = Platform::behind(geometry).bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    assert_eq!(client.map_anywhere(ioas, VA, PAGE), Ok(0x2_1000));
    assert_eq!(client.map_anywhere(ioas, VA, 4 * PAGE), Ok(0x2_4000));
}

#[test]
fn a_full_address_space_has_no_room() {
    let client = Client::open();
    let ioas = client.ioas();
    client.map_at(ioas, 0, 0, 1 << 63).unwrap();
    client.map_at(ioas, 1 << 63, 0, (1 << 63) - PAGE).unwrap();
    assert_eq!(client.map_anywhere(ioas, VA, PAGE), Err(Errno::ENOSPC));
}

#[test]
fn nothing_is_touched_before_a_page_table_needs_it() {
    let client = Client::open();
    let ioas = client.ioas();
    client.map_at(ioas, 0x1000, 0xdead_0000, PAGE).unwrap();
    client.map_at(ioas, 0x3000, VA, PAGE).unwrap();
    assert_eq!(client.memory.pins(), 0);
    let counts = client.ctx.counts();
    assert_eq!((counts.areas, counts.mapped_bytes, counts.pinned_bytes), (2, 2 * PAGE, 0));
}

#[test]
fn with_a_page_table_memory_is_pinned_before_the_command_returns() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    client.map_at(ioas, 0x1000, VA, 2 * PAGE).unwrap();
    assert_eq!(client.memory.pinned(), [(VA, 2 * PAGE)]);
    assert_eq!(client.map_at(ioas, 0x10_0000, 0xdead_0000, PAGE), Err(Errno::EFAULT));
    assert_eq!(client.unmap(ioas, 0x10_0000, PAGE), Err(Errno::ENOENT));
    client.memory.fail_pin_after(0);
    assert_eq!(client.map_at(ioas, 0x10_0000, VA, PAGE), Err(Errno::ENOMEM));
    client.map_at(ioas, 0x10_0000, VA, PAGE).unwrap();
    assert_eq!(client.ctx.counts().pinned_bytes, 3 * PAGE);
}

#[test]
fn an_answer_that_cannot_be_written_leaves_the_mapping() {
    let mut client = Client::open();
    let ioas = client.ioas();
    client.at = READ_ONLY.start;
    assert_eq!(client.map_anywhere(ioas, VA, PAGE), Err(Errno::EFAULT));
    assert_eq!(client.ctx.counts().areas, 1);
}

#[test]
fn a_fixed_address_needs_no_answer() {
    let mut client = Client::open();
    let ioas = client.ioas();
    client.at = READ_ONLY.start;
    assert_eq!(client.map_at(ioas, 0x5000, VA, PAGE), Ok(0x5000));
}

#[test]
fn only_the_address_is_answered() {
    let client = Client::open();
    let ioas_id = client.ioas();
    let argument =
        IoasMap { flags: READ, ioas_id, user_va: VA, length: PAGE, ..IoasMap::default() };
    let answer = client.call(CommandId::IoasMap, argument).unwrap();
    assert_eq!(answer, IoasMap { size: 40, iova: 0x1000, ..argument });
}

#[test]
fn all_of_an_address_space_can_be_mapped_and_counted() {
    const HALF: u64 = 1 << 63;
    let client = Client::open();
    let spaces = [client.ioas(), client.ioas()];
    for ioas in spaces {
        for iova in [0, HALF] {
            assert_eq!(client.map_at(ioas, iova, 0, HALF), Ok(iova));
        }
    }
    let counts = client.ctx.counts();
    assert_eq!((counts.areas, counts.mapped_bytes), (4, u64::MAX), "as many as can be said");
    assert_eq!(client.unmap_all(spaces[0]), Ok(0), "their number is 2^64, which is no length");
    assert_eq!(client.ctx.counts().areas, 2);
    assert_eq!(client.unmap(spaces[1], HALF, HALF), Ok(HALF));
    assert_eq!(client.ctx.counts().mapped_bytes, HALF);
}
