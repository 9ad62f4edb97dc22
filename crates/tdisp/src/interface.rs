//! INTERFACE_ID: which interface of a device a message is about.

use core::fmt;

use crate::{PeerFault, Reader, Writer};

const REQUESTER_ID_MASK: u32 = 0xffff;
const SEGMENT_SHIFT: u32 = 16;
const SEGMENT_MASK: u32 = 0xff;
const SEGMENT_VALID: u32 = 1 << 24;
const RESERVED_BYTES: usize = 8;

/// An interface, named by the function that hosts it. Holds FUNCTION_ID as it was sent.
///
/// Source: [pci_tdisp.h] `pci_tdisp_interface_id_t`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(u32);

impl InterfaceId {
    /// The interface of a function: segment 0, said to be not valid.
    pub const fn new(requester_id: u16) -> Self {
        Self(requester_id as u32)
    }

    /// The interface of a function in a segment that is said to be valid.
    pub const fn in_segment(segment: u8, requester_id: u16) -> Self {
        Self(requester_id as u32 | (segment as u32) << SEGMENT_SHIFT | SEGMENT_VALID)
    }

    /// FUNCTION_ID as it is on the wire.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// FUNCTION_ID as it is on the wire.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The function's requester ID: bus, device and function number.
    pub const fn requester_id(self) -> u16 {
        (self.0 & REQUESTER_ID_MASK) as u16
    }

    /// The segment, where it is said to be valid.
    pub const fn segment(self) -> Option<u8> {
        if self.0 & SEGMENT_VALID == 0 {
            return None;
        }
        Some((self.0 >> SEGMENT_SHIFT & SEGMENT_MASK) as u8)
    }

    /// Whether this names the function of a device whose bus is in segment 0.
    pub const fn names(self, requester_id: u16) -> bool {
        self.requester_id() == requester_id && matches!(self.segment(), None | Some(0))
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, PeerFault> {
        let bits = reader.u32()?;
        reader.reserved(RESERVED_BYTES)?;
        Ok(Self(bits))
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        writer.u32(self.0);
        writer.reserved(RESERVED_BYTES);
    }
}

impl fmt::Debug for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InterfaceId({self})")
    }
}

/// Prints as Linux prints a function, without the segment where it is not valid: `01:00.0`.
impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(segment) = self.segment() {
            write!(f, "{segment:02x}:")?;
        }
        let requester = self.requester_id();
        let (bus, device, function) = (requester >> 8, requester >> 3 & 0x1f, requester & 7);
        write!(f, "{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn on_the_wire_the_segment_is_zero_and_not_valid() {
        let mut bytes = [0xff; 12];
        let mut writer = Writer::new(&mut bytes);
        InterfaceId::new(0x0102).write(&mut writer);
        assert_eq!(writer.finish(), Ok(12));
        assert_eq!(bytes, [0x02, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_segment_counts_only_where_it_is_valid() {
        assert_eq!(InterfaceId::from_bits(0x00ab_0100).segment(), None);
        assert!(InterfaceId::from_bits(0x00ab_0100).names(0x0100));
        assert_eq!(InterfaceId::in_segment(0xab, 0x0100).bits(), 0x01ab_0100);
        assert_eq!(InterfaceId::in_segment(0xab, 0x0100).segment(), Some(0xab));
        assert!(!InterfaceId::in_segment(0xab, 0x0100).names(0x0100));
        assert!(InterfaceId::in_segment(0, 0x0100).names(0x0100));
        assert!(!InterfaceId::new(0x0101).names(0x0100));
    }

    #[test]
    fn prints_as_an_address() {
        assert_eq!(InterfaceId::new(0x0113).to_string(), "01:02.3");
        assert_eq!(InterfaceId::in_segment(2, 0xffff).to_string(), "02:ff:1f.7");
    }
}
