//! Device nodes: their numbers and permission bits.

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// `/dev/iommu`.
    Iommu,
    /// `/dev/vfio/devices/vfioN`, with N, which is the index in [`Machine::devices`](crate::machine::Machine::devices).
    Vfio(usize),
    /// `/dev/vfio/vfio`.
    Container,
    /// `/dev/vfio/N`, with the number of the group.
    Group(u32),
}

impl Node {
    /// Major and minor number.
    pub fn device_number(self) -> (u32, u32) {
        match self {
            Self::Iommu => (MISC_MAJOR, IOMMU_MINOR),
            Self::Vfio(number) => (VFIO_MAJOR, u32::try_from(number).unwrap_or(u32::MAX)),
            Self::Container => (MISC_MAJOR, CONTAINER_MINOR),
            Self::Group(number) => (GROUP_MAJOR, number & MINOR_MOST),
        }
    }

    /// The permission bits.
    pub(super) fn mode(self) -> u32 {
        match self {
            // A container gives no right to anything: groups do.
            Self::Container => 0o666,
            Self::Iommu | Self::Vfio(_) | Self::Group(_) => 0o600,
        }
    }
}

/// Linux's major number of small devices.
const MISC_MAJOR: u32 = 10;
/// A minor of the range that Linux gives out as drivers ask.
const IOMMU_MINOR: u32 = 126;
/// `VFIO_MINOR`.
const CONTAINER_MINOR: u32 = 196;
/// A major of the range that Linux gives out as drivers ask.
const VFIO_MAJOR: u32 = 511;
/// Another.
const GROUP_MAJOR: u32 = 510;
/// Minor numbers have 20 bits.
const MINOR_MOST: u32 = (1 << 20) - 1;
