//! PCI functions as host software sees them.
//!
//! [`Function`] is the line between a function and the host that drives it. [`ConfigSpace`] is config
//! space as a value, laid out by [`ConfigBuilder`] from the blocks of [`capability`] and
//! [`extended`]; [`walk`] finds capabilities in any config space; [`regs`] names the registers.
//!
//! Takes no lock and does no IO. Knows nothing of who assigns a function or to whom.

#![forbid(unsafe_code)]

mod address;
mod block;
mod build;
pub mod capability;
mod config;
pub mod extended;
mod function;
pub mod regs;
mod virtualization;
pub mod walk;

pub use address::{Address, BadAddress};
pub use block::RegisterBlock;
pub use build::{BuildFault, BusNumbers, ConfigBuilder, Identity};
pub use config::{ConfigSpace, MsiState, MsixState, PowerState};
pub use function::{
    Bar, BarKind, Dma, DmaAccess, DmaFault, DmaFaultReason, Function, HostSide, Interrupt,
    Interrupts, Notices, Progress, Reset,
};
pub use virtualization::Virtualization;
