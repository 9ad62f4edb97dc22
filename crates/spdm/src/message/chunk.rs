//! CHUNK_SEND, CHUNK_GET and their responses: messages longer than what is transferred at once.

use alloc::vec::Vec;

use super::{Code, Header, Message, Shape};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// The bit of the attributes: nothing follows.
const ATTRIBUTE_LAST: u8 = 0x01;

/// A piece of a long request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSend {
    /// The same for all pieces of a message.
    pub handle: u8,
    /// Counts the pieces from 0.
    pub sequence: u16,
    /// Whether it is the last.
    pub last: bool,
    /// The length of the message in bytes; only in the first piece.
    pub message_bytes: Option<u32>,
    /// The piece.
    pub chunk: Vec<u8>,
}

impl Message for ChunkSend {
    const CODE: Code = Code::CHUNK_SEND;
    const NAME: &'static str = "CHUNK_SEND";

    fn parameters(&self) -> (u8, u8) {
        (if self.last { ATTRIBUTE_LAST } else { 0 }, self.handle)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        write(w, self);
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        read(header, r)
    }
}

/// Acknowledges a piece; the acknowledgement of the last carries the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSendAck {
    /// Whether the request is refused before it was all sent.
    pub early_error: bool,
    /// The handle of the request.
    pub handle: u8,
    /// The number of the piece.
    pub sequence: u16,
    /// The response, or an ERROR; padding cannot be told from it.
    pub response: Vec<u8>,
}

impl Message for ChunkSendAck {
    const CODE: Code = Code::CHUNK_SEND_ACK;
    const NAME: &'static str = "CHUNK_SEND_ACK";

    fn parameters(&self) -> (u8, u8) {
        (u8::from(self.early_error), self.handle)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.u16(self.sequence);
        w.bytes(&self.response);
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        const ATTRIBUTE_EARLY_ERROR: u8 = 0x01;
        Ok(Self {
            early_error: header.parameter1 & ATTRIBUTE_EARLY_ERROR != 0,
            handle: header.parameter2,
            sequence: r.u16()?,
            response: r.rest().to_vec(),
        })
    }
}

/// Asks for a piece of a long response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkGet {
    /// The handle from the ERROR that announced it.
    pub handle: u8,
    /// The number of the piece, from 0.
    pub sequence: u16,
}

impl Message for ChunkGet {
    const CODE: Code = Code::CHUNK_GET;
    const NAME: &'static str = "CHUNK_GET";

    fn parameters(&self) -> (u8, u8) {
        (0, self.handle)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.u16(self.sequence);
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        Ok(Self { handle: header.parameter2, sequence: r.u16()? })
    }
}

/// A piece of a long response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkResponse(pub ChunkSend);

impl Message for ChunkResponse {
    const CODE: Code = Code::CHUNK_RESPONSE;
    const NAME: &'static str = "CHUNK_RESPONSE";

    fn parameters(&self) -> (u8, u8) {
        self.0.parameters()
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        write(w, &self.0);
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        read(header, r).map(Self)
    }
}

fn write(w: &mut Writer, piece: &ChunkSend) {
    w.u16(piece.sequence);
    w.reserved(2);
    w.count_u32(piece.chunk.len());
    if let Some(bytes) = piece.message_bytes {
        w.u32(bytes);
    }
    w.bytes(&piece.chunk);
}

fn read(header: Header, r: &mut Reader<'_>) -> Result<ChunkSend, PeerFault> {
    let sequence = r.u16()?;
    r.reserved(2)?;
    let length = usize::try_from(r.u32()?).unwrap_or(usize::MAX);
    let message_bytes = if sequence == 0 { Some(r.u32()?) } else { None };
    Ok(ChunkSend {
        handle: header.parameter2,
        sequence,
        last: header.parameter1 & ATTRIBUTE_LAST != 0,
        message_bytes,
        chunk: r.bytes(length)?.to_vec(),
    })
}
