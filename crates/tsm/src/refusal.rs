//! Why a call is refused, and the one place where a reason becomes an error number.
//!
//! Takes no lock. Sources: `pci_tsm_bind`, `pci_tsm_guest_req` and the sysfs stores of Linux 7.3 for
//! the numbers that it has; what no kernel answers yet is chosen here.

use pci::Address;
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

impl Refusal {
    /// What a program sees.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Absent { .. } => Errno::ENOENT,
            Self::AlreadyConnected { .. }
            | Self::NotUnlocked { .. }
            | Self::OtherGuestId { .. }
            | Self::OtherVm { .. }
            | Self::Quarantined { .. }
            | Self::Device { code: ErrorCode::BUSY, .. } => Errno::EBUSY,
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
            Self::Device { .. } | Self::Key { .. } | Self::NullBind | Self::StateUnknown => {
                Errno::EIO
            }
            Self::MmioOverlap { .. } => Errno::EEXIST,
            Self::NoMailbox { .. }
            | Self::NoSuchTsm { .. }
            | Self::NotBound { .. }
            | Self::NotLink { .. }
            | Self::NothingToDisconnect { .. } => Errno::ENXIO,
            Self::NoObject { .. } => Errno::ENODATA,
            Self::Peer(_) => Errno::EPROTO,
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
            | Self::Field { .. }
            | Self::Key { .. }
            | Self::MmioNotReported { .. }
            | Self::MmioOverlap { .. }
            | Self::NoMailbox { .. }
            | Self::NoObject { .. }
            | Self::NoRoom { .. }
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
            | Self::StateUnknown
            | Self::TimedOut
            | Self::Unreachable
            | Self::WrongState { .. } => 0,
        }
    }
}
