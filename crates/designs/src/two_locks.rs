//! Design B: two pointers and two locks. `device->vdev` under the group's lock, `vdevice->idev` under the
//! vdevice's own; freeing a vdevice unbinds it, with that lock alone.
//!
//! Mail of 2025-06-04. It does not say in which order the two locks nest when a pointer of the other side has
//! to be cleared; there are three readings.

use std::sync::Arc;

use crate::link::Link;
use crate::object::{Object, Removal, follow};
use crate::reference_while_bound::make;
use crate::{Refused, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TwoLocks {
    /// The vdevice's end takes the group's lock inside its own.
    Nested,
    /// It gives its own back first.
    Dropped,
    /// And the device's end removes the vdevice as `IOMMU_DESTROY` would.
    Remove,
}

impl Link for TwoLocks {
    fn make(&self, world: &World, device: &Arc<Object>) -> Result<usize, Refused> {
        make(world, device)
    }

    fn bind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let mut state = vdevice.lock_vdevice();
        if state.device.is_none() {
            return Err(Refused::ENXIO);
        }
        if state.bound {
            return Err(Refused::EBUSY);
        }
        world.tsm.bind()?;
        state.bound = true;
        Ok(())
    }

    fn unbind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let mut state = vdevice.lock_vdevice();
        if !state.bound {
            return Err(Refused::ENXIO);
        }
        world.tsm.unbind();
        state.bound = false;
        Ok(())
    }

    fn vdevice_end(&self, world: &World, vdevice: &Arc<Object>) {
        let mut state = vdevice.lock_vdevice();
        if std::mem::take(&mut state.bound) {
            world.tsm.unbind();
        }
        match self {
            Self::Nested => {
                if let Some(device) = state.device.take() {
                    follow(&device).lock_group().vdevice = None;
                }
            }
            Self::Dropped | Self::Remove => {
                let device = state.device.clone();
                drop(state);
                if let Some(device) = device {
                    follow(&device).lock_group().vdevice = None;
                }
            }
        }
    }

    fn device_end(&self, world: &World, device: &Arc<Object>) {
        match self {
            Self::Nested | Self::Dropped => {
                let mut group = device.lock_group();
                if let Some(vdevice) = group.vdevice.take() {
                    let vdevice = follow(&vdevice);
                    let mut state = vdevice.lock_vdevice();
                    if std::mem::take(&mut state.bound) {
                        world.tsm.unbind();
                    }
                    state.device = None;
                }
            }
            Self::Remove => {
                let vdevice = device.lock_group().vdevice.as_ref().map(follow);
                if let Some(vdevice) = vdevice {
                    // Refused where a command holds it, and nobody can be told.
                    let _ = world.remove(Removal::Asked(vdevice.id));
                }
            }
        }
    }
}
