//! `vfio-pci` as sysfs shows it: which functions it has, and the files to give it one or take one away.
//!
//! Binding puts the device node and its entries there, unbinding takes them away. As in Linux, a write
//! to `unbind` removes the node, asks the program that has the device to let go of it (REQ eventfd,
//! again every ten seconds) and returns when it has.
//!
//! Locks: `changes`, then `state` or that of `Names`. What attributes show takes `state` alone, for
//! they are shown with `Names` locked.

mod candidate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use pci::Address;
use pci::regs::{command, header};
use uapi::Errno;
use vfio::DeviceState;

use super::ids::Id;
use super::sysfs::{self, VFIO_PCI, read_write, write_only};
use super::tree::Entry;
use super::writable::word;
use super::{Attribute, Names, group};

pub(super) use candidate::Candidate;

const NAME: &str = "vfio-pci";
/// How often a program that will not let go of a device is reminded.
const REMIND_EVERY: Duration = Duration::from_secs(10);
/// How soon it is seen that the program has let go.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The driver, and every function that it could have.
pub(super) struct VfioPci {
    names: Weak<Names>,
    functions: BTreeMap<Address, Candidate>,
    /// Held from a change of a bond until the names say the same.
    changes: Mutex<()>,
    state: Mutex<State>,
    /// Told when a function has become unbound.
    unbound: Condvar,
}

/// How a function stands to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bond {
    Unbound,
    Bound,
    /// Being unbound; a program has it open still.
    Leaving,
}

#[derive(Default)]
struct State {
    bound: BTreeSet<Address>,
    leaving: BTreeSet<Address>,
    /// Not there: virtual functions that are disabled, or on their way to that.
    absent: BTreeSet<Address>,
    overrides: BTreeMap<Address, String>,
    /// Enabled through sysfs.
    enabled: BTreeSet<Address>,
    ids: Vec<Id>,
}

impl VfioPci {
    pub(super) fn new(names: &Arc<Names>, candidates: Vec<Candidate>) -> Arc<Self> {
        let functions =
            candidates.into_iter().map(|candidate| (candidate.address, candidate)).collect();
        Arc::new(Self {
            names: Arc::downgrade(names),
            functions,
            changes: Mutex::new(()),
            state: Mutex::new(State::default()),
            unbound: Condvar::new(),
        })
    }

    /// Binds a function as the system did before the program began: by `driver_override`.
    pub(super) fn bind_at_start(&self, address: Address) {
        self.state().overrides.insert(address, NAME.to_owned());
        if let Some(candidate) = self.functions.get(&address) {
            // It is in nobody's hands yet, so this cannot be refused.
            let _bound = self.bind(candidate);
        }
    }

    /// The driver's own attributes.
    pub(super) fn attributes(self: &Arc<Self>) -> Vec<(String, Entry)> {
        let file = |name: &str, store: fn(&VfioPci, &str) -> Result<(), Errno>| {
            let driver = Arc::downgrade(self);
            (format!("{VFIO_PCI}/{name}"), write_only(Arc::new(DriverFile { driver, store })))
        };
        vec![
            file("bind", Self::store_bind),
            file("unbind", Self::store_unbind),
            file("new_id", Self::store_new_id),
            file("remove_id", Self::store_remove_id),
        ]
    }

    /// A function's `driver_override`.
    pub(super) fn override_attribute(self: &Arc<Self>, address: Address) -> Entry {
        let driver = Arc::clone(self);
        let show = move || {
            let state = driver.state();
            format!("{}\n", state.overrides.get(&address).map_or("(null)", String::as_str))
        };
        read_write(show, Arc::new(DriverOverride { driver: Arc::downgrade(self), address }))
    }

    /// How a function stands to the driver.
    pub(super) fn bond(&self, address: Address) -> Bond {
        self.state().bond(address)
    }

    pub(super) fn is_bound(&self, address: Address) -> bool {
        self.bond(address) != Bond::Unbound
    }

    /// Whether the function is enabled, by a program that has it or through sysfs.
    pub(super) fn is_enabled(&self, address: Address) -> bool {
        let held = self.functions.get(&address).is_some_and(|candidate| {
            matches!(
                candidate.vfio.state(),
                DeviceState::Bound { .. } | DeviceState::Attached { .. }
            )
        });
        held || self.state().enabled.contains(&address)
    }

