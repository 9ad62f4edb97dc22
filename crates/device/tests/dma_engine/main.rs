//! The DMA engine as a host and its client meet it.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests play the host, whose workers are threads"
)]

mod client;
mod config;
mod datasheet;
mod interrupts;
mod random;
mod stopping;
mod transfers;
