//! That each reason for a refusal is met by a row, or not met by any for a reason of its own.

use std::collections::BTreeSet;

use iommufd::Refusal;

use super::{FAMILIES, run};

/// Reasons that no row meets, and where they are met.
const ELSEWHERE: &[(&str, &str)] = &[
    ("Access", "`accesses`, `test_errnos`: of the test interface"),
    ("AreaBusy", "`meanwhile`: takes two threads"),
    ("AttachedElsewhere", "`attach`: of a device's own file"),
    ("CacheIncoherent", "`bind`: of a device's own file"),
    ("DirtyTail", "`table`: of every command"),
    ("DmaBuf", "`dma_bufs`: takes a buffer of a device"),
    ("Exhausted", "`exhaustion`: takes a quota that ends"),
    ("Incompatible", "`attach`: of a device's own file"),
    ("MisalignedArea", "`accesses`: takes a device with larger pages"),
    ("MsiNotIsolated", "`bind`: of a device's own file"),
    ("NoWindowFree", "`windows`: takes all windows"),
    ("NotBehind", "`smmuv3`: of a device's own file"),
    ("OtherDevice", "`tsm_op`: of a device's own file"),
    ("OtherIommu", "`vdevice`: takes two IOMMUs"),
    ("OutOfIds", "takes all of the 2147483647 ids"),
    ("OverlappingRange", "`choices`: takes a list of ranges"),
    ("OwnedElsewhere", "`bind`: of a device's own file"),
    ("PageSize", "`hwpt_alloc`: takes an IOMMU with larger pages"),
    ("Pasid", "`pasid`: of a device's own file"),
    ("ReservedAllowed", "`choices`: takes a list of ranges"),
    ("ReservedMapped", "`attach`: of a device's own file"),
    ("Resetting", "`tsm_op`: takes a reset under way"),
    ("WindowMapped", "`windows`: takes a window that is mapped"),
];

/// Names the variants of [`Refusal`]: one that is not named here does not compile.
macro_rules! variants {
    ($($variant:ident),+ $(,)?) => {
        const VARIANTS: &[&str] = &[$(stringify!($variant)),+];

        fn variant(refusal: &Refusal) -> &'static str {
            match refusal {
                $(Refusal::$variant { .. } => stringify!($variant)),+
            }
        }
    };
}

variants! {
    Access,
    AreaBusy,
    AttachedElsewhere,
    BadFd,
    Busy,
    CacheIncoherent,
    ContextInUse,
    DataShape,
    DirtyTail,
    DmaBuf,
    Empty,
    EntryShape,
    Exhausted,
    Hardware,
    Incompatible,
    LargePagesInUse,
    Misaligned,
    MisalignedArea,
    MsiNotIsolated,
    NeedsVm,
    NoAccess,
    NoCompatIoas,
    NoDescriptor,
    NoFile,
    NoNestParent,
    NoObject,
    NoRoom,
    NoSuchIommu,
    NoSuchOperation,
    NoTsm,
    NoVm,
    NoWindowFree,
    NotBehind,
    NotBound,
    NotCovered,
    NotForWriting,
    NotPrivileged,
    NotWhole,
    NothingMapped,
    OptionValue,
    OtherDevice,
    OtherIommu,
    OtherType,
    OutOfIds,
    Overlap,
    OverlappingRange,
    OwnedElsewhere,
    PageSize,
    ParentMissing,
    Pasid,
    PastTop,
    Pin,
    QueueDepth,
    RangeOrder,
    RangesLeftOut,
    ReadOnly,
    Reserved,
    ReservedAllowed,
    ReservedField,
    ReservedMapped,
    Resetting,
    ShortArgument,
    Test,
    TooLong,
    TooManyRanges,
    TooMuch,
    Tsm,
    TypeOneFlags,
    UnknownCommand,
    UnknownFlags,
    UnknownOperation,
    UnmapAllOfPart,
    Unreachable,
    Unsupported,
    VdeviceExists,
    VeventqExists,
    ViommuData,
    VirtIdTaken,
    WindowMapped,
}

#[test]
fn each_reason_is_met_by_a_row_or_elsewhere() {
    let mut met = BTreeSet::new();
    for (_, world, rows) in FAMILIES {
        let mut world = world();
        world.client.keep_reasons();
        for (id, fields, _) in *rows {
            // What another test judges.
            let _ = run(&world.client, *id, fields);
        }
        met.extend(world.client.reasons().iter().map(variant));
    }
    let elsewhere: BTreeSet<_> = ELSEWHERE.iter().map(|&(name, _)| name).collect();
    let all: BTreeSet<_> = VARIANTS.iter().copied().collect();
    let unmet: Vec<_> = all.difference(&met).filter(|name| !elsewhere.contains(*name)).collect();
    assert!(unmet.is_empty(), "no row meets {unmet:?}");
    let surplus: Vec<_> =
        elsewhere.iter().filter(|name| met.contains(*name) || !all.contains(*name)).collect();
    assert!(surplus.is_empty(), "met by a row, or no reason any more: {surplus:?}");
}
