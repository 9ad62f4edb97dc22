//! What is decided about a device before anybody opens it, and what it needs from its surroundings.
//!
//! Takes no lock.

use std::fmt;
use std::sync::Arc;

use iommufd::Signal;
use uapi::Profile;

/// How a device behaves where Linux leaves a choice to the platform.
#[derive(Clone)]
pub struct Settings {
    /// Which published shape of the commands the device answers to.
    pub profile: Profile,
    /// In which order the last close takes a bound device apart.
    pub close_order: CloseOrder,
    /// Present where the function is a VF that the platform made.
    pub virtual_function: Option<VirtualFunction>,
    /// How many MSI or MSI-X vectors the host can give to this device.
    pub vector_limit: u16,
    /// Whether MSI-X vectors can be added while MSI-X is in use.
    pub dynamic_msix: bool,
    /// Watches unmask eventfds. Without it, registering one is answered as an action that does not
    /// exist (`ENOTTY`).
    pub watch: Option<Arc<dyn Watch>>,
}

impl Default for Settings {
    /// Linux 7.3 on a machine with interrupt remapping, but for the order of close.
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            close_order: CloseOrder::default(),
            virtual_function: None,
            vector_limit: VECTORS_MAX,
            dynamic_msix: true,
            watch: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("profile", &self.profile)
            .field("close_order", &self.close_order)
            .field("virtual_function", &self.virtual_function)
            .field("vector_limit", &self.vector_limit)
            .field("dynamic_msix", &self.dynamic_msix)
            .field("watch", &self.watch.is_some())
            .finish()
    }
}

/// As many vectors as an MSI-X table can have.
const VECTORS_MAX: u16 = 2048;

/// The order in which a bound device is taken apart at its last close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseOrder {
    /// Unbind what is bound to the device, then disable it, then detach it from its page table.
    #[default]
    UnbindFirst,
    /// Disable the device, then unbind, then detach: what Linux 7.3 does.
    Linux73,
}

/// What the physical function says about its VFs; a VF itself reads as all ones there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualFunction {
    /// The vendor ID.
    pub vendor_id: u16,
    /// The device ID.
    pub device_id: u16,
}

/// Waits for eventfds on behalf of crates that do no IO.
pub trait Watch: Send + Sync {
    /// Takes the count out of `signal` whenever it is not zero, and calls `then` each time, until the
    /// returned value is dropped. A count that is there already counts.
    ///
    /// `then` takes locks of this crate and signals eventfds. The returned value is dropped with no
    /// lock held; its drop may return while a call of `then` is still running.
    ///
    /// # Errors
    /// [`NotWatched`] (`ENOMEM`).
    fn watch(
        &self,
        signal: Arc<dyn Signal>,
        then: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Box<dyn Watching>, NotWatched>;
}

/// An eventfd under watch; dropping this ends the watch.
pub trait Watching: Send + Sync {}

/// The watcher has no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWatched;
