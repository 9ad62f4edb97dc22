//! The data object exchange mailbox as a client uses it: discovery, and a whole session of SPDM.

use std::time::Duration;

use bindery_device::security::Equipment;
use pci::regs::{doe, ext_id};
use pci::{Function, Reset};
use spdm::algorithm::{Aead, Group, Suite, Version};
use spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use spdm::crypto::aws_lc::{AwsLc, PrivateKey, SystemEntropy};
use spdm::flow::{self, Link, Plan};
use spdm::issue::{Contents, Role, issue};
use spdm::message::{Block, CapabilityFlags, ErrorCode, Limits, VendorDefined};
use spdm::requester::{Ask, Outcome, Requester};
use spdm::responder::{Identity, Responder};
use spdm::{Error, Frame, requester, responder};
use tdisp::exchange::{GetState, LockInterface};
use tdisp::payload::{ProtocolId, join};
use tdisp::{InterfaceId, State};

use crate::rig::{IDS, Ram, Rig, STREAM};
use bindery_device::security::Settings;

pub(crate) struct Client<'a> {
    rig: &'a Rig,
    at: u16,
}

impl<'a> Client<'a> {
    pub(crate) fn new(rig: &'a Rig) -> Self {
        Self { rig, at: rig.extended(ext_id::DOE) }
    }

    fn write(&self, register: u16, value: u32) {
        self.rig.engines[0].config_write(self.at + register, &value.to_le_bytes());
    }

