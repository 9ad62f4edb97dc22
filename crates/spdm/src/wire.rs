//! Little-endian fields out of bytes and into bytes.
//!
//! A [`Reader`] must be emptied, a [`Writer`] remembers what it could not say; neither can panic.
//! Reserved fields have one policy for all messages: written as zero, ignored when read.

use alloc::vec::Vec;

use crate::fault::{PeerFault, Refusal};

/// A mailbox carries double words: at most so many bytes of zero may follow a message.
const PADDING_BYTES_MAX: usize = 3;

/// Takes fields off the front of a message.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    message: &'static str,
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads all of `bytes`, which are called `message` in what is refused. Gives what was read, and
    /// the length of the message in bytes: without the zeros that pad it to a double word.
    ///
    /// # Errors
    /// What `read` refuses, and [`PeerFault::Trailing`] where it left more than padding.
    pub fn padded<T>(
        message: &'static str,
        bytes: &'a [u8],
        read: impl FnOnce(&mut Self) -> Result<T, PeerFault>,
    ) -> Result<(T, usize), PeerFault> {
        let mut reader = Self::new(message, bytes);
        let value = read(&mut reader)?;
        let left = reader.rest.len();
        if left > PADDING_BYTES_MAX || reader.rest.iter().any(|&byte| byte != 0) {
            return Err(PeerFault::Trailing { message, left });
        }
        Ok((value, bytes.len() - left))
    }

    /// Reads all of `bytes`, which nothing pads.
    ///
    /// # Errors
    /// What `read` refuses, and [`PeerFault::Trailing`] where it left bytes.
    pub fn all<T>(
        message: &'static str,
        bytes: &'a [u8],
        read: impl FnOnce(&mut Self) -> Result<T, PeerFault>,
    ) -> Result<T, PeerFault> {
        let mut reader = Self::new(message, bytes);
        let value = read(&mut reader)?;
        match reader.rest.len() {
            0 => Ok(value),
            left => Err(PeerFault::Trailing { message, left }),
        }
    }

    fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, all: bytes, rest: bytes }
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

    /// Reads three bytes.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn u24(&mut self) -> Result<u32, PeerFault> {
        let [low, middle, high] = self.array()?;
        Ok(u32::from_le_bytes([low, middle, high, 0]))
    }

    /// Reads four bytes.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn u32(&mut self) -> Result<u32, PeerFault> {
        Ok(u32::from_le_bytes(self.array()?))
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

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.all.len() - self.rest.len()
    }

    /// A fault of the message being read: `field` may not hold `value`.
    pub fn unknown(&self, field: &'static str, value: impl Into<u64>) -> PeerFault {
        PeerFault::UnknownValue { message: self.message, field, value: value.into() }
    }

    fn short(&self, wanted: usize) -> PeerFault {
        let missing = wanted.saturating_sub(self.rest.len());
        PeerFault::Short { message: self.message, missing }
    }
}

/// Puts fields at the end of a message. What a count cannot say is refused at the end.
#[derive(Debug)]
pub struct Writer {
    into: Vec<u8>,
    refused: Option<Refusal>,
}

impl Default for Writer {
    /// Most messages fit without growing.
    fn default() -> Self {
        Self::with_capacity(128)
    }
}

impl Writer {
    /// A writer of so many bytes, which need not be moved while they are written.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { into: Vec::with_capacity(bytes), refused: None }
    }

    /// The message.
    ///
    /// # Errors
    /// [`Refusal::TooLong`] where a field is longer than its count can say.
    pub fn finish(self) -> Result<Vec<u8>, Refusal> {
        match self.refused {
            Some(refusal) => Err(refusal),
            None => Ok(self.into),
        }
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

    /// Writes bytes as they stand.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.into.extend_from_slice(bytes);
    }

    /// Writes a reserved field of `count` bytes.
    pub fn reserved(&mut self, count: usize) {
        self.into.resize(self.into.len() + count, 0);
    }

    /// Writes `length` as a count of one byte.
    pub fn count_u8(&mut self, length: usize) {
        let count = u8::try_from(length).unwrap_or_else(|_| self.refuse(length, u8::MAX.into()));
        self.u8(count);
    }

    /// Writes `length` as a count of two bytes.
    pub fn count_u16(&mut self, length: usize) {
        let count = u16::try_from(length).unwrap_or_else(|_| self.refuse(length, u16::MAX.into()));
        self.u16(count);
    }

    /// Writes `length` as a count of three bytes.
    pub fn count_u24(&mut self, length: usize) {
        const MAX: usize = 0xff_ffff;
        let count = match u32::try_from(length) {
            Ok(count) if length <= MAX => count,
            _ => self.refuse(length, MAX),
        };
        let [low, middle, high, _] = count.to_le_bytes();
        self.bytes(&[low, middle, high]);
    }

    /// Writes `length` as a count of four bytes.
    pub fn count_u32(&mut self, length: usize) {
        let count = u32::try_from(length).unwrap_or_else(|_| self.refuse(length, usize::MAX));
        self.u32(count);
    }

    fn refuse<T: Default>(&mut self, length: usize, max: usize) -> T {
        self.refused = Some(Refusal::TooLong { length, max });
        T::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_must_be_emptied_but_for_padding() {
        let read = |bytes| Reader::padded("M", bytes, |r| Ok((r.u8()?, r.u16()?)));
        assert_eq!(read(&[1, 2, 3]), Ok(((1, 0x302), 3)));
        assert_eq!(read(&[1, 2, 3, 0, 0, 0]), Ok(((1, 0x302), 3)));
        assert_eq!(read(&[1, 2]), Err(PeerFault::Short { message: "M", missing: 1 }));
        assert_eq!(read(&[1, 2, 3, 4]), Err(PeerFault::Trailing { message: "M", left: 1 }));
        assert_eq!(read(&[0; 7]), Err(PeerFault::Trailing { message: "M", left: 4 }));
    }

    #[test]
    fn what_nothing_pads_has_no_padding() {
        let read = |bytes| Reader::all("M", bytes, Reader::u24);
        assert_eq!(read(&[1, 2, 3]), Ok(0x03_0201));
        assert_eq!(read(&[1, 2, 3, 0]), Err(PeerFault::Trailing { message: "M", left: 1 }));
    }

    #[test]
    fn a_writer_refuses_what_a_count_cannot_say() {
        let mut writer = Writer::default();
        writer.count_u8(256);
        assert_eq!(writer.finish(), Err(Refusal::TooLong { length: 256, max: 255 }));
        let mut writer = Writer::default();
        writer.count_u24(0x1_02_03_04);
        assert!(writer.finish().is_err());
        let mut writer = Writer::default();
        writer.count_u24(0x02_03_04);
        writer.reserved(2);
        assert_eq!(writer.finish(), Ok(alloc::vec![4, 3, 2, 0, 0]));
    }
}