    /// Enables or disables a function without a driver.
    ///
    /// # Errors
    /// `EBUSY` where a driver has it, `EIO` where it is disabled already.
    pub(super) fn enable(&self, address: Address, on: bool) -> Result<(), Errno> {
        let candidate = self.functions.get(&address).ok_or(Errno::ENODEV)?;
        let mut state = self.state();
        if state.bond(address) != Bond::Unbound {
            return Err(Errno::EBUSY);
        }
        let changed =
            if on { state.enabled.insert(address) } else { state.enabled.remove(&address) };
        if !on && !changed {
            return Err(Errno::EIO);
        }
        let function = candidate.function.as_ref();
        let mut bytes = [0; 2];
        function.config_read(header::COMMAND, &mut bytes);
        let others = u16::from_le_bytes(bytes) & !command::MEMORY;
        let value = if on { others | command::MEMORY } else { others };
        function.config_write(header::COMMAND, &value.to_le_bytes());
        Ok(())
    }

    /// Resets a function that no program has open, nor a virtual function of it, and puts its registers back.
    ///
    /// # Errors
    /// `EBUSY` while a program has one open.
    pub(super) fn reset(&self, address: Address) -> Result<(), Errno> {
        let candidate = self.functions.get(&address).ok_or(Errno::ENODEV)?;
        candidate.vfio.reset_unopened().map_err(|refusal| refusal.errno())
    }

    /// # Errors
    /// `ENODEV` for no function of ours, or one that the driver does not match; `EBUSY` for one that
    /// it has.
    fn store_bind(&self, text: &str) -> Result<(), Errno> {
        let candidate = self.named(text).ok_or(Errno::ENODEV)?;
        if !self.state().matches(candidate) {
            return Err(Errno::ENODEV);
        }
        self.bind(candidate)
    }

    /// # Errors
    /// `ENODEV` for no function of ours, or one that the driver does not have.
    fn store_unbind(&self, text: &str) -> Result<(), Errno> {
        let candidate = self.named(text).ok_or(Errno::ENODEV)?;
        self.unbind(candidate)
    }

    /// # Errors
    /// `EINVAL` without vendor and device ID; `EEXIST` for IDs that are known already.
    fn store_new_id(&self, text: &str) -> Result<(), Errno> {
        let id = Id::parse(text).ok_or(Errno::EINVAL)?;
        {
            let mut state = self.state();
            if state.ids.contains(&id) {
                return Err(Errno::EEXIST);
            }
            state.ids.push(id);
        }
        for candidate in self.functions.values() {
            let matches = id.matches(&candidate.identity) && self.state().matches(candidate);
            if matches && !self.is_bound(candidate.address) {
                // Someone else may have bound it just now, which is as good.
                let _bound = self.bind(candidate);
            }
        }
        Ok(())
    }

    /// # Errors
    /// `EINVAL` without vendor and device ID; `ENODEV` for IDs that were never added.
    fn store_remove_id(&self, text: &str) -> Result<(), Errno> {
        let id = Id::parse(text).ok_or(Errno::EINVAL)?;
        let ids = &mut self.state().ids;
        let at = ids.iter().position(|known| known.same_kind(&id)).ok_or(Errno::ENODEV)?;
        ids.remove(at);
        Ok(())
    }

    fn named(&self, text: &str) -> Option<&Candidate> {
        let candidate = self.functions.get(&text.parse().ok()?)?;
        (!self.state().absent.contains(&candidate.address)).then_some(candidate)
    }

    /// Says that `address` is a virtual function that the driver made for `physical`, which it has; or, with `None`, that
    /// it is not.
    pub(super) fn made_by(&self, address: Address, physical: Option<Address>) {
        let physical = physical.and_then(|physical| self.functions.get(&physical));
        if let Some(candidate) = self.functions.get(&address) {
            candidate.vfio.set_physical_function(physical.map(|physical| &physical.vfio));
        }
    }

    /// Begins to take a function away: nobody can open it any more, and whoever has it open is asked to
    /// let go of it. Does not wait.
    pub(super) fn withdraw(&self, address: Address) {
        let Some(candidate) = self.functions.get(&address) else { return };
        let changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let was_bound = {
            let mut state = self.state();
            state.absent.insert(address);
            state.begin_leaving(address)
        };
        candidate.vfio.withdraw();
        if was_bound {
            self.remove(candidate.offered_paths());
            self.remove_group(candidate.group_id);
        }
        drop(changing);
        candidate.vfio.request_release();
    }

    /// Returns when no program has a withdrawn function open, and the driver has let go of it.
    pub(super) fn release(&self, address: Address) {
        let Some(candidate) = self.functions.get(&address) else { return };
        self.wait_until_released(candidate);
        self.finish_leaving(candidate);
    }

    /// A function that was taken away is there again. Its driver is vfio-pci, as of every virtual function
    /// whose physical one vfio-pci has.
    pub(super) fn readmit(&self, address: Address) {
        let Some(candidate) = self.functions.get(&address) else { return };
        {
            let mut state = self.state();
            state.absent.remove(&address);
            state.overrides.insert(address, NAME.to_owned());
        }
        candidate.vfio.readmit();
        // Someone else may have bound it just now, which is as good.
        let _bound = self.bind(candidate);
    }

