//! The rules on our own device: none fails; and on the same device spoiled on purpose, a rule at a time:
//! that rule fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bindery_peer::mailbox_link::{LinkFault, Objects};
use bindery_peer::validate::{self, Finding, Rule, Subject, Verdict};
use device::security::Manager;
use pci::regs::{command, header};
use pci::{Address, DmaFault, Function, Interrupt, Notices};
use spdm::Frame;
use spdm::algorithm::{Aead, Group, Suite, Version};
use spdm::certificate::{Chain, DeviceName, LeafUsage, Trust};
use spdm::crypto::aws_lc::{AwsLc, PrivateKey, SystemEntropy};
use spdm::issue::{Contents, Role, issue};
use spdm::message::{Block, CapabilityFlags, Code, ErrorCode, Limits, VendorDefined};
use spdm::requester::{self, Requester};
use spdm::responder::{self, Identity, Responder};
use spdm::secured::SessionId;
use supervisor::Platform;
use supervisor::machine::Machine;
use tdisp::{ErrorCode as TdiErrorCode, InterfaceId, MessageType, State};

/// The interface that the rules may lock: function 0 of the first device of the default platform.
const SUBJECT: Subject = Subject { interface: Some(InterfaceId::new(0x0100)), stream: 0, port: 0 };

#[test]
fn our_device_breaks_no_rule() {
    let mut ours = Ours(manager());
    for rule in validate::rules() {
        let finding = finding(rule, &mut ours);
        let holds = matches!(finding.verdict, Verdict::Pass | Verdict::Policy(_));
        assert!(holds, "{}: {:?}", rule.id, finding.verdict);
        assert!(!finding.objects.is_empty(), "{}: nothing was exercised", rule.id);
    }
}

#[test]
fn a_spoiled_device_breaks_the_rule() {
    let spoils = spoils();
    for rule in validate::rules() {
        let Some(spoil) = spoils.get(rule.id) else {
            assert!(POLICIES.contains(&rule.id), "nothing spoils {}", rule.id);
            continue;
        };
        let finding = finding(rule, &mut Spoiled::new(*spoil));
        assert!(matches!(finding.verdict, Verdict::Fail(_)), "{}: {:?}", rule.id, finding.verdict);
    }
    let known = |id: &&str| validate::rules().any(|rule| rule.id == *id);
    assert!(spoils.keys().all(known), "a spoil of a rule that there is not");
}

/// Where every answer is a policy.
const POLICIES: [&str; 2] = ["tdi-stop-unlocked", "tdi-session-ends"];

/// The device that is spoiled in nothing is as good as the other one: what fails is the spoil's doing.
#[test]
fn an_unspoiled_device_breaks_no_rule() {
    for rule in validate::rules() {
        let finding = finding(rule, &mut Spoiled::new(Spoil::default()));
        let holds = matches!(finding.verdict, Verdict::Pass | Verdict::Policy(_));
        assert!(holds, "{}: {:?}", rule.id, finding.verdict);
    }
}

#[test]
fn without_an_interface_its_rules_are_not_applicable() {
    let mut ours = Ours(manager());
    let subject = Subject { interface: None, ..SUBJECT };
    for rule in validate::rules().filter(|rule| rule.id.starts_with("tdi-")) {
        let finding = validate::run(rule, subject, &requester, &mut ours).unwrap_or_else(gone);
        assert!(matches!(finding.verdict, Verdict::NotApplicable(_)), "{}", rule.id);
    }
}

fn finding(rule: &'static Rule, objects: &mut dyn Objects) -> Finding {
    validate::run(rule, SUBJECT, &requester, objects).unwrap_or_else(gone)
}

fn gone(fault: LinkFault) -> Finding {
    panic!("the peer is gone: {fault}")
}

const LIMITS: Limits = Limits {
    timeout_exponent: 20,
    flags: CapabilityFlags(
        CapabilityFlags::CERTIFICATE.0
            | CapabilityFlags::CHALLENGE.0
            | CapabilityFlags::MEASUREMENTS_SIGNED.0
            | CapabilityFlags::ENCRYPT.0
            | CapabilityFlags::MAC.0
            | CapabilityFlags::KEY_EXCHANGE.0
            | CapabilityFlags::HEARTBEAT.0
            | CapabilityFlags::KEY_UPDATE.0,
    ),
    transfer_bytes_max: 4608,
    message_bytes_max: 4608,
};

