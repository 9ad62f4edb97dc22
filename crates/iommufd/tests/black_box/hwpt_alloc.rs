//! `IOMMU_HWPT_ALLOC`.

use std::sync::Arc;

use uapi::iommufd::{HwptAlloc, hwpt_data, hwpt_flags};
use uapi::{CommandId, Errno};

use crate::support::{Client, PAGE, Platform, READ_ONLY, plain};

const VA: u64 = 0x10_0000;

fn alloc(client: &Client, argument: HwptAlloc) -> Result<u32, Errno> {
    client.call(CommandId::HwptAlloc, argument).map(|answer| answer.out_hwpt_id)
}

#[test]
fn refuses_in_the_kernels_order() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let (dev_id, ioas) = (device.id(), client.ioas());
    let hwpt = client.hwpt(dev_id, ioas, 0).unwrap();
    let ask = HwptAlloc { dev_id: 77, pt_id: 78, flags: !0, ..HwptAlloc::default() };
    assert_eq!(
        alloc(&client, HwptAlloc { reserved: 1, data_len: 1, ..ask }),
        Err(Errno::EOPNOTSUPP)
    );
    assert_eq!(alloc(&client, HwptAlloc { data_len: 1, ..ask }), Err(Errno::EINVAL));
    assert_eq!(alloc(&client, HwptAlloc { data_type: 1, ..ask }), Err(Errno::EINVAL));
    assert_eq!(alloc(&client, ask), Err(Errno::ENOENT));
    assert_eq!(alloc(&client, HwptAlloc { dev_id: ioas, ..ask }), Err(Errno::ENOENT));
    let ask = HwptAlloc { dev_id, ..ask };
    assert_eq!(alloc(&client, ask), Err(Errno::EINVAL), "a missing parent is not ENOENT");
    assert_eq!(alloc(&client, HwptAlloc { pt_id: dev_id, ..ask }), Err(Errno::EINVAL));
    assert_eq!(alloc(&client, HwptAlloc { pt_id: hwpt, ..ask }), Err(Errno::EOPNOTSUPP));
    assert_eq!(alloc(&client, HwptAlloc { pt_id: ioas, ..ask }), Err(Errno::EOPNOTSUPP));
}

#[test]
fn our_iommus_take_no_data_and_no_pasid() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let (dev_id, pt_id) = (device.id(), client.ioas());
    let data = HwptAlloc {
        dev_id,
        pt_id,
        data_type: hwpt_data::VTD_S1,
        data_len: 24,
        ..HwptAlloc::default()
    };
    assert_eq!(alloc(&client, data), Err(Errno::EOPNOTSUPP));
    let refused = [
        hwpt_flags::PASID,
        hwpt_flags::NEST_PARENT | hwpt_flags::FAULT_ID_VALID,
        hwpt_flags::PASID | hwpt_flags::DIRTY_TRACKING,
    ];
    for flags in refused {
        assert_eq!(client.hwpt(dev_id, pt_id, flags), Err(Errno::EOPNOTSUPP), "{flags:#x}");
    }
    let accepted = [0, hwpt_flags::NEST_PARENT, hwpt_flags::DIRTY_TRACKING, 3];
    for (flags, id) in accepted.into_iter().zip(3..) {
        assert_eq!(client.hwpt(dev_id, pt_id, flags), Ok(id), "{flags:#x}");
    }
}

