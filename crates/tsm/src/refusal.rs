//! Why a call is refused, and the one place where a reason becomes an error number.
//!
//! Takes no lock. Sources: `pci_tsm_bind`, `pci_tsm_guest_req` and the sysfs stores of Linux 7.3 for
//! the numbers that it has; what no kernel answers yet is chosen here.

use pci::Address;
use spdm::certificate::CertificateFault;
use spdm::crypto::CryptoFault;
use tdisp::{ErrorCode, PeerFault, State};
use thiserror::Error;
use uapi::Errno;

use crate::{Arch, ObjectKind, Op, VmId};

/// A call asked for what cannot be had, or a device did not do it. Carries what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The function has no such attribute (`ENOENT`).
    #[error("{function} has no such attribute")]
    Absent {
        /// The function.
        function: Address,
    },
    /// The function has a TSM context already (`EBUSY`).
    #[error("{function} is connected to tsm{tsm}")]
    AlreadyConnected {
        /// The function.
        function: Address,
        /// The TSM that it is connected to.
        tsm: u32,
    },
    /// What was written names no TSM, or not the one that is connected (`EINVAL`).
    #[error("what was written does not name the TSM")]
    BadName,
    /// The call was given up on demand (`EINTR`).
    #[error("given up on demand")]
    Cancelled,
    /// The device's certificates are not trusted (`EKEYREJECTED`).
    #[error("the device's certificates are refused: {0}")]
    Certificate(Distrust),
    /// No random bytes, or no signature, on this side (`EIO`).
    #[error("cryptography of our own: {0}")]
    Crypto(CryptoFault),
    /// The device's security manager refused (`EBUSY` where it was busy to the end, else `EIO`).
    #[error("the device answers {code} ({data:#x})")]
    Device {
        /// Why.
        code: ErrorCode,
        /// More about it.
        data: u32,
    },
    /// A field of a guest's request makes no sense (`EINVAL`).
    #[error("{op:?} with {value:#x} in {field}")]
    Field {
        /// What was asked.
        op: Op,
        /// Which field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// A key was not taken (`EIO`).
    #[error("the device refuses a key with status {status}")]
    Key {
        /// The status of KP_ACK.
        status: u8,
    },
    /// A measurement is not as it is to be, or missing (`EKEYREJECTED`).
    #[error("measurement {index} is not as expected")]
    Measurement {
        /// Its index.
        index: u8,
    },
    /// The pages are no memory of the interface that its report gives to the guest alone (`EINVAL`).
    #[error("{length:#x} bytes at {at:#x} are in no range of the interface report")]
    MmioNotReported {
        /// Where they begin, as the host addresses them.
        at: u64,
        /// Bytes.
        length: u64,
    },
    /// A private mapping is there already (`EEXIST`).
    #[error("guest memory at {at:#x} is mapped")]
    MmioOverlap {
        /// Where the mapping was to begin, as the guest addresses it.
        at: u64,
    },
    /// The device cannot be reached, or has no mailbox for its security manager (`ENXIO`).
    #[error("{function} has no way to its security manager")]
    NoMailbox {
        /// The function.
        function: Address,
    },
    /// The evidence does not exist: not yet, or not before there is an SPDM session (`ENODATA`).
    #[error("there is no {kind} object")]
    NoObject {
        /// What was asked for.
        kind: ObjectKind,
    },
    /// The answer does not fit where it is wanted (`EINVAL`).
    #[error("an answer of {needed} bytes does not fit into {room}")]
    NoRoom {
        /// Bytes of the answer.
        needed: usize,
        /// Bytes of room.
        room: u32,
    },
    /// An end of the link has no IDE stream left (`EBUSY`).
    #[error("{function} has no IDE stream left")]
    NoStream {
        /// The end.
        function: Address,
    },
    /// No TSM has this number (`ENXIO`).
    #[error("there is no tsm{tsm}")]
    NoSuchTsm {
        /// The number.
        tsm: u32,
    },
    /// The function's TDI is not bound (`ENXIO`).
    #[error("{function} is not bound")]
    NotBound {
        /// The function.
        function: Address,
    },
    /// The function has no TSM context, at a bind (`EINVAL`).
    #[error("{function} is not connected to a TSM")]
    NotConnected {
        /// The function.
        function: Address,
    },
    /// The function has no TSM context, at a disconnect (`ENXIO`).
    #[error("{function} is connected to no TSM")]
    NothingToDisconnect {
        /// The function.
        function: Address,
    },
    /// The TSM does not speak for the host side of a link (`ENXIO`).
    #[error("tsm{tsm} is no link TSM")]
    NotLink {
        /// The TSM.
        tsm: u32,
    },
    /// The device says at bind that the interface is not unlocked (`EBUSY`).
    #[error("the interface is in {state}")]
    NotUnlocked {
        /// What the device says.
        state: State,
    },
    /// The backend said yes and bound nothing (`EIO`).
    #[error("the backend bound nothing")]
    NullBind,
    /// A part of an object was asked for that lies past its end (`EINVAL`).
    #[error("offset {offset} in an object of {length} bytes")]
    PastEnd {
        /// Where the part was to begin.
        offset: u64,
        /// Bytes of the object.
        length: usize,
    },
    /// The operation belongs to another architecture, or the TSM does (`EINVAL`).
    #[error("{op:?} of {arch:?} is not for this TSM")]
    OtherArch {
        /// The architecture of the request.
        arch: Arch,
        /// The operation.
        op: Op,
    },
    /// The TDI is bound under another number in the guest (`EBUSY`).
    #[error("bound as {bound:#x}")]
    OtherGuestId {
        /// The number that it has.
        bound: u64,
    },
    /// The TDI is bound to another VM (`EBUSY`).
    #[error("bound to another VM ({})", bound.0)]
    OtherVm {
        /// The VM that has it.
        bound: VmId,
    },
    /// The device sent what the protocol does not allow (`EPROTO`).
    #[error("the device answers wrongly: {0}")]
    Peer(PeerFault),
    /// The outcome of its last unbind is unknown (`EBUSY`).
    #[error("{function} is quarantined")]
    Quarantined {
        /// The function.
        function: Address,
    },
    /// The guest's request is shorter than its fields (`EINVAL`).
    #[error("{op:?} of {length} bytes, {needed} needed")]
    Short {
        /// What was asked.
        op: Op,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that it has.
        length: usize,
    },
    /// The device sent what SPDM does not allow (`EPROTO`).
    #[error("the device breaks SPDM: {0}")]
    Spdm(spdm::PeerFault),
    /// The device refuses in SPDM (`EBUSY` where it was busy to the end, else `EIO`).
    #[error("the device answers {code} ({data:#x}) in SPDM")]
    SpdmRefused {
        /// Why.
        code: spdm::message::ErrorCode,
        /// More about it.
        data: u8,
    },
    /// A step of SPDM that this side may not take now (`EIO`).
    #[error("SPDM: {0}")]
    SpdmStep(spdm::Refusal),
    /// The TSM does not know in which state the TDI is; asking for it helps, or unlocking (`EIO`).
    #[error("the state of the TDI is unknown")]
    StateUnknown,
    /// The device did not answer in time (`ETIMEDOUT`).
    #[error("the device does not answer")]
    TimedOut,
    /// The client's memory cannot be read (`EFAULT`).
    #[error("the client's memory cannot be reached")]
    Unreachable,
    /// The operation does not fit the state of the TDI (`EINVAL`).
    #[error("not while the TDI is in {state}")]
    WrongState {
        /// The state.
        state: State,
    },
}

