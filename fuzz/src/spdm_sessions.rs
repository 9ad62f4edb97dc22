//! Whole sessions of SPDM, both roles, over a link that does what the input says.
//!
//! While nothing is disturbed, neither side blames the other. A record that was disturbed is not taken,
//! and its session is over; a record that nobody sealed is answered in the clear.

use std::time::Duration;

use spdm::Frame;
use spdm::algorithm::{Aead, Group, Suite, Version};
use spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use spdm::crypto::rust_crypto::{PrivateKey, RustCrypto};
use spdm::crypto::{CryptoFault, Entropy};
use spdm::issue::{Contents, Role, issue};
use spdm::message::{Block, CapabilityFlags, Limits, VendorDefined};
use spdm::requester::{self, Ask, Requester, Step};
use spdm::responder::{self, Device, Identity, Responder};
use spdm::secured::SessionId;

use crate::input::Input;

const NOW: Duration = Duration::from_secs(1_767_225_600);
const SUITE: Suite = Suite::P256Sha256;
/// Exchanges of an input at most: each may sign.
const EXCHANGES_MAX: usize = 24;

/// Lets both sides speak as `bytes` say: first how long messages may be, then exchanges.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut both = Both::new(input.byte());
    for _ in 0..EXCHANGES_MAX {
        if input.is_empty() {
            break;
        }
        match input.choice(16) {
            15 => both.force(&mut input),
            choice => both.exchange(choice, &mut input),
        }
    }
}

struct Both {
    requester: Requester,
    responder: Responder,
    device: Mirror,
    /// Nothing was disturbed so far, and nobody else spoke.
    calm: bool,
}

impl Both {
    fn new(choice: u8) -> Self {
        let flags = CapabilityFlags::CERTIFICATE
            | CapabilityFlags::CHALLENGE
            | CapabilityFlags::MEASUREMENTS_SIGNED
            | CapabilityFlags::ENCRYPT
            | CapabilityFlags::MAC
            | CapabilityFlags::KEY_EXCHANGE
            | CapabilityFlags::HEARTBEAT
            | CapabilityFlags::KEY_UPDATE;
        let chunks = choice & 1 != 0;
        let limits = Limits {
            timeout_exponent: 0,
            flags: if chunks { flags | CapabilityFlags::CHUNK } else { flags },
            transfer_bytes_max: if chunks { 96 } else { 1024 },
            message_bytes_max: 1024,
        };
        let config = requester::Config {
            versions: Version::ALL.to_vec(),
            limits,
            suites: vec![SUITE],
            groups: vec![Group::Secp256r1],
            aeads: Aead::ALL.to_vec(),
            trust: Trust {
                roots: None,
                now: NOW,
                usage: LeafUsage::Responder,
                name: DeviceName::Any,
            },
        };
        let requester = Requester::new(&RustCrypto, Box::new(Counter(1)), config);
        let config = responder::Config {
            versions: Version::ALL.to_vec(),
            limits,
            groups: vec![Group::Secp256r1],
            aeads: Aead::ALL.to_vec(),
            sessions_max: 2,
            heartbeat_s: 1,
        };
        let responder = Responder::new(&RustCrypto, Box::new(Counter(2)), config, vec![identity()]);
        let responder = responder.expect("one identity");
        Self { requester, responder, device: Mirror, calm: true }
    }

    /// An exchange of the requester's, over a link that disturbs a frame or none.
    fn exchange(&mut self, choice: usize, input: &mut Input<'_>) {
        let (there, back) = (Fault::read(input), Fault::read(input));
        let Ok(mut frame) = self.requester.ask(ask(choice, input)) else { return };
        loop {
            let sent = there.apply(&frame);
            let answer = self.responder.handle(&mut self.device, &sent);
            let got = back.apply(&answer);
            self.calm &= sent == frame && got == answer;
            let was_secured = matches!((&frame, &got), (Frame::Secured(_), Frame::Secured(_)));
            let step = self.requester.receive(&got);
            if got != answer && was_secured {
                assert!(step.is_err(), "a record that was disturbed is taken");
                assert_eq!(self.requester.session(), None);
            }
            match step {
                Ok(Step::Send(next) | Step::Wait { then: next, .. }) => frame = next,
                Ok(Step::Done(_)) => break,
                Err(spdm::Error::Peer(fault)) => {
                    assert!(!self.calm, "nothing was disturbed, but {fault}");
                    break;
                }
                Err(_) => break,
            }
        }
        if let Some(session) = self.requester.session() {
            let known = self.responder.sessions().any(|one| one == session);
            assert!(known || !self.calm, "a session that nobody else has");
        }
    }

