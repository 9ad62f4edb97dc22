//! What hardware an IOMMU is: what a kernel's driver of it adds to what all IOMMUs do.
//!
//! Each kind describes itself, reads what a guest says of its own tables, drops what a guest changed, walks the
//! guest's tables. Callers know none of them by name. A guest's tables lie in the guest's memory, which hardware
//! reaches through the page table that they are nested in: [`GuestMemory`].
//!
//! Takes no lock that its parts do not name. Source: [uapi/iommufd.h].

mod guest_memory;
mod iommu;
mod smmuv3;
mod user_data;
mod vtd;

use std::sync::Arc;

use pci::{DmaAccess, DmaFaultReason};
use thiserror::Error;
use uapi::Profile;
use uapi::iommufd::{hw_info_type, viommu_type};
use zerocopy::IntoBytes;

pub(crate) use guest_memory::{GuestMemory, ThroughParent};
pub use iommu::Iommu;
pub(crate) use user_data::UserData;

use crate::dispatch::Exchange;
use crate::invalidate::Entries;
use crate::viommu::Viommu;
use crate::window::Window;
use crate::{Caller, Context, Geometry, Refusal, mock};

/// A kind of hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hardware {
    /// None in particular: it describes nothing and walks no guest's tables.
    #[default]
    Plain,
    /// The mock of the kernel's own tests.
    Mock,
    /// Intel VT-d in scalable mode.
    Vtd,
    /// Arm SMMUv3 of both stages.
    Smmuv3,
}

/// What hardware says of itself.
pub(crate) struct Description {
    /// Of what the bytes are: one of [`hw_info_type`].
    pub(crate) data_type: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A nested page table as its hardware has it: where the guest's tables are, and how they are to be read.
pub(crate) enum GuestTable {
    /// The mock's walks nothing.
    Mock(mock::Cache),
    /// VT-d's first stage.
    Vtd(vtd::FirstStage),
    /// An SMMUv3's stream table entry.
    Smmuv3(smmuv3::StreamEntry),
}

/// Where an address of a device leads in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The guest-physical address.
    pub(crate) address: u64,
    /// Bytes from there that are translated alike, this one included.
    pub(crate) left: u64,
}

/// Why a request of a device goes nowhere by a guest's tables, and what the guest is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    pub(crate) reason: DmaFaultReason,
    event: Option<smmuv3::Event>,
}

impl From<DmaFaultReason> for Stopped {
    fn from(reason: DmaFaultReason) -> Self {
        Self { reason, event: None }
    }
}

/// Why hardware does not do what a client asks of a guest's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HardwareRefusal {
    /// Too little data, or too much (`EINVAL`).
    #[error("{length} bytes of data where there must be {least} to {most}")]
    DataLength {
        /// As asked.
        length: u32,
        /// The fewest that do.
        least: u32,
        /// The most that are known.
        most: u32,
    },
    /// A page table's data of another type (`EINVAL`).
    #[error("data of type {data_type:#x} of a page table")]
    DataType {
        /// As asked.
        data_type: u32,
    },
    /// No entries at all (`EINVAL`).
    #[error("no entries")]
    NoEntries,
    /// A stream table entry that is not a guest's (`EIO`).
    #[error("stream table entry {words:#x?}")]
    StreamEntry {
        /// Its words.
        words: [u64; 2],
    },
    /// A command that is not a guest's (`EIO`).
    #[error("command {words:#x?}")]
    Command {
        /// Its words.
        words: [u64; 2],
    },
    /// Entries of another type of data (`EINVAL`).
    #[error("entries of type {data_type:#x}")]
    EntryType {
        /// As asked.
        data_type: u32,
    },
    /// An entry is too short (`EINVAL`).
    #[error("an entry of {length} bytes")]
    EntryLength {
        /// As asked.
        length: u32,
    },
    /// An entry of no whole pages, or of everything that does not begin at 0 (`EINVAL`).
    #[error("an entry of {pages:#x} pages at {address:#x}")]
    EntryRange {
        /// As asked.
        address: u64,
        /// As asked.
        pages: u64,
    },
    /// A guest's tables of a width that hardware cannot walk (`EINVAL`).
    #[error("tables of {bits} address bits")]
    TableWidth {
        /// As asked.
        bits: u32,
    },
}

