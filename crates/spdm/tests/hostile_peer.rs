//! A peer that does anything: each message of a whole session disturbed, both ways, and messages that fit
//! nowhere. Nothing panics, nothing disturbed is believed, and no key is used after a failure.
//!
//! | what a peer does | where it is tried |
//! |---|---|
//! | cuts messages short, makes them longer, turns bits over | [`nothing_disturbed_is_believed`]; byte by byte in `sessions.rs` and `known_answers.rs` |
//! | sends far too much | [`what_is_far_too_long_is_refused_at_once`]; in pieces: `sessions.rs` |
//! | says things twice, and in another order | [`answers_to_other_questions_are_refused`]; records: `secured.rs` |
//! | replays | [`what_was_said_before_is_not_believed_again`]; to a device: `sessions.rs` |
//! | signs with another key | [`who_signs_with_another_key_is_refused`] |
//! | shows certificates that are over, not yet valid, of another name or root | [`a_chain_holds_in_its_time_only`]; `sessions.rs` |
//! | has nonces of before | [`what_was_said_before_is_not_believed_again`]; TDISP's: `bindery-tdisp`, `table.rs` |
//! | exhausts sequence numbers | `secured.rs` |
//! | speaks out of turn | [`a_device_answers_what_does_not_belong_there_by_error`]; `sessions.rs` |
//! | never answers | [`an_answer_that_never_comes_costs_the_session`]; `faults.rs` of `bindery-tsm`, `socket.rs` of `bindery-peer` |

#[expect(dead_code, reason = "the setups of sessions.rs")]
mod bench;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bench::{ALL, Mirror, NAME, NOW};
use bindery_spdm::algorithm::{Aead, Group, Suite, Version};
use bindery_spdm::certificate::{CertificateFault, Chain, DeviceName, LeafUsage, Trust};
use bindery_spdm::crypto::aws_lc::{AwsLc, PrivateKey, SystemEntropy};
use bindery_spdm::crypto::{CryptoFault, Signer};
use bindery_spdm::issue::{Contents, Role, issue};
use bindery_spdm::message::{ErrorCode, Limits, VendorDefined};
use bindery_spdm::requester::{self, Ask, Requester, Step};
use bindery_spdm::responder::{self, Identity, Responder};
use bindery_spdm::{Blame, Error, Frame, PeerFault, Refusal};

const SUITE: Suite = Suite::P256Sha256;
const DAY: Duration = Duration::from_secs(86_400);

/// A key that several devices have.
struct Shared(Arc<PrivateKey>);

impl Signer for Shared {
    fn suite(&self) -> Suite {
        self.0.suite()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoFault> {
        self.0.sign(message)
    }
}

/// A chain that holds from [`NOW`] for a day, and the key of its leaf.
fn identity() -> &'static (Chain, Arc<PrivateKey>) {
    static IDENTITY: OnceLock<(Chain, Arc<PrivateKey>)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let [root, leaf] = [(); 2].map(|()| PrivateKey::generate(SUITE).unwrap());
        let of_root = Contents {
            issuer: "root",
            subject: "root",
            suite: SUITE,
            public: &root.public(),
            serial: [1; 8],
            not_before: NOW,
            not_after: Some(NOW + DAY),
            role: Role::Authority,
        };
        let of_leaf = Contents {
            subject: "leaf",
            public: &leaf.public(),
            role: Role::Device(DeviceName::Pci(NAME.into())),
            ..of_root.clone()
        };
        let certificates = [of_root, of_leaf].map(|contents| issue(&contents, &root).unwrap());
        (Chain::new(&AwsLc, SUITE, certificates.into()), Arc::new(leaf))
    })
}

struct Both {
    requester: Requester,
    responder: Responder,
    device: Mirror,
}

const LIMITS: Limits =
    Limits { timeout_exponent: 10, flags: ALL, transfer_bytes_max: 4608, message_bytes_max: 4608 };

impl Both {
    fn new() -> Self {
        Self::with(NOW, Arc::clone(&identity().1))
    }

