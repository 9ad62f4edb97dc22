//! The PCI/TSM core from outside: sysfs as people write it, bind and requests as iommufd calls them,
//! a device that answers with [`tdisp::Dsm`] at once, late, wrongly or never.
//!
//! The device, and the ear for notices, each take a lock that lies outside all others whenever they
//! are called: in debug builds that fails if any lock is held, so each test here also shows that
//! none is held while a device is spoken to or a notice is given.

#![forbid(unsafe_code)]

extern crate bindery_tsm as tsm;

mod bind;
mod cancel;
mod crowd;
mod dialects;
mod faults;
mod orders;
mod points;
mod requests;
mod secure;
mod support;
mod sysfs;
