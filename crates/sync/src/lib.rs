//! The only shared-state primitives of the core crates.
//!
//! `iommufd`, `vfio`, `tsm`, `pci` and `device` share state through the types here and no others, so
//! that one place knows every step at which threads can meet. Each primitive first asks a
//! thread-local [`hook`], which an explorer of interleavings installs; without one that is a single
//! predictable branch. The set is closed and small, and each operation means one thing:
//!
//! - [`Mutex`]: data inside its lock, with a [`rank`] that fixes the order of locking.
//! - [`Refcount`]: a count in the kernel's words; [`WaitQueue`]: sleeping until a condition changed.
//! - [`Life`]: an object's logical lifetime, so that use after its end is found.
//! - [`Epoch`]: readers that never block, and a writer that outwaits them.
//! - [`Timers`] and [`Deadline`]: time as an event somebody fires.
//!
//! [`Contents`] lets the data behind a lock say what it contains, for an explorer that compares states;
//! [`Named`] says what a primitive is called in its timelines.
//!
//! # Lock order
//!
//! An indented lock is taken inside the one above it; one chain may be entered from a line further
//! out. Debug builds assert it on every [`Mutex::lock`].
//!
//! ```text
//! VfioGroup                  vfio: who has a group open, and its container
//! Container                  vfio: a container's groups and mappings, unless somebody has the turn
//! DeviceSet                  vfio: the functions that reset together; inside the two above
//!   Memory                   vfio: is memory decoding on, are the BARs mapped
//!     Irq                    vfio: who hears which interrupt
//!       IoasCreation         iommufd: the list of address spaces
//!         Ioas               one address space's list of page tables
//!           Group            one IOMMU group's attachments
//!             EventQ         one event queue
//!               Access       one in-kernel user of an address space
//!                 IoptDomains    which page tables mirror the map
//!                   IoptIova     areas, reserved, allowed
//!                     Pages      one pinned range
//! TsmRegistry                tsm: function to connection; under no vfio or iommufd lock
//!   Dsm                      tsm: who owns a device's exchange slot
//!     TsmCare                tsm: when which connection is tended
//!     TsmFaults              tsm: the faults on demand of one function
//! DeviceSecurity             a device's security manager: who has the turn; inside any of the above
//! Function                   a device model's registers; inside any of the above
//!   Objects                  id to object: a leaf, nothing is taken inside it
//!     Grace                  inside `Epoch`: who is waiting for readers
//! ```
//!
//! No lock of any kind is held while a device is waited for.
//!
//! # Deliberately absent
//!
//! No reader-writer lock, no `try_lock`, no clock, no raw atomics. Unlocking is never a scheduling
//! point, which is sound only as long as nobody can see that a lock is taken without waiting for
//! it: hence no `try_lock`. Every atomic operation inside is sequentially consistent, so that an
//! exploration of interleavings speaks about what runs.

#![forbid(unsafe_code)]

mod contents;
mod count;
mod deadline;
mod epoch;
pub mod hook;
mod life;
mod mutex;
mod named;
pub mod rank;
mod wait;

pub use contents::Contents;
pub use count::Refcount;
pub use deadline::{Armed, Deadline, Timers};
pub use epoch::{Epoch, EpochGuard};
pub use life::Life;
pub use mutex::{Guard, Mutex};
pub use named::Named;
pub use rank::Rank;
pub use wait::WaitQueue;
