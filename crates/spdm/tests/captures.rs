//! Real sessions of spdm-emu: every record of the first key exchange opens, and seals again to the
//! same bytes; every signature and HMAC verifies, the certificates are trusted. Then our own requester, and
//! our own responder, take the place of spdm-emu's.
//!
//! `BINDERY_SPDM_CAPTURES` names a folder with `*.pcap` and `*.keys`. They are not part of this
//! repository: where the variable is not set, the test is shown as ignored.

#[path = "captures/roles.rs"]
mod roles;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bindery_spdm::algorithm::{Aead, Group, Selected, Suite, Version};
use bindery_spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use bindery_spdm::crypto::aws_lc::AwsLc;
use bindery_spdm::crypto::rust_crypto::RustCrypto;
use bindery_spdm::crypto::{Crypto, Secret, hash};
use bindery_spdm::key_schedule::{Handshake, Side, TrafficSecret};
use bindery_spdm::message::*;
use bindery_spdm::secured::{Opener, Sealer, SessionId};
use bindery_spdm::{Frame, Purpose, signed_message};
use libtest_mimic::{Arguments, Failed, Trial};

const VARIABLE: &str = "BINDERY_SPDM_CAPTURES";
const SUITE: Suite = Suite::P384Sha384;
const PROVIDERS: [(&str, &dyn Crypto); 2] = [("aws-lc", &AwsLc), ("RustCrypto", &RustCrypto)];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match std::env::var_os(VARIABLE) {
        Some(folder) => captures(Path::new(&folder)).into_iter().flat_map(trials).collect(),
        None => {
            println!("{VARIABLE} is not set: real captures are not read");
            vec![Trial::test("replay", || Ok(())).with_ignored_flag(true)]
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn captures(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder of captures");
    let mut captures: Vec<_> = entries
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    captures.sort();
    assert!(!captures.is_empty(), "no *.pcap in {}", folder.display());
    captures
}

fn trials(capture: PathBuf) -> Vec<Trial> {
    let replays = PROVIDERS.map(|(name, crypto)| {
        let name = format!("{}: replay by {name}", capture.display());
        let capture = capture.clone();
        Trial::test(name, move || replay(crypto, &capture).map(drop))
    });
    let roles: [(_, fn(&Recording)); 2] =
        [("requester", roles::requester), ("responder", roles::responder)];
    let roles = roles.map(|(name, role)| {
        let name = format!("{}: replay against the {name}", capture.display());
        let capture = capture.clone();
        Trial::test(name, move || {
            role(&replay(&AwsLc, &capture)?);
            Ok(())
        })
    });
    replays.into_iter().chain(roles).collect()
}

/// A session as it was heard.
struct Recording {
    version: Version,
    /// The secret of the key exchange.
    shared: Vec<u8>,
    /// Requests and responses in turn.
    heard: Vec<Heard>,
}

/// A message, and the frame that it came in.
#[derive(Clone)]
struct Heard {
    message: Vec<u8>,
    frame: Frame,
}

fn replay(crypto: &'static dyn Crypto, capture: &Path) -> Result<Recording, Failed> {
    let bytes = std::fs::read(capture)?;
    let keys = std::fs::read_to_string(capture.with_extension("keys"))?;
    let digits = keys.split_whitespace().nth(1).ok_or("no secret")?;
    let shared = unhex(digits);
    let mut listener = Listener::new(crypto, Secret::new(shared.clone()));
    for (index, packet) in packets(&bytes).into_iter().enumerate() {
        if listener.session.as_ref().is_some_and(|session| session.ended) {
            break;
        }
        let (kind, object) = (packet[2], &packet[8..]);
        println!("packet {}", index + 1);
        match kind {
            DOE_SPDM => listener.clear(object),
            DOE_SECURED => listener.record(object),
            other => assert_eq!(other, DOE_DISCOVERY),
        }
    }
    let Listener { session, signatures, records, heard, shape, .. } = listener;
    assert!(session.is_some_and(|session| session.ended), "the session has an end");
    assert_eq!(signatures, 4, "a challenge, a key exchange, measurements twice");
    assert_eq!(records, 110, "packets 31 to 160, but for 20 of a session by a pre-shared key");
    Ok(Recording { version: shape.version, shared, heard })
}

/// Begins another session, from a key that both sides had before: not for this crate.
const PSK_EXCHANGE: Code = Code(0xe6);
const PSK_EXCHANGE_RSP: Code = Code(0x66);
const DOE_DISCOVERY: u8 = 0;
const DOE_SPDM: u8 = 1;
const DOE_SECURED: u8 = 2;

/// The packets of a capture.
fn packets(capture: &[u8]) -> Vec<&[u8]> {
    const LINKTYPE_DOE: u32 = 292;
    let word = |at: usize| u32::from_le_bytes(capture[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xa1b2_c3d4, LINKTYPE_DOE));
    let (mut packets, mut at) = (Vec::new(), 24);
    while at < capture.len() {
        let length = word(at + 8) as usize;
        packets.push(&capture[at + 16..at + 16 + length]);
        at += 16 + length;
    }
    packets
}

/// Hears both sides, and knows the secret of the key exchange.
struct Listener {
    crypto: &'static dyn Crypto,
    shared: Secret,
    shape: Shape,
    vca: Vec<u8>,
    challenged: Vec<u8>,
    /// The last request, and what of it matters for its response.
    request: Vec<u8>,
    chain: Vec<u8>,
    public: Vec<u8>,
    session: Option<Session>,
    signatures: usize,
    records: usize,
    heard: Vec<Heard>,
}

struct Session {
    id: SessionId,
    handshake: Handshake,
    transcript: Vec<u8>,
    requester: Direction,
    responder: Direction,
    ended: bool,
}

/// Opens what a side sends, and seals it again.
struct Direction {
    opener: Opener,
    sealer: Sealer,
}

impl Direction {
    fn new(id: SessionId, traffic: &TrafficSecret) -> Self {
        let opener = Opener::new(id, traffic.clone()).unwrap();
        Self { opener, sealer: Sealer::new(id, traffic.clone()).unwrap() }
    }

    fn update(&mut self) {
        self.opener.update().unwrap();
        self.sealer.update().unwrap();
    }
}

impl Listener {
    fn new(crypto: &'static dyn Crypto, shared: Secret) -> Self {
        Self {
            crypto,
            shared,
            shape: Shape::unnegotiated(Version::V12),
            vca: Vec::new(),
            challenged: Vec::new(),
            request: Vec::new(),
            chain: Vec::new(),
            public: Vec::new(),
            session: None,
            signatures: 0,
            records: 0,
            heard: Vec::new(),
        }
    }

    fn clear(&mut self, bytes: &[u8]) {
        let code = Header::of(bytes).unwrap().code;
        if ![PSK_EXCHANGE, PSK_EXCHANGE_RSP].contains(&code) {
            self.heard.push(Heard { message: bytes.to_vec(), frame: Frame::Clear(bytes.to_vec()) });
        }
        match code {
            Code::GET_VERSION => self.vca.extend(self.again::<GetVersion>(bytes).1),
            Code::VERSION => self.vca.extend(self.again::<VersionResponse>(bytes).1),
            Code::GET_CAPABILITIES => {
                self.shape = Shape::unnegotiated(Version::from_wire(bytes[0]).unwrap());
                self.vca.extend(self.again::<GetCapabilities>(bytes).1);
            }
            Code::CAPABILITIES => self.vca.extend(self.again::<Capabilities>(bytes).1),
            Code::NEGOTIATE_ALGORITHMS => {
                self.vca.extend(self.again::<NegotiateAlgorithms>(bytes).1);
            }
            Code::ALGORITHMS => self.algorithms(bytes),
            Code::GET_DIGESTS => self.challenged.extend(self.again::<GetDigests>(bytes).1),
            Code::DIGESTS => self.challenged.extend(self.again::<Digests>(bytes).1),
            Code::GET_CERTIFICATE => {
                self.challenged.extend(self.again::<GetCertificate>(bytes).1);
            }
            Code::CERTIFICATE => self.certificate(bytes),
            Code::CHALLENGE => self.request = self.again::<Challenge>(bytes).1,
            Code::CHALLENGE_AUTH => self.challenge_auth(bytes),
            Code::GET_MEASUREMENTS => self.request = self.again::<GetMeasurements>(bytes).1,
            Code::MEASUREMENTS => self.measurements(bytes),
            Code::KEY_EXCHANGE => self.request = self.again::<KeyExchange>(bytes).1,
            Code::KEY_EXCHANGE_RSP => self.key_exchange(bytes),
            PSK_EXCHANGE | PSK_EXCHANGE_RSP => {}
            other => panic!("{other} in the clear"),
        }
    }

    fn record(&mut self, record: &[u8]) {
        let session = self.session.as_mut().expect("a record belongs to a session");
        if SessionId::of_record(record).unwrap() != session.id {
            return;
        }
        let from_requester = self.records.is_multiple_of(2);
        self.records += 1;
        let side = if from_requester { &mut session.requester } else { &mut session.responder };
        let message = side.opener.open(record).unwrap();
        let mut sealed = side.sealer.seal(&message).unwrap();
        sealed.resize(record.len(), 0);
        assert_eq!(sealed, record);
        let frame = Frame::Secured(record.to_vec());
        self.heard.push(Heard { message: message.to_vec(), frame });
        self.secured(&message);
    }

    fn secured(&mut self, bytes: &[u8]) {
        match Header::of(bytes).unwrap().code {
            Code::FINISH => self.finish(bytes),
            Code::FINISH_RSP => self.finish_response(bytes),
            Code::VENDOR_DEFINED_REQUEST => drop(self.again::<VendorDefined>(bytes)),
            Code::VENDOR_DEFINED_RESPONSE => drop(self.again::<VendorResponse>(bytes)),
            Code::HEARTBEAT => drop(self.again::<Heartbeat>(bytes)),
            Code::HEARTBEAT_ACK => drop(self.again::<HeartbeatAck>(bytes)),
            Code::KEY_UPDATE => self.key_update(bytes),
            Code::KEY_UPDATE_ACK => drop(self.again::<KeyUpdateAck>(bytes)),
            Code::GET_MEASUREMENTS => self.request = self.again::<GetMeasurements>(bytes).1,
            Code::MEASUREMENTS => self.measurements(bytes),
            Code::GET_DIGESTS => drop(self.again::<GetDigests>(bytes)),
            Code::DIGESTS => drop(self.again::<Digests>(bytes)),
            Code::GET_CERTIFICATE => drop(self.again::<GetCertificate>(bytes)),
            Code::CERTIFICATE => drop(self.again::<Certificate>(bytes)),
            Code::END_SESSION => drop(self.again::<EndSession>(bytes)),
            Code::END_SESSION_ACK => {
                drop(self.again::<EndSessionAck>(bytes));
                self.session.as_mut().unwrap().ended = true;
            }
            other => panic!("{other} in the session"),
        }
    }

    /// The message in `bytes`, and its bytes without padding.
    fn again<M: Message>(&self, bytes: &[u8]) -> (M, Vec<u8>) {
        let (message, length) = decode::<M>(bytes, &self.shape).unwrap();
        (message, bytes[..length].to_vec())
    }

    fn algorithms(&mut self, bytes: &[u8]) {
        self.vca.extend(self.again::<Algorithms>(bytes).1);
        self.shape = Shape::negotiated(self.selected());
    }

    fn selected(&self) -> Selected {
        let version = self.shape.version;
        Selected { version, suite: SUITE, group: Group::Secp384r1, aead: Aead::Aes256Gcm }
    }

    fn certificate(&mut self, bytes: &[u8]) {
        let (message, bytes) = self.again::<Certificate>(bytes);
        self.challenged.extend(bytes);
        assert_eq!(message.remainder, 0);
        if message.slot != 0 {
            return;
        }
        let trust = Trust {
            roots: None,
            now: Duration::from_secs(1_767_225_600),
            usage: LeafUsage::Server,
            name: DeviceName::Dmtf("ACME:WIDGET:1234567890".into()),
        };
        let chain = Chain::read(&message.portion, SUITE).unwrap();
        assert_eq!(chain.write().unwrap(), message.portion);
        self.public = trust.judge(self.crypto, SUITE, &chain).unwrap();
        self.chain = message.portion;
    }

    fn challenge_auth(&mut self, bytes: &[u8]) {
        self.shape.summary = true;
        let (message, bytes) = self.again::<ChallengeAuth>(bytes);
        self.shape.summary = false;
        let unsigned = &bytes[..bytes.len() - SUITE.signature_bytes()];
        let signed = [&self.vca, &*self.challenged, &self.request, unsigned].concat();
        self.verify(Purpose::Challenge, &signed, &message.signature);
        self.challenged.clear();
    }

    fn measurements(&mut self, bytes: &[u8]) {
        let (request, _) = self.again::<GetMeasurements>(&self.request);
        self.shape.signed = request.signed.is_some();
        let (message, bytes) = self.again::<Measurements>(bytes);
        self.shape.signed = false;
        let unsigned = &bytes[..bytes.len() - SUITE.signature_bytes()];
        let signed = [&*self.vca, &self.request, unsigned].concat();
        self.verify(Purpose::Measurements, &signed, &message.signature);
    }

    fn key_exchange(&mut self, bytes: &[u8]) {
        let (request, _) = self.again::<KeyExchange>(&self.request);
        self.shape.summary = request.summary != 0;
        let (message, bytes) = self.again::<KeyExchangeResponse>(bytes);
        self.shape.summary = false;
        let proof = bytes.len() - SUITE.hash_bytes();
        let unsigned = proof - SUITE.signature_bytes();
        read_supported(&request.opaque).unwrap();
        read_selected(&message.opaque).unwrap();
        let chain_hash = hash(self.crypto, SUITE, &self.chain);
        let mut transcript = [&*self.vca, &chain_hash, &self.request, &bytes[..unsigned]].concat();
        self.verify(Purpose::KeyExchange, &transcript, &message.signature);
        transcript.extend(&bytes[unsigned..proof]);
        let th1 = hash(self.crypto, SUITE, &transcript);
        transcript.extend(&bytes[proof..]);
        let handshake = Handshake::new(self.crypto, self.selected(), &self.shared, &th1);
        assert!(handshake.verify_data(Side::Responder, &th1).matches(&message.verify_data));
        let id = SessionId { requester: request.session, responder: message.session };
        let direction = |side| Direction::new(id, handshake.traffic(side));
        let (requester, responder) = (direction(Side::Requester), direction(Side::Responder));
        let ended = false;
        self.session = Some(Session { id, handshake, transcript, requester, responder, ended });
    }

    fn finish(&mut self, bytes: &[u8]) {
        let (message, bytes) = self.again::<Finish>(bytes);
        let session = self.session.as_mut().unwrap();
        session.transcript.extend(&bytes[..HEADER_BYTES]);
        let th = hash(self.crypto, SUITE, &session.transcript);
        let proof = session.handshake.verify_data(Side::Requester, &th);
        assert!(proof.matches(&message.verify_data));
        session.transcript.extend(&bytes[HEADER_BYTES..]);
    }

    fn finish_response(&mut self, bytes: &[u8]) {
        let (FinishResponse, bytes) = self.again(bytes);
        let session = self.session.as_mut().unwrap();
        session.transcript.extend(bytes);
        let th2 = hash(self.crypto, SUITE, &session.transcript);
        let application = session.handshake.application(&th2);
        session.requester = Direction::new(session.id, &application.requester);
        session.responder = Direction::new(session.id, &application.responder);
    }

    fn key_update(&mut self, bytes: &[u8]) {
        let (message, _) = self.again::<KeyUpdate>(bytes);
        let session = self.session.as_mut().unwrap();
        match message.operation {
            KeyOperation::UpdateRequester => session.requester.update(),
            KeyOperation::UpdateAll => {
                session.requester.update();
                session.responder.update();
            }
            KeyOperation::Verify => {}
        }
    }

    fn verify(&mut self, purpose: Purpose, signed: &[u8], signature: &[u8]) {
        let transcript = hash(self.crypto, SUITE, signed);
        let message = signed_message(self.shape.version, purpose, &transcript);
        assert_eq!(self.crypto.verify(SUITE, &self.public, &message, signature), Ok(()));
        self.signatures += 1;
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let digits = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
