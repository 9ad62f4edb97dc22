//! CHUNK_SEND and CHUNK_GET: requests and responses longer than what goes at once.

use alloc::boxed::Box;
use alloc::vec::Vec;

use zeroize::{Zeroize, Zeroizing};

use super::evidence::contradiction;
use super::{Pending, Requester, Step};
use crate::chunks::{Incoming, Outgoing};
use crate::endpoint::Frame;
use crate::fault::{Error, Refusal};
use crate::message::{
    CapabilityFlags, ChunkGet, ChunkResponse, ChunkSendAck, Shape, decode, encode,
};

impl Requester {
    /// Whether long messages may go in chunks.
    pub(super) fn may_chunk(&self) -> bool {
        let ours = self.config.limits.flags.has(CapabilityFlags::CHUNK);
        let peer = self.connection.as_ref().map(|connection| connection.peer.flags);
        ours && peer.is_some_and(|flags| flags.has(CapabilityFlags::CHUNK))
    }

    /// Sends the first piece of a long request.
    pub(super) fn cut(
        &mut self,
        request: Zeroizing<Vec<u8>>,
        pending: Pending,
    ) -> Result<Frame, Error> {
        let max = self.connection.as_ref().map_or(0, |one| one.peer.message_bytes_max);
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let max = if self.may_chunk() { max } else { self.room() };
        let length = request.len();
        if length > max {
            return Err(Refusal::TooLong { length, max }.into());
        }
        self.handle = self.handle.wrapping_add(1);
        self.send_chunk(Outgoing::new(self.handle, request), pending)
    }

    fn send_chunk(&mut self, mut out: Outgoing, pending: Pending) -> Result<Frame, Error> {
        let max = self.room();
        let mut piece = out.next(max).ok_or(Refusal::TooLong { length: max + 1, max })?;
        let message = encode(&piece, &self.chunk_shape()?).map(Zeroizing::new);
        piece.chunk.zeroize();
        let message = message?;
        self.put(&message, Pending::SendChunk { out, then: Box::new(pending) })
    }

    /// The last piece's acknowledgement carries the response.
    pub(super) fn chunk_sent(
        &mut self,
        out: Outgoing,
        then: Pending,
        message: &[u8],
    ) -> Result<Step, Error> {
        let (ack, _) = decode::<ChunkSendAck>(message, &self.chunk_shape()?)?;
        if !out.was_last(ack.handle, ack.sequence) {
            return Err(contradiction("CHUNK_SEND_ACK", "ChunkSeqNo"));
        }
        if ack.early_error || out.is_done() {
            return self.judge_answer(then, &ack.response);
        }
        Ok(Step::Send(self.send_chunk(out, then)?))
    }

    /// Asks for the next piece of a long response.
    pub(super) fn ask_chunk(&mut self, incoming: Incoming, then: Pending) -> Result<Step, Error> {
        let (handle, sequence) = incoming.expected();
        let request = encode(&ChunkGet { handle, sequence }, &self.chunk_shape()?)?;
        let pending = Pending::GetChunk { incoming, then: Box::new(then) };
        Ok(Step::Send(self.put(&request, pending)?))
    }

    pub(super) fn chunk(
        &mut self,
        mut incoming: Incoming,
        then: Pending,
        message: &[u8],
    ) -> Result<Step, Error> {
        let (ChunkResponse(piece), _) = decode(message, &self.chunk_shape()?)?;
        let max = self.config.limits.message_bytes_max;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        match incoming.take(&piece, 0, max)? {
            Some(whole) => self.judge_answer(then, &whole),
            None => self.ask_chunk(incoming, then),
        }
    }

    fn chunk_shape(&mut self) -> Result<Shape, Refusal> {
        Ok(self.connection()?.shape())
    }
}
