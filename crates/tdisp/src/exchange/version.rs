//! GET_VERSION and VERSION.

use super::empty_bodies;
use crate::{Body, MessageType, PeerFault, Reader, RequestBody, Writer};

empty_bodies! {
    /// Asks which versions the DSM speaks.
    GetVersion = GET_VERSION;
}

impl RequestBody<'_> for GetVersion {
    type Response<'r> = Versions<'r>;
}

/// The versions that the DSM speaks, such as 0x10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions<'a> {
    /// Major version in the upper four bits, minor in the lower.
    pub entries: &'a [u8],
}

impl<'a> Body<'a> for Versions<'a> {
    const TYPE: MessageType = MessageType::VERSION;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        let count = reader.u8()?;
        Ok(Self { entries: reader.bytes(count.into())? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.count_u8(self.entries.len());
        writer.bytes(self.entries);
    }
}
