//! What the core and its TSMs hold, for reports and for comparing before with after.
//!
//! Takes no lock; these are values.

use std::fmt;

use pci::Address;
use tdisp::State;

use crate::{ObjectKind, Secured, VmId};

/// The host's view of a function's TDI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Binding {
    /// Not bound.
    #[default]
    Unbound,
    /// A bind is in flight.
    Binding,
    /// Bound.
    Bound {
        /// The TDI's state, as it was last seen.
        state: State,
    },
    /// Bound, and an exchange was given up: the state is not known.
    Unknown,
    /// The unbind was not answered or refused: what the device holds is not known. It is not bound
    /// any more; a disconnect or a reset ends this.
    Quarantined,
}

impl Binding {
    /// Whether a backend bind stands that no unbind has followed yet.
    pub const fn is_bound(self) -> bool {
        matches!(self, Self::Binding | Self::Bound { .. } | Self::Unknown)
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unbound => f.write_str("unbound"),
            Self::Binding => f.write_str("binding"),
            Self::Bound { state } => write!(f, "bound, {state}"),
            Self::Unknown => f.write_str("bound, state unknown"),
            Self::Quarantined => f.write_str("quarantined"),
        }
    }
}

/// One connection to a device's security manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// The function with the security manager.
    pub dsm: Address,
    /// The TSM's number.
    pub tsm: u32,
    /// What the backend calls itself.
    pub backend: String,
    /// IDE keys in use.
    pub keys: usize,
    /// The session with the device, where it has proven who it is.
    pub secured: Option<Secured>,
    /// Calls that wait for the exchange slot.
    pub waiting: usize,
    /// What the exchange that runs is for, and which function.
    pub running: Option<(&'static str, Address)>,
    /// The functions with a context, in order of address.
    pub tdis: Vec<TdiView>,
}

/// One function of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdiView {
    /// The function.
    pub function: Address,
    /// The host's view.
    pub host: Binding,
    /// The TSM's view: the state that the device told it last. `None` where it holds no record, or
    /// does not know.
    pub tsm: Option<State>,
    /// Who has it.
    pub vm: Option<VmId>,
    /// Its number in the guest.
    pub guest_id: Option<u64>,
    /// Private mappings of its memory.
    pub mappings: usize,
    /// Whether the guest had its trusted DMA enabled, where that is a step of its own.
    pub trusted_dma: bool,
    /// The evidence that is held.
    pub objects: Vec<ObjectView>,
}

/// An evidence object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectView {
    /// What it is.
    pub kind: ObjectKind,
    /// Which making of it, from 1.
    pub generation: u64,
    /// Bytes.
    pub length: usize,
    /// Whether it was made with a nonce of the guest's.
    pub has_nonce: bool,
}

/// Calls since the registry was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Backend binds that were done or may have been: each is followed by exactly one unbind.
    pub binds: u64,
    /// Backend unbinds, answered or not.
    pub unbinds: u64,
    /// Backend binds that the backend says it did not do.
    pub binds_refused: u64,
    /// Calls that were given up on demand.
    pub cancelled: u64,
    /// Calls whose exchange passed its deadline.
    pub timed_out: u64,
    /// TDIs that went into quarantine.
    pub quarantined: u64,
}

impl Counters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.binds += other.binds;
        self.unbinds += other.unbinds;
        self.binds_refused += other.binds_refused;
        self.cancelled += other.cancelled;
        self.timed_out += other.timed_out;
        self.quarantined += other.quarantined;
    }
}
