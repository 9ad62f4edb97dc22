//! Virtual functions that go and come back: `sriov_numvfs`.
//!
//! Writing 0 takes them all. First, for all of them, and for whatever a program does: their nodes go, whoever
//! has one open is asked to let go of it (REQ eventfd), and their TDIs are unbound. Then the write waits,
//! one function after another, until programs have closed them, as Linux does, and the rest of their
//! names goes. What goes is kept, and is the same when it comes back.
//!
//! As vfio-pci does with virtual functions of a physical function that it has, it takes those that
//! come back.
//!
//! Locks: `state`, a leaf, held for a look. Writes of one physical function wait for each other with
//! none held.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use pci::regs::sriov;
use pci::{Address, Function};
use uapi::Errno;

use super::driver::VfioPci;
use super::tree::Entry;
use super::tsm::TsmFiles;
use super::writable::number;
use super::{Attribute, Names, group, sysfs};
use crate::machine::Assignable;

/// The virtual functions of a physical one.
pub(super) struct VirtualFunctions {
    names: Weak<Names>,
    driver: Weak<VfioPci>,
    tsm: Arc<TsmFiles>,
    physical: Address,
    hardware: Arc<dyn Function>,
    /// Where its SR-IOV capability is.
    capability: u16,
    /// All that there can be, in order.
    all: Vec<Virtual>,
    state: Mutex<State>,
    /// Told when a change has ended.
    changed: Condvar,
}

/// One virtual function.
struct Virtual {
    address: Address,
    /// Its link from the physical function.
    link: String,
    /// Everything else that sysfs has of it.
    paths: [String; 4],
}

struct State {
    /// How many there are: the first so many.
    enabled: usize,
    /// A write changes that.
    changing: bool,
    /// What stood under the names of those that are gone.
    kept: Vec<(Address, Vec<(String, Entry)>)>,
}

/// What there is around virtual functions.
pub(super) struct Around<'a> {
    pub(super) names: &'a Arc<Names>,
    pub(super) driver: &'a Arc<VfioPci>,
    pub(super) tsm: &'a Arc<TsmFiles>,
    /// Every device of the machine.
    pub(super) devices: &'a [Assignable],
}

impl VirtualFunctions {
    /// Those of `physical`, which is in sysfs at `directory`, with its SR-IOV capability at
    /// `capability`.
    pub(super) fn new(
        physical: &Assignable,
        directory: &str,
        capability: u16,
        around: &Around<'_>,
    ) -> Arc<Self> {
        let above = directory.rsplit_once('/').map_or("", |(above, _)| above);
        let group_of = |address: Address| {
            around.devices.iter().find(|device| device.address == address).map(|vf| vf.group_id)
        };
        let all = physical.virtual_functions.iter().enumerate().map(|(index, &address)| Virtual {
            address,
            link: format!("{directory}/virtfn{index}"),
            paths: [
                format!("{}/{address}", sysfs::PCI_DEVICES),
                group::path(group_of(address).unwrap_or_default()),
                group::iommu_link(address),
                // Both are on one bus, so in one directory.
                format!("{above}/{address}"),
            ],
        });
        let enabled = physical.virtual_functions.len();
        Arc::new(Self {
            names: Arc::downgrade(around.names),
            driver: Arc::downgrade(around.driver),
            tsm: Arc::clone(around.tsm),
            physical: physical.address,
            hardware: Arc::clone(&physical.function),
            capability,
            all: all.collect(),
            state: Mutex::new(State { enabled, changing: false, kept: Vec::new() }),
            changed: Condvar::new(),
        })
    }

    /// How many there are, those on their way out included.
    pub(super) fn show(&self) -> String {
        format!("{}\n", self.state().enabled)
    }

    /// # Errors
    /// As of [`Attribute::write`].
    fn set(&self, wanted: usize) -> Result<(), Errno> {
        let change = self.begin();
        if wanted == change.before {
            return Ok(());
        }
        let driver = self.driver.upgrade().ok_or(Errno::ENOENT)?;
        if !driver.is_bound(self.physical) {
            return Err(Errno::ENOENT);
        }
        match change.before {
            0 => self.bring(&driver, wanted),
            _ if wanted == 0 => self.take(&driver, change.before),
            _ => return Err(Errno::EBUSY),
        }
        self.state().enabled = wanted;
        Ok(())
    }

    /// Waits until no other change is under way.
    fn begin(&self) -> Change<'_> {
        let mut state = self.state();
        while state.changing {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.changing = true;
        Change { of: self, before: state.enabled }
    }

    /// Takes the first `count` away and returns when they are gone.
    fn take(&self, driver: &VfioPci, count: usize) {
        let Some(names) = self.names.upgrade() else { return };
        let going: Vec<&Virtual> = self.all.iter().take(count).collect();
        names.remove(going.iter().map(|function| function.link.clone()));
        for function in &going {
            driver.withdraw(function.address);
        }
        for function in &going {
            self.tsm.leave(function.address);
        }
        for function in &going {
            driver.release(function.address);
            driver.made_by(function.address, None);
            let kept = names.take(function.paths.iter().cloned());
            self.state().kept.push((function.address, kept));
        }
        self.set_registers(0);
    }

    /// Brings the first `count` back.
    fn bring(&self, driver: &VfioPci, count: usize) {
        let Some(names) = self.names.upgrade() else { return };
        self.set_registers(count);
        for function in self.all.iter().take(count) {
            // As it is after power-on: what a client left in it is gone. Nobody has it, so it can be reset.
            let _reset = driver.reset(function.address);
            names.put(self.keepsakes(function.address));
            let address = function.address;
            names.put([(function.link.clone(), sysfs::link(&format!("../{address}")))]);
            self.tsm.arrive(address);
            // vfio-pci has the physical function, so they are its own making.
            driver.made_by(address, Some(self.physical));
            driver.readmit(address);
        }
    }

    /// What was kept of a function.
    fn keepsakes(&self, address: Address) -> Vec<(String, Entry)> {
        let kept = &mut self.state().kept;
        let at = kept.iter().position(|(of, _)| *of == address);
        at.map(|at| kept.swap_remove(at).1).unwrap_or_default()
    }

    /// Tells the physical function how many there are.
    fn set_registers(&self, count: usize) {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        let on = sriov::VF_ENABLE | sriov::VF_MEMORY;
        let control = if count > 0 { on } else { 0 };
        let number = || {
            self.hardware.config_write(self.capability + sriov::NUM_VFS, &count.to_le_bytes());
        };
        // The number cannot be changed while they are enabled.
        if count > 0 {
            number();
        }
        self.hardware.config_write(self.capability + sriov::CONTROL, &control.to_le_bytes());
        if count == 0 {
            number();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change under way. Others begin when it is dropped.
struct Change<'v> {
    of: &'v VirtualFunctions,
    /// How many there were.
    before: usize,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.of.state().changing = false;
        self.of.changed.notify_all();
    }
}

impl Attribute for VirtualFunctions {
    /// # Errors
    /// `EINVAL` for what is no number of 16 bits; `ERANGE` for more than there can be; `ENOENT` where
    /// vfio-pci does not have the physical function; `EBUSY` for another number while there are some.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let wanted = number(bytes).ok().and_then(|wanted| u16::try_from(wanted).ok());
        let wanted = usize::from(wanted.ok_or(Errno::EINVAL)?);
        if wanted > self.all.len() {
            return Err(Errno::ERANGE);
        }
        self.set(wanted)?;
        Ok(bytes.len())
    }
}
