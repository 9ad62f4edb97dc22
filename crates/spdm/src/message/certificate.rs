//! GET_CERTIFICATE and CERTIFICATE: a certificate chain in portions.

use alloc::vec::Vec;

use super::{Code, Header, Message, SLOT_MASK, Shape, read_slot};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// Asks for a portion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetCertificate {
    /// The slot.
    pub slot: u8,
    /// Where the portion begins, in bytes.
    pub offset: u16,
    /// How long it may be, in bytes.
    pub length: u16,
}

impl Message for GetCertificate {
    const CODE: Code = Code::GET_CERTIFICATE;
    const NAME: &'static str = "GET_CERTIFICATE";

    fn parameters(&self) -> (u8, u8) {
        (self.slot & SLOT_MASK, 0)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.u16(self.offset);
        w.u16(self.length);
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        let slot = read_slot(r, header.parameter1)?;
        Ok(Self { slot, offset: r.u16()?, length: r.u16()? })
    }
}

/// A portion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The slot.
    pub slot: u8,
    /// What kind of certificate the slot holds (1.3; zero before).
    pub model: u8,
    /// The bytes.
    pub portion: Vec<u8>,
    /// Bytes of the chain after this portion.
    pub remainder: u16,
}

impl Message for Certificate {
    const CODE: Code = Code::CERTIFICATE;
    const NAME: &'static str = "CERTIFICATE";

    fn parameters(&self) -> (u8, u8) {
        (self.slot & SLOT_MASK, self.model)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.count_u16(self.portion.len());
        w.u16(self.remainder);
        w.bytes(&self.portion);
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        let slot = read_slot(r, header.parameter1)?;
        let (length, remainder) = (r.u16()?, r.u16()?);
        let portion = r.bytes(length.into())?.to_vec();
        Ok(Self { slot, model: header.parameter2, portion, remainder })
    }
}
