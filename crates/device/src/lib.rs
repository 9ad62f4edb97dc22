//! Emulated PCI functions.
//!
//! [`dma_engine`] is an endpoint that moves memory; [`root_port`] is the bridge that endpoints sit
//! behind; [`security`] is what makes functions of a device interfaces of TDISP. [`models`] lists what
//! can be asked for by name.
//!
//! A function is a state machine that a worker steps; it starts no thread, reads no clock and does no
//! IO. It reaches memory and raises interrupts through what its host lends it ([`pci::HostSide`]),
//! with none of its own locks held. It does not know to whom it is assigned.

#![forbid(unsafe_code)]

pub mod dma_engine;
pub mod root_port;
pub mod security;

/// A device that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// The options it takes.
    pub keys: &'static [Key],
}

/// An option of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The values it takes, in words.
    pub values: &'static str,
    /// What it sets, and its default.
    pub summary: &'static str,
}

/// Every model, sorted by name.
pub fn models() -> &'static [Model] {
    &[Model {
        name: "dma-engine",
        summary: "copies, fills, reads and writes memory by DMA; MSI-X, MSI, INTx; function reset",
        keys: dma_engine::KEYS,
    }]
}
