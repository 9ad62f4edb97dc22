//! Our requester in the place of spdm-emu's, and our responder in that of its device, byte for byte.
//!
//! What the protocol leaves to chance is taken from the recording: nonces, key shares, signatures.
//! Three fields it leaves to taste, and ours differ: which signatures are offered for mutual
//! authentication, which is never done, whether logs of measurements are, and the session policy. There
//! the bytes are compared but for these, and what is hashed is what was really said.

#![expect(clippy::disallowed_types, reason = "nothing of this is explored")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bindery_spdm::Frame;
use bindery_spdm::algorithm::{Aead, Group, Suite};
use bindery_spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use bindery_spdm::crypto::aws_lc::AwsLc;
use bindery_spdm::crypto::{
    AeadKey, Crypto, CryptoFault, Entropy, Hasher, KeyShare, NotAuthentic, Secret, Signer,
};
use bindery_spdm::message::*;
use bindery_spdm::requester::{self, Ask, Requester, Step};
use bindery_spdm::responder::{self, Device, Identity, Responder};
use bindery_spdm::secured::SessionId;

use super::{Heard, Recording, SUITE};

/// Each request of the recording is asked of our requester, and answered as it was.
pub(crate) fn requester(recording: &Recording) {
    let told = Told::new(recording);
    let (GetCapabilities(limits), _) =
        told.read::<GetCapabilities>(told.first(Code::GET_CAPABILITIES));
    let config = requester::Config {
        versions: vec![recording.version],
        limits,
        suites: vec![SUITE],
        groups: vec![Group::Secp384r1],
        aeads: vec![Aead::Aes256Gcm],
        trust: Trust {
            roots: None,
            now: Duration::from_secs(1_767_225_600),
            usage: LeafUsage::Server,
            name: DeviceName::Any,
        },
    };
    let (exchange, _) = told.read::<KeyExchange>(told.first(Code::KEY_EXCHANGE));
    let crypto = Recorded::leak(exchange.exchange, &recording.shared);
    let entropy = Box::new(Drawn(told.chances()));
    let mut requester = Requester::new(crypto, entropy, config);
    let mut next: Option<Frame> = None;
    for pair in recording.heard.chunks(2) {
        let [asked, answered] = pair else { panic!("a request without an answer") };
        let frame = next.take().unwrap_or_else(|| requester.ask(told.ask(asked)).unwrap());
        told.compare(crypto, &frame, asked);
        match requester.receive(&answered.frame).unwrap() {
            Step::Send(frame) => next = Some(frame),
            Step::Done(_) => {}
            wait @ Step::Wait { .. } => panic!("{wait:?}"),
        }
    }
    assert_eq!((next, requester.session()), (None, None));
}

/// Our responder is asked what the recorded one was.
pub(crate) fn responder(recording: &Recording) {
    let told = Told::new(recording);
    let (Capabilities(limits), _) = told.read::<Capabilities>(told.first(Code::CAPABILITIES));
    let mut chains: Vec<Chain> = Vec::new();
    for heard in told.all(Code::CERTIFICATE) {
        let (message, _) = told.read::<Certificate>(heard);
        if usize::from(message.slot) == chains.len() {
            chains.push(Chain::read(&message.portion, SUITE).unwrap());
        }
    }
    let (told_exchange, _) = told.key_exchange_response();
    let crypto = Recorded::leak(told_exchange.exchange.clone(), &recording.shared);
    let config = responder::Config {
        versions: vec![recording.version],
        limits,
        groups: vec![Group::Secp384r1],
        aeads: vec![Aead::Aes256Gcm],
        sessions_max: 1,
        heartbeat_s: told_exchange.heartbeat_s,
    };
    let signatures = Arc::new(Mutex::new(told.signatures()));
    let identity = |chain: &Chain| {
        let signer = Box::new(Remembered(Arc::clone(&signatures)));
        Identity::new(crypto, chain, signer).unwrap()
    };
    let identities = chains.iter().map(identity).collect();
    let entropy = Box::new(Drawn(told.responder_chances()));
    let mut responder = Responder::new(crypto, entropy, config, identities).unwrap();
    let mut device = Puppet { answers: told.vendor_answers(), blocks: told.blocks() };
    for pair in recording.heard.chunks(2) {
        let [asked, answered] = pair else { panic!("a request without an answer") };
        let frame = responder.handle(&mut device, &asked.frame);
        told.compare(crypto, &frame, answered);
    }
    assert!(device.answers.is_empty());
    assert_eq!(responder.sessions().count(), 0);
    assert!(signatures.lock().unwrap().is_empty());
}

/// What the recording tells.
struct Told<'a> {
    recording: &'a Recording,
    shape: Shape,
}

impl<'a> Told<'a> {
    fn new(recording: &'a Recording) -> Self {
        let shape = Shape::negotiated(bindery_spdm::algorithm::Selected {
            version: recording.version,
            suite: SUITE,
            group: Group::Secp384r1,
            aead: Aead::Aes256Gcm,
        });
        Self { recording, shape }
    }

