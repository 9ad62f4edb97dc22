//! Which ids clients see, step by step: traces A, B, D and E. Trace C is at `close::a_bound_device_keeps_its_context_open`.

use iommufd::mock::MockMachine;
use uapi::Errno;
use uapi::iommufd::hwpt_flags;

use crate::support::mock_nest::{AT, HARDWARE};
use crate::support::{Client, MockNest, Platform};

const BUSY: Result<(), Errno> = Err(Errno::EBUSY);
const GONE: Result<(), Errno> = Err(Errno::ENOENT);

fn destroyed<const N: usize>(client: &Client, ids: [u32; N]) -> [Result<(), Errno>; N] {
    ids.map(|id| client.destroy(id))
}

/// Trace A.
#[test]
fn a_mock_device_goes_with_all_that_it_brought() {
    let client = Client::open_mock(&MockMachine::new());
    assert_eq!(client.ioas(), 1);
    assert_eq!(client.mock_device(1), Ok([2, 4, 3]));
    assert_eq!(destroyed(&client, [1, 3, 4]), [BUSY; 3]);
    assert_eq!(destroyed(&client, [2, 4, 3]), [Ok(()), GONE, GONE]);
    assert_eq!(client.destroy(1), Ok(()));
    assert_eq!(client.ioas(), 1);
}

/// Trace B.
#[test]
fn a_vdevice_whose_device_goes_leaves_a_tombstone() {
    let client = Client::open_mock(&MockMachine::new());
    assert_eq!((client.ioas(), client.mock_device(1)), (1, Ok([2, 4, 3])));
    assert_eq!(client.hwpt(3, 1, hwpt_flags::NEST_PARENT), Ok(5));
    assert_eq!(client.viommu(HARDWARE, 3, 5), Ok(6));
    assert_eq!(client.nested(3, 6), Ok(7));
    assert_eq!(client.vdevice(6, 3, 0x99), Ok(8));
    assert_eq!(destroyed(&client, [6, 5]), [BUSY; 2]);
    assert_eq!(destroyed(&client, [2, 8]), [Ok(()), GONE]);
    assert_eq!(destroyed(&client, [7, 6, 5, 1]), [Ok(()); 4]);
    let ids: Vec<u32> = (0..8).map(|_| client.ioas()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 9], "id 8 is never handed out again");
}

/// Trace B, the vdevice first.
#[test]
fn a_vdevice_that_is_destroyed_leaves_no_tombstone() {
    let client = Client::open_mock(&MockMachine::new());
    assert_eq!((client.ioas(), client.mock_device(1)), (1, Ok([2, 4, 3])));
    assert_eq!(client.hwpt(3, 1, hwpt_flags::NEST_PARENT), Ok(5));
    assert_eq!(client.viommu(HARDWARE, 3, 5), Ok(6));
    assert_eq!(client.vdevice(6, 3, 0x99), Ok(7));
    assert_eq!(destroyed(&client, [7, 2]), [Ok(()); 2]);
    let ids: Vec<u32> = (0..4).map(|_| client.ioas()).collect();
    assert_eq!(ids, [2, 3, 4, 7]);
}

/// Trace D.
#[test]
fn an_address_space_is_attached_through_a_page_table_that_goes_with_the_device() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    assert_eq!((device.id(), client.ioas()), (1, 2));
    assert_eq!(device.attach(2), Ok(3));
    assert_eq!(client.destroy(3), BUSY);
    device.detach();
    assert_eq!(client.destroy(3), GONE);
}

/// Trace E.
#[test]
fn events_that_find_no_room_are_numbered_too() {
    let nest = MockNest::new();
    let (client, viommu) = (&nest.client, nest.viommu());
    client.vdevice(viommu, nest.device, 0x99).unwrap();
    nest.attach(client.nested(nest.device, viommu).unwrap()).unwrap();
    client.event_queue(viommu, 2).unwrap();
    let event = || nest.event().unwrap();
    (0..4).for_each(|_| event());
    assert_eq!(told(client), [(0, 0), (0, 1), (1, 3)]);
    event();
    assert_eq!(told(client), [(0, 4)]);
    // What tells of lost events goes as the next one finds room.
    (0..3).for_each(|_| event());
    assert_eq!(client.event_file().read(client, AT, 12), Ok(12));
    event();
    assert_eq!(told(client), [(0, 6), (0, 8)]);
}

/// Flags and number of each event that there is.
fn told(client: &Client) -> Vec<(u32, u32)> {
    let file = client.event_file();
    let mut told = Vec::new();
    while file.is_readable() {
        // The next is a marker where a whole event does not fit: try the smaller one first.
        let read = file.read(client, AT, 8).or_else(|_| file.read(client, AT, 12)).unwrap();
        let mut bytes = [0; 8];
        client.memory.read(AT, &mut bytes).unwrap();
        assert!(read == 8 || read == 12);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        told.push((word(0), word(4)));
    }
    told
}
