//! The errnos of each operation of the test interface, in the order of its checks; beside `errnos`, which has the commands'.
//!
//! What runs out is in `exhaustion`; what operations do when they succeed, beside what they are for. Source: v7.3
//! `iommufd_test.h`, `selftest.c`.

use std::collections::BTreeSet;

use iommufd::mock::MockMachine;
use uapi::Errno;
use uapi::iommufd::{HwptAlloc, hwpt_flags};

use crate::support::client::FILE;
use crate::support::test_command::{Field, Long, Word, op};
use crate::support::{Client, PAGE};

use Errno as E;

/// An operation, what its id means, its fields that are not zero, and what it answers.
type Row = (u32, u32, &'static [Field], Errno);

const IOAS: u32 = 1;
const STDEV: u32 = 2;
const DEVICE: u32 = 3;
const AUTOMATIC: u32 = 4;
const PARENT: u32 = 5;
const VIOMMU: u32 = 6;
const NESTED: u32 = 7;
const DIRTY: u32 = 8;
const MISSING: u32 = 99;
/// Stand for the descriptors of an access that pins and one that does not.
const PINS: u32 = 0xf000_0001;
const COPIES: u32 = 0xf000_0002;
const CLOSED: u32 = 77;

const TOP: u64 = u64::MAX;
const IOVA: u64 = 0x100_0000;
const VA: u64 = 0x10_0000;
const UNMAPPED: u64 = 0x7000_0000_0000;
const MIB_16: u64 = 1 << 24;

const ROWS: &[Row] = &[
    (0, 0, &[], E::EOPNOTSUPP),
    (24, 0, &[], E::EOPNOTSUPP),
    (op::ADD_RESERVED, MISSING, &[Long(16, TOP)], E::EINVAL),
    (op::ADD_RESERVED, MISSING, &[Long(16, TOP), Long(24, 2)], E::EOVERFLOW),
    (op::ADD_RESERVED, MISSING, &[Long(24, 1)], E::ENOENT),
    (op::ADD_RESERVED, IOAS, &[Long(16, IOVA), Long(24, PAGE)], E::EADDRINUSE),
    (op::MOCK_DOMAIN, MISSING, &[], E::ENOENT),
    (op::MOCK_DOMAIN, STDEV, &[], E::EINVAL),
    (op::MOCK_DOMAIN_FLAGS, MISSING, &[Word(28, 2)], E::EINVAL),
    (op::MOCK_DOMAIN_FLAGS, MISSING, &[Word(28, 4)], E::ENOENT),
    (op::MD_CHECK_MAP, MISSING, &[Long(24, PAGE)], E::ENOENT),
    (op::MD_CHECK_MAP, NESTED, &[Long(24, PAGE)], E::ENOENT),
    (op::MD_CHECK_MAP, AUTOMATIC, &[Long(16, 1), Long(24, PAGE)], E::EINVAL),
    (op::MD_CHECK_MAP, AUTOMATIC, &[Long(16, IOVA), Long(24, PAGE), Long(32, 1)], E::EINVAL),
    (op::MD_CHECK_MAP, AUTOMATIC, &[Long(16, IOVA), Long(24, PAGE), Long(32, UNMAPPED)], E::EFAULT),
    (
        op::MD_CHECK_MAP,
        AUTOMATIC,
        &[Long(16, IOVA), Long(24, PAGE), Long(32, VA + PAGE)],
        E::EINVAL,
    ),
    (op::MD_CHECK_REFS, 0, &[Long(16, 1), Long(24, VA)], E::EINVAL),
    (op::MD_CHECK_REFS, 0, &[Long(16, PAGE), Long(24, VA + 1)], E::EINVAL),
    (op::MD_CHECK_REFS, 0, &[Long(16, PAGE), Long(24, UNMAPPED)], E::EFAULT),
    (op::MD_CHECK_REFS, 0, &[Long(16, PAGE), Long(24, VA), Word(32, 9)], E::EIO),
    (op::CREATE_ACCESS, MISSING, &[Word(20, 2)], E::EOPNOTSUPP),
    (op::CREATE_ACCESS, MISSING, &[], E::ENOENT),
    (op::DESTROY_ACCESS_PAGES, CLOSED, &[], E::EBADFD),
    (op::DESTROY_ACCESS_PAGES, PINS, &[Word(16, 5)], E::ENOENT),
    (op::ACCESS_PAGES, CLOSED, &[Long(32, MIB_16 + 1), Word(16, 2)], E::ENOMEM),
    (op::ACCESS_PAGES, CLOSED, &[Long(32, PAGE), Word(16, 2)], E::EOPNOTSUPP),
    (op::ACCESS_PAGES, CLOSED, &[Long(32, PAGE)], E::EBADFD),
    (op::ACCESS_PAGES, COPIES, &[Long(32, PAGE), Long(24, UNMAPPED)], E::EOPNOTSUPP),
    (op::ACCESS_PAGES, PINS, &[Long(24, IOVA), Long(32, 0)], E::EINVAL),
    (op::ACCESS_PAGES, PINS, &[Long(24, TOP), Long(32, 2)], E::EOVERFLOW),
    (op::ACCESS_PAGES, PINS, &[Long(24, UNMAPPED), Long(32, PAGE)], E::ENOENT),
    (op::ACCESS_PAGES, PINS, &[Long(24, IOVA), Long(32, PAGE), Long(40, VA + PAGE)], E::EBADE),
    (op::ACCESS_RW, CLOSED, &[Long(24, MIB_16 + 1), Word(40, 2)], E::ENOMEM),
    (op::ACCESS_RW, CLOSED, &[Long(24, PAGE), Word(40, 2)], E::EOPNOTSUPP),
    (op::ACCESS_RW, CLOSED, &[Long(24, PAGE)], E::EBADFD),
    (
        op::ACCESS_RW,
        PINS,
        &[Long(16, IOVA), Long(24, 8), Long(32, UNMAPPED), Word(40, 1)],
        E::EFAULT,
    ),
    (op::ACCESS_RW, PINS, &[Long(16, UNMAPPED), Long(24, 8), Long(32, VA)], E::ENOENT),
    (op::SET_TEMP_MEMORY_LIMIT, 0, &[Word(16, 11)], E::EINVAL),
    (op::MOCK_DOMAIN_REPLACE, MISSING, &[Word(16, IOAS)], E::ENOENT),
    (op::MOCK_DOMAIN_REPLACE, IOAS, &[Word(16, IOAS)], E::ENOENT),
    (op::MOCK_DOMAIN_REPLACE, STDEV, &[Word(16, MISSING)], E::ENOENT),
    (op::MOCK_DOMAIN_REPLACE, STDEV, &[Word(16, DEVICE)], E::EINVAL),
    (op::ACCESS_REPLACE_IOAS, CLOSED, &[Word(16, IOAS)], E::EBADFD),
    (op::ACCESS_REPLACE_IOAS, PINS, &[Word(16, MISSING)], E::ENOENT),
    (op::DIRTY, MISSING, &[], E::EINVAL),
    (op::DIRTY, MISSING, &[Long(32, PAGE), Long(40, PAGE)], E::EINVAL),
    (op::DIRTY, MISSING, &[Long(24, 1), Long(32, PAGE), Long(40, PAGE), Long(48, VA)], E::EINVAL),
    (op::DIRTY, MISSING, &[Long(32, 1 << 40), Long(40, PAGE), Long(48, VA)], E::EOVERFLOW),
    (op::DIRTY, MISSING, &[Long(32, PAGE), Long(40, PAGE), Long(48, VA)], E::ENOENT),
    (op::DIRTY, DIRTY, &[Long(32, PAGE), Long(40, PAGE), Long(48, VA)], E::EINVAL),
    (op::MD_CHECK_IOTLB, MISSING, &[], E::ENOENT),
    (op::MD_CHECK_IOTLB, AUTOMATIC, &[], E::ENOENT),
    (op::MD_CHECK_IOTLB, NESTED, &[Word(16, 4)], E::EINVAL),
    (op::MD_CHECK_IOTLB, NESTED, &[Word(20, 5)], E::EINVAL),
    (op::TRIGGER_IOPF, 0, &[Word(16, MISSING)], E::ENOENT),
    (op::DEV_CHECK_CACHE, MISSING, &[], E::ENOENT),
    (op::DEV_CHECK_CACHE, DEVICE, &[Word(16, 4)], E::EINVAL),
    (op::DEV_CHECK_CACHE, DEVICE, &[Word(20, 5)], E::EINVAL),
    (op::TRIGGER_VEVENT, 0, &[Word(16, MISSING)], E::ENOENT),
    (op::TRIGGER_VEVENT, 0, &[Word(16, DEVICE)], E::ENOENT),
    (op::PASID_ATTACH, MISSING, &[Word(16, 1), Word(20, IOAS)], E::ENOENT),
    (op::PASID_ATTACH, STDEV, &[Word(16, 1), Word(20, MISSING)], E::ENOENT),
    (op::PASID_ATTACH, STDEV, &[Word(16, 1), Word(20, PARENT)], E::EINVAL),
    (op::PASID_REPLACE, MISSING, &[Word(16, 1), Word(20, IOAS)], E::ENOENT),
    (op::PASID_REPLACE, STDEV, &[Word(16, 1), Word(20, PARENT)], E::EINVAL),
    (op::PASID_DETACH, MISSING, &[Word(16, 1)], E::ENOENT),
    (op::PASID_CHECK_HWPT, MISSING, &[Word(16, 1)], E::ENOENT),
    (op::PASID_CHECK_HWPT, STDEV, &[Word(16, 1), Word(20, MISSING)], E::ENOENT),
    (op::PASID_CHECK_HWPT, STDEV, &[Word(16, 1), Word(20, IOAS)], E::EINVAL),
    (op::PASID_CHECK_HWPT, STDEV, &[Word(16, 1), Word(20, PARENT)], E::EINVAL),
    (op::DMABUF_GET, 0, &[], E::EINVAL),
    (op::DMABUF_GET, 0, &[Word(16, (2 << 20) + 1)], E::EINVAL),
    (op::DMABUF_REVOKE, 0, &[Word(16, CLOSED)], E::EBADF),
    (op::DMABUF_REVOKE, 0, &[Word(16, FILE.cast_unsigned())], E::EINVAL),
];

/// Objects with the ids of the constants above, and descriptors for those that stand for some.
struct World {
    client: Client,
    pins: i32,
    copies: i32,
}

impl World {
    fn new() -> Self {
        let client = Client::open_mock(&MockMachine::new());
        let ioas = client.ioas();
        let [stdev, automatic, device] = client.mock_device(ioas).unwrap();
        assert_eq!([ioas, stdev, device, automatic], [IOAS, STDEV, DEVICE, AUTOMATIC]);
        client.map_at(ioas, IOVA, VA, 2 * PAGE).unwrap();
        assert_eq!(client.hwpt(device, ioas, hwpt_flags::NEST_PARENT), Ok(PARENT));
        assert_eq!(client.viommu(0xdead_beef, device, PARENT), Ok(VIOMMU));
        let nested = HwptAlloc {
            dev_id: device,
            pt_id: PARENT,
            data_type: 0xdead,
            data_len: 4,
            data_uptr: 0x20_0000,
            ..HwptAlloc::default()
        };
        let nested = client.call(uapi::CommandId::HwptAlloc, nested).unwrap();
        assert_eq!(nested.out_hwpt_id, NESTED);
        assert_eq!(client.hwpt(device, ioas, hwpt_flags::DIRTY_TRACKING), Ok(DIRTY));
        let (pins, copies) = (client.create_access(ioas, 1), client.create_access(ioas, 0));
        Self { pins: pins.unwrap(), copies: copies.unwrap(), client }
    }

    fn run(&self, (op, id, fields, _): &Row) -> Option<Errno> {
        let number = |word: u32| match word {
            PINS => self.pins.cast_unsigned(),
            COPIES => self.copies.cast_unsigned(),
            word => word,
        };
        let fields: Vec<Field> = fields
            .iter()
            .map(|field| match field {
                Word(at, value) => Word(*at, number(*value)),
                Long(at, value) => Long(*at, *value),
            })
            .collect();
        self.client.test(*op, number(*id), &fields).err()
    }
}

#[test]
fn each_operation_refuses_in_the_kernels_order_and_changes_nothing() {
    let world = World::new();
    let state = || (world.client.ctx.counts(), world.client.memory.pinned());
    let before = state();
    let mut others = Vec::new();
    for row in ROWS {
        let answer = world.run(row);
        let (op, id, fields, errno) = row;
        if answer != Some(*errno) {
            others.push((op, id, fields, answer));
        }
        assert_eq!(state(), before, "{op} {id} {fields:x?}");
    }
    assert!(others.is_empty(), "other answers: {others:x?}");
}

#[test]
fn each_operation_has_rows() {
    let told: BTreeSet<u32> = ROWS.iter().map(|(op, ..)| *op).collect();
    assert_eq!(told, (0..=24).collect(), "and what comes before the first and after the last");
}
