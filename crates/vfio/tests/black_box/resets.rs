//! RESET, GET_PCI_HOT_RESET_INFO and PCI_HOT_RESET.

use std::sync::mpsc;
use std::thread;

use pci::Address;
use pci::regs::{command, header};
use uapi::vfio::{irq_index, irq_set};
use uapi::{Command, CommandId, Errno};
use vfio::{DeviceSet, Settings};

use crate::support::{
    ADDRESS, Fake, Irqs, MEMORY, MEMORY_SIZE, READ_ONLY, Session, Shape, Stand, TABLE_AT,
    bind_argument, fds,
};

const INFO: CommandId = CommandId::DeviceGetPciHotResetInfo;
const HOT_RESET: CommandId = CommandId::DevicePciHotReset;

fn reset(session: &Session) -> Result<u32, Errno> {
    let request = Command::of(CommandId::DeviceReset).request;
    session.file.ioctl(&session.client, request, 0)
}

#[test]
fn a_reset_keeps_what_the_host_set_up() {
    let stand = Stand::new();
    let mut session = stand.bound();
    let (fd, heard) = session.client.open_eventfd();
    let data = fds(&[fd]);
    let flags = irq_set::ACTION_TRIGGER | irq_set::DATA_EVENTFD;
    let irqs = Irqs { index: irq_index::MSIX, flags, start: 0, count: 1, data: &data };
    assert_eq!(session.set_irqs(irqs), Ok(0));
    let on = command::MEMORY | command::BUS_MASTER;
    session.set_config(header::COMMAND, &on.to_le_bytes());
    let before = stand.function.real_config();
    stand.function.events();
    assert_eq!(reset(&session), Ok(0));
    assert_eq!(stand.function.events(), ["reset function"]);
    assert!(stand.function.real_config() == before, "config space is restored");
    let at = usize::try_from(TABLE_AT).unwrap();
    assert_eq!(stand.function.bar_bytes(0, at + 12, 4), [0; 4], "the vector is not masked");
    stand.function.host().unwrap().interrupts.msix(0);
    assert_eq!(heard.taken(), 1);
    assert_eq!(session.set_irqs(irqs), Ok(0), "it can be set up again");
    session.close();
}

