//! Data objects: what PCI's data object exchange (DOE) carries frames in.
//!
//! An object is a header of two double words, and a payload that zeros pad to a double word.
//! Discovery, which tells what else a mailbox takes, is answered by [`discover`]. Takes no lock and
//! does no IO. Deliberately absent: the mailbox's registers.
//!
//! Source: PCIe 6.0 section 6.30; objects of real sessions.

use alloc::vec::Vec;

use crate::endpoint::Frame;
use crate::fault::{PeerFault, Refusal};
use crate::wire::{Reader, Writer};

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 8;
/// The vendor of PCI-SIG's protocols.
const VENDOR_PCI_SIG: u16 = 0x0001;
const DWORD_BYTES: usize = 4;
/// The length is so many bits; zero says one more than they can.
const LENGTH_BITS: u32 = 18;
/// What discovery answers where nothing has the index asked for.
const NO_PROTOCOL: u16 = 0xffff;
const OBJECT: &str = "a data object";

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// What else the mailbox takes.
    Discovery = 0,
    /// A message of SPDM in the clear: CMA-SPDM.
    Spdm = 1,
    /// A record of a session: Secured CMA-SPDM.
    Secured = 2,
}

impl Protocol {
    /// All, as discovery lists them.
    pub const ALL: [Self; 3] = [Self::Discovery, Self::Spdm, Self::Secured];
}

/// An object with `payload`.
///
/// # Errors
/// [`Refusal::TooLong`] past a mebibyte.
pub fn write(protocol: Protocol, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let length = HEADER_BYTES + payload.len().next_multiple_of(DWORD_BYTES);
    let dwords = u32::try_from(length / DWORD_BYTES).unwrap_or(u32::MAX);
    if dwords > 1 << LENGTH_BITS {
        let max = (DWORD_BYTES << LENGTH_BITS) - HEADER_BYTES;
        return Err(Refusal::TooLong { length: payload.len(), max });
    }
    let mut w = Writer::with_capacity(length);
    w.u16(VENDOR_PCI_SIG);
    w.u8(protocol as u8);
    w.reserved(1);
    w.u32(dwords & ((1 << LENGTH_BITS) - 1));
    w.bytes(payload);
    w.reserved(length - HEADER_BYTES - payload.len());
    w.finish()
}

/// What an object holds; its padding, which only the payload can tell, included.
///
/// # Errors
/// [`PeerFault::Short`], [`PeerFault::Trailing`] where its length is not as it says,
/// [`PeerFault::UnknownValue`] for another vendor or protocol.
pub fn read(object: &[u8]) -> Result<(Protocol, &[u8]), PeerFault> {
    Reader::all(OBJECT, object, |r| {
        let vendor = r.u16()?;
        let kind = r.u8()?;
        r.reserved(1)?;
        let dwords = r.u32()? & ((1 << LENGTH_BITS) - 1);
        if vendor != VENDOR_PCI_SIG {
            return Err(r.unknown("vendor", vendor));
        }
        let known = Protocol::ALL.into_iter().find(|protocol| *protocol as u8 == kind);
        let protocol = known.ok_or_else(|| r.unknown("type", kind))?;
        let dwords = if dwords == 0 { 1 << LENGTH_BITS } else { dwords };
        let length = usize::try_from(dwords).unwrap_or(usize::MAX).saturating_mul(DWORD_BYTES);
        let payload =
            length.checked_sub(HEADER_BYTES).ok_or_else(|| r.unknown("length", dwords))?;
        Ok((protocol, r.bytes(payload)?))
    })
}

impl Frame {
    /// The frame as an object.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn to_object(&self) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Clear(message) => write(Protocol::Spdm, message),
            Self::Secured(record) => write(Protocol::Secured, record),
        }
    }

    /// The frame in an object.
    ///
    /// # Errors
    /// As [`read`]; [`PeerFault::UnknownValue`] for discovery.
    pub fn from_object(object: &[u8]) -> Result<Self, PeerFault> {
        match read(object)? {
            (Protocol::Spdm, message) => Ok(Self::Clear(message.to_vec())),
            (Protocol::Secured, record) => Ok(Self::Secured(record.to_vec())),
            (kind @ Protocol::Discovery, _) => {
                let value = u64::from(kind as u8);
                Err(PeerFault::UnknownValue { message: OBJECT, field: "type", value })
            }
        }
    }
}

