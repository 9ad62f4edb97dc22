//! A responder before a device, certificates for it, and an IDE stream that notes what is done to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use spdm::Frame;
use spdm::algorithm::{Aead, Group, Suite, Version};
use spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use spdm::crypto::aws_lc::{AwsLc, PrivateKey, SystemEntropy};
use spdm::issue::{Contents, Role, issue};
use spdm::message::{Block, CapabilityFlags, Limits, VendorDefined};
use spdm::responder::{Config, Identity, Responder};
use spdm::secured::SessionId;
use tdisp::ide_km::{KeyId, KeyMaterial};
use tsm::software::{Authority, Dialect, Policy, Security, Settings, Tsm};
use tsm::{End, FunctionFacts, Links, Refusal, Reply, Stream, Transport};

use super::{Clock, Counting, Device, Machine, Outermost, PF};

/// The name in the device's certificate.
const NAME: &str = "Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100";
/// 2026-01-01.
const NOW: Duration = Duration::from_secs(1_767_225_600);
const YEAR: Duration = Duration::from_secs(31_557_600);
const SUITE: Suite = Suite::P256Sha256;

/// What is done to an answer on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// Nothing.
    #[default]
    Nothing,
    /// It does not come, and the device did not get the request.
    Lost,
    /// It does not come, but the device did what it was asked.
    Unheard,
    /// A bit near its end is turned over.
    Bit,
    /// It is cut short.
    Cut,
    /// The answer before comes once more.
    Again,
}

/// What the other side of a secure machine shows.
pub(crate) struct Shown {
    device: Arc<Device>,
    responder: Mutex<Responder>,
    alone: sync::Mutex<Outermost, ()>,
    /// After how many answers, how, and whether all that follow.
    spoil: Mutex<(usize, Spoil, bool)>,
    last: Mutex<Vec<u8>>,
    /// Objects by type, of the requester.
    objects: Mutex<Vec<u8>>,
    log: Mutex<Vec<String>>,
    policy: Mutex<Policy>,
}

impl Shown {
    /// Spoils what is answered after so many.
    pub(crate) fn spoil(&self, after: usize, how: Spoil) {
        *self.spoil.lock().unwrap() = (after, how, true);
    }

    /// Spoils the one answer after so many.
    pub(crate) fn spoil_once(&self, after: usize, how: Spoil) {
        *self.spoil.lock().unwrap() = (after, how, false);
    }

    /// What was done to the stream since the last time.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// How many objects came since the last time: in the clear, in a session.
    pub(crate) fn take_objects(&self) -> (usize, usize) {
        let objects = std::mem::take(&mut *self.objects.lock().unwrap());
        let count = |kind| objects.iter().filter(|one| **one == kind).count();
        (count(1), count(2))
    }

    /// Sessions that the device has.
    pub(crate) fn sessions(&self) -> usize {
        self.responder.lock().unwrap().sessions().count()
    }

    /// Changes what the TSM trusts.
    pub(crate) fn trust(&self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy.lock().unwrap());
    }

    /// What it trusts.
    pub(crate) fn policy(&self) -> Policy {
        self.policy.lock().unwrap().clone()
    }
}

/// A machine whose first device speaks SPDM, and wants to hear of the TSM each so many seconds; not at
/// all where that is 0.
pub(crate) fn secure(clock: &Arc<Clock>, heartbeat_s: u8) -> (Machine, Arc<Shown>) {
    secure_as(clock, heartbeat_s, Dialect::Any)
}

/// Likewise, with a TSM that plays another.
pub(crate) fn secure_as(
    clock: &Arc<Clock>,
    heartbeat_s: u8,
    dialect: Dialect,
) -> (Machine, Arc<Shown>) {
    let mut made = None;
    let machine = Machine::with(clock, |device, _| {
        let shown = shown(device, heartbeat_s);
        made = Some(Arc::clone(&shown));
        let authority = Arc::new(Trusting(Arc::clone(&shown)));
        let security = Security { crypto: &AwsLc, authority };
        let links = Arc::new(Guarded(shown));
        let settings = Settings { dialect, ..Settings::default() };
        Tsm::secure(links, Arc::new(Counting::default()), settings, security)
    });
    (machine, made.unwrap())
}

fn shown(device: &Arc<Device>, heartbeat_s: u8) -> Arc<Shown> {
    let keys = [(); 2].map(|()| PrivateKey::generate(SUITE).unwrap());
    let [root, leaf] = &keys;
    let of_root = Contents {
        issuer: "root",
        subject: "root",
        suite: SUITE,
        public: &root.public(),
        serial: [1; 8],
        not_before: NOW - YEAR,
        not_after: Some(NOW + YEAR),
        role: Role::Authority,
    };
    let of_leaf = Contents {
        subject: "leaf",
        public: &leaf.public(),
        role: Role::Device(DeviceName::Pci(NAME.into())),
        ..of_root.clone()
    };
    let certificates = [of_root, of_leaf].map(|contents| issue(&contents, root).unwrap());
    let roots = Some(vec![certificates[0].clone()]);
    let chain = Chain::new(&AwsLc, SUITE, certificates.into());
    let [_, leaf] = keys;
    let identity = Identity::new(&AwsLc, &chain, Box::new(leaf)).unwrap();
    let (entropy, config) = (Box::new(SystemEntropy), config(heartbeat_s));
    let responder = Responder::new(&AwsLc, entropy, config, vec![identity]).unwrap();
    let trust =
        Trust { roots, now: NOW, usage: LeafUsage::Responder, name: DeviceName::Pci(NAME.into()) };
    let policy = Policy { trust, measurements: Some(measurements()), challenge: true };
    Arc::new(Shown {
        device: Arc::clone(device),
        responder: Mutex::new(responder),
        alone: sync::Mutex::new(()),
        spoil: Mutex::default(),
        last: Mutex::default(),
        objects: Mutex::default(),
        log: Mutex::default(),
        policy: Mutex::new(policy),
    })
}

