//! Requester and responder against each other: whole sessions, and what breaks them.

mod bench;

use bench::{Bench, NAME, NOW, Setup};
use bindery_spdm::algorithm::{Aead, Group, Suite, Version};
use bindery_spdm::certificate::{CertificateFault, DeviceName, Trust};
use bindery_spdm::crypto::aws_lc::AwsLc;
use bindery_spdm::crypto::rust_crypto::RustCrypto;
use bindery_spdm::message::{ErrorCode, VendorDefined};
use bindery_spdm::requester::{Ask, Outcome};
use bindery_spdm::{Blame, Error, Frame, PeerFault, Refusal};

#[test]
fn whole_sessions_of_every_kind() {
    for version in Version::ALL {
        for (suite, group) in Suite::ALL.into_iter().zip(Group::ALL) {
            for aead in Aead::ALL {
                let setup =
                    Setup { versions: vec![version], suite, group, aead, ..Setup::default() };
                whole_session(&mut setup.build(), version);
            }
        }
    }
}

#[test]
fn providers_understand_each_other() {
    let reversed = Setup { requester: &RustCrypto, responder: &AwsLc, ..Setup::default() };
    whole_session(&mut reversed.build(), Version::V13);
}

#[test]
fn certificates_come_in_portions() {
    let setup = Setup { transfer_bytes_max: 512, ..Setup::default() };
    let mut bench = setup.build();
    bench.run(Ask::Connect).unwrap();
    let Outcome::Certificate(chain) = bench.run(Ask::Certificate { slot: 0 }).unwrap() else {
        panic!("another outcome");
    };
    assert!(chain.len() > 512);
    bench.run(Ask::Challenge { slot: 0, summary: 0 }).unwrap();
}

#[test]
fn untrusted_chains_are_refused() {
    let refused = |trust: Trust| {
        let mut bench = Setup { trust, ..Setup::default() }.build();
        bench.run(Ask::Connect).unwrap();
        let error = bench.run(Ask::Certificate { slot: 0 }).unwrap_err();
        assert_eq!(error.blame(), Blame::Peer);
        let asked = bench.run(Ask::Session { slot: 0, summary: 0 });
        assert_eq!(asked, Err(Refusal::WrongState.into()));
        error
    };
    let trust = Setup::default().trust;
    let name = DeviceName::Dmtf("ACME:WIDGET:1234567890".into());
    let found = Vec::new();
    assert_eq!(refused(Trust { name, ..trust.clone() }), CertificateFault::Name { found }.into());
    let found = vec![NAME.into()];
    let name = DeviceName::Pci("Vendor=dead:Device=beef".into());
    assert_eq!(refused(Trust { name, ..trust.clone() }), CertificateFault::Name { found }.into());
    let roots = Some(vec![vec![0x30, 0]]);
    assert_eq!(refused(Trust { roots, ..trust.clone() }), CertificateFault::UnknownRoot.into());
    let late = refused(Trust { now: NOW * 2, ..trust });
    assert!(matches!(late, Error::Certificate(CertificateFault::Path(_))), "{late}");
}

#[test]
fn a_damaged_record_ends_the_session_on_both_sides() {
    for to_responder in [true, false] {
        let mut bench = Setup::default().build();
        let id = bench.establish();
        let mut request = bench.requester.ask(Ask::Heartbeat).unwrap();
        if to_responder {
            damage(&mut request);
        }
        let mut answer = bench.responder.handle(&mut bench.device, &request);
        if !to_responder {
            damage(&mut answer);
        }
        let error = bench.requester.receive(&answer).unwrap_err();
        if to_responder {
            assert_eq!(error, Error::Said { code: ErrorCode::DECRYPT_ERROR, data: 0 });
            assert_eq!(bench.device.ended, [id]);
        } else {
            assert_eq!(error, PeerFault::Forged.into());
        }
        assert_eq!(bench.requester.session(), None);
        assert_eq!(bench.requester.ask(Ask::Heartbeat), Err(Refusal::WrongState.into()));
    }
}

