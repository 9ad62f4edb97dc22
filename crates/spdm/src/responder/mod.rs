//! The side that answers: a device.
//!
//! [`Responder::handle`] takes a frame and gives the answer. It never fails: what a requester does
//! wrong is answered by ERROR, and what is wrong in a session ends it. [`Device`] is what the
//! responder asks of the device it stands for. Long messages come and go in chunks where both sides
//! can. Takes no lock and does no IO. Deliberately absent: answers that are not ready, a clock (a session without HEARTBEAT is ended by the caller,
//! [`Responder::end_session`]).

mod chunks;
mod evidence;
mod negotiation;
mod session;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::algorithm::{Aead, Group, Selected, Suite, Version};
use crate::certificate::Chain;
use crate::crypto::{Crypto, CryptoFault, Entropy, Hasher, Signer, hash};
use crate::endpoint::{Frame, transcript};
use crate::fault::{PeerFault, Refusal};
use crate::message::{
    Block, CapabilityFlags, Code, ErrorCode, ErrorMessage, Header, Limits, Message, Shape,
    VendorDefined, VendorResponse, decode, encode,
};
use crate::secured::{OVERHEAD_BYTES, SessionId};

use chunks::{Chunks, Terms};
use session::Session;

/// What the responder asks of its device.
pub trait Device {
    /// What runs on the device, ascending by index.
    fn measurements(&mut self) -> Vec<Block>;

    /// Another protocol's message, in a session or in the clear. `None`: there is no such protocol.
    fn vendor_defined(
        &mut self,
        session: Option<SessionId>,
        message: &VendorDefined,
    ) -> Option<VendorDefined>;

    /// A session is over, for whatever reason.
    fn session_ended(&mut self, session: SessionId);
}

/// A slot: a chain, and the private key of its leaf.
pub struct Identity {
    suite: Suite,
    chain: Vec<u8>,
    hash: Vec<u8>,
    signer: Box<dyn Signer>,
}

impl Identity {
    /// Puts `chain` into a slot.
    ///
    /// # Errors
    /// [`Refusal::TooLong`] where the chain has more than 64 KiB.
    pub fn new(
        crypto: &dyn Crypto,
        chain: &Chain,
        signer: Box<dyn Signer>,
    ) -> Result<Self, Refusal> {
        let (suite, chain) = (signer.suite(), chain.write()?);
        let hash = hash(crypto, suite, &chain);
        Ok(Self { suite, chain, hash, signer })
    }
}

/// What a responder offers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Versions that are spoken, ascending.
    pub versions: Vec<Version>,
    /// What CAPABILITIES tells.
    pub limits: Limits,
    /// Curves of the key exchange, best first.
    pub groups: Vec<Group>,
    /// Ciphers, best first.
    pub aeads: Vec<Aead>,
    /// Sessions at a time.
    pub sessions_max: usize,
    /// The longest time between two messages of a session, in seconds; 0: no heartbeat.
    pub heartbeat_s: u8,
}

/// The side that answers.
pub struct Responder {
    crypto: &'static dyn Crypto,
    entropy: Box<dyn Entropy>,
    config: Config,
    /// By slot, from 0.
    identities: Vec<Identity>,
    phase: Phase,
    sessions: Vec<Session>,
    session_number: u16,
}

impl Responder {
    /// A responder that nobody has spoken to. All `identities` have one suite, which is what is
    /// negotiated; slots are numbered from 0.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] without an identity, with more than 8, or with different suites.
    pub fn new(
        crypto: &'static dyn Crypto,
        entropy: Box<dyn Entropy>,
        config: Config,
        identities: Vec<Identity>,
    ) -> Result<Self, Refusal> {
        let suite = identities.first().map(|identity| identity.suite);
        let uniform = identities.iter().all(|identity| Some(identity.suite) == suite);
        if identities.is_empty() || identities.len() > SLOTS_MAX || !uniform {
            return Err(Refusal::Unsupported);
        }
        Ok(Self {
            crypto,
            entropy,
            config,
            identities,
            phase: Phase::Fresh,
            sessions: Vec::new(),
            session_number: 0,
        })
    }

