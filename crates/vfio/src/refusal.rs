//! Why a command on a device file is refused, and the one place where a reason becomes a number.
//!
//! Takes no lock.

mod descriptor;

use span::Span;
use thiserror::Error;
use uapi::Errno;

/// A refusal, with what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// `argsz` leaves out a field that the command needs.
    #[error("argsz {given} is less than {least}")]
    Argsz {
        /// What the client passed.
        given: u32,
        /// The least that serves.
        least: u32,
    },
    /// The descriptor is open, and no eventfd.
    #[error("descriptor {fd} is no eventfd")]
    NotEventfd {
        /// What the client passed.
        fd: i32,
    },
    /// The descriptor is open, and no `/dev/iommu`.
    #[error("descriptor {fd} is no iommufd")]
    NotIommufd {
        /// What the client passed.
        fd: i32,
    },
    /// No such descriptor is open.
    #[error("descriptor {fd} is not open")]
    ClosedFd {
        /// What the client passed.
        fd: i32,
    },
    /// The descriptor is negative where one is needed.
    #[error("descriptor {fd} is negative")]
    NegativeFd {
        /// What the client passed.
        fd: i32,
    },
    /// The device is bound through another open file.
    #[error("the device is bound through another file")]
    DeviceBound,
    /// A program has the device open, or a virtual function of it.
    #[error("the device is open")]
    DeviceOpen,
    /// This file is bound already.
    #[error("this file is bound already")]
    FileBound,
    /// This file is not bound yet.
    #[error("this file is not bound to an iommufd")]
    NotBound,
    /// A program has the group, or a device of it through the device's own file.
    #[error("the group is in use")]
    GroupInUse,
    /// Another address space owns the group's DMA.
    #[error("a device of the group is bound to an iommufd")]
    GroupClaimed,
    /// The file was opened through the device's group.
    #[error("the file is the group's")]
    OfGroup,
    /// The group has no container.
    #[error("the group has no container")]
    NoContainer,
    /// The group has a container.
    #[error("the group has a container already")]
    ContainerSet,
    /// Open devices need the container.
    #[error("devices need the container")]
    ContainerInUse,
    /// The descriptor is open, and neither a container nor an iommufd.
    #[error("descriptor {fd} is no container")]
    NotContainer {
        /// What the client passed.
        fd: i32,
    },
    /// The descriptor is open, and no group.
    #[error("descriptor {fd} is no group")]
    NotGroup {
        /// What the client passed.
        fd: i32,
    },
    /// The container has no group, or an IOMMU already.
    #[error("the container has no group, or an IOMMU already")]
    ContainerNotReady,
    /// No IOMMU was asked for yet.
    #[error("the container has no IOMMU")]
    NoContainerIommu,
    /// No IOMMU driver of this type.
    #[error("no IOMMU of type {asked}")]
    NoSuchIommu {
        /// What the client passed.
        asked: u64,
    },
    /// What can be asked for in a container, and is no IOMMU.
    #[error("extension {asked} is no IOMMU")]
    NotAnIommu {
        /// What the client passed.
        asked: u64,
    },
    /// The group has no device of that name.
    #[error("no such device in the group")]
    NoSuchDevice,
    /// A name without an end.
    #[error("the name is longer than a page")]
    NameTooLong,
    /// What follows the device's name is no VF token.
    #[error("what follows the device's name is not one VF token")]
    DeviceOptions,
    /// A range of no bytes.
    #[error("the range is empty")]
    EmptyRange,
    /// The range passes the top of the address space.
    #[error("{start:#x} plus {length:#x} passes the top of the address space")]
    PastTop {
        /// Its first address.
        start: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// An address or length is not a multiple of the smallest page.
    #[error("{value:#x} is not a multiple of {alignment:#x}")]
    Misaligned {
        /// The addresses and lengths, or'ed.
        value: u64,
        /// Bytes of the smallest page.
        alignment: u64,
    },
    /// The range meets an entry.
    #[error("{span} meets an entry")]
    EntryExists {
        /// The range.
        span: Span,
    },
    /// No more entries fit.
    #[error("the container has as many entries as it can")]
    EntriesExhausted,
    /// The range is not inside what all IOMMUs translate.
    #[error("{span} is not translated by all IOMMUs")]
    OutsideRanges {
        /// The range.
        span: Span,
    },
    /// The range is a part of an entry.
    #[error("{range} bisects an entry")]
    EntryBisected {
        /// The range.
        range: Span,
    },
    /// There is no entry whose memory could have moved.
    #[error("no entry there")]
    NoEntry,
    /// The entry is another one, or its memory was not announced to move.
    #[error("not an entry whose memory was to move")]
    NotThatEntry,
    /// The memory of an entry was announced to move before.
    #[error("the memory of an entry moves already")]
    MemoryMovesAlready,
    /// The memory of an entry is on its way.
    #[error("the memory of an entry is moving")]
    MemoryMoves,
    /// Written pages are not logged, or not by pages of that size.
    #[error("no log of written pages of that size")]
    NoLog,
    /// Type1 of version 1 logs no pages.
    #[error("type1 of version 1 logs no pages")]
    NoLogOfVersionOne,
    /// A bitmap that does not hold its pages, or is too large.
    #[error("a bitmap of {bytes} bytes for {pages} pages")]
    BitmapSize {
        /// What the client passed.
        bytes: u64,
        /// What it asked about.
        pages: u64,
    },
    /// The device is being taken away.
    #[error("the device is being removed")]
    Withdrawn,
    /// Flags that the command does not know, or a combination that it does not take.
    #[error("flags {flags:#x} are not taken")]
    Flags {
        /// What the client passed.
        flags: u32,
    },
    /// Bytes beyond the known struct are not zero.
    #[error("bytes after the known {known} of the argument are not zero")]
    DirtyTail {
        /// Bytes of the struct as known.
        known: usize,
    },
    /// The client's memory cannot be reached.
    #[error("the argument cannot be reached")]
    Unreachable,
    /// No command has this number.
    #[error("no command {request:#x}")]
    NoSuchCommand {
        /// What the client passed.
        request: u32,
    },
    /// The device is opened with a VF token only.
    #[error("the device needs a VF token")]
    TokenMissing,
    /// The VF token is not the right one.
    #[error("the VF token is wrong")]
    TokenWrong,
    /// A VF token is given for a device that takes none.
    #[error("the device takes no VF token")]
    TokenNotTaken,
    /// No region has this index.
    #[error("no region {index}")]
    NoSuchRegion {
        /// What the client passed.
        index: u64,
    },
    /// The access begins past the end of its region, or ends past it where that is not cut off.
    #[error("offset {offset:#x} lies outside region {region}")]
    OutsideRegion {
        /// The region's index.
        region: u32,
        /// Where the access begins, from the start of the region.
        offset: u64,
    },
    /// The access passes the end of config space.
    #[error("config access at {offset:#x} of {count} bytes passes the end")]
    OutsideConfig {
        /// Where the access begins.
        offset: u64,
        /// Its length in bytes.
        count: u64,
    },
    /// The region is read-only.
    #[error("region {region} is read-only")]
    ReadOnlyRegion {
        /// The region's index.
        region: u32,
    },
    /// The device does not decode memory: its enable bit is clear, or it sleeps.
    #[error("the device does not decode memory accesses")]
    NotDecoded,
    /// The range cannot be mapped.
    #[error("offset {offset:#x} of region {region} cannot be mapped")]
    NotMappable {
        /// The region's index.
        region: u64,
        /// Where the mapping begins, from the start of the region.
        offset: u64,
    },
    /// No interrupt has this index.
    #[error("no interrupt kind {index}")]
    NoSuchInterrupt {
        /// What the client passed.
        index: u32,
    },
    /// The range of vectors is not the device's.
    #[error("vectors {start} and {count} on are not among the {present} of kind {index}")]
    VectorRange {
        /// The interrupt kind.
        index: u32,
        /// The first vector.
        start: u32,
        /// How many.
        count: u32,
        /// How many there are.
        present: u32,
    },
    /// The kind of interrupt takes no such action, or not exactly one was named.
    #[error("interrupt kind {index} does not take flags {flags:#x}")]
    InterruptAction {
        /// The interrupt kind.
        index: u32,
        /// What the client passed.
        flags: u32,
    },
    /// The kind of interrupt is not set up, or another one is.
    #[error("interrupt kind {index} is not set up, or another one is")]
    InterruptState {
        /// The interrupt kind.
        index: u32,
    },
    /// The vector lies past those allocated, and the number is fixed.
    #[error("vector {vector} is not allocated and cannot be any more")]
    VectorFixed {
        /// The vector.
        vector: u32,
    },
    /// The host has no vector left.
    #[error("no vector left for vector {vector}")]
    VectorsExhausted {
        /// The vector asked for.
        vector: u32,
    },
    /// Interrupts are to be set up, and none is named.
    #[error("no vectors are asked for")]
    NoVectors,
    /// An unmask eventfd is registered already.
    #[error("an unmask eventfd is registered already")]
    AlreadyWatched,
    /// The device cannot be reset alone.
    #[error("the device cannot be reset alone")]
    NoReset,
    /// The device's bus cannot be reset.
    #[error("the device's bus cannot be reset")]
    NoBusReset,
    /// Another reset of the device runs.
    #[error("another reset of the device is running")]
    ResetRunning,
    /// A device that the bus reset takes along is in use by another reset.
    #[error("a device on the bus is being reset")]
    BusResetContended,
    /// A TDI of a device that the reset takes along is bound.
    #[error("a TDI is bound")]
    TdiBound,
    /// A device that the bus reset takes along is not the client's.
    #[error("a device on the bus is not the client's")]
    BusNotOwned,
    /// Group descriptors are given on a file that takes none.
    #[error("{count} group descriptors are given where none are taken")]
    GroupsGiven {
        /// What the client passed.
        count: u32,
    },
    /// The list does not fit.
    #[error("{needed} devices do not fit")]
    ListTooShort {
        /// Entries needed.
        needed: u32,
    },
    /// The device has no such feature.
    #[error("no feature {feature}")]
    NoSuchFeature {
        /// The feature.
        feature: u32,
    },
    /// The feature does not take the operation.
    #[error("feature {feature} does not take flags {flags:#x}")]
    FeatureOperation {
        /// The feature.
        feature: u32,
        /// What the client passed.
        flags: u32,
    },
    /// The device's state cannot be copied while it runs.
    #[error("the device has no precopy")]
    NoPrecopy,
    /// A dma-buf of nothing.
    #[error("no ranges are given")]
    NoRanges,
    /// A list that no kernel would copy.
    #[error("{count} ranges are too many")]
    TooManyRanges {
        /// How many.
        count: u32,
    },
    /// The device has no such BAR.
    #[error("no BAR {index}")]
    NoSuchBar {
        /// What the client passed.
        index: u32,
    },
    /// The BAR is one of I/O ports.
    #[error("the BAR is not memory")]
    NotMemory,
    /// Not a part of the BAR that a dma-buf can have.
    #[error("{length:#x} bytes at {offset:#x} are no part of the BAR in whole pages")]
    DmaRange {
        /// Where it begins in the BAR.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// The caller could not be given the file.
    #[error("no descriptor for the file")]
    NotInstalled {
        /// The reason.
        errno: Errno,
    },
    /// Low power is engaged already.
    #[error("low power is engaged already")]
    LowPowerEngaged,
    /// The file position is not one of a BAR.
    #[error("position {position:#x} of the device file is not a BAR's")]
    NotBar {
        /// What the client passed.
        position: u64,
    },
    /// The write meets the MSI-X table, which is the host's.
    #[error("a write at offset {offset:#x} meets the MSI-X table")]
    OverMsixTable {
        /// Where the write begins, from the start of the BAR.
        offset: u64,
    },
    /// No eventfd does this write.
    #[error("no eventfd does this write")]
    NoIoeventfd,
    /// An eventfd does this write already.
    #[error("an eventfd does this write already")]
    IoeventfdExists,
    /// As many eventfds write to the device as can.
    #[error("no more eventfds can write to the device")]
    IoeventfdsExhausted,
    /// The host is out of memory.
    #[error("out of memory")]
    OutOfMemory,
    /// The iommufd refused.
    #[error(transparent)]
    Iommufd(#[from] iommufd::Refusal),
}

impl Refusal {
    /// What the client sees. The one place where a reason becomes a number.
    pub fn errno(&self) -> Errno {
        match self {
            Self::VectorsExhausted { .. }
            | Self::ListTooShort { .. }
            | Self::EntriesExhausted
            | Self::IoeventfdsExhausted => Errno::ENOSPC,
            Self::TokenMissing | Self::TokenWrong | Self::NoLogOfVersionOne => Errno::EACCES,
            Self::NoEntry => Errno::ENOENT,
            Self::EntryExists { .. } | Self::IoeventfdExists => Errno::EEXIST,
            Self::PastTop { .. } => Errno::EOVERFLOW,
            Self::GroupClaimed => Errno::EPERM,
            Self::DirtyTail { .. } => Errno::E2BIG,
            Self::ResetRunning => Errno::EAGAIN,
            Self::ClosedFd { .. } => Errno::EBADF,
            Self::NotIommufd { .. } | Self::NotContainer { .. } => Errno::EBADFD,
            Self::AlreadyWatched
            | Self::BusResetContended
            | Self::ContainerInUse
            | Self::DeviceOpen
            | Self::GroupInUse
            | Self::MemoryMoves
            | Self::TdiBound => Errno::EBUSY,
            Self::Unreachable | Self::OutsideConfig { .. } => Errno::EFAULT,
            Self::NotDecoded => Errno::EIO,
            Self::Withdrawn
            | Self::NoIoeventfd
            | Self::NoBusReset
            | Self::NoSuchBar { .. }
            | Self::NoSuchDevice
            | Self::NoSuchIommu { .. } => Errno::ENODEV,
            Self::OutOfMemory | Self::TooManyRanges { .. } => Errno::ENOMEM,
            Self::NoSuchCommand { .. }
            | Self::InterruptAction { .. }
            | Self::NoSuchFeature { .. } => Errno::ENOTTY,
            Self::NotInstalled { errno } => *errno,
            Self::NoVectors => Errno::ERANGE,
            Self::Argsz { .. }
            | Self::BitmapSize { .. }
            | Self::ContainerNotReady
            | Self::ContainerSet
            | Self::DeviceOptions
            | Self::DmaRange { .. }
            | Self::EmptyRange
            | Self::EntryBisected { .. }
            | Self::MemoryMovesAlready
            | Self::Misaligned { .. }
            | Self::NameTooLong
            | Self::NoContainer
            | Self::NoContainerIommu
            | Self::NoLog
            | Self::NoRanges
            | Self::NotMemory
            | Self::NotGroup { .. }
            | Self::NotThatEntry
            | Self::OfGroup
            | Self::OutsideRanges { .. }
            | Self::NotEventfd { .. }
            | Self::NegativeFd { .. }
            | Self::DeviceBound
            | Self::FileBound
            | Self::NotBound
            | Self::Flags { .. }
            | Self::TokenNotTaken
            | Self::NoSuchRegion { .. }
            | Self::OutsideRegion { .. }
            | Self::ReadOnlyRegion { .. }
            | Self::NotMappable { .. }
            | Self::NoSuchInterrupt { .. }
            | Self::VectorRange { .. }
            | Self::InterruptState { .. }
            | Self::VectorFixed { .. }
            | Self::NoPrecopy
            | Self::NoReset
            | Self::NotAnIommu { .. }
            | Self::NotBar { .. }
            | Self::OverMsixTable { .. }
            | Self::BusNotOwned
            | Self::GroupsGiven { .. }
            | Self::FeatureOperation { .. }
            | Self::LowPowerEngaged => Errno::EINVAL,
            Self::Iommufd(refusal) => refusal.errno(),
        }
    }
}
