//! IDE_KM: keys for the streams of a link.
//!
//! [`Request`] and [`Response`] are the messages, [`KeyTable`] is a device's side of them. Keys
//! pass through and are not kept. Source: [pci_idekm.h]; byte order of keys from tee-io-validator's
//! `key_byte_order`.

mod keys;

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{EncodeFault, PeerFault, Reader, Writer};

pub use keys::{KeyAnswer, KeyTable, NoAnswer, Port, PortLocation};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

const IV_BYTES: usize = 8;

mod object {
    pub(super) const QUERY: u8 = 0;
    pub(super) const QUERY_RESP: u8 = 1;
    pub(super) const KEY_PROG: u8 = 2;
    pub(super) const KP_ACK: u8 = 3;
    pub(super) const K_SET_GO: u8 = 4;
    pub(super) const K_SET_STOP: u8 = 5;
    pub(super) const K_SET_GOSTOP_ACK: u8 = 6;
}

/// What a TSM asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// QUERY: where is the port of this index, and what are its registers?
    Query {
        /// The port.
        port: u8,
    },
    /// KEY_PROG: here is a key.
    KeyProg {
        /// What the key is for.
        key: KeyId,
        /// The key.
        material: KeyMaterial,
    },
    /// K_SET_GO: use the key.
    SetGo(KeyId),
    /// K_SET_STOP: use the key no more.
    SetStop(KeyId),
}

/// What a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// QUERY_RESP.
    QueryResp {
        /// The port asked about.
        port: u8,
        /// Where the port is.
        location: PortLocation,
        /// The highest index of a port.
        port_max: u8,
        /// The IDE extended capability from its second dword on.
        registers: &'a [u8],
    },
    /// KP_ACK.
    KeyProgAck {
        /// What the key is for.
        key: KeyId,
        /// What became of it.
        status: KeyStatus,
    },
    /// K_SET_GOSTOP_ACK.
    GoStopAck(KeyId),
}

/// Which key: stream, port, and within them set, direction and sub-stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId {
    /// The stream.
    pub stream: u8,
    /// Set, direction and sub-stream.
    pub kind: KeyKind,
    /// The port.
    pub port: u8,
}

/// Set, direction and sub-stream of a key, as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyKind(pub u8);

impl KeyKind {
    const SET: u8 = 1 << 0;
    const TRANSMIT: u8 = 1 << 1;
    const SUB_STREAM_SHIFT: u8 = 4;

    /// A kind from its parts; `set` is 0 or 1.
    pub const fn new(set: bool, direction: Direction, sub_stream: SubStream) -> Self {
        let direction = match direction {
            Direction::Receive => 0,
            Direction::Transmit => Self::TRANSMIT,
        };
        Self(set as u8 | direction | (sub_stream as u8) << Self::SUB_STREAM_SHIFT)
    }

    /// Whether the key is of set 1.
    pub const fn set(self) -> bool {
        self.0 & Self::SET != 0
    }

    /// The direction, seen from the port.
    pub const fn direction(self) -> Direction {
        if self.0 & Self::TRANSMIT == 0 { Direction::Receive } else { Direction::Transmit }
    }

    /// The sub-stream, where it is known.
    pub const fn sub_stream(self) -> Option<SubStream> {
        match self.0 >> Self::SUB_STREAM_SHIFT {
            0 => Some(SubStream::Posted),
            1 => Some(SubStream::NonPosted),
            2 => Some(SubStream::Completion),
            _ => None,
        }
    }
}

/// The direction of a key, seen from the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// RX.
    Receive,
    /// TX.
    Transmit,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Receive, Self::Transmit];
}

/// The sub-stream of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SubStream {
    /// PR.
    Posted = 0,
    /// NPR.
    NonPosted = 1,
    /// CPL.
    Completion = 2,
}

impl SubStream {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Posted, Self::NonPosted, Self::Completion];
}

/// A key and the part of the IV that counts, in the order of the wire. Not printed, compared in constant
/// time, and wiped when it is dropped.
#[derive(Clone, Eq)]
pub struct KeyMaterial {
    /// Eight dwords, the most significant first, each little-endian.
    pub key: [u8; KEY_BYTES],
    /// IFV: two dwords, the most significant first, each little-endian.
    pub iv: [u8; IV_BYTES],
}

impl KeyMaterial {
    /// From a key in the order of AES-GCM, most significant byte first, and the first value of the
    /// IV.
    pub fn new(key: [u8; KEY_BYTES], iv: u64) -> Self {
        let mut material = Self { key, iv: iv.to_be_bytes() };
        reverse_dwords(&mut material.key);
        reverse_dwords(&mut material.iv);
        material
    }

    /// The key in the order of AES-GCM.
    pub fn key(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut key = Zeroizing::new(self.key);
        reverse_dwords(&mut *key);
        key
    }

    /// The first value of the IV.
    pub fn iv(&self) -> u64 {
        let mut iv = self.iv;
        reverse_dwords(&mut iv);
        u64::from_be_bytes(iv)
    }
}

fn reverse_dwords(bytes: &mut [u8]) {
    bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
}

impl PartialEq for KeyMaterial {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.key.iter().chain(&self.iv).zip(other.key.iter().chain(&other.iv));
        let differing = pairs.fold(0, |bits, (a, b)| bits | (a ^ b));
        core::hint::black_box(differing) == 0
    }
}

impl Drop for KeyMaterial {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}

impl ZeroizeOnDrop for KeyMaterial {}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaterial(..)")
    }
}

/// What became of a key, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyStatus(pub u8);