    /// Answers a frame.
    pub fn handle(&mut self, device: &mut dyn Device, frame: &Frame) -> Frame {
        match frame {
            Frame::Clear(message) => Frame::Clear(self.answer(device, message)),
            Frame::Secured(record) => self.handle_record(device, record),
        }
    }

    /// Ends a session for a reason of the caller's, such as a heartbeat that did not come.
    pub fn end_session(&mut self, device: &mut dyn Device, session: SessionId) {
        let before = self.sessions.len();
        self.sessions.retain(|one| one.id() != session);
        if self.sessions.len() < before {
            device.session_ended(session);
        }
    }

    /// The sessions that are established.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().filter(|session| session.is_established()).map(Session::id)
    }

    /// How long the requester of a session may be silent, in seconds: as KEY_EXCHANGE_RSP told it, zero
    /// where no heartbeat was agreed on, or without such a session.
    pub fn heartbeat_s(&self, session: SessionId) -> u8 {
        let mut sessions = self.sessions.iter();
        sessions.find(|one| one.id() == session).map_or(0, Session::heartbeat_s)
    }

    fn answer(&mut self, device: &mut dyn Device, message: &[u8]) -> Vec<u8> {
        self.try_answer(device, message).unwrap_or_else(|denied| self.error(&denied))
    }

    fn try_answer(&mut self, device: &mut dyn Device, message: &[u8]) -> Answer {
        // Padding to a double word is no part of the message.
        if message.len() > self.transfer_bytes_max().next_multiple_of(4) {
            return Err(Denied::new(ErrorCode::REQUEST_TOO_LARGE));
        }
        let header = Header::of(message)?;
        if header.code == Code::GET_VERSION {
            return self.get_version(device, message);
        }
        match &mut self.phase {
            Phase::Fresh => Err(unexpected(header.code)),
            Phase::Versioned { .. } => self.get_capabilities(header, message),
            Phase::Capable { .. } => self.negotiate_algorithms(header, message),
            Phase::Negotiated(connection) => {
                connection.check_version(header)?;
                let mut chunks = core::mem::take(&mut connection.chunks);
                let answer = self.answer_chunked(device, &mut chunks, header, message);
                if let Phase::Negotiated(connection) = &mut self.phase {
                    connection.chunks = chunks;
                }
                answer
            }
        }
    }

    /// Answers what may be a piece of a request, or ask for a piece of an answer.
    fn answer_chunked(
        &mut self,
        device: &mut dyn Device,
        chunks: &mut Chunks,
        header: Header,
        message: &[u8],
    ) -> Answer {
        let terms = self.chunk_terms(0);
        chunks.answer(&terms, header, message, |code, message| {
            self.answer_negotiated(device, code, message)
        })
    }

    fn answer_negotiated(&mut self, device: &mut dyn Device, code: Code, message: &[u8]) -> Answer {
        self.check_capable(code)?;
        if let Phase::Negotiated(connection) = &mut self.phase
            && code != Code::GET_MEASUREMENTS
        {
            connection.measured = None;
        }
        let mut parts = self.parts()?;
        if matches!(code, Code::GET_MEASUREMENTS | Code::KEY_EXCHANGE) {
            parts.connection.challenged = parts.begin_transcript();
        }
        match code {
            Code::GET_DIGESTS => parts.digests(message, true),
            Code::GET_CERTIFICATE => parts.certificate(message, true),
            Code::CHALLENGE => parts.challenge(device, message),
            Code::GET_MEASUREMENTS => {
                let mut measured = parts.connection.measured.take();
                let answer = parts.measurements(device, message, &mut measured);
                parts.connection.measured = measured;
                answer
            }
            Code::VENDOR_DEFINED_REQUEST => {
                vendor_defined(device, None, message, &parts.connection.shape())
            }
            Code::KEY_EXCHANGE => self.key_exchange(device, message),
            other => Err(unexpected(other)),
        }
    }

    /// Policy `capabilities`: refuses what one side has not said that it is capable of.
    fn check_capable(&self, code: Code) -> Result<(), Denied> {
        let Phase::Negotiated(connection) = &self.phase else { return Ok(()) };
        let (ours, peer) = (self.config.limits.flags, connection.peer.flags);
        let none = CapabilityFlags::default();
        let (of_us, of_both) = match code {
            Code::GET_DIGESTS | Code::GET_CERTIFICATE => (CapabilityFlags::CERTIFICATE, none),
            Code::CHALLENGE => (CapabilityFlags::CHALLENGE, none),
            Code::GET_MEASUREMENTS => (CapabilityFlags::MEASUREMENTS_SIGNED, none),
            Code::KEY_EXCHANGE => (none, SESSION),
            Code::HEARTBEAT => (none, CapabilityFlags::HEARTBEAT),
            Code::KEY_UPDATE => (none, CapabilityFlags::KEY_UPDATE),
            Code::CHUNK_SEND | Code::CHUNK_GET => (none, CapabilityFlags::CHUNK),
            _ => (none, none),
        };
        if ours.has(of_us) && ours.has(of_both) && peer.has(of_both) {
            Ok(())
        } else {
            Err(unsupported(code))
        }
    }

    /// How long messages may be, in one piece and in chunks. `overhead` is what protects each.
    fn chunk_terms(&self, overhead: usize) -> Terms {
        let bytes = |count| usize::try_from(count).unwrap_or(usize::MAX);
        let Phase::Negotiated(connection) = &self.phase else {
            return Terms { shape: Shape::unnegotiated(Version::V12), ..Terms::default() };
        };
        let (ours, peer) = (&self.config.limits, &connection.peer);
        let chunk = CapabilityFlags::CHUNK;
        Terms {
            shape: connection.shape(),
            allowed: ours.flags.has(chunk) && peer.flags.has(chunk),
            room: bytes(peer.transfer_bytes_max).saturating_sub(overhead),
            answer_max: bytes(peer.message_bytes_max),
            request_min: bytes(ours.transfer_bytes_max).saturating_sub(overhead),
            request_max: bytes(ours.message_bytes_max),
        }
    }

    /// What answers outside of sessions and inside have in common.
    fn parts(&mut self) -> Result<Parts<'_>, Denied> {
        let Phase::Negotiated(connection) = &mut self.phase else {
            return Err(Denied::new(ErrorCode::UNEXPECTED_REQUEST));
        };
        Ok(Parts {
            crypto: self.crypto,
            entropy: &mut *self.entropy,
            identities: &self.identities,
            connection,
        })
    }

    fn error(&self, denied: &Denied) -> Vec<u8> {
        let version = match &self.phase {
            Phase::Fresh | Phase::Versioned { .. } => self.config.versions.last().copied(),
            Phase::Capable { version, .. } => Some(*version),
            Phase::Negotiated(connection) => Some(connection.selected.version),
        };
        let shape = Shape::unnegotiated(version.unwrap_or(Version::V12));
        encode(&denied.0, &shape).expect("ERROR has no count")
    }

    fn transfer_bytes_max(&self) -> usize {
        usize::try_from(self.config.limits.transfer_bytes_max).unwrap_or(usize::MAX >> 1)
    }
}

