//! The demo client: a program made of the crates.io `vfio-ioctls` and `iommufd-ioctls` crates that
//! is assigned a DMA engine and drives it.
//!
//! It knows nothing of Bindery: it would run unchanged on a machine with such a device. [`run`] goes
//! through open, bind, attach, map, MSI-X, BAR mmap, a verified copy, reset, detach and close, and
//! tells each [`Step`] as it is done. Asked for, it goes on as the VMM of a confidential VM: it connects the
//! TSM, binds the device's interface (TDI), locks it, reads its report, runs it, does trusted DMA, and ends
//! it once in every order. Prints nothing. Takes no lock.

mod client;
mod engine;
mod interrupt;
mod memory;
mod step;
mod tdi;

use std::env;
use std::path::PathBuf;

pub use client::{Failure, Settings, run};
pub use step::{Bytes, Step, Timed};

/// The sysfs directory of the device that `BINDERY_BDF` names.
///
/// # Errors
/// [`Failure::NoDeviceNamed`] where the variable is not set.
pub fn device_from_environment() -> Result<PathBuf, Failure> {
    let address = env::var_os("BINDERY_BDF").ok_or(Failure::NoDeviceNamed)?;
    Ok(PathBuf::from("/sys/bus/pci/devices").join(address))
}