    fn all(&self, code: Code) -> impl Iterator<Item = &'a Heard> {
        let of = move |heard: &&Heard| Header::of(&heard.message).unwrap().code == code;
        self.recording.heard.iter().filter(of)
    }

    fn first(&self, code: Code) -> &'a Heard {
        self.all(code).next().unwrap()
    }

    fn read<M: Message>(&self, heard: &Heard) -> (M, usize) {
        decode(&heard.message, &self.shape).unwrap()
    }

    fn key_exchange_response(&self) -> (KeyExchangeResponse, usize) {
        let shape = Shape { summary: true, ..self.shape };
        decode(&self.first(Code::KEY_EXCHANGE_RSP).message, &shape).unwrap()
    }

    fn measurements(&self, heard: &Heard) -> Measurements {
        decode(&heard.message, &Shape { signed: true, ..self.shape }).unwrap().0
    }

    /// What our requester is to ask so that it says this.
    fn ask(&self, heard: &Heard) -> Ask {
        let message = &heard.message;
        match Header::of(message).unwrap().code {
            Code::GET_VERSION => Ask::Connect,
            Code::GET_DIGESTS => Ask::Digests,
            Code::GET_CERTIFICATE => Ask::Certificate { slot: message[2] },
            Code::CHALLENGE => Ask::Challenge { slot: message[2], summary: message[3] },
            Code::GET_MEASUREMENTS => {
                let (request, _) = self.read::<GetMeasurements>(heard);
                let signed_by = request.signed.map(|(slot, _)| slot);
                Ask::Measurements { operation: request.operation, signed_by, nonce: None }
            }
            Code::KEY_EXCHANGE => Ask::Session { slot: message[3], summary: message[2] },
            Code::HEARTBEAT => Ask::Heartbeat,
            Code::KEY_UPDATE => Ask::UpdateKeys { both: true },
            Code::VENDOR_DEFINED_REQUEST => Ask::VendorDefined(self.read(heard).0),
            Code::END_SESSION => Ask::EndSession,
            other => panic!("{other} is no beginning of an exchange"),
        }
    }

    /// The random bytes of the requester, in the order in which ours draws them.
    fn chances(&self) -> VecDeque<Vec<u8>> {
        let has_context = self.recording.version.has_context();
        let mut chances = VecDeque::new();
        for heard in &self.recording.heard {
            match Header::of(&heard.message).unwrap().code {
                Code::CHALLENGE => {
                    let (request, _) = self.read::<Challenge>(heard);
                    chances.push_back(request.nonce.to_vec());
                    chances.extend(has_context.then(|| request.context.to_vec()));
                }
                Code::GET_MEASUREMENTS => {
                    let (request, _) = self.read::<GetMeasurements>(heard);
                    let (_, nonce) = request.signed.unwrap();
                    chances.push_back(nonce.to_vec());
                    chances.extend(has_context.then(|| request.context.to_vec()));
                }
                Code::KEY_EXCHANGE => {
                    chances.push_back(self.read::<KeyExchange>(heard).0.random.to_vec());
                    chances.push_back(vec![1; 48]);
                }
                Code::KEY_UPDATE => chances.push_back(vec![self.read::<KeyUpdate>(heard).0.tag]),
                _ => {}
            }
        }
        chances
    }

    /// Those of the responder.
    fn responder_chances(&self) -> VecDeque<Vec<u8>> {
        let mut chances = VecDeque::new();
        for heard in &self.recording.heard {
            match Header::of(&heard.message).unwrap().code {
                Code::CHALLENGE_AUTH => {
                    let shape = Shape { summary: true, ..self.shape };
                    let (message, _) = decode::<ChallengeAuth>(&heard.message, &shape).unwrap();
                    chances.push_back(message.nonce.to_vec());
                }
                Code::MEASUREMENTS => {
                    chances.push_back(self.measurements(heard).nonce.to_vec());
                }
                Code::KEY_EXCHANGE_RSP => {
                    chances.push_back(vec![1; 48]);
                    chances.push_back(self.key_exchange_response().0.random.to_vec());
                }
                _ => {}
            }
        }
        chances
    }

    fn signatures(&self) -> VecDeque<Vec<u8>> {
        let mut signatures = VecDeque::new();
        for heard in &self.recording.heard {
            match Header::of(&heard.message).unwrap().code {
                Code::CHALLENGE_AUTH => {
                    let shape = Shape { summary: true, ..self.shape };
                    let (message, _) = decode::<ChallengeAuth>(&heard.message, &shape).unwrap();
                    signatures.push_back(message.signature);
                }
                Code::MEASUREMENTS => signatures.push_back(self.measurements(heard).signature),
                Code::KEY_EXCHANGE_RSP => {
                    signatures.push_back(self.key_exchange_response().0.signature);
                }
                _ => {}
            }
        }
        signatures
    }

    fn vendor_answers(&self) -> VecDeque<VendorDefined> {
        let answers = self.all(Code::VENDOR_DEFINED_RESPONSE);
        answers.map(|heard| self.read::<VendorResponse>(heard).0.0).collect()
    }

    fn blocks(&self) -> Vec<Block> {
        self.measurements(self.first(Code::MEASUREMENTS)).blocks
    }

    /// Whether a frame is as it was recorded, but for the fields that the protocol leaves to taste.
    fn compare(&self, crypto: &Recorded, frame: &Frame, recorded: &Heard) {
        let code = Header::of(&recorded.message).unwrap().code;
        let taste: &[usize] = match code {
            Code::NEGOTIATE_ALGORITHMS => &[31, 42],
            Code::ALGORITHMS => &[46],
            Code::KEY_EXCHANGE => &[6],
            _ => &[],
        };
        let (Frame::Clear(ours) | Frame::Secured(ours)) = frame;
        let (Frame::Clear(theirs) | Frame::Secured(theirs)) = &recorded.frame;
        let is_same_kind =
            matches!(frame, Frame::Clear(_)) == matches!(recorded.frame, Frame::Clear(_));
        assert!(is_same_kind, "{code}");
        let mut tasted = ours.clone();
        // A recorded object is padded.
        tasted.resize(theirs.len(), 0);
        assert!(theirs.len() < ours.len() + 4, "{code}");
        for &at in taste {
            tasted[at] = theirs[at];
        }
        assert!(tasted == *theirs, "{code}\n{ours:02x?}\n{theirs:02x?}");
        if !taste.is_empty() {
            let theirs = theirs[..ours.len()].to_vec();
            crypto.really.lock().unwrap().push((ours.clone(), theirs));
        }
    }
}

