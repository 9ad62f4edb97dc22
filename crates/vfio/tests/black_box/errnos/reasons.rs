//! That each reason for a refusal is met by a step, or not met by any for a reason of its own.

use std::collections::BTreeSet;

use vfio::Refusal;

use super::acts;
use crate::support::Reason;

/// Reasons that no step meets, and where they are met.
const ELSEWHERE: &[(&str, &str)] = &[
    ("BusResetContended", "`resets`: takes two threads"),
    ("DeviceOpen", "`groups`: of the host's own reset, which is no command"),
    ("EntriesExhausted", "`groups`: takes 65535 mappings"),
    ("IoeventfdsExhausted", "`ioeventfds`: takes 1000 of them"),
    ("MemoryMoves", "`groups`: takes two groups"),
    ("NotMappable", "`accesses`: mapping a file is no command, and has no caller to tell"),
    ("ResetRunning", "`resets`: takes two threads"),
    ("TdiBound", "`tdi`: takes a device with a security manager"),
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
    AlreadyWatched,
    Argsz,
    BitmapSize,
    BusNotOwned,
    BusResetContended,
    ClosedFd,
    ContainerInUse,
    ContainerNotReady,
    ContainerSet,
    DeviceBound,
    DeviceOpen,
    DeviceOptions,
    DirtyTail,
    DmaRange,
    EmptyRange,
    EntriesExhausted,
    EntryBisected,
    EntryExists,
    FeatureOperation,
    FileBound,
    Flags,
    GroupClaimed,
    GroupInUse,
    GroupsGiven,
    InterruptAction,
    InterruptState,
    IoeventfdExists,
    IoeventfdsExhausted,
    Iommufd,
    ListTooShort,
    LowPowerEngaged,
    MemoryMoves,
    MemoryMovesAlready,
    Misaligned,
    NameTooLong,
    NegativeFd,
    NoBusReset,
    NoContainer,
    NoContainerIommu,
    NoEntry,
    NoIoeventfd,
    NoLog,
    NoLogOfVersionOne,
    NoPrecopy,
    NoRanges,
    NoReset,
    NoSuchBar,
    NoSuchCommand,
    NoSuchDevice,
    NoSuchFeature,
    NoSuchInterrupt,
    NoSuchIommu,
    NoSuchRegion,
    NoVectors,
    NotAnIommu,
    NotBar,
    NotBound,
    NotContainer,
    NotDecoded,
    NotEventfd,
    NotGroup,
    NotInstalled,
    NotIommufd,
    NotMappable,
    NotMemory,
    NotThatEntry,
    OfGroup,
    OutOfMemory,
    OutsideConfig,
    OutsideRanges,
    OutsideRegion,
    OverMsixTable,
    PastTop,
    ReadOnlyRegion,
    ResetRunning,
    TdiBound,
    TokenMissing,
    TokenNotTaken,
    TokenWrong,
    TooManyRanges,
    Unreachable,
    VectorFixed,
    VectorRange,
    VectorsExhausted,
    Withdrawn,
}

#[test]
fn each_reason_is_met_by_a_step_or_elsewhere() {
    let mut met = BTreeSet::new();
    for (_, world, steps) in acts() {
        let mut world = world();
        for step in *steps {
            // What another test judges.
            let _ = world.play(step);
        }
        met.extend(world.reasons.iter().filter_map(|reason| match reason {
            Reason::Vfio(refusal) => Some(variant(refusal)),
            Reason::Iommufd(_) => None,
        }));
        world.end();
    }
    let elsewhere: BTreeSet<_> = ELSEWHERE.iter().map(|&(name, _)| name).collect();
    let all: BTreeSet<_> = VARIANTS.iter().copied().collect();
    let unmet: Vec<_> = all.difference(&met).filter(|name| !elsewhere.contains(*name)).collect();
    assert!(unmet.is_empty(), "no step meets {unmet:?}");
    let surplus: Vec<_> =
        elsewhere.iter().filter(|name| met.contains(*name) || !all.contains(*name)).collect();
    assert!(surplus.is_empty(), "met by a step, or no reason any more: {surplus:?}");
}
