//! CHUNK_SEND and CHUNK_GET: requests and answers longer than what goes at once.
//!
//! A side of a conversation, in the clear or in a session, has at most one long request and one long
//! answer; any request that is no piece of them drops both: policy `chunks`.

use alloc::vec::Vec;

use super::{Answer, Denied, unexpected, unsupported};
use crate::algorithm::Version;
use crate::chunks::{Incoming, Outgoing};
use crate::message::{
    ChunkGet, ChunkResponse, ChunkSend, ChunkSendAck, Code, ErrorCode, ErrorMessage, Header, Shape,
    decode, encode,
};

/// Bytes of CHUNK_SEND_ACK before the response.
const ACK_BYTES: usize = 6;

/// How long messages may be.
pub(super) struct Terms {
    pub(super) shape: Shape,
    /// Whether both sides can do with chunks.
    pub(super) allowed: bool,
    /// Bytes of an answer in one piece.
    pub(super) room: usize,
    /// Bytes of an answer in chunks.
    pub(super) answer_max: usize,
    /// Bytes that a request in chunks has at least one more than.
    pub(super) request_min: usize,
    /// Bytes that it has at most.
    pub(super) request_max: usize,
}

impl Terms {
    /// Whether the requester can receive an answer, in one piece or in chunks.
    pub(super) fn takes(&self, answer: &[u8]) -> bool {
        answer.len() <= if self.allowed { self.answer_max } else { self.room }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            shape: Shape::unnegotiated(Version::V12),
            allowed: false,
            room: usize::MAX,
            answer_max: 0,
            request_min: 0,
            request_max: 0,
        }
    }
}

/// Long messages under way.
#[derive(Default)]
pub(super) struct Chunks {
    incoming: Option<Incoming>,
    outgoing: Option<Outgoing>,
    /// Of the last long answer.
    handle: u8,
}

impl Chunks {
    /// Answers a request that may be a piece of one, or ask for a piece of an answer; `answer` answers
    /// whole ones.
    pub(super) fn answer(
        &mut self,
        terms: &Terms,
        header: Header,
        message: &[u8],
        answer: impl FnOnce(Code, &[u8]) -> Answer,
    ) -> Answer {
        match header.code {
            code @ (Code::CHUNK_SEND | Code::CHUNK_GET) if !terms.allowed => Err(unsupported(code)),
            Code::CHUNK_SEND => self.take(terms, message, answer),
            Code::CHUNK_GET => {
                let given = self.give(terms, message);
                if given.is_err() {
                    self.outgoing = None;
                }
                given
            }
            code => {
                (self.incoming, self.outgoing) = (None, None);
                let whole = answer(code, message)?;
                self.fit(terms, terms.room, whole)
            }
        }
    }

    fn take(
        &mut self,
        terms: &Terms,
        message: &[u8],
        answer: impl FnOnce(Code, &[u8]) -> Answer,
    ) -> Answer {
        self.outgoing = None;
        let (piece, _) = decode::<ChunkSend>(message, &terms.shape)?;
        let (handle, sequence) = (piece.handle, piece.sequence);
        let incoming = match self.incoming.take() {
            Some(incoming) => Some(incoming),
            None if sequence == 0 => Some(Incoming::new("CHUNK_SEND", handle)),
            None => None,
        };
        let mut incoming = incoming.ok_or(Denied::new(ErrorCode::UNEXPECTED_REQUEST))?;
        let whole = incoming.take(&piece, terms.request_min, terms.request_max);
        let (early_error, response) = match whole {
            Ok(None) => {
                self.incoming = Some(incoming);
                (false, Vec::new())
            }
            Ok(Some(request)) => (false, self.answer_whole(terms, &request, answer)?),
            Err(_) => (true, refusal(&Denied::new(ErrorCode::INVALID_REQUEST), terms)?),
        };
        let ack = ChunkSendAck { early_error, handle, sequence, response };
        Ok(encode(&ack, &terms.shape)?)
    }

    /// The response to a long request, or the ERROR that answers it.
    fn answer_whole(
        &mut self,
        terms: &Terms,
        request: &[u8],
        answer: impl FnOnce(Code, &[u8]) -> Answer,
    ) -> Answer {
        let header = Header::of(request)?;
        let answered = match header.code {
            code @ (Code::CHUNK_SEND | Code::CHUNK_GET | Code::RESPOND_IF_READY) => {
                Err(unexpected(code))
            }
            _ if header.version != terms.shape.version.wire() => {
                Err(Denied::new(ErrorCode::VERSION_MISMATCH))
            }
            code => answer(code, request),
        };
        let room = terms.room.saturating_sub(ACK_BYTES);
        let fitted = answered.and_then(|whole| self.fit(terms, room, whole));
        fitted.or_else(|denied| refusal(&denied, terms))
    }

    fn give(&mut self, terms: &Terms, message: &[u8]) -> Answer {
        self.incoming = None;
        let (ChunkGet { handle, sequence }, _) = decode(message, &terms.shape)?;
        let outgoing = self.outgoing.as_mut().ok_or(unexpected(Code::CHUNK_GET))?;
        let invalid = Denied::new(ErrorCode::INVALID_REQUEST);
        if !outgoing.is_next(handle, sequence) {
            return Err(invalid);
        }
        let piece = outgoing.next(terms.room).ok_or(invalid)?;
        Ok(encode(&ChunkResponse(piece), &terms.shape)?)
    }

    /// Keeps an answer that is too long for `room`, and announces it.
    fn fit(&mut self, terms: &Terms, room: usize, whole: Vec<u8>) -> Answer {
        if whole.len() <= room {
            return Ok(whole);
        }
        if !terms.allowed || !terms.takes(&whole) {
            return Err(Denied::new(ErrorCode::RESPONSE_TOO_LARGE));
        }
        self.handle = self.handle.wrapping_add(1);
        self.outgoing = Some(Outgoing::new(self.handle, whole));
        let extended = Vec::from([self.handle]);
        let announced = ErrorMessage { extended, ..ErrorMessage::new(ErrorCode::LARGE_RESPONSE) };
        Err(Denied(announced))
    }
}

fn refusal(denied: &Denied, terms: &Terms) -> Answer {
    Ok(encode(&denied.0, &terms.shape)?)
}
