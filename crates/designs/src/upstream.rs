//! Design D, what Linux 7.3 has, with TSM bind on top as the series of 2026-05 adds it; and E, the same with a
//! bind that takes as long as its device does.
//!
//! The vdevice holds its device (`users` and `wait_count`) for its whole life. The device's end marks it
//! *destroying*, takes the vdevice along and leaves a tombstone, then waits until nobody holds it.

use std::sync::Arc;

use sync::{Named, Refcount, WaitQueue};

use crate::link::Link;
use crate::object::{Afterwards, Body, Object, Removal, Vdevice, follow, lock};
use crate::rules::Rules;
use crate::{Refused, World};

pub(crate) struct Upstream {
    pub(crate) rules: Rules,
}

impl Link for Upstream {
    fn make(&self, world: &World, device: &Arc<Object>) -> Result<usize, Refused> {
        let made = {
            let mut group = device.lock_group();
            if group.destroying {
                Err(Refused::ENOENT)
            } else if group.vdevice.is_some() {
                Err(Refused::EEXIST)
            } else {
                let state = Vdevice { device: Some(Arc::downgrade(device)), bound: false };
                let vdevice = world.table.reserve(Body::Vdevice(lock(state)));
                group.vdevice = Some(Arc::downgrade(&vdevice));
                world.table.publish(&vdevice);
                Ok(vdevice.id)
            }
        };
        if made.is_err() {
            world.table.put(device);
        }
        made
    }

    fn bind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let device = device_of(vdevice);
        let mut group = device.lock_group();
        if group.bound {
            return Err(Refused::EBUSY);
        }
        world.tsm.bind()?;
        group.bound = true;
        Ok(())
    }

    fn unbind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let device = device_of(vdevice);
        let mut group = device.lock_group();
        if !std::mem::take(&mut group.bound) {
            return Err(Refused::ENXIO);
        }
        world.tsm.unbind();
        Ok(())
    }

    fn vdevice_end(&self, world: &World, vdevice: &Arc<Object>) {
        let device = device_of(vdevice);
        let mut group = device.lock_group();
        let bound = std::mem::take(&mut group.bound);
        if bound && self.rules.unbind_under_group {
            world.tsm.unbind();
        }
        group.vdevice = None;
        drop(group);
        world.table.put(&device);
        if bound && !self.rules.unbind_under_group {
            world.tsm.unbind();
        }
    }

    /// `iommufd_device_remove_vdev()`.
    fn before_device_end(&self, world: &World, device: &Arc<Object>) {
        take_vdevice_along(world, device, self.rules);
    }
}

/// E: a bind that is at its device, which does not answer, and holds the vdevice meanwhile.
pub(crate) struct SlowBind;

impl Link for SlowBind {
    fn make(&self, world: &World, device: &Arc<Object>) -> Result<usize, Refused> {
        Upstream { rules: Rules::ALL }.make(world, device)
    }

    fn bind(&self, _: &World, _: &Arc<Object>) -> Result<(), Refused> {
        // Nobody wakes this queue: the device is silent, and nothing can be cancelled.
        let answer = WaitQueue::new().named("answer", || "tsm".to_owned());
        answer.wait_zero(&Refcount::new(1));
        Ok(())
    }

    fn unbind(&self, _: &World, _: &Arc<Object>) -> Result<(), Refused> {
        Err(Refused::ENXIO)
    }

    fn vdevice_end(&self, world: &World, vdevice: &Arc<Object>) {
        Upstream { rules: Rules::ALL }.vdevice_end(world, vdevice);
    }

    fn before_device_end(&self, world: &World, device: &Arc<Object>) {
        take_vdevice_along(world, device, Rules::ALL);
    }
}

#[track_caller]
pub(crate) fn device_of(vdevice: &Object) -> Arc<Object> {
    let device = vdevice.lock_vdevice().device.clone();
    follow(&device.expect("the vdevice holds its device"))
}

/// Marks the device as being destroyed and removes its vdevice, unless a `DESTROY` does so already.
pub(crate) fn take_vdevice_along(world: &World, device: &Arc<Object>, rules: Rules) {
    let vdevice = {
        let mut group = device.lock_group();
        group.destroying = rules.destroying;
        let Some(vdevice) = group.vdevice.as_ref().map(follow) else { return };
        let Ok(held) = world.table.get(vdevice.id, false) else { return };
        assert!(Arc::ptr_eq(&held, &vdevice), "WARN_ON: the device has another vdevice");
        vdevice.add_user();
        world.table.put(&vdevice);
        vdevice
    };
    let afterwards = if rules.tombstone { Afterwards::Tombstone } else { Afterwards::Free };
    let removed = world.remove(Removal::Owned(&vdevice, afterwards));
    assert!(removed.is_ok(), "WARN_ON: the device's vdevice cannot be removed");
}
