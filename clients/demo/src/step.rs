//! What the client did, as values: a transcript that can be printed, sent and compared.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One thing done, with what the kernel answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// `/dev/iommu` is open.
    OpenedIommu,
    /// An address space was made.
    AllocatedIoas {
        /// Its ID.
        id: u32,
    },
    /// The device's file is open.
    OpenedDevice {
        /// The sysfs directory it was found by.
        sysfs: PathBuf,
    },
    /// The device belongs to the iommufd.
    Bound {
        /// Its ID there.
        id: u32,
    },
    /// The device's DMA goes through the address space.
    Attached {
        /// The address space.
        ioas: u32,
    },
    /// The device said what it is.
    Described {
        /// PCI vendor ID.
        vendor: u16,
        /// PCI device ID.
        device: u16,
        /// Regions of nonzero size.
        regions: usize,
        /// MSI-X vectors.
        vectors: u32,
    },
    /// Memory was mapped for DMA.
    Mapped {
        /// Where the device sees it.
        iova: u64,
        /// How much.
        length_bytes: u64,
    },
    /// MSI-X is on, one eventfd a vector.
    EnabledMsix {
        /// How many.
        vectors: usize,
    },
    /// Areas of BAR 0 that have no side effects are in the client's address space.
    MappedBar {
        /// How many areas.
        areas: usize,
        /// Bytes in them.
        length_bytes: u64,
    },
    /// The doorbell was rung.
    Started {
        /// From which IOVA.
        source: u64,
        /// To which.
        destination: u64,
        /// How much.
        length_bytes: u64,
        /// Whether in the guest's name: trusted DMA, T=1.
        trusted: bool,
    },
    /// The interrupt arrived.
    Interrupted {
        /// The vector.
        vector: u16,
        /// How often it had fired.
        count: u64,
    },
    /// The copy was compared with its source, byte by byte, and is right.
    Verified {
        /// How much.
        length_bytes: u64,
    },
    /// MSI-X is off.
    DisabledMsix,
    /// The device was reset and has forgotten its registers.
    Reset,
    /// The memory is the client's alone again.
    Unmapped {
        /// How much.
        length_bytes: u64,
    },
    /// The device is detached.
    Detached,
    /// Every file is closed.
    Closed,
    /// The TSM has a session with the device's security manager, and the link's keys are in place.
    Connected {
        /// The device that has the security manager.
        dsm: String,
    },
    /// What follows ends a running interface in this way.
    Ending {
        /// The way, in words.
        order: String,
    },
    /// The vIOMMU and the vdevice are there.
    MadeVdevice {
        /// The page table under the vIOMMU.
        hwpt: u32,
        /// The vIOMMU.
        viommu: u32,
        /// The vdevice.
        vdevice: u32,
    },
    /// The interface is the VM's.
    BoundTdi,
    /// The interface's configuration is locked.
    Locked,
    /// The interface's report was read.
    ReadReport {
        /// Its length.
        length_bytes: usize,
        /// How many ranges of memory it describes.
        ranges: u32,
    },
    /// The guest trusts the interface.
    Running,
    /// The interface is nobody's.
    UnboundTdi,
    /// An object was destroyed.
    Destroyed {
        /// What it was.
        object: String,
        /// Its ID.
        id: u32,
    },
    /// A command was refused, as it should be.
    Refused {
        /// What was tried.
        what: String,
        /// The error.
        errno: String,
    },
    /// Bus master was cleared in the client's config space.
    ClearedBusMaster,
    /// The device's file is closed.
    ClosedDevice,
    /// The TSM let go of the device.
    Disconnected,
    /// The client ends with everything open.
    LeftOpen,
}

