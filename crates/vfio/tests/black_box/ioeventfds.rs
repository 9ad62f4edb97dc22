//! Eventfds that write to BARs.

use uapi::vfio::{Ioeventfd, ioeventfd_flags, region_index};
use uapi::{CommandId, Errno};
use vfio::Settings;

use crate::support::{
    Session, Shape, Stand, TABLE_AT, VECTORS, Watcher, config_position, position,
};

const DATA: u64 = 0x8877_6655_4433_2211;

fn stand() -> (Stand, Watcher) {
    let watcher = Watcher::default();
    let settings =
        Settings { watch: Some(std::sync::Arc::new(watcher.clone())), ..Settings::default() };
    (Stand::shaped(Shape::default(), settings), watcher)
}

fn asked(offset: u64, width: u32, fd: i32) -> Ioeventfd {
    Ioeventfd { argsz: 32, flags: width, offset, data: DATA, fd, reserved: 0 }
}

fn ask(session: &Session, offset: u64, width: u32, fd: i32) -> Result<u32, Errno> {
    session.call(CommandId::DeviceIoeventfd, &mut asked(offset, width, fd))
}

#[test]
fn each_width_is_written_where_it_was_asked_for() {
    let (stand, watcher) = stand();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    let cases: &[(u32, u64, u32, &[&str])] = &[
        (0, 0x1000, ioeventfd_flags::BITS_8, &["write 0 0x1000 1"]),
        (0, 0x1002, ioeventfd_flags::BITS_16, &["write 0 0x1002 2"]),
        (0, 0x1004, ioeventfd_flags::BITS_32, &["write 0 0x1004 4"]),
        (0, 0x1008, ioeventfd_flags::BITS_64, &["write 0 0x1008 8"]),
        (0, 0x1011, ioeventfd_flags::BITS_16, &["write 0 0x1011 1", "write 0 0x1012 1"]),
        (4, 0, ioeventfd_flags::BITS_64, &["write 4 0x0 4", "write 4 0x4 4"]),
    ];
    for &(bar, offset, width, accesses) in cases {
        let at = position(region_index::BAR0 + bar, offset);
        assert_eq!(ask(&session, at, width, fd), Ok(0));
        stand.function.accesses();
        watcher.signal_first();
        assert_eq!(stand.function.accesses(), accesses);
        let length = width as usize;
        let bytes =
            stand.function.bar_bytes(bar as usize, usize::try_from(offset).unwrap(), length);
        assert_eq!(bytes, DATA.to_le_bytes()[..length]);
        assert_eq!(ask(&session, at, width, -1), Ok(0));
        assert_eq!(watcher.count(), 0, "taken back");
    }
    session.close();
}

#[test]
fn refusals_in_order() {
    let (stand, watcher) = stand();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    let other = session.client.open_other();
    let good = position(0, 0x1000);
    let table_end = TABLE_AT + u64::from(VECTORS) * 16;
    let cases = [
        ("no width", good, 0, fd, Errno::EINVAL),
        ("two widths", good, 3, fd, Errno::EINVAL),
        ("an unknown flag", good, 0x14, fd, Errno::EINVAL),
        ("a descriptor of -2", good, 4, -2, Errno::EINVAL),
        ("no region", position(9, 0), 4, fd, Errno::EINVAL),
        ("config space", config_position(0x40), 4, fd, Errno::EINVAL),
        ("the ROM", position(region_index::ROM, 0), 4, fd, Errno::EINVAL),
        ("a BAR that is not there", position(5, 0), 4, fd, Errno::EINVAL),
        ("past the end", position(2, 0xffd), 4, fd, Errno::EINVAL),
        ("into the MSI-X table", position(0, TABLE_AT - 1), 4, fd, Errno::EINVAL),
        ("its last bytes", position(0, table_end - 1), 1, fd, Errno::EINVAL),
        ("the place before the descriptor", position(5, 0), 4, 99, Errno::EINVAL),
        ("nothing to take back", good, 4, -1, Errno::ENODEV),
        ("a closed descriptor", good, 4, 99, Errno::EBADF),
        ("no eventfd", good, 4, other, Errno::EINVAL),
    ];
    for (what, offset, width, fd, errno) in cases {
        assert_eq!(ask(&session, offset, width, fd), Err(errno), "{what}");
    }
    let mut short = asked(good, 4, fd);
    short.argsz = 27;
    assert_eq!(session.call(CommandId::DeviceIoeventfd, &mut short), Err(Errno::EINVAL));
    assert_eq!(watcher.count(), 0);
    for beside in [TABLE_AT - 4, table_end] {
        assert_eq!(ask(&session, position(0, beside), 4, fd), Ok(0), "{beside:#x}");
    }
    assert_eq!(ask(&session, good, 4, fd), Ok(0));
    assert_eq!(ask(&session, good, 4, fd), Err(Errno::EEXIST));
    assert_eq!(ask(&session, good, 4, 99), Err(Errno::EEXIST), "before the descriptor");
    assert_eq!(ask(&session, good, 2, -1), Err(Errno::ENODEV), "another width");
    let mut other_data = Ioeventfd { data: DATA + 1, ..asked(good, 4, fd) };
    assert_eq!(session.call(CommandId::DeviceIoeventfd, &mut other_data), Ok(0));
    session.close();
    assert_eq!(watcher.count(), 0, "close lets all go");
}