fn requester() -> Requester {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let config = requester::Config {
        versions: Version::ALL.to_vec(),
        limits: LIMITS,
        suites: Suite::ALL.to_vec(),
        groups: Group::ALL.to_vec(),
        aeads: Aead::ALL.to_vec(),
        trust: Trust { roots: None, now, usage: LeafUsage::Responder, name: DeviceName::Any },
    };
    Requester::new(&AwsLc, Box::new(SystemEntropy), config)
}

/// The security manager of the default platform's first device, set up as a host would.
fn manager() -> Arc<Manager> {
    let machine = Machine::build(&Platform::default(), Arc::new(Unheard));
    let capable = machine.devices.iter().filter(|device| device.security.is_some());
    for device in capable.clone() {
        let on = command::MEMORY | command::BUS_MASTER;
        let function: &dyn Function = device.function.as_ref();
        function.config_write(header::COMMAND, &on.to_le_bytes());
    }
    capable.clone().find_map(|device| device.security.clone()).unwrap()
}

struct Unheard;

impl Notices for Unheard {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

/// The device as it is.
struct Ours(Arc<Manager>);

impl Objects for Ours {
    fn object(&mut self, object: Vec<u8>) -> Result<Vec<u8>, LinkFault> {
        Ok(self.0.exchange(&object).expect("every object is answered"))
    }

    fn wait(&mut self, _: u64) {}
}

/// What is done to a device to spoil it. Objects are whole, payloads are of PCI-SIG's messages.
#[derive(Clone, Copy)]
struct Spoil {
    /// To an object before the device has it.
    object: fn(&Past, &mut [u8]),
    /// To the object that answers it.
    answer: fn(&Past, &[u8], &mut [u8]),
    /// A payload that the device is asked first.
    first: fn(&[u8]) -> Option<Vec<u8>>,
    /// To a payload before the device has it.
    payload: fn(&mut Vec<u8>),
    /// To the payload that answers it.
    reply: Reply,
    /// Whether payloads are taken in the clear.
    clear: bool,
    /// Whether a record that was answered before is answered as before.
    again: bool,
}

/// From a payload and what answers it to what answers it instead.
type Reply = fn(&[u8], Option<Vec<u8>>) -> Option<Vec<u8>>;

impl Default for Spoil {
    fn default() -> Self {
        Self {
            object: |_, _| {},
            answer: |_, _, _| {},
            first: |_| None,
            payload: |_| {},
            reply: |_, reply| reply,
            clear: false,
            again: false,
        }
    }
}

/// What went before.
#[derive(Default)]
struct Past {
    /// Records, with their answers.
    records: Vec<(Vec<u8>, Vec<u8>)>,
    /// KEY_EXCHANGE, so often.
    exchanges: usize,
}

struct Spoiled {
    responder: Responder,
    face: Face,
    past: Past,
}

struct Face {
    manager: Arc<Manager>,
    spoil: Spoil,
}

impl Spoiled {
    fn new(spoil: Spoil) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let suite = Suite::P384Sha384;
        let (root, key) = [(); 2].map(|()| PrivateKey::generate(suite).unwrap()).into();
        let certificate = |public: &[u8], subject, role| {
            let contents = Contents {
                issuer: "root",
                subject,
                suite,
                public,
                serial: [1; 8],
                not_before: now,
                not_after: None,
                role,
            };
            issue(&contents, &root).unwrap()
        };
        let certificates = vec![
            certificate(&root.public(), "root", Role::Authority),
            certificate(&key.public(), "device", Role::Device(DeviceName::Any)),
        ];
        let chain = Chain::new(&AwsLc, suite, certificates);
        let identity = Identity::new(&AwsLc, &chain, Box::new(key)).unwrap();
        let config = responder::Config {
            versions: Version::ALL.to_vec(),
            limits: LIMITS,
            groups: Group::ALL.to_vec(),
            aeads: Aead::ALL.to_vec(),
            sessions_max: 2,
            heartbeat_s: 240,
        };
        let entropy = Box::new(SystemEntropy);
        let responder = Responder::new(&AwsLc, entropy, config, vec![identity]).unwrap();
        let face = Face { manager: manager(), spoil };
        Self { responder, face, past: Past::default() }
    }
}

impl Objects for Spoiled {
    fn object(&mut self, mut object: Vec<u8>) -> Result<Vec<u8>, LinkFault> {
        let asked = object.clone();
        let spoil = self.face.spoil;
        (spoil.object)(&self.past, &mut object);
        if code(&object) == Some(Code::KEY_EXCHANGE) {
            self.past.exchanges += 1;
        }
        let frame = Frame::from_object(&object)?;
        let mut answer = self.responder.handle(&mut self.face, &frame).to_object()?;
        (spoil.answer)(&self.past, &asked, &mut answer);
        let before = self.past.records.iter().find(|(record, _)| spoil.again && *record == asked);
        if let Some((_, before)) = before {
            answer.clone_from(before);
        }
        if matches!(frame, Frame::Secured(_)) {
            self.past.records.push((asked, answer.clone()));
        }
        Ok(answer)
    }