#[test]
fn dirty_tracking_needs_an_iommu_that_has_it() {
    let mut geometry = plain();
    geometry.dirty_tracking = false;
    let client = Client::open();
    let device = Platform::behind(geometry).bind(&client);
    let ioas = client.ioas();
    let answer = client.hwpt(device.id(), ioas, hwpt_flags::DIRTY_TRACKING);
    assert_eq!(answer, Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_fault_queue_is_looked_up_last_and_only_if_asked_for() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let (dev_id, ioas) = (device.id(), client.ioas());
    client.map_at(ioas, 0x1000, 0xdead_0000, PAGE).unwrap();
    let flags = hwpt_flags::FAULT_ID_VALID;
    assert_eq!(client.hwpt(dev_id, ioas, flags), Err(Errno::EFAULT));
    client.unmap_all(ioas).unwrap();
    assert_eq!(client.hwpt(dev_id, ioas, flags), Err(Errno::ENOENT));
    assert_eq!(client.ctx.counts().hwpts, 0);
    let ignored =
        HwptAlloc { dev_id, pt_id: ioas, fault_id: 9, reserved2: 7, ..HwptAlloc::default() };
    assert_eq!(alloc(&client, ignored), Ok(3));
}

#[test]
fn the_first_page_table_pins_and_the_last_unpins() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    client.map_at(ioas, 0x1000, VA, PAGE).unwrap();
    client.map_at(ioas, 0x8000, VA + PAGE, PAGE).unwrap();
    let first = client.hwpt(device.id(), ioas, 0).unwrap();
    let second = client.hwpt(device.id(), ioas, 0).unwrap();
    assert_eq!(client.memory.pins(), 2, "once, however many page tables");
    client.destroy(first).unwrap();
    assert_eq!(client.ctx.counts().pinned_bytes, 2 * PAGE);
    client.destroy(second).unwrap();
    assert_eq!(client.memory.pinned(), []);
    assert_eq!(client.ctx.counts().pinned_bytes, 0);
    assert_eq!(client.ctx.counts().mapped_bytes, 2 * PAGE);
}

#[test]
fn nothing_of_a_destroyed_page_table_stays() {
    let client = Client::open();
    let platform = Platform::new();
    let device = platform.bind(&client);
    let ioas = client.ioas();
    let holders = || Arc::strong_count(platform.single.iommu());
    let before = holders();
    let hwpt = client.hwpt(device.id(), ioas, 0).unwrap();
    assert_eq!(holders(), before + 1);
    client.destroy(hwpt).unwrap();
    assert_eq!(holders(), before);
    device.attach(ioas).unwrap();
    device.detach();
    assert_eq!(holders(), before);
}

#[test]
fn areas_that_a_page_table_cannot_show_are_in_its_way() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    let hwpt = || client.hwpt(device.id(), ioas, 0);
    for (iova, va, length) in [(0x1001, VA, PAGE), (0x1000, VA, 5), (0x1000, VA + 1, PAGE)] {
        client.map_at(ioas, iova, va, length).unwrap();
        assert_eq!(hwpt(), Err(Errno::EADDRINUSE), "alignment {iova:#x} {va:#x} {length:#x}");
        client.unmap_all(ioas).unwrap();
    }
    client.map_at(ioas, (1 << 48) - PAGE, VA, 2 * PAGE).unwrap();
    assert_eq!(hwpt(), Err(Errno::EADDRINUSE), "aperture");
    client.unmap_all(ioas).unwrap();
    assert_eq!(client.ranges(ioas), (vec![(0, u64::MAX)], 1), "nothing is left of a refusal");
    hwpt().unwrap();
}

#[test]
fn pages_larger_than_the_clients_are_refused() {
    let mut geometry = plain();
    geometry.page_sizes = 1 << 16;
    let client = Client::open();
    let device = Platform::behind(geometry).bind(&client);
    let ioas = client.ioas();
    assert_eq!(client.hwpt(device.id(), ioas, 0), Err(Errno::EINVAL));
}

#[test]
fn an_answer_that_cannot_be_written_leaves_no_page_table() {
    let mut client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    client.map_at(ioas, 0x1000, VA, PAGE).unwrap();
    client.at = READ_ONLY.start;
    assert_eq!(client.hwpt(device.id(), ioas, 0), Err(Errno::EFAULT));
    assert_eq!((client.ctx.counts().hwpts, client.memory.pinned()), (0, vec![]));
    client.at = 0x1000;
    client.destroy(ioas).unwrap();
}
