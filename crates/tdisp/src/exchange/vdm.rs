//! VDM, request and response: what a vendor adds.

use crate::{Body, MessageType, PeerFault, Reader, RequestBody, Writer};

/// A vendor's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VdmRequest<'a> {
    /// Who gives out vendor ids: 0 PCI-SIG, 1 CXL.
    pub registry: u8,
    /// The vendor, in the registry's form; at most 255 bytes.
    pub vendor: &'a [u8],
    /// The vendor's own data.
    pub data: &'a [u8],
}

/// The answer to a vendor's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VdmResponse<'a> {
    /// Who gives out vendor ids: 0 PCI-SIG, 1 CXL.
    pub registry: u8,
    /// The vendor, in the registry's form; at most 255 bytes.
    pub vendor: &'a [u8],
    /// The vendor's own data.
    pub data: &'a [u8],
}

macro_rules! vdm_body {
    ($body:ident, $kind:ident) => {
        impl<'a> Body<'a> for $body<'a> {
            const TYPE: MessageType = MessageType::$kind;

            fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
                let (registry, length) = (reader.u8()?, reader.u8()?);
                let vendor = reader.bytes(length.into())?;
                Ok(Self { registry, vendor, data: reader.rest() })
            }

            fn write(&self, writer: &mut Writer<'_>) {
                writer.u8(self.registry);
                writer.count_u8(self.vendor.len());
                writer.bytes(self.vendor);
                writer.bytes(self.data);
            }
        }
    };
}

vdm_body!(VdmRequest, VDM_REQUEST);
vdm_body!(VdmResponse, VDM_RESPONSE);

impl<'a> RequestBody<'a> for VdmRequest<'a> {
    type Response<'r> = VdmResponse<'r>;
}
