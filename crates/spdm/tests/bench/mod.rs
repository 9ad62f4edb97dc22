//! A requester, a responder and certificates made for them.

use std::time::Duration;

use bindery_spdm::algorithm::{Aead, Group, Suite, Version};
use bindery_spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use bindery_spdm::crypto::Crypto;
use bindery_spdm::crypto::aws_lc::{AwsLc, SystemEntropy};
use bindery_spdm::crypto::rust_crypto::{PrivateKey, RustCrypto};
use bindery_spdm::issue::{Contents, Role, issue};
use bindery_spdm::message::{Block, CapabilityFlags, Limits, VendorDefined};
use bindery_spdm::requester::{self, Ask, Outcome, Requester, Step};
use bindery_spdm::responder::{self, Device, Identity, Responder};
use bindery_spdm::secured::SessionId;
use bindery_spdm::{Error, Frame};

/// 2026-01-01.
pub(crate) const NOW: Duration = Duration::from_secs(1_767_225_600);
const YEAR: Duration = Duration::from_secs(31_557_600);
/// The name that leaves have.
pub(crate) const NAME: &str = "Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100";

/// A device with two measurements, that answers each vendor-defined message by its reverse.
#[derive(Default)]
pub(crate) struct Mirror {
    pub(crate) ended: Vec<SessionId>,
}

impl Device for Mirror {
    fn measurements(&mut self) -> Vec<Block> {
        let block = |index| Block { index, kind: 1, value: vec![index; 48] };
        vec![block(1), block(2)]
    }

    fn vendor_defined(
        &mut self,
        _: Option<SessionId>,
        message: &VendorDefined,
    ) -> Option<VendorDefined> {
        let payload = message.payload.iter().rev().copied().collect::<Vec<_>>().into();
        (message.standard == 3).then(|| VendorDefined { payload, ..message.clone() })
    }

    fn session_ended(&mut self, session: SessionId) {
        self.ended.push(session);
    }
}

/// All that both sides can do but chunks.
pub(crate) const ALL: CapabilityFlags = CapabilityFlags(
    CapabilityFlags::CERTIFICATE.0
        | CapabilityFlags::CHALLENGE.0
        | CapabilityFlags::MEASUREMENTS_SIGNED.0
        | CapabilityFlags::ENCRYPT.0
        | CapabilityFlags::MAC.0
        | CapabilityFlags::KEY_EXCHANGE.0
        | CapabilityFlags::HEARTBEAT.0
        | CapabilityFlags::KEY_UPDATE.0,
);

/// Both sides, and what both are made of.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) versions: Vec<Version>,
    pub(crate) suite: Suite,
    pub(crate) group: Group,
    pub(crate) aead: Aead,
    pub(crate) transfer_bytes_max: u32,
    /// The longest message in chunks, where both sides can do with them.
    pub(crate) message_bytes_max: Option<u32>,
    /// What either side is capable of: the requester, the responder.
    pub(crate) flags: [CapabilityFlags; 2],
    pub(crate) requester: &'static dyn Crypto,
    pub(crate) responder: &'static dyn Crypto,
    pub(crate) trust: Trust,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            versions: Version::ALL.to_vec(),
            suite: Suite::P384Sha384,
            group: Group::Secp384r1,
            aead: Aead::Aes256Gcm,
            transfer_bytes_max: 4608,
            message_bytes_max: None,
            flags: [ALL; 2],
            requester: &AwsLc,
            responder: &RustCrypto,
            trust: Trust {
                roots: None,
                now: NOW,
                usage: LeafUsage::Responder,
                name: DeviceName::Pci(NAME.into()),
            },
        }
    }
}

pub(crate) struct Bench {
    pub(crate) requester: Requester,
    pub(crate) responder: Responder,
    pub(crate) device: Mirror,
}

impl Setup {
    pub(crate) fn build(&self) -> Bench {
        let chunk =
            self.message_bytes_max.map_or(CapabilityFlags::default(), |_| CapabilityFlags::CHUNK);
        let [of_requester, of_responder] = self.flags.map(|flags| Limits {
            timeout_exponent: 10,
            flags: flags | chunk,
            transfer_bytes_max: self.transfer_bytes_max,
            message_bytes_max: self.message_bytes_max.unwrap_or(self.transfer_bytes_max),
        });
        let config = requester::Config {
            versions: self.versions.clone(),
            limits: of_requester,
            suites: Suite::ALL.to_vec(),
            groups: vec![self.group],
            aeads: vec![self.aead],
            trust: self.trust.clone(),
        };
        let requester = Requester::new(self.requester, Box::new(SystemEntropy), config);
        let config = responder::Config {
            versions: Version::ALL.to_vec(),
            limits: of_responder,
            groups: Group::ALL.to_vec(),
            aeads: Aead::ALL.to_vec(),
            sessions_max: 1,
            heartbeat_s: 240,
        };
        let (chain, key) = chain(self.suite);
        let identity = Identity::new(self.responder, &chain, Box::new(key)).unwrap();
        let entropy = Box::new(SystemEntropy);
        let responder = Responder::new(self.responder, entropy, config, vec![identity]).unwrap();
        Bench { requester, responder, device: Mirror::default() }
    }
}

impl Bench {
    /// Takes an exchange to its end.
    pub(crate) fn run(&mut self, ask: Ask) -> Result<Outcome, Error> {
        let mut frame = self.requester.ask(ask)?;
        loop {
            let answer = self.responder.handle(&mut self.device, &padded(frame));
            match self.requester.receive(&padded(answer))? {
                Step::Send(next) | Step::Wait { then: next, .. } => frame = next,
                Step::Done(outcome) => return Ok(outcome),
            }
        }
    }

    /// As far as an established session.
    pub(crate) fn establish(&mut self) -> SessionId {
        self.run(Ask::Connect).unwrap();
        self.run(Ask::Certificate { slot: 0 }).unwrap();
        let outcome = self.run(Ask::Session { slot: 0, summary: 0 }).unwrap();
        let Outcome::Established { id, .. } = outcome else { panic!("{outcome:?}") };
        id
    }
}

/// As a mailbox would carry it.
fn padded(frame: Frame) -> Frame {
    let pad = |mut bytes: Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    match frame {
        Frame::Clear(bytes) => Frame::Clear(pad(bytes)),
        Frame::Secured(bytes) => Frame::Secured(pad(bytes)),
    }
}

/// A root, and a leaf that it signed, with the leaf's key.
pub(crate) fn chain(suite: Suite) -> (Chain, PrivateKey) {
    let key = |byte| PrivateKey::from_scalar(suite, &vec![byte; suite.hash_bytes()]).unwrap();
    let (root, leaf) = (key(0x11), key(0x22));
    let of_root = Contents {
        issuer: "root",
        subject: "root",
        suite,
        public: &root.public(),
        serial: [1; 8],
        not_before: NOW - YEAR,
        not_after: Some(NOW + 8 * YEAR),
        role: Role::Authority,
    };
    let of_leaf = Contents {
        subject: "leaf",
        public: &leaf.public(),
        serial: [2; 8],
        role: Role::Device(DeviceName::Pci(NAME.into())),
        ..of_root.clone()
    };
    let certificates = [of_root, of_leaf].map(|contents| issue(&contents, &root).unwrap());
    (Chain::new(&RustCrypto, suite, certificates.into()), leaf)
}
