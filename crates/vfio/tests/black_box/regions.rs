//! Reads and writes of BARs, and positions in a device file.

use pci::regs::{command, header};
use uapi::Errno;
use uapi::vfio::region_index;

use crate::support::{MEMORY, MEMORY_SIZE, READ_ONLY, Stand, TABLE_AT, VECTORS, position};

const END: u64 = MEMORY + MEMORY_SIZE as u64;

#[test]
fn accesses_are_split_by_alignment() {
    let stand = Stand::new();
    let session = stand.bound();
    stand.function.accesses();
    let mut bytes = [0; 15];
    assert_eq!(session.read(position(0, 0x1001), &mut bytes), Ok(15));
    assert_eq!(
        stand.function.accesses(),
        ["read 0 0x1001 1", "read 0 0x1002 2", "read 0 0x1004 4", "read 0 0x1008 8"]
    );
    let data: Vec<u8> = (1..=15).collect();
    assert_eq!(session.write(position(0, 0x1008), &data), Ok(15));
    assert_eq!(
        stand.function.accesses(),
        ["write 0 0x1008 8", "write 0 0x1010 4", "write 0 0x1014 2", "write 0 0x1016 1"]
    );
    assert_eq!(stand.function.bar_bytes(0, 0x1008, 15), data);
    assert_eq!(session.read(position(4, 0), &mut bytes[..8]), Ok(8));
    assert_eq!(stand.function.accesses(), ["read 4 0x0 4", "read 4 0x4 4"], "ports have 32 bits");
    session.close();
}

#[test]
fn the_msix_table_is_the_hosts() {
    let stand = Stand::new();
    let session = stand.bound();
    stand.function.accesses();
    let table_end = TABLE_AT + u64::from(VECTORS) * 16;
    let mut bytes = [0; 0xa0];
    assert_eq!(session.write(position(0, TABLE_AT - 4), &[0x11; 0xa0]), Ok(0xa0));
    assert_eq!(session.read(position(0, TABLE_AT - 4), &mut bytes), Ok(0xa0));
    let table = usize::from(VECTORS) * 16;
    assert_eq!(bytes[..4], [0x11; 4]);
    assert!(bytes[4..4 + table].iter().all(|&byte| byte == 0xff));
    assert!(bytes[4 + table..].iter().all(|&byte| byte == 0x11));
    for access in stand.function.accesses() {
        let at = access.split(' ').nth(2).unwrap().strip_prefix("0x").unwrap();
        let at = u64::from_str_radix(at, 16).unwrap();
        assert!(!(TABLE_AT..table_end).contains(&at), "{access}");
    }
    session.close();
}

#[test]
fn ends_of_regions() {
    let stand = Stand::new();
    let session = stand.bound();
    let mut bytes = [0; 16];
    assert_eq!(session.read(position(0, 0x3ff8), &mut bytes), Ok(8), "cut off at the end");
    assert_eq!(session.write(position(2, 0xffc), &bytes), Ok(4));
    for (region, offset) in [(0, 0x4000), (1, 0), (2, 0x1000), (5, 0), (0, (1 << 40) - 1)] {
        let at = position(region, offset);
        assert_eq!(session.read(at, &mut bytes), Err(Errno::EINVAL), "{region} {offset:#x}");
        assert_eq!(session.write(at, &bytes), Err(Errno::EINVAL), "{region} {offset:#x}");
    }
    let rom = position(region_index::ROM, 0);
    assert_eq!(session.read(rom, &mut bytes), Err(Errno::EINVAL), "an absent ROM has no bytes");
    assert_eq!(session.write(rom, &bytes), Err(Errno::EINVAL));
    for at in [position(region_index::VGA, 0xa0000), position(9, 0), 0, u64::MAX, 1 << 61] {
        assert_eq!(session.read(at, &mut bytes), Err(Errno::EINVAL), "{at:#x}");
        assert_eq!(session.read(at, &mut []), Ok(0), "no bytes are always there");
    }
    session.close();
}

#[test]
fn without_memory_decoding_accesses_fail() {
    let stand = Stand::new();
    let session = stand.bound();
    let mut bytes = [0; 4];
    session.set_config(header::COMMAND, &0_u16.to_le_bytes());
    assert_eq!(session.read(position(0, 0), &mut bytes), Err(Errno::EIO));
    assert_eq!(session.write(position(0, 0), &bytes), Err(Errno::EIO));
    assert_eq!(session.read(position(0, 0x4000), &mut bytes), Err(Errno::EINVAL), "length first");
    assert_eq!(session.read(position(4, 0), &mut bytes), Ok(4), "ports are not memory");
    session.set_config(header::COMMAND, &command::MEMORY.to_le_bytes());
    assert_eq!(session.read(position(0, 0), &mut bytes), Ok(4));
    session.close();
}

#[test]
fn a_fault_halfway_keeps_what_was_done() {
    let stand = Stand::new();
    let session = stand.bound();
    session.client.put(END - 12, &[7; 12]);
    let write = |at, count, position| session.file.write(&session.client, at, count, position);
    assert_eq!(write(END - 12, 32, position(2, 0)), Err(Errno::EFAULT));
    let mut expected = vec![7; 8];
    expected.extend([7, 7, 7, 7, 0, 0, 0, 0]);
    expected[8..].fill(0);
    assert_eq!(stand.function.bar_bytes(2, 0, 16), expected, "an access is done whole or not");
    assert_eq!(write(END, 4, position(2, 0)), Err(Errno::EFAULT));
    let read = |to, count| session.file.read(&session.client, to, count, position(2, 0));
    assert_eq!(read(READ_ONLY, 8), Err(Errno::EFAULT));
    assert_eq!(read(0, 8), Err(Errno::EFAULT));
    assert_eq!(read(u64::MAX - 3, 0x1000), Err(Errno::EFAULT));
    session.close();
}

#[test]
fn a_large_read_is_copied_in_parts() {
    let stand = Stand::new();
    let session = stand.bound();
    let pattern: Vec<u8> = (0..0x3000).map(|i: u32| i.to_le_bytes()[1]).collect();
    assert_eq!(session.write(position(0, 0x1000), &pattern), Ok(0x3000));
    let mut back = vec![0; 0x3000];
    assert_eq!(session.read(position(0, 0x1000), &mut back), Ok(0x3000));
    assert!(back == pattern);
    session.close();
}