/// The request of discovery for what has this index.
pub fn ask_discovery(index: u8) -> [u8; HEADER_BYTES + DWORD_BYTES] {
    let [low, high] = VENDOR_PCI_SIG.to_le_bytes();
    [low, high, Protocol::Discovery as u8, 0, 3, 0, 0, 0, index, 0, 0, 0]
}

/// The answer to the payload of discovery: the protocol with the index asked for, and the next index.
///
/// # Errors
/// [`PeerFault::Short`], [`PeerFault::Trailing`].
pub fn discover(payload: &[u8]) -> Result<[u8; HEADER_BYTES + DWORD_BYTES], PeerFault> {
    let index = Reader::all("discovery", payload, |r| {
        let index = r.u8()?;
        r.reserved(3)?;
        Ok(index)
    })?;
    let (vendor, kind, next) = match Protocol::ALL.get(usize::from(index)) {
        Some(found) => {
            let next = if *found == Protocol::Secured { 0 } else { index + 1 };
            (VENDOR_PCI_SIG, *found as u8, next)
        }
        None => (NO_PROTOCOL, 0, 0),
    };
    let mut answer = ask_discovery(0);
    let [low, high] = vendor.to_le_bytes();
    answer[HEADER_BYTES..].copy_from_slice(&[low, high, kind, next]);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn real_objects() {
        let get_version = [1, 0, 1, 0, 3, 0, 0, 0, 0x10, 0x84, 0, 0];
        let frame = Frame::Clear(vec![0x10, 0x84, 0, 0]);
        assert_eq!(frame.to_object().as_deref(), Ok(&get_version[..]));
        assert_eq!(Frame::from_object(&get_version), Ok(frame));
        let padded = Frame::Secured(vec![7; 5]).to_object().unwrap();
        assert_eq!(padded, [1, 0, 2, 0, 4, 0, 0, 0, 7, 7, 7, 7, 7, 0, 0, 0]);
    }

    #[test]
    fn lengths_are_as_they_say() {
        let good = write(Protocol::Spdm, &[1; 8]).unwrap();
        assert!(read(&good).is_ok());
        for wrong in [&good[..12], &good[..7], &[&good[..], &[0; 4]].concat()] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        for dwords in [1, 3, 5] {
            let mut wrong = good.clone();
            wrong[4] = dwords;
            assert!(read(&wrong).is_err(), "{dwords}");
        }
        assert!(read(&[1, 0, 3, 0, 2, 0, 0, 0]).is_err(), "no such type");
        assert!(read(&[2, 0, 1, 0, 2, 0, 0, 0]).is_err(), "no such vendor");
        let longest = write(Protocol::Spdm, &vec![1; (1 << 20) - HEADER_BYTES]).unwrap();
        assert_eq!(longest[4..8], [0; 4]);
        assert_eq!(read(&longest).map(|(_, payload)| payload.len()), Ok((1 << 20) - HEADER_BYTES));
        assert!(write(Protocol::Spdm, &vec![1; 1 << 20]).is_err());
    }

    #[test]
    fn discovery_lists_all_and_ends() {
        let ask = |index| discover(&[index, 0, 0, 0]).map(|answer| answer[8..].to_vec());
        assert_eq!(ask(0), Ok(vec![1, 0, 0, 1]));
        assert_eq!(ask(1), Ok(vec![1, 0, 1, 2]));
        assert_eq!(ask(2), Ok(vec![1, 0, 2, 0]));
        assert_eq!(ask(3), Ok(vec![0xff, 0xff, 0, 0]));
        assert!(discover(&[0; 3]).is_err());
        assert!(discover(&[0; 8]).is_err());
    }
}
