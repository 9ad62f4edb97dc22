//! Questions, answers, and what is in them: all as JSON over the socket, some as JSON to people.

use std::fmt;

use serde::{Deserialize, Serialize};
use uapi::Errno;

use crate::ledger::{Ledger, TdiRow};

/// What an instance runs and what it has assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The instance's process.
    pub pid: u32,
    /// The program that it serves, with its arguments.
    pub program: String,
    /// Every function of its platform that is there, by address.
    pub functions: Vec<FunctionRow>,
}

/// One function of a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRow {
    /// `b1d0:01:00.0`.
    pub address: String,
    /// What it is: `dma-engine`.
    pub model: String,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// What it can do, and does, as a TEE device: `-` for nothing, `capable`, `connected`,
    /// `tdi RUN`, `quarantined`.
    pub tee: String,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// Its VFIO device: `vfio0`.
    pub vfio: Option<String>,
    /// Who has it open.
    pub owner: Option<Owner>,
}

/// A process that has a device open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process that opened it.
    pub pid: i32,
    /// Its name, as the kernel keeps it.
    pub program: String,
}

/// What an instance holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// The instance's process.
    pub pid: u32,
    /// The program that it serves, with its arguments.
    pub program: String,
    /// All of it.
    pub ledger: Ledger,
}

/// How an instance's TSMs and TDIs stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TsmStatus {
    /// The instance's process.
    pub pid: u32,
    /// The program that it serves, with its arguments.
    pub program: String,
    /// Its TSMs.
    pub tsms: Vec<String>,
    /// Every function that takes part in TEE-IO, by address.
    pub functions: Vec<TsmRow>,
    /// What was done since the start.
    pub counts: TsmCounts,
}

/// One function that takes part in TEE-IO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TsmRow {
    /// The function with its security manager, where it is connected.
    pub dsm: Option<String>,
    /// The TSM that it is connected to.
    pub connected_to: Option<String>,
    /// IDE keys in use, of the function with the security manager.
    pub keys: Option<usize>,
    /// What its security manager is asked now, and how many calls wait.
    pub exchange: Option<String>,
    /// The three views of its TDI.
    #[serde(flatten)]
    pub tdi: TdiRow,
    /// Faults on demand that can still strike.
    pub faults: Vec<String>,
    /// Where its TDI stands badly: what to do.
    pub advice: Option<String>,
}

/// Calls of backends since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TsmCounts {
    /// Binds that were done or may have been. Each is followed by one unbind.
    pub binds: u64,
    /// Unbinds, answered or not.
    pub unbinds: u64,
    /// Binds that were not done.
    pub binds_refused: u64,
    /// Calls that were given up on demand.
    pub cancelled: u64,
    /// Calls that were not answered in time.
    pub timed_out: u64,
    /// TDIs that went into quarantine.
    pub quarantined: u64,
}

/// Something to do for an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TsmOrder {
    /// As a write to the function's `tsm/connect`.
    Connect {
        /// Which function.
        function: String,
        /// What to write: `tsm0`. `None`: the only TSM there is.
        tsm: Option<String>,
    },
    /// As a write to the function's `tsm/disconnect`.
    Disconnect {
        /// Which function.
        function: String,
        /// What to write: `tsm0`. `None`: the TSM that it is connected to.
        tsm: Option<String>,
    },
    /// Sets a fault on demand of a function.
    Fault {
        /// Which function.
        function: String,
        /// `bind=slow:500`; `none` takes all away.
        fault: String,
    },
}

/// The evidence about a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRow {
    /// What it is: `VCA`, `CERT`, `MEASUREMENT`, `INTERFACE_REPORT`.
    pub kind: String,
    /// Which making of it this is, from 1.
    pub generation: u64,
    /// What it was made over, in hexadecimal, where that was asked for.
    pub nonce: Option<String>,
    /// Its bytes, in hexadecimal.
    pub bytes: String,
}

/// A question to an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(super) enum Question {
    Ls,
    Ledger,
    TsmStatus,
    Tsm { order: TsmOrder },
    Evidence { function: String, nonce: Option<String> },
}

/// What an instance answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Ls(Listing),
    Ledger(Accounts),
    TsmStatus(TsmStatus),
    Evidence(Vec<EvidenceRow>),
    Done,
    Refused(Refused),
    Error(String),
}

/// Why an order was not followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The errno of the kernel's attribute, where it has one for this: `EBUSY`.
    pub errno: Option<String>,
    /// Why.
    pub reason: String,
}

impl Refused {
    pub(super) fn new(errno: Option<Errno>, reason: impl fmt::Display) -> Self {
        Self { errno: errno.map(|errno| errno.to_string()), reason: reason.to_string() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { errno, reason } = self;
        f.write_str(reason)?;
        errno.as_ref().map_or(Ok(()), |errno| write!(f, " ({errno})"))
    }
}
