//! A VFIO group: the devices of one iommu_group, that a program has either through the group's file or each
//! through its own, and never both.
//!
//! What changes who has the group and what its devices translate through takes a *turn*, waited for on a queue,
//! so that no lock is held while a device is bound or taken apart. `state` is `VFIO_GROUP`, held for looks.
//!
//! With VFIO's own container an open device keeps the group's file, and so the container, alive; with an iommufd it
//! does not. Source: [uapi/vfio.h].

use std::fmt;
use std::sync::{Arc, Weak};

use iommufd::Vm;
use sync::{Mutex, Named, WaitQueue, rank};

use crate::bind::OpenContext;
use crate::{Container, Device, Refusal};

/// The devices of an iommu_group, as VFIO hands them out.
pub struct Group {
    number: u32,
    state: Mutex<rank::VfioGroup, State>,
    /// Wakes whoever waits for a turn.
    passed: WaitQueue,
}

#[derive(Default)]
struct State {
    devices: Vec<Weak<Device>>,
    /// Somebody has the turn.
    changing: bool,
    /// Its file is open, or kept by open devices.
    opened: bool,
    /// Its file was closed; the last device that keeps it ends it.
    left: bool,
    /// Devices bound through files of their own.
    bound_alone: u32,
    /// Open devices that keep its file.
    keepers: u32,
    backing: Option<Backing>,
    vm: Option<Arc<dyn Vm>>,
}

/// What a group's devices translate through.
#[derive(Clone)]
pub(crate) enum Backing {
    /// A context's compatibility IOAS.
    Iommufd(Arc<OpenContext>),
    /// VFIO's own type1.
    Container(Arc<Container>),
}

/// The right to change a group. Dropping it passes it on.
pub(crate) struct Change<'a> {
    group: &'a Group,
}

impl Group {
    /// A group without devices: they join as they are made.
    pub fn new(number: u32) -> Arc<Self> {
        let name = || format!("vfio-group{number}");
        let state = Mutex::new(State::default()).named("lock", name);
        Arc::new(Self { number, state, passed: WaitQueue::new().named("passed", name) })
    }

    /// The number of the iommu_group.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Whether a program has the group: its file is open, or a device that keeps it. Takes `VFIO_GROUP`.
    pub fn is_open(&self) -> bool {
        self.state.lock().opened
    }

    /// The context that its devices translate through, if it is one. Takes `VFIO_GROUP`.
    pub fn iommufd(&self) -> Option<Arc<iommufd::Context>> {
        match &self.state.lock().backing {
            Some(Backing::Iommufd(context)) => Some(Arc::clone(context.context())),
            Some(Backing::Container(_)) | None => None,
        }
    }

    pub(crate) fn join(&self, device: Weak<Device>) {
        self.state.lock().devices.push(device);
    }

    /// Its devices, in the order in which they were made.
    pub(crate) fn devices(&self) -> Vec<Arc<Device>> {
        self.state.lock().devices.iter().filter_map(Weak::upgrade).collect()
    }

    /// Notes that its file is open.
    ///
    /// # Errors
    /// [`Refusal::GroupInUse`] – it is open already, or a device of it is bound through a file of its own (`EBUSY`).
    pub(crate) fn open(&self) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if state.bound_alone > 0 || state.opened {
            return Err(Refusal::GroupInUse);
        }
        state.opened = true;
        Ok(())
    }

    /// Keeps its file from being opened: a device of it is being bound through a file of its own.
    ///
    /// # Errors
    /// [`Refusal::GroupInUse`] – its file is open (`EBUSY`).
    pub(crate) fn block(&self) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if state.opened {
            return Err(Refusal::GroupInUse);
        }
        state.bound_alone += 1;
        Ok(())
    }

    /// Ends [`block`](Self::block).
    pub(crate) fn unblock(&self) {
        self.state.lock().bound_alone -= 1;
    }

    /// Whether its devices have something to translate through.
    pub(crate) fn has_backing(&self) -> bool {
        self.state.lock().backing.is_some()
    }

    /// Links it with a VM, for the devices that are opened later, or with none.
    pub(crate) fn link_vm(&self, vm: Option<Arc<dyn Vm>>) {
        let before = std::mem::replace(&mut self.state.lock().vm, vm);
        drop(before);
    }

    /// The VM that it is linked with.
    pub(crate) fn vm(&self) -> Option<Arc<dyn Vm>> {
        self.state.lock().vm.clone()
    }

    /// Waits for the turn.
    pub(crate) fn change(&self) -> Change<'_> {
        let state = self.state.lock();
        let mut state = self.passed.wait_while(state, |state| state.changing);
        state.changing = true;
        Change { group: self }
    }

    /// A device that kept its file is closed.
    pub(crate) fn let_go(self: &Arc<Self>) {
        let change = self.change();
        self.state.lock().keepers -= 1;
        change.end_if_left(self);
    }
}

impl Change<'_> {
    /// What its devices translate through.
    ///
    /// # Errors
    /// [`Refusal::NoContainer`] (`EINVAL`).
    pub(crate) fn backing(&self) -> Result<Backing, Refusal> {
        self.group.state.lock().backing.clone().ok_or(Refusal::NoContainer)
    }

    /// Lets its devices translate through `backing` from now on; it has none.
    pub(crate) fn set_backing(&self, backing: Backing) {
        self.group.state.lock().backing = Some(backing);
    }

    /// A device was opened that keeps its file.
    pub(crate) fn keep(&self) {
        self.group.state.lock().keepers += 1;
    }

    /// Takes away what its devices translate through. Those that are open keep what they have.
    ///
    /// # Errors
    /// - [`Refusal::NoContainer`] (`EINVAL`)
    /// - [`Refusal::ContainerInUse`] – an open device needs it (`EBUSY`).
    pub(crate) fn take_backing(&self, group: &Arc<Group>) -> Result<(), Refusal> {
        let mut state = self.group.state.lock();
        match &state.backing {
            None => return Err(Refusal::NoContainer),
            Some(Backing::Container(_)) if state.keepers > 0 => {
                return Err(Refusal::ContainerInUse);
            }
            Some(_) => {}
        }
        let backing = state.backing.take();
        drop(state);
        detach(backing, group);
        Ok(())
    }

    /// Its file was closed, for good or as far as open devices let it.
    pub(crate) fn leave(self, group: &Arc<Group>) {
        self.group.state.lock().left = true;
        self.end_if_left(group);
    }

    fn end_if_left(self, group: &Arc<Group>) {
        let mut state = self.group.state.lock();
        if !state.left || state.keepers > 0 {
            return;
        }
        let (backing, vm) = (state.backing.take(), state.vm.take());
        drop(state);
        detach(backing, group);
        drop(vm);
        let mut state = self.group.state.lock();
        state.left = false;
        state.opened = false;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.group.state.lock().changing = false;
        self.group.passed.wake_all();
    }
}

fn detach(backing: Option<Backing>, group: &Arc<Group>) {
    if let Some(Backing::Container(container)) = &backing {
        container.detach(group);
    }
    // Of a context the last reference goes here, and with it the context.
    drop(backing);
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("number", &self.number).finish_non_exhaustive()
    }
}
