//! GET_DEVICE_INTERFACE_REPORT and DEVICE_INTERFACE_REPORT: a report travels in portions.

use crate::{Body, MessageType, PeerFault, Reader, RequestBody, Writer};

/// Asks for a portion of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetReport {
    /// Where the portion starts, in bytes.
    pub offset: u16,
    /// Bytes wanted at most.
    pub length: u16,
}

impl<'a> Body<'a> for GetReport {
    const TYPE: MessageType = MessageType::GET_DEVICE_INTERFACE_REPORT;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        Ok(Self { offset: reader.u16()?, length: reader.u16()? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(self.offset);
        writer.u16(self.length);
    }
}

impl RequestBody<'_> for GetReport {
    type Response<'r> = ReportPortion<'r>;
}

/// A portion of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportPortion<'a> {
    /// Bytes that follow this portion.
    pub remainder: u16,
    /// The portion.
    pub portion: &'a [u8],
}

impl ReportPortion<'_> {
    /// Bytes of the response besides header and portion.
    pub(crate) const FIXED_BYTES: usize = 4;
}

impl<'a> Body<'a> for ReportPortion<'a> {
    const TYPE: MessageType = MessageType::DEVICE_INTERFACE_REPORT;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        let (length, remainder) = (reader.u16()?, reader.u16()?);
        Ok(Self { remainder, portion: reader.bytes(length.into())? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.count_u16(self.portion.len());
        writer.u16(self.remainder);
        writer.bytes(self.portion);
    }
}
