//! SPDM beneath: who is trusted, what is kept of it, and what happens to a session that is disturbed.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use spdm::algorithm::Suite;
use spdm::certificate::{Chain, DeviceName};
use spdm::crypto::Crypto;
use spdm::crypto::aws_lc::AwsLc;
use spdm::{Purpose, signed_message};
use tsm::software::Policy;
use tsm::{
    Arch, Binding, Cancel, Distrust, GuestRequest, Memory, Notice, ObjectKind, Op, Refusal, State,
    Unreachable,
};
use uapi::Errno;

use crate::support::{Clock, Machine, PF, Shown, Spoil, TIMEOUT_MS, VF1, VF2, secure, wait_until};

const LOCK: u32 = 1;
const RUN: u32 = 2;

fn connected(clock: &Arc<Clock>) -> (Machine, Arc<Shown>) {
    let (machine, shown) = secure(clock, 0);
    machine.connect();
    shown.take_objects();
    machine.heard.take();
    (machine, shown)
}

fn authenticated(machine: &Machine) -> String {
    machine.registry.attributes(PF).unwrap().authenticated
}

fn read(machine: &Machine, kind: ObjectKind) -> Vec<u8> {
    let request = [&(kind as u32).to_le_bytes()[..], &[0; 12]].concat();
    machine.ask(VF1, Op::ReadObject, &request, 0xffff).unwrap().bytes
}

#[test]
fn connect_makes_a_session_and_disconnect_ends_it() {
    let (machine, shown) = secure(&Clock::standing(), 0);
    machine.registry.connect(PF, b"tsm0").unwrap();
    assert_eq!(authenticated(&machine), "tsm0\n");
    assert_eq!(machine.registry.attributes(VF1).unwrap().authenticated, "tsm0\n");
    let secured = machine.registry.ledger()[0].secured.unwrap();
    assert_eq!((secured.renewals, secured.key_updates, shown.sessions()), (0, 0, 1));
    let accepted = format!(
        "b1d0:01:00.0 certificates and measurements accepted, SPDM session {:#010x}",
        secured.session
    );
    assert_eq!(machine.heard.lines(), [accepted, "b1d0:01:00.0 connected to tsm0".to_owned()]);
    assert!(machine.device.is_secure());
    machine.bind(VF1).unwrap();
    machine.set_state(VF1, LOCK).unwrap();
    machine.set_state(VF1, RUN).unwrap();
    assert_eq!(machine.device.state(VF1.requester_id()), State::Run);
    machine.registry.disconnect(PF, b"tsm0").unwrap();
    assert_eq!(machine.device.state(VF1.requester_id()), State::Unlocked);
    assert_eq!((shown.sessions(), machine.device.is_secure()), (0, false));
    assert_eq!(authenticated(&machine), "\n");
    machine.assert_clean();
}

#[test]
fn the_endpoint_is_enabled_before_the_root_port() {
    let (machine, shown) = connected(&Clock::standing());
    let up = ["allocate", "program", "go", "Endpoint true", "RootPort true"];
    assert_eq!(shown.take_log(), up);
    machine.registry.disconnect(PF, b"tsm0").unwrap();
    assert_eq!(shown.take_log(), ["RootPort false", "Endpoint false", "stop", "release"]);
}