#[test]
fn without_a_reset_there_is_none() {
    let shape = Shape { function_level_reset: false, ..Shape::default() };
    let stand = Stand::shaped(shape, Settings::default());
    let session = stand.bound();
    stand.function.events();
    assert_eq!(reset(&session), Err(Errno::EINVAL));
    assert!(stand.function.events().is_empty());
    session.close();
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn hot_reset_info(session: &Session, room: u32) -> (Result<u32, Errno>, Vec<u32>) {
    let mut bytes = vec![0; 12 + 8 * 4];
    bytes[..4].copy_from_slice(&(12 + 8 * room).to_le_bytes());
    let result = session.call_bytes(INFO, &mut bytes);
    (result, words(&bytes))
}

fn hot_reset(session: &Session, flags: u32, count: u32) -> Result<u32, Errno> {
    let words = [16, flags, count, 0];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    session.call_bytes(HOT_RESET, &mut bytes)
}

/// The endpoint, a function of its iommu_group, and one of another.
fn machine() -> (Stand, Stand, Stand) {
    let stand = Stand::new();
    let sibling = stand.neighbour(Address::new(0xb1d0, 2, 0, 1).unwrap(), true);
    let stranger = stand.neighbour(Address::new(0xb1d0, 2, 1, 0).unwrap(), false);
    (stand, sibling, stranger)
}

/// `segment`, `bus` and `devfn` as they lie in memory.
fn place(devfn: u32) -> u32 {
    0xb1d0 | 2 << 16 | devfn << 24
}

const DEV_ID: u32 = 1;
const OWNED: u32 = 2;
const NOT_OWNED: u32 = u32::MAX;

#[test]
fn the_list_of_devices() {
    let (stand, sibling, stranger) = machine();
    let session = stand.bound();
    for room in 0..3 {
        let (result, words) = hot_reset_info(&session, room);
        assert_eq!(result, Err(Errno::ENOSPC));
        assert_eq!(words[1..3], [0, 3], "the count is told all the same, and nothing else");
        assert_eq!(words[3..], [0; 8]);
    }
    let (result, list) = hot_reset_info(&session, 3);
    assert_eq!((result, list[1]), (Ok(0), DEV_ID));
    assert_eq!(list[2..5], [3, session.device_id, place(0)]);
    assert_eq!(list[5..9], [0, place(1), NOT_OWNED, place(8)], "its group is ours; a stranger");

    let (sibling_file, stranger_file) = (sibling.open(), stranger.open());
    let mut bind = bind_argument(session.iommufd);
    for file in [&sibling_file, &stranger_file] {
        assert_eq!(session.client.call(file, CommandId::DeviceBindIommufd, &mut bind), Ok(0));
    }
    let (result, list) = hot_reset_info(&session, 3);
    assert_eq!((result, list[1]), (Ok(0), DEV_ID | OWNED));
    assert_eq!(list[2..9], [3, 1, place(0), 2, place(1), 3, place(8)]);
    stranger_file.release();
    sibling_file.release();
    session.close();
}

#[test]
fn a_bus_reset_takes_all_or_none() {
    let (stand, sibling, stranger) = machine();
    let session = stand.bound();
    for stand in [&stand, &sibling, &stranger] {
        stand.function.events();
    }
    assert_eq!(hot_reset(&session, 0, 0), Err(Errno::EINVAL), "a stranger is on the bus");
    assert_eq!(hot_reset(&session, 1, 0), Err(Errno::EINVAL));
    assert_eq!(hot_reset(&session, 0, 1), Err(Errno::EINVAL), "no groups here");
    assert!(stand.function.events().is_empty());
    let file = stranger.open();
    let mut bind = bind_argument(session.iommufd);
    assert_eq!(session.client.call(&file, CommandId::DeviceBindIommufd, &mut bind), Ok(0));
    stranger.function.events();
    let before = stand.function.real_config();
    assert_eq!(hot_reset(&session, 0, 0), Ok(0));
    for stand in [&stand, &sibling, &stranger] {
        assert_eq!(stand.function.events(), ["reset bus"], "bound or not");
    }
    assert!(stand.function.real_config() == before);
    assert_eq!(reset(&session), Ok(0), "all turns were passed on");
    file.release();
    session.close();
}

#[test]
fn a_bus_that_cannot_be_reset() {
    let stand = Stand::new();
    let alone = Stand::in_set(
        Fake::new(ADDRESS, Shape::default()),
        Settings::default(),
        DeviceSet::new(false),
        stand.group.clone(),
        stand.iommu.clone(),
    );
    let session = alone.bound();
    assert_eq!(hot_reset_info(&session, 3).0, Err(Errno::ENODEV));
    assert_eq!(hot_reset(&session, 0, 0), Err(Errno::ENODEV));
    session.close();
}

#[test]
fn a_list_that_cannot_be_written_faults() {
    let stand = Stand::new();
    let session = stand.bound();
    let end = MEMORY + MEMORY_SIZE as u64;
    session.client.put(end - 12, &20_u32.to_le_bytes());
    let result = session.file.ioctl(&session.client, Command::of(INFO).request, end - 12);
    assert_eq!(result, Err(Errno::EFAULT));
    session.client.put(READ_ONLY - 12, &[20, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0]);
    let result = session.file.ioctl(&session.client, Command::of(INFO).request, READ_ONLY - 12);
    assert_eq!(result, Err(Errno::EFAULT));
    let mut header = [0; 12];
    session.client.get(READ_ONLY - 12, &mut header);
    assert_eq!(words(&header), [20, 7, 7], "the list comes before what precedes it");
    session.close();
}

/// Another client resets its device just now. Ours may not reset the bus anyway, which is said without
/// waiting for the other.
#[test]
fn whose_the_devices_are_is_asked_before_whether_they_are_busy() {
    let (stand, _sibling, stranger) = machine();
    let session = stand.bound();
    let other = stranger.bound();
    let (come, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    stranger.function.hold_next_reset((come, may_go));
    thread::scope(|scope| {
        // Dropped if the test fails, which lets the other thread end.
        let go = go;
        let running = scope.spawn(|| reset(&other));
        has_come.recv().unwrap();
        assert_eq!(hot_reset(&session, 0, 0), Err(Errno::EINVAL));
        go.send(()).unwrap();
        assert_eq!(running.join().unwrap(), Ok(0));
    });
    other.close();
    session.close();
}

#[test]
fn what_is_being_reset_is_not_reset_meanwhile() {
    let stand = Stand::new();
    let session = stand.bound();
    let (come, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    stand.function.hold_next_reset((come, may_go));
    stand.function.events();
    thread::scope(|scope| {
        // Dropped if the test fails, which lets the other thread end.
        let go = go;
        let running = scope.spawn(|| reset(&session));
        has_come.recv().unwrap();
        let hot_reset = Command::of(HOT_RESET).request;
        let struct_at = MEMORY + 0x4000;
        session.client.put(struct_at, &[12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reset(&session), Err(Errno::EAGAIN));
        assert_eq!(session.file.ioctl(&session.client, hot_reset, struct_at), Err(Errno::EBUSY));
        go.send(()).unwrap();
        assert_eq!(running.join().unwrap(), Ok(0));
    });
    assert_eq!(stand.function.events(), ["reset function"]);
    session.close();
}
