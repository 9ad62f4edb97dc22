//! The third version of the fix: the device's end destroys the vdevice itself, under the group's lock, and a
//! `DESTROY` that comes late finds its work done.
//!
//! Series of 2025-06-27. `iommufd_vdevice_abort()` is re-entrant: whoever takes the group's lock first unlinks.
//! The vdevice does not hold its device, so who comes second locks a group that may be gone.

use std::sync::Arc;

use crate::link::Link;
use crate::object::{Object, follow};
use crate::reference_while_bound::make;
use crate::{Refused, World};

pub(crate) struct Abort;

impl Link for Abort {
    fn make(&self, world: &World, device: &Arc<Object>) -> Result<usize, Refused> {
        make(world, device)
    }

    fn bind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let device = vdevice.lock_vdevice().device.clone().ok_or(Refused::ENXIO)?;
        let device = follow(&device);
        let mut group = device.lock_group();
        if group.bound {
            return Err(Refused::EBUSY);
        }
        world.tsm.bind()?;
        group.bound = true;
        Ok(())
    }

    fn unbind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let device = vdevice.lock_vdevice().device.clone().ok_or(Refused::ENXIO)?;
        let device = follow(&device);
        let mut group = device.lock_group();
        if !std::mem::take(&mut group.bound) {
            return Err(Refused::ENXIO);
        }
        world.tsm.unbind();
        Ok(())
    }

    fn vdevice_end(&self, world: &World, vdevice: &Arc<Object>) {
        let Some(device) = vdevice.lock_vdevice().device.clone() else { return };
        unlink(world, &follow(&device));
    }

    fn device_end(&self, world: &World, device: &Arc<Object>) {
        unlink(world, device);
    }
}

/// `iommufd_vdevice_abort()`.
fn unlink(world: &World, device: &Object) {
    let mut group = device.lock_group();
    if let Some(vdevice) = group.vdevice.take() {
        if std::mem::take(&mut group.bound) {
            world.tsm.unbind();
        }
        follow(&vdevice).lock_vdevice().device = None;
    }
}
