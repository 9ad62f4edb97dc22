//! The errnos of each command, in the order of its checks: a row is wrong in all that the rows below it check, too.
//!
//! What every command refuses alike is in `table`, what runs out in `exhaustion`. Answers that cannot be written are
//! beside the command's own tests. Source: [uapi/iommufd.h]; v7.3 `drivers/iommu/iommufd`.

mod reasons;
mod rfc;
mod type1;
mod vtd;

use std::any::Any;
use std::collections::BTreeSet;

use uapi::{Command, CommandId, Errno, FileKind};

use crate::support::{Client, MockNest, PAGE};

use CommandId as C;
use Errno as E;

/// A command, its fields that are not zero, and what it answers.
type Row = (CommandId, &'static [(&'static str, u64)], Errno);

const IOAS: u64 = 1;
const DEVICE: u64 = 3;
const AUTOMATIC: u64 = 4;
const PARENT: u64 = 5;
const VIOMMU: u64 = 6;
const NESTED: u64 = 7;
const MISSING: u64 = 99;
const TOP: u64 = u64::MAX;
/// The mock's type of vIOMMUs, of their queues and of entries to drop.
const MOCK: u64 = 0xdead_beef;
/// An area of two pages in the address space, and the memory that it maps.
const IOVA: u64 = 0x100_0000;
const VA: u64 = 0x10_0000;
/// One page that may be read only.
const READ_ONLY_IOVA: u64 = 0x200_0000;
/// Where the client has ranges, entries and data: zeros.
const AT: u64 = 0x20_0000;
const UNMAPPED: u64 = 0x7000_0000_0000;
const READ: u64 = 4;
const WRITE: u64 = 2;
const FIXED: u64 = 1;