    /// At another time, with a device that signs with another key.
    fn with(now: Duration, key: Arc<PrivateKey>) -> Self {
        let name = DeviceName::Pci(NAME.into());
        let config = requester::Config {
            versions: Version::ALL.to_vec(),
            limits: LIMITS,
            suites: vec![SUITE],
            groups: vec![Group::Secp256r1],
            aeads: Aead::ALL.to_vec(),
            trust: Trust { roots: None, now, usage: LeafUsage::Responder, name },
        };
        let requester = Requester::new(&AwsLc, Box::new(SystemEntropy), config);
        let config = responder::Config {
            versions: Version::ALL.to_vec(),
            limits: LIMITS,
            groups: Group::ALL.to_vec(),
            aeads: Aead::ALL.to_vec(),
            sessions_max: 1,
            heartbeat_s: 240,
        };
        let identity = Identity::new(&AwsLc, &identity().0, Box::new(Shared(key))).unwrap();
        let entropy = Box::new(SystemEntropy);
        let responder = Responder::new(&AwsLc, entropy, config, vec![identity]).unwrap();
        Self { requester, responder, device: Mirror::default() }
    }

    /// Takes exchanges to their end, each frame by way of `disturb`, which is told its number.
    fn run(
        &mut self,
        asks: &[Ask],
        disturb: &mut dyn FnMut(usize, &Frame) -> Frame,
    ) -> Result<usize, Error> {
        let mut frames = 0;
        let mut by_way = |frame: &Frame| {
            frames += 1;
            assert!(frames < 100, "it goes on for ever");
            disturb(frames - 1, frame)
        };
        for ask in asks {
            let mut frame = self.requester.ask(ask.clone())?;
            loop {
                let answer = self.responder.handle(&mut self.device, &by_way(&frame));
                match self.requester.receive(&by_way(&answer))? {
                    Step::Send(next) | Step::Wait { then: next, .. } => frame = next,
                    Step::Done(_) => break,
                }
            }
        }
        Ok(frames)
    }

    fn bring(&mut self, asks: &[Ask]) {
        self.run(asks, &mut |_, frame| frame.clone()).unwrap();
    }

    fn handle(&mut self, frame: &Frame) -> Frame {
        self.responder.handle(&mut self.device, frame)
    }
}

fn measure() -> Ask {
    Ask::Measurements { operation: 0xff, signed_by: Some(0), nonce: None }
}

fn vendor_defined() -> Ask {
    Ask::VendorDefined(VendorDefined::pci_sig(vec![1, 2, 3, 4]))
}

/// All that leads to a session.
fn handshake() -> Vec<Ask> {
    vec![Ask::Connect, Ask::Certificate { slot: 0 }, Ask::Session { slot: 0, summary: 0 }]
}

/// All that can be asked.
fn everything() -> Vec<Ask> {
    vec![
        Ask::Connect,
        Ask::Digests,
        Ask::Certificate { slot: 0 },
        Ask::Challenge { slot: 0, summary: 0xff },
        measure(),
        Ask::Session { slot: 0, summary: 1 },
        vendor_defined(),
        Ask::Heartbeat,
        Ask::UpdateKeys { both: true },
        Ask::UpdateKeys { both: false },
        measure(),
        Ask::Certificate { slot: 0 },
        Ask::EndSession,
    ]
}

fn bytes(frame: &Frame) -> &Vec<u8> {
    let (Frame::Clear(bytes) | Frame::Secured(bytes)) = frame;
    bytes
}

fn map(frame: &Frame, change: impl FnOnce(&mut Vec<u8>)) -> Frame {
    let mut bytes = bytes(frame).clone();
    change(&mut bytes);
    match frame {
        Frame::Clear(_) => Frame::Clear(bytes),
        Frame::Secured(_) => Frame::Secured(bytes),
    }
}

