//! LOCK_INTERFACE_REQUEST and its response.

use core::fmt;

use crate::{Body, MessageType, PeerFault, Reader, RequestBody, Writer};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;

const RESERVED_BYTES: usize = 1;

/// Asks that the interface keep its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockInterface {
    /// What else is to hold.
    pub flags: LockFlags,
    /// The IDE stream that the interface uses by default.
    pub default_stream: u8,
    /// Bytes that the report adds to each address, modulo 2^64. Whole pages.
    pub mmio_reporting_offset: u64,
    /// Bits cleared from addresses of peer-to-peer requests.
    pub p2p_address_mask: u64,
}

impl<'a> Body<'a> for LockInterface {
    const TYPE: MessageType = MessageType::LOCK_INTERFACE_REQUEST;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        let (flags, default_stream) = (LockFlags(reader.u16()?), reader.u8()?);
        reader.reserved(RESERVED_BYTES)?;
        Ok(Self {
            flags,
            default_stream,
            mmio_reporting_offset: reader.u64()?,
            p2p_address_mask: reader.u64()?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(self.flags.0);
        writer.u8(self.default_stream);
        writer.reserved(RESERVED_BYTES);
        writer.u64(self.mmio_reporting_offset);
        writer.u64(self.p2p_address_mask);
    }
}

impl RequestBody<'_> for LockInterface {
    type Response<'r> = LockInterfaceResponse;
}

/// The interface is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockInterfaceResponse {
    /// What START must show.
    pub nonce: Nonce,
}

impl<'a> Body<'a> for LockInterfaceResponse {
    const TYPE: MessageType = MessageType::LOCK_INTERFACE_RESPONSE;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        Ok(Self { nonce: Nonce(reader.array()?) })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.nonce.0);
    }
}

/// What LOCK asks for besides, as it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockFlags(pub u16);

impl LockFlags {
    /// Firmware is not updated while the interface is locked or runs.
    pub const NO_FW_UPDATE: Self = Self(1 << 0);
    /// The system's cache lines have 128 bytes, not 64.
    pub const CACHE_LINE_128: Self = Self(1 << 1);
    /// The MSI-X table and pending bits are locked too.
    pub const LOCK_MSIX: Self = Self(1 << 2);
    /// Peer-to-peer streams may be bound later.
    pub const BIND_P2P: Self = Self(1 << 3);
    /// Translated requests too go through the root complex.
    pub const ALL_REQUEST_REDIRECT: Self = Self(1 << 4);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The flags of both.
    #[must_use]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// What LOCK gives and START must show. Compared in constant time, and not printed.
#[derive(Clone, Copy, Eq)]
pub struct Nonce(pub [u8; NONCE_BYTES]);

impl PartialEq for Nonce {
    fn eq(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |bits, (a, b)| bits | (a ^ b));
        core::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_differs_in_any_bit() {
        let nonce = Nonce([0x5a; NONCE_BYTES]);
        for bit in 0..NONCE_BYTES * 8 {
            let mut other = nonce;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(nonce, other, "bit {bit}");
        }
        assert_eq!(nonce, Nonce([0x5a; NONCE_BYTES]));
    }
}