const ROWS: &[Row] = &[
    (C::Destroy, &[("id", 0)], E::ENOENT),
    (C::Destroy, &[("id", DEVICE)], E::EBUSY),
    (C::IoasAlloc, &[("flags", 1)], E::EOPNOTSUPP),
    (
        C::IoasAllowIovas,
        &[("__reserved", 1), ("ioas_id", MISSING), ("num_iovas", 1)],
        E::EOPNOTSUPP,
    ),
    (C::IoasAllowIovas, &[("ioas_id", MISSING), ("num_iovas", 1)], E::ENOENT),
    (C::IoasAllowIovas, &[("ioas_id", IOAS), ("num_iovas", 1)], E::EFAULT),
    (C::IoasAllowIovas, &[("ioas_id", IOAS), ("num_iovas", TOP)], E::ENOMEM),
    (C::IoasAllowIovas, &[("ioas_id", IOAS), ("num_iovas", 1), ("allowed_iovas", AT)], E::EINVAL),
    (C::IoasCopy, &[("flags", 8), ("length", TOP)], E::EOPNOTSUPP),
    (C::IoasCopy, &[("length", TOP)], E::EOVERFLOW),
    (C::IoasCopy, &[("src_ioas_id", MISSING)], E::EINVAL),
    (C::IoasCopy, &[("flags", READ), ("src_ioas_id", MISSING)], E::ENOENT),
    (C::IoasCopy, &[("flags", READ), ("src_ioas_id", IOAS)], E::EINVAL),
    (
        C::IoasCopy,
        &[("flags", READ), ("src_ioas_id", IOAS), ("src_iova", IOVA), ("length", TOP - 1)],
        E::EOVERFLOW,
    ),
    (C::IoasCopy, &[("flags", READ), ("src_ioas_id", IOAS), ("length", PAGE)], E::ENOENT),
    (
        C::IoasCopy,
        &[
            ("flags", WRITE | FIXED),
            ("src_ioas_id", IOAS),
            ("dst_ioas_id", IOAS),
            ("src_iova", READ_ONLY_IOVA),
            ("dst_iova", IOVA),
            ("length", PAGE),
        ],
        E::EEXIST,
    ),
    (
        C::IoasCopy,
        &[
            ("flags", WRITE | FIXED),
            ("src_ioas_id", IOAS),
            ("dst_ioas_id", IOAS),
            ("src_iova", READ_ONLY_IOVA),
            ("dst_iova", READ_ONLY_IOVA + PAGE),
            ("length", PAGE),
        ],
        E::EPERM,
    ),
    (
        C::IoasCopy,
        &[
            ("flags", READ | FIXED),
            ("src_ioas_id", IOAS),
            ("dst_ioas_id", IOAS),
            ("src_iova", IOVA),
            ("dst_iova", IOVA + PAGE),
            ("length", PAGE),
        ],
        E::EEXIST,
    ),
    (C::IoasIovaRanges, &[("__reserved", 1), ("ioas_id", MISSING)], E::EOPNOTSUPP),
    (C::IoasIovaRanges, &[("ioas_id", MISSING), ("num_iovas", 9)], E::ENOENT),
    (C::IoasIovaRanges, &[("ioas_id", IOAS), ("num_iovas", 9)], E::EFAULT),
    (C::IoasIovaRanges, &[("ioas_id", IOAS)], E::EMSGSIZE),
    (C::IoasMap, &[("flags", 8), ("iova", TOP)], E::EOPNOTSUPP),
    (C::IoasMap, &[("__reserved", 1), ("iova", TOP)], E::EOPNOTSUPP),
    (C::IoasMap, &[("iova", TOP), ("ioas_id", MISSING)], E::EOVERFLOW),
    (C::IoasMap, &[("length", TOP), ("ioas_id", MISSING)], E::EOVERFLOW),
    (C::IoasMap, &[("ioas_id", MISSING)], E::EINVAL),
    (
        C::IoasMap,
        &[("flags", READ), ("ioas_id", MISSING), ("user_va", TOP), ("length", 2)],
        E::ENOENT,
    ),
    (
        C::IoasMap,
        &[("flags", READ), ("ioas_id", IOAS), ("user_va", TOP), ("length", 2)],
        E::EOVERFLOW,
    ),
    (C::IoasMap, &[("flags", READ), ("ioas_id", IOAS)], E::EINVAL),
    (C::IoasMap, &[("flags", READ), ("ioas_id", IOAS), ("length", TOP - 1)], E::EINVAL),
    (
        C::IoasMap,
        &[
            ("flags", READ | FIXED),
            ("ioas_id", IOAS),
            ("iova", IOVA),
            ("user_va", UNMAPPED),
            ("length", PAGE),
        ],
        E::EEXIST,
    ),
    (
        C::IoasMap,
        &[("flags", READ | FIXED), ("ioas_id", IOAS), ("iova", 1), ("length", 1)],
        E::EINVAL,
    ),
    (C::IoasMap, &[("flags", READ | FIXED), ("ioas_id", IOAS), ("length", PAGE)], E::EINVAL),
    (
        C::IoasMap,
        &[("flags", READ), ("ioas_id", IOAS), ("user_va", UNMAPPED), ("length", 1 << 62)],
        E::ENOSPC,
    ),
    (
        C::IoasMap,
        &[("flags", READ), ("ioas_id", IOAS), ("user_va", UNMAPPED), ("length", PAGE)],
        E::EFAULT,
    ),
    (C::IoasMapFile, &[("flags", 8), ("iova", TOP)], E::EOPNOTSUPP),
    (C::IoasMapFile, &[("iova", TOP), ("ioas_id", MISSING)], E::EOVERFLOW),
    (C::IoasMapFile, &[("ioas_id", MISSING)], E::EINVAL),
    (C::IoasMapFile, &[("flags", READ), ("ioas_id", MISSING)], E::ENOENT),
    (C::IoasMapFile, &[("flags", READ), ("ioas_id", IOAS), ("fd", MISSING)], E::EINVAL),
    (
        C::IoasMapFile,
        &[("flags", READ), ("ioas_id", IOAS), ("fd", MISSING), ("start", TOP), ("length", 2)],
        E::EOVERFLOW,
    ),
    (
        C::IoasMapFile,
        &[("flags", READ), ("ioas_id", IOAS), ("fd", MISSING), ("length", PAGE)],
        E::EBADF,
    ),
    (C::IoasUnmap, &[("ioas_id", MISSING), ("iova", TOP)], E::ENOENT),
    (C::IoasUnmap, &[("ioas_id", IOAS), ("iova", TOP)], E::EOVERFLOW),
    (C::IoasUnmap, &[("ioas_id", IOAS), ("iova", 1)], E::EINVAL),
    (C::IoasUnmap, &[("ioas_id", IOAS), ("iova", IOVA), ("length", PAGE)], E::ENOENT),
    (C::IoasUnmap, &[("ioas_id", IOAS), ("iova", IOVA - PAGE), ("length", PAGE)], E::ENOENT),
    (C::IommuOption, &[("__reserved", 1)], E::EOPNOTSUPP),
    (C::IommuOption, &[("option_id", 2)], E::EOPNOTSUPP),
    (C::IommuOption, &[("object_id", IOAS), ("val64", 2)], E::EOPNOTSUPP),
    (C::IommuOption, &[("val64", 2)], E::EBUSY),
    (C::IommuOption, &[("option_id", 1), ("object_id", MISSING), ("op", 2)], E::ENOENT),
    (C::IommuOption, &[("option_id", 1), ("object_id", IOAS), ("op", 2)], E::EOPNOTSUPP),
    (C::IommuOption, &[("option_id", 1), ("object_id", IOAS), ("val64", 2)], E::EINVAL),
    (C::IommuOption, &[("option_id", 1), ("object_id", IOAS)], E::EINVAL),
    (C::VfioIoas, &[("__reserved", 1)], E::EOPNOTSUPP),
    (C::VfioIoas, &[("op", 3)], E::EOPNOTSUPP),
    (C::VfioIoas, &[], E::ENODEV),
    (C::VfioIoas, &[("op", 1), ("ioas_id", MISSING)], E::ENOENT),
    (C::HwptAlloc, &[("__reserved", 1), ("dev_id", MISSING)], E::EOPNOTSUPP),
    (C::HwptAlloc, &[("data_type", 1), ("dev_id", MISSING)], E::EINVAL),
    (C::HwptAlloc, &[("flags", 16), ("dev_id", MISSING), ("pt_id", MISSING)], E::ENOENT),
    (C::HwptAlloc, &[("flags", 16), ("dev_id", DEVICE), ("pt_id", MISSING)], E::EINVAL),
    (C::HwptAlloc, &[("flags", 16), ("dev_id", DEVICE), ("pt_id", IOAS)], E::EOPNOTSUPP),
    (C::HwptAlloc, &[("dev_id", DEVICE), ("pt_id", DEVICE)], E::EINVAL),
    (C::GetHwInfo, &[("flags", 2), ("dev_id", MISSING)], E::EOPNOTSUPP),
    (C::GetHwInfo, &[("dev_id", MISSING), ("data_len", 8)], E::ENOENT),
    (C::GetHwInfo, &[("dev_id", DEVICE), ("data_len", 8)], E::EFAULT),
    (C::HwptSetDirtyTracking, &[("flags", 2), ("hwpt_id", MISSING)], E::EOPNOTSUPP),
    (C::HwptSetDirtyTracking, &[("hwpt_id", MISSING)], E::ENOENT),
    (C::HwptSetDirtyTracking, &[("hwpt_id", AUTOMATIC), ("flags", 1)], E::EOPNOTSUPP),
    (C::HwptGetDirtyBitmap, &[("flags", 2), ("hwpt_id", MISSING)], E::EOPNOTSUPP),
    (C::HwptGetDirtyBitmap, &[("__reserved", 1), ("hwpt_id", MISSING)], E::EOPNOTSUPP),
    (C::HwptGetDirtyBitmap, &[("hwpt_id", MISSING)], E::ENOENT),
    (C::HwptGetDirtyBitmap, &[("hwpt_id", AUTOMATIC)], E::EINVAL),
    (
        C::HwptGetDirtyBitmap,
        &[("hwpt_id", AUTOMATIC), ("iova", IOVA), ("length", PAGE), ("page_size", PAGE)],
        E::EOPNOTSUPP,
    ),
    (
        C::HwptInvalidate,
        &[("__reserved", 1), ("hwpt_id", MISSING), ("entry_num", 1)],
        E::EOPNOTSUPP,
    ),
    (C::HwptInvalidate, &[("hwpt_id", MISSING), ("entry_num", 1)], E::EINVAL),
    (C::HwptInvalidate, &[("hwpt_id", MISSING)], E::ENOENT),
    (C::HwptInvalidate, &[("hwpt_id", PARENT)], E::EINVAL),
    (
        C::HwptInvalidate,
        &[("hwpt_id", NESTED), ("entry_num", 1), ("entry_len", 8), ("data_uptr", AT)],
        E::EINVAL,
    ),
    (C::FaultQueueAlloc, &[("flags", 1)], E::EOPNOTSUPP),
    (C::ViommuAlloc, &[("flags", 1), ("type", MOCK), ("dev_id", MISSING)], E::EOPNOTSUPP),
    (C::ViommuAlloc, &[("dev_id", MISSING)], E::EOPNOTSUPP),
    (C::ViommuAlloc, &[("type", 7), ("dev_id", MISSING)], E::ENOENT),
    (C::ViommuAlloc, &[("type", 7), ("dev_id", DEVICE), ("hwpt_id", MISSING)], E::EOPNOTSUPP),
    (C::ViommuAlloc, &[("type", MOCK), ("dev_id", DEVICE), ("hwpt_id", MISSING)], E::ENOENT),
    (C::ViommuAlloc, &[("type", MOCK), ("dev_id", DEVICE), ("hwpt_id", AUTOMATIC)], E::EINVAL),
    (C::VdeviceAlloc, &[("viommu_id", MISSING), ("dev_id", MISSING)], E::ENOENT),
    (C::VdeviceAlloc, &[("viommu_id", VIOMMU), ("dev_id", MISSING)], E::ENOENT),
    (C::VdeviceAlloc, &[("viommu_id", VIOMMU), ("dev_id", DEVICE), ("virt_id", 2)], E::EEXIST),
    (C::IoasChangeProcess, &[("__reserved", 1)], E::EOPNOTSUPP),
    (C::IoasChangeProcess, &[], E::EINVAL),
    (C::VeventqAlloc, &[("flags", 1), ("type", 1)], E::EOPNOTSUPP),
    (C::VeventqAlloc, &[("__reserved", 1), ("type", 1)], E::EOPNOTSUPP),
    (C::VeventqAlloc, &[("viommu_id", MISSING)], E::EOPNOTSUPP),
    (C::VeventqAlloc, &[("viommu_id", MISSING), ("type", 1)], E::EINVAL),
    (
        C::VeventqAlloc,
        &[("viommu_id", MISSING), ("type", 1), ("veventq_depth", (1 << 19) + 1)],
        E::EINVAL,
    ),
    (C::VeventqAlloc, &[("viommu_id", MISSING), ("type", 1), ("veventq_depth", 1)], E::ENOENT),
    (C::HwQueueAlloc, &[("flags", 1), ("type", 1), ("viommu_id", MISSING)], E::EOPNOTSUPP),
    (C::HwQueueAlloc, &[("viommu_id", MISSING)], E::EOPNOTSUPP),
    (C::HwQueueAlloc, &[("type", 1), ("viommu_id", MISSING)], E::EINVAL),
    (
        C::HwQueueAlloc,
        &[("type", 1), ("viommu_id", MISSING), ("nesting_parent_iova", TOP), ("length", 2)],
        E::EOVERFLOW,
    ),
    (C::HwQueueAlloc, &[("type", 1), ("viommu_id", MISSING), ("length", 2)], E::ENOENT),
    (C::HwQueueAlloc, &[("type", 1), ("viommu_id", VIOMMU), ("length", 2)], E::EOPNOTSUPP),
    (C::HwQueueAlloc, &[("type", MOCK), ("viommu_id", VIOMMU), ("length", 2)], E::ENOENT),
    (C::IoasNoiommuGetPa, &[("flags", 1), ("iova", TOP)], E::EOPNOTSUPP),
    (C::IoasNoiommuGetPa, &[("iova", TOP)], E::EINVAL),
    (C::IoasNoiommuGetPa, &[("iova", TOP), ("length", PAGE)], E::EOVERFLOW),
    (C::IoasNoiommuGetPa, &[("ioas_id", MISSING), ("length", PAGE)], E::ENOENT),
    (C::IoasNoiommuGetPa, &[("ioas_id", IOAS), ("length", PAGE)], E::ENOENT),
    (C::IoasNoiommuGetPa, &[("ioas_id", IOAS), ("iova", IOVA), ("length", PAGE)], E::EOPNOTSUPP),
];

