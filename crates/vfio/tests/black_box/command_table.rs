//! What holds for every row of the command table.

use uapi::{COMMANDS, Command, CommandId, Errno, FileKind, Profile};

use crate::support::{ARGUMENT, Client, READ_ONLY, Session, Stand};

fn rows() -> impl Iterator<Item = &'static Command> {
    let is_ours = |command: &&Command| {
        command.file == FileKind::VfioDevice && command.profiles.contains(Profile::default())
    };
    COMMANDS.iter().filter(is_ours)
}

/// Runs a row on a struct that says `argsz` and is zero otherwise.
fn with_argsz(session: &Session, command: &Command, argsz: u32) -> Result<u32, Errno> {
    session.client.put(ARGUMENT, &[0; 64]);
    session.client.put(ARGUMENT, &argsz.to_le_bytes());
    session.file.ioctl(&session.client, command.request, ARGUMENT)
}

#[test]
fn before_bind_everything_is_invalid() {
    let stand = Stand::new();
    let file = stand.open();
    let client = Client::new();
    for request in rows().map(|row| row.request).chain([0, 0x3b64, 0x3b71, 0x3bff, u32::MAX]) {
        for argument in [0, ARGUMENT] {
            let is_bind = request == Command::of(CommandId::DeviceBindIommufd).request;
            let expected = if is_bind && argument == 0 { Errno::EFAULT } else { Errno::EINVAL };
            assert_eq!(file.ioctl(&client, request, argument), Err(expected), "{request:#x}");
        }
    }
    for count in [0, 1] {
        let position = vfio::REGION_BASE;
        assert_eq!(file.read(&client, ARGUMENT, count, position), Err(Errno::EINVAL));
        assert_eq!(file.write(&client, ARGUMENT, count, position), Err(Errno::EINVAL));
    }
    let request = vfio::MapRequest { shared: true, read: true, write: true, exec: false };
    assert_eq!(file.mmap(vfio::REGION_BASE + 0x1000, 0x1000, request), Err(Errno::EINVAL));
    file.release();
}

#[test]
fn a_null_argument_faults() {
    let stand = Stand::new();
    let session = stand.bound();
    for row in rows().filter(|row| row.served && row.argument.is_some()) {
        let result = session.file.ioctl(&session.client, row.request, 0);
        assert_eq!(result, Err(Errno::EFAULT), "{}", row.name);
        let last_page_end = READ_ONLY + 0x1000;
        let cut = last_page_end - u64::from(row.min_size) + 1;
        let result = session.file.ioctl(&session.client, row.request, cut);
        let argsz_is_read_first = row.id == CommandId::DeviceBindIommufd;
        let expected = if argsz_is_read_first { Errno::EINVAL } else { Errno::EFAULT };
        assert_eq!(result, Err(expected), "{}", row.name);
    }
    session.close();
}

#[test]
fn a_short_argument_is_invalid() {
    let stand = Stand::new();
    let session = stand.bound();
    for row in rows().filter(|row| row.served && row.argument.is_some()) {
        for argsz in 0..row.min_size {
            assert_eq!(with_argsz(&session, row, argsz), Err(Errno::EINVAL), "{}", row.name);
        }
    }
    session.close();
}

#[test]
fn what_is_not_served_is_no_command() {
    let stand = Stand::new();
    let session = stand.bound();
    let holes = rows().filter(|row| !row.served).map(|row| row.request);
    for request in holes.chain([0, 0x3b64, 0x3b67, 0x3b7f, 0x3b80, 0xc000_3b6b]) {
        let result = session.file.ioctl(&session.client, request, 0);
        assert_eq!(result, Err(Errno::ENOTTY), "{request:#x}");
    }
    session.close();
}
