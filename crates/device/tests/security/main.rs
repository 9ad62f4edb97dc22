//! A device's security manager as a TSM, a host and a client meet it.

mod breaches;
mod dma;
mod mailbox;
mod random;
mod requests;
mod rig;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests play the host, which has threads and a clock"
)]
mod silence;
mod stress;
mod strictness;