/// Why certificates are not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Distrust {
    /// The leaf has a key of another kind.
    #[error("the leaf's key is of another kind")]
    Key,
    /// The leaf names another device.
    #[error("the leaf names another device")]
    Name,
    /// The path from the leaf to the root does not hold: a signature, a date, a usage.
    #[error("the path to the root does not hold")]
    Path,
    /// It is no chain, or not that of its own root.
    #[error("it is no chain")]
    Shape,
    /// The root is none of those that are trusted.
    #[error("its root is not trusted")]
    UnknownRoot,
}

impl From<&CertificateFault> for Distrust {
    fn from(fault: &CertificateFault) -> Self {
        match fault {
            CertificateFault::Key => Self::Key,
            CertificateFault::Name { .. } => Self::Name,
            CertificateFault::Path(_) => Self::Path,
            CertificateFault::RootHash | CertificateFault::Shape { .. } => Self::Shape,
            CertificateFault::UnknownRoot => Self::UnknownRoot,
        }
    }
}

impl From<&spdm::Error> for Refusal {
    fn from(error: &spdm::Error) -> Self {
        match error {
            spdm::Error::Certificate(fault) => Self::Certificate(fault.into()),
            spdm::Error::Crypto(fault) => Self::Crypto(*fault),
            spdm::Error::Peer(fault) => Self::Spdm(*fault),
            spdm::Error::Refused(refusal) => Self::SpdmStep(*refusal),
            spdm::Error::Said { code, data } => Self::SpdmRefused { code: *code, data: *data },
        }
    }
}

