//! Physical addresses, which no client gets.

use iommufd::mock::MockMachine;
use uapi::iommufd::IoasNoiommuGetPa;
use uapi::{CommandId, Errno, Profile};

use crate::support::{Client, PAGE};

const VA: u64 = 0x10_0000;

fn ask(client: &Client, change: impl FnOnce(&mut IoasNoiommuGetPa)) -> Errno {
    let mut argument = IoasNoiommuGetPa { length: PAGE, ..IoasNoiommuGetPa::default() };
    change(&mut argument);
    client.call(CommandId::IoasNoiommuGetPa, argument).map(|_| ()).unwrap_err()
}

#[test]
fn it_is_refused_in_order() {
    let client = Client::open();
    let ioas = client.ioas();
    client.map_at(ioas, PAGE, VA, PAGE).unwrap();
    let everything_wrong = |argument: &mut IoasNoiommuGetPa| {
        (argument.flags, argument.length, argument.iova) = (1, 0, u64::MAX);
    };
    assert_eq!(ask(&client, everything_wrong), Errno::EOPNOTSUPP);
    assert_eq!(ask(&client, |argument| argument.reserved = 1), Errno::EOPNOTSUPP);
    let empty = |argument: &mut IoasNoiommuGetPa| {
        (argument.length, argument.iova) = (0, u64::MAX);
    };
    assert_eq!(ask(&client, empty), Errno::EINVAL);
    assert_eq!(ask(&client, |argument| argument.iova = u64::MAX), Errno::EOVERFLOW);
    assert_eq!(ask(&client, |argument| argument.iova = PAGE), Errno::ENOENT, "no IOAS");
    assert_eq!(ask(&client, |argument| argument.ioas_id = ioas), Errno::ENOENT, "not mapped");
    let mapped = |argument: &mut IoasNoiommuGetPa| (argument.ioas_id, argument.iova) = (ioas, PAGE);
    assert_eq!(ask(&client, mapped), Errno::EOPNOTSUPP);
}

#[test]
fn a_client_without_the_capability_hears_no_more() {
    let mut client = Client::open();
    client.does_raw_io = false;
    assert_eq!(ask(&client, |argument| argument.flags = 1), Errno::EPERM);
}

#[test]
fn a_revoked_buffer_has_none() {
    let client = Client::open_mock(&MockMachine::new());
    let ioas = client.ioas();
    let fd = client.dma_buf_get(PAGE).unwrap();
    client.map_file(ioas, fd, [0, PAGE, PAGE]).unwrap();
    let asks = |argument: &mut IoasNoiommuGetPa| (argument.ioas_id, argument.iova) = (ioas, PAGE);
    assert_eq!(ask(&client, asks), Errno::EOPNOTSUPP);
    client.dma_buf_revoke(fd, true).unwrap();
    assert_eq!(ask(&client, asks), Errno::EINVAL);
}

#[test]
fn other_profiles_do_not_know_it() {
    let client = Client::open_as(Profile::Rfc);
    assert_eq!(ask(&client, |_| ()), Errno::E2BIG, "the number is that of a shorter struct");
}