    fn wait(&mut self, _: u64) {}
}

impl responder::Device for Face {
    fn measurements(&mut self) -> Vec<Block> {
        (1..4).map(|index| Block { index, kind: 1, value: vec![index; 48] }).collect()
    }

    fn vendor_defined(
        &mut self,
        session: Option<SessionId>,
        message: &VendorDefined,
    ) -> Option<VendorDefined> {
        let session = match session {
            Some(session) => session.joined(),
            None if self.spoil.clear => 0,
            None => return None,
        };
        let ask = |payload: &[u8]| {
            let mut answer = vec![0; 4096];
            let length = self.manager.respond(tdisp::SessionId(session), payload, &mut answer)?;
            answer.truncate(length);
            Some(answer)
        };
        let mut payload = message.payload.clone();
        if let Some(first) = (self.spoil.first)(&payload) {
            ask(&first);
        }
        (self.spoil.payload)(&mut payload);
        (self.spoil.reply)(&message.payload, ask(&payload)).map(VendorDefined::pci_sig)
    }

    fn session_ended(&mut self, session: SessionId) {
        self.manager.session_ended(tdisp::SessionId(session.joined()));
    }
}

/// Bytes before a message in an object.
const OBJECT: usize = 8;
/// Bytes before the ciphertext in an object: session and length too.
const RECORD: usize = OBJECT + 6;
/// Bytes of a header of TDISP behind the protocol.
const BODY: usize = 1 + tdisp::HEADER_BYTES;

/// The code of a message in the clear.
fn code(object: &[u8]) -> Option<Code> {
    (object[2] == 1).then(|| Code(object[OBJECT + 1]))
}

/// Another error than the right one.
fn wrong_error(_: &Past, _: &[u8], answer: &mut [u8]) {
    if code(answer) == Some(Code::ERROR) {
        answer[OBJECT + 2] = ErrorCode::UNSPECIFIED.0;
    }
}

/// Another error of TDISP than the right one.
fn wrong_tdi_error(_: &[u8], reply: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut reply = reply?;
    if reply[2] == MessageType::ERROR.0 {
        reply[BODY..BODY + 4].copy_from_slice(&TdiErrorCode::UNSPECIFIED.0.to_le_bytes());
    }
    Some(reply)
}

/// Something in an answer with this code, counted from its end, is turned over.
fn flip_from_end(answer: &mut [u8], wanted: Code, from_end: usize) {
    if code(answer) == Some(wanted) {
        let at = answer.len() - from_end;
        answer[at] ^= 1;
    }
}

/// The answer to the record after so many is none.
fn lose<const BEFORE: usize>(past: &Past, asked: &[u8], answer: &mut [u8]) {
    if asked[2] == 2 && past.records.len() == BEFORE {
        answer[RECORD] ^= 1;
    }
}

/// KP_ACK always tells success.
fn always_taken(_: &[u8], reply: Option<Vec<u8>>) -> Option<Vec<u8>> {
    const KP_ACK: u8 = 3;
    const STATUS: usize = 5;
    let mut reply = reply?;
    if reply[..2] == [0, KP_ACK] {
        reply[STATUS] = 0;
    }
    Some(reply)
}

/// GET_STATE always tells the same.
fn always_in<const STATE: u8>(_: &[u8], reply: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut reply = reply?;
    if reply[2] == MessageType::DEVICE_INTERFACE_STATE.0 {
        reply[BODY] = STATE;
    }
    Some(reply)
}

fn spoils() -> BTreeMap<&'static str, Spoil> {
    let mut all = BTreeMap::new();
    all.extend(message_spoils());
    all.extend(session_spoils());
    all.extend(link_spoils());
    all.extend(interface_spoils());
    all
}

fn answered(answer: fn(&Past, &[u8], &mut [u8])) -> Spoil {
    Spoil { answer, ..Spoil::default() }
}

fn replied(reply: Reply) -> Spoil {
    Spoil { reply, ..Spoil::default() }
}

