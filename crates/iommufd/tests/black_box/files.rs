//! `IOMMU_IOAS_MAP_FILE`.

use uapi::iommufd::{IoasMapFile, map_flags};
use uapi::{CommandId, Errno};

use crate::support::client::{FILE, FILE_BYTES, PIPE, READ_WRITE};
use crate::support::{Client, PAGE, Platform};

fn map(client: &Client, ioas_id: u32, fd: i32, start: u64, length: u64) -> Result<u64, Errno> {
    let flags = READ_WRITE;
    let argument = IoasMapFile { flags, ioas_id, fd, start, length, ..IoasMapFile::default() };
    client.call(CommandId::IoasMapFile, argument).map(|answer| answer.iova)
}

#[test]
fn refuses_in_the_kernels_order() {
    let client = Client::open();
    let ioas = client.ioas();
    let raw = |flags, iova, fd, start, length| {
        let argument = IoasMapFile { flags, ioas_id: 9, fd, start, length, iova, size: 0 };
        client.call(CommandId::IoasMapFile, argument).map(|_| ())
    };
    assert_eq!(raw(8, u64::MAX, -1, 0, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(raw(0, u64::MAX, -1, 0, 0), Err(Errno::EOVERFLOW));
    assert_eq!(raw(map_flags::FIXED_IOVA, 0, -1, 0, 0), Err(Errno::EINVAL));
    assert_eq!(raw(READ_WRITE, 0, -1, 0, 0), Err(Errno::ENOENT));
    assert_eq!(map(&client, ioas, -1, u64::MAX, 0), Err(Errno::EINVAL));
    assert_eq!(map(&client, ioas, -1, u64::MAX, 1), Err(Errno::EOVERFLOW));
    assert_eq!(map(&client, ioas, -1, 0, u64::MAX - 1), Err(Errno::EBADF));
    assert_eq!(map(&client, ioas, FILE, 0, u64::MAX - 1), Err(Errno::EINVAL));
}

#[test]
fn what_kind_of_file_it_is_shows_when_it_is_pinned() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let (lazy, eager) = (client.ioas(), client.ioas());
    device.attach(eager).unwrap();
    map(&client, lazy, PIPE, 0, PAGE).unwrap();
    assert_eq!(map(&client, eager, PIPE, 0, PAGE), Err(Errno::EINVAL));
    assert_eq!(client.hwpt(device.id(), lazy, 0), Err(Errno::EINVAL));
    client.unmap_all(lazy).unwrap();
    map(&client, lazy, FILE, FILE_BYTES, PAGE).unwrap();
    assert_eq!(map(&client, eager, FILE, FILE_BYTES, PAGE), Err(Errno::EINVAL));
}

#[test]
fn dma_reaches_the_file_from_its_start_on() {
    use pci::Dma;

    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    let iova = map(&client, ioas, FILE, 2 * PAGE, PAGE).unwrap();
    assert_eq!(iova, 0x1000);
    device.attach(ioas).unwrap();
    device.write(iova + 5, b"file").unwrap();
    let mut bytes = [0; 4];
    client.file.read(2 * PAGE + 5, &mut bytes).unwrap();
    assert_eq!(&bytes, b"file");
}
