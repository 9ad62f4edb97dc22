//! Secured messages 1.1: records under the keys of a session.
//!
//! A [`Sealer`] makes records of one direction, an [`Opener`] opens them; each counts its own
//! records, and the count is never on the wire. After a record that does not open, an [`Opener`]
//! opens no other: a peer gets one guess. Deliberately absent: records that are only authenticated.
//!
//! Source: \[DSP0277\]; what the binding to DOE leaves away (sequence number, random bytes) as seen in
//! real sessions.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use crate::algorithm::Aead;
use crate::crypto::{AeadKey, CryptoFault};
use crate::fault::{Error, PeerFault, Refusal};
use crate::key_schedule::TrafficSecret;
use crate::wire::{Reader, Writer};

/// Bytes before the ciphertext: the session and a length. They are authenticated.
const HEADER_BYTES: usize = 6;
/// Bytes before the message inside of the ciphertext: its length.
const LENGTH_BYTES: usize = 2;
/// Bytes that sealing adds to a message.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + LENGTH_BYTES + Aead::TAG_BYTES;

/// Both sides' numbers for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// The requester's.
    pub requester: u16,
    /// The responder's.
    pub responder: u16,
}

impl SessionId {
    /// Both in one: the requester's in the low half.
    pub const fn joined(self) -> u32 {
        (self.responder as u32) << 16 | self.requester as u32
    }

    /// Which session a record names.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn of_record(record: &[u8]) -> Result<Self, PeerFault> {
        Reader::all("a record", record, |r| {
            let id = Self { requester: r.u16()?, responder: r.u16()? };
            r.rest();
            Ok(id)
        })
    }
}

/// Makes the records of one direction.
pub struct Sealer(Direction);

impl Sealer {
    /// Begins with sequence number 0.
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`].
    pub fn new(id: SessionId, traffic: TrafficSecret) -> Result<Self, CryptoFault> {
        Ok(Self(Direction::new(id, traffic)?))
    }

    /// The record with `message`.
    ///
    /// # Errors
    /// [`Refusal::TooLong`]; [`Refusal::SpentKeys`] after 2^64 - 1 records; [`Error::Crypto`].
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, Error> {
        const MAX: usize = u16::MAX as usize - LENGTH_BYTES - Aead::TAG_BYTES;
        if message.len() > MAX {
            return Err(Refusal::TooLong { length: message.len(), max: MAX }.into());
        }
        let nonce = self.0.next_nonce().ok_or(Refusal::SpentKeys)?;
        let mut header = Writer::with_capacity(OVERHEAD_BYTES + message.len());
        header.u16(self.0.id.requester);
        header.u16(self.0.id.responder);
        header.count_u16(LENGTH_BYTES + message.len() + Aead::TAG_BYTES);
        let mut record = header.finish()?;
        // With room for the tag: a message that is moved leaves a copy behind.
        let mut inner = Writer::with_capacity(LENGTH_BYTES + message.len() + Aead::TAG_BYTES);
        inner.count_u16(message.len());
        inner.bytes(message);
        let mut text = inner.finish()?;
        self.0.key.seal(nonce, &record, &mut text)?;
        record.extend_from_slice(&text);
        Ok(record)
    }

    /// Goes on with the next key, from sequence number 0.
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`].
    pub fn update(&mut self) -> Result<(), CryptoFault> {
        self.0 = self.0.updated()?;
        Ok(())
    }
}

/// Opens the records of one direction.
pub struct Opener(Direction);