fn message_spoils() -> Vec<(&'static str, Spoil)> {
    let as_1_0 = Spoil {
        object: |_, object| {
            if code(object) == Some(Code::GET_VERSION) {
                object[OBJECT] = 0x10;
            }
        },
        ..Spoil::default()
    };
    vec![
        ("version-as-1.0", answered(|_, _, answer| put(Code::VERSION, answer, 0, &[0x12]))),
        ("version-only-1.0", as_1_0),
        ("order-of-negotiation", answered(wrong_error)),
        ("version-of-capabilities", answered(wrong_error)),
        (
            "capabilities-sizes",
            answered(|_, _, answer| put(Code::CAPABILITIES, answer, 12, &[41, 0, 0, 0])),
        ),
        (
            "algorithms-of-those-offered",
            answered(|_, _, answer| put(Code::ALGORITHMS, answer, 12, &[1, 0, 0, 0])),
        ),
        ("version-after-negotiation", answered(wrong_error)),
        ("unknown-request", answered(wrong_error)),
        ("truncated-request", answered(wrong_error)),
        ("digest-of-chain", answered(|_, _, answer| flip_from_end(answer, Code::DIGESTS, 1))),
        (
            "certificate-in-portions",
            answered(|_, asked, answer| {
                if code(asked) == Some(Code::GET_CERTIFICATE) && asked[OBJECT + 6] == 200 {
                    flip_from_end(answer, Code::CERTIFICATE, 4);
                }
            }),
        ),
        ("certificate-past-the-end", answered(wrong_error)),
        ("certificate-of-empty-slot", answered(wrong_error)),
        (
            "challenge-is-signed",
            answered(|_, _, answer| flip_from_end(answer, Code::CHALLENGE_AUTH, 8)),
        ),
        (
            "measurements-are-signed",
            answered(|_, _, answer| flip_from_end(answer, Code::MEASUREMENTS, 8)),
        ),
        (
            "measurements-are-counted",
            answered(|_, asked, answer| {
                if asked[OBJECT + 3] == 0 {
                    put(Code::MEASUREMENTS, answer, 2, &[9]);
                }
            }),
        ),
        ("measurement-that-is-not", answered(wrong_error)),
    ]
}

/// Puts other bytes into an answer with this code.
fn put(wanted: Code, answer: &mut [u8], at: usize, bytes: &[u8]) {
    if code(answer) == Some(wanted) {
        answer[OBJECT + at..][..bytes.len()].copy_from_slice(bytes);
    }
}

fn session_spoils() -> Vec<(&'static str, Spoil)> {
    // A device that does not look whether a record was changed.
    fn mended<const BEFORE: usize>(past: &Past, object: &mut [u8]) {
        if object[2] == 2 && past.records.len() == BEFORE {
            object[RECORD] ^= 1;
        }
    }
    // A device that answers what it answered before.
    let forgetful = Spoil { again: true, ..Spoil::default() };
    let unsuspecting = |object| Spoil { object, ..Spoil::default() };
    vec![
        (
            "session-is-made",
            answered(|_, _, answer| flip_from_end(answer, Code::KEY_EXCHANGE_RSP, 8)),
        ),
        ("finish-forged", unsuspecting(mended::<0>)),
        ("record-forged", unsuspecting(mended::<1>)),
        ("record-repeated", forgetful),
        (
            "session-unknown",
            unsuspecting(|past, object| {
                if object[2] == 2 && past.records.len() == 1 {
                    object[OBJECT] ^= 0xff;
                }
            }),
        ),
        (
            "session-only",
            answered(|_, asked, answer| {
                if code(asked) == Some(Code::HEARTBEAT) {
                    answer[OBJECT + 1] = Code::HEARTBEAT_ACK.0;
                }
            }),
        ),
        ("heartbeat", answered(lose::<1>)),
        ("keys-of-one-direction", answered(lose::<3>)),
        ("keys-of-both-directions", answered(lose::<3>)),
        ("session-ends", forgetful),
        (
            "session-again",
            answered(|past, _, answer| {
                if past.exchanges == 2 {
                    flip_from_end(answer, Code::KEY_EXCHANGE_RSP, 8);
                }
            }),
        ),
    ]
}

fn link_spoils() -> Vec<(&'static str, Spoil)> {
    const QUERY_RESP: u8 = 1;
    const K_SET_GO: u8 = 4;
    const K_GOSTOP_ACK: u8 = 6;
    vec![
        (
            "ide-query",
            replied(|_, reply| {
                let mut reply = reply?;
                if reply[..2] == [0, QUERY_RESP] {
                    reply[3] ^= 1;
                }
                Some(reply)
            }),
        ),
        (
            "ide-keys-work",
            replied(|_, reply| {
                let mut reply = reply?;
                if reply[..2] == [0, K_GOSTOP_ACK] {
                    reply[4] ^= 1;
                }
                Some(reply)
            }),
        ),
        ("ide-port-unknown", replied(always_taken)),
        ("ide-sub-stream-unknown", replied(always_taken)),
        ("ide-length-wrong", replied(always_taken)),
        (
            "ide-go-without-key",
            replied(|asked, reply| {
                let acknowledged = || {
                    let mut answer = asked.to_vec();
                    answer[1] = K_GOSTOP_ACK;
                    answer
                };
                if asked[..2] == [0, K_SET_GO] { Some(acknowledged()) } else { reply }
            }),
        ),
        ("ide-only-in-session", Spoil { clear: true, ..Spoil::default() }),
    ]
}