impl Hardware {
    /// What it says of itself to a client that wants one type of data, or any (0).
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] (`EOPNOTSUPP`): a type that it has not. What has none says so, whatever is wanted.
    pub(crate) fn describe(self, geometry: &Geometry, wanted: u32) -> Result<Description, Refusal> {
        match self {
            Self::Plain => Ok(Description { data_type: hw_info_type::NONE, bytes: Vec::new() }),
            Self::Mock => mock::describe_hardware(wanted),
            Self::Vtd => vtd::describe(geometry, wanted),
            Self::Smmuv3 => smmuv3::describe(geometry, wanted),
        }
    }

    /// Says whether it has page tables on address spaces for these flags.
    ///
    /// # Errors
    /// The hardware's.
    pub(crate) const fn check_flags(self, flags: u32) -> Result<(), Refusal> {
        match self {
            Self::Plain | Self::Mock | Self::Vtd => Ok(()),
            Self::Smmuv3 => smmuv3::check_flags(flags),
        }
    }

    /// The geometry of a page table on an address space that is asked for with these flags, and without data.
    pub(crate) fn shape(self, geometry: &Geometry, flags: u32) -> Geometry {
        match self {
            Self::Plain | Self::Mock | Self::Smmuv3 => geometry.clone(),
            Self::Vtd => vtd::shape(geometry, flags),
        }
    }

    /// The geometry of a page table on an address space that is asked for with data.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] (`EOPNOTSUPP`): it takes none; else the hardware's.
    pub(crate) fn shape_with(
        self,
        geometry: &Geometry,
        data: &UserData<'_>,
    ) -> Result<Geometry, Refusal> {
        match self {
            Self::Plain | Self::Vtd | Self::Smmuv3 => {
                Err(Refusal::Unsupported { feature: "data of page tables" })
            }
            Self::Mock => mock::shape_of(data, geometry),
        }
    }

    /// Whether its page tables can be nested in a page table.
    pub(crate) const fn nests_in_tables(self) -> bool {
        match self {
            Self::Plain | Self::Smmuv3 => false,
            Self::Mock | Self::Vtd => true,
        }
    }

    /// Whether what page tables are nested in may map memory for reading only. [v7.3 `vtdss.h`]
    pub(crate) const fn nests_in_read_only(self) -> bool {
        match self {
            Self::Plain | Self::Mock | Self::Smmuv3 => true,
            Self::Vtd => false,
        }
    }

    /// Whether its page tables can be nested behind a vIOMMU.
    pub(crate) const fn nests_behind_viommus(self) -> bool {
        match self {
            Self::Plain | Self::Vtd => false,
            Self::Mock | Self::Smmuv3 => true,
        }
    }

    /// Its part of a nested page table, of what the client says about it.
    ///
    /// # Errors
    /// The hardware's about the flags and the data; [`Refusal::Unreachable`] (`EFAULT`).
    pub(crate) fn nest(
        self,
        geometry: &Geometry,
        data: &UserData<'_>,
        flags: u32,
    ) -> Result<GuestTable, Refusal> {
        match self {
            Self::Plain => Err(Refusal::Unsupported { feature: "nested page tables" }),
            Self::Mock => mock::iotlb_of(data).map(GuestTable::Mock),
            Self::Vtd => vtd::nest(geometry, data).map(GuestTable::Vtd),
            Self::Smmuv3 => smmuv3::nest(geometry, data, flags).map(GuestTable::Smmuv3),
        }
    }

    /// Whether it has vIOMMUs of a type, as programs of `profile` know it.
    pub(crate) fn has_viommus(self, profile: Profile, viommu_type: u32) -> bool {
        match self {
            Self::Plain => match viommu_type {
                viommu_type::ARM_SMMUV3 => true,
                viommu_type::ARM_REALM_SMMUV3 => profile != Profile::Linux73,
                _ => false,
            },
            Self::Mock => viommu_type == mock::VIOMMU_TYPE,
            Self::Vtd => false,
            Self::Smmuv3 => viommu_type == viommu_type::ARM_SMMUV3,
        }
    }

    /// The window of a vIOMMU that comes with data. An SMMUv3's takes any, and does not look at it.
    ///
    /// # Errors
    /// [`Refusal::ViommuData`] (`EINVAL`): its vIOMMUs have no data; else the hardware's.
    pub(crate) fn open_window(
        self,
        ctx: &Context,
        caller: &dyn Caller,
        data: &UserData<'_>,
    ) -> Result<Option<Window>, Refusal> {
        match self {
            Self::Plain | Self::Vtd => Err(Refusal::ViommuData { data_len: data.length() }),
            Self::Mock => mock::open_window(ctx, caller, data).map(Some),
            Self::Smmuv3 => Ok(None),
        }
    }

    /// Whether its vIOMMUs have hardware queues of a type.
    pub(crate) const fn has_hw_queues(self, queue_type: u32) -> bool {
        match self {
            Self::Plain | Self::Vtd | Self::Smmuv3 => false,
            Self::Mock => queue_type == mock::HW_QUEUE_TYPE,
        }
    }

    /// Says whether a vIOMMU can have a hardware queue of an index, of which `is_taken` tells those that it has: each
    /// but the first depends on the one below.
    ///
    /// # Errors
    /// The hardware's.
    pub(crate) fn check_hw_queue(
        self,
        index: u32,
        is_taken: impl Fn(u32) -> bool,
    ) -> Result<(), Refusal> {
        match self {
            Self::Plain | Self::Vtd | Self::Smmuv3 => {
                Err(Refusal::Unsupported { feature: "hardware queues" })
            }
            Self::Mock => mock::check_hw_queue(index, is_taken),
        }
    }

    /// Drops what entries name of devices behind a vIOMMU, until one is refused; `done` counts those before it.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] (`EOPNOTSUPP`): its vIOMMUs have nothing to drop; else the hardware's.
    pub(crate) fn invalidate_behind(
        self,
        ctx: &Arc<Context>,
        exchange: &Exchange<'_>,
        viommu: &Viommu,
        entries: &Entries,
        done: &mut u32,
    ) -> Result<(), Refusal> {
        match self {
            Self::Plain | Self::Vtd => {
                Err(Refusal::Unsupported { feature: "invalidation by vIOMMUs" })
            }
            Self::Mock => mock::invalidate_devices(ctx, exchange, viommu, entries, done),
            Self::Smmuv3 => smmuv3::invalidate(ctx, exchange, viommu, entries, done),
        }
    }
}