impl Refusal {
    /// What a program sees.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Absent { .. } => Errno::ENOENT,
            Self::AlreadyConnected { .. }
            | Self::NotUnlocked { .. }
            | Self::OtherGuestId { .. }
            | Self::OtherVm { .. }
            | Self::NoStream { .. }
            | Self::Quarantined { .. }
            | Self::Device { code: ErrorCode::BUSY, .. }
            | Self::SpdmRefused { code: spdm::message::ErrorCode::BUSY, .. } => Errno::EBUSY,
            Self::BadName
            | Self::Field { .. }
            | Self::MmioNotReported { .. }
            | Self::NoRoom { .. }
            | Self::NotConnected { .. }
            | Self::OtherArch { .. }
            | Self::PastEnd { .. }
            | Self::Short { .. }
            | Self::WrongState { .. } => Errno::EINVAL,
            Self::Cancelled => Errno::EINTR,
            Self::Certificate(_) | Self::Measurement { .. } => Errno::EKEYREJECTED,
            Self::Crypto(_)
            | Self::Device { .. }
            | Self::Key { .. }
            | Self::NullBind
            | Self::SpdmRefused { .. }
            | Self::SpdmStep(_)
            | Self::StateUnknown => Errno::EIO,
            Self::MmioOverlap { .. } => Errno::EEXIST,
            Self::NoMailbox { .. }
            | Self::NoSuchTsm { .. }
            | Self::NotBound { .. }
            | Self::NotLink { .. }
            | Self::NothingToDisconnect { .. } => Errno::ENXIO,
            Self::NoObject { .. } => Errno::ENODATA,
            Self::Peer(_) | Self::Spdm(_) => Errno::EPROTO,
            Self::TimedOut => Errno::ETIMEDOUT,
            Self::Unreachable => Errno::EFAULT,
        }
    }

    /// What a guest request's `tsm_code` tells: the number with which the device refused, else zero.
    pub const fn tsm_code(&self) -> u64 {
        match self {
            Self::Device { code, .. } => code.0 as u64,
            Self::Absent { .. }
            | Self::AlreadyConnected { .. }
            | Self::BadName
            | Self::Cancelled
            | Self::Certificate(_)
            | Self::Crypto(_)
            | Self::Field { .. }
            | Self::Key { .. }
            | Self::Measurement { .. }
            | Self::MmioNotReported { .. }
            | Self::MmioOverlap { .. }
            | Self::NoMailbox { .. }
            | Self::NoObject { .. }
            | Self::NoRoom { .. }
            | Self::NoStream { .. }
            | Self::NoSuchTsm { .. }
            | Self::NotBound { .. }
            | Self::NotConnected { .. }
            | Self::NothingToDisconnect { .. }
            | Self::NotLink { .. }
            | Self::NotUnlocked { .. }
            | Self::NullBind
            | Self::PastEnd { .. }
            | Self::OtherArch { .. }
            | Self::OtherGuestId { .. }
            | Self::OtherVm { .. }
            | Self::Peer(_)
            | Self::Quarantined { .. }
            | Self::Short { .. }
            | Self::Spdm(_)
            | Self::SpdmRefused { .. }
            | Self::SpdmStep(_)
            | Self::StateUnknown
            | Self::TimedOut
            | Self::Unreachable
            | Self::WrongState { .. } => 0,
        }
    }
}
