//! The side that asks: a host.
//!
//! [`Requester::ask`] begins an exchange and gives its first frame; [`Requester::receive`] takes the
//! answer and gives a [`Step`]: another frame to send, or what came of the exchange. One exchange at
//! a time, one session at a time; once there is a session, everything goes in it. A peer's fault in
//! a session ends it, and its keys are gone. Long messages go and come in chunks where both sides
//! can. Takes no lock and does no IO. Deliberately absent: a clock (the caller sends heartbeats,
//! waits and gives up).

mod chunks;
mod connect;
mod evidence;
mod session;

use alloc::boxed::Box;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::algorithm::{Aead, Group, Selected, Suite, Version};
use crate::certificate::Trust;
use crate::chunks::{Incoming, Outgoing};
use crate::crypto::{Crypto, Entropy, Hasher};
use crate::endpoint::{Frame, Keys, transcript};
use crate::fault::{Error, PeerFault, Refusal};
use crate::message::{
    CapabilityFlags, Code, Digests, ErrorCode, ErrorMessage, GetVersion, Header, Limits,
    Measurements, NONCE_BYTES, RespondIfReady, SLOT_MAX, Shape, VendorDefined, decode, encode,
};
use crate::secured::{OVERHEAD_BYTES, SessionId};

use connect::{ExpectAlgorithms, ExpectCapabilities};
use evidence::{ExpectCertificate, ExpectChallengeAuth, ExpectMeasurements};
use session::{ExpectFinish, ExpectKeyExchange, ExpectKeyUpdate};

/// An exchange to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// VERSION, CAPABILITIES, ALGORITHMS. Forgets all that was before.
    Connect,
    /// DIGESTS.
    Digests,
    /// CERTIFICATE, as often as it takes. The chain is judged at the end.
    Certificate {
        /// The slot.
        slot: u8,
    },
    /// CHALLENGE_AUTH. Not in a session.
    Challenge {
        /// The slot, whose chain was fetched.
        slot: u8,
        /// Which measurements are to be summed up: 0 none, 1 of the trusted base, 0xff all.
        summary: u8,
    },
    /// MEASUREMENTS.
    Measurements {
        /// 0: how many; 1 to 0xfe: one by its index; 0xff: all.
        operation: u8,
        /// The slot whose key signs all measurements since the last signature.
        signed_by: Option<u8>,
        /// Random bytes for the signature; drawn where there are none.
        nonce: Option<[u8; NONCE_BYTES]>,
    },
    /// KEY_EXCHANGE_RSP and FINISH_RSP.
    Session {
        /// The slot, whose chain was fetched.
        slot: u8,
        /// Which measurements are to be summed up: 0 none, 1 of the trusted base, 0xff all.
        summary: u8,
    },
    /// HEARTBEAT_ACK.
    Heartbeat,
    /// KEY_UPDATE_ACK, twice: the new keys are proven at once.
    UpdateKeys {
        /// Both directions' keys, not only the requester's.
        both: bool,
    },
    /// VENDOR_DEFINED_RESPONSE.
    VendorDefined(VendorDefined),
    /// END_SESSION_ACK.
    EndSession,
}

/// What comes next in an exchange.
#[derive(Debug)]
pub enum Step {
    /// A frame is to be sent, and its answer to be given to [`Requester::receive`].
    Send(Frame),
    /// Likewise, after a while: the answer was not ready.
    Wait {
        /// How long, in microseconds.
        time_us: u64,
        /// The frame.
        then: Frame,
    },
    /// The exchange is over.
    Done(Outcome),
}

/// What came of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of [`Ask::Connect`].
    Connected(Selected),
    /// Of [`Ask::Digests`].
    Digests(Digests),
    /// Of [`Ask::Certificate`]: the bytes of the slot, which are trusted.
    Certificate(Vec<u8>),
    /// Of [`Ask::Challenge`]: the summary of measurements.
    Authentic(Vec<u8>),
    /// Of [`Ask::Measurements`].
    Measurements(Measurements),
    /// Of [`Ask::Session`].
    Established {
        /// Its numbers.
        id: SessionId,
        /// The longest time between two messages, in seconds; 0: no heartbeat.
        heartbeat_s: u8,
        /// The summary of measurements.
        summary: Vec<u8>,
    },
    /// Of [`Ask::Heartbeat`].
    Alive,
    /// Of [`Ask::UpdateKeys`].
    KeysUpdated,
    /// Of [`Ask::VendorDefined`].
    VendorDefined(VendorDefined),
    /// Of [`Ask::EndSession`].
    Ended,
}