fn measurements() -> Vec<Block> {
    (1..4).map(|index| Block { index, kind: 1, value: vec![index; 32] }).collect()
}

fn config(heartbeat_s: u8) -> Config {
    let flags = CapabilityFlags::CERTIFICATE
        | CapabilityFlags::CHALLENGE
        | CapabilityFlags::MEASUREMENTS_SIGNED
        | CapabilityFlags::ENCRYPT
        | CapabilityFlags::MAC
        | CapabilityFlags::KEY_EXCHANGE
        | CapabilityFlags::HEARTBEAT
        | CapabilityFlags::KEY_UPDATE;
    Config {
        versions: Version::ALL.to_vec(),
        limits: Limits {
            timeout_exponent: 10,
            flags,
            transfer_bytes_max: 512,
            message_bytes_max: 4096,
        },
        groups: Group::ALL.to_vec(),
        aeads: Aead::ALL.to_vec(),
        sessions_max: 2,
        heartbeat_s,
    }
}

/// The device as its responder sees it.
struct Face<'a>(&'a Device);

impl spdm::responder::Device for Face<'_> {
    fn measurements(&mut self) -> Vec<Block> {
        measurements()
    }

    fn vendor_defined(
        &mut self,
        session: Option<SessionId>,
        message: &VendorDefined,
    ) -> Option<VendorDefined> {
        session.map(|_| VendorDefined::pci_sig(self.0.respond(&message.payload)))
    }

    fn session_ended(&mut self, _: SessionId) {
        self.0.end_session();
    }
}

struct Guarded(Arc<Shown>);

impl Links for Guarded {
    fn transport(&self, function: pci::Address) -> Option<Arc<dyn Transport>> {
        (function == PF).then(|| Arc::clone(&self.0) as Arc<dyn Transport>)
    }

    fn stream(&self, _: pci::Address) -> Option<Arc<dyn Stream>> {
        Some(Arc::clone(&self.0) as Arc<dyn Stream>)
    }
}

impl Transport for Shown {
    fn submit(&self, object: &[u8], _: Reply) -> Option<Vec<u8>> {
        drop(self.alone.lock());
        self.objects.lock().unwrap().push(object[2]);
        let how = {
            let mut spoil = self.spoil.lock().unwrap();
            let (after, how, all) = *spoil;
            match after.checked_sub(1) {
                Some(fewer) => {
                    spoil.0 = fewer;
                    Spoil::Nothing
                }
                None if all => how,
                None => std::mem::take(&mut spoil.1),
            }
        };
        if how == Spoil::Lost {
            return None;
        }
        let frame = Frame::from_object(object).unwrap();
        let answer = self.responder.lock().unwrap().handle(&mut Face(&self.device), &frame);
        let mut answer = answer.to_object().unwrap();
        let before = std::mem::replace(&mut *self.last.lock().unwrap(), answer.clone());
        match how {
            Spoil::Nothing => {}
            Spoil::Lost | Spoil::Unheard => return None,
            Spoil::Bit => {
                let at = answer.len() - 8;
                answer[at] ^= 4;
            }
            Spoil::Cut => answer.truncate(answer.len() - 4),
            Spoil::Again => answer = before,
        }
        Some(answer)
    }

    fn abort(&self) {
        drop(self.alone.lock());
    }
}

impl Stream for Shown {
    fn allocate(&self, wanted: u8) -> Result<u8, Refusal> {
        self.note("allocate");
        Ok(wanted)
    }

    fn program(&self, _: KeyId, _: &KeyMaterial) {
        self.note("program");
    }

    fn go(&self, _: KeyId) {
        self.note("go");
    }

    fn stop(&self, _: KeyId) {
        self.note("stop");
    }

    fn enable(&self, end: End, _: u8, enabled: bool) {
        self.note(&format!("{end:?} {enabled}"));
    }

    fn release(&self, _: u8) {
        self.note("release");
    }
}

impl Shown {
    fn note(&self, what: &str) {
        drop(self.alone.lock());
        let mut log = self.log.lock().unwrap();
        if log.last().is_none_or(|last| last != what) {
            log.push(what.to_owned());
        }
    }
}

struct Trusting(Arc<Shown>);

impl Authority for Trusting {
    fn policy(&self, dsm: &FunctionFacts) -> Policy {
        assert_eq!(dsm.address, PF);
        self.0.policy()
    }
}
