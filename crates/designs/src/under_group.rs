//! Design G: bind is part of VDEVICE_ALLOC, in the driver's `vdevice_init`, which runs under the group's lock.
//!
//! Reconstructed from summaries of the series of 2026-10. Here the device does not answer for as long as
//! nobody else makes progress; the group's lock is held meanwhile, so attach and detach, which take it, and the
//! device's end wait for the device too.

use std::sync::Arc;

use sync::{Named, Refcount, WaitQueue};

use crate::link::Link;
use crate::object::Object;
use crate::rules::Rules;
use crate::upstream::{Upstream, device_of, take_vdevice_along};
use crate::{Refused, World};

pub(crate) struct UnderGroup;

const D: Upstream = Upstream { rules: Rules::ALL };

impl Link for UnderGroup {
    /// The first vdevice is made in the set-up and is D's: what is asked is what a later one does.
    fn make(&self, world: &World, device: &Arc<Object>) -> Result<usize, Refused> {
        D.make(world, device)
    }

    /// Stands for the bind inside `vdevice_init`.
    fn bind(&self, _: &World, vdevice: &Arc<Object>) -> Result<(), Refused> {
        let device = device_of(vdevice);
        let group = device.lock_group();
        let answer = WaitQueue::new().named("answer", || "tsm".to_owned());
        answer.wait_zero(&Refcount::new(1));
        drop(group);
        Ok(())
    }

    fn unbind(&self, _: &World, _: &Arc<Object>) -> Result<(), Refused> {
        Err(Refused::ENXIO)
    }

    fn vdevice_end(&self, world: &World, vdevice: &Arc<Object>) {
        D.vdevice_end(world, vdevice);
    }

    fn before_device_end(&self, world: &World, device: &Arc<Object>) {
        take_vdevice_along(world, device, Rules::ALL);
    }
}