impl KeyStatus {
    /// It is programmed.
    pub const SUCCESS: Self = Self(0);
    /// The message has the wrong length.
    pub const INCORRECT_LENGTH: Self = Self(1);
    /// There is no such port.
    pub const UNSUPPORTED_PORT: Self = Self(2);
    /// Another field makes no sense.
    pub const UNSUPPORTED_VALUE: Self = Self(3);
    /// Something else.
    pub const UNSPECIFIED: Self = Self(4);
}

impl Request {
    /// Reads a whole message.
    ///
    /// # Errors
    /// [`PeerFault::Short`] or [`PeerFault::Trailing`] where the length is wrong,
    /// [`PeerFault::UnknownValue`] where this is no request.
    pub fn decode(message: &[u8]) -> Result<Self, PeerFault> {
        Reader::all("IDE_KM request", message, |reader| match reader.u8()? {
            object::QUERY => {
                reader.reserved(1)?;
                Ok(Self::Query { port: reader.u8()? })
            }
            object::KEY_PROG => Ok(Self::KeyProg {
                key: KeyId::read(reader)?.0,
                material: KeyMaterial { key: reader.array()?, iv: reader.array()? },
            }),
            object::K_SET_GO => Ok(Self::SetGo(KeyId::read(reader)?.0)),
            object::K_SET_STOP => Ok(Self::SetStop(KeyId::read(reader)?.0)),
            other => Err(unknown("IDE_KM request", other)),
        })
    }

    /// Writes the message and returns its length in bytes.
    ///
    /// # Errors
    /// [`EncodeFault::NoRoom`].
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeFault> {
        let mut writer = Writer::new(into);
        match self {
            Self::Query { port } => writer.bytes(&[object::QUERY, 0, *port]),
            Self::KeyProg { key, material } => {
                key.write(object::KEY_PROG, 0, &mut writer);
                writer.bytes(&material.key);
                writer.bytes(&material.iv);
            }
            Self::SetGo(key) => key.write(object::K_SET_GO, 0, &mut writer),
            Self::SetStop(key) => key.write(object::K_SET_STOP, 0, &mut writer),
        }
        writer.finish()
    }
}

impl<'a> Response<'a> {
    /// Reads a whole message.
    ///
    /// # Errors
    /// [`PeerFault::Short`] or [`PeerFault::Trailing`] where the length is wrong,
    /// [`PeerFault::UnknownValue`] where this is no response.
    pub fn decode(message: &'a [u8]) -> Result<Self, PeerFault> {
        Reader::all("IDE_KM response", message, |reader| match reader.u8()? {
            object::QUERY_RESP => {
                reader.reserved(1)?;
                Ok(Self::QueryResp {
                    port: reader.u8()?,
                    location: PortLocation {
                        devfn: reader.u8()?,
                        bus: reader.u8()?,
                        segment: reader.u8()?,
                    },
                    port_max: reader.u8()?,
                    registers: reader.rest(),
                })
            }
            object::KP_ACK => {
                let (key, status) = KeyId::read(reader)?;
                Ok(Self::KeyProgAck { key, status: KeyStatus(status) })
            }
            object::K_SET_GOSTOP_ACK => Ok(Self::GoStopAck(KeyId::read(reader)?.0)),
            other => Err(unknown("IDE_KM response", other)),
        })
    }

    /// Writes the message and returns its length in bytes.
    ///
    /// # Errors
    /// [`EncodeFault::NoRoom`].
    pub fn encode(&self, into: &mut [u8]) -> Result<usize, EncodeFault> {
        let mut writer = Writer::new(into);
        match self {
            Self::QueryResp { port, location, port_max, registers } => {
                let PortLocation { devfn, bus, segment } = *location;
                writer.bytes(&[object::QUERY_RESP, 0, *port, devfn, bus, segment, *port_max]);
                writer.bytes(registers);
            }
            Self::KeyProgAck { key, status } => key.write(object::KP_ACK, status.0, &mut writer),
            Self::GoStopAck(key) => key.write(object::K_SET_GOSTOP_ACK, 0, &mut writer),
        }
        writer.finish()
    }
}

impl KeyId {
    /// Reads what follows the object id: the key, and the byte that holds the status in KP_ACK and
    /// nothing elsewhere.
    fn read(reader: &mut Reader<'_>) -> Result<(Self, u8), PeerFault> {
        reader.reserved(2)?;
        let (stream, status) = (reader.u8()?, reader.u8()?);
        Ok((Self { stream, kind: KeyKind(reader.u8()?), port: reader.u8()? }, status))
    }

    fn write(self, object: u8, status: u8, writer: &mut Writer<'_>) {
        writer.bytes(&[object, 0, 0, self.stream, status, self.kind.0, self.port]);
    }
}

fn unknown(message: &'static str, object: u8) -> PeerFault {
    PeerFault::UnknownValue { message, field: "object id", value: object.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_in_dwords() {
        let key: [u8; KEY_BYTES] = core::array::from_fn(|i| u8::try_from(i).unwrap());
        let material = KeyMaterial::new(key, 1);
        assert_eq!(material.key[..8], [3, 2, 1, 0, 7, 6, 5, 4]);
        assert_eq!(material.iv, [0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!((*material.key(), material.iv()), (key, 1));
    }

    #[test]
    fn kinds_have_their_bits() {
        let kind = KeyKind::new(true, Direction::Transmit, SubStream::Completion);
        assert_eq!(kind, KeyKind(0x23));
        assert_eq!(KeyKind(0x10).sub_stream(), Some(SubStream::NonPosted));
        assert_eq!(KeyKind(0x30).sub_stream(), None);
        assert_eq!((kind.set(), kind.direction()), (true, Direction::Transmit));
    }
}
