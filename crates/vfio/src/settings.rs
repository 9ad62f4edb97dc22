//! What is decided about a device before anybody opens it, and what it needs from its surroundings.
//!
//! Takes no lock.

use std::fmt;
use std::sync::Arc;

use iommufd::Signal;
use pci::Address;
use thiserror::Error;
use uapi::Profile;

use crate::Group;

/// How a device behaves where Linux leaves a choice to the platform.
#[derive(Clone)]
pub struct Settings {
    /// Which published shape of the commands the device answers to.
    pub profile: Profile,
    /// In which order the last close takes a bound device apart.
    pub close_order: CloseOrder,
    /// What becomes of a reset that a client asks for while a TDI is bound.
    pub reset_while_bound: ResetWhileBound,
    /// What becomes of a write that would drive a TDI that is locked or runs into its error state.
    pub client_clears_bme: ClientClearsBme,
    /// Whether clients see the mailboxes through which the device's security manager is spoken to.
    pub doe: Doe,
    /// Whether BARs can be lent as dma-bufs.
    pub dma_bufs: DmaBufs,
    /// Where people are told what these policies did.
    pub notices: Option<Arc<dyn PolicyNotices>>,
    /// Present where the function is a VF that the platform made.
    pub virtual_function: Option<VirtualFunction>,
    /// How many MSI or MSI-X vectors the host can give to this device.
    pub vector_limit: u16,
    /// Whether MSI-X vectors can be added while MSI-X is in use.
    pub dynamic_msix: bool,
    /// The group that programs may have the device through. Without it, the device has one of its own.
    pub group: Option<Arc<Group>>,
    /// Watches unmask eventfds. Without it, registering one is answered as an action that does not
    /// exist (`ENOTTY`).
    pub watch: Option<Arc<dyn Watch>>,
}

impl Default for Settings {
    /// Linux 7.3 on a machine with interrupt remapping, but for the order of close and for resets of a device
    /// with a bound TDI.
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            close_order: CloseOrder::default(),
            reset_while_bound: ResetWhileBound::default(),
            client_clears_bme: ClientClearsBme::default(),
            doe: Doe::default(),
            dma_bufs: DmaBufs::default(),
            notices: None,
            virtual_function: None,
            vector_limit: VECTORS_MAX,
            dynamic_msix: true,
            group: None,
            watch: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("profile", &self.profile)
            .field("close_order", &self.close_order)
            .field("reset_while_bound", &self.reset_while_bound)
            .field("client_clears_bme", &self.client_clears_bme)
            .field("doe", &self.doe)
            .field("dma_bufs", &self.dma_bufs)
            .field("notices", &self.notices.is_some())
            .field("virtual_function", &self.virtual_function)
            .field("vector_limit", &self.vector_limit)
            .field("dynamic_msix", &self.dynamic_msix)
            .field("group", &self.group)
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

/// Whether BARs can be lent as dma-bufs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DmaBufs {
    /// By a kernel with `CONFIG_VFIO_PCI_DMABUF`.
    #[default]
    Linux73,
    /// The feature does not exist (`ENOTTY`): a kernel without it.
    Off,
}

/// What becomes of a reset that a client asks for while a TDI of a device that it takes along is bound. A reset is
/// asked for by RESET, by PCI_HOT_RESET, by a function-level reset written to config space, and by the way
/// through D3hot where that resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetWhileBound {
    /// The commands answer `EBUSY`, the writes are ignored.
    #[default]
    Refuse,
    /// The TDI is unbound, then the reset is done.
    Unbind,
    /// The reset is done; the TDI takes it as hardware would. So does Linux 7.3.
    Error,
}

/// What becomes of a client's write to config space that clears bus master or memory enable of a function whose
/// TDI is locked or runs, or puts it into D3hot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientClearsBme {
    /// The function takes it, and its TDI goes to the error state. So does Linux 7.3.
    #[default]
    Error,
    /// What is enabled stays enabled, and the power state stays as it is.
    Refuse,
}

/// Whether clients see DOE capabilities (data object exchange).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doe {
    /// They are left out of the chain, as in Linux 7.3. Their registers can still be accessed there by who
    /// knows where they are.
    #[default]
    Hidden,
    /// They are in the chain, and accesses reach the function.
    Exposed,
}

/// How the client is told that its TDI went to the error state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TdiErrorEvent {
    /// By the ERR interrupt.
    #[default]
    Err,
    /// By the REQ interrupt, which asks it to give the device back.
    Req,
    /// Not at all.
    None,
}

/// Tells people what a policy did between a client and a TDI.
pub trait PolicyNotices: Send + Sync {
    /// A policy made a difference to the function. Called with no lock held.
    fn policy_applied(&self, function: Address, event: PolicyEvent);
}

/// What a policy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PolicyEvent {
    /// A reset did not take place, because the TDI is bound.
    #[error("{0} refused: the TDI is bound")]
    ResetRefused(ResetCause),
    /// The TDI was unbound, so that a reset could take place.
    #[error("TDI unbound before {0}")]
    UnboundForReset(ResetCause),
    /// A reset took place although the TDI was bound.
    #[error("{0} reached a bound TDI")]
    ResetReachedTdi(ResetCause),
    /// Bits of the COMMAND register stayed set that the client's write would have cleared.
    #[error("COMMAND bits {0:#06x} kept: the TDI is locked")]
    CommandKept(u16),
    /// The client's write of a power state, as the control register numbers them, was ignored.
    #[error("power state {0} not entered: the TDI is locked")]
    PowerKept(u16),
}

/// What asked for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResetCause {
    /// `VFIO_DEVICE_RESET`.
    #[error("RESET")]
    Command,
    /// `VFIO_DEVICE_PCI_HOT_RESET`.
    #[error("PCI_HOT_RESET")]
    Hot,
    /// A function-level reset written to config space.
    #[error("function-level reset")]
    Config,
    /// The way into D3hot or out of it, where that resets.
    #[error("reset by D3hot")]
    Power,
    /// The host's own, when a file is bound or closed.
    #[error("the host's own reset")]
    Host,
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