/// How far the negotiation went.
enum Phase {
    Fresh,
    Versioned { vca: Vec<u8> },
    Capable { vca: Vec<u8>, version: Version, peer: Limits },
    Negotiated(Box<Connection>),
}

/// What was negotiated, and what is signed of what was said since.
struct Connection {
    selected: Selected,
    peer: Limits,
    /// GET_VERSION to ALGORITHMS.
    vca: Vec<u8>,
    /// What CHALLENGE_AUTH signs: M1.
    challenged: Box<dyn Hasher>,
    /// What MEASUREMENTS signs: L1. `None` until it is asked for.
    measured: Option<Box<dyn Hasher>>,
    /// Long messages in the clear.
    chunks: Chunks,
}

impl Connection {
    fn shape(&self) -> Shape {
        Shape::negotiated(self.selected)
    }

    fn check_version(&self, header: Header) -> Result<(), Denied> {
        if header.version == self.selected.version.wire() {
            Ok(())
        } else {
            Err(Denied::new(ErrorCode::VERSION_MISMATCH))
        }
    }
}

/// What an answer is made of.
struct Parts<'a> {
    crypto: &'static dyn Crypto,
    entropy: &'a mut dyn Entropy,
    identities: &'a [Identity],
    connection: &'a mut Connection,
}

