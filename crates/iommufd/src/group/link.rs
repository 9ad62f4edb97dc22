//! The link between a device and its vdevice: the half that leads from the device.
//!
//! The other half, from the vdevice to its device, never changes. This one is read and written under GROUP,
//! from the moment an id is reserved for the vdevice until its TDI is unbound; with it goes the number that
//! the vIOMMU knows the device by. So both halves agree whenever the lock is free.
//!
//! At most one ends a vdevice that is in the object table: `IOMMU_DESTROY`, which takes the table's own
//! user, or whoever marks the link as leaving here, which adds a user that keeps `IOMMU_DESTROY` off.
//!
//! Takes GROUP and, inside it, OBJECTS. Source: [uapi/iommufd.h]; rules of the order of teardown from v7.3
//! `iommufd_device_remove_vdev()` and `iommufd_vdevice_alloc_ioctl()`.

use std::sync::Arc;

use super::{Bound, Group, State};
use crate::hwpt::Hwpt;
use crate::nested::Nested;
use crate::object::Object;
use crate::registry::{Headed, ReservedId};
use crate::vdevice::Vdevice;
use crate::{Device, Refusal};

/// A vdevice as its device knows it.
pub(super) struct Link {
    vdevice: Arc<Vdevice>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Made, not in the object table yet. Whoever makes it ends it.
    Reserved,
    /// In the object table, unless `IOMMU_DESTROY` has it.
    Published,
    /// Somebody has taken it on himself to end it.
    Leaving,
}

/// What is left of a device's vdevice when the device begins to end.
pub(crate) enum Ending {
    /// It has none.
    Done,
    /// The caller ends it, with the user that was added.
    Ours(Arc<Vdevice>),
    /// Another thread makes it or ends it.
    Others,
}

impl Group {
    /// Gives the device of `vdevice` that vdevice, and the vIOMMU the device's number.
    ///
    /// # Errors
    /// All is as before then. In this order:
    /// - [`Refusal::NoObject`] (`ENOENT`): the device is ending.
    /// - [`Refusal::VdeviceExists`] (`EEXIST`): one that is being ended counts until it is.
    /// - [`Refusal::VirtIdTaken`] (`EEXIST`)
    pub(crate) fn reserve_vdevice(&self, vdevice: &Arc<Vdevice>) -> Result<(), Refusal> {
        let device = vdevice.device();
        let gone = Refusal::NoObject { id: device.id() };
        let mut state = self.state.lock();
        let bound = state.bound_mut(device).filter(|bound| !bound.ending).ok_or(gone)?;
        if let Some(link) = &bound.vdevice {
            let vdevice = link.vdevice.header().id();
            return Err(Refusal::VdeviceExists { device: device.id(), vdevice });
        }
        vdevice.viommu().take_virt_id(vdevice.virt_id(), device)?;
        device.gate().renew();
        bound.vdevice = Some(Link { vdevice: Arc::clone(vdevice), stage: Stage::Reserved });
        Ok(())
    }

    /// Puts a vdevice that was reserved into the object table, under its `id`.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] (`ENOENT`): the device is ending. The id is free again; the rest is left to
    /// the caller to undo.
    pub(crate) fn publish_vdevice(
        &self,
        vdevice: &Arc<Vdevice>,
        id: ReservedId<'_, Object>,
    ) -> Result<(), Refusal> {
        let device = vdevice.device();
        let mut state = self.state.lock();
        let bound = state.bound_mut(device).filter(|bound| !bound.ending);
        let link = bound.and_then(|bound| bound.link_mut(vdevice));
        let link = link.ok_or(Refusal::NoObject { id: device.id() })?;
        link.stage = Stage::Published;
        id.publish(Object::Vdevice(Arc::clone(vdevice)));
        Ok(())
    }

    /// Takes it on the caller to end a published vdevice, with a user added; `false` if somebody else ends
    /// it.
    pub(crate) fn begin_end_vdevice(&self, vdevice: &Arc<Vdevice>) -> bool {
        let mut state = self.state.lock();
        let bound = state.bound_mut(vdevice.device());
        bound.and_then(|bound| bound.link_mut(vdevice)).is_some_and(Link::try_leave)
    }

    /// Lets nothing new be made for `device` from here on, and says who ends its vdevice.
    pub(crate) fn begin_end(&self, device: &Device) -> Ending {
        let mut state = self.state.lock();
        let Some(bound) = state.bound_mut(device) else { return Ending::Done };
        bound.ending = true;
        let Some(link) = &mut bound.vdevice else { return Ending::Done };
        if link.try_leave() { Ending::Ours(Arc::clone(&link.vdevice)) } else { Ending::Others }
    }

    /// Returns when `device` has no vdevice.
    pub(crate) fn wait_without_vdevice(&self, device: &Device) {
        let has_one =
            |state: &State| state.bound(device).is_some_and(|bound| bound.vdevice.is_some());
        drop(self.vacated.wait_while(self.state.lock(), has_one));
    }

    /// Takes the device of `vdevice` that vdevice away, and the vIOMMU the device's number. Another vdevice
    /// can be made then.
    pub(crate) fn unlink_vdevice(&self, vdevice: &Vdevice) {
        let link = {
            let mut state = self.state.lock();
            vdevice.viommu().free_virt_id(vdevice.virt_id());
            let bound = state.bound_mut(vdevice.device());
            bound.and_then(|bound| bound.vdevice.take_if(|link| link.is(vdevice)))
        };
        self.vacated.wake_all();
        drop(link);
    }
}

impl State {
    /// Says whether a device that goes through `hwpt` is behind the vIOMMU that it is of, if it is of one.
    ///
    /// # Errors
    /// [`Refusal::NotBehind`] (`ENOENT`).
    pub(super) fn check_behind(&self, device: &Device, hwpt: &Hwpt) -> Result<(), Refusal> {
        let nested = hwpt.nested().filter(|nested| nested.table().needs_vdevice());
        let Some(viommu) = nested.and_then(Nested::viommu) else { return Ok(()) };
        let link = self.bound(device).and_then(|bound| bound.vdevice.as_ref());
        if link.is_some_and(|link| Arc::ptr_eq(link.vdevice.viommu(), viommu)) {
            return Ok(());
        }
        Err(Refusal::NotBehind { viommu: viommu.header().id() })
    }
}

impl Bound {
    fn link_mut(&mut self, vdevice: &Vdevice) -> Option<&mut Link> {
        self.vdevice.as_mut().filter(|link| link.is(vdevice))
    }
}

impl Link {
    /// Which vdevice it leads to, and how far that has come.
    pub(super) fn identity(&self) -> (u64, u8) {
        (self.vdevice.header().identity(), self.stage as u8)
    }

    fn is(&self, vdevice: &Vdevice) -> bool {
        std::ptr::eq(&*self.vdevice, vdevice)
    }

    fn try_leave(&mut self) -> bool {
        let ours = self.stage == Stage::Published && self.vdevice.header().try_add_user();
        if ours {
            self.stage = Stage::Leaving;
        }
        ours
    }
}
