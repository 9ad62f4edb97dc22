//! PCI functions as host software sees them.

#![forbid(unsafe_code)]

mod address;
mod function;

pub use address::Address;
pub use function::{
    Bar, BarKind, Dma, DmaAccess, DmaFault, DmaFaultReason, Function, HostSide, Interrupt,
    Interrupts, Notices, Progress, Reset,
};
