//! What one command finds of another that is half done: memory is being pinned, or DMA is running.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;

use pci::{Dma, DmaFaultReason};
use sync::rank;
use uapi::Errno;

use crate::support::{BeforeLock, Client, PAGE, PAGE_BYTES, Platform};

const VA: u64 = 0x10_0000;
const IOVA: u64 = 0x4000;

/// A client with an address space that has a page table: its mappings are pinned. A device is bound but
/// attached to nothing.
struct Fixture {
    client: Client,
    device: Arc<iommufd::Device>,
    ioas: u32,
    hwpt: u32,
}

impl Fixture {
    fn new() -> Self {
        let client = Client::open();
        let device = Platform::new().bind(&client);
        let ioas = client.ioas();
        let hwpt = client.hwpt(device.id(), ioas, 0).unwrap();
        Self { client, device, ioas, hwpt }
    }

    /// What the device reads at `IOVA`.
    fn read(&self) -> Result<[u8; 8], DmaFaultReason> {
        let mut bytes = [0; 8];
        self.device.read(IOVA, &mut bytes).map(|()| bytes).map_err(|fault| fault.reason)
    }
}

#[test]
fn an_area_that_is_being_mapped_takes_its_place_but_is_not_there() {
    let fixture = Fixture::new();
    let Fixture { client, device, ioas, hwpt } = &fixture;
    let (other, ioas, device) = (client.thread(1), *ioas, Arc::clone(device));
    device.attach(*hwpt).unwrap();
    client.memory.during_next_pin(move || {
        assert_eq!(other.map_at(ioas, IOVA, VA, PAGE), Err(Errno::EEXIST));
        assert_eq!(other.unmap(ioas, IOVA, PAGE), Err(Errno::EBUSY));
        assert_eq!(other.unmap(ioas, IOVA, 1), Err(Errno::EBUSY));
        assert_eq!(other.unmap_all(ioas), Err(Errno::EBUSY));
        assert_eq!(other.ctx.counts().areas, 0);
        let fault = device.write(IOVA, &[1]).unwrap_err();
        assert_eq!(fault.reason, DmaFaultReason::NotMapped);
    });
    assert_eq!(client.map_at(ioas, IOVA, VA, PAGE), Ok(IOVA));
    assert!(fixture.read().is_ok());
}

#[test]
fn an_area_that_is_being_mapped_is_left_to_its_mapper() {
    let Fixture { client, device, ioas, .. } = Fixture::new();
    let (other, dev_id) = (client.thread(1), device.id());
    client.memory.during_next_pin(move || {
        other.hwpt(dev_id, ioas, 0).unwrap();
    });
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    assert_eq!(client.memory.pins(), 1);
    assert_eq!(client.ctx.counts().pinned_bytes, PAGE);
}

#[test]
fn memory_that_nobody_wants_any_more_is_not_kept() {
    let Fixture { client, ioas, hwpt, .. } = Fixture::new();
    let other = client.thread(1);
    client.memory.during_next_pin(move || other.destroy(hwpt).unwrap());
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    assert_eq!((client.memory.pins(), client.memory.pinned()), (1, vec![]));
    let counts = client.ctx.counts();
    assert_eq!((counts.mapped_bytes, counts.pinned_bytes), (PAGE, 0));
}

#[test]
fn memory_pinned_for_an_area_that_went_is_not_kept() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    let other = client.thread(1);
    client.memory.during_next_pin(move || assert_eq!(other.unmap(ioas, IOVA, PAGE), Ok(PAGE)));
    client.hwpt(device.id(), ioas, 0).unwrap();
    assert_eq!((client.memory.pins(), client.memory.pinned()), (1, vec![]));
}