#[test]
fn what_is_not_trusted_is_not_connected() {
    type Case = (fn(&mut Policy), Refusal);
    let cases: [Case; 5] = [
        (
            |policy| policy.trust.roots = Some(vec![vec![0x30, 0]]),
            Refusal::Certificate(Distrust::UnknownRoot),
        ),
        (|policy| policy.trust.roots = Some(vec![]), Refusal::Certificate(Distrust::UnknownRoot)),
        (
            |policy| policy.trust.name = DeviceName::Pci("Vendor=dead".into()),
            Refusal::Certificate(Distrust::Name),
        ),
        (|policy| policy.trust.now *= 2, Refusal::Certificate(Distrust::Path)),
        (
            |policy| policy.measurements.as_mut().unwrap()[1].value[0] ^= 1,
            Refusal::Measurement { index: 2 },
        ),
    ];
    let (machine, shown) = secure(&Clock::standing(), 0);
    let good = shown.policy();
    for (spoil, expected) in cases {
        shown.trust(spoil);
        let refused = machine.registry.connect(PF, b"tsm0").unwrap_err();
        assert_eq!((refused, refused.errno()), (expected, Errno::EKEYREJECTED));
        assert_eq!(machine.heard.lines(), [format!("b1d0:01:00.0 not connected: {expected}")]);
        assert_eq!((machine.device.take_log(), shown.sessions()), (vec![], 0));
        assert_eq!((authenticated(&machine), shown.take_log()), ("\n".into(), vec![]));
        shown.trust(|policy| *policy = good.clone());
    }
    machine.registry.connect(PF, b"tsm0").unwrap();
}

#[test]
fn evidence_holds_without_the_tsm() {
    struct Client;
    impl Memory for Client {
        fn read(&self, _: u64, into: &mut [u8]) -> Result<(), Unreachable> {
            into.fill(0xab);
            Ok(())
        }
    }
    let (machine, _) = connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.set_state(VF1, LOCK).unwrap();
    let suite = Suite::P256Sha256;
    let chain = Chain::read(&read(&machine, ObjectKind::Certificate), suite).unwrap();
    let verify = |measured: &[u8], vca: &[u8]| {
        let (signed, signature) = measured.split_at(measured.len() - suite.signature_bytes());
        let hash = spdm::crypto::hash(&AwsLc, suite, &[vca, signed].concat());
        let message = signed_message(spdm::algorithm::Version::V13, Purpose::Measurements, &hash);
        // Both coordinates stand at the end of the leaf's public key.
        let leaf = chain.certificates.last().unwrap();
        let at = leaf.windows(4).position(|four| four == [3, 0x42, 0, 4]).unwrap() + 4;
        AwsLc.verify(suite, &leaf[at..at + 64], &message, signature)
    };
    let vca = read(&machine, ObjectKind::Vca);
    let first = read(&machine, ObjectKind::Measurement);
    assert_eq!(verify(&first, &vca), Ok(()));
    assert!(verify(&first, &vca[1..]).is_err());

    let regenerate = |kind: ObjectKind| {
        let request = [&(kind as u32).to_le_bytes()[..], &[0; 4], &[1], &[0; 15]].concat();
        let op = Op::RegenObject;
        let request = GuestRequest { arch: Arch::Cca, op, request: &request, response_room: 0 };
        machine.registry.request(VF1, &request, &Client, &Cancel::new()).unwrap();
    };
    regenerate(ObjectKind::Measurement);
    regenerate(ObjectKind::Certificate);
    regenerate(ObjectKind::Vca);
    let second = read(&machine, ObjectKind::Measurement);
    assert_eq!(verify(&second, &vca), Ok(()));
    assert!(second.windows(32).any(|bytes| bytes == [0xab; 32]), "the guest's nonce is signed");
    assert!(!first.windows(32).any(|bytes| bytes == [0xab; 32]));
    let ledger = machine.registry.ledger();
    let tdi = ledger[0].tdis.iter().find(|tdi| tdi.function == VF1).unwrap();
    let views: Vec<_> = tdi.objects.iter().map(|o| (o.kind, o.generation, o.has_nonce)).collect();
    assert_eq!(
        views,
        [
            (ObjectKind::Vca, 1, false),
            (ObjectKind::Certificate, 2, false),
            (ObjectKind::Measurement, 2, true),
            (ObjectKind::InterfaceReport, 1, false),
        ]
    );
}