    /// A frame of nobody's.
    fn force(&mut self, input: &mut Input<'_>) {
        let secured = input.byte() & 1 != 0;
        let bytes = input.counted();
        let frame = if secured { Frame::Secured(bytes) } else { Frame::Clear(bytes) };
        self.calm = false;
        let answer = self.responder.handle(&mut self.device, &frame);
        assert!(!secured || matches!(answer, Frame::Clear(_)), "a record that nobody sealed");
    }
}

fn ask(choice: usize, input: &mut Input<'_>) -> Ask {
    match choice {
        0 | 1 => Ask::Connect,
        2 => Ask::Digests,
        3 | 4 => Ask::Certificate { slot: input.byte() & 1 },
        5 => Ask::Challenge { slot: 0, summary: input.byte() },
        6 => Ask::Measurements {
            operation: input.byte(),
            signed_by: (input.byte() & 1 != 0).then_some(0),
            nonce: None,
        },
        7..=9 => Ask::Session { slot: 0, summary: 0 },
        10 => Ask::Heartbeat,
        11 => Ask::UpdateKeys { both: input.byte() & 1 != 0 },
        12 | 13 => Ask::VendorDefined(VendorDefined::pci_sig(input.counted())),
        _ => Ask::EndSession,
    }
}

/// What befalls a frame.
#[derive(Clone, Copy)]
enum Fault {
    None,
    Bit(u16),
    Cut(u8),
    Longer(u8),
    Unprotected,
}

impl Fault {
    fn read(input: &mut Input<'_>) -> Self {
        match input.byte() {
            250 => Self::Bit(input.word()),
            251 => Self::Cut(input.byte()),
            252 => Self::Longer(input.byte()),
            253 => Self::Unprotected,
            _ => Self::None,
        }
    }

    fn apply(self, frame: &Frame) -> Frame {
        let (Frame::Clear(bytes) | Frame::Secured(bytes)) = frame;
        let mut bytes = bytes.clone();
        match self {
            Self::None | Self::Unprotected => {}
            Self::Bit(at) => {
                let bits = bytes.len() * 8;
                if bits > 0 {
                    let at = usize::from(at) % bits;
                    bytes[at / 8] ^= 1 << (at % 8);
                }
            }
            Self::Cut(by) => bytes.truncate(bytes.len().saturating_sub(usize::from(by))),
            Self::Longer(byte) => bytes.extend([byte | 1; 4]),
        }
        match (self, frame) {
            (Self::Unprotected, _) | (_, Frame::Clear(_)) => Frame::Clear(bytes),
            (_, Frame::Secured(_)) => Frame::Secured(bytes),
        }
    }
}

fn identity() -> Identity {
    let key = |byte| PrivateKey::from_scalar(SUITE, &[byte; 32]).expect("a scalar");
    let (root, leaf) = (key(1), key(2));
    let of_root = Contents {
        issuer: "root",
        subject: "root",
        suite: SUITE,
        public: &root.public(),
        serial: [1; 8],
        not_before: Duration::ZERO,
        not_after: None,
        role: Role::Authority,
    };
    let of_leaf = Contents {
        subject: "leaf",
        public: &leaf.public(),
        role: Role::Device(DeviceName::Any),
        ..of_root.clone()
    };
    let certificates =
        [of_root, of_leaf].map(|contents| issue(&contents, &root).expect("a signature"));
    let chain = Chain::new(&RustCrypto, SUITE, certificates.into());
    Identity::new(&RustCrypto, &chain, Box::new(leaf)).expect("a short chain")
}

/// Answers each message by its reverse.
struct Mirror;

impl Device for Mirror {
    fn measurements(&mut self) -> Vec<Block> {
        (1..3).map(|index| Block { index, kind: 1, value: vec![index; 32] }).collect()
    }

    fn vendor_defined(
        &mut self,
        _: Option<SessionId>,
        message: &VendorDefined,
    ) -> Option<VendorDefined> {
        let payload = message.payload.iter().rev().copied().collect::<Vec<_>>().into();
        Some(VendorDefined { payload, ..message.clone() })
    }

    fn session_ended(&mut self, _: SessionId) {}
}

/// Bytes that differ each time.
struct Counter(u64);

impl Entropy for Counter {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CryptoFault> {
        self.0 = self.0.wrapping_add(2);
        for (byte, of_count) in bytes.iter_mut().zip(self.0.to_be_bytes().into_iter().cycle()) {
            *byte = of_count.wrapping_add(1);
        }
        Ok(())
    }
}