/// While the page table pins an area, that area goes and another one begins in its place.
#[test]
fn memory_of_an_area_that_went_never_serves_its_successor() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    client.memory.write(VA, b"old area").unwrap();
    client.memory.write(VA + PAGE, b"new area").unwrap();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    let (mapper, other) = (client.thread(1), client.thread(2));
    let (begun, wait_begun) = channel();
    let (finish, wait_finish) = channel::<()>();
    std::thread::scope(|scope| {
        client.memory.during_next_pin(move || {
            other.memory.during_next_pin(move || {
                begun.send(()).unwrap();
                wait_finish.recv().unwrap();
            });
            other.unmap(ioas, IOVA, PAGE).unwrap();
            wait_begun.recv().unwrap();
        });
        let successor = scope.spawn(move || {
            loop {
                match mapper.map_at(ioas, IOVA, VA + PAGE, PAGE) {
                    Err(Errno::EEXIST) => std::thread::yield_now(),
                    answer => return answer,
                }
            }
        });
        // Dropped if the test fails from here on, which lets the other thread end.
        let finish = finish;
        let hwpt = client.hwpt(device.id(), ioas, 0).unwrap();
        device.attach(hwpt).unwrap();
        let early = device.read(IOVA, &mut [0; 8]).unwrap_err();
        assert_eq!(early.reason, DmaFaultReason::NotMapped);
        finish.send(()).unwrap();
        assert_eq!(successor.join().unwrap(), Ok(IOVA));
    });
    let mut bytes = [0; 8];
    device.read(IOVA, &mut bytes).unwrap();
    assert_eq!(&bytes, b"new area");
}

/// One UNMAP has removed the area and waits for DMA; another, of everything, finds nothing.
#[test]
fn unmapping_everything_waits_for_dma_that_another_unmap_waits_for() {
    let Fixture { client, device, ioas, hwpt } = Fixture::new();
    device.attach(hwpt).unwrap();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    let (copying, wait_copying) = channel();
    let (go_on, wait_go_on) = channel::<()>();
    client.memory.during_next_copy(move || {
        copying.send(()).unwrap();
        wait_go_on.recv().unwrap();
    });
    std::thread::scope(|scope| {
        // Dropped if the test fails, which lets the other threads end.
        let go_on = go_on;
        let dma = scope.spawn(|| device.write(IOVA, &[7; PAGE_BYTES]));
        wait_copying.recv().unwrap();
        let (one, two) = (client.thread(1), client.thread(2));
        let first = scope.spawn(move || one.unmap(ioas, IOVA, PAGE));
        while client.ctx.counts().areas > 0 {
            std::thread::yield_now();
        }
        let second = scope.spawn(move || two.unmap_all(ioas));
        for _ in 0..10_000 {
            std::thread::yield_now();
        }
        assert!(!first.is_finished() && !second.is_finished());
        go_on.send(()).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(PAGE), Ok(0)));
        dma.join().unwrap().unwrap();
    });
}

#[test]
fn a_device_ends_while_a_command_pins_memory_for_it() {
    let Fixture { client, device, ioas, hwpt } = Fixture::new();
    client.destroy(hwpt).unwrap();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    let (ending, id) = (Arc::clone(&device), device.id());
    client.memory.during_next_pin(move || ending.end());
    client.hwpt(id, ioas, 0).unwrap();
    assert_eq!(client.destroy(id), Err(Errno::ENOENT));
    assert_eq!(client.memory.pinned(), [(VA, PAGE)]);
}

/// DESTROY has given the id of a page table back and not yet left the address space; another command makes
/// a page table there, which has the same id.
#[test]
fn a_page_table_that_ends_takes_nothing_from_the_next_with_its_id() {
    let fixture = Fixture::new();
    let Fixture { client, device, ioas, hwpt } = &fixture;
    client.map_at(*ioas, IOVA, VA, PAGE).unwrap();
    let ranges = client.ranges(*ioas);
    let made = Rc::new(Cell::new(None));
    let meanwhile = {
        let (other, device, ioas, made) = (client.thread(1), device.id(), *ioas, made.clone());
        move || made.set(Some(other.hwpt(device, ioas, 0)))
    };
    BeforeLock::<rank::Ioas>::run_before(1, meanwhile, || client.destroy(*hwpt).unwrap());
    assert_eq!(made.get(), Some(Ok(*hwpt)), "the id is free at once");
    assert_eq!(client.memory.pinned(), [(VA, PAGE)]);
    assert_eq!(client.ranges(*ioas), ranges, "its aperture still holds");
    device.attach(*hwpt).unwrap();
    assert!(fixture.read().is_ok());
    device.detach();
    client.destroy(*hwpt).unwrap();
    assert_eq!(client.memory.pinned(), []);
    assert_eq!(client.ranges(*ioas), (vec![(0, u64::MAX)], 1));
}