fn interface_spoils() -> Vec<(&'static str, Spoil)> {
    vec![
        ("tdi-version", replied(|_, reply| put_reply(reply, MessageType::VERSION, 1, &[0x20]))),
        (
            "tdi-capabilities",
            replied(|_, reply| put_reply(reply, MessageType::CAPABILITIES, 4, &[0; 16])),
        ),
        (
            "tdi-version-mismatch",
            Spoil {
                payload: |payload| {
                    if payload[0] == 1 {
                        payload[1] = tdisp::VERSION_1_0;
                    }
                },
                ..Spoil::default()
            },
        ),
        ("tdi-unknown-interface", replied(wrong_tdi_error)),
        ("tdi-unknown-request", replied(wrong_tdi_error)),
        ("tdi-truncated-request", replied(wrong_tdi_error)),
        ("tdi-unlocked-refuses", replied(wrong_tdi_error)),
        (
            "tdi-lock-needs-keys",
            replied(|asked, reply| {
                let mut reply = reply?;
                if asked[2] == MessageType::LOCK_INTERFACE_REQUEST.0 {
                    reply[2] = MessageType::LOCK_INTERFACE_RESPONSE.0;
                    reply.resize(BODY + 32, 0);
                }
                Some(reply)
            }),
        ),
        ("tdi-lock-flags", replied(wrong_tdi_error)),
        ("tdi-lock", replied(always_in::<{ State::Unlocked as u8 }>)),
        ("tdi-lock-once", replied(wrong_tdi_error)),
        (
            "tdi-questions-change-nothing",
            Spoil {
                first: |payload| {
                    let is_question = payload[..3] == [1, 0x10, MessageType::GET_VERSION.0];
                    is_question.then(|| {
                        let mut stop = payload.to_vec();
                        stop[2] = MessageType::STOP_INTERFACE_REQUEST.0;
                        stop
                    })
                },
                ..Spoil::default()
            },
        ),
        (
            "tdi-nonce-is-fresh",
            replied(|_, reply| put_reply(reply, MessageType::LOCK_INTERFACE_RESPONSE, 0, &[7; 32])),
        ),
        ("tdi-nonce-wrong", replied(wrong_tdi_error)),
        (
            "tdi-nonce-of-before",
            replied(|asked, reply| {
                let mut reply = reply?;
                if asked[2] == MessageType::START_INTERFACE_REQUEST.0 {
                    reply[2] = MessageType::START_INTERFACE_RESPONSE.0;
                    reply.truncate(BODY);
                }
                Some(reply)
            }),
        ),
        ("tdi-start", replied(always_in::<{ State::Locked as u8 }>)),
        ("tdi-stop", replied(always_in::<{ State::Error as u8 }>)),
        (
            "tdi-report",
            replied(|asked, reply| {
                const LENGTH: usize = BODY + 2;
                let in_small_portions =
                    asked[2] == MessageType::GET_DEVICE_INTERFACE_REPORT.0 && asked[LENGTH] == 20;
                let mut reply = reply?;
                if in_small_portions && let Some(last) = reply.last_mut() {
                    *last ^= 1;
                }
                Some(reply)
            }),
        ),
        ("tdi-report-past-the-end", replied(wrong_tdi_error)),
        (
            "tdi-report-offset",
            Spoil {
                payload: |payload| {
                    const OFFSET: usize = BODY + 4;
                    if payload[2] == MessageType::LOCK_INTERFACE_REQUEST.0 {
                        payload[OFFSET..OFFSET + 8].fill(0);
                    }
                },
                ..Spoil::default()
            },
        ),
        ("tdi-only-in-session", Spoil { clear: true, ..Spoil::default() }),
    ]
}

/// Puts other bytes into the body of a reply of this type.
fn put_reply(
    reply: Option<Vec<u8>>,
    wanted: MessageType,
    at: usize,
    bytes: &[u8],
) -> Option<Vec<u8>> {
    let mut reply = reply?;
    if reply[0] == 1 && reply[2] == wanted.0 {
        reply[BODY + at..][..bytes.len()].copy_from_slice(bytes);
    }
    Some(reply)
}