    fn read(&self, register: u16) -> u32 {
        let mut bytes = [0; 4];
        self.rig.engines[0].config_read(self.at + register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn send(&self, object: &[u32]) {
        for &dword in object {
            self.write(doe::WRITE_MAILBOX, dword);
        }
        self.write(doe::CONTROL, doe::GO);
    }

    /// The whole answer, or the status where there is none.
    fn receive(&self) -> Result<Vec<u32>, u32> {
        let mut answer = Vec::new();
        while self.read(doe::STATUS) == doe::READY {
            answer.push(self.read(doe::READ_MAILBOX));
            self.write(doe::READ_MAILBOX, 0);
        }
        let status = self.read(doe::STATUS);
        if answer.is_empty() { Err(status) } else { Ok(answer) }
    }

    fn discover(&self, index: u32) -> Result<Vec<u32>, u32> {
        self.send(&[1, 3, index]);
        self.receive()
    }
}

#[test]
fn discovery_lists_the_protocols() {
    let rig = Rig::new();
    let client = Client::new(&rig);
    assert_eq!(client.discover(0), Ok(vec![1, 3, 0x0100_0001]));
    assert_eq!(client.discover(1), Ok(vec![1, 3, 0x0201_0001]));
    assert_eq!(client.discover(2), Ok(vec![1, 3, 0x0002_0001]));
    assert_eq!(client.discover(3), Ok(vec![1, 3, 0xffff]));
}

const NOW: Duration = Duration::from_secs(1_767_225_600);
const SUITE: Suite = Suite::P256Sha256;

/// A rig whose device has a certificate, and keys from nobody.
fn equipped() -> Rig {
    with_heartbeat(0)
}

/// Likewise; the device wants to hear of its requester each so many seconds.
pub(crate) fn with_heartbeat(heartbeat_s: u8) -> Rig {
    let rig = Rig::bare(Settings::default(), Ram::new(None));
    rig.manager.equip(Box::new(move || {
        let key = PrivateKey::generate(SUITE).ok()?;
        let contents = Contents {
            issuer: "root",
            subject: "root",
            suite: SUITE,
            public: &key.public(),
            serial: [1; 8],
            not_before: NOW,
            not_after: None,
            role: Role::Authority,
        };
        let leaf =
            Contents { subject: "leaf", role: Role::Device(DeviceName::Any), ..contents.clone() };
        let certificates = vec![issue(&contents, &key).ok()?, issue(&leaf, &key).ok()?];
        let chain = Chain::new(&AwsLc, SUITE, certificates);
        let identity = Identity::new(&AwsLc, &chain, Box::new(key)).ok()?;
        let config = responder::Config {
            versions: Version::ALL.to_vec(),
            limits: limits(),
            groups: Group::ALL.to_vec(),
            aeads: Aead::ALL.to_vec(),
            sessions_max: 1,
            heartbeat_s,
        };
        let entropy = Box::new(SystemEntropy);
        let responder = Responder::new(&AwsLc, entropy, config, vec![identity]).ok()?;
        let measurements = vec![Block { index: 1, kind: 1, value: vec![1; 32] }];
        Some(Equipment { responder, measurements })
    }));
    rig
}

fn limits() -> Limits {
    let flags = CapabilityFlags::CERTIFICATE
        | CapabilityFlags::MEASUREMENTS_SIGNED
        | CapabilityFlags::ENCRYPT
        | CapabilityFlags::MAC
        | CapabilityFlags::KEY_EXCHANGE
        | CapabilityFlags::HEARTBEAT;
    Limits { timeout_exponent: 0, flags, transfer_bytes_max: 1024, message_bytes_max: 1024 }
}

pub(crate) fn host() -> Requester {
    let config = requester::Config {
        versions: Version::ALL.to_vec(),
        limits: limits(),
        suites: vec![SUITE],
        groups: Group::ALL.to_vec(),
        aeads: Aead::ALL.to_vec(),
        trust: Trust { roots: None, now: NOW, usage: LeafUsage::Responder, name: DeviceName::Any },
    };
    Requester::new(&AwsLc, Box::new(SystemEntropy), config)
}

impl Link for Client<'_> {
    type Fault = u32;

    fn exchange(&mut self, frame: &Frame) -> Result<Frame, u32> {
        let object = frame.to_object().unwrap();
        let dwords = object.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        self.send(&dwords.collect::<Vec<_>>());
        let answer: Vec<u8> = self.receive()?.into_iter().flat_map(u32::to_le_bytes).collect();
        Ok(Frame::from_object(&answer).unwrap())
    }

    fn wait(&mut self, _: u64) -> Result<(), u32> {
        Err(0)
    }
}

/// A request of TDISP as a payload.
pub(crate) fn payload<'a, B: tdisp::RequestBody<'a>>(body: &B) -> VendorDefined {
    let mut bytes = vec![0; 128];
    let interface = InterfaceId::new(IDS[0]);
    let length =
        join(ProtocolId::TDISP, &mut bytes, |into| tdisp::encode(interface, body, into)).unwrap();
    bytes.truncate(length);
    VendorDefined::pci_sig(bytes)
}

#[test]
fn a_session_goes_through_it_dword_by_dword() {
    let rig = equipped();
    let (mut client, mut host) = (Client::new(&rig), host());
    flow::establish(&mut host, &mut client, &Plan::default()).unwrap();
    assert_eq!(rig.manager.sessions(), 1);
    let mut ask = |message| {
        let outcome = flow::run(&mut host, &mut client, &Ask::VendorDefined(message)).unwrap();
        let Outcome::VendorDefined(answer) = outcome else { panic!("{outcome:?}") };
        answer.payload
    };
    assert_eq!(ask(payload(&GetState)).last(), Some(&0));
    // There are no keys yet.
    let lock = LockInterface { default_stream: STREAM, ..LockInterface::default() };
    assert_eq!(ask(payload(&lock))[2], tdisp::MessageType::ERROR.0);
    assert!(!ask(VendorDefined::pci_sig(vec![0, 0, 0, 0])).is_empty(), "IDE_KM QUERY");
    // A bus reset ends it, and the client hears so.
    rig.engines[0].reset(Reset::Bus);
    assert_eq!(rig.manager.sessions(), 0);
    let ended = flow::run(&mut host, &mut client, &Ask::VendorDefined(payload(&GetState)));
    let code = ErrorCode::INVALID_SESSION;
    assert_eq!(ended, Err(Error::Said { code, data: 0 }.into()));
}

#[test]
fn the_end_of_a_session_is_the_end_of_what_was_locked_in_it() {
    let rig = equipped();
    rig.give_keys(STREAM);
    let (mut client, mut host) = (Client::new(&rig), host());
    flow::establish(&mut host, &mut client, &Plan::default()).unwrap();
    let lock = LockInterface { default_stream: STREAM, ..LockInterface::default() };
    flow::run(&mut host, &mut client, &Ask::VendorDefined(payload(&lock))).unwrap();
    assert_eq!(rig.state(0), State::Locked);
    flow::run(&mut host, &mut client, &Ask::EndSession).unwrap();
    assert_eq!(rig.state(0), State::Error);
}

#[test]
fn in_the_clear_there_is_no_tdisp() {
    let rig = equipped();
    let (mut client, mut host) = (Client::new(&rig), host());
    flow::run(&mut host, &mut client, &Ask::Connect).unwrap();
    let refused = flow::run(&mut host, &mut client, &Ask::VendorDefined(payload(&GetState)));
    let code = ErrorCode::UNSUPPORTED_REQUEST;
    assert_eq!(refused, Err(Error::Said { code, data: 0xfe }.into()));
}

/// Messages of CXL, whose vendor is another, and sessions by pre-shared keys: the session that there is
/// goes on.
#[test]
fn other_vendors_and_keys_shared_before_are_refused() {
    const CXL: u16 = 0x1e98;
    const PSK_EXCHANGE: u8 = 0xe6;
    let rig = equipped();
    let (mut client, mut host) = (Client::new(&rig), host());
    flow::establish(&mut host, &mut client, &Plan::default()).unwrap();
    let foreign = |payload| {
        let vendor = CXL.to_le_bytes().to_vec();
        VendorDefined { vendor, ..VendorDefined::pci_sig(payload) }
    };
    for payload in [vec![0, 0, 0, 0], vec![1; 40], payload(&GetState).payload.to_vec()] {
        let asked = flow::run(&mut host, &mut client, &Ask::VendorDefined(foreign(payload)));
        let code = ErrorCode::UNSUPPORTED_REQUEST;
        assert_eq!(asked, Err(Error::Said { code, data: 0xfe }.into()));
    }
    let request = [&[0x13, PSK_EXCHANGE, 0, 0][..], &[0; 60]].concat();
    let Frame::Clear(answer) = client.exchange(&Frame::Clear(request)).unwrap() else {
        panic!("a record");
    };
    assert_eq!(answer[1..4], [0x7f, ErrorCode::UNSUPPORTED_REQUEST.0, PSK_EXCHANGE]);
    flow::run(&mut host, &mut client, &Ask::VendorDefined(payload(&GetState))).unwrap();
}

#[test]
fn objects_of_odd_lengths_and_types_end_in_error() {
    let rig = equipped();
    let client = Client::new(&rig);
    let get_version: [u32; 3] = [0x0001_0001, 3, 0x8410];
    for wrong in [
        &get_version[..2],
        &[0x0001_0001, 4, 0x8410],
        &[0x0001_0001, 2, 0x8410],
        &[0x0001_0001, 1],
        &[0x0003_0001, 3, 0x8410],
        &[0x0001_0002, 3, 0x8410],
    ] {
        client.send(wrong);
        assert_eq!(client.receive(), Err(doe::ERROR), "{wrong:x?}");
        client.write(doe::CONTROL, doe::ABORT);
    }
    client.send(&get_version);
    assert_eq!(client.receive().unwrap()[0], 0x0001_0001);
    client.send(&[0x0001_0001, 2]);
    let error = client.receive().unwrap();
    assert_eq!(error[2].to_le_bytes()[1], 0x7f, "a message of no length");
    client.send(&[0x0002_0001, 3, 0xffff_ffff]);
    assert_eq!(client.receive().unwrap()[0], 0x0001_0001, "refused in the clear");
}

#[test]
fn other_objects_end_in_error_until_abort() {
    let rig = Rig::new();
    let client = Client::new(&rig);
    let objects: [&[u32]; 5] =
        [&[0x0001_0001, 3, 0], &[0x0002_0001, 2], &[1, 4, 0], &[], &[0x1234, 3, 0]];
    for object in objects {
        client.send(object);
        assert_eq!(client.receive(), Err(doe::ERROR), "{object:x?}");
        client.send(&[1, 3, 0]);
        assert_eq!(client.receive(), Err(doe::ERROR), "it stays");
        client.write(doe::CONTROL, doe::ABORT);
        assert!(client.discover(0).is_ok());
    }
    client.send(&[7; 100]);
    assert_eq!(client.receive(), Err(doe::ERROR), "too long");
    rig.engines[0].reset(Reset::Function);
    assert!(client.discover(0).is_ok());
}

#[test]
fn an_answer_that_was_not_read_is_not_written_over() {
    let rig = Rig::new();
    let client = Client::new(&rig);
    client.send(&[1, 3, 0]);
    client.send(&[1, 3, 1]);
    assert_eq!(client.receive(), Err(doe::ERROR));
}

#[test]
fn it_is_busy_while_it_is_claimed() {
    let rig = Rig::new();
    let client = Client::new(&rig);
    client.send(&[1, 3, 0]);
    let (first, second) = (rig.manager.claim_mailbox(), rig.manager.claim_mailbox());
    for deed in [doe::ABORT, doe::GO] {
        assert_eq!(client.discover(0), Err(doe::BUSY));
        client.write(doe::CONTROL, deed);
    }
    drop(first);
    rig.engines[0].reset(Reset::Function);
    assert_eq!(client.read(doe::STATUS), doe::BUSY);
    drop(second);
    assert_eq!(client.read(doe::STATUS), 0);
    assert!(client.discover(1).is_ok());
}
