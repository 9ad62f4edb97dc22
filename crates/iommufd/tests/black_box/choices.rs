//! `IOMMU_IOAS_ALLOW_IOVAS`, `IOMMU_OPTION` and `IOMMU_IOAS_CHANGE_PROCESS`.

use uapi::iommufd::{IoasAllowIovas, IoasChangeProcess, IommuOption, option, option_op};
use uapi::{CommandId, Errno};
use zerocopy::IntoBytes;

use crate::support::client::FILE;
use crate::support::{Client, MEMORY_BYTES, PAGE, Platform, READ_ONLY};

const VA: u64 = 0x10_0000;
const LIST: u64 = 0x20_0000;

fn allow(client: &Client, ioas_id: u32, ranges: &[(u64, u64)]) -> Result<(), Errno> {
    for (index, (start, last)) in (0..).zip(ranges) {
        client.memory.write(LIST + index * 16, [*start, *last].as_bytes()).unwrap();
    }
    let num_iovas = u32::try_from(ranges.len()).unwrap();
    let argument =
        IoasAllowIovas { ioas_id, num_iovas, allowed_iovas: LIST, ..IoasAllowIovas::default() };
    client.call(CommandId::IoasAllowIovas, argument).map(|_| ())
}

#[test]
fn addresses_are_chosen_where_they_are_allowed() {
    let client = Client::open();
    let ioas = client.ioas();
    allow(&client, ioas, &[(0x9000_0000, 0x9000_1fff), (0x5000, 0x6fff)]).unwrap();
    let chosen: Vec<_> =
        (0..4).map(|_| client.map_anywhere(ioas, VA + PAGE, PAGE).unwrap()).collect();
    assert_eq!(chosen, [0x5000, 0x6000, 0x9000_0000, 0x9000_1000]);
    assert_eq!(client.map_anywhere(ioas, VA, PAGE), Err(Errno::ENOSPC));
    assert_eq!(client.map_at(ioas, 0x1000, VA, PAGE), Ok(0x1000), "fixed ones may be anywhere");
    assert_eq!(client.ranges(ioas), (vec![(0, u64::MAX)], 1));
    allow(&client, ioas, &[]).unwrap();
    assert_eq!(client.map_anywhere(ioas, VA, PAGE), Ok(0x2000));
}

#[test]
fn ranges_that_touch_are_one_and_begin_where_they_are_rounded() {
    let client = Client::open();
    let ioas = client.ioas();
    allow(&client, ioas, &[(0x5000, 0x5fff), (0x6000, 0x6fff)]).unwrap();
    assert_eq!(client.map_anywhere(ioas, VA + PAGE, 2 * PAGE), Ok(0x5000), "across both");
    allow(&client, ioas, &[(0, u64::MAX)]).unwrap();
    assert_eq!(client.map_anywhere(ioas, VA, 0x400), Ok(0x1000), "never 0");
    // As far into its page as the memory is, as a look from 0x1400 on would not have it.
    assert_eq!(client.map_anywhere(ioas, VA + 0x800, 0x400), Ok(0x1800));
}

#[test]
fn a_bad_list_changes_nothing() {
    let client = Client::open();
    let ioas = client.ioas();
    allow(&client, ioas, &[(0x5000, 0x6fff)]).unwrap();
    assert_eq!(allow(&client, ioas, &[(0x1000, 0x1000)]), Err(Errno::EINVAL), "one byte");
    assert_eq!(allow(&client, ioas, &[(2, 1)]), Err(Errno::EINVAL));
    assert_eq!(allow(&client, ioas, &[(1, 9), (5, 12)]), Err(Errno::EINVAL), "overlapping");
    assert_eq!(allow(&client, 77, &[(2, 1)]), Err(Errno::ENOENT));
    let end = 0x1000 + MEMORY_BYTES;
    client.memory.write(end - 16, [1_u64, 9].as_bytes()).unwrap();
    let beyond = IoasAllowIovas {
        ioas_id: ioas,
        num_iovas: 2,
        allowed_iovas: end - 16,
        ..IoasAllowIovas::default()
    };
    assert_eq!(client.call(CommandId::IoasAllowIovas, beyond).err(), Some(Errno::EFAULT));
    assert_eq!(client.map_anywhere(ioas, VA, PAGE), Ok(0x5000));
}

