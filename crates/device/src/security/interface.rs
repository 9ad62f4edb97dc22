//! The line between a device's security manager and the functions whose interfaces it manages.
//!
//! Takes no lock. The manager calls a function with no lock held; the function calls [`Alarm`] with
//! none of its own locks held.

use std::sync::Weak;

use pci::{Reset, Virtualization};
use tdisp::exchange::LockInterface;
use tdisp::{Breach, DeviceRefusal, FunctionReset, REPORT_BYTES_MAX, SessionId, State};

/// A function as its device's security manager sees it.
///
/// The function itself sees what breaks the configuration that LOCK fixed, and stops trusted DMA
/// before the access that broke it returns. It notes what happened as [`Event`]s, which the manager
/// takes and records.
pub trait Interface: Send + Sync {
    /// Its requester ID, with the segment left out.
    fn requester_id(&self) -> u16;

    /// Whether it is a virtual function, whose memory its physical function places.
    fn is_virtual(&self) -> bool;

    /// The state, as the function acts on it.
    fn state(&self) -> State;

    /// Sets who hears of what happens. Replaces who was set before.
    fn attach(&self, alarm: Weak<dyn Alarm>);

    /// Fixes the configuration, writes the report and returns its length in bytes. For a virtual
    /// function, `part` is what its physical function says.
    ///
    /// # Errors
    /// [`DeviceRefusal::Misconfigured`] where memory or bus master enable is clear, the function is
    /// not in D0, or no report can describe it; it is then as it was.
    fn lock(
        &self,
        terms: Terms,
        part: Option<Part>,
        report: &mut [u8; REPORT_BYTES_MAX],
    ) -> Result<usize, DeviceRefusal>;

    /// Lets the locked function do trusted DMA; false where it is locked no more.
    fn start(&self) -> bool;

    /// Unlocks it. Returns when no DMA of it runs and nothing of the guest's is left in it. Does
    /// nothing where it is unlocked.
    fn stop(&self);

    /// Tells it of a breach that it cannot see itself. Returns when none of its DMA runs, if the
    /// breach counts.
    fn breach(&self, breach: Breach);

    /// What happened since the last time, in order.
    fn take_events(&self) -> Vec<Event>;

    /// Where it puts its virtual functions, and how often that has changed; `None` where it can have
    /// none.
    fn virtualization(&self) -> Option<(Virtualization, u64)>;

    /// Takes its data object exchange mailbox away from the client, or gives it back; each taking counts.
    /// Nothing where it has none.
    fn claim_mailbox(&self, claimed: bool);

    /// The registers of its IDE extended capability from the second dword on; empty where it has
    /// none.
    fn ide_registers(&self) -> Vec<u8>;
}

/// What LOCK fixes, and on what terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The session that locked it.
    pub session: SessionId,
    /// What LOCK asked for.
    pub parameters: LockInterface,
    /// What a function-level reset does.
    pub function_reset: FunctionReset,
}

/// One virtual function among those of a physical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where the physical function puts them.
    pub of: Virtualization,
    /// Which one, from 0.
    pub index: u16,
}

/// What happened to an interface on the function's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It went to `ERROR`.
    Breached(Breach),
    /// It went to `CONFIG_UNLOCKED`.
    Unlocked,
}

/// Who hears what happens on a function's side.
pub trait Alarm: Send + Sync {
    /// Something happened to the function. Called with no lock held, before the access that did it
    /// returns.
    fn raised(&self, requester_id: u16, raised: Raised);

    /// Answers a data object that a client sent through the function's mailbox; `None` where it is
    /// not served. Called with no lock held; waits its turn.
    fn object(&self, object: &[u8]) -> Option<Vec<u8>>;
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// There are [`Event`]s to take.
    pub events: bool,
    /// Virtual functions, by requester ID, that were taken away or moved.
    pub virtual_functions: Vec<(u16, Breach)>,
    /// The function was reset.
    pub reset: Option<Reset>,
}

impl Raised {
    /// Whether nothing happened.
    pub fn is_nothing(&self) -> bool {
        !self.events && self.virtual_functions.is_empty() && self.reset.is_none()
    }
}
