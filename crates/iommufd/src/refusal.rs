//! Why a command is refused. A reason becomes an error number in [`errno`] and nowhere else.
//!
//! Takes no lock. Deliberately absent: mistakes of our own, which are assertions.

mod errno;

use span::Span;
use thiserror::Error;
use uapi::Errno;

use crate::access::AccessRefusal;
use crate::dma_buf::DmaBufRefusal;
use crate::group::PasidRefusal;
use crate::hardware::HardwareRefusal;
use crate::mock::TestFailure;
use crate::{PinFault, Resource, Unreachable};

/// A program asked for what cannot be had. Carries what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// What a buffer of a device is not for.
    #[error(transparent)]
    DmaBuf(#[from] DmaBufRefusal),
    /// What a software user of an address space cannot have.
    #[error(transparent)]
    Access(#[from] AccessRefusal),
    /// What the hardware does not do with a guest's tables.
    #[error(transparent)]
    Hardware(#[from] HardwareRefusal),
    /// A PASID cannot be attached.
    #[error(transparent)]
    Pasid(#[from] PasidRefusal),
    /// The area is still being mapped (`EBUSY`).
    #[error("area {mapped} is still being mapped")]
    AreaBusy {
        /// The area.
        mapped: Span,
    },
    /// Another device of the iommu_group is attached to another page table (`EINVAL`).
    #[error("iommu_group {group} is attached to page table {hwpt}")]
    AttachedElsewhere {
        /// The group's number.
        group: u32,
        /// What it is attached to.
        hwpt: u32,
    },
    /// No such file descriptor is open (`EBADF`).
    #[error("file descriptor {fd} is not open")]
    BadFd {
        /// The descriptor.
        fd: i32,
    },
    /// The object is in use (`EBUSY`).
    #[error("object {id} has {users} users")]
    Busy {
        /// The object.
        id: u32,
        /// Its users, the object table among them.
        users: u32,
    },
    /// The IOMMU does not keep caches coherent (`EINVAL`).
    #[error("the device's IOMMU does not keep caches coherent")]
    CacheIncoherent,
    /// A setting that can only be changed before there is any object (`EBUSY`).
    #[error("the context has objects")]
    ContextInUse,
    /// One of data type and data length is zero, the other is not (`EINVAL`).
    #[error("data of type {data_type} with length {data_len}")]
    DataShape {
        /// As asked.
        data_type: u32,
        /// As asked, in bytes.
        data_len: u32,
    },
    /// Bytes past the struct that we know are not zero (`E2BIG`).
    #[error("non-zero bytes past the {known} bytes known of the struct")]
    DirtyTail {
        /// Bytes of the struct.
        known: usize,
    },
    /// A length of zero (`EINVAL`).
    #[error("length is zero")]
    Empty,
    /// Entries without an address or length, too long, or too many (`EINVAL`).
    #[error("{number} entries of {length} bytes")]
    EntryShape {
        /// Bytes of each, as asked.
        length: u32,
        /// How many, as asked.
        number: u32,
    },
    /// There is no more of something (`ENOMEM`).
    #[error("no more: {resource:?}")]
    Exhausted {
        /// Of what.
        resource: Resource,
    },
    /// The page table does not suit the device's IOMMU (`EINVAL`).
    #[error("page table {hwpt} does not suit the device's IOMMU")]
    Incompatible {
        /// The page table.
        hwpt: u32,
    },
    /// An address or length is not a multiple of the alignment (`EINVAL`).
    #[error("{value:#x} is not a multiple of {alignment:#x}")]
    Misaligned {
        /// The address or length.
        value: u64,
        /// What it must be a multiple of.
        alignment: u64,
    },
    /// An area that is mapped already violates the alignment that a page table needs (`EADDRINUSE`).
    #[error("area {mapped} violates the alignment {alignment:#x}")]
    MisalignedArea {
        /// The area.
        mapped: Span,
        /// The alignment needed.
        alignment: u64,
    },
    /// The platform does not isolate MSIs (`EPERM`).
    #[error("interrupts of the device's IOMMU are not isolated")]
    MsiNotIsolated,
    /// Type1 does not know the flags (`EINVAL`).
    #[error("flags {flags:#x} are not type1's")]
    TypeOneFlags {
        /// As asked.
        flags: u32,
    },
    /// All mappings are to go, and a range too is named (`EINVAL`).
    #[error("all mappings are to go, and a range is named")]
    UnmapAllOfPart,
    /// No VFIO group has the context as its container, and no IOAS was named in its stead (`ENODEV`).
    #[error("the context has no IOAS for VFIO")]
    NoCompatIoas,
    /// Not a kind of IOMMU that a container on a context can have (`EINVAL`).
    #[error("a container has no IOMMU of type {asked}")]
    NoSuchIommu {
        /// As asked.
        asked: u64,
    },
    /// The command has no such operation (`EOPNOTSUPP`).
    #[error("no operation {op}")]
    NoSuchOperation {
        /// As asked.
        op: u32,
    },
    /// Areas are mapped already with leaves larger than pages (`EINVAL`).
    #[error("areas are mapped with large pages")]
    LargePagesInUse,
    /// The device is bound without a VM, and what is asked for needs one (`EINVAL`).
    #[error("a vIOMMU of type {viommu_type} needs a VM")]
    NeedsVm {
        /// The type.
        viommu_type: u32,
    },
    /// Neither reading nor writing was asked for (`EINVAL`).
    #[error("neither readable nor writeable")]
    NoAccess,
    /// An area is not of a file, and so cannot be handed to another process (`EINVAL`).
    #[error("area {mapped} is not of a file")]
    NoFile {
        /// The area.
        mapped: Span,
    },
    /// The page table was not made to nest others in it (`EINVAL`).
    #[error("page table {hwpt} is no nest parent")]
    NoNestParent {
        /// The page table.
        hwpt: u32,
    },
    /// There is no such object of the type asked for (`ENOENT`).
    #[error("no object {id} of that type")]
    NoObject {
        /// The id.
        id: u32,
    },
    /// An area is for reading only, and a page table that mirrors the space takes none such (`EINVAL`).
    #[error("area {mapped} is for reading only")]
    NotForWriting {
        /// The area.
        mapped: Span,
    },
    /// No free span is large enough (`ENOSPC`).
    #[error("no room for {length:#x} bytes")]
    NoRoom {
        /// Bytes asked for.
        length: u64,
    },
    /// Nothing binds the device's TDI (`EOPNOTSUPP`).
    #[error("the device has no TSM")]
    NoTsm,
    /// The vIOMMU was made without a VM (`ENODEV`).
    #[error("vIOMMU {viommu} has no VM")]
    NoVm {
        /// The vIOMMU.
        viommu: u32,
    },
    /// The caller cannot be given a file (as the system says: `EMFILE`, `ENOMEM`).
    #[error("no descriptor for an open file: {errno}")]
    NoDescriptor {
        /// Why.
        errno: Errno,
    },
    /// The device has no vdevice behind the vIOMMU that the page table is of (`ENOENT`).
    #[error("the device has no vdevice behind vIOMMU {viommu}")]
    NotBehind {
        /// The vIOMMU.
        viommu: u32,
    },
    /// The vdevice's TDI is not bound (`ENOENT`), as the series of 2025-05 has it.
    #[error("vdevice {vdevice} is not bound")]
    NotBound {
        /// The vdevice.
        vdevice: u32,
    },
    /// Not all of the span is mapped (`ENOENT`).
    #[error("nothing is mapped at {iova:#x}, in {asked}")]
    NotCovered {
        /// The span.
        asked: Span,
        /// The lowest address that is not mapped.
        iova: u64,
    },
    /// Nothing is mapped in the span (`ENOENT`).
    #[error("nothing is mapped in {asked}")]
    NothingMapped {
        /// The span.
        asked: Span,
    },
    /// The caller may not do that (`EPERM`).
    #[error("the caller lacks a capability")]
    NotPrivileged,
    /// An area sticks out of the span (`ENOENT`).
    #[error("area {mapped} is not wholly inside {asked}")]
    NotWhole {
        /// The span.
        asked: Span,
        /// The area.
        mapped: Span,
    },
    /// A value that a setting does not have (`EINVAL`).
    #[error("a setting cannot be {value}")]
    OptionValue {
        /// As asked.
        value: u64,
    },
    /// The vdevice is another device's (`EINVAL`).
    #[error("vdevice {vdevice} is another device's")]
    OtherDevice {
        /// The vdevice.
        vdevice: u32,
    },
    /// The device is behind another IOMMU than the vIOMMU is over (`EINVAL`).
    #[error("the device is not behind the IOMMU of vIOMMU {viommu}")]
    OtherIommu {
        /// The vIOMMU.
        viommu: u32,
    },
    /// The object is of a type that does not serve here (`EINVAL`).
    #[error("object {id} is of another type")]
    OtherType {
        /// The object.
        id: u32,
    },
    /// All ids are taken (`ENOMEM`).
    #[error("no object id is free")]
    OutOfIds,
    /// The span meets one already mapped (`EEXIST`).
    #[error("{asked} meets the area {mapped}")]
    Overlap {
        /// The span asked for.
        asked: Span,
        /// The area it meets.
        mapped: Span,
    },
    /// Two ranges of a list overlap (`EINVAL`).
    #[error("{range} overlaps an earlier range")]
    OverlappingRange {
        /// The later one.
        range: Span,
    },
    /// Another context owns the DMA of the device's iommu_group (`EPERM`).
    #[error("iommu_group {group} is owned by another context")]
    OwnedElsewhere {
        /// The group's number.
        group: u32,
    },
    /// The IOMMU's smallest page is larger than the client's (`EINVAL`).
    #[error("the smallest page of the IOMMU has {smallest:#x} bytes")]
    PageSize {
        /// Bytes; 0 if the IOMMU has no page size at all.
        smallest: u64,
    },
    /// There is no object to build a page table on (`EINVAL`).
    #[error("no object {id} to build a page table on")]
    ParentMissing {
        /// The id.
        id: u32,
    },
    /// An address or length passes the top of the address space (`EOVERFLOW`).
    #[error("{start:#x} plus {length:#x} passes the top of the address space")]
    PastTop {
        /// The address.
        start: u64,
        /// The length in bytes.
        length: u64,
    },
    /// The memory cannot be pinned (`EFAULT`, `EINVAL` or `ENOMEM`).
    #[error("memory cannot be pinned: {0:?}")]
    Pin(PinFault),
    /// A queue for no events, or for too many (`EINVAL`).
    #[error("a queue for {depth} events")]
    QueueDepth {
        /// As asked.
        depth: u32,
    },
    /// A range that does not end after its start (`EINVAL`).
    #[error("range from {start:#x} to {last:#x}")]
    RangeOrder {
        /// Its first address.
        start: u64,
        /// Its last address.
        last: u64,
    },
    /// The buffer has no room for all ranges (`EMSGSIZE`).
    #[error("{total} ranges do not fit in a buffer for {given}")]
    RangesLeftOut {
        /// Ranges that the buffer holds.
        given: u32,
        /// Ranges that there are.
        total: u32,
    },
    /// A copy would let devices write memory that was mapped for reading only (`EPERM`).
    #[error("the memory was not mapped for writing")]
    ReadOnly,
    /// The span meets a reserved one (`EINVAL`).
    #[error("{asked} meets the reserved {reserved}")]
    Reserved {
        /// The span asked for.
        asked: Span,
        /// The reserved span.
        reserved: Span,
    },
    /// A span that has to be reserved meets one that the client allows for mappings, or the other way round
    /// (`EADDRINUSE`).
    #[error("{reserved} is reserved, and the client allows {allowed} for mappings")]
    ReservedAllowed {
        /// The span to reserve.
        reserved: Span,
        /// What is allowed.
        allowed: Span,
    },
    /// A reserved field is not zero (`EOPNOTSUPP`).
    #[error("a reserved field is not zero")]
    ReservedField,
    /// A span that has to be reserved meets an area (`EADDRINUSE`).
    #[error("{reserved} cannot be reserved: {mapped} is mapped")]
    ReservedMapped {
        /// The span to reserve.
        reserved: Span,
        /// The area it meets.
        mapped: Span,
    },
    /// The function is being reset (`EBUSY`).
    #[error("the function is being reset")]
    Resetting,
    /// The struct is shorter than its first version (`EINVAL`).
    #[error("struct of {given} bytes where {least} are the least")]
    ShortArgument {
        /// Bytes that the caller says it has.
        given: u32,
        /// Bytes of the struct's first version.
        least: u32,
    },
    /// The length is larger than memory can be (`EINVAL`).
    #[error("length {length:#x} is larger than memory can be")]
    TooLong {
        /// The length in bytes.
        length: u64,
    },
    /// A list is longer than is served (`ENOMEM`).
    #[error("{given} ranges are too many")]
    TooManyRanges {
        /// How many there are.
        given: u32,
    },
    /// A guest's request, or the room for its answer, is larger than is served (`E2BIG`).
    #[error("{length} bytes where {most} are the most")]
    TooMuch {
        /// As asked, in bytes.
        length: u32,
        /// What is served, in bytes.
        most: u32,
    },
    /// A test command found what it looked for otherwise.
    #[error(transparent)]
    Test(TestFailure),
    /// The TSM or the device refused, or was not let finish.
    #[error(transparent)]
    Tsm(#[from] tsm::Refusal),
    /// The number is not a command's, or the command is not served (`ENOTTY`).
    #[error("request {request:#x} is no command")]
    UnknownCommand {
        /// The request.
        request: u32,
    },
    /// A flag that means nothing here (`EOPNOTSUPP`).
    #[error("unknown flags {flags:#x}")]
    UnknownFlags {
        /// The flags that are not known.
        flags: u32,
    },
    /// A number that names no operation, architecture or scope (`EINVAL`).
    #[error("{field} {value} means nothing here")]
    UnknownOperation {
        /// The field.
        field: &'static str,
        /// What it held.
        value: u32,
    },
    /// The caller's memory cannot be reached (`EFAULT`).
    #[error("the caller's memory cannot be reached")]
    Unreachable,
    /// The device's IOMMU cannot do it (`EOPNOTSUPP`).
    #[error("the device's IOMMU has no {feature}")]
    Unsupported {
        /// What it lacks.
        feature: &'static str,
    },
    /// The device has a vdevice already (`EEXIST`).
    #[error("device {device} has vdevice {vdevice}")]
    VdeviceExists {
        /// The device.
        device: u32,
        /// What it has.
        vdevice: u32,
    },
    /// The vIOMMU has a queue for events of the type already (`EEXIST`).
    #[error("vIOMMU {viommu} has a queue for events of that type")]
    VeventqExists {
        /// The vIOMMU.
        viommu: u32,
    },
    /// A client maps the vIOMMU's window (`EBUSY`).
    #[error("the window of vIOMMU {viommu} is mapped")]
    WindowMapped {
        /// The vIOMMU.
        viommu: u32,
    },
    /// No room in the file for another window (`ENOMEM`).
    #[error("no window of {length:#x} bytes is free")]
    NoWindowFree {
        /// As asked.
        length: u64,
    },
    /// Data where the type of vIOMMU has none (`EINVAL`).
    #[error("{data_len} bytes of data for a vIOMMU that takes none")]
    ViommuData {
        /// As asked, in bytes.
        data_len: u32,
    },
    /// The vIOMMU has a device under that number already (`EEXIST`).
    #[error("vIOMMU {viommu} has a device {virt_id:#x}")]
    VirtIdTaken {
        /// The vIOMMU.
        viommu: u32,
        /// What the guest was to know the device by.
        virt_id: u64,
    },
}

impl From<Unreachable> for Refusal {
    fn from(_: Unreachable) -> Self {
        Self::Unreachable
    }
}

impl From<PinFault> for Refusal {
    fn from(fault: PinFault) -> Self {
        Self::Pin(fault)
    }
}
