//! A device's security manager as a TSM, a host and a client meet it.

#![expect(
    clippy::disallowed_methods,
    reason = "the tests play TSM, host and client, which are threads"
)]

mod breaches;
mod dma;
mod random;
mod requests;
mod rig;
