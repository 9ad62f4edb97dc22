//! VFIO device files, as vfio-pci behaves.
//!
//! A [`Device`] is a PCI function that clients can be assigned; a [`DeviceFile`] is one open
//! `/dev/vfio/devices/vfioN`. A file is bound to an iommufd context, which gives the function its way to
//! memory, and then offers the function's regions, interrupts and resets.
//!
//! | file | what a client does there |
//! |---|---|
//! | `file.rs`, `command.rs` | opens, issues commands, closes |
//! | `bind.rs`, `enable.rs` | BIND, ATTACH, DETACH; what becomes of the function |
//! | `group.rs`, `group_file.rs`, `token.rs` | has devices through their group |
//! | `container.rs`, `type1.rs` | maps memory for groups, where that is not an iommufd's |
//! | `info.rs` | asks for regions and interrupts |
//! | `region.rs`, `config.rs` | reads and writes config space and BARs |
//! | `map.rs` | maps BARs |
//! | `set_irqs.rs`, `irq.rs` | asks for interrupts; how they are heard |
//! | `ioeventfd.rs` | has eventfds write to BARs |
//! | `reset.rs`, `hot_reset.rs` | resets the function, the bus |
//! | `tsm.rs`, `tdi.rs` | binds a TDI; what stands between a bound one and all of the above |
//! | `feature.rs` | low power, VF token |
//! | `dma_buf.rs` | lends a BAR to other devices |
//! | `refusal.rs` | every refusal, and its error number |
//!
//! # Locks
//!
//! ```text
//! VFIO_GROUP          who has a group open, and its container: group.rs
//! CONTAINER           a container's groups and mappings: container.rs
//! DEVICE_SET          who holds which device of a bus: set.rs
//! MEMORY              config space, power, who owns the device's turn: device.rs
//!   IRQ               who hears which interrupt: irq.rs
//! ```
//! None is held while the caller's memory or files are touched, an iommufd is asked, a function works, is stopped or
//! is reset, or an eventfd is signalled or let go of. What must not run twice at a time on one device, and waits
//! for it, owns the device's *turn* instead: turn.rs. So have groups and containers turns, taken in that order and
//! before any device's. `MEMORY` and `IRQ` are held while config space of the function
//! is *read*.
//!
//! # Deliberately absent
//!
//! Processes and file descriptors, which the front end has; the vdevice that a TDI is bound through (VFIO ends a
//! device in two steps, unbinds it, and knows no more); migration.
//!
//! Source: [uapi/vfio.h]; the order of checks is that of Linux 7.3.

#![forbid(unsafe_code)]

mod argument;
mod bind;
mod caller;
mod command;
mod config;
mod container;
mod device;
mod dma_buf;
mod enable;
mod facts;
mod feature;
mod file;
mod group;
mod group_file;
mod hardware;
mod hot_reset;
mod in_use;
mod info;
mod ioeventfd;
mod irq;
mod map;
mod refusal;
mod region;
mod reset;
mod set;
mod set_irqs;
mod settings;
mod tdi;
mod token;
mod tsm;
mod turn;
mod type1;

pub use caller::Caller;
pub use container::Container;
pub use device::{BarPages, Device, DeviceState};
pub use file::DeviceFile;
pub use group::Group;
pub use group_file::GroupFile;
pub use map::MapRequest;
pub use refusal::Refusal;
pub use region::{REGION_BASE, REGION_SHIFT};
pub use set::DeviceSet;
pub use settings::{
    ClientClearsBme, CloseOrder, DmaBufs, Doe, NotWatched, PolicyEvent, PolicyNotices, ResetCause,
    ResetWhileBound, Settings, TdiErrorEvent, VirtualFunction, Watch, Watching,
};