/// Everything that is said is signed or sealed: what is disturbed is noticed by the next signature at the
/// latest, and then there is no session.
#[test]
fn nothing_disturbed_is_believed() {
    type Disturb = (&'static str, fn(&Frame) -> Frame);
    let disturbances: [Disturb; 9] = [
        ("a byte short", |frame| map(frame, |bytes| bytes.truncate(bytes.len() - 1))),
        ("half of it", |frame| map(frame, |bytes| bytes.truncate(bytes.len() / 2))),
        ("nothing of it", |frame| map(frame, Vec::clear)),
        ("a dword more", |frame| map(frame, |bytes| bytes.extend([9; 4]))),
        ("its first bit", |frame| map(frame, |bytes| bytes[0] ^= 1)),
        ("its code", |frame| map(frame, |bytes| bytes[1] ^= 0x80)),
        ("a bit in the middle", |frame| {
            map(frame, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
            })
        }),
        ("its last bit", |frame| map(frame, |bytes| *bytes.last_mut().unwrap() ^= 0x80)),
        ("its protection", |frame| match frame {
            Frame::Clear(bytes) => Frame::Secured(bytes.clone()),
            Frame::Secured(bytes) => Frame::Clear(bytes.clone()),
        }),
    ];
    let asks = everything();
    let frames = Both::new().run(&asks, &mut |_, frame| frame.clone()).unwrap();
    for (name, disturb) in disturbances {
        for place in 0..frames {
            let mut both = Both::new();
            let ran = both.run(&asks, &mut |number, frame| {
                if number == place { disturb(frame) } else { frame.clone() }
            });
            let error = ran.expect_err(&format!("{name} of frame {place}"));
            let side =
                if matches!(error, Error::Said { .. }) { Blame::Peer } else { error.blame() };
            assert_eq!(side, Blame::Peer, "{name} of frame {place}: {error}");
            assert_eq!(both.requester.session(), None, "{name} of frame {place}");
            assert!(both.requester.ask(Ask::Heartbeat).is_err(), "{name} of frame {place}");
        }
    }
}

#[test]
fn what_is_far_too_long_is_refused_at_once() {
    let mut both = Both::new();
    both.bring(&handshake());
    for code in 0x81..=0xff {
        let long = Frame::Clear([vec![0x13, code, 0, 0], vec![0; 1 << 20]].concat());
        let answer = both.handle(&long);
        assert_eq!(bytes(&answer)[1..3], [0x7f, ErrorCode::REQUEST_TOO_LARGE.0], "{code:#x}");
    }
    both.bring(&[Ask::Heartbeat]);
    let record = both.requester.ask(Ask::Heartbeat).unwrap();
    let answer = both.handle(&map(&record, |bytes| bytes.resize(1 << 20, 0)));
    assert_eq!(bytes(&answer)[1..3], [0x7f, ErrorCode::DECRYPT_ERROR.0]);
    assert_eq!(both.responder.sessions().count(), 0);
    assert!(both.requester.receive(&Frame::Secured(vec![0; 1 << 20])).is_err());
    assert_eq!(both.requester.session(), None);
}

/// Each answer to each other question, and each once more when nothing was asked.
#[test]
fn answers_to_other_questions_are_refused() {
    let asks = everything();
    let clear = &asks[..5];
    for (place, ask) in clear.iter().enumerate() {
        for other in clear.iter().filter(|other| *other != ask) {
            let mut both = Both::new();
            both.bring(&clear[..place.max(3)]);
            let Ok(question) = both.requester.ask(other.clone()) else { continue };
            let answer = both.handle(&question);
            both.requester.abandon();
            let Ok(_) = both.requester.ask(ask.clone()) else { continue };
            let error = both.requester.receive(&answer).unwrap_err();
            assert_eq!(error.blame(), Blame::Peer, "{ask:?} answered as {other:?}: {error}");
            assert_eq!(both.requester.receive(&answer).unwrap_err(), Refusal::Idle.into());
        }
    }
}

