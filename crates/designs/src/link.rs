//! What a design decides.

use std::sync::Arc;

use crate::object::Object;
use crate::{Refused, World};

/// The link between a device and its vdevice. Called with no lock held.
pub(crate) trait Link: Send + Sync {
    /// VDEVICE_ALLOC for a device that the command holds: makes the vdevice, sets the pointers, publishes.
    /// Whether the hold on the device is kept is the design's.
    fn make(&self, world: &World, device: &Arc<Object>) -> Result<usize, Refused>;

    /// TSM bind of a vdevice that the command holds.
    fn bind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused>;

    /// TSM unbind, likewise.
    fn unbind(&self, world: &World, vdevice: &Arc<Object>) -> Result<(), Refused>;

    /// The vdevice is out of the table and nobody holds it.
    fn vdevice_end(&self, world: &World, vdevice: &Arc<Object>);

    /// The device's end has begun and others hold it: `pre_destroy`.
    fn before_device_end(&self, _world: &World, _device: &Arc<Object>) {}

    /// The device is out of the table.
    fn device_end(&self, _world: &World, _device: &Arc<Object>) {}

    /// The TSM driver goes: `tsm_unregister()`.
    fn unregister(&self, world: &World) {
        world.tsm.unregister();
    }

    /// Whether the device goes back to the host when it ends.
    fn releases(&self) -> bool {
        true
    }
}
