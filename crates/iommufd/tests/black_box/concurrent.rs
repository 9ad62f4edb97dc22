//! Threads: what UNMAP, detach and replacement promise while DMA is running.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use iommufd::Device;
use pci::{Dma, DmaFaultReason};
use uapi::Errno;

use crate::support::{Client, PAGE, PAGE_BYTES, Platform};

const VA: u64 = 0x10_0000;
const IOVA: u64 = 0x10_0000;
const PAGES: u64 = 8;

/// Lets `device` write over all of the test's mappings until `work` has ended. Faults are expected; an
/// access to closed memory panics, and so fails the test.
fn while_writing<R>(devices: &[&Device], work: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for device in devices {
            scope.spawn(|| {
                let bytes = [0x5a; 3 * PAGE_BYTES];
                for turn in (0..PAGES).cycle() {
                    if stop.load(SeqCst) {
                        return;
                    }
                    let answer = device.write(IOVA + turn * PAGE + 100, &bytes);
                    let reason = answer.err().map(|fault| fault.reason);
                    let harmless =
                        [None, Some(DmaFaultReason::NotMapped), Some(DmaFaultReason::NotAttached)];
                    assert!(harmless.contains(&reason), "{reason:?}");
                }
            });
        }
        let done = work();
        stop.store(true, SeqCst);
        done
    })
}

#[test]
fn no_dma_reaches_memory_after_its_unmap_returned() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    while_writing(&[&device], || {
        for _ in 0..150 {
            client.memory.open_all();
            for page in 0..PAGES {
                client.map_at(ioas, IOVA + page * PAGE, VA + page * PAGE, PAGE).unwrap();
            }
            std::thread::yield_now();
            client.unmap(ioas, IOVA, PAGE * PAGES / 2).unwrap();
            client.memory.close(VA..VA + PAGE * PAGES / 2);
            client.unmap_all(ioas).unwrap();
            client.memory.close(VA..VA + PAGE * PAGES);
            assert_eq!(client.memory.pinned(), []);
        }
    });
    device.end();
}

/// Moves both devices of a group from `targets[0]` to `targets[1]` and off that, while they write. Behind
/// those are address spaces that map memory from `VA` and from `VA + PAGES * PAGE` on. `left` is called
/// when nobody is attached.
fn move_and_leave(
    client: &Client,
    [first, second]: &[Arc<Device>; 2],
    targets: [u32; 2],
    left: impl Fn(),
) {
    while_writing(&[first, second], || {
        for _ in 0..100 {
            first.attach(targets[0]).unwrap();
            second.attach(targets[0]).unwrap();
            std::thread::yield_now();
            first.attach(targets[1]).unwrap();
            client.memory.close(VA..VA + PAGES * PAGE);
            std::thread::yield_now();
            second.detach();
            first.detach();
            client.memory.close(VA..VA + 2 * PAGES * PAGE);
            left();
            client.memory.open_all();
        }
    });
}

fn two_address_spaces(client: &Client) -> [u32; 2] {
    [VA, VA + PAGES * PAGE].map(|va| {
        let ioas = client.ioas();
        client.map_at(ioas, IOVA, va, PAGES * PAGE).unwrap();
        ioas
    })
}

#[test]
fn no_dma_reaches_memory_that_is_unpinned_as_the_device_leaves_it() {
    let client = Client::open();
    let devices = Platform::new().bind_pair(&client);
    let targets = two_address_spaces(&client);
    move_and_leave(&client, &devices, targets, || assert_eq!(client.memory.pinned(), []));
    devices.iter().for_each(Device::end);
    assert_eq!(client.ctx.counts().objects(), 2);
}

#[test]
fn no_dma_reaches_memory_that_stays_pinned_once_the_device_left_it() {
    let client = Client::open();
    let devices = Platform::new().bind_pair(&client);
    let targets =
        two_address_spaces(&client).map(|ioas| client.hwpt(devices[0].id(), ioas, 0).unwrap());
    move_and_leave(&client, &devices, targets, || assert_eq!(client.memory.pinned().len(), 2));
    devices.iter().for_each(Device::end);
    assert_eq!(client.ctx.counts().objects(), 4);
}

