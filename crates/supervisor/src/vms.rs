//! The program's virtual machines: which one a device file belongs to.
//!
//! KVM is told of a device file on a descriptor that does not say whose it is (`kvm-vfio`), so the VM
//! is looked for among the files of the process that tells. One open file, however many descriptors,
//! is that process's VM; where it has several none is taken, for a guess would put a device into the
//! wrong machine (policy `one-vm-a-process`).
//!
//! A VM is its open file. A copy of it is kept for as long as anything holds the [`Vm`], so that the VM
//! outlives its own descriptors as it does in Linux. Where the kernel lets nobody copy or compare
//! files, process and descriptor number stand for it, and nothing is kept.
//!
//! One lock, a leaf: the VMs seen so far. Source: [uapi/kvm.h], kcmp(2), pidfd_getfd(2).

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use host::description::is_same_open_file;
use iommufd::Vm;
use tsm::VmId;

use crate::process::Process;

/// How the kernel calls a VM's file in `/proc/PID/fd`.
const NAME: &[u8] = b"anon_inode:kvm-vm";

/// The VMs that device files were linked with.
#[derive(Debug, Default)]
pub(crate) struct Vms {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Numbers given out.
    count: u64,
    alive: Vec<Weak<VmFile>>,
}

/// A VM's open file.
#[derive(Debug)]
struct VmFile {
    id: VmId,
    sight: Sight,
}

/// What there is to tell a VM by.
#[derive(Debug)]
enum Sight {
    /// Its file.
    Copy(OwnedFd),
    /// A process and its descriptor.
    Number(i32, i32),
}

impl Vm for VmFile {
    fn id(&self) -> VmId {
        self.id
    }
}

impl Vms {
    /// The VM of a process that has exactly one.
    pub(crate) fn of(&self, process: &Process) -> Option<Arc<dyn Vm>> {
        let mut sights: Vec<Sight> = Vec::new();
        for fd in descriptors(process.pid()) {
            let sight = match process.copy_file(fd) {
                Ok(copy) => Sight::Copy(copy),
                Err(_) => Sight::Number(process.pid(), fd),
            };
            if !sights.iter().any(|other| other.is(&sight)) {
                sights.push(sight);
            }
        }
        let only = sights.pop().filter(|_| sights.is_empty())?;
        Some(self.know(only))
    }

    fn know(&self, sight: Sight) -> Arc<dyn Vm> {
        let mut known = self.lock();
        known.alive.retain(|vm| vm.strong_count() > 0);
        let same = known.alive.iter().filter_map(Weak::upgrade).find(|vm| vm.sight.is(&sight));
        if let Some(vm) = same {
            return vm;
        }
        known.count += 1;
        let vm = Arc::new(VmFile { id: VmId(known.count), sight });
        known.alive.push(Arc::downgrade(&vm));
        vm
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sight {
    /// Whether both are of one VM, as far as can be told.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Copy(one), Self::Copy(other)) => {
                is_same_open_file(one.as_fd(), other.as_fd()).unwrap_or(false)
            }
            (Self::Number(pid, fd), Self::Number(other_pid, other_fd)) => {
                (pid, fd) == (other_pid, other_fd)
            }
            (Self::Copy(_), Self::Number(..)) | (Self::Number(..), Self::Copy(_)) => false,
        }
    }
}

/// The descriptors of a process that are VMs, in order.
fn descriptors(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut numbers: Vec<i32> = entries
        .filter(|entry| {
            let link = fs::read_link(entry.path());
            link.is_ok_and(|link| link.as_os_str().as_encoded_bytes() == NAME)
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_of(file: &OwnedFd) -> Sight {
        Sight::Copy(file.try_clone().unwrap())
    }

    fn file() -> OwnedFd {
        fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn one_file_is_one_vm_for_as_long_as_it_is_held() {
        let vms = Vms::default();
        let (one, other) = (file(), file());
        let first = vms.know(copy_of(&one));
        let second = vms.know(copy_of(&one));
        assert_eq!(first.id(), second.id());
        assert_ne!(vms.know(copy_of(&other)).id(), first.id());
        let before = first.id();
        drop((first, second));
        assert_ne!(vms.know(copy_of(&one)).id(), before, "an id never names two");
        assert!(vms.lock().alive.len() <= 2, "what is gone is forgotten");
    }

    #[test]
    fn where_nothing_can_be_copied_a_number_stands_for_it() {
        let vms = Vms::default();
        let vm = vms.know(Sight::Number(7, 3));
        assert_eq!(vms.know(Sight::Number(7, 3)).id(), vm.id());
        assert_ne!(vms.know(Sight::Number(7, 4)).id(), vm.id());
        assert_ne!(vms.know(Sight::Number(8, 3)).id(), vm.id());
    }
}
