//! Accesses: software that pins and copies what an address space maps, behind files that the test interface gives.

use iommufd::mock::{Charged, MockMachine};
use uapi::iommufd::{IoasChangeProcess, IommuOption, map_flags, option, option_op};
use uapi::{CommandId, Errno};

use crate::support::client::{FILE, PROCESS, READ_WRITE};
use crate::support::test_command::{Long, Word, op};
use crate::support::{Client, MEMORY_END, PAGE, READ_ONLY};

const VA: u64 = 0x10_0000;
const IOVA: u64 = 0x100_0000;
/// Where a client keeps bytes that it copies.
const BUFFER: u64 = 0x20_0000;

const PINS: u32 = 1;
const WRITE: u32 = 1;
const SLOW: u32 = 4;
const BY_AREA: u32 = 1 << 16;

struct World {
    client: Client,
    ioas: u32,
}

impl World {
    /// A client with four pages mapped, for reading and writing.
    fn new() -> Self {
        let client = Client::open_mock(&MockMachine::new());
        let ioas = client.ioas();
        client.map_at(ioas, IOVA, VA, 4 * PAGE).unwrap();
        Self { client, ioas }
    }

    fn access(&self, flags: u32) -> i32 {
        self.client.create_access(self.ioas, flags).unwrap()
    }
}

/// Ends an access, as its last close does.
fn close(client: &Client, fd: i32) {
    client.access_file(fd).unwrap().release();
}

#[test]
fn creation_is_refused_in_order() {
    let World { client, ioas, .. } = World::new();
    assert_eq!(client.create_access(99, 2), Err(Errno::EOPNOTSUPP));
    assert_eq!(client.create_access(99, PINS), Err(Errno::ENOENT));
    client.map_at(ioas, IOVA + 0x10_0000, VA + 1, 1).unwrap();
    assert_eq!(client.create_access(ioas, PINS), Err(Errno::EADDRINUSE));
    let fd = client.create_access(ioas, 0).unwrap();
    assert_eq!(client.destroy(ioas), Err(Errno::EBUSY));
    close(&client, fd);
    assert_eq!(client.destroy(ioas), Ok(()));
    assert_eq!(client.ctx.counts().objects(), 0);
}

#[test]
fn an_access_is_an_object_that_only_its_file_ends() {
    let World { client, ioas, .. } = World::new();
    let fd = client.create_access(ioas, 0).unwrap();
    let access = ioas + 1;
    assert_eq!(client.destroy(access), Err(Errno::EBUSY));
    close(&client, fd);
    assert_eq!(client.destroy(access), Err(Errno::ENOENT));
    assert_eq!(client.ioas(), access, "its id is free");
    assert_eq!(client.access_copy(fd, 0, [IOVA, 1, BUFFER]), Err(Errno::ENOENT));
}

#[test]
fn an_access_keeps_its_context_open() {
    let World { client, ioas, .. } = World::new();
    let fd = client.create_access(ioas, PINS).unwrap();
    client.access_pin(fd, 0, [IOVA, PAGE, 0]).unwrap();
    client.ctx.put_file();
    assert!(client.ctx.is_open());
    assert_eq!(client.memory.pinned(), [(VA, PAGE)]);
    close(&client, fd);
    assert!(!client.ctx.is_open());
    assert_eq!(client.memory.pinned(), []);
}

