//! Buffers of devices: mapped through their files, and revoked.

use iommufd::mock::MockMachine;
use uapi::iommufd::IoasChangeProcess;
use uapi::{CommandId, Errno};

use crate::support::client::FILE;
use crate::support::{Client, PAGE};

const IOVA: u64 = 0x100_0000;
const LENGTH: u64 = 4 * PAGE;
/// Where a client keeps bytes that it copies.
const BUFFER: u64 = 0x20_0000;

fn open() -> Client {
    Client::open_mock(&MockMachine::new())
}

/// Bytes of an address space that page tables lead to.
fn pinned(client: &Client) -> u64 {
    client.ctx.counts().pinned_bytes
}

#[test]
fn creation_is_refused_in_order_and_rounds_up_to_pages() {
    let client = open();
    assert_eq!(client.dma_buf_get(0), Err(Errno::EINVAL));
    assert_eq!(client.dma_buf_get((2 << 20) + 1), Err(Errno::EINVAL));
    let (ioas, fd) = (client.ioas(), client.dma_buf_get(PAGE + 1).unwrap());
    assert_eq!(client.map_file(ioas, fd, [0, 2 * PAGE + 1, IOVA]), Err(Errno::EINVAL));
    assert_eq!(client.map_file(ioas, fd, [0, 2 * PAGE, IOVA]), Ok(IOVA));
}

#[test]
fn mapping_is_refused_in_order() {
    let client = open();
    let (ioas, fd) = (client.ioas(), client.dma_buf_get(LENGTH).unwrap());
    let map = |place| client.map_file(ioas, fd, place);
    client.dma_buf_revoke(fd, true).unwrap();
    assert_eq!(map([0, 0, IOVA]), Err(Errno::EINVAL));
    assert_eq!(map([u64::MAX - 1, 2, IOVA]), Err(Errno::EOVERFLOW));
    assert_eq!(map([LENGTH, LENGTH, IOVA]), Err(Errno::EINVAL));
    assert_eq!(map([0, LENGTH, IOVA]), Err(Errno::ENODEV));
    client.dma_buf_revoke(fd, false).unwrap();
    assert_eq!(map([0, LENGTH, IOVA]), Ok(IOVA));
    client.dma_buf_revoke(fd, true).unwrap();
    assert_eq!(map([0, LENGTH, IOVA]), Err(Errno::ENODEV), "before the place is looked at");
}

#[test]
fn revoking_wants_a_buffer() {
    let client = open();
    assert_eq!(client.dma_buf_revoke(FILE, true), Err(Errno::EINVAL));
    assert_eq!(client.dma_buf_revoke(77, true), Err(Errno::EBADF));
}

#[test]
fn revoked_areas_stay_and_lead_nowhere() {
    let client = open();
    let (ioas, other) = (client.ioas(), client.ioas());
    client.mock_device(ioas).unwrap();
    client.mock_device(other).unwrap();
    let fd = client.dma_buf_get(LENGTH).unwrap();
    client.map_file(ioas, fd, [0, LENGTH, IOVA]).unwrap();
    client.map_file(other, fd, [PAGE, PAGE, IOVA]).unwrap();
    client.map_at(ioas, IOVA + LENGTH, 0x10_0000, PAGE).unwrap();
    assert_eq!(pinned(&client), LENGTH + 2 * PAGE);
    client.dma_buf_revoke(fd, true).unwrap();
    assert_eq!(pinned(&client), PAGE, "what is next to it is not touched");
    client.dma_buf_revoke(fd, false).unwrap();
    assert_eq!(pinned(&client), PAGE, "it does not come back");
    assert_eq!(client.map_file(ioas, fd, [0, LENGTH, IOVA]), Err(Errno::EEXIST));
    assert_eq!(client.unmap(ioas, IOVA, LENGTH), Ok(LENGTH));
    client.map_file(ioas, fd, [0, LENGTH, IOVA]).unwrap();
    assert_eq!(pinned(&client), LENGTH + PAGE);
}

#[test]
fn page_table_made_later_leaves_a_revoked_area_empty() {
    let client = open();
    let (ioas, fd) = (client.ioas(), client.dma_buf_get(LENGTH).unwrap());
    client.map_file(ioas, fd, [0, LENGTH, IOVA]).unwrap();
    client.dma_buf_revoke(fd, true).unwrap();
    client.dma_buf_revoke(fd, false).unwrap();
    client.map_file(ioas, fd, [0, PAGE, IOVA + LENGTH]).unwrap();
    client.mock_device(ioas).unwrap();
    assert_eq!(pinned(&client), PAGE);
}

#[test]
fn software_does_not_reach_into_a_buffer() {
    let client = open();
    let (ioas, fd) = (client.ioas(), client.dma_buf_get(LENGTH).unwrap());
    client.map_file(ioas, fd, [0, LENGTH, IOVA]).unwrap();
    let access = client.create_access(ioas, 1).unwrap();
    assert_eq!(client.access_pin(access, 0, [IOVA, PAGE, 0]), Err(Errno::EINVAL));
    assert_eq!(client.access_copy(access, 0, [IOVA, 8, BUFFER]), Err(Errno::EINVAL));
    assert_eq!(client.access_copy(access, 0, [IOVA - 8, 8, BUFFER]), Err(Errno::ENOENT));
}

#[test]
fn buffer_is_not_handed_over_to_another_process() {
    let client = open();
    let (ioas, fd) = (client.ioas(), client.dma_buf_get(LENGTH).unwrap());
    client.map_file(ioas, fd, [0, LENGTH, IOVA]).unwrap();
    let change = client.call(CommandId::IoasChangeProcess, IoasChangeProcess::default());
    assert_eq!(change.map(|_| ()), Err(Errno::EINVAL));
}
