//! A design to start from: copy this file, give it your idea, and add it to [`ALL`](crate::ALL).
//! `docs/port-your-design.md` goes through it step by step.
//!
//! The idea here is what one would try first. Who ends a device removes its vdevice as `IOMMU_DESTROY` would, and waits
//! for whoever is using it. The vdevice points at its device and does not hold it: the device cannot go without
//! taking it along, can it? `template-held` is the same with a vdevice that does hold its device.

use std::sync::Arc;

use sync::Mutex;

use crate::link::Link;
use crate::object::{Afterwards, Body, Object, Removal, Vdevice, follow};
use crate::upstream::device_of;
use crate::{Refused, World};

pub(crate) struct Template {
    /// Whether a vdevice keeps the hold on its device that the command had which made it.
    pub(crate) holds: bool,
}

impl Link for Template {
    /// `iommufd_vdevice_alloc_ioctl()`. The device comes held.
    fn make(&self, world: &World, device: &Arc<Object>) -> Result<usize, Refused> {
        let made = {
            let mut group = device.lock_group();
            if group.vdevice.is_some() {
                Err(Refused::EEXIST)
            } else {
                let state = Vdevice { device: Some(Arc::downgrade(device)), bound: false };
                let vdevice = world.table.reserve(Body::Vdevice(Mutex::new(state)));
                group.vdevice = Some(Arc::downgrade(&vdevice));
                world.table.publish(&vdevice);
                Ok(vdevice.id)
            }
        };
        if made.is_err() || !self.holds {
            world.table.put(device);
        }
        made
    }

    /// `iommufd_vdevice_tsm_op_ioctl()`, BIND. Being bound is the vdevice's own affair.
    fn bind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let mut state = vdevice.lock_vdevice();
        if state.bound {
            return Err(Refused::EBUSY);
        }
        world.tsm.bind()?;
        state.bound = true;
        Ok(())
    }

    /// UNBIND.
    fn unbind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let mut state = vdevice.lock_vdevice();
        if !std::mem::take(&mut state.bound) {
            return Err(Refused::ENXIO);
        }
        world.tsm.unbind();
        Ok(())
    }

    /// `iommufd_vdevice_destroy()`: out of the table, and nobody works with it.
    fn vdevice_end(&self, world: &World, vdevice: &Arc<Object>) {
        if std::mem::take(&mut vdevice.lock_vdevice().bound) {
            world.tsm.unbind();
        }
        let device = device_of(vdevice);
        device.lock_group().vdevice = None;
        if self.holds {
            world.table.put(&device);
        }
    }

    /// `iommufd_device_pre_destroy()`: called where somebody holds the device still.
    fn before_device_end(&self, world: &World, device: &Arc<Object>) {
        remove_vdevice(world, device);
    }

    /// `iommufd_device_destroy()`: nobody holds it.
    fn device_end(&self, world: &World, device: &Arc<Object>) {
        remove_vdevice(world, device);
    }
}

/// Removes the vdevice, if it is there and nobody is removing it already.
fn remove_vdevice(world: &World, device: &Object) {
    let vdevice = device.lock_group().vdevice.as_ref().map(follow);
    let Some(vdevice) = vdevice else { return };
    let Ok(vdevice) = world.table.get(vdevice.id, false) else { return };
    vdevice.add_user();
    world.table.put(&vdevice);
    let removed = world.remove(Removal::Owned(&vdevice, Afterwards::Tombstone));
    assert!(removed.is_ok(), "WARN_ON: the device's vdevice cannot be removed");
}