/// Where rows are tried.
struct World {
    client: Client,
    /// What its objects are of.
    _kept: Box<dyn Any>,
}

/// What rows are tried in, one after the other.
type Family = (&'static str, fn() -> World, &'static [Row]);

const FAMILIES: &[Family] = &[
    ("a mock device", with_mock_device, ROWS),
    ("a vIOMMU with a queue", with_queue, &[QUEUE_AGAIN]),
    ("a client without a free descriptor", without_descriptors, WITHOUT_DESCRIPTORS),
    ("a client that may do no raw IO", without_raw_io, WITHOUT_RAW_IO),
    ("type1 without an IOAS", type1::without_ioas, type1::WITHOUT_IOAS),
    ("type1 with an IOAS", type1::with_ioas, type1::WITH_IOAS),
    ("profile rfc", rfc::with_vdevice, rfc::ROWS),
    ("profile rfc, and no VM", rfc::without_vm, rfc::WITHOUT_VM),
    ("profile rfc, and no TSM", rfc::without_tsm, rfc::WITHOUT_TSM),
    ("the profile of v5", rfc::with_vdevice_v5, rfc::V5),
    ("the profile of v7", rfc::with_vdevice_v7, rfc::V7),
    ("the profile of 2025-05", rfc::with_vdevice_2025, rfc::OF_2025),
    ("Intel VT-d", vtd::world, vtd::ROWS),
    ("profile linux-7.3", rfc::with_vdevice_linux, rfc::LINUX),
];

