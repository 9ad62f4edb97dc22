//! A guest's tables, and what they are nested in, on Intel VT-d.

use iommufd::Hardware;
use uapi::iommufd::{hwpt_data, hwpt_flags};

use super::*;
use crate::support::{Platform, plain};

const DEVICE: u64 = 1;
/// What is nested in maps all of this one; of the other one page may be read only.
const IOAS: u64 = 2;
const PARENT: u64 = 3;
const OTHER: u64 = 4;
const NEST_PARENT: u64 = hwpt_flags::NEST_PARENT as u64;
const FIRST_STAGE: u64 = hwpt_data::VTD_S1 as u64;

pub(super) fn world() -> World {
    let client = Client::open();
    let platform = Platform::of(Hardware::Vtd, plain());
    let device = platform.bind(&client);
    let ioas = client.ioas();
    let parent = client.hwpt(device.id(), ioas, hwpt_flags::NEST_PARENT).unwrap();
    let other = client.ioas();
    client.map(other, 5, IOVA, VA, PAGE).unwrap();
    assert_eq!([device.id(), ioas, parent, other].map(u64::from), [DEVICE, IOAS, PARENT, OTHER]);
    World { client, _kept: Box::new((platform, device)) }
}

pub(super) const ROWS: &[Row] = &[
    (
        C::IoasMap,
        &[
            ("flags", READ | FIXED),
            ("ioas_id", IOAS),
            ("iova", IOVA),
            ("user_va", UNMAPPED),
            ("length", PAGE),
        ],
        E::EFAULT,
    ),
    (
        C::IoasMap,
        &[
            ("flags", READ | FIXED),
            ("ioas_id", IOAS),
            ("iova", IOVA),
            ("user_va", VA),
            ("length", PAGE),
        ],
        E::EINVAL,
    ),
    (C::HwptAlloc, &[("flags", NEST_PARENT), ("dev_id", DEVICE), ("pt_id", OTHER)], E::EINVAL),
    (
        C::HwptAlloc,
        &[
            ("dev_id", DEVICE),
            ("pt_id", PARENT),
            ("data_type", FIRST_STAGE),
            ("data_len", 8),
            ("data_uptr", AT),
        ],
        E::EINVAL,
    ),
];
