//! Messages longer than what is transferred at once: cut into pieces, and put together.
//!
//! [`Outgoing`] is the side that has the message, [`Incoming`] the one that gets it; requests and
//! responses differ only in who asks for the next piece. Takes no lock and does no IO.
//!
//! Source: \[DSP0274\] CHUNK_SEND, CHUNK_GET.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::fault::PeerFault;
use crate::message::ChunkSend;

/// Bytes of a piece's message beside the piece.
const HEADER_BYTES: usize = 12;
/// Bytes that the first has more.
const LENGTH_BYTES: usize = 4;

/// A message on its way in pieces.
pub(crate) struct Outgoing {
    handle: u8,
    sequence: u16,
    sent: usize,
    message: Zeroizing<Vec<u8>>,
}

impl Outgoing {
    pub(crate) fn new(handle: u8, message: impl Into<Zeroizing<Vec<u8>>>) -> Self {
        Self { handle, sequence: 0, sent: 0, message: message.into() }
    }

    /// The next piece, so that its message has at most `max` bytes. `None` where all was sent, or
    /// where no byte fits.
    pub(crate) fn next(&mut self, max: usize) -> Option<ChunkSend> {
        let first = self.sent == 0;
        let header = HEADER_BYTES + if first { LENGTH_BYTES } else { 0 };
        let rest = self.message.get(self.sent..)?;
        let length = rest.len().min(max.checked_sub(header)?);
        if length == 0 {
            return None;
        }
        let piece = ChunkSend {
            handle: self.handle,
            sequence: self.sequence,
            last: length == rest.len(),
            message_bytes: if first { u32::try_from(self.message.len()).ok() } else { None },
            chunk: rest.get(..length)?.to_vec(),
        };
        self.sent += length;
        self.sequence = self.sequence.wrapping_add(1);
        Some(piece)
    }

    /// Whether a piece of the peer's asks for what comes next.
    pub(crate) fn is_next(&self, handle: u8, sequence: u16) -> bool {
        self.handle == handle && self.sequence == sequence && self.sent < self.message.len()
    }

    /// Whether the last piece was this one.
    pub(crate) const fn was_last(&self, handle: u8, sequence: u16) -> bool {
        self.handle == handle && self.sequence == sequence.wrapping_add(1)
    }

    /// Whether all was sent.
    pub(crate) fn is_done(&self) -> bool {
        self.sent == self.message.len()
    }
}

/// A message that comes in pieces.
pub(crate) struct Incoming {
    name: &'static str,
    handle: u8,
    sequence: u16,
    /// Bytes that it is to have; told by the first piece.
    total: usize,
    bytes: Zeroizing<Vec<u8>>,
}

impl Incoming {
    /// A message of which no piece has come.
    pub(crate) fn new(name: &'static str, handle: u8) -> Self {
        Self { name, handle, sequence: 0, total: 0, bytes: Zeroizing::default() }
    }

    /// The handle that all pieces must have, and the number of the next.
    pub(crate) const fn expected(&self) -> (u8, u16) {
        (self.handle, self.sequence)
    }

    /// Takes a piece of a message that may have more than `min` and at most `max` bytes. The whole
    /// message, once it is there.
    pub(crate) fn take(
        &mut self,
        piece: &ChunkSend,
        min: usize,
        max: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, PeerFault> {
        if (piece.handle, piece.sequence) != self.expected() {
            return Err(PeerFault::Contradiction { message: self.name, field: "ChunkSeqNo" });
        }
        if let Some(total) = piece.message_bytes {
            self.total = usize::try_from(total).unwrap_or(usize::MAX);
            if self.total > max {
                return Err(PeerFault::Oversized { length: total.into(), max: max as u64 });
            }
            if self.total <= min {
                let field = "LargeMessageSize";
                let value = total.into();
                return Err(PeerFault::UnknownValue { message: self.name, field, value });
            }
        }
        let length = self.bytes.len() + piece.chunk.len();
        let is_whole = length == self.total;
        if piece.chunk.is_empty() || length > self.total || is_whole != piece.last {
            return Err(PeerFault::Contradiction { message: self.name, field: "ChunkSize" });
        }
        self.bytes.extend_from_slice(&piece.chunk);
        self.sequence = self.sequence.wrapping_add(1);
        Ok(is_whole.then(|| core::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn what_is_cut_is_put_together() {
        for max in [17, 18, 42, 100] {
            let message: Vec<u8> = (0..=255).collect();
            let mut outgoing = Outgoing::new(7, message.clone());
            let mut incoming = Incoming::new("M", 7);
            let whole = loop {
                let piece = outgoing.next(max).unwrap();
                assert!(outgoing.was_last(7, piece.sequence));
                if let Some(whole) = incoming.take(&piece, 100, 256).unwrap() {
                    break whole;
                }
                assert!(outgoing.is_next(7, piece.sequence + 1));
            };
            assert_eq!((whole, outgoing.is_done()), (message.into(), true));
            assert_eq!(outgoing.next(max), None);
        }
        assert_eq!(Outgoing::new(0, vec![1]).next(16), None);
    }

    #[test]
    fn pieces_that_do_not_fit_are_refused() {
        let first = || Outgoing::new(1, vec![9; 100]).next(60).unwrap();
        let take = |piece: ChunkSend| Incoming::new("M", 1).take(&piece, 50, 200);
        assert_eq!(take(first()), Ok(None));
        assert!(take(ChunkSend { handle: 2, ..first() }).is_err());
        assert!(take(ChunkSend { sequence: 1, ..first() }).is_err());
        assert!(take(ChunkSend { last: true, ..first() }).is_err());
        assert!(take(ChunkSend { chunk: Vec::new(), ..first() }).is_err());
        assert!(take(ChunkSend { message_bytes: Some(201), ..first() }).is_err());
        assert!(take(ChunkSend { message_bytes: Some(50), ..first() }).is_err());
        assert!(take(ChunkSend { chunk: vec![0; 101], ..first() }).is_err());
        assert!(take(ChunkSend { chunk: vec![0; 100], ..first() }).is_err(), "not said to be last");
    }
}