/// In place of a field: the argument is the value itself.
const VALUE: &str = "the value";

/// An object of each type but queues, with the ids of the constants above; a vdevice is the last.
fn with_mock_device() -> World {
    let word = |id: u64| u32::try_from(id).unwrap();
    let MockNest { client, ioas, device, parent, .. } = MockNest::new();
    client.map_at(ioas, IOVA, VA, 2 * PAGE).unwrap();
    client.map(ioas, 5, READ_ONLY_IOVA, VA, PAGE).unwrap();
    assert_eq!((parent, ioas, device), (word(PARENT), word(IOAS), word(DEVICE)));
    assert_eq!(client.viommu(word(MOCK), device, parent), Ok(word(VIOMMU)));
    assert_eq!(client.nested(device, parent), Ok(word(NESTED)));
    client.vdevice(word(VIOMMU), device, 1).unwrap();
    World { client, _kept: Box::new(()) }
}

/// A queue for events of type 1.
const QUEUE: &[(&str, u64)] = &[("viommu_id", VIOMMU), ("type", 1), ("veventq_depth", 1)];
const QUEUE_AGAIN: Row = (C::VeventqAlloc, QUEUE, E::EEXIST);

fn with_queue() -> World {
    let world = with_mock_device();
    assert_eq!(run(&world.client, C::VeventqAlloc, QUEUE), Ok(0));
    world
}

