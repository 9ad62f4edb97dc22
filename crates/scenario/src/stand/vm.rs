//! The VM's open file: the program has it open, and whoever else uses the VM keeps it.
//!
//! Takes no lock.

use std::sync::Arc;

use sync::{Life, Mutex, Rank};
use tsm::VmId;

/// The VM.
pub(super) struct Vm(Life);

impl Vm {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Life::new()))
    }
}

impl iommufd::Vm for Vm {
    fn id(&self) -> VmId {
        self.0.check();
        VmId(1)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The program's descriptor.
pub(super) type Descriptor = Mutex<DescriptorLock, Option<Arc<Vm>>>;

pub(super) enum DescriptorLock {}

impl Rank for DescriptorLock {
    const ORDER: u8 = 143;
    const NAME: &'static str = "Vm";
}
