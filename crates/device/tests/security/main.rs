//! A device's security manager as a TSM, a host and a client meet it.

mod breaches;
mod dma;
mod mailbox;
mod random;
mod requests;
mod rig;
mod stress;
mod strictness;
