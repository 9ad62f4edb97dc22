//! Contexts, objects and commands of `/dev/iommu`.
//!
//! The idea: an *IOAS* says which memory a device may reach under which I/O virtual address, an *HWPT*
//! (page table) shows an IOAS to devices, a *device* is a PCI function bound to a context, and its DMA
//! goes through the page table that it is attached to.
//!
//! A *vIOMMU* is a guest's view of an IOMMU, a *vdevice* a device behind it; through a vdevice its TDI, the
//! device as a confidential guest trusts it, is bound to the guest's VM.
//!
//! | type | owns |
//! |---|---|
//! | [`Context`] | one open `/dev/iommu`: its object table, and the reader epoch of its devices' DMA |
//! | [`registry::Registry`] | ids, counts of users, order of teardown |
//! | `Ioas` | an address space: reserved spans, areas, which page tables mirror them |
//! | `Hwpt` | one page table; all page tables of an IOAS translate alike |
//! | [`Device`] | the bond between an [`Endpoint`] and a context; the way of its DMA; the gate of its TDI |
//! | [`Hardware`] | which IOMMU it is: its description, its walk of a guest's tables |
//! | [`Group`] | an iommu_group: who owns its DMA, what it is attached to, which vdevice each device has |
//! | `Viommu` | a page table to nest others in, the VM, the numbers that its guest knows devices by |
//! | `Access` | a software user of an address space: what it pinned, what it copies |
//! | [`Quota`] | how much there is of what commands use up |
//! | `Vdevice` | a device, held for the vdevice's whole life, and its place behind a vIOMMU |
//! | `tsm::Registry` | that a TDI is bound, and in which state: another crate's, called with no lock held |
//!
//! # Locks
//!
//! Indented means taken inside. No two of one rank are held at once.
//! ```text
//! IOAS             an IOAS's list of page tables
//!   GROUP          a group's owner and attachment; the link from each device to its vdevice
//!     ACCESS       what an access is attached to
//!     IOPT_IOVA    an IOAS's areas, reserved spans, alignment, what accesses pinned
//!       PAGES      the IOVA map itself; the page table a device is attached to
//!         OBJECTS  id -> object; the ledger; a vIOMMU's numbers; the gate of a device's TDI
//! ```
//! None is held while memory is pinned or unpinned, while the caller's memory is read or written, while
//! a DMA access copies, while somebody waits for DMA to end, while the TSM core is called and so while a
//! device is waited for, or while a notice is given.
//!
//! # How a bound TDI ends
//!
//! Freeing a vdevice unbinds its TDI, whoever frees it, in the steps that `vdevice.rs` tells. What a client
//! asks for may be refused: `IOMMU_DESTROY` of a vdevice that a command uses is `EBUSY`, and the command goes on. What
//! nobody can refuse, [`Device::begin_end`] and [`Context::cancel_commands`], cancels the command instead.
//! A bound device holds its context open, so `close` of `/dev/iommu` meets no vdevice.
//!
//! # What DMA in flight may still use
//!
//! A DMA access announces itself, reads the device's page table, translates, copies, leaves.
//! Whoever takes a translation away first removes it under the locks, releases them, waits until all
//! accesses that began before have left, and only then lets go of the memory and returns.
//!
//! # Deliberately absent
//!
//! File descriptors and processes (the front end's, behind [`Caller`]), threads, clocks, unsafe code.
//! Every refusal becomes a number in [`Refusal::errno`] and nowhere else.

#![forbid(unsafe_code)]

mod access;
mod address_space;
mod area;
mod attach;
mod caller;
mod change_process;
mod commands;
mod compat;
mod context;
mod counts;
mod device;
mod dirty_tracking;
mod dispatch;
mod dma;
mod dma_buf;
mod endpoint;
mod event_file;
mod fault_queue;
mod flat_map;
mod geometry;
mod group;
mod hardware;
mod host_space;
mod hw_info;
mod hw_queue;
mod hwpt;
mod in_flight;
mod invalidate;
mod ioas;
mod iova_map;
mod mapping;
pub mod mock;
mod nested;
mod object;
mod options;
mod page_set;
mod paged_map;
mod physical;
mod placement;
mod quota;
mod refusal;
pub mod registry;
mod reservations;
mod tdi;
mod tsm_command;
mod vdevice;
mod veventq;
mod viommu;
mod window;
mod written_pages;

pub use access::AccessRefusal;
pub use caller::{
    Caller, FileFault, MemoryGone, PageIdentity, PinAccess, PinFault, Pinned, Signal, Source,
    Unreachable, Vm,
};
pub use context::{Context, ContextSettings, Tvm};
pub use counts::Counts;
pub use device::{Device, HotResetView};
pub use dma_buf::{DmaBuf, DmaBufRefusal, Import};
pub use endpoint::Endpoint;
pub use event_file::{EventFile, Waker};
pub use geometry::{Geometry, Reserved, ReservedKind};
pub use group::{Group, PasidMode, PasidRefusal};
pub use hardware::{Hardware, HardwareRefusal, Iommu};
pub use host_space::{HostMapping, HostSpace};
pub use page_set::PageSet;
pub use quota::{Exhausted, Limits, Quota, Resource};
pub use refusal::Refusal;
pub use tdi::ResetGuard;
/// How a TDI stands, as callers of [`Device::tdi`] see it.
pub use tsm::{Binding, State as TdiState};
pub use window::WINDOWS_BYTES;

/// Bytes of the client's pages.
pub(crate) const PAGE_SIZE: u64 = 4096;