impl Opener {
    /// Begins with sequence number 0.
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`].
    pub fn new(id: SessionId, traffic: TrafficSecret) -> Result<Self, CryptoFault> {
        Ok(Self(Direction::new(id, traffic)?))
    }

    /// The message in `record`, which may be padded to a double word.
    ///
    /// # Errors
    /// [`PeerFault::Short`], [`PeerFault::Trailing`], [`PeerFault::UnexpectedSession`],
    /// [`PeerFault::Forged`], [`PeerFault::SpentKeys`]. Each ends this direction.
    pub fn open(&mut self, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, PeerFault> {
        let opened = self.try_open(record);
        if opened.is_err() {
            self.0.next = None;
        }
        opened
    }

    /// Goes on with the next key, from sequence number 0.
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`].
    pub fn update(&mut self) -> Result<(), CryptoFault> {
        self.0 = self.0.updated()?;
        Ok(())
    }

    fn try_open(&mut self, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, PeerFault> {
        let (sealed, _) = Reader::padded("a record", record, |r| {
            let id = SessionId { requester: r.u16()?, responder: r.u16()? };
            if id != self.0.id {
                return Err(PeerFault::UnexpectedSession { found: id.joined() });
            }
            let length = r.u16()?;
            r.bytes(length.into())
        })?;
        let nonce = self.0.next_nonce().ok_or(PeerFault::SpentKeys)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        self.0
            .key
            .open(nonce, &record[..HEADER_BYTES], &mut text)
            .map_err(|_| PeerFault::Forged)?;
        // What follows the message is random bytes that hide its length.
        Reader::all("a record", &text, |r| {
            let length = r.u16()?;
            let message = r.bytes(length.into())?;
            r.rest();
            Ok(Zeroizing::new(message.to_vec()))
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({:?}, next {:?})", self.0.id, self.0.next)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({:?}, next {:?})", self.0.id, self.0.next)
    }
}

/// One direction of a session.
struct Direction {
    id: SessionId,
    traffic: TrafficSecret,
    key: Box<dyn AeadKey>,
    iv: Zeroizing<[u8; Aead::NONCE_BYTES]>,
    /// The next sequence number; `None` once the key may not be used any more.
    next: Option<u64>,
}

impl Direction {
    fn new(id: SessionId, traffic: TrafficSecret) -> Result<Self, CryptoFault> {
        let (crypto, aead) = traffic.provider();
        let key = crypto.aead_key(aead, traffic.key().expose())?;
        let iv = traffic.iv();
        Ok(Self { id, traffic, key, iv, next: Some(0) })
    }

    /// The same direction under the next key; a direction that is spent stays so.
    fn updated(&self) -> Result<Self, CryptoFault> {
        let updated = Self::new(self.id, self.traffic.updated())?;
        Ok(Self { next: self.next.and(updated.next), ..updated })
    }

    /// The number is little-endian and lies over the first bytes of the IV.
    fn next_nonce(&mut self) -> Option<[u8; Aead::NONCE_BYTES]> {
        let number = self.next.filter(|&number| number != u64::MAX)?;
        self.next = Some(number + 1);
        let mut nonce = *self.iv;
        for (byte, of_number) in nonce.iter_mut().zip(number.to_le_bytes()) {
            *byte ^= of_number;
        }
        Some(nonce)
    }
}

#[cfg(all(test, feature = "aws-lc"))]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::algorithm::{Group, Selected, Suite, Version};
    use crate::crypto::Secret;
    use crate::crypto::aws_lc::AwsLc;
    use crate::key_schedule::{Handshake, Side};

    const ID: SessionId = SessionId { requester: 1, responder: 2 };

    fn pair() -> (Sealer, Opener) {
        let selected = Selected {
            version: Version::V13,
            suite: Suite::P256Sha256,
            group: Group::Secp256r1,
            aead: Aead::Aes256Gcm,
        };
        let handshake = Handshake::new(&AwsLc, selected, &Secret::new(vec![7; 32]), &[1; 32]);
        let traffic = handshake.traffic(Side::Requester);
        let sealer = Sealer::new(ID, traffic.clone()).unwrap();
        (sealer, Opener::new(ID, traffic.clone()).unwrap())
    }

    #[test]
    fn sequence_numbers_are_never_used_twice() {
        let (mut sealer, mut opener) = pair();
        (sealer.0.next, opener.0.next) = (Some(u64::MAX - 1), Some(u64::MAX - 1));
        let record = sealer.seal(b"last").unwrap();
        assert_eq!(opener.open(&record).unwrap().as_slice(), b"last");
        assert_eq!(sealer.seal(b"one more"), Err(Refusal::SpentKeys.into()));
        assert_eq!(opener.open(&record), Err(PeerFault::SpentKeys));
        sealer.update().unwrap();
        opener.update().unwrap();
        assert!(opener.open(&record).is_err());
    }

    #[test]
    fn records_come_in_order_and_once() {
        for order in [[1, 0], [0, 0]] {
            let (mut sealer, mut opener) = pair();
            let records = [b"a", b"b"].map(|text| sealer.seal(text).unwrap());
            let opened = order.map(|at: usize| opener.open(&records[at]).is_ok());
            assert_eq!(opened, [order[0] == 0, false]);
            assert_eq!(opener.open(&records[1]), Err(PeerFault::SpentKeys), "one guess");
        }
    }
}