#[test]
fn what_is_allowed_and_what_is_reserved_exclude_each_other() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    allow(&client, ioas, &[(0xfee0_0000, 0xfee0_ffff)]).unwrap();
    assert_eq!(device.attach(ioas).unwrap_err().errno(), Errno::EADDRINUSE, "the MSI window");
    allow(&client, ioas, &[(1 << 48, (1 << 48) + 1)]).unwrap();
    assert_eq!(device.attach(ioas).unwrap_err().errno(), Errno::EADDRINUSE, "the aperture");
    allow(&client, ioas, &[(0x1000, 0xffff)]).unwrap();
    device.attach(ioas).unwrap();
    assert_eq!(allow(&client, ioas, &[(0xfee0_0000, 0xfee0_ffff)]), Err(Errno::EADDRINUSE));
    assert_eq!(client.map_anywhere(ioas, VA, PAGE), Ok(0x1000), "the old list stays");
}

fn set(client: &Client, option_id: u32, object_id: u32, val64: u64) -> Result<u64, Errno> {
    ask(client, option_id, option_op::SET, object_id, val64)
}

fn get(client: &Client, option_id: u32, object_id: u32) -> Result<u64, Errno> {
    ask(client, option_id, option_op::GET, object_id, 99)
}

fn ask(client: &Client, option_id: u32, op: u16, object_id: u32, val64: u64) -> Result<u64, Errno> {
    let argument = IommuOption { option_id, op, object_id, val64, ..IommuOption::default() };
    client.call(CommandId::IommuOption, argument).map(|answer| answer.val64)
}

#[test]
fn limits_are_of_the_context_and_set_before_there_are_objects() {
    const MODE: u32 = option::RLIMIT_MODE;
    let client = Client::open();
    assert_eq!(get(&client, MODE, 0), Ok(0));
    assert_eq!(set(&client, MODE, 0, 2), Err(Errno::EINVAL));
    assert_eq!(set(&client, MODE, 0, 1), Ok(1));
    assert_eq!(get(&client, MODE, 0), Ok(1));
    for op in [option_op::GET, option_op::SET] {
        assert_eq!(ask(&client, MODE, op, 1, 0), Err(Errno::EOPNOTSUPP));
    }
    assert_eq!(ask(&client, MODE, 2, 0, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(ask(&client, 2, option_op::GET, 0, 0), Err(Errno::EOPNOTSUPP));
    let ioas = client.ioas();
    assert_eq!(set(&client, MODE, 0, 7), Err(Errno::EBUSY));
    client.destroy(ioas).unwrap();
    assert_eq!(set(&client, MODE, 0, 0), Ok(0));
}

#[test]
fn without_large_pages_addresses_are_whole_pages() {
    const HUGE: u32 = option::HUGE_PAGES;
    let client = Client::open();
    let ioas = client.ioas();
    assert_eq!(get(&client, HUGE, 77), Err(Errno::ENOENT));
    assert_eq!(get(&client, HUGE, ioas), Ok(1));
    assert_eq!(ask(&client, HUGE, 2, ioas, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(set(&client, HUGE, ioas, 2), Err(Errno::EINVAL));
    client.map_at(ioas, 0x1010, VA + 0x10, 0x20).unwrap();
    assert_eq!(set(&client, HUGE, ioas, 0), Err(Errno::EADDRINUSE));
    client.unmap_all(ioas).unwrap();
    assert_eq!(set(&client, HUGE, ioas, 0), Ok(0));
    assert_eq!((get(&client, HUGE, ioas), client.ranges(ioas).1), (Ok(0), PAGE));
    assert_eq!(client.map_at(ioas, 0x1010, VA + 0x10, 0x20), Err(Errno::EINVAL));
    assert_eq!(set(&client, HUGE, ioas, 1), Ok(1));
    assert_eq!(client.ranges(ioas).1, 1);
    let device = Platform::new().bind(&client);
    device.attach(ioas).unwrap();
    client.map_at(ioas, 0x1000, VA, PAGE).unwrap();
    assert_eq!(set(&client, HUGE, ioas, 0), Err(Errno::EINVAL), "a page table shows areas");
}

#[test]
fn an_option_that_cannot_be_answered_is_a_fault() {
    let mut client = Client::open();
    let ioas = client.ioas();
    client.at = READ_ONLY.start;
    let argument = IommuOption {
        option_id: option::HUGE_PAGES,
        op: option_op::GET,
        object_id: ioas,
        ..IommuOption::default()
    };
    assert_eq!(client.call(CommandId::IommuOption, argument).err(), Some(Errno::EFAULT));
}

#[test]
fn only_files_can_be_handed_to_another_process() {
    let client = Client::open();
    let change =
        || client.call(CommandId::IoasChangeProcess, IoasChangeProcess::default()).map(|_| ());
    assert_eq!(change(), Ok(()));
    let (one, two) = (client.ioas(), client.ioas());
    client.map_file(two, FILE, [0, PAGE, 0x1000]).unwrap();
    assert_eq!(change(), Ok(()));
    client.map_at(one, 0x1000, VA, PAGE).unwrap();
    assert_eq!(change(), Err(Errno::EINVAL));
}
