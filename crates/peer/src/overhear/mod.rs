//! Somebody who reads along: what requester and responder say, in words, and whether it holds.
//!
//! [`Overheard::object`] takes each DOE object of a conversation in its order and gives what it says
//! ([`Told`]), with a [`Check`] for each signature, HMAC, record and certificate in it. Nothing that
//! is said is believed: what breaks the protocol is told, and reading goes on. Records open where
//! the secret of their key exchange is among those given.
//!
//! Takes no lock and does no IO. Deliberately absent: sessions by pre-shared keys, mutual
//! authentication, handshakes in the clear; what belongs to those is named and passed over.

mod handshake;
mod session;
mod vendor;
mod words;

use std::collections::{BTreeMap, VecDeque};

use spdm::algorithm::{Aead, Group, Selected, Suite, Version};
use spdm::crypto::{Crypto, Secret, hash};
use spdm::doe::{self, Protocol};
use spdm::key_schedule::Side;
use spdm::message::{
    Algorithms, CapabilityFlags, Certificate, Challenge, ChallengeAuth, Code, GetCapabilities,
    GetMeasurements, Header, KeyExchange, Limits, Measurements, Shape, Structure, decode,
};
use spdm::secured::SessionId;
use spdm::{PeerFault, Purpose, signed_message};

use handshake::Slot;
use session::Session;
use vendor::Reports;

/// What an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who says it.
    pub side: Side,
    /// How it is said.
    pub protection: Protection,
    /// It, in words: a name, and what matters of its fields.
    pub words: String,
    /// What was checked.
    pub checks: Vec<Check>,
    /// The message in the clear, without padding, where it could be read.
    pub message: Vec<u8>,
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// In the clear.
    Clear,
    /// In a session.
    Session(u32),
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It holds.
    Holds(String),
    /// It does not: somebody broke the protocol.
    Fails(String),
    /// It could not be made, and why.
    NotMade(String),
}

/// The conversation so far.
pub struct Overheard {
    crypto: &'static dyn Crypto,
    secrets: VecDeque<Secret>,
    /// Who is to speak next.
    next: Side,
    shape: Shape,
    selected: Option<Selected>,
    /// What the requester is capable of, until the responder says so too.
    offered: Option<Limits>,
    in_clear_handshake: bool,
    /// GET_VERSION to ALGORITHMS.
    vca: Vec<u8>,
    /// M1, without VCA.
    challenged: Vec<u8>,
    /// L1, without VCA.
    measured: Vec<u8>,
    /// The last request that a signature or a length depends on.
    request: Vec<u8>,
    slots: BTreeMap<u8, Slot>,
    sessions: Vec<Session>,
    reports: Reports,
}

impl Overheard {
    /// Before the first object. `secrets` are those of the key exchanges to come, in their order.
    pub fn new(crypto: &'static dyn Crypto, secrets: Vec<Secret>) -> Self {
        Self {
            crypto,
            secrets: secrets.into(),
            next: Side::Requester,
            shape: Shape::unnegotiated(Version::V12),
            selected: None,
            offered: None,
            in_clear_handshake: false,
            vca: Vec::new(),
            challenged: Vec::new(),
            measured: Vec::new(),
            request: Vec::new(),
            slots: BTreeMap::new(),
            sessions: Vec::new(),
            reports: Reports::default(),
        }
    }

    /// Hears the next object, header included.
    pub fn object(&mut self, object: &[u8]) -> Told {
        let read = doe::read(object);
        let side = self.speaker(&read);
        self.next = match side {
            Side::Requester => Side::Responder,
            Side::Responder => Side::Requester,
        };
        let mut told = Told {
            side,
            protection: Protection::Clear,
            words: String::new(),
            checks: Vec::new(),
            message: Vec::new(),
        };
        match read {
            Ok((Protocol::Discovery, payload)) => told.words = words::discovery(side, payload),
            Ok((Protocol::Spdm, message)) => self.message(message, None, &mut told),
            Ok((Protocol::Secured, record)) => self.record(record, &mut told),
            Err(fault) => told.fault("a data object", &fault),
        }
        told
    }

    /// Requests and responses alternate, and a code in the clear says which it is.
    fn speaker(&self, object: &Result<(Protocol, &[u8]), PeerFault>) -> Side {
        match object {
            Ok((Protocol::Spdm, [_, code, ..])) if code & REQUEST_BIT != 0 => Side::Requester,
            Ok((Protocol::Spdm, [_, _, ..])) => Side::Responder,
            _ => self.next,
        }
    }

