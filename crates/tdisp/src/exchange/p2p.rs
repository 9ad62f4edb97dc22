//! BIND_P2P_STREAM, UNBIND_P2P_STREAM and SET_MMIO_ATTRIBUTE, requests and responses.

use super::empty_bodies;
use crate::report::MmioRange;
use crate::{Body, MessageType, PeerFault, Reader, RequestBody, Writer};

/// Binds a stream for peer-to-peer requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindP2pStream {
    /// The stream.
    pub stream: u8,
    /// STREAM_CONFIG, which headers since 2026 have and older ones have not.
    pub config: Option<u8>,
}

impl<'a> Body<'a> for BindP2pStream {
    const TYPE: MessageType = MessageType::BIND_P2P_STREAM_REQUEST;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        let stream = reader.u8()?;
        let config = if reader.is_empty() { None } else { Some(reader.u8()?) };
        Ok(Self { stream, config })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u8(self.stream);
        if let Some(config) = self.config {
            writer.u8(config);
        }
    }
}

impl RequestBody<'_> for BindP2pStream {
    type Response<'r> = BindP2pStreamResponse;
}

/// Takes a peer-to-peer stream away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnbindP2pStream {
    /// The stream.
    pub stream: u8,
}

impl<'a> Body<'a> for UnbindP2pStream {
    const TYPE: MessageType = MessageType::UNBIND_P2P_STREAM_REQUEST;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        Ok(Self { stream: reader.u8()? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u8(self.stream);
    }
}

impl RequestBody<'_> for UnbindP2pStream {
    type Response<'r> = UnbindP2pStreamResponse;
}

/// Changes the attributes of a range that the report calls updatable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetMmioAttribute {
    /// The range as it is to be.
    pub range: MmioRange,
}

impl<'a> Body<'a> for SetMmioAttribute {
    const TYPE: MessageType = MessageType::SET_MMIO_ATTRIBUTE_REQUEST;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        Ok(Self { range: MmioRange::read(reader)? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        self.range.write(writer);
    }
}

impl RequestBody<'_> for SetMmioAttribute {
    type Response<'r> = SetMmioAttributeResponse;
}

empty_bodies! {
    /// The stream is bound.
    BindP2pStreamResponse = BIND_P2P_STREAM_RESPONSE;
    /// The stream is bound no more.
    UnbindP2pStreamResponse = UNBIND_P2P_STREAM_RESPONSE;
    /// The range has its new attributes.
    SetMmioAttributeResponse = SET_MMIO_ATTRIBUTE_RESPONSE;
}