#[test]
fn a_replayed_record_ends_the_session() {
    let mut bench = Setup::default().build();
    let id = bench.establish();
    let request = bench.requester.ask(Ask::Heartbeat).unwrap();
    bench.responder.handle(&mut bench.device, &request);
    let answer = bench.responder.handle(&mut bench.device, &request);
    assert!(matches!(answer, Frame::Clear(_)));
    assert_eq!(bench.device.ended, [id]);
    let answer = bench.responder.handle(&mut bench.device, &request);
    assert_eq!(answer, Frame::Clear(vec![0x13, 0x7f, ErrorCode::INVALID_SESSION.0, 0]));
}

/// A bit of each message of a handshake is turned over, both ways: nothing of it is accepted.
#[test]
fn a_handshake_that_was_tampered_with_gives_no_session() {
    for at in (0..170).step_by(13) {
        for to_responder in [true, false] {
            let setup = Setup {
                suite: Suite::P256Sha256,
                group: Group::Secp256r1,
                responder: &AwsLc,
                ..Setup::default()
            };
            let mut bench = setup.build();
            bench.run(Ask::Connect).unwrap();
            bench.run(Ask::Certificate { slot: 0 }).unwrap();
            let mut frame = bench.requester.ask(Ask::Session { slot: 0, summary: 0 }).unwrap();
            if to_responder {
                turn_over(&mut frame, at);
            }
            let mut answer = bench.responder.handle(&mut bench.device, &frame);
            if !to_responder {
                turn_over(&mut answer, at);
            }
            assert!(bench.requester.receive(&answer).is_err(), "byte {at}, {to_responder}");
            assert_eq!(bench.requester.session(), None);
            assert_eq!(bench.responder.sessions().count(), 0);
        }
    }
}

#[test]
fn requests_out_of_place_are_refused_by_rule() {
    let mut bench = Setup::default().build();
    let mut refused = |request: &[u8]| {
        let answer = bench.responder.handle(&mut bench.device, &Frame::Clear(request.to_vec()));
        let Frame::Clear(bytes) = answer else { panic!("{answer:?}") };
        assert_eq!(bytes[1], 0x7f, "{bytes:x?}");
        (ErrorCode(bytes[2]), bytes[3])
    };
    assert_eq!(refused(&[0x12, 0xe1, 0, 0]), (ErrorCode::UNEXPECTED_REQUEST, 0));
    assert_eq!(refused(&[0x12, 0x55, 0, 0]), (ErrorCode::UNSUPPORTED_REQUEST, 0x55));
    assert_eq!(refused(&[0x12, 0x84, 0, 0]), (ErrorCode::VERSION_MISMATCH, 0));
    assert_eq!(refused(&[0x10]), (ErrorCode::INVALID_REQUEST, 0));
    assert_eq!(refused(&[]), (ErrorCode::INVALID_REQUEST, 0));
    assert_eq!(refused(&[0; 5000]), (ErrorCode::REQUEST_TOO_LARGE, 0));
    bench.responder.handle(&mut bench.device, &Frame::Clear(vec![0x10, 0x84, 0, 0]));
    let mut refused = |request: &[u8]| {
        let answer = bench.responder.handle(&mut bench.device, &Frame::Clear(request.to_vec()));
        let Frame::Clear(bytes) = answer else { panic!("{answer:?}") };
        (ErrorCode(bytes[2]), bytes[3])
    };
    assert_eq!(refused(&[0x14, 0xe1, 0, 0]), (ErrorCode::VERSION_MISMATCH, 0));
    assert_eq!(refused(&[0x13, 0x81, 0, 0]), (ErrorCode::UNEXPECTED_REQUEST, 0));
}

#[test]
fn the_caller_is_told_what_he_did_wrong() {
    let mut bench = Setup::default().build();
    assert_eq!(bench.run(Ask::Digests), Err(Refusal::WrongState.into()));
    bench.run(Ask::Connect).unwrap();
    let refused = bench.run(Ask::Challenge { slot: 0, summary: 0 }).unwrap_err();
    assert_eq!((refused.blame(), refused), (Blame::Caller, Refusal::WrongState.into()));
    let idle = bench.requester.receive(&Frame::Clear(Vec::new())).unwrap_err();
    assert_eq!(idle, Refusal::Idle.into());
    bench.requester.ask(Ask::Digests).unwrap();
    assert_eq!(bench.requester.ask(Ask::Digests), Err(Refusal::Busy.into()));
    bench.requester.abandon();
    bench.run(Ask::Digests).unwrap();
}