/// What a requester offers and trusts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Versions that are spoken.
    pub versions: Vec<Version>,
    /// What GET_CAPABILITIES tells.
    pub limits: Limits,
    /// Signatures with their hashes.
    pub suites: Vec<Suite>,
    /// Curves of the key exchange.
    pub groups: Vec<Group>,
    /// Ciphers.
    pub aeads: Vec<Aead>,
    /// Which certificates are trusted.
    pub trust: Trust,
}

/// The side that asks.
pub struct Requester {
    crypto: &'static dyn Crypto,
    entropy: Box<dyn Entropy>,
    config: Config,
    connection: Option<Connection>,
    pending: Option<Pending>,
    session_number: u16,
    /// A session was asked for, and neither was it ended nor did the peer begin anew.
    has_begun_session: bool,
    /// Of the last long request.
    handle: u8,
}

impl Requester {
    /// A requester that has not spoken to anyone.
    pub fn new(crypto: &'static dyn Crypto, entropy: Box<dyn Entropy>, config: Config) -> Self {
        Self {
            crypto,
            entropy,
            config,
            connection: None,
            pending: None,
            session_number: u16::MAX,
            has_begun_session: false,
            handle: 0,
        }
    }

    /// Begins an exchange. Gives the frame to send.
    ///
    /// # Errors
    /// [`Refusal::Busy`] while another is under way (but [`Ask::Connect`] ends it);
    /// [`Refusal::WrongState`] before a connection, or where a session or its absence, or a
    /// fetched chain is needed; [`Refusal::Unsupported`]; [`Refusal::TooLong`]; [`Error::Crypto`].
    pub fn ask(&mut self, ask: Ask) -> Result<Frame, Error> {
        if ask == Ask::Connect {
            self.connection = None;
            self.pending = Some(Pending::Version);
            let shape = Shape::unnegotiated(Version::V12);
            return Ok(Frame::Clear(encode(&GetVersion, &shape)?));
        }
        if self.pending.is_some() {
            return Err(Refusal::Busy.into());
        }
        let (message, pending) = self.begin(ask)?;
        self.send(message, pending)
    }

    /// Takes the answer to the last frame.
    ///
    /// # Errors
    /// [`Refusal::Idle`] where nothing was asked; [`Error::Peer`], [`Error::Certificate`],
    /// [`Error::Said`], [`Error::Crypto`]. Each ends the exchange. A session goes on only where the
    /// peer refused in it.
    pub fn receive(&mut self, frame: &Frame) -> Result<Step, Error> {
        let pending = self.pending.take().ok_or(Refusal::Idle)?;
        let step = self.take(pending, frame);
        if step.as_ref().is_err_and(|error| ends_session(error, frame))
            && let Some(connection) = &mut self.connection
        {
            connection.session = None;
        }
        step
    }

    /// The session, once it is established.
    pub fn session(&self) -> Option<SessionId> {
        Some(self.connection.as_ref()?.session.as_ref()?.id)
    }

    /// Whether the peer may have a session with us, even where we have none: it was asked for one, and has neither
    /// ended it nor begun anew, which an answer to [`Ask::Connect`] says.
    pub const fn has_begun_session(&self) -> bool {
        self.has_begun_session
    }

    /// GET_VERSION to ALGORITHMS, as they were sent: what begins each transcript.
    pub fn vca(&self) -> Option<&[u8]> {
        Some(&self.connection.as_ref()?.vca)
    }

    /// The messages of the last MEASUREMENTS that were signed, the signature at their end: what was
    /// signed is [`vca`](Self::vca), then these without it.
    pub fn signed_measurements(&self) -> Option<&[u8]> {
        Some(&self.connection.as_ref()?.signed)
    }

    /// Gives an exchange up, and with it the session: an answer that is still to come could be taken
    /// for another's.
    pub fn abandon(&mut self) {
        if self.pending.take().is_some()
            && let Some(connection) = &mut self.connection
        {
            connection.session = None;
        }
    }

    fn begin(&mut self, ask: Ask) -> Result<(Vec<u8>, Pending), Error> {
        match ask {
            Ask::Connect => Err(Refusal::Busy.into()),
            Ask::Digests => self.ask_digests(),
            Ask::Certificate { slot } => self.ask_certificate(slot),
            Ask::Challenge { slot, summary } => self.ask_challenge(slot, summary),
            Ask::Measurements { operation, signed_by, nonce } => {
                self.ask_measurements(operation, signed_by, nonce)
            }
            Ask::Session { slot, summary } => self.ask_session(slot, summary),
            Ask::Heartbeat => self.ask_heartbeat(),
            Ask::UpdateKeys { both } => self.ask_key_update(both),
            Ask::VendorDefined(message) => self.ask_vendor_defined(message),
            Ask::EndSession => self.ask_end_session(),
        }
    }