#[test]
fn a_device_has_a_thousand() {
    let (stand, watcher) = stand();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    let at = |number: u64| position(0, 0x1000 + number);
    for number in 0..1000 {
        assert_eq!(ask(&session, at(number), 1, fd), Ok(0));
    }
    assert_eq!(ask(&session, at(1000), 1, fd), Err(Errno::ENOSPC));
    assert_eq!(ask(&session, at(1000), 1, 99), Err(Errno::ENOSPC), "before the descriptor");
    assert_eq!(ask(&session, at(7), 1, fd), Err(Errno::EEXIST), "after one that is there");
    assert_eq!(ask(&session, at(7), 1, -1), Ok(0));
    assert_eq!(ask(&session, at(1000), 1, 99), Err(Errno::EBADF));
    assert_eq!(ask(&session, at(1000), 1, fd), Ok(0), "what was refused took no place");
    assert_eq!(watcher.count(), 1000);
    session.close();
    assert_eq!(watcher.count(), 0);
}

#[test]
fn nothing_is_written_while_memory_is_not_decoded() {
    let (stand, watcher) = stand();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    assert_eq!(ask(&session, position(0, 0x1000), 4, fd), Ok(0));
    session.set_config(4, &0_u16.to_le_bytes());
    stand.function.accesses();
    watcher.signal_first();
    assert_eq!(stand.function.accesses(), [""; 0]);
    session.set_config(4, &2_u16.to_le_bytes());
    watcher.signal_first();
    assert_eq!(stand.function.accesses(), ["write 0 0x1000 4"]);
    session.close();
}

#[test]
fn a_signal_that_comes_late_writes_nothing() {
    let (stand, watcher) = stand();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    let at = position(0, 0x1000);
    assert_eq!(ask(&session, at, 4, fd), Ok(0));
    let late = watcher.callbacks();
    assert_eq!(ask(&session, at, 4, -1), Ok(0));
    assert_eq!(ask(&session, at, 4, fd), Ok(0));
    stand.function.accesses();
    late[0]();
    assert_eq!(stand.function.accesses(), [""; 0], "nor in the name of the next");
    let late = watcher.callbacks();
    session.close();
    let session = stand.bound();
    stand.function.accesses();
    late[0]();
    assert_eq!(stand.function.accesses(), [""; 0], "nor for the next client");
    session.close();
}

#[test]
fn without_a_watcher_there_is_no_memory_for_it() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, _) = session.client.open_eventfd();
    let at = position(0, 0x1000);
    assert_eq!(ask(&session, at, 4, fd), Err(Errno::ENOMEM));
    assert_eq!(ask(&session, at, 4, -1), Err(Errno::ENODEV), "nothing is left of it");
    session.close();
}