const WITHOUT_DESCRIPTORS: &[Row] = &[
    (C::FaultQueueAlloc, &[("flags", 1)], E::EOPNOTSUPP),
    (C::FaultQueueAlloc, &[], E::EMFILE),
    (C::VeventqAlloc, QUEUE, E::EMFILE),
];

fn without_descriptors() -> World {
    let mut world = with_mock_device();
    world.client.has_descriptors = false;
    world
}

const WITHOUT_RAW_IO: &[Row] =
    &[(C::IoasNoiommuGetPa, &[("flags", 1), ("ioas_id", MISSING)], E::EPERM)];

fn without_raw_io() -> World {
    let mut world = with_mock_device();
    world.client.does_raw_io = false;
    world
}

fn run(client: &Client, id: CommandId, fields: &[(&str, u64)]) -> Result<u32, Errno> {
    let command = Command::of(id);
    if let [(VALUE, value)] = *fields {
        return client.ctx.ioctl(client, command.request, value);
    }
    let layout = command.argument.unwrap();
    let mut bytes = vec![0; layout.size];
    bytes[..4].copy_from_slice(&u32::try_from(layout.size).unwrap().to_ne_bytes());
    for (name, value) in fields {
        let field = layout.field(name).unwrap_or_else(|| panic!("{id:?} has no field {name}"));
        let value = value.to_le_bytes();
        let size = field.size.min(value.len());
        bytes[field.offset..field.offset + size].copy_from_slice(&value[..size]);
    }
    client.memory.write(client.at, &bytes).unwrap();
    client.ctx.ioctl(client, command.request, client.at)
}

#[test]
fn each_command_refuses_in_the_kernels_order_and_changes_nothing() {
    let mut others = Vec::new();
    for (name, world, rows) in FAMILIES {
        let World { client, .. } = &world();
        let before = (client.ctx.counts(), client.memory.pinned());
        for (id, fields, errno) in *rows {
            let answer = run(client, *id, fields);
            if answer != Err(*errno) {
                others.push((name, id, fields, answer));
            }
            assert_eq!((client.ctx.counts(), client.memory.pinned()), before, "{id:?} {fields:x?}");
        }
    }
    assert_eq!(others, [], "other answers");
}

#[test]
fn each_command_has_rows() {
    let is_ours = |row: &&Command| row.file == FileKind::Iommufd && row.served;
    let without: BTreeSet<_> = uapi::COMMANDS
        .iter()
        .filter(is_ours)
        .filter(|command| {
            !FAMILIES.iter().any(|(.., rows)| rows.iter().any(|(id, ..)| *id == command.id))
        })
        .map(|command| command.name)
        .collect();
    assert_eq!(without, BTreeSet::new());
}
