//! What people are told.

use std::fmt;

use pci::Address;
use tdisp::State;

use crate::{Refusal, VmId};

/// Who is told. Called with no lock held.
pub trait Notices: Send + Sync {
    /// Something happened to a function.
    fn tsm(&self, function: Address, notice: &Notice);
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The function is connected to a TSM.
    Connected {
        /// The TSM.
        tsm: u32,
    },
    /// It could not be connected.
    ConnectFailed {
        /// Why.
        refusal: Refusal,
    },
    /// The device has proven who it is, and there is a session with it.
    Secured {
        /// Its numbers in SPDM, the requester's in the low half.
        session: u32,
    },
    /// A session that was lost was made anew: what was locked in it is not any more.
    SessionRenewed {
        /// The new one's numbers.
        session: u32,
    },
    /// The session is over, for nobody answers in it as it should.
    SessionLost {
        /// Why.
        refusal: Refusal,
    },
    /// The function is connected no longer.
    Disconnected {
        /// The TSM.
        tsm: u32,
    },
    /// The TDI is bound.
    Bound {
        /// To whom.
        vm: VmId,
        /// Its number in the guest.
        guest_id: u64,
    },
    /// A bind failed.
    BindFailed {
        /// Why.
        refusal: Refusal,
        /// Whether the backend may have done it all the same.
        unknown: bool,
    },
    /// The TDI is unbound.
    Unbound,
    /// LOCK was done.
    Locked,
    /// START was done.
    Runs,
    /// The TDI's state changed, as far as the TSM has heard.
    StateChanged {
        /// The state before; `None` where it was unknown.
        from: Option<State>,
        /// The state now; `None` where it is unknown.
        to: Option<State>,
    },
    /// A call was given up on demand.
    Cancelled {
        /// What it was for.
        operation: &'static str,
    },
    /// The device did not answer in time.
    TimedOut {
        /// What the exchange was for.
        operation: &'static str,
    },
    /// A guest's request was refused.
    RequestRefused {
        /// Why.
        refusal: Refusal,
    },
    /// Private mappings were taken away before the TDI is stopped.
    MappingsDropped {
        /// How many.
        count: usize,
    },
    /// What the device holds of the TDI is not known.
    Quarantined {
        /// Why.
        refusal: Refusal,
    },
    /// It is known again.
    QuarantineEnded,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { tsm } => write!(f, "connected to tsm{tsm}"),
            Self::ConnectFailed { refusal } => write!(f, "not connected: {refusal}"),
            Self::Secured { session } => {
                write!(f, "certificates and measurements accepted, SPDM session {session:#010x}")
            }
            Self::SessionRenewed { session } => {
                write!(
                    f,
                    "SPDM session made anew, {session:#010x}; what was locked in the one before is in ERROR"
                )
            }
            Self::SessionLost { refusal } => write!(f, "SPDM session lost: {refusal}"),
            Self::Disconnected { tsm } => write!(f, "disconnected from tsm{tsm}"),
            Self::Bound { vm, guest_id } => {
                write!(f, "bound to {vm} as {guest_id:#x}")
            }
            Self::BindFailed { refusal, unknown: false } => write!(f, "not bound: {refusal}"),
            Self::BindFailed { refusal, unknown: true } => {
                write!(f, "bind has no known outcome: {refusal}")
            }
            Self::Unbound => f.write_str("unbound"),
            Self::Locked => f.write_str("LOCK"),
            Self::Runs => f.write_str("RUN"),
            Self::StateChanged { from, to } => {
                write!(f, "{} -> {}", name(*from), name(*to))
            }
            Self::Cancelled { operation } => write!(f, "{operation} given up on demand"),
            Self::TimedOut { operation } => write!(f, "{operation} not answered in time"),
            Self::RequestRefused { refusal } => write!(f, "guest request refused: {refusal}"),
            Self::MappingsDropped { count } => write!(f, "{count} private mappings dropped"),
            Self::Quarantined { refusal } => write!(f, "quarantined: {refusal}"),
            Self::QuarantineEnded => f.write_str("quarantine ended"),
        }
    }
}

fn name(state: Option<State>) -> &'static str {
    state.map_or("unknown", State::name)
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untold;

impl Notices for Untold {
    fn tsm(&self, _: Address, _: &Notice) {}
}
