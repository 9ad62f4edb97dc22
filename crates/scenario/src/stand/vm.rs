//! The VM's open file: the program has it open, and whoever else uses the VM keeps it.
//!
//! Takes no lock.

use std::sync::Arc;

use sync::{Mutex, Rank};
use tsm::VmId;

/// The VM. Whoever has it keeps it, so there is no use of it after its end to look for.
pub(super) struct Vm;

impl Vm {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl iommufd::Vm for Vm {
    fn id(&self) -> VmId {
        VmId(1)
    }
}

/// The program's descriptor.
pub(super) type Descriptor = Mutex<DescriptorLock, Option<Arc<Vm>>>;

pub(super) enum DescriptorLock {}

impl Rank for DescriptorLock {
    const ORDER: u8 = 143;
    const NAME: &'static str = "Vm";
}