    fn record(&mut self, record: &[u8], told: &mut Told) {
        let id = match SessionId::of_record(record) {
            Ok(id) => id.joined(),
            Err(fault) => return told.fault("a record", &fault),
        };
        told.protection = Protection::Session(id);
        let found = self.sessions.iter_mut().rposition(|session| session.id.joined() == id);
        let Some(index) = found else {
            told.words = format!("a record of {} bytes", record.len());
            return told.unchecked("its session's keys are not known");
        };
        match self.sessions[index].open(told.side, record) {
            Ok(message) => {
                told.checks.push(Check::Holds("the record opens".into()));
                self.message(&message, Some(index), told);
            }
            Err(fault) => told.fault("a record", &fault),
        }
    }

    /// `session` is the index of the session that the message came in.
    fn message(&mut self, bytes: &[u8], session: Option<usize>, told: &mut Told) {
        let heard = Header::of(bytes).and_then(|header| match session {
            None => self.clear(header, bytes, told),
            Some(index) => self.secured(header, bytes, index, told),
        });
        if let Err(fault) = heard {
            let name =
                Header::of(bytes).map_or_else(|_| "a message".into(), |h| h.code.to_string());
            told.fault(&name, &fault);
        }
    }

    fn clear(&mut self, header: Header, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        match header.code {
            Code::GET_VERSION => self.begin(bytes, told),
            Code::GET_CAPABILITIES => self.get_capabilities(header, bytes, told),
            Code::CAPABILITIES => self.capabilities(bytes, told),
            Code::VERSION | Code::NEGOTIATE_ALGORITHMS => {
                let length = words::of(bytes, &self.shape, told)?;
                self.vca.extend(&bytes[..length]);
                Ok(())
            }
            Code::ALGORITHMS => self.algorithms(bytes, told),
            Code::GET_DIGESTS | Code::DIGESTS | Code::GET_CERTIFICATE => {
                let length = words::of(bytes, &self.shape, told)?;
                self.challenged.extend(&bytes[..length]);
                Ok(())
            }
            Code::CERTIFICATE => {
                let length = self.certificate(bytes, told)?;
                self.challenged.extend(&bytes[..length]);
                Ok(())
            }
            Code::CHALLENGE | Code::KEY_EXCHANGE => self.keep_request(bytes, told),
            Code::CHALLENGE_AUTH => self.challenge_auth(bytes, told),
            Code::KEY_EXCHANGE_RSP => self.key_exchange(bytes, told),
            _ => self.either(header, bytes, told),
        }
    }

    fn secured(
        &mut self,
        header: Header,
        bytes: &[u8],
        index: usize,
        told: &mut Told,
    ) -> Result<(), PeerFault> {
        match header.code {
            Code::FINISH => self.finish(bytes, index, told),
            Code::FINISH_RSP => self.finish_response(bytes, index, told),
            Code::KEY_UPDATE => self.key_update(bytes, index, told),
            Code::CERTIFICATE => self.certificate(bytes, told).map(drop),
            Code::END_SESSION_ACK => {
                words::of(bytes, &self.shape, told)?;
                self.sessions.remove(index);
                Ok(())
            }
            _ => self.either(header, bytes, told),
        }
    }

    /// What is said in a session and outside of one.
    fn either(&mut self, header: Header, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        match header.code {
            Code::GET_MEASUREMENTS => self.keep_request(bytes, told),
            Code::MEASUREMENTS => self.measurements(bytes, told),
            Code::VENDOR_DEFINED_REQUEST | Code::VENDOR_DEFINED_RESPONSE => {
                vendor::tell(bytes, &self.shape, &mut self.reports, told)
            }
            _ => words::of(bytes, &self.shape, told).map(drop),
        }
    }

    fn begin(&mut self, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        let length = words::of(bytes, &self.shape, told)?;
        let secrets = std::mem::take(&mut self.secrets).into();
        *self = Self { next: self.next, ..Self::new(self.crypto, secrets) };
        self.vca.extend(&bytes[..length]);
        Ok(())
    }

    fn get_capabilities(
        &mut self,
        header: Header,
        bytes: &[u8],
        told: &mut Told,
    ) -> Result<(), PeerFault> {
        let Some(version) = Version::from_wire(header.version) else {
            told.words = format!("GET_CAPABILITIES of version {:#04x}", header.version);
            told.unchecked("this version is not read here");
            return Ok(());
        };
        self.shape = Shape::unnegotiated(version);
        let (GetCapabilities(limits), length) = decode(bytes, &self.shape)?;
        self.offered = Some(limits);
        words::of(bytes, &self.shape, told)?;
        self.vca.extend(&bytes[..length]);
        Ok(())
    }

