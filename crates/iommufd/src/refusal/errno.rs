//! The one place where a reason becomes an error number.
//!
//! Source: [uapi/iommufd.h].

use uapi::Errno;

use super::Refusal;
use crate::PinFault;
use crate::access::AccessRefusal;
use crate::dma_buf::DmaBufRefusal;
use crate::group::PasidRefusal;
use crate::hardware::HardwareRefusal;

impl Refusal {
    /// What the program sees.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::AreaBusy { .. }
            | Self::Busy { .. }
            | Self::WindowMapped { .. }
            | Self::ContextInUse
            | Self::Pasid(PasidRefusal::Attached { .. })
            | Self::Resetting => Errno::EBUSY,
            Self::BadFd { .. } => Errno::EBADF,
            Self::DirtyTail { .. } | Self::TooMuch { .. } => Errno::E2BIG,
            Self::Access(AccessRefusal::PinnedArea { .. })
            | Self::DmaBuf(DmaBufRefusal::PastEnd { .. } | DmaBufRefusal::NotForSoftware { .. })
            | Self::AttachedElsewhere { .. }
            | Self::Pasid(
                PasidRefusal::Unattached { .. }
                | PasidRefusal::TableWithout { .. }
                | PasidRefusal::AddressSpace
                | PasidRefusal::OutOfRange { .. },
            )
            | Self::Hardware(
                HardwareRefusal::DataLength { .. }
                | HardwareRefusal::DataType { .. }
                | HardwareRefusal::NoEntries
                | HardwareRefusal::EntryType { .. }
                | HardwareRefusal::EntryLength { .. }
                | HardwareRefusal::EntryRange { .. }
                | HardwareRefusal::TableWidth { .. },
            )
            | Self::CacheIncoherent
            | Self::DataShape { .. }
            | Self::Empty
            | Self::EntryShape { .. }
            | Self::Incompatible { .. }
            | Self::Misaligned { .. }
            | Self::NeedsVm { .. }
            | Self::LargePagesInUse
            | Self::NoAccess
            | Self::NoFile { .. }
            | Self::NotForWriting { .. }
            | Self::OptionValue { .. }
            | Self::OverlappingRange { .. }
            | Self::QueueDepth { .. }
            | Self::RangeOrder { .. }
            | Self::NoSuchIommu { .. }
            | Self::NoNestParent { .. }
            | Self::OtherDevice { .. }
            | Self::OtherIommu { .. }
            | Self::OtherType { .. }
            | Self::PageSize { .. }
            | Self::ParentMissing { .. }
            | Self::Pin(PinFault::FileRange)
            | Self::Reserved { .. }
            | Self::ShortArgument { .. }
            | Self::TooLong { .. }
            | Self::TypeOneFlags { .. }
            | Self::UnmapAllOfPart
            | Self::UnknownOperation { .. }
            | Self::ViommuData { .. } => Errno::EINVAL,
            Self::MisalignedArea { .. }
            | Self::ReservedAllowed { .. }
            | Self::ReservedMapped { .. } => Errno::EADDRINUSE,
            Self::Access(AccessRefusal::NotGranted { .. })
            | Self::MsiNotIsolated
            | Self::OwnedElsewhere { .. }
            | Self::ReadOnly
            | Self::NotPrivileged => Errno::EPERM,
            Self::Access(AccessRefusal::NotAttached | AccessRefusal::NoPin { .. })
            | Self::NoObject { .. }
            | Self::NotBehind { .. }
            | Self::NotBound { .. }
            | Self::NotCovered { .. }
            | Self::NothingMapped { .. }
            | Self::NotWhole { .. } => Errno::ENOENT,
            Self::NoRoom { .. } => Errno::ENOSPC,
            Self::NoWindowFree { .. }
            | Self::Exhausted { .. }
            | Self::OutOfIds
            | Self::Pin(PinFault::Limit)
            | Self::TooManyRanges { .. } => Errno::ENOMEM,
            Self::Overlap { .. }
            | Self::VdeviceExists { .. }
            | Self::VeventqExists { .. }
            | Self::VirtIdTaken { .. } => Errno::EEXIST,
            Self::PastTop { .. } => Errno::EOVERFLOW,
            Self::Pin(PinFault::Unmapped | PinFault::DeviceMemory) | Self::Unreachable => {
                Errno::EFAULT
            }
            Self::RangesLeftOut { .. } => Errno::EMSGSIZE,
            Self::DmaBuf(DmaBufRefusal::NotCut | DmaBufRefusal::SeveralRanges)
            | Self::NoSuchOperation { .. }
            | Self::NoTsm
            | Self::ReservedField
            | Self::UnknownFlags { .. }
            | Self::Unsupported { .. } => Errno::EOPNOTSUPP,
            Self::DmaBuf(DmaBufRefusal::Revoked) | Self::NoCompatIoas | Self::NoVm { .. } => {
                Errno::ENODEV
            }
            Self::NoDescriptor { errno } => *errno,
            Self::Test(failure) => failure.errno(),
            Self::Tsm(refusal) => refusal.errno(),
            Self::Hardware(
                HardwareRefusal::StreamEntry { .. } | HardwareRefusal::Command { .. },
            ) => Errno::EIO,
            Self::UnknownCommand { .. } => Errno::ENOTTY,
        }
    }
}