#[test]
fn one_session_more_than_there_may_be() {
    let mut bench = Setup::default().build();
    let id = bench.establish();
    bench.requester.ask(Ask::Heartbeat).unwrap();
    bench.requester.abandon();
    let refused = bench.run(Ask::Session { slot: 0, summary: 0 }).unwrap_err();
    let code = ErrorCode::SESSION_LIMIT_EXCEEDED;
    assert_eq!(refused, Error::Said { code, data: 0 });
    bench.responder.end_session(&mut bench.device, id);
    bench.run(Ask::Session { slot: 0, summary: 0 }).unwrap();
    bench.run(Ask::Connect).unwrap();
    assert_eq!(bench.device.ended.len(), 2);
}

fn whole_session(bench: &mut Bench, version: Version) {
    let Outcome::Connected(selected) = bench.run(Ask::Connect).unwrap() else {
        panic!("another outcome");
    };
    assert_eq!(selected.version, version);
    bench.run(Ask::Digests).unwrap();
    bench.run(Ask::Certificate { slot: 0 }).unwrap();
    let Outcome::Authentic(summary) = bench.run(Ask::Challenge { slot: 0, summary: 0xff }).unwrap()
    else {
        panic!("another outcome");
    };
    assert_eq!(summary.len(), selected.suite.hash_bytes());
    measure(bench);
    let established = bench.run(Ask::Session { slot: 0, summary: 1 }).unwrap();
    let Outcome::Established { id, heartbeat_s: 240, summary: again } = established else {
        panic!("{established:?}");
    };
    assert_eq!(again, summary);
    assert_eq!(
        (bench.requester.session(), bench.responder.sessions().next()),
        (Some(id), Some(id))
    );
    in_session(bench);
    for both in [false, true, true] {
        assert_eq!(bench.run(Ask::UpdateKeys { both }), Ok(Outcome::KeysUpdated));
        in_session(bench);
    }
    assert_eq!(bench.run(Ask::EndSession), Ok(Outcome::Ended));
    assert_eq!(bench.device.ended, [id]);
    assert_eq!(bench.responder.sessions().count(), 0);
}

fn in_session(bench: &mut Bench) {
    let message = VendorDefined::pci_sig(vec![1, 2, 3]);
    let answer = Outcome::VendorDefined(VendorDefined::pci_sig(vec![3, 2, 1]));
    assert_eq!(bench.run(Ask::VendorDefined(message)), Ok(answer));
    assert_eq!(bench.run(Ask::Heartbeat), Ok(Outcome::Alive));
    bench.run(Ask::Digests).unwrap();
    bench.run(Ask::Certificate { slot: 0 }).unwrap();
    measure(bench);
    let foreign = VendorDefined { standard: 9, vendor: Vec::new(), payload: vec![1] };
    let code = ErrorCode::UNSUPPORTED_REQUEST;
    let refused = bench.run(Ask::VendorDefined(foreign));
    assert_eq!(refused, Err(Error::Said { code, data: 0xfe }));
}

/// Signed at once, and one by one with a signature over all of them.
fn measure(bench: &mut Bench) {
    let mut measure = |operation, signed_by| {
        let outcome = bench.run(Ask::Measurements { operation, signed_by, nonce: None }).unwrap();
        let Outcome::Measurements(measurements) = outcome else { panic!("{outcome:?}") };
        measurements
    };
    assert_eq!(measure(0xff, Some(0)).blocks.len(), 2);
    assert_eq!(measure(0, None).total, 2);
    assert_eq!(measure(1, None).blocks[0].index, 1);
    assert_eq!(measure(2, Some(0)).blocks[0].index, 2);
}

fn damage(frame: &mut Frame) {
    let (Frame::Clear(bytes) | Frame::Secured(bytes)) = frame;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
}

fn turn_over(frame: &mut Frame, at: usize) {
    let (Frame::Clear(bytes) | Frame::Secured(bytes)) = frame;
    let at = at % bytes.len();
    bytes[at] ^= 0x10;
}