/// A step and when it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// `CLOCK_MONOTONIC`, in nanoseconds, when the step had been done.
    pub at_ns: u64,
    /// Counts rounds from 1.
    pub round: u32,
    /// The step.
    #[serde(flatten)]
    pub step: Step,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenedIommu => write!(f, "open /dev/iommu"),
            Self::AllocatedIoas { id } => write!(f, "allocate an address space: ioas {id}"),
            Self::OpenedDevice { sysfs } => {
                let name = sysfs.file_name().unwrap_or(sysfs.as_os_str());
                write!(f, "open {}", name.display())
            }
            Self::Bound { id } => write!(f, "bind it to the iommufd: device {id}"),
            Self::Attached { ioas } => write!(f, "attach it to ioas {ioas}"),
            Self::Described { vendor, device, regions, vectors } => write!(
                f,
                "it is {vendor:04x}:{device:04x}, {regions} regions, {vectors} MSI-X vectors"
            ),
            Self::Mapped { iova, length_bytes } => {
                write!(f, "map {} at iova {iova:#x}", Bytes(*length_bytes))
            }
            Self::EnabledMsix { vectors } => write!(f, "enable MSI-X, {vectors} eventfds"),
            Self::MappedBar { areas, length_bytes } => {
                write!(f, "mmap {} of BAR 0 in {areas} piece(s)", Bytes(*length_bytes))
            }
            Self::Started { source, destination, length_bytes, trusted } => write!(
                f,
                "ring the doorbell: copy {} {source:#x} -> {destination:#x}{}",
                Bytes(*length_bytes),
                if *trusted { ", T=1" } else { "" }
            ),
            Self::Interrupted { vector, count } => {
                write!(f, "take MSI-X vector {vector}")?;
                if *count == 1 { Ok(()) } else { write!(f, ", which fired {count} times") }
            }
            Self::Verified { length_bytes } => {
                write!(f, "compare {}: the copy is right", Bytes(*length_bytes))
            }
            Self::DisabledMsix => write!(f, "disable MSI-X"),
            Self::Reset => write!(f, "reset it: the registers read as new"),
            Self::Unmapped { length_bytes } => write!(f, "unmap {}", Bytes(*length_bytes)),
            Self::Detached => write!(f, "detach"),
            Self::Closed => write!(f, "close everything"),
            Self::Connected { dsm } => write!(f, "connect the TSM: session and keys with {dsm}"),
            Self::Ending { order } => write!(f, "--- to be ended by: {order}"),
            Self::MadeVdevice { hwpt, viommu, vdevice } => {
                write!(f, "make a vdevice: hwpt {hwpt}, viommu {viommu}, vdevice {vdevice}")
            }
            Self::BoundTdi => write!(f, "bind its TDI to the VM"),
            Self::Locked => write!(f, "LOCK"),
            Self::ReadReport { length_bytes, ranges } => {
                write!(f, "read the interface report: {length_bytes} bytes, {ranges} ranges")
            }
            Self::Running => write!(f, "RUN"),
            Self::UnboundTdi => write!(f, "unbind"),
            Self::Destroyed { object, id } => write!(f, "destroy {object} {id}"),
            Self::Refused { what, errno } => write!(f, "{what}: {errno}, as it should be"),
            Self::ClearedBusMaster => write!(f, "clear bus master in RUN"),
            Self::ClosedDevice => write!(f, "close the device's file"),
            Self::Disconnected => write!(f, "disconnect the TSM"),
            Self::LeftOpen => write!(f, "exit with everything open"),
        }
    }
}

/// A length in the unit a reader would choose.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        match self.0 {
            bytes if bytes >= MIB && bytes % MIB == 0 => write!(f, "{} MiB", bytes / MIB),
            bytes if bytes >= KIB && bytes % KIB == 0 => write!(f, "{} KiB", bytes / KIB),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_print_in_the_largest_whole_unit() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!(text(2 << 20), "2 MiB");
        assert_eq!(text(64 << 10), "64 KiB");
        assert_eq!(text(1), "1 bytes");
        assert_eq!(text((1 << 20) + 1024), "1025 KiB");
    }
}
