//! Every message as a value: a file for each exchange, with the request and its response.
//!
//! [`encode`] and [`decode`] are the doors. Some fields have no length on the wire: it follows from
//! what was negotiated and asked, which [`Shape`] says. A decoder refuses what is left over, but for
//! the zeros that pad a message in a mailbox, and gives the message's own length, because padding
//! is no part of a transcript. Takes no lock and does no IO.
//!
//! Deliberately absent: pre-shared keys, mutual authentication and its encapsulated requests, CSR,
//! SET_CERTIFICATE, key pairs, measurement logs, events.
//!
//! Source: \[DSP0274\]; real sessions.

mod algorithms;
mod capabilities;
mod certificate;
mod challenge;
mod chunk;
mod digests;
mod error;
mod key_exchange;
mod measurements;
mod opaque;
mod session;
mod vendor_defined;
mod version;

use alloc::vec::Vec;
use core::fmt;

pub use algorithms::{Algorithms, NegotiateAlgorithms, OTHER_PARAMS_OPAQUE_FORMAT_1, Structure};
pub use capabilities::{Capabilities, CapabilityFlags, GetCapabilities, Limits};
pub use certificate::{Certificate, GetCertificate};
pub use challenge::{Challenge, ChallengeAuth};
pub use chunk::{ChunkGet, ChunkResponse, ChunkSend, ChunkSendAck};
pub use digests::{Digests, GetDigests};
pub use error::{ErrorCode, ErrorMessage, NotReady, RespondIfReady};
pub use key_exchange::{Finish, FinishResponse, KeyExchange, KeyExchangeResponse};
pub use measurements::{Block, GetMeasurements, Measurements, OPERATION_ALL};
pub use opaque::{
    SECURED_MESSAGE_1_1, read_selected, read_supported, selected_secured_version,
    supported_secured_versions,
};
pub use session::{
    EndSession, EndSessionAck, Heartbeat, HeartbeatAck, KeyOperation, KeyUpdate, KeyUpdateAck,
};
pub use vendor_defined::{STANDARD_PCI_SIG, VENDOR_PCI_SIG, VendorDefined, VendorResponse};
pub use version::{GetVersion, VERSION_1_0, VersionResponse};

use crate::algorithm::{Selected, Version};
use crate::fault::{PeerFault, Refusal};
use crate::wire::{Reader, Writer};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of the context that a requester of 1.3 sends along.
pub const CONTEXT_BYTES: usize = 8;
/// Bytes before the first field: version, code, two parameters.
pub const HEADER_BYTES: usize = 4;
/// The opaque data that may stand in a message, in bytes.
pub const OPAQUE_BYTES_MAX: usize = 1024;

/// The second byte of a message: what it is. Keeps what was sent, known or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

