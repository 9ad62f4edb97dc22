//! Opaque data of the key exchange: which version of secured messages is spoken.
//!
//! The general format only (OpaqueDataFmt1): elements with an owner each. The one that says the
//! version is the registry's own; all others are passed over.
//!
//! Source: \[DSP0277\]; real sessions.

use alloc::vec::Vec;

use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// Secured messages 1.1: major version in bits 15:12, minor in 11:8.
pub const SECURED_MESSAGE_1_1: u16 = 0x1100;

/// The owner of the element: the registry of DMTF.
const OWNER_DMTF: u8 = 0;
/// The version of the element's contents.
const CONTENTS_VERSION: u8 = 1;
/// The contents say which version is selected.
const CONTENTS_SELECTED: u8 = 0;
/// The contents say which versions are spoken.
const CONTENTS_SUPPORTED: u8 = 1;
/// Elements begin at multiples of so many bytes.
const ALIGNMENT_BYTES: usize = 4;

/// What KEY_EXCHANGE carries.
pub fn supported_secured_versions() -> Vec<u8> {
    let [low, high] = SECURED_MESSAGE_1_1.to_le_bytes();
    element(&[CONTENTS_VERSION, CONTENTS_SUPPORTED, 1, low, high])
}

/// What KEY_EXCHANGE_RSP carries.
pub fn selected_secured_version() -> Vec<u8> {
    let [low, high] = SECURED_MESSAGE_1_1.to_le_bytes();
    element(&[CONTENTS_VERSION, CONTENTS_SELECTED, low, high])
}

/// Checks that KEY_EXCHANGE offers the version that is spoken here.
///
/// # Errors
/// [`PeerFault::Short`], [`PeerFault::Trailing`], [`PeerFault::UnknownValue`].
pub fn read_supported(opaque: &[u8]) -> Result<(), PeerFault> {
    read(opaque, CONTENTS_SUPPORTED, |r| {
        let count = r.u8()?;
        let mut spoken = false;
        for _ in 0..count {
            spoken |= is_1_1(r.u16()?);
        }
        if spoken { Ok(()) } else { Err(r.unknown("secured message versions", count)) }
    })
}

/// Checks that KEY_EXCHANGE_RSP selects the version that was offered.
///
/// # Errors
/// [`PeerFault::Short`], [`PeerFault::Trailing`], [`PeerFault::UnknownValue`].
pub fn read_selected(opaque: &[u8]) -> Result<(), PeerFault> {
    read(opaque, CONTENTS_SELECTED, |r| {
        let version = r.u16()?;
        if is_1_1(version) { Ok(()) } else { Err(r.unknown("secured message version", version)) }
    })
}

/// Update and alpha numbers do not matter.
fn is_1_1(version: u16) -> bool {
    version & 0xff00 == SECURED_MESSAGE_1_1
}

fn element(contents: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.u8(1);
    w.reserved(3);
    w.u8(OWNER_DMTF);
    w.u8(0);
    w.count_u16(contents.len());
    w.bytes(contents);
    w.reserved(contents.len().next_multiple_of(ALIGNMENT_BYTES) - contents.len());
    w.finish().expect("the contents are a few bytes")
}

/// Reads the one element of ours with contents of `kind`.
fn read(
    opaque: &[u8],
    kind: u8,
    contents: impl Fn(&mut Reader<'_>) -> Result<(), PeerFault>,
) -> Result<(), PeerFault> {
    const NAME: &str = "opaque data";
    Reader::all(NAME, opaque, |r| {
        let count = r.u8()?;
        r.reserved(3)?;
        let mut found = false;
        for _ in 0..count {
            let owner = r.u8()?;
            let vendor_bytes = r.u8()?;
            r.bytes(vendor_bytes.into())?;
            let length = usize::from(r.u16()?);
            let bytes = r.bytes(length)?;
            let unaligned = r.position() % ALIGNMENT_BYTES;
            if unaligned != 0 {
                r.reserved(ALIGNMENT_BYTES - unaligned)?;
            }
            if owner == OWNER_DMTF && bytes.starts_with(&[CONTENTS_VERSION, kind]) {
                Reader::all(NAME, &bytes[2..], &contents)?;
                found = true;
            }
        }
        if found { Ok(()) } else { Err(r.unknown("elements", count)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_real_sessions_have_it() {
        let supported = [1, 0, 0, 0, 0, 0, 5, 0, 1, 1, 1, 0, 0x11, 0, 0, 0];
        assert_eq!(supported_secured_versions(), supported);
        assert_eq!(read_supported(&supported), Ok(()));
        let selected = [1, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0x11];
        assert_eq!(selected_secured_version(), selected);
        assert_eq!(read_selected(&selected), Ok(()));
    }

    #[test]
    fn other_versions_and_damage_are_refused() {
        let mut other = selected_secured_version();
        other[11] = 0x12;
        assert!(read_selected(&other).is_err());
        assert!(read_supported(&selected_secured_version()).is_err());
        for length in 0..16 {
            assert!(read_supported(&supported_secured_versions()[..length]).is_err());
        }
    }
}
