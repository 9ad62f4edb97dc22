//! The VM's open file: the program has it open, and whoever else uses the VM keeps it.
//!
//! Takes no lock.

use std::sync::Arc;

use sync::{Mutex, Named, Rank};
use tsm::VmId;

use super::open_file::Process;

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

/// The descriptors of it: the program's and its child's.
pub(super) type Descriptors = Mutex<DescriptorLock, Vec<(Process, Arc<Vm>)>>;

/// What the program begins with.
pub(super) fn descriptors(vm: Option<Arc<Vm>>) -> Descriptors {
    let held = vm.map(|vm| (Process::Program, vm)).into_iter().collect();
    Mutex::new(held).named("", || "vm-fd".to_owned())
}

pub(super) enum DescriptorLock {}

impl Rank for DescriptorLock {
    const ORDER: u8 = 143;
    const NAME: &'static str = "Vm";
}