/// What we said, and what was said in its place.
type Said = (Vec<u8>, Vec<u8>);

/// The provider, with a key share that was drawn before, and hashes of what was really said.
struct Recorded {
    public: Vec<u8>,
    shared: Vec<u8>,
    really: Mutex<Vec<Said>>,
}

impl Recorded {
    fn leak(public: Vec<u8>, shared: &[u8]) -> &'static Self {
        let really = Mutex::default();
        Box::leak(Box::new(Self { public, shared: shared.to_vec(), really }))
    }
}

impl Crypto for Recorded {
    fn hasher(&self, suite: Suite) -> Box<dyn Hasher> {
        let (really, inner) = (self.really.lock().unwrap().clone(), AwsLc.hasher(suite));
        Box::new(Heedful { really, inner })
    }

    fn hmac(&self, suite: Suite, key: &[u8], parts: &[&[u8]]) -> Secret {
        AwsLc.hmac(suite, key, parts)
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoFault> {
        AwsLc.aead_key(aead, key)
    }

    fn key_share(&self, _: Group, _: &[u8]) -> Result<Box<dyn KeyShare>, CryptoFault> {
        Ok(Box::new(Share { public: self.public.clone(), shared: self.shared.clone() }))
    }

    fn verify(
        &self,
        suite: Suite,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), NotAuthentic> {
        AwsLc.verify(suite, public, message, signature)
    }

    fn certificate_algorithms(
        &self,
    ) -> &'static [&'static dyn rustls_pki_types::SignatureVerificationAlgorithm] {
        AwsLc.certificate_algorithms()
    }
}

struct Share {
    public: Vec<u8>,
    shared: Vec<u8>,
}

impl KeyShare for Share {
    fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn agree(self: Box<Self>, _: &[u8]) -> Result<Secret, NotAuthentic> {
        Ok(Secret::new(self.shared))
    }
}

struct Heedful {
    really: Vec<Said>,
    inner: Box<dyn Hasher>,
}

impl Hasher for Heedful {
    fn update(&mut self, bytes: &[u8]) {
        let mut said = bytes.to_vec();
        for (ours, theirs) in &self.really {
            if let Some(at) = said.windows(ours.len()).position(|window| window == ours) {
                said[at..at + ours.len()].copy_from_slice(theirs);
            }
        }
        self.inner.update(&said);
    }

    fn digest(&self) -> Vec<u8> {
        self.inner.digest()
    }

    fn fork(&self) -> Box<dyn Hasher> {
        Box::new(Self { really: self.really.clone(), inner: self.inner.fork() })
    }
}

struct Drawn(VecDeque<Vec<u8>>);

impl Entropy for Drawn {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CryptoFault> {
        bytes.copy_from_slice(&self.0.pop_front().expect("another draw"));
        Ok(())
    }
}

struct Remembered(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Signer for Remembered {
    fn suite(&self) -> Suite {
        SUITE
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, CryptoFault> {
        self.0.lock().unwrap().pop_front().ok_or(CryptoFault::NoSignature)
    }
}

/// The recorded device.
struct Puppet {
    answers: VecDeque<VendorDefined>,
    blocks: Vec<Block>,
}

impl Device for Puppet {
    fn measurements(&mut self) -> Vec<Block> {
        self.blocks.clone()
    }

    fn vendor_defined(&mut self, _: Option<SessionId>, _: &VendorDefined) -> Option<VendorDefined> {
        self.answers.pop_front()
    }

    fn session_ended(&mut self, _: SessionId) {}
}
