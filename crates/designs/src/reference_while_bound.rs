//! Design A: a bound vdevice has one user more, so that nobody can free it.
//!
//! RFC of 2025-05-29, patches 17, 19 and 20 of 30: the pointer to the vdevice under the group's lock, whether
//! it is bound under a lock of its own. As posted the device's end knows nothing of the vdevice; the second
//! variant has it remove the vdevice, which is what one would try next.

use std::sync::Arc;

use crate::link::Link;
use crate::object::{Body, Object, Removal, Vdevice, follow, lock};
use crate::{Refused, World};

pub(crate) struct ReferenceWhileBound {
    removes: bool,
}

impl ReferenceWhileBound {
    pub(crate) fn posted() -> Self {
        Self { removes: false }
    }

    pub(crate) fn removing() -> Self {
        Self { removes: true }
    }
}

impl Link for ReferenceWhileBound {
    fn make(&self, world: &World, device: &Arc<Object>) -> Result<usize, Refused> {
        make(world, device)
    }

    fn bind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let mut state = vdevice.lock_vdevice();
        if state.bound {
            return Err(Refused::EBUSY);
        }
        world.tsm.bind()?;
        state.bound = true;
        vdevice.add_user();
        Ok(())
    }

    fn unbind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let mut state = vdevice.lock_vdevice();
        if !state.bound {
            return Err(Refused::ENXIO);
        }
        world.tsm.unbind();
        state.bound = false;
        vdevice.drop_user();
        Ok(())
    }

    fn vdevice_end(&self, world: &World, vdevice: &Arc<Object>) {
        let device = {
            let mut state = vdevice.lock_vdevice();
            if std::mem::take(&mut state.bound) {
                world.tsm.unbind();
            }
            state.device.take()
        };
        if let Some(device) = device.filter(|_| self.removes) {
            follow(&device).lock_group().vdevice = None;
        }
    }

    fn device_end(&self, world: &World, device: &Arc<Object>) {
        if !self.removes {
            return;
        }
        let vdevice = device.lock_group().vdevice.as_ref().map(follow);
        if let Some(vdevice) = vdevice {
            // Refused where it is bound, and nobody can be told.
            let _ = world.remove(Removal::Asked(vdevice.id));
        }
    }

    /// As posted nothing looks whether the device is bound when it goes back.
    fn releases(&self) -> bool {
        self.removes
    }
}

/// Makes a vdevice that does not hold its device.
pub(crate) fn make(world: &World, device: &Arc<Object>) -> Result<usize, Refused> {
    let made = {
        let mut group = device.lock_group();
        if group.vdevice.is_some() {
            Err(Refused::EEXIST)
        } else {
            let state = Vdevice { device: Some(Arc::downgrade(device)), bound: false };
            let vdevice = world.table.reserve(Body::Vdevice(lock(state)));
            group.vdevice = Some(Arc::downgrade(&vdevice));
            world.table.publish(&vdevice);
            Ok(vdevice.id)
        }
    };
    world.table.put(device);
    made
}