    /// Sends a request, in pieces where it must be; remembers what its answer is for.
    fn send(
        &mut self,
        request: impl Into<Zeroizing<Vec<u8>>>,
        pending: Pending,
    ) -> Result<Frame, Error> {
        let request = request.into();
        if request.len() > self.room() {
            self.cut(request, pending)
        } else {
            self.put(&request, pending)
        }
    }

    /// Sends a message in the session, if there is one; remembers what its answer is for.
    fn put(&mut self, request: &[u8], mut pending: Pending) -> Result<Frame, Error> {
        // The peer answers an update of both directions under its new key.
        let renews_peer = matches!(&pending, Pending::KeyUpdate(expect) if expect.renews_peer());
        let keys = self.keys(&mut pending);
        let frame = match keys {
            Some(keys) => {
                let record = keys.sealer.seal(request)?;
                if renews_peer {
                    keys.opener.update()?;
                }
                Frame::Secured(record)
            }
            None => Frame::Clear(request.to_vec()),
        };
        self.pending = Some(pending);
        Ok(frame)
    }

    /// Bytes of a message that the peer receives in one piece.
    fn room(&self) -> usize {
        let Some(connection) = &self.connection else { return usize::MAX };
        let max = usize::try_from(connection.peer.transfer_bytes_max).unwrap_or(usize::MAX);
        if connection.is_secured() { max.saturating_sub(OVERHEAD_BYTES) } else { max }
    }

    fn take(&mut self, mut pending: Pending, frame: &Frame) -> Result<Step, Error> {
        let message = open(self.keys(&mut pending), frame)?;
        self.judge_answer(pending, &message)
    }

    /// What came, whole, in one piece or in many.
    fn judge_answer(&mut self, pending: Pending, message: &[u8]) -> Result<Step, Error> {
        let header = Header::of(message)?;
        if header.code == Code::ERROR {
            return self.refused(pending, message);
        }
        self.understand(pending, message)
    }

    fn understand(&mut self, pending: Pending, message: &[u8]) -> Result<Step, Error> {
        match pending {
            Pending::Version => self.version(message),
            Pending::Capabilities(expect) => self.capabilities(expect, message),
            Pending::Algorithms(expect) => self.algorithms(expect, message),
            Pending::Digests { request } => self.digests(&request, message),
            Pending::Certificate(expect) => self.certificate(expect, message),
            Pending::Challenge(expect) => self.challenge_auth(&expect, message),
            Pending::Measurements(expect) => self.measurements(&expect, message),
            Pending::KeyExchange(expect) => self.key_exchange(*expect, message),
            Pending::Finish(expect) => self.finish(*expect, message),
            Pending::Heartbeat => self.heartbeat(message),
            Pending::KeyUpdate(expect) => self.key_update(expect, message),
            Pending::VendorDefined { standard, vendor } => {
                self.vendor_defined(standard, &vendor, message)
            }
            Pending::EndSession => self.end_session(message),
            Pending::SendChunk { out, then } => self.chunk_sent(out, *then, message),
            Pending::GetChunk { incoming, then } => self.chunk(incoming, *then, message),
        }
    }

    /// The peer refused. Only where the answer is not ready, the exchange goes on.
    fn refused(&mut self, pending: Pending, message: &[u8]) -> Result<Step, Error> {
        let version = message.first().copied().and_then(Version::from_wire);
        let shape = Shape::unnegotiated(version.unwrap_or(Version::V12));
        let (said, _) = decode::<ErrorMessage>(message, &shape)?;
        if let Some(handle) = said.large_response().filter(|_| self.may_chunk()) {
            return self.ask_chunk(Incoming::new("CHUNK_RESPONSE", handle), pending);
        }
        let Some(not_ready) = said.not_ready() else {
            return Err(Error::Said { code: said.code, data: said.data });
        };
        let request = RespondIfReady { request: not_ready.request, token: not_ready.token };
        let time_us = 1_u64.checked_shl(not_ready.exponent.into()).unwrap_or(u64::MAX);
        let then = self.put(&encode(&request, &shape)?, pending)?;
        Ok(Step::Wait { time_us, then })
    }