/// An answer that was right once, to the same question asked again: nonces differ.
#[test]
fn what_was_said_before_is_not_believed_again() {
    for ask in
        [Ask::Challenge { slot: 0, summary: 0 }, measure(), Ask::Session { slot: 0, summary: 0 }]
    {
        let mut both = Both::new();
        both.bring(&[Ask::Connect, Ask::Certificate { slot: 0 }]);
        let question = both.requester.ask(ask.clone()).unwrap();
        let answer = both.handle(&question);
        both.requester.receive(&answer).unwrap();
        both.requester.abandon();
        both.requester.ask(ask.clone()).unwrap();
        let error = both.requester.receive(&answer).unwrap_err();
        assert_eq!(error.blame(), Blame::Peer, "{ask:?}: {error}");
        assert_eq!(both.requester.session(), None);
    }
    let mut both = Both::new();
    both.bring(&handshake());
    let question = both.requester.ask(vendor_defined()).unwrap();
    let answer = both.handle(&question);
    assert!(matches!(both.requester.receive(&answer), Ok(Step::Done(_))));
    both.requester.ask(vendor_defined()).unwrap();
    assert_eq!(both.requester.receive(&answer).unwrap_err(), PeerFault::Forged.into());
    assert_eq!(both.requester.session(), None);
}

#[test]
fn who_signs_with_another_key_is_refused() {
    let questions =
        [Ask::Challenge { slot: 0, summary: 0 }, measure(), Ask::Session { slot: 0, summary: 0 }];
    for ask in questions {
        let other = Arc::new(PrivateKey::generate(SUITE).unwrap());
        let mut both = Both::with(NOW, other);
        both.bring(&[Ask::Connect, Ask::Certificate { slot: 0 }]);
        let error =
            both.run(std::slice::from_ref(&ask), &mut |_, frame| frame.clone()).unwrap_err();
        assert!(matches!(error, Error::Peer(PeerFault::Signature { .. })), "{ask:?}: {error}");
        assert_eq!(both.requester.session(), None);
    }
}

#[test]
fn a_chain_holds_in_its_time_only() {
    let judged = |now| {
        let mut both = Both::with(now, Arc::clone(&identity().1));
        both.run(&handshake(), &mut |_, frame| frame.clone()).map(drop)
    };
    for now in [NOW, NOW + DAY / 2, NOW + DAY] {
        assert_eq!(judged(now), Ok(()));
    }
    for now in [Duration::ZERO, NOW - Duration::from_secs(1), NOW + DAY + Duration::from_secs(1)] {
        let refused = judged(now).unwrap_err();
        assert!(matches!(refused, Error::Certificate(CertificateFault::Path(_))), "{now:?}");
    }
}

/// Every code, in every phase, in the clear and under the session's keys.
#[test]
fn a_device_answers_what_does_not_belong_there_by_error() {
    let phases: [&[Ask]; 4] =
        [&[], &[Ask::Connect], &[Ask::Connect, Ask::Certificate { slot: 0 }], &handshake()];
    for phase in phases {
        let mut both = Both::new();
        both.bring(phase);
        for code in 0..=0xff_u8 {
            if code == 0x84 {
                continue;
            }
            for version in [0, 0x10, 0x12, 0x13, 0x14, 0xff] {
                let answer =
                    both.handle(&Frame::Clear(vec![version, code, 0xff, 0xff, 1, 2, 3, 4]));
                let told = bytes(&answer);
                assert_eq!(told[1], 0x7f, "{code:#x} of {version:#x} in {phase:?}: {told:x?}");
            }
        }
        let sessions = both.responder.sessions().count();
        assert_eq!(sessions, usize::from(phase.len() == 3), "what was there is there still");
        if sessions == 1 {
            both.bring(&[Ask::Heartbeat, vendor_defined()]);
        }
    }
}

/// Whoever gives up an exchange of a session gives up the session: the answer may still come.
#[test]
fn an_answer_that_never_comes_costs_the_session() {
    let mut both = Both::new();
    both.bring(&handshake());
    let question = both.requester.ask(vendor_defined()).unwrap();
    let late = both.handle(&question);
    both.requester.abandon();
    assert_eq!(both.requester.session(), None);
    assert_eq!(both.requester.receive(&late).unwrap_err(), Refusal::Idle.into());
    assert_eq!(both.requester.ask(Ask::Heartbeat), Err(Refusal::WrongState.into()));
    both.requester.ask(Ask::Connect).unwrap();
    assert!(both.requester.receive(&late).is_err(), "a record before there is a session");
}
