//! GET_CAPABILITIES and CAPABILITIES: what each side can do, and how long messages may be.

use core::ops::{BitAnd, BitOr};

use super::{Code, Header, Message, Shape};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// What a side is capable of. The same bits in both directions; some mean nothing in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilityFlags(pub u32);

impl CapabilityFlags {
    /// Has certificates: CERT_CAP.
    pub const CERTIFICATE: Self = Self(1 << 1);
    /// Answers CHALLENGE: CHAL_CAP.
    pub const CHALLENGE: Self = Self(1 << 2);
    /// Measures itself and signs: MEAS_CAP = 2.
    pub const MEASUREMENTS_SIGNED: Self = Self(1 << 4);
    /// Measures anew on request: MEAS_FRESH_CAP.
    pub const MEASUREMENTS_FRESH: Self = Self(1 << 5);
    /// Encrypts records: ENCRYPT_CAP.
    pub const ENCRYPT: Self = Self(1 << 6);
    /// Authenticates records: MAC_CAP.
    pub const MAC: Self = Self(1 << 7);
    /// Exchanges keys: KEY_EX_CAP.
    pub const KEY_EXCHANGE: Self = Self(1 << 9);
    /// Begins sessions by keys that both sides had before: PSK_CAP, both bits.
    pub const PRE_SHARED_KEY: Self = Self(0b11 << 10);
    /// Knows HEARTBEAT: HBEAT_CAP.
    pub const HEARTBEAT: Self = Self(1 << 13);
    /// Knows KEY_UPDATE: KEY_UPD_CAP.
    pub const KEY_UPDATE: Self = Self(1 << 14);
    /// FINISH goes in the clear: HANDSHAKE_IN_THE_CLEAR_CAP.
    pub const HANDSHAKE_IN_THE_CLEAR: Self = Self(1 << 15);
    /// Cuts long messages into chunks: CHUNK_CAP.
    pub const CHUNK: Self = Self(1 << 17);
    /// Several keys for one connection: MULTI_KEY_CAP, both bits.
    pub const MULTI_KEY: Self = Self(0b11 << 26);

    /// Whether all of `others` are here.
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

impl BitOr for CapabilityFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for CapabilityFlags {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What GET_CAPABILITIES and CAPABILITIES have in common: all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The time for cryptography is 2 to this power, in microseconds.
    pub timeout_exponent: u8,
    /// What the side is capable of.
    pub flags: CapabilityFlags,
    /// The longest message that it receives in one piece, in bytes.
    pub transfer_bytes_max: u32,
    /// The longest message that it receives in chunks, in bytes.
    pub message_bytes_max: u32,
}

impl Limits {
    /// No side may receive less than so many bytes in one piece.
    pub const TRANSFER_BYTES_MIN: u32 = 42;

    fn write(&self, w: &mut Writer) {
        w.reserved(1);
        w.u8(self.timeout_exponent);
        w.reserved(2);
        w.u32(self.flags.0);
        w.u32(self.transfer_bytes_max);
        w.u32(self.message_bytes_max);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, PeerFault> {
        r.reserved(1)?;
        let timeout_exponent = r.u8()?;
        r.reserved(2)?;
        let limits = Self {
            timeout_exponent,
            flags: CapabilityFlags(r.u32()?),
            transfer_bytes_max: r.u32()?,
            message_bytes_max: r.u32()?,
        };
        if limits.transfer_bytes_max < Self::TRANSFER_BYTES_MIN {
            return Err(r.unknown("DataTransferSize", limits.transfer_bytes_max));
        }
        if limits.message_bytes_max < limits.transfer_bytes_max {
            return Err(r.unknown("MaxSPDMmsgSize", limits.message_bytes_max));
        }
        Ok(limits)
    }
}

/// Tells what the requester can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetCapabilities(pub Limits);

impl Message for GetCapabilities {
    const CODE: Code = Code::GET_CAPABILITIES;
    const NAME: &'static str = "GET_CAPABILITIES";

    fn write(&self, w: &mut Writer, _: &Shape) {
        self.0.write(w);
    }

    fn read(_: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        Limits::read(r).map(Self)
    }
}

/// Tells what the responder can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub Limits);

impl Message for Capabilities {
    const CODE: Code = Code::CAPABILITIES;
    const NAME: &'static str = "CAPABILITIES";

    fn write(&self, w: &mut Writer, _: &Shape) {
        self.0.write(w);
    }

    fn read(_: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        Limits::read(r).map(Self)
    }
}
