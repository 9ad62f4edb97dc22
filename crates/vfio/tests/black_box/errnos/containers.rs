//! What maps: VFIO's own type1, of both versions, and type1 on a context.

use uapi::vfio::{dirty_pages_flags, dma_map_flags, dma_unmap_flags, extension};

use super::*;
use crate::support::MEMORY;

const MAP: CommandId = C::IommuMapDma;
const UNMAP: CommandId = C::IommuUnmapDma;
const INFO: CommandId = C::IommuGetInfo;
const DIRTY: CommandId = C::IommuDirtyPages;
const VA: u64 = MEMORY + 0x8000;
const UNMAPPED: u64 = 0x7000_0000_0000;
/// Where two pages are mapped.
const IOVA: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
const LAST_PAGE: u64 = TOP - 0xfff;
const READ: u64 = dma_map_flags::READ as u64;
const RIGHTS: u64 = READ | dma_map_flags::WRITE as u64;
/// Of a mapping.
const MOVED: u64 = dma_map_flags::VADDR as u64;
/// Of an unmapping.
const BITMAP: u64 = dma_unmap_flags::GET_DIRTY_BITMAP as u64;
const ALL: u64 = dma_unmap_flags::ALL as u64;
const MOVES: u64 = dma_unmap_flags::VADDR as u64;
const START: u64 = dirty_pages_flags::START as u64;
const STOP: u64 = dirty_pages_flags::STOP as u64;
const TELL: u64 = dirty_pages_flags::GET_BITMAP as u64;

pub(super) const ACTS: &[Act] = &[
    ("a container without an IOMMU", World::group_on_type1, BARE),
    ("type1 of version 1", World::group_on_type1, VERSION_1),
    ("what type1 maps", World::group_on_type1, MAPPING),
    ("what type1 unmaps", World::group_on_type1, UNMAPPING),
    ("memory that moves", World::group_on_type1, MOVING),
    ("the log", World::group_on_type1, LOG),
    (
        "type1 behind an IOMMU that does not isolate interrupts",
        World::group_not_isolated,
        NOT_ISOLATED,
    ),
    ("a context that no group has", World::group_on_context, CONTEXT_BARE),
    ("a context as a container", World::group_on_context, CONTEXT),
    ("a context as type1 of version 1", World::group_on_context, CONTEXT_VERSION_1),
    ("a context that becomes type1 of version 1", World::group_on_context, CONTEXT_TO_VERSION_1),
];

const BARE: &[Step] = &[
    Done(C::GetApiVersion, Value(TOP), 0),
    Done(C::CheckExtension, Value(TOP), 0),
    Done(C::CheckExtension, Value(extension::UPDATE_VADDR), 0),
    Refused(INFO, Value(0), E::EINVAL, "NoContainerIommu"),
    Refused(MAP, Value(0), E::EINVAL, "NoContainerIommu"),
    Refused(UNMAP, Value(0), E::EINVAL, "NoContainerIommu"),
    Refused(DIRTY, Value(0), E::EINVAL, "NoContainerIommu"),
    // No group.
    Refused(C::SetIommu, Value(99), E::EINVAL, "ContainerNotReady"),
    Done(C::GroupSetContainer, Fd(CONTAINER), 0),
    Refused(C::SetIommu, Value(0), E::ENODEV, "NoSuchIommu"),
    Refused(C::SetIommu, Value(extension::NOIOMMU_IOMMU), E::ENODEV, "NoSuchIommu"),
    // What CHECK_EXTENSION confirms and is no IOMMU.
    Refused(C::SetIommu, Value(extension::UNMAP_ALL), E::EINVAL, "NotAnIommu"),
    Refused(C::SetIommu, Value(1 << 32 | 3), E::ENODEV, "NoSuchIommu"),
    Refused(MAP, Value(0), E::EINVAL, "NoContainerIommu"),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
    Refused(C::SetIommu, Value(extension::TYPE1V2_IOMMU), E::EINVAL, "ContainerNotReady"),
    Refused(C::SetIommu, Value(99), E::EINVAL, "ContainerNotReady"),
    Refused(INFO, Value(0), E::EFAULT, "Unreachable"),
    Refused(INFO, Struct(&[("argsz", 15)]), E::EINVAL, "Argsz"),
    Refused(INFO, ReadOnly(&[]), E::EFAULT, "Unreachable"),
    // The last group takes the IOMMU along.
    Done(C::GroupUnsetContainer, Value(0), 0),
    Refused(INFO, Value(0), E::EINVAL, "NoContainerIommu"),
];