    /// The keys of the session that `pending` belongs to.
    fn keys<'a>(&'a mut self, pending: &'a mut Pending) -> Option<&'a mut Keys> {
        match pending {
            Pending::Finish(expect) => Some(&mut expect.keys),
            Pending::SendChunk { then, .. } | Pending::GetChunk { then, .. } => self.keys(then),
            Pending::Version
            | Pending::Capabilities(_)
            | Pending::Algorithms(_)
            | Pending::Digests { .. }
            | Pending::Certificate(_)
            | Pending::Challenge(_)
            | Pending::Measurements(_)
            | Pending::KeyExchange(_)
            | Pending::Heartbeat
            | Pending::KeyUpdate(_)
            | Pending::VendorDefined { .. }
            | Pending::EndSession => Some(&mut self.connection.as_mut()?.session.as_mut()?.keys),
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, Refusal> {
        self.connection.as_mut().ok_or(Refusal::WrongState)
    }

    /// Refuses what the peer did not say that it can do.
    fn need(&mut self, flags: CapabilityFlags) -> Result<&mut Connection, Refusal> {
        let connection = self.connection()?;
        if connection.peer.flags.has(flags) { Ok(connection) } else { Err(Refusal::Unsupported) }
    }

    fn begin_transcript(&self) -> Result<Box<dyn Hasher>, Refusal> {
        let connection = self.connection.as_ref().ok_or(Refusal::WrongState)?;
        Ok(transcript(self.crypto, connection.selected.suite, &[&connection.vca]))
    }
}

/// Opens an answer. What belongs into a session and comes in the clear may only refuse.
fn open(keys: Option<&mut Keys>, frame: &Frame) -> Result<Zeroizing<Vec<u8>>, Error> {
    match (keys, frame) {
        (None, Frame::Clear(message)) => Ok(message.clone().into()),
        (Some(keys), Frame::Secured(record)) => Ok(keys.opener.open(record)?),
        (Some(_), Frame::Clear(message)) => {
            let code = Header::of(message)?.code;
            if code != Code::ERROR {
                return Err(PeerFault::UnexpectedProtection { code, secured: false }.into());
            }
            let header = Header::of(message)?;
            Err(Error::Said { code: ErrorCode(header.parameter1), data: header.parameter2 })
        }
        (None, Frame::Secured(record)) => {
            let found = SessionId::of_record(record)?.joined();
            Err(PeerFault::UnexpectedSession { found }.into())
        }
    }
}

/// Whether keys may not be used after this.
fn ends_session(error: &Error, frame: &Frame) -> bool {
    match error {
        Error::Said { code, .. } => {
            matches!(frame, Frame::Clear(_))
                || matches!(*code, ErrorCode::DECRYPT_ERROR | ErrorCode::INVALID_SESSION)
        }
        Error::Refused(_) => false,
        Error::Certificate(_) | Error::Crypto(_) | Error::Peer(_) => true,
    }
}

/// What was negotiated, and what came after.
struct Connection {
    selected: Selected,
    peer: Limits,
    /// GET_VERSION to ALGORITHMS.
    vca: Vec<u8>,
    /// What CHALLENGE_AUTH signs: M1.
    challenged: Box<dyn Hasher>,
    /// What MEASUREMENTS signs: L1. `None` until it is asked for.
    measured: Option<Measured>,
    /// The messages of the last measurements that were signed.
    signed: Vec<u8>,
    digests: Option<Digests>,
    /// Chains that are trusted, by slot.
    slots: [Option<Slot>; SLOT_MAX as usize + 1],
    session: Option<Session>,
}

impl Connection {
    fn shape(&self) -> Shape {
        Shape::negotiated(self.selected)
    }

    fn slot(&self, slot: u8) -> Result<&Slot, Refusal> {
        self.slots.get(usize::from(slot)).and_then(Option::as_ref).ok_or(Refusal::WrongState)
    }

    /// Whether messages go in a session, where nothing is challenged.
    const fn is_secured(&self) -> bool {
        self.session.is_some()
    }
}

/// Measurements since the last signature.
struct Measured {
    transcript: Box<dyn Hasher>,
    messages: Vec<u8>,
}

/// A chain that is trusted.
struct Slot {
    /// The hash of the slot's bytes.
    hash: Vec<u8>,
    /// The leaf's key: both coordinates.
    public: Vec<u8>,
}

struct Session {
    id: SessionId,
    keys: Keys,
}

/// What the next answer is for.
enum Pending {
    Version,
    Capabilities(ExpectCapabilities),
    Algorithms(ExpectAlgorithms),
    Digests { request: Vec<u8> },
    Certificate(ExpectCertificate),
    Challenge(ExpectChallengeAuth),
    Measurements(ExpectMeasurements),
    KeyExchange(Box<ExpectKeyExchange>),
    Finish(Box<ExpectFinish>),
    Heartbeat,
    KeyUpdate(ExpectKeyUpdate),
    VendorDefined { standard: u16, vendor: Vec<u8> },
    EndSession,
    SendChunk { out: Outgoing, then: Box<Pending> },
    GetChunk { incoming: Incoming, then: Box<Pending> },
}