/// The bind's question got no answer: the session is over, and the unbind that follows makes a new one.
#[test]
fn an_exchange_that_is_given_up_costs_the_session() {
    for how in [Spoil::Lost, Spoil::Unheard] {
        let (machine, shown) = connected(&Clock::leaping());
        machine.bind(VF2).unwrap();
        machine.set_state(VF2, LOCK).unwrap();
        machine.set_state(VF2, RUN).unwrap();
        shown.spoil(2, how);
        let (bound, took_ms) = machine.timed(|| machine.bind(VF1));
        assert_eq!(bound, Err(Refusal::TimedOut), "{how:?}");
        assert!(took_ms < 2 * TIMEOUT_MS, "{took_ms}");
        shown.spoil(0, Spoil::Nothing);
        assert_eq!(machine.binding(VF1), Binding::Quarantined, "nothing was answered");
        machine.registry.reset_done(VF1);
        assert_eq!(machine.binding(VF1), Binding::Unbound);
        assert_eq!(machine.registry.ledger()[0].secured.unwrap().renewals, 1);
        assert_eq!(shown.sessions(), 1);
        assert_eq!(authenticated(&machine), "tsm0\n");

        // What ran in the old session does not any more, and nobody says that it does.
        assert_eq!(machine.device.state(VF2.requester_id()), State::Error);
        let ledger = machine.registry.ledger();
        let tdi = ledger[0].tdis.iter().find(|tdi| tdi.function == VF2).unwrap();
        assert_eq!(tdi.tsm, None);
        machine.registry.unbind(VF2);
        assert_eq!(machine.device.state(VF2.requester_id()), State::Unlocked);
        machine.bind(VF1).unwrap();
        machine.registry.unbind(VF1);
        machine.assert_clean();
    }
}

#[test]
fn one_lost_answer_is_made_good_by_the_unbind_that_follows() {
    let (machine, shown) = connected(&Clock::leaping());
    machine.bind(VF1).unwrap();
    shown.spoil(0, Spoil::Unheard);
    let refused = machine.set_state(VF1, LOCK).unwrap_err();
    assert_eq!(refused, Refusal::TimedOut);
    assert_eq!(machine.binding(VF1), Binding::Unknown);
    assert_eq!(authenticated(&machine), "\n", "nobody answers as that device now");
    let lost = Notice::SessionLost { refusal: Refusal::TimedOut };
    assert!(machine.heard.take().contains(&(PF, lost)));
    shown.spoil(0, Spoil::Nothing);
    machine.registry.unbind(VF1);
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    assert_eq!(machine.device.state(VF1.requester_id()), State::Unlocked);
    assert_eq!(authenticated(&machine), "tsm0\n");
    let session = machine.registry.ledger()[0].secured.unwrap().session;
    assert!(machine.heard.take().contains(&(PF, Notice::SessionRenewed { session })));
    machine.assert_clean();
}

#[test]
fn answers_that_are_tampered_with_are_no_answers() {
    for how in [Spoil::Bit, Spoil::Cut, Spoil::Again] {
        for after in 0..10 {
            let (machine, shown) = secure(&Clock::leaping(), 0);
            shown.spoil(after, how);
            let connected = machine.registry.connect(PF, b"tsm0");
            shown.spoil(0, Spoil::Nothing);
            let refused = connected.expect_err("one of its answers was wrong");
            let expected = [Errno::EPROTO, Errno::EKEYREJECTED, Errno::EIO, Errno::EBUSY];
            assert!(expected.contains(&refused.errno()), "{how:?} {after} {refused:?}");
            assert_eq!(authenticated(&machine), "\n");
            machine.registry.connect(PF, b"tsm0").unwrap();
            assert_eq!(shown.sessions(), 1, "{how:?} {after}");
            machine.registry.disconnect(PF, b"tsm0").unwrap();
            machine.assert_clean();
        }
        let (machine, shown) = connected(&Clock::leaping());
        machine.bind(VF1).unwrap();
        shown.spoil(0, how);
        let refused = machine.set_state(VF1, LOCK).unwrap_err();
        assert_eq!(refused.errno(), Errno::EPROTO, "{how:?} {refused:?}");
        assert_eq!(machine.binding(VF1), Binding::Unknown);
        shown.spoil(0, Spoil::Nothing);
        machine.registry.unbind(VF1);
        machine.assert_clean();
    }
}

