//! Emulated PCI functions.

#![forbid(unsafe_code)]

pub mod dma_engine;
