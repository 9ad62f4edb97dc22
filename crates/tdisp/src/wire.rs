//! Little-endian fields out of bytes and into bytes.
//!
//! A [`Reader`] must be emptied, a [`Writer`] says what it lacked; neither can panic. Reserved
//! fields have one policy for all messages: written as zero, ignored when read.

use thiserror::Error;

use crate::MessageType;

/// What the peer sent is not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerFault {
    /// A message ends inside a field.
    #[error("{message} ends {missing} bytes too early")]
    Short {
        /// The message being read.
        message: &'static str,
        /// Bytes that the field lacks.
        missing: usize,
    },
    /// Bytes are left after the last field.
    #[error("{message} has {left} bytes too many")]
    Trailing {
        /// The message being read.
        message: &'static str,
        /// Bytes left.
        left: usize,
    },
    /// The portions of a report contradict each other or the request.
    #[error(
        "report portion of {portion} bytes with {remainder} to follow, {asked} asked for at {offset}"
    )]
    UnexpectedPortion {
        /// Where the portion was to start, in bytes.
        offset: u16,
        /// Bytes asked for.
        asked: u16,
        /// Bytes sent.
        portion: usize,
        /// Bytes said to follow.
        remainder: u16,
    },
    /// The answer names another interface.
    #[error("answer for interface {found:#x}, not {expected:#x}")]
    UnexpectedInterface {
        /// The FUNCTION_ID that was asked.
        expected: u32,
        /// The FUNCTION_ID of the answer.
        found: u32,
    },
    /// The message is of another type.
    #[error("{found} instead of {expected}")]
    UnexpectedType {
        /// What could have come.
        expected: MessageType,
        /// What came.
        found: MessageType,
    },
    /// The message has another version.
    #[error("version {found:#x} instead of {expected:#x}")]
    UnexpectedVersion {
        /// The version spoken.
        expected: u8,
        /// The version sent.
        found: u8,
    },
    /// No message has this type.
    #[error("{found} is no such message")]
    UnknownType {
        /// What came.
        found: MessageType,
    },
    /// A field has a value that the protocol does not know.
    #[error("{message} has {value:#x} in {field}")]
    UnknownValue {
        /// The message being read.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}

/// A message of ours cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeFault {
    /// The buffer is too small.
    #[error("a message of {needed} bytes does not fit into {room}")]
    NoRoom {
        /// Bytes that the message has.
        needed: usize,
        /// Bytes that the buffer has.
        room: usize,
    },
    /// A field is longer than its count can say.
    #[error("a field of {length} bytes is longer than its count can say")]
    TooLong {
        /// Bytes of the field.
        length: usize,
    },
}

/// Takes fields off the front of a message.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads all of `bytes`, which are called `message` in what is refused.
    ///
    /// # Errors
    /// What `read` refuses, and [`PeerFault::Trailing`] where it left bytes.
    pub fn all<T>(
        message: &'static str,
        bytes: &'a [u8],
        read: impl FnOnce(&mut Self) -> Result<T, PeerFault>,
    ) -> Result<T, PeerFault> {
        let mut reader = Self { message, rest: bytes };
        let value = read(&mut reader)?;
        match reader.rest.len() {
            0 => Ok(value),
            left => Err(PeerFault::Trailing { message, left }),
        }
    }

    /// Reads a byte.
    ///
    /// # Errors
    /// [`PeerFault::Short`] where the message ends first; so for all fields.
    pub fn u8(&mut self) -> Result<u8, PeerFault> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Reads two bytes.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn u16(&mut self) -> Result<u16, PeerFault> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Reads four bytes.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn u32(&mut self) -> Result<u32, PeerFault> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Reads eight bytes.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn u64(&mut self) -> Result<u64, PeerFault> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads `N` bytes as they stand.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], PeerFault> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.short(N));
        };
        self.rest = rest;
        Ok(*taken)
    }

    /// Reads `count` bytes as they stand.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], PeerFault> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.short(count));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// Skips a reserved field of `count` bytes, whatever it holds.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn reserved(&mut self, count: usize) -> Result<(), PeerFault> {
        self.bytes(count).map(drop)
    }

    /// Takes all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn short(&self, wanted: usize) -> PeerFault {
        let missing = wanted.saturating_sub(self.rest.len());
        PeerFault::Short { message: self.message, missing }
    }
}

/// Puts fields at the end of a message. What does not fit is counted and refused at the end.
#[derive(Debug)]
pub struct Writer<'b> {
    into: &'b mut [u8],
    length: usize,
    too_long: Option<usize>,
}

impl<'b> Writer<'b> {
    /// Writes from the first byte of `into` on.
    pub fn new(into: &'b mut [u8]) -> Self {
        Self { into, length: 0, too_long: None }
    }

    /// The length of the message in bytes.
    ///
    /// # Errors
    /// [`EncodeFault`]; what the buffer then holds is no message.
    pub fn finish(self) -> Result<usize, EncodeFault> {
        if let Some(length) = self.too_long {
            return Err(EncodeFault::TooLong { length });
        }
        let room = self.into.len();
        if self.length > room {
            return Err(EncodeFault::NoRoom { needed: self.length, room });
        }
        Ok(self.length)
    }

    /// Writes a byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Writes two bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Writes bytes as they stand.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(place) = self.into.get_mut(self.length..end) {
            place.copy_from_slice(bytes);
        }
        self.length = end;
    }

    /// Writes a reserved field of `count` bytes.
    pub fn reserved(&mut self, count: usize) {
        for _ in 0..count {
            self.u8(0);
        }
    }

    /// Writes `length` as a count of one byte.
    pub fn count_u8(&mut self, length: usize) {
        let count = u8::try_from(length).unwrap_or_else(|_| self.refuse(length));
        self.u8(count);
    }

    /// Writes `length` as a count of two bytes.
    pub fn count_u16(&mut self, length: usize) {
        let count = u16::try_from(length).unwrap_or_else(|_| self.refuse(length));
        self.u16(count);
    }

    /// Writes `length` as a count of four bytes.
    pub fn count_u32(&mut self, length: usize) {
        let count = u32::try_from(length).unwrap_or_else(|_| self.refuse(length));
        self.u32(count);
    }

    fn refuse<T: Default>(&mut self, length: usize) -> T {
        self.too_long = Some(length);
        T::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_must_be_emptied() {
        let read = |bytes| Reader::all("M", bytes, |r| Ok((r.u8()?, r.u16()?)));
        assert_eq!(read(&[1, 2, 3]), Ok((1, 0x302)));
        assert_eq!(read(&[1, 2]), Err(PeerFault::Short { message: "M", missing: 1 }));
        assert_eq!(read(&[1, 2, 3, 4]), Err(PeerFault::Trailing { message: "M", left: 1 }));
    }

    #[test]
    fn a_writer_says_what_it_lacks() {
        let mut room = [0; 3];
        let mut writer = Writer::new(&mut room);
        writer.u16(0x0201);
        writer.u32(7);
        assert_eq!(writer.finish(), Err(EncodeFault::NoRoom { needed: 6, room: 3 }));
        let mut writer = Writer::new(&mut room);
        writer.count_u8(256);
        assert_eq!(writer.finish(), Err(EncodeFault::TooLong { length: 256 }));
        let mut writer = Writer::new(&mut room);
        writer.u8(9);
        writer.reserved(2);
        assert_eq!(writer.finish(), Ok(3));
        assert_eq!(room, [9, 0, 0]);
    }
}
