//! VENDOR_DEFINED_REQUEST and VENDOR_DEFINED_RESPONSE: other protocols' messages.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{Code, Header, Message, Shape};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// The registry of vendors is that of the PCI-SIG.
pub const STANDARD_PCI_SIG: u16 = 3;
/// The PCI-SIG itself, whose protocols are IDE_KM and TDISP.
pub const VENDOR_PCI_SIG: u16 = 0x0001;

/// A message of another protocol, to the responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorDefined {
    /// The registry of vendors.
    pub standard: u16,
    /// The vendor in it.
    pub vendor: Vec<u8>,
    /// The message, which may hold keys.
    pub payload: Zeroizing<Vec<u8>>,
}

impl VendorDefined {
    /// A message of one of the PCI-SIG's protocols.
    pub fn pci_sig(payload: Vec<u8>) -> Self {
        let vendor = VENDOR_PCI_SIG.to_le_bytes().to_vec();
        Self { standard: STANDARD_PCI_SIG, vendor, payload: payload.into() }
    }
}

impl Message for VendorDefined {
    const CODE: Code = Code::VENDOR_DEFINED_REQUEST;
    const NAME: &'static str = "VENDOR_DEFINED_REQUEST";

    fn write(&self, w: &mut Writer, _: &Shape) {
        write(w, self);
    }

    fn read(_: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        read(r)
    }
}

/// A message of another protocol, to the requester.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorResponse(pub VendorDefined);

impl Message for VendorResponse {
    const CODE: Code = Code::VENDOR_DEFINED_RESPONSE;
    const NAME: &'static str = "VENDOR_DEFINED_RESPONSE";

    fn write(&self, w: &mut Writer, _: &Shape) {
        write(w, &self.0);
    }

    fn read(_: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        read(r).map(Self)
    }
}

fn write(w: &mut Writer, message: &VendorDefined) {
    w.u16(message.standard);
    w.count_u8(message.vendor.len());
    w.bytes(&message.vendor);
    w.count_u16(message.payload.len());
    w.bytes(&message.payload);
}

fn read(r: &mut Reader<'_>) -> Result<VendorDefined, PeerFault> {
    let standard = r.u16()?;
    let vendor_bytes = r.u8()?;
    let vendor = r.bytes(vendor_bytes.into())?.to_vec();
    let payload_bytes = r.u16()?;
    let payload = r.bytes(payload_bytes.into())?.to_vec().into();
    Ok(VendorDefined { standard, vendor, payload })
}