#[test]
fn mappers_and_unmappers_agree_on_what_is_there() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    device.attach(ioas).unwrap();
    while_writing(&[&device], || {
        std::thread::scope(|scope| {
            for number in 0..3 {
                let thread = client.thread(number);
                scope.spawn(move || {
                    for turn in 0..200 {
                        let iova = IOVA + (turn * 5 + number * 3) % PAGES * PAGE;
                        let mapped = thread.map_at(ioas, iova, VA, PAGE);
                        assert!(matches!(mapped, Ok(_) | Err(Errno::EEXIST)), "{mapped:?}");
                        let span = 1 + turn % 3;
                        let gone = thread.unmap(ioas, iova, span * PAGE);
                        let expected = matches!(gone, Ok(_) | Err(Errno::ENOENT | Errno::EBUSY));
                        assert!(expected, "{gone:?}");
                    }
                });
            }
        });
    });
    let counts = client.ctx.counts();
    assert_eq!(counts.mapped_bytes, counts.areas * PAGE);
    assert_eq!(counts.pinned_bytes, counts.mapped_bytes);
    assert_eq!(client.memory.pinned().len() as u64, counts.areas);
    assert_eq!(client.unmap_all(ioas), Ok(counts.mapped_bytes));
    assert_eq!(client.memory.pinned(), []);
}

/// Page tables come and go while areas do: whatever is mapped when a page table is there is pinned.
#[test]
fn no_area_slips_between_a_mapping_and_a_page_table() {
    let client = Client::open();
    let platform = Platform::new();
    let device = platform.bind(&client);
    let ioas = client.ioas();
    std::thread::scope(|scope| {
        for number in 1..3 {
            let thread = client.thread(number);
            scope.spawn(move || {
                for turn in 0..200 {
                    let iova = IOVA + (number * 100 + turn % 7) * PAGE;
                    thread.map_at(ioas, iova, VA + turn % 7 * PAGE, PAGE).unwrap();
                    thread.unmap(ioas, iova, PAGE).unwrap();
                }
                thread.map_at(ioas, IOVA + number * 100 * PAGE, VA, PAGE).unwrap();
            });
        }
        for _ in 0..100 {
            let hwpt = client.hwpt(device.id(), ioas, 0).unwrap();
            device.attach(ioas).unwrap();
            client.destroy(hwpt).unwrap();
            device.detach();
        }
        device.attach(ioas).unwrap();
    });
    let counts = client.ctx.counts();
    assert_eq!((counts.areas, counts.pinned_bytes), (2, 2 * PAGE));
    assert_eq!(client.memory.pinned().len(), 2);
    device.detach();
    assert_eq!((client.ctx.counts().pinned_bytes, client.memory.pinned()), (0, vec![]));
}

/// Two groups attach to one address space at once, again and again: they always share a page table.
#[test]
fn attaching_at_once_makes_one_page_table() {
    let client = Client::open();
    let platform = Platform::new();
    let single = platform.bind(&client);
    let [paired, _unused] = platform.bind_pair(&client);
    let ioas = client.ioas();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    for _ in 0..200 {
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| paired.attach(ioas).unwrap());
            (single.attach(ioas).unwrap(), other.join().unwrap())
        });
        assert_eq!((one, client.ctx.counts().hwpts), (other, 1));
        std::thread::scope(|scope| {
            scope.spawn(|| paired.detach());
            single.detach();
        });
        assert_eq!((client.ctx.counts().hwpts, client.memory.pinned()), (0, vec![]));
    }
}

/// Page tables, areas and attachments come and go in three threads, with ids that are given out again at
/// once. Whoever could attach finds what is mapped for good; in the end all can be taken apart.
#[test]
fn page_tables_areas_and_attachments_come_and_go_at_once() {
    let client = Client::open();
    let platform = Platform::new();
    let devices = platform.bind_pair(&client);
    let ioas = client.ioas();
    client.map_at(ioas, IOVA, VA, PAGE).unwrap();
    std::thread::scope(|scope| {
        for (number, device) in (1..).zip(&devices) {
            let thread = client.thread(number);
            scope.spawn(move || {
                for turn in 0..100 {
                    let made = thread.hwpt(device.id(), ioas, 0).unwrap();
                    let target = if turn % 3 == 0 { ioas } else { made };
                    match device.attach(target) {
                        Ok(_) => {
                            assert!(device.read(IOVA, &mut [0; 8]).is_ok());
                            device.detach();
                        }
                        Err(refusal) => assert_eq!(refusal.errno(), Errno::EINVAL, "{refusal}"),
                    }
                    thread.destroy(made).unwrap();
                }
            });
        }
        let thread = client.thread(3);
        scope.spawn(move || {
            for turn in 0..200 {
                let iova = IOVA + (1 + turn % PAGES) * PAGE;
                thread.map_at(ioas, iova, VA + PAGE, PAGE).unwrap();
                thread.unmap(ioas, iova, PAGE).unwrap();
            }
        });
    });
    let counts = client.ctx.counts();
    assert_eq!((counts.hwpts, counts.areas, counts.pinned_bytes), (0, 1, 0));
    assert_eq!(client.memory.pinned(), []);
    assert_eq!(client.ranges(ioas), (vec![(0, u64::MAX)], 1));
    devices.iter().for_each(Device::end);
    client.destroy(ioas).unwrap();
}