    fn bind(&self, candidate: &Candidate) -> Result<(), Errno> {
        let address = candidate.address;
        let _changing = loop {
            let changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.state();
            match state.bond(address) {
                Bond::Bound => return Err(Errno::EBUSY),
                Bond::Unbound if state.absent.contains(&address) => return Err(Errno::ENODEV),
                Bond::Unbound => {
                    state.bound.insert(address);
                    break changing;
                }
                Bond::Leaving => {
                    drop(changing);
                    drop(self.unbound.wait(state));
                }
            }
        };
        candidate.vfio.readmit();
        if let Some(names) = self.names.upgrade() {
            names.put(candidate.offered().into_iter().chain(candidate.linked()));
            names.put(group::group_node(candidate.group_id));
        }
        Ok(())
    }

    fn unbind(&self, candidate: &Candidate) -> Result<(), Errno> {
        let changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.state().begin_leaving(candidate.address) {
            return Err(Errno::ENODEV);
        }
        // An open group could give it still.
        candidate.vfio.withdraw();
        self.remove(candidate.offered_paths());
        self.remove_group(candidate.group_id);
        drop(changing);
        self.wait_until_released(candidate);
        self.finish_leaving(candidate);
        Ok(())
    }

    /// The driver lets go of a function that no program has open any more. Harmless for one that it
    /// does not have.
    fn finish_leaving(&self, candidate: &Candidate) {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove(candidate.linked().map(|(path, _)| path));
        self.state().leaving.remove(&candidate.address);
        self.unbound.notify_all();
    }

    /// Returns when no program has the device open; asks for it meanwhile.
    fn wait_until_released(&self, candidate: &Candidate) {
        let mut asked: Option<Instant> = None;
        while candidate.in_use() && self.names.strong_count() > 0 {
            if asked.is_none_or(|asked| asked.elapsed() >= REMIND_EVERY) {
                candidate.vfio.request_release();
                asked = Some(Instant::now());
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes a group's names away, if the driver has no function of it any more. The caller holds `changes`.
    fn remove_group(&self, group_id: u32) {
        let members = self.functions.values().filter(|other| other.group_id == group_id);
        let any = {
            let state = self.state();
            members.into_iter().any(|member| state.bond(member.address) == Bond::Bound)
        };
        if !any {
            self.remove(group::group_node_paths(group_id));
        }
    }

    fn remove(&self, paths: impl IntoIterator<Item = String>) {
        if let Some(names) = self.names.upgrade() {
            names.remove(paths);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bond(&self, address: Address) -> Bond {
        if self.bound.contains(&address) {
            Bond::Bound
        } else if self.leaving.contains(&address) {
            Bond::Leaving
        } else {
            Bond::Unbound
        }
    }

    /// From bound to leaving; `false` for a function that is not bound.
    fn begin_leaving(&mut self, address: Address) -> bool {
        let was_bound = self.bound.remove(&address);
        if was_bound {
            self.leaving.insert(address);
        }
        was_bound
    }

    /// Whether the driver takes the function: by `driver_override` where there is one, else by ID.
    fn matches(&self, candidate: &Candidate) -> bool {
        match self.overrides.get(&candidate.address) {
            Some(driver) => driver == NAME,
            None => self.ids.iter().any(|id| id.matches(&candidate.identity)),
        }
    }
}

/// One of the driver's own files.
struct DriverFile {
    driver: Weak<VfioPci>,
    store: fn(&VfioPci, &str) -> Result<(), Errno>,
}

impl Attribute for DriverFile {
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let driver = self.driver.upgrade().ok_or(Errno::ENODEV)?;
        // What is no text names no device; new_id and remove_id find no number in it.
        (self.store)(&driver, word(bytes).unwrap_or_default())?;
        Ok(bytes.len())
    }
}

/// `driver_override` of a function.
struct DriverOverride {
    driver: Weak<VfioPci>,
    address: Address,
}

impl Attribute for DriverOverride {
    /// # Errors
    /// `EINVAL` for what is no text, or longer than an attribute can be.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if bytes.len() as u64 >= sysfs::ATTRIBUTE_BYTES - 1 {
            return Err(Errno::EINVAL);
        }
        let name = word(bytes)?.split('\n').next().unwrap_or_default();
        let driver = self.driver.upgrade().ok_or(Errno::ENODEV)?;
        let mut state = driver.state();
        if name.is_empty() {
            state.overrides.remove(&self.address);
        } else {
            state.overrides.insert(self.address, name.to_owned());
        }
        Ok(bytes.len())
    }
}
