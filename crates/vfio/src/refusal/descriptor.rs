//! Why what the caller named, a descriptor or memory, did not serve.
//!
//! Takes no lock.

use iommufd::{FileFault, Unreachable};

use super::Refusal;

impl Refusal {
    /// Why `fd` did not serve as an eventfd.
    pub(crate) fn of_eventfd(fd: i32, fault: FileFault) -> Self {
        match fault {
            FileFault::Closed => Self::ClosedFd { fd },
            FileFault::OtherKind => Self::NotEventfd { fd },
        }
    }

    /// Why `fd` did not serve as a group.
    pub(crate) fn of_group(fd: i32, fault: FileFault) -> Self {
        match fault {
            FileFault::Closed => Self::ClosedFd { fd },
            FileFault::OtherKind => Self::NotGroup { fd },
        }
    }

    /// Why `fd` did not serve as an iommufd.
    pub(crate) fn of_iommufd(fd: i32, fault: FileFault) -> Self {
        match fault {
            FileFault::Closed => Self::ClosedFd { fd },
            FileFault::OtherKind => Self::NotIommufd { fd },
        }
    }
}

impl From<Unreachable> for Refusal {
    fn from(_: Unreachable) -> Self {
        Self::Unreachable
    }
}
