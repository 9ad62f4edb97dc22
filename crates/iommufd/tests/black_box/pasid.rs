//! Attaching by PASID: which page tables serve, what is refused in which order, and what keeps what alive.

use std::sync::Arc;

use iommufd::{Device, Geometry, PasidMode};
use uapi::Errno;
use uapi::iommufd::hwpt_flags;

use crate::support::{Client, Platform, plain};

const BITS: u8 = 8;

fn platform() -> Platform {
    Platform::behind(Geometry { max_pasid_log2: BITS, ..plain() })
}

fn attach(device: &Arc<Device>, pasid: u32, table: u32, mode: PasidMode) -> Result<u32, Errno> {
    device.attach_pasid(pasid, table, mode).map_err(|refusal| refusal.errno())
}

#[test]
fn a_page_table_for_pasids_serves_several_and_stays_while_one_is_attached() {
    let client = Client::open();
    let device = platform().bind(&client);
    let hwpt = client.hwpt(device.id(), client.ioas(), hwpt_flags::PASID).unwrap();
    assert_eq!(attach(&device, 1, hwpt, PasidMode::Any), Ok(hwpt));
    assert_eq!(attach(&device, 1, hwpt, PasidMode::Any), Ok(hwpt), "again is no change");
    assert_eq!(attach(&device, 2, hwpt, PasidMode::Attach), Ok(hwpt));
    device.detach_pasid(1);
    device.detach_pasid(1);
    assert_eq!(client.destroy(hwpt), Err(Errno::EBUSY));
    device.detach_pasid(2);
    client.destroy(hwpt).unwrap();
}

#[test]
fn what_is_refused_and_in_which_order() {
    let client = Client::open();
    let device = platform().bind(&client);
    let ioas = client.ioas();
    let with = client.hwpt(device.id(), ioas, hwpt_flags::PASID).unwrap();
    let without = client.hwpt(device.id(), ioas, 0).unwrap();
    let refused = |pasid, table, mode| attach(&device, pasid, table, mode).err();
    assert_eq!(refused(1, 99, PasidMode::Attach), Some(Errno::ENOENT));
    assert_eq!(refused(1, device.id(), PasidMode::Attach), Some(Errno::EINVAL));
    assert_eq!(refused(1, with, PasidMode::Replace), Some(Errno::EINVAL), "it is not attached");
    assert_eq!(refused(1, without, PasidMode::Attach), Some(Errno::EINVAL));
    assert_eq!(refused(1, ioas, PasidMode::Attach), Some(Errno::EINVAL));
    assert_eq!(refused(0, with, PasidMode::Attach), Some(Errno::EINVAL));
    assert_eq!(refused(1 << BITS, with, PasidMode::Attach), Some(Errno::EINVAL));
    assert_eq!(refused((1 << BITS) - 1, with, PasidMode::Attach), None);
    assert_eq!(refused((1 << BITS) - 1, with, PasidMode::Attach), Some(Errno::EBUSY));
    // What is refused leaves no user.
    client.destroy(without).unwrap();
    client.destroy(with).unwrap_err();
}

#[test]
fn an_iommu_without_pasids_makes_no_page_table_for_them() {
    let client = Client::open();
    let device = Platform::new().bind(&client);
    let ioas = client.ioas();
    assert_eq!(client.hwpt(device.id(), ioas, hwpt_flags::PASID), Err(Errno::EOPNOTSUPP));
    let hwpt = client.hwpt(device.id(), ioas, 0).unwrap();
    assert_eq!(attach(&device, 1, hwpt, PasidMode::Any), Err(Errno::EINVAL));
}

#[test]
fn transactions_without_a_pasid_want_such_a_page_table_too() {
    let client = Client::open();
    let device = platform().bind(&client);
    let (one, two) = (client.ioas(), client.ioas());
    let with = client.hwpt(device.id(), one, hwpt_flags::PASID).unwrap();
    let without = client.hwpt(device.id(), two, 0).unwrap();

    device.attach(without).unwrap();
    assert_eq!(attach(&device, 1, with, PasidMode::Any), Err(Errno::EINVAL));
    device.detach();
    attach(&device, 1, with, PasidMode::Any).unwrap();
    assert_eq!(device.attach(without).map_err(|refusal| refusal.errno()), Err(Errno::EINVAL));
    assert_eq!(
        device.attach(two).map_err(|refusal| refusal.errno()),
        Err(Errno::EINVAL),
        "an automatic one"
    );
    device.attach(with).unwrap();
    assert_eq!(
        device.attach(without).map_err(|refusal| refusal.errno()),
        Err(Errno::EINVAL),
        "to move there"
    );
    device.detach_pasid(1);
    device.attach(without).unwrap();
}

#[test]
fn a_group_goes_through_one_page_table_for_each_pasid_and_moves_together() {
    let client = Client::open();
    let [first, second] = platform().bind_pair(&client);
    let ioas = client.ioas();
    let [one, two] = [(); 2].map(|()| client.hwpt(first.id(), ioas, hwpt_flags::PASID).unwrap());
    attach(&first, 1, one, PasidMode::Attach).unwrap();
    assert_eq!(attach(&second, 1, two, PasidMode::Attach), Err(Errno::EINVAL));
    attach(&second, 1, one, PasidMode::Attach).unwrap();
    attach(&second, 2, two, PasidMode::Attach).unwrap();
    attach(&first, 1, two, PasidMode::Replace).unwrap();
    client.destroy(one).unwrap();
    // The end of a device takes it off all.
    second.end();
    assert_eq!(client.destroy(two), Err(Errno::EBUSY));
    first.detach_pasid(1);
    client.destroy(two).unwrap();
}