#[test]
fn a_pin_is_refused_in_order() {
    const MUCH: u64 = (16 << 20) + 1;
    let world = World::new();
    let (client, fd) = (&world.client, world.access(PINS));
    let pin = |flags, place| client.access_pin(fd, flags, place);
    assert_eq!(pin(8, [0, MUCH, 0]), Err(Errno::ENOMEM));
    assert_eq!(client.access_pin(7, 8, [0, 0, 0]), Err(Errno::EOPNOTSUPP));
    assert_eq!(client.access_pin(7, 0, [0, 0, 0]), Err(Errno::EBADFD));
    let unpinning = world.access(0);
    assert_eq!(client.access_pin(unpinning, 0, [0, 0, 0]), Err(Errno::EOPNOTSUPP));
    assert_eq!(pin(0, [IOVA, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(pin(0, [u64::MAX, 2, 0]), Err(Errno::EOVERFLOW));
    assert_eq!(pin(0, [IOVA + 1, PAGE, 0]), Err(Errno::EINVAL));
    assert_eq!(pin(0, [IOVA, 5 * PAGE, 0]), Err(Errno::ENOENT));
    assert_eq!(pin(0, [IOVA, PAGE, VA + PAGE]), Err(Errno::EBADE));
    assert_eq!(pin(0, [IOVA, PAGE, 0x10]), Err(Errno::EFAULT));
    assert_eq!(client.memory.pinned(), [], "what is refused pins nothing");
    let flags = map_flags::READABLE | map_flags::FIXED_IOVA;
    client.map(world.ioas, flags, IOVA + 4 * PAGE, READ_ONLY.start, PAGE).unwrap();
    assert_eq!(pin(WRITE, [IOVA + 3 * PAGE, 2 * PAGE, 0]), Err(Errno::EPERM));
    client.map_at(world.ioas, IOVA + 5 * PAGE, u64::MAX - 2 * PAGE + 1, PAGE).unwrap();
    assert_eq!(pin(0, [IOVA, 6 * PAGE, 0]), Err(Errno::EFAULT));
    assert_eq!(client.memory.pinned(), []);
    assert!(pin(0, [IOVA, 5 * PAGE, 0]).is_ok());
}

#[test]
fn pages_are_pinned_once_by_areas_and_accesses_together() {
    let world = World::new();
    let (client, fd) = (&world.client, world.access(PINS));
    let refs = |page, pins| client.check_refs(VA + page * PAGE, PAGE, pins);
    assert_eq!(refs(0, 0), Ok(()));
    let first = client.access_pin(fd, 0, [IOVA, 2 * PAGE, VA]).unwrap();
    let second = client.access_pin(fd, WRITE, [IOVA + PAGE, PAGE, VA + PAGE]).unwrap();
    assert_ne!(first, second);
    assert_eq!([refs(0, 1), refs(1, 1), refs(2, 0)], [Ok(()); 3]);
    assert_eq!(refs(0, 2), Err(Errno::EIO));
    let [stdev, ..] = client.mock_device(world.ioas).unwrap();
    assert_eq!([refs(0, 1), refs(2, 1)], [Ok(()); 2]);
    // The same memory mapped by another command is pinned once more.
    client.map_at(world.ioas, IOVA + 8 * PAGE, VA, PAGE).unwrap();
    assert_eq!([refs(0, 2), refs(1, 1)], [Ok(()); 2]);
    client.destroy(stdev).unwrap();
    assert_eq!([refs(0, 1), refs(1, 1), refs(2, 0)], [Ok(()); 3]);
    client.access_unpin(fd, first).unwrap();
    assert_eq!([refs(0, 0), refs(1, 1)], [Ok(()); 2]);
    assert_eq!(client.access_unpin(fd, first), Err(Errno::ENOENT));
    close(client, fd);
    assert_eq!(refs(1, 0), Ok(()));
    assert_eq!(client.memory.pinned(), []);
}

#[test]
fn unmapping_takes_pins_away_and_no_more_of_them_than_it_unmaps() {
    let World { client, ioas, .. } = World::new();
    let next = IOVA + 4 * PAGE;
    client.map_at(ioas, next, VA + 4 * PAGE, 4 * PAGE).unwrap();
    let fd = client.create_access(ioas, PINS).unwrap();
    let pin = |iova, pages| client.access_pin(fd, 0, [iova, pages * PAGE, 0]).unwrap();
    let (low, across, high) = (pin(IOVA, 1), pin(IOVA + 3 * PAGE, 2), pin(next + PAGE, 1));
    // The upper area sticks out: the lower one goes, and what it was pinned by.
    assert_eq!(client.unmap(ioas, IOVA, 5 * PAGE), Err(Errno::ENOENT));
    assert_eq!(client.access_unpin(fd, low), Err(Errno::ENOENT));
    assert_eq!(client.access_unpin(fd, across), Err(Errno::ENOENT));
    assert_eq!(client.memory.pinned(), [(VA + 5 * PAGE, PAGE)]);
    assert_eq!(client.access_unpin(fd, high), Ok(()));
    pin(next, 4);
    assert_eq!(client.unmap_all(ioas), Ok(4 * PAGE));
    assert_eq!(client.memory.pinned(), []);
}

#[test]
fn what_is_unmapped_while_it_is_being_pinned_is_not_pinned() {
    let World { client, ioas, .. } = World::new();
    let fd = client.create_access(ioas, PINS).unwrap();
    let other = client.thread(1);
    client.memory.during_next_pin(move || {
        assert_eq!(other.unmap_all(ioas), Ok(4 * PAGE));
    });
    assert_eq!(client.access_pin(fd, 0, [IOVA, PAGE, 0]), Err(Errno::ENOENT));
    assert_eq!(client.memory.pinned(), []);
}

#[test]
fn copies_cross_areas_and_keep_to_their_rights() {
    let world = World::new();
    let (client, fd) = (&world.client, world.access(0));
    let flags = map_flags::READABLE | map_flags::FIXED_IOVA;
    client.map(world.ioas, flags, IOVA + 4 * PAGE, VA + 8 * PAGE, PAGE).unwrap();
    client.memory.write(BUFFER, b"across").unwrap();
    client.memory.write(VA + 8 * PAGE, b"oss").unwrap();
    client.memory.write(VA + 4 * PAGE - 3, b"acr").unwrap();
    let at = IOVA + 4 * PAGE - 3;
    for flags in [0, SLOW] {
        client.memory.write(BUFFER, &[0; 6]).unwrap();
        client.access_copy(fd, flags, [at, 6, BUFFER]).unwrap();
        let mut read = [0; 6];
        client.memory.read(BUFFER, &mut read).unwrap();
        assert_eq!(&read, b"across");
    }
    assert_eq!(client.access_copy(fd, WRITE, [at, 6, BUFFER]), Err(Errno::EPERM));
    client.memory.write(BUFFER, b"xyz").unwrap();
    client.access_copy(fd, WRITE, [at, 3, BUFFER]).unwrap();
    let mut written = [0; 3];
    client.memory.read(VA + 4 * PAGE - 3, &mut written).unwrap();
    assert_eq!(&written, b"xyz");
    assert_eq!(client.memory.pinned(), []);
    client.access_copy(fd, WRITE | BY_AREA, [5 << 32, 3, BUFFER]).unwrap();
    client.memory.read(VA + 5, &mut written).unwrap();
    assert_eq!(&written, b"xyz", "offset 5 of area 0");
}

#[test]
fn a_copy_is_refused_in_order() {
    const MUCH: u64 = (16 << 20) + 1;
    let world = World::new();
    let (client, fd) = (&world.client, world.access(0));
    assert_eq!(client.access_copy(7, 2, [0, MUCH, 0]), Err(Errno::ENOMEM));
    assert_eq!(client.access_copy(7, 2, [0, 1, 0]), Err(Errno::EOPNOTSUPP));
    assert_eq!(client.access_copy(7, 0, [0, 1, 0]), Err(Errno::EBADFD));
    assert_eq!(client.access_copy(fd, WRITE, [0, 1, 0]), Err(Errno::EFAULT));
    assert_eq!(client.access_copy(fd, 0, [IOVA, 0, BUFFER]), Err(Errno::EINVAL));
    assert_eq!(client.access_copy(fd, 0, [u64::MAX, 2, BUFFER]), Err(Errno::EOVERFLOW));
    assert_eq!(client.access_copy(fd, 0, [0, 1, BUFFER]), Err(Errno::ENOENT));
    assert_eq!(client.access_copy(fd, 0, [IOVA, 1, 0]), Err(Errno::EFAULT));
}

#[test]
fn a_moved_access_leaves_its_pins_behind() {
    let World { client, ioas, .. } = World::new();
    let fd = client.create_access(ioas, PINS).unwrap();
    let number = client.access_pin(fd, 0, [IOVA, PAGE, 0]).unwrap();
    assert_eq!(client.access_replace(7, ioas), Err(Errno::EBADFD));
    assert_eq!(client.access_replace(fd, 99), Err(Errno::ENOENT));
    assert_eq!(client.access_replace(fd, ioas), Ok(()));
    assert_eq!(client.memory.pinned(), [(VA, PAGE)], "it is there already");
    let odd = client.ioas();
    client.map_at(odd, IOVA, VA + 1, 1).unwrap();
    assert_eq!(client.access_replace(fd, odd), Err(Errno::EADDRINUSE));
    assert_eq!(client.memory.pinned(), [(VA, PAGE)], "a refusal changes nothing");
    let other = client.ioas();
    assert_eq!(client.access_replace(fd, other), Ok(()));
    assert_eq!(client.memory.pinned(), []);
    assert_eq!(client.access_unpin(fd, number), Err(Errno::ENOENT));
    assert_eq!(client.destroy(ioas), Ok(()));
    assert_eq!(client.destroy(other), Err(Errno::EBUSY));
}

#[test]
fn an_access_that_pins_keeps_areas_to_whole_pages() {
    let World { client, ioas, .. } = World::new();
    assert_eq!(client.ranges(ioas).1, 1);
    let fd = client.create_access(ioas, PINS).unwrap();
    assert_eq!(client.ranges(ioas).1, PAGE);
    assert_eq!(client.map_at(ioas, 0x10, VA, PAGE), Err(Errno::EINVAL));
    close(&client, fd);
    assert_eq!(client.ranges(ioas).1, 1);
}

#[test]
fn charges_are_told_by_process_and_handed_over() {
    let machine = MockMachine::new();
    let client = Client::open_mock(&machine);
    let by_process = IommuOption {
        option_id: option::RLIMIT_MODE,
        op: option_op::SET,
        val64: 1,
        ..IommuOption::default()
    };
    client.call(CommandId::IommuOption, by_process).unwrap();
    let ioas = client.ioas();
    client.map_at(ioas, IOVA, VA, 2 * PAGE).unwrap();
    assert_eq!(machine.charged(PROCESS), Charged::default(), "nothing is pinned");
    client.mock_device(ioas).unwrap();
    let two_pages = Charged { pinned_bytes: 2 * PAGE, locked_bytes: 2 * PAGE };
    assert_eq!(machine.charged(PROCESS), two_pages);
    assert_eq!(machine.charged(PROCESS + 1), Charged::default());
    let change = || client.call(CommandId::IoasChangeProcess, IoasChangeProcess::default());
    assert_eq!(change().err(), Some(Errno::EINVAL), "memory of a process");
    client.unmap_all(ioas).unwrap();
    client.map_file(ioas, FILE, [0, PAGE, IOVA]).unwrap();
    change().unwrap();
    let page = Charged { pinned_bytes: PAGE, locked_bytes: PAGE };
    assert_eq!(machine.charged(PROCESS), page);
    // A copy is the same pages.
    let other = client.ioas();
    let copy = uapi::iommufd::IoasCopy {
        flags: READ_WRITE | map_flags::FIXED_IOVA,
        dst_ioas_id: other,
        src_ioas_id: ioas,
        length: PAGE,
        src_iova: IOVA,
        dst_iova: IOVA,
        ..uapi::iommufd::IoasCopy::default()
    };
    client.call(CommandId::IoasCopy, copy).unwrap();
    client.mock_device(other).unwrap();
    assert_eq!(machine.charged(PROCESS), page);
}

#[test]
fn reserved_ranges_of_a_test_last() {
    let World { client, ioas, .. } = World::new();
    let reserve = |ioas, start, length| {
        client.test(op::ADD_RESERVED, ioas, &[Long(16, start), Long(24, length)]).map(|_| ())
    };
    assert_eq!(reserve(ioas, 0, 0), Err(Errno::EINVAL));
    assert_eq!(reserve(ioas, u64::MAX, 2), Err(Errno::EOVERFLOW));
    assert_eq!(reserve(99, 0, PAGE), Err(Errno::ENOENT));
    assert_eq!(reserve(ioas, IOVA, PAGE), Err(Errno::EADDRINUSE));
    assert_eq!(reserve(ioas, 0, PAGE), Ok(()));
    assert_eq!(client.map_at(ioas, 0, VA, PAGE), Err(Errno::EINVAL));
    assert_eq!(
        client.test(op::MOCK_DOMAIN_REPLACE, 99, &[Word(16, ioas)]).err(),
        Some(Errno::ENOENT)
    );
}

/// Areas are come to one after the other, and what befalls one is told before the next is looked at.
#[test]
fn memory_that_is_not_there_is_told_before_a_hole_behind_it() {
    let World { client, ioas } = World::new();
    let bad = IOVA + 0x10_0000;
    client.map_at(ioas, bad, MEMORY_END, PAGE).unwrap();
    let fd = client.create_access(ioas, PINS).unwrap();
    for write in [0, WRITE] {
        assert_eq!(client.access_copy(fd, write, [bad, 2 * PAGE, BUFFER]), Err(Errno::EFAULT));
        assert_eq!(client.access_pin(fd, write, [bad, 2 * PAGE, 0]), Err(Errno::EFAULT));
    }
    let before = IOVA + 3 * PAGE;
    assert_eq!(client.access_copy(fd, 0, [before, 2 * PAGE, BUFFER]), Err(Errno::ENOENT));
    assert_eq!(client.access_pin(fd, 0, [before, 2 * PAGE, 0]), Err(Errno::ENOENT));
    assert_eq!(client.memory.pinned(), []);
    assert_eq!(client.access_pin(fd, 0, [before, PAGE, 0]), Ok(0), "no number was used up");
    close(&client, fd);
}