impl GuestTable {
    /// Drops what entries name, until one is refused; `done` counts those before it.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] (`EOPNOTSUPP`): it is dropped by its vIOMMU; else the hardware's.
    pub(crate) fn invalidate(
        &self,
        exchange: &Exchange<'_>,
        entries: &Entries,
        done: &mut u32,
    ) -> Result<(), Refusal> {
        match self {
            Self::Mock(iotlb) => mock::invalidate_table(exchange, iotlb, entries, done),
            Self::Vtd(_) => vtd::invalidate(exchange, entries, done),
            Self::Smmuv3(_) => Err(Refusal::Unsupported { feature: "invalidation by page tables" }),
        }
    }

    /// Whether a device behind a vIOMMU can go through it only while the guest knows the device by a number.
    pub(crate) fn needs_vdevice(&self) -> bool {
        match self {
            Self::Mock(_) => true,
            Self::Vtd(_) => false,
            Self::Smmuv3(stream) => stream.translates(),
        }
    }

    /// Says whether a device behind an IOMMU of this geometry can go through it.
    ///
    /// # Errors
    /// The hardware's.
    pub(crate) fn check_attach(&self, geometry: &Geometry) -> Result<(), Refusal> {
        match self {
            Self::Mock(_) | Self::Smmuv3(_) => Ok(()),
            Self::Vtd(stage) => stage.check_attach(geometry),
        }
    }

    /// Where an address of a device leads, by the guest's tables.
    ///
    /// # Errors
    /// The guest's tables lead nowhere, or do not allow the access; or the memory that they lie in is not there.
    pub(crate) fn translate(
        &self,
        memory: &dyn GuestMemory,
        address: u64,
        access: DmaAccess,
    ) -> Result<Reached, Stopped> {
        match self {
            Self::Mock(_) => Ok(Reached { address, left: u64::MAX }),
            Self::Vtd(stage) => Ok(stage.walk(memory, address, access)?),
            Self::Smmuv3(stream) => smmuv3::translate(stream, memory, address, access),
        }
    }

    /// What the mock keeps of its translations, if it is the mock's.
    pub(crate) const fn mock_cache(&self) -> Option<&mock::Cache> {
        match self {
            Self::Mock(iotlb) => Some(iotlb),
            Self::Vtd(_) | Self::Smmuv3(_) => None,
        }
    }
}

impl Stopped {
    /// Tells the guest behind a vIOMMU, which knows the device by `virt_id`. Takes OBJECTS, a leaf.
    pub(crate) fn tell(&self, viommu: &Viommu, virt_id: u64) {
        let (Some(event), Ok(stream)) = (self.event, u32::try_from(virt_id)) else { return };
        if let Some(queue) = viommu.queue(smmuv3::EVENT_TYPE) {
            queue.report(event.record(stream).as_bytes());
        }
    }
}