    fn capabilities(&mut self, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        let length = words::of(bytes, &self.shape, told)?;
        let (spdm::message::Capabilities(limits), _) = decode(bytes, &self.shape)?;
        let both = self.offered.map_or(limits.flags, |ours| ours.flags & limits.flags);
        self.in_clear_handshake = both.has(CapabilityFlags::HANDSHAKE_IN_THE_CLEAR);
        self.vca.extend(&bytes[..length]);
        Ok(())
    }

    fn algorithms(&mut self, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        let length = words::of(bytes, &self.shape, told)?;
        let (message, _) = decode::<Algorithms>(bytes, &self.shape)?;
        self.vca.extend(&bytes[..length]);
        match selected(self.shape.version, &message) {
            Some(selected) => {
                self.selected = Some(selected);
                self.shape = Shape::negotiated(selected);
            }
            None => told.unchecked("these algorithms are not computed here"),
        }
        Ok(())
    }

    /// Keeps a request whose bytes are signed with its response.
    fn keep_request(&mut self, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        let length = words::of(bytes, &self.shape, told)?;
        self.request = bytes[..length].to_vec();
        Ok(())
    }

    fn challenge_auth(&mut self, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        let (request, _) = decode::<Challenge>(&self.request, &self.shape)?;
        let shape = Shape { summary: request.summary != 0, ..self.shape };
        let (message, length) = decode::<ChallengeAuth>(bytes, &shape)?;
        words::of(bytes, &shape, told)?;
        let unsigned = &bytes[..length - message.signature.len()];
        let signed = [&*self.vca, &*self.challenged, &*self.request, unsigned].concat();
        self.challenged.clear();
        self.verify(message.slot, Purpose::Challenge, &signed, &message.signature, told);
        Ok(())
    }

    fn measurements(&mut self, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        let (request, _) = decode::<GetMeasurements>(&self.request, &self.shape)?;
        let shape = Shape { signed: request.signed.is_some(), ..self.shape };
        let (message, length) = decode::<Measurements>(bytes, &shape)?;
        words::of(bytes, &shape, told)?;
        self.measured.extend(&self.request);
        self.measured.extend(&bytes[..length - message.signature.len()]);
        let Some((slot, _)) = request.signed else { return Ok(()) };
        let signed = [&*self.vca, &*self.measured].concat();
        self.measured.clear();
        self.verify(slot, Purpose::Measurements, &signed, &message.signature, told);
        Ok(())
    }

    /// Checks a signature of the responder's over `signed`.
    fn verify(&self, slot: u8, purpose: Purpose, signed: &[u8], signature: &[u8], told: &mut Told) {
        let (Some(selected), Some(slot)) = (self.selected, self.slots.get(&slot)) else {
            let why = format!("the certificates of slot {slot} were not overheard");
            return told.unchecked(why);
        };
        let Some(public) = &slot.public else {
            return told.unchecked("the certificates do not hold");
        };
        let transcript = hash(self.crypto, selected.suite, signed);
        let message = signed_message(selected.version, purpose, &transcript);
        let verified = self.crypto.verify(selected.suite, public, &message, signature);
        told.check("the signature verifies", verified.is_ok());
    }
}

impl Told {
    fn check(&mut self, what: &str, holds: bool) {
        let check = if holds { Check::Holds } else { Check::Fails };
        self.checks.push(check(what.to_owned()));
    }

    fn unchecked(&mut self, why: impl Into<String>) {
        self.checks.push(Check::NotMade(why.into()));
    }

    fn fault(&mut self, name: &str, fault: &PeerFault) {
        if self.words.is_empty() {
            name.clone_into(&mut self.words);
        }
        self.checks.push(Check::Fails(fault.to_string()));
    }
}

/// The bit of a code that requests have.
const REQUEST_BIT: u8 = 0x80;

/// What was selected, where it is what is computed here.
pub(crate) fn selected(version: Version, message: &Algorithms) -> Option<Selected> {
    let bits = |kind| Structure::bits_of(&message.structures, kind);
    let mut suites = Suite::ALL.into_iter().filter(|suite| message.hash == suite.hash_bit());
    Some(Selected {
        version,
        suite: suites.find(|suite| message.asymmetric == suite.asymmetric_bit())?,
        group: Group::ALL.into_iter().find(|group| group.bit() == bits(Structure::DHE))?,
        aead: Aead::ALL.into_iter().find(|aead| aead.bit() == bits(Structure::AEAD))?,
    })
}