const VERSION_1: &[Step] = &[
    Done(C::GroupSetContainer, Fd(CONTAINER), 0),
    Done(C::SetIommu, Value(extension::TYPE1_IOMMU), 0),
    Refused(DIRTY, Value(0), E::EACCES, "NoLogOfVersionOne"),
    Done(MAP, Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
    // A range that begins inside an entry unmaps nothing.
    Done(UNMAP, Struct(&[("iova", IOVA + PAGE), ("size", PAGE)]), 0),
    Refused(
        MAP,
        Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", PAGE)]),
        E::EEXIST,
        "EntryExists",
    ),
    // One that begins where it does unmaps all of it.
    Done(UNMAP, Struct(&[("iova", IOVA), ("size", PAGE)]), 0),
    Done(MAP, Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
];

const MAPPING: &[Step] = &[
    Done(C::GroupSetContainer, Fd(CONTAINER), 0),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
    Refused(MAP, Value(0), E::EFAULT, "Unreachable"),
    Refused(MAP, Struct(&[("argsz", 31), ("flags", 8)]), E::EINVAL, "Argsz"),
    Refused(MAP, Struct(&[("flags", 8)]), E::EINVAL, "Flags"),
    Refused(MAP, Struct(&[("iova", TOP)]), E::EINVAL, "EmptyRange"),
    Refused(MAP, Struct(&[("iova", TOP), ("size", 2)]), E::EOVERFLOW, "PastTop"),
    Refused(MAP, Struct(&[("vaddr", TOP), ("size", 2)]), E::EOVERFLOW, "PastTop"),
    Refused(MAP, Struct(&[("size", 1)]), E::EINVAL, "Flags"),
    Refused(MAP, Struct(&[("flags", READ | MOVED), ("size", 1)]), E::EINVAL, "Flags"),
    Refused(MAP, Struct(&[("flags", MOVED), ("size", 1)]), E::EINVAL, "Misaligned"),
    Refused(
        MAP,
        Struct(&[("flags", READ), ("size", PAGE), ("vaddr", VA + 1)]),
        E::EINVAL,
        "Misaligned",
    ),
    Refused(MAP, Struct(&[("flags", READ), ("size", PAGE), ("iova", 1)]), E::EINVAL, "Misaligned"),
    Refused(MAP, Struct(&[("flags", MOVED), ("size", PAGE)]), E::ENOENT, "NoEntry"),
    Done(MAP, Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
    Refused(
        MAP,
        Struct(&[("flags", READ), ("vaddr", UNMAPPED), ("iova", IOVA), ("size", 1 << 60)]),
        E::EEXIST,
        "EntryExists",
    ),
    Refused(
        MAP,
        Struct(&[("flags", READ), ("vaddr", UNMAPPED), ("iova", 1 << 48), ("size", PAGE)]),
        E::EINVAL,
        "OutsideRanges",
    ),
    Refused(MAP, Struct(&[("flags", READ), ("vaddr", UNMAPPED), ("size", PAGE)]), E::EFAULT, "Pin"),
];

const UNMAPPING: &[Step] = &[
    Done(C::GroupSetContainer, Fd(CONTAINER), 0),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
    Done(MAP, Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
    Refused(UNMAP, Value(0), E::EFAULT, "Unreachable"),
    Refused(UNMAP, Struct(&[("argsz", 23), ("flags", 8)]), E::EINVAL, "Argsz"),
    Refused(UNMAP, Struct(&[("flags", 8), ("iova", 1)]), E::EINVAL, "Flags"),
    Refused(UNMAP, Struct(&[("flags", BITMAP | ALL), ("iova", 1)]), E::EINVAL, "Flags"),
    Refused(UNMAP, Struct(&[("flags", BITMAP | MOVES), ("iova", 1)]), E::EINVAL, "Flags"),
    Refused(UNMAP, Then(&[("flags", BITMAP), ("iova", 1)], &[0; 5]), E::EINVAL, "Argsz"),
    Refused(
        UNMAP,
        Cut(&[("argsz", 48), ("flags", BITMAP), ("iova", 1)], 24),
        E::EFAULT,
        "Unreachable",
    ),
    Refused(UNMAP, Then(&[("flags", BITMAP), ("iova", 1)], &[0; 6]), E::EINVAL, "BitmapSize"),
    Refused(UNMAP, Struct(&[("flags", ALL), ("iova", 1)]), E::EINVAL, "Misaligned"),
    Refused(UNMAP, Struct(&[("flags", ALL), ("iova", IOVA)]), E::EINVAL, "Flags"),
    Refused(UNMAP, Struct(&[("flags", ALL), ("size", 1)]), E::EINVAL, "Flags"),
    Refused(UNMAP, Struct(&[("iova", LAST_PAGE)]), E::EINVAL, "EmptyRange"),
    Refused(UNMAP, Struct(&[("iova", LAST_PAGE), ("size", PAGE + 1)]), E::EINVAL, "Misaligned"),
    Refused(UNMAP, Struct(&[("iova", LAST_PAGE), ("size", 2 * PAGE)]), E::EOVERFLOW, "PastTop"),
    // A bitmap of a page each, eight bytes of it.
    Refused(
        UNMAP,
        Then(&[("flags", BITMAP), ("iova", IOVA), ("size", PAGE)], &[0x1000, 0, 8, 0, 0, 0]),
        E::EINVAL,
        "NoLog",
    ),
    Refused(UNMAP, Struct(&[("iova", IOVA), ("size", PAGE)]), E::EINVAL, "EntryBisected"),
    Refused(UNMAP, Struct(&[("iova", IOVA + PAGE), ("size", PAGE)]), E::EINVAL, "EntryBisected"),
    // Nothing there is a success, whose answer cannot be written.
    Refused(UNMAP, ReadOnly(&[("iova", 0), ("size", PAGE)]), E::EFAULT, "Unreachable"),
    Done(UNMAP, Struct(&[("iova", 0), ("size", PAGE)]), 0),
    Done(UNMAP, Struct(&[("flags", ALL)]), 0),
];

const MOVING: &[Step] = &[
    Done(C::GroupSetContainer, Fd(CONTAINER), 0),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
    Done(MAP, Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
    Refused(
        MAP,
        Struct(&[("flags", MOVED), ("vaddr", UNMAPPED), ("iova", IOVA), ("size", 2 * PAGE)]),
        E::EINVAL,
        "NotThatEntry",
    ),
    Done(UNMAP, Struct(&[("flags", MOVES), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
    Refused(UNMAP, Struct(&[("flags", MOVES | ALL)]), E::EINVAL, "MemoryMovesAlready"),
    Refused(
        MAP,
        Struct(&[("flags", MOVED), ("vaddr", UNMAPPED), ("iova", IOVA), ("size", PAGE)]),
        E::EINVAL,
        "NotThatEntry",
    ),
    Done(MAP, Struct(&[("flags", MOVED), ("vaddr", VA), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
];

const LOG: &[Step] = &[
    Done(C::GroupSetContainer, Fd(CONTAINER), 0),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
    Done(MAP, Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
    Refused(DIRTY, Value(0), E::EFAULT, "Unreachable"),
    Refused(DIRTY, Struct(&[("argsz", 7)]), E::EINVAL, "Argsz"),
    Refused(DIRTY, Struct(&[]), E::EINVAL, "Flags"),
    Refused(DIRTY, Struct(&[("flags", START | STOP)]), E::EINVAL, "Flags"),
    Refused(DIRTY, Struct(&[("flags", 8)]), E::EINVAL, "Flags"),
    Refused(DIRTY, Then(&[("flags", TELL)], &[0; 9]), E::EINVAL, "Argsz"),
    Refused(DIRTY, Cut(&[("argsz", 48), ("flags", TELL)], 8), E::EFAULT, "Unreachable"),
    // First address, size, bytes of a page, bytes of the bitmap, and where it is; two words each.
    Refused(DIRTY, Then(&[("flags", TELL)], &[0; 10]), E::EINVAL, "EmptyRange"),
    Refused(
        DIRTY,
        Then(&[("flags", TELL)], &[-1, -1, 2, 0, 0, 0, 0, 0, 0, 0]),
        E::EOVERFLOW,
        "PastTop",
    ),
    Refused(
        DIRTY,
        Then(&[("flags", TELL)], &[1, 0, 0x1000, 0, 0x1000, 0, 0, 0, 0, 0]),
        E::EINVAL,
        "BitmapSize",
    ),
    Refused(
        DIRTY,
        Then(&[("flags", TELL)], &[1, 0, 0x1000, 0, 0x1000, 0, 8, 0, 0, 0]),
        E::EINVAL,
        "NoLog",
    ),
    Done(DIRTY, Struct(&[("flags", START)]), 0),
    Refused(
        DIRTY,
        Then(&[("flags", TELL)], &[1, 0, 0x2000, 0, 0x2000, 0, 8, 0, 0, 0]),
        E::EINVAL,
        "NoLog",
    ),
    Refused(
        DIRTY,
        Then(&[("flags", TELL)], &[1, 0, 0x1000, 0, 0x1000, 0, 8, 0, 0, 0]),
        E::EINVAL,
        "Misaligned",
    ),
    Refused(
        DIRTY,
        Then(&[("flags", TELL)], &[0x10_0000, 0, 0x1000, 0, 0x1000, 0, 8, 0, 0, 0]),
        E::EINVAL,
        "EntryBisected",
    ),
    Refused(
        DIRTY,
        Then(&[("flags", TELL)], &[0x10_0000, 0, 0x2000, 0, 0x1000, 0, 8, 0, 0, 0]),
        E::EFAULT,
        "Unreachable",
    ),
    Refused(
        UNMAP,
        Then(&[("flags", BITMAP), ("iova", IOVA), ("size", 2 * PAGE)], &[0x1000, 0, 8, 0, 0, 0]),
        E::EFAULT,
        "Unreachable",
    ),
    Done(DIRTY, Struct(&[("flags", STOP)]), 0),
    Done(DIRTY, Struct(&[("flags", STOP)]), 0),
];

const NOT_ISOLATED: &[Step] = &[
    Done(C::GroupSetContainer, Fd(CONTAINER), 0),
    Refused(C::SetIommu, Value(99), E::ENODEV, "NoSuchIommu"),
    Refused(C::SetIommu, Value(extension::TYPE1V2_IOMMU), E::EPERM, "MsiNotIsolated"),
];

const CONTEXT_BARE: &[Step] = &[
    Done(C::GetApiVersion, Value(TOP), 0),
    Done(C::CheckExtension, Value(TOP), 0),
    Refused(C::CheckExtension, Value(extension::DMA_CC_IOMMU), E::ENODEV, "NoCompatIoas"),
    Refused(C::SetIommu, Value(99), E::EINVAL, "NoSuchIommu"),
    Refused(C::SetIommu, Value(extension::TYPE1V2_IOMMU), E::ENODEV, "NoCompatIoas"),
    Refused(INFO, Value(0), E::EFAULT, "Unreachable"),
    Refused(INFO, Struct(&[("argsz", 15)]), E::EINVAL, "ShortArgument"),
    Refused(INFO, Struct(&[]), E::ENODEV, "NoCompatIoas"),
    Refused(MAP, Value(0), E::EFAULT, "Unreachable"),
    Refused(MAP, Struct(&[("argsz", 31), ("flags", MOVED)]), E::EINVAL, "ShortArgument"),
    Refused(MAP, Struct(&[("flags", MOVED)]), E::EINVAL, "TypeOneFlags"),
    Refused(MAP, Struct(&[("vaddr", TOP), ("size", 2)]), E::ENODEV, "NoCompatIoas"),
    Refused(UNMAP, Value(0), E::EFAULT, "Unreachable"),
    Refused(UNMAP, Struct(&[("argsz", 23), ("flags", MOVES)]), E::EINVAL, "ShortArgument"),
    Refused(UNMAP, Struct(&[("flags", MOVES)]), E::EINVAL, "TypeOneFlags"),
    Refused(UNMAP, Struct(&[("flags", BITMAP)]), E::EINVAL, "TypeOneFlags"),
    Refused(UNMAP, Struct(&[("flags", ALL), ("size", 1)]), E::ENODEV, "NoCompatIoas"),
    Refused(DIRTY, Value(0), E::ENOTTY, "UnknownCommand"),
];

const CONTEXT: &[Step] = &[
    Done(C::GroupSetContainer, Fd(IOMMUFD), 0),
    Done(C::CheckExtension, Value(extension::DMA_CC_IOMMU), 1),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
    Refused(C::SetIommu, Value(extension::NOIOMMU_IOMMU), E::EINVAL, "NoSuchIommu"),
    Refused(INFO, ReadOnly(&[]), E::EFAULT, "Unreachable"),
    Refused(MAP, Struct(&[("vaddr", TOP), ("size", 2)]), E::EOVERFLOW, "PastTop"),
    Refused(MAP, Struct(&[("vaddr", UNMAPPED), ("iova", 1)]), E::EINVAL, "Empty"),
    // With neither right, too.
    Done(MAP, Struct(&[("vaddr", VA), ("iova", IOVA), ("size", 2 * PAGE)]), 0),
    Refused(
        MAP,
        Struct(&[("vaddr", UNMAPPED), ("iova", IOVA + PAGE), ("size", PAGE)]),
        E::EEXIST,
        "Overlap",
    ),
    Refused(UNMAP, Struct(&[("flags", ALL), ("size", 1)]), E::EINVAL, "UnmapAllOfPart"),
    Refused(UNMAP, Struct(&[("iova", TOP)]), E::EINVAL, "Empty"),
    Refused(UNMAP, Struct(&[("iova", TOP), ("size", 2)]), E::EOVERFLOW, "PastTop"),
    Refused(UNMAP, Struct(&[("iova", IOVA), ("size", PAGE)]), E::ENOENT, "NotWhole"),
    Refused(UNMAP, ReadOnly(&[("iova", 0), ("size", PAGE)]), E::EFAULT, "Unreachable"),
    Done(UNMAP, Struct(&[("iova", 0), ("size", PAGE)]), 0),
    Refused(DIRTY, Struct(&[("flags", START)]), E::ENOTTY, "UnknownCommand"),
];

const NAME: Given = Text("b1d0:02:00.0");

const CONTEXT_VERSION_1: &[Step] = &[
    Done(C::GroupSetContainer, Fd(IOMMUFD), 0),
    Done(C::SetIommu, Value(extension::TYPE1_IOMMU), 0),
    Done(C::GroupGetDeviceFd, NAME, 0),
    Done(MAP, Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", 4 * PAGE)]), 0),
    Refused(UNMAP, Struct(&[("iova", IOVA), ("size", 1)]), E::EINVAL, "Misaligned"),
    Refused(UNMAP, Struct(&[("iova", IOVA)]), E::EINVAL, "Empty"),
    Refused(UNMAP, Struct(&[("iova", TOP), ("size", 2)]), E::EOVERFLOW, "PastTop"),
    // Any part in pages.
    Done(UNMAP, Struct(&[("iova", IOVA + PAGE), ("size", PAGE)]), 0),
    Done(UNMAP, Struct(&[("iova", IOVA + PAGE), ("size", PAGE)]), 0),
    Done(C::SetIommu, Value(extension::TYPE1_IOMMU), 0),
];

const CONTEXT_TO_VERSION_1: &[Step] = &[
    Done(C::GroupSetContainer, Fd(IOMMUFD), 0),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
    Done(C::GroupGetDeviceFd, NAME, 0),
    Refused(
        MAP,
        Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA + 1), ("size", PAGE)]),
        E::EINVAL,
        "Misaligned",
    ),
    Refused(
        MAP,
        Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", 1 << 48), ("size", PAGE)]),
        E::EINVAL,
        "Reserved",
    ),
    Refused(
        MAP,
        Struct(&[("flags", RIGHTS), ("vaddr", UNMAPPED), ("iova", IOVA), ("size", PAGE)]),
        E::EFAULT,
        "Pin",
    ),
    Done(MAP, Struct(&[("flags", RIGHTS), ("vaddr", VA), ("iova", IOVA), ("size", PAGE)]), 0),
    Refused(C::SetIommu, Value(extension::TYPE1_IOMMU), E::EINVAL, "LargePagesInUse"),
    Done(C::SetIommu, Value(extension::TYPE1V2_IOMMU), 0),
];
