//! DOE data objects: what a mailbox in config space carries, eight bytes of header and whole dwords.
//!
//! Takes no lock and does no IO. Source: PCI Express 6.1, 6.30; real captures.

use std::fmt;

use thiserror::Error;

/// The vendor of all objects here: PCI-SIG.
pub const VENDOR_PCI_SIG: u16 = 0x0001;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;
/// The most bytes of an object, header included.
pub const OBJECT_BYTES_MAX: usize = DWORDS_MAX * DWORD_BYTES;

const DWORD_BYTES: usize = 4;
/// What a length of zero says.
const DWORDS_MAX: usize = 1 << 18;
const LENGTH_MASK: u32 = (1 << 18) - 1;

/// What an object is, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectType(pub u8);

impl ObjectType {
    /// Which objects the mailbox knows.
    pub const DISCOVERY: Self = Self(0);
    /// A message of SPDM in the clear (CMA).
    pub const SPDM: Self = Self(1);
    /// A record of an SPDM session.
    pub const SECURED_SPDM: Self = Self(2);
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DISCOVERY => f.write_str("DOE discovery"),
            Self::SPDM => f.write_str("SPDM"),
            Self::SECURED_SPDM => f.write_str("secured SPDM"),
            Self(other) => write!(f, "object type {other:#04x}"),
        }
    }
}

/// A data object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: ObjectType,
    /// What follows the header. Read, it has the zeros that fill its last dword.
    pub payload: Vec<u8>,
}

/// What is no data object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoObject {
    /// Not even a header.
    #[error("{found} bytes are no header of a DOE object, which has {HEADER_BYTES}")]
    Short {
        /// Bytes there are.
        found: usize,
    },
    /// Of a vendor nobody here knows.
    #[error("vendor {found:#06x} in a DOE object, not PCI-SIG's {VENDOR_PCI_SIG:#06x}")]
    Vendor {
        /// The vendor.
        found: u16,
    },
    /// The header's length is not that of the bytes.
    #[error("the DOE header says {said} bytes, and there are {found}")]
    Length {
        /// What the header says.
        said: usize,
        /// Bytes there are.
        found: usize,
    },
}

impl Object {
    /// Reads a whole object.
    ///
    /// # Errors
    /// [`NoObject`].
    pub fn read(bytes: &[u8]) -> Result<Self, NoObject> {
        let Some((&[v0, v1, kind, _, l0, l1, l2, l3], payload)) =
            bytes.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err(NoObject::Short { found: bytes.len() });
        };
        let vendor = u16::from_le_bytes([v0, v1]);
        if vendor != VENDOR_PCI_SIG {
            return Err(NoObject::Vendor { found: vendor });
        }
        let said = match u32::from_le_bytes([l0, l1, l2, l3]) & LENGTH_MASK {
            0 => OBJECT_BYTES_MAX,
            dwords => dwords as usize * DWORD_BYTES,
        };
        if said != bytes.len() {
            return Err(NoObject::Length { said, found: bytes.len() });
        }
        Ok(Self { kind: ObjectType(kind), payload: payload.to_vec() })
    }

    /// The bytes, filled with zeros to a whole dword. `None` past [`OBJECT_BYTES_MAX`].
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let length = (HEADER_BYTES + self.payload.len()).next_multiple_of(DWORD_BYTES);
        if length > OBJECT_BYTES_MAX {
            return None;
        }
        let dwords = u32::try_from(length / DWORD_BYTES).ok()? & LENGTH_MASK;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(VENDOR_PCI_SIG.to_le_bytes());
        bytes.extend([self.kind.0, 0]);
        bytes.extend(dwords.to_le_bytes());
        bytes.extend(&self.payload);
        bytes.resize(length, 0);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(kind: u8, payload: Vec<u8>) {
            let object = Object { kind: ObjectType(kind), payload };
            let mut filled = object.clone();
            filled.payload.resize(object.payload.len().next_multiple_of(4), 0);
            prop_assert_eq!(Object::read(&object.bytes().unwrap()), Ok(filled));
        }

        #[test]
        fn any_bytes_are_an_object_or_refused(bytes: Vec<u8>) {
            if let Ok(object) = Object::read(&bytes) {
                prop_assert_eq!(object.bytes().unwrap().len(), bytes.len());
            }
        }
    }

    #[test]
    fn the_longest_object_has_length_zero() {
        let payload = vec![7; OBJECT_BYTES_MAX - HEADER_BYTES];
        let object = Object { kind: ObjectType::SPDM, payload };
        let bytes = object.bytes().unwrap();
        assert_eq!(bytes[4..8], [0; 4]);
        assert_eq!(Object::read(&bytes), Ok(object.clone()));
        let longer = Object { payload: vec![7; OBJECT_BYTES_MAX], ..object };
        assert_eq!(longer.bytes(), None);
    }

    #[test]
    fn refusals_say_what_was_found() {
        assert_eq!(Object::read(&[1, 0, 0]), Err(NoObject::Short { found: 3 }));
        let vendor = Object::read(&[0x98, 0x1e, 1, 0, 2, 0, 0, 0]);
        assert_eq!(vendor, Err(NoObject::Vendor { found: 0x1e98 }));
        let length = Object::read(&[1, 0, 1, 0, 3, 0, 0, 0]);
        assert_eq!(length, Err(NoObject::Length { said: 12, found: 8 }));
    }
}
