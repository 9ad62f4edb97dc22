//! The first byte of a payload says whether TDISP or IDE_KM follows.
//!
//! Both travel as the payload of SPDM's VENDOR_DEFINED messages. Source: [pci_tdisp.h],
//! [pci_idekm.h].

use crate::{EncodeFault, PeerFault, Reader};

/// The registry of VENDOR_DEFINED messages: PCI-SIG.
pub const STANDARD_ID: u16 = 3;
/// The vendor of VENDOR_DEFINED messages: PCI-SIG itself.
pub const VENDOR_ID: u16 = 0x0001;

/// What follows the first byte, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolId(pub u8);

impl ProtocolId {
    /// Keys of IDE streams: [`crate::ide_km`].
    pub const IDE_KM: Self = Self(0);
    /// Interfaces: [`crate::Request`] and [`crate::Response`].
    pub const TDISP: Self = Self(1);
}

/// Takes a payload apart.
///
/// # Errors
/// [`PeerFault::Short`] where it is empty.
pub fn split(payload: &[u8]) -> Result<(ProtocolId, &[u8]), PeerFault> {
    Reader::all("PCI-SIG payload", payload, |reader| Ok((ProtocolId(reader.u8()?), reader.rest())))
}

/// Puts a payload together: the protocol and what `write` puts behind it. Returns its length in
/// bytes.
///
/// # Errors
/// What `write` refuses, and [`EncodeFault::NoRoom`] where `into` is empty.
pub fn join(
    protocol: ProtocolId,
    into: &mut [u8],
    write: impl FnOnce(&mut [u8]) -> Result<usize, EncodeFault>,
) -> Result<usize, EncodeFault> {
    let Some((first, rest)) = into.split_first_mut() else {
        return Err(EncodeFault::NoRoom { needed: 1, room: 0 });
    };
    *first = protocol.0;
    Ok(write(rest)? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_is_split() {
        let mut payload = [0; 4];
        let length = join(ProtocolId::TDISP, &mut payload, |rest| {
            rest[..2].copy_from_slice(&[7, 8]);
            Ok(2)
        });
        assert_eq!(length, Ok(3));
        assert_eq!(split(&payload[..3]), Ok((ProtocolId::TDISP, &[7, 8][..])));
        assert!(split(&[]).is_err());
        assert!(join(ProtocolId::TDISP, &mut [], |_| Ok(0)).is_err());
    }
}