#[test]
fn a_connect_is_given_up_at_once() {
    let (machine, shown) = secure(&Clock::standing(), 0);
    for after in [0, 3, 6, 9] {
        shown.spoil(after, Spoil::Lost);
        let registry = Arc::clone(&machine.registry);
        let connect = thread::spawn(move || registry.connect(PF, b"tsm0"));
        wait_until(|| machine.clock.timers.next_due().is_some());
        let registry = Arc::clone(&machine.registry);
        let disconnect = thread::spawn(move || registry.disconnect(PF, b"tsm0"));
        // What it says afterwards is not given up, and waits for the clock.
        let begun = Instant::now();
        wait_until(|| {
            if begun.elapsed() > Duration::from_millis(50) {
                machine.clock.advance(TIMEOUT_MS / 8);
            }
            connect.is_finished()
        });
        assert_eq!(connect.join().unwrap(), Err(Refusal::Cancelled));
        wait_until(|| {
            machine.clock.advance(TIMEOUT_MS / 8);
            disconnect.is_finished()
        });
        let _ = disconnect.join().unwrap();
        assert_eq!(authenticated(&machine), "\n");
    }
    shown.spoil(0, Spoil::Nothing);
    machine.registry.connect(PF, b"tsm0").unwrap();
}

/// Whichever answer is lost, of connect or of the disconnect that follows.
#[test]
fn no_session_is_left_where_an_answer_was_lost() {
    let messages = {
        let (machine, shown) = secure(&Clock::leaping(), 0);
        machine.registry.connect(PF, b"tsm0").unwrap();
        machine.registry.disconnect(PF, b"tsm0").unwrap();
        let (clear, secured) = shown.take_objects();
        clear + secured
    };
    assert!(messages > 20, "{messages}");
    for how in [Spoil::Lost, Spoil::Unheard] {
        for after in 0..messages {
            let (machine, shown) = secure(&Clock::leaping(), 0);
            shown.spoil_once(after, how);
            let connected = machine.registry.connect(PF, b"tsm0");
            if connected.is_ok() {
                machine.registry.disconnect(PF, b"tsm0").unwrap();
            }
            assert_eq!(shown.sessions(), 0, "{how:?} {after} {connected:?}");
            machine.assert_clean();
        }
    }
}

#[test]
fn a_session_that_nobody_uses_is_kept_alive_and_gets_new_keys() {
    const HALF_PERIOD_MS: u64 = 120_000;
    let (machine, shown) = secure(&Clock::standing(), 240);
    machine.connect();
    shown.take_objects();
    let keeper = {
        let registry = Arc::clone(&machine.registry);
        thread::spawn(move || while registry.tend() {})
    };
    let pass = || {
        // Once it is armed again, the visit is over.
        machine.clock.advance(HALF_PERIOD_MS);
        wait_until(|| machine.clock.timers.next_due().is_some());
    };
    pass();
    assert_eq!(shown.take_objects(), (0, 1), "a heartbeat");
    machine.bind(VF1).unwrap();
    shown.take_objects();
    pass();
    assert_eq!(shown.take_objects(), (0, 0), "it was used meanwhile");
    for _ in 0..31 {
        pass();
    }
    assert_eq!(shown.take_objects(), (0, 31));
    assert_eq!(machine.registry.ledger()[0].secured.unwrap().key_updates, 0);
    pass();
    assert_eq!(shown.take_objects(), (0, 2), "new keys, and the proof of them");
    assert_eq!(machine.registry.ledger()[0].secured.unwrap().key_updates, 1);
    machine.set_state(VF1, LOCK).unwrap();
    machine.registry.disconnect(PF, b"tsm0").unwrap();
    machine.registry.end_tending();
    keeper.join().unwrap();
    assert!(!machine.registry.tend());
    machine.assert_clean();
}