macro_rules! codes {
    ($($name:ident = $value:literal;)*) => {
        #[expect(missing_docs, reason = "each is the name that the specification gives it")]
        impl Code {
            $(pub const $name: Self = Self($value);)*

            fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    DIGESTS = 0x01;
    CERTIFICATE = 0x02;
    CHALLENGE_AUTH = 0x03;
    VERSION = 0x04;
    CHUNK_SEND_ACK = 0x05;
    CHUNK_RESPONSE = 0x06;
    MEASUREMENTS = 0x60;
    CAPABILITIES = 0x61;
    ALGORITHMS = 0x63;
    KEY_EXCHANGE_RSP = 0x64;
    FINISH_RSP = 0x65;
    PSK_EXCHANGE_RSP = 0x66;
    PSK_FINISH_RSP = 0x67;
    HEARTBEAT_ACK = 0x68;
    KEY_UPDATE_ACK = 0x69;
    ENCAPSULATED_REQUEST = 0x6a;
    ENCAPSULATED_RESPONSE_ACK = 0x6b;
    END_SESSION_ACK = 0x6c;
    CSR = 0x6d;
    SET_CERTIFICATE_RSP = 0x6e;
    VENDOR_DEFINED_RESPONSE = 0x7e;
    ERROR = 0x7f;
    GET_DIGESTS = 0x81;
    GET_CERTIFICATE = 0x82;
    CHALLENGE = 0x83;
    GET_VERSION = 0x84;
    CHUNK_SEND = 0x85;
    CHUNK_GET = 0x86;
    GET_MEASUREMENTS = 0xe0;
    GET_CAPABILITIES = 0xe1;
    NEGOTIATE_ALGORITHMS = 0xe3;
    KEY_EXCHANGE = 0xe4;
    FINISH = 0xe5;
    PSK_EXCHANGE = 0xe6;
    PSK_FINISH = 0xe7;
    HEARTBEAT = 0xe8;
    KEY_UPDATE = 0xe9;
    GET_ENCAPSULATED_REQUEST = 0xea;
    DELIVER_ENCAPSULATED_RESPONSE = 0xeb;
    END_SESSION = 0xec;
    GET_CSR = 0xed;
    SET_CERTIFICATE = 0xee;
    VENDOR_DEFINED_REQUEST = 0xfe;
    RESPOND_IF_READY = 0xff;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "message {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first bytes of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version, as [`Version::wire`].
    pub version: u8,
    /// What the message is.
    pub code: Code,
    /// Means something else in each message.
    pub parameter1: u8,
    /// Likewise.
    pub parameter2: u8,
}

impl Header {
    /// Reads the header of a message of any kind.
    ///
    /// # Errors
    /// [`PeerFault::Short`].
    pub fn of(message: &[u8]) -> Result<Self, PeerFault> {
        Reader::all("a message", message, |r| {
            let header = Self::read(r)?;
            r.rest();
            Ok(header)
        })
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, PeerFault> {
        Ok(Self { version: r.u8()?, code: Code(r.u8()?), parameter1: r.u8()?, parameter2: r.u8()? })
    }
}

/// What a message's bytes do not say themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The version spoken; all versions of VERSION and GET_VERSION look alike.
    pub version: Version,
    /// Bytes of a hash.
    pub hash_bytes: usize,
    /// Bytes of a signature.
    pub signature_bytes: usize,
    /// Bytes of a public key of the key exchange.
    pub exchange_bytes: usize,
    /// Whether a summary of measurements was asked for.
    pub summary: bool,
    /// Whether a signature was asked for.
    pub signed: bool,
}

impl Shape {
    /// Before anything is negotiated: for GET_VERSION to ALGORITHMS.
    pub const fn unnegotiated(version: Version) -> Self {
        Self {
            version,
            hash_bytes: 0,
            signature_bytes: 0,
            exchange_bytes: 0,
            summary: false,
            signed: false,
        }
    }

    /// After ALGORITHMS: nothing signed, no summary asked for.
    pub const fn negotiated(selected: Selected) -> Self {
        Self {
            version: selected.version,
            hash_bytes: selected.suite.hash_bytes(),
            signature_bytes: selected.suite.signature_bytes(),
            exchange_bytes: selected.group.public_bytes(),
            summary: false,
            signed: false,
        }
    }

    /// Bytes of a summary of measurements.
    const fn summary_bytes(&self) -> usize {
        if self.summary { self.hash_bytes } else { 0 }
    }

    /// Bytes of a signature that is there only if asked for.
    const fn asked_signature_bytes(&self) -> usize {
        if self.signed { self.signature_bytes } else { 0 }
    }
}

/// A message: its code and how its fields lie.
pub trait Message: Sized {
    /// What it is.
    const CODE: Code;
    /// Its name, for what is refused.
    const NAME: &'static str;

    /// Both parameters of its header.
    fn parameters(&self) -> (u8, u8) {
        (0, 0)
    }

    /// The version in its header.
    fn version(shape: &Shape) -> u8 {
        shape.version.wire()
    }

    /// Writes what follows the header.
    fn write(&self, w: &mut Writer, shape: &Shape);

    /// Reads what follows the header.
    ///
    /// # Errors
    /// [`PeerFault::Short`], [`PeerFault::UnknownValue`], [`PeerFault::Oversized`].
    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault>;
}

/// The bytes of a message.
///
/// # Errors
/// [`Refusal::TooLong`] where a field is longer than its count can say.
pub fn encode<M: Message>(message: &M, shape: &Shape) -> Result<Vec<u8>, Refusal> {
    let mut writer = Writer::default();
    let (parameter1, parameter2) = message.parameters();
    writer.bytes(&[M::version(shape), M::CODE.0, parameter1, parameter2]);
    message.write(&mut writer, shape);
    writer.finish()
}

/// The message in `bytes`, and its length without padding.
///
/// # Errors
/// [`PeerFault::UnexpectedCode`], [`PeerFault::UnexpectedVersion`], [`PeerFault::Short`],
/// [`PeerFault::Trailing`], [`PeerFault::UnknownValue`], [`PeerFault::Oversized`].
pub fn decode<M: Message>(bytes: &[u8], shape: &Shape) -> Result<(M, usize), PeerFault> {
    Reader::padded(M::NAME, bytes, |r| {
        let header = Header::read(r)?;
        if header.code != M::CODE {
            return Err(PeerFault::UnexpectedCode { expected: M::CODE, found: header.code });
        }
        let expected = M::version(shape);
        if header.version != expected {
            return Err(PeerFault::UnexpectedVersion { expected, found: header.version });
        }
        M::read(header, r, shape)
    })
}

/// Implements [`Message`] for one that is a header without parameters.
macro_rules! bare_message {
    ($name:ident, $code:ident) => {
        impl crate::message::Message for $name {
            const CODE: crate::message::Code = crate::message::Code::$code;
            const NAME: &'static str = stringify!($code);

            fn write(&self, _: &mut crate::wire::Writer, _: &crate::message::Shape) {}

            fn read(
                _: crate::message::Header,
                _: &mut crate::wire::Reader<'_>,
                _: &crate::message::Shape,
            ) -> Result<Self, crate::fault::PeerFault> {
                Ok(Self)
            }
        }
    };
}
use bare_message;

/// The number of the slot in the low nibble of a parameter.
const SLOT_MASK: u8 = 0x0f;
/// Slots of certificates are numbered from 0 to this.
pub const SLOT_MAX: u8 = 7;

fn read_slot(r: &Reader<'_>, parameter: u8) -> Result<u8, PeerFault> {
    let slot = parameter & SLOT_MASK;
    if slot > SLOT_MAX { Err(r.unknown("slot", slot)) } else { Ok(slot) }
}

/// Reads opaque data behind its length.
fn read_opaque(r: &mut Reader<'_>) -> Result<Vec<u8>, PeerFault> {
    let length = usize::from(r.u16()?);
    if length > OPAQUE_BYTES_MAX {
        return Err(PeerFault::Oversized { length: length as u64, max: OPAQUE_BYTES_MAX as u64 });
    }
    Ok(r.bytes(length)?.to_vec())
}

fn write_opaque(w: &mut Writer, opaque: &[u8]) {
    w.count_u16(opaque.len());
    w.bytes(opaque);
}

/// Reads a requester's context, if the version has one.
fn read_context(r: &mut Reader<'_>, shape: &Shape) -> Result<[u8; CONTEXT_BYTES], PeerFault> {
    if shape.version.has_context() { r.array() } else { Ok([0; CONTEXT_BYTES]) }
}

fn write_context(w: &mut Writer, shape: &Shape, context: &[u8; CONTEXT_BYTES]) {
    if shape.version.has_context() {
        w.bytes(context);
    }
}