impl Parts<'_> {
    fn begin_transcript(&self) -> Box<dyn Hasher> {
        transcript(self.crypto, self.connection.selected.suite, &[&self.connection.vca])
    }

    fn identity(&self, slot: u8) -> Result<&Identity, Denied> {
        self.identities.get(usize::from(slot)).ok_or(Denied::new(ErrorCode::INVALID_REQUEST))
    }
}

/// The bytes of an answer, or why there is none.
type Answer = Result<Vec<u8>, Denied>;

/// A refusal, as it goes to the requester.
#[derive(Debug)]
struct Denied(ErrorMessage);

impl Denied {
    const fn new(code: ErrorCode) -> Self {
        Self(ErrorMessage::new(code))
    }
}

impl From<PeerFault> for Denied {
    fn from(fault: PeerFault) -> Self {
        let other_version = matches!(fault, PeerFault::UnexpectedVersion { .. });
        Self::new(if other_version {
            ErrorCode::VERSION_MISMATCH
        } else {
            ErrorCode::INVALID_REQUEST
        })
    }
}

impl From<CryptoFault> for Denied {
    fn from(_: CryptoFault) -> Self {
        Self::new(ErrorCode::UNSPECIFIED)
    }
}

impl From<Refusal> for Denied {
    fn from(_: Refusal) -> Self {
        Self::new(ErrorCode::UNSPECIFIED)
    }
}

/// The refusal of a request that does not belong here, or that there is not.
fn unexpected(code: Code) -> Denied {
    const KNOWN: [Code; 16] = [
        Code::CHUNK_SEND,
        Code::CHUNK_GET,
        Code::GET_DIGESTS,
        Code::GET_CERTIFICATE,
        Code::CHALLENGE,
        Code::GET_VERSION,
        Code::GET_MEASUREMENTS,
        Code::GET_CAPABILITIES,
        Code::NEGOTIATE_ALGORITHMS,
        Code::KEY_EXCHANGE,
        Code::FINISH,
        Code::HEARTBEAT,
        Code::KEY_UPDATE,
        Code::END_SESSION,
        Code::VENDOR_DEFINED_REQUEST,
        Code::RESPOND_IF_READY,
    ];
    if KNOWN.contains(&code) {
        return Denied::new(ErrorCode::UNEXPECTED_REQUEST);
    }
    unsupported(code)
}

/// The refusal of a request that there is not, or that one side is not capable of.
fn unsupported(code: Code) -> Denied {
    Denied(ErrorMessage { data: code.0, ..ErrorMessage::new(ErrorCode::UNSUPPORTED_REQUEST) })
}

/// What a session takes on both sides.
const SESSION: CapabilityFlags = CapabilityFlags(
    CapabilityFlags::KEY_EXCHANGE.0 | CapabilityFlags::ENCRYPT.0 | CapabilityFlags::MAC.0,
);

/// Hands another protocol's message to the device.
fn vendor_defined(
    device: &mut dyn Device,
    session: Option<SessionId>,
    message: &[u8],
    shape: &Shape,
) -> Answer {
    let (request, _) = decode::<VendorDefined>(message, shape)?;
    let Some(response) = device.vendor_defined(session, &request) else {
        let data = VendorDefined::CODE.0;
        let code = ErrorCode::UNSUPPORTED_REQUEST;
        return Err(Denied(ErrorMessage { data, ..ErrorMessage::new(code) }));
    };
    Ok(encode(&VendorResponse(response), shape)?)
}

/// Bytes of a record that are no message.
const RECORD_OVERHEAD_BYTES: usize = OVERHEAD_BYTES;
/// Slots are numbered from 0 to 7.
const SLOTS_MAX: usize = 8;
