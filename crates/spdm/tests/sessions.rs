//! Requester and responder against each other: whole sessions, and what breaks them.

mod bench;

use bench::{ALL, Bench, NAME, NOW, Setup};
use bindery_spdm::algorithm::{Aead, Group, Suite, Version};
use bindery_spdm::certificate::{CertificateFault, DeviceName, Trust};
use bindery_spdm::crypto::aws_lc::AwsLc;
use bindery_spdm::crypto::rust_crypto::RustCrypto;
use bindery_spdm::message::{CapabilityFlags, ErrorCode, VendorDefined};
use bindery_spdm::requester::{Ask, Outcome, Step};
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
fn long_messages_go_in_chunks() {
    for transfer_bytes_max in [64, 150, 300] {
        let message_bytes_max = Some(4608);
        let setup =
            Setup { transfer_bytes_max, message_bytes_max, responder: &AwsLc, ..Setup::default() };
        let mut bench = setup.build();
        whole_session(&mut bench, Version::V13);
        bench.establish();
        let message = VendorDefined::pci_sig((0..=255).cycle().take(2000).collect());
        let answer = VendorDefined::pci_sig(message.payload.iter().rev().copied().collect());
        let asked = bench.run(Ask::VendorDefined(message));
        assert_eq!(asked, Ok(Outcome::VendorDefined(answer)));
        let message = VendorDefined::pci_sig(vec![1; 4600]);
        let refused = bench.run(Ask::VendorDefined(message)).unwrap_err();
        assert_eq!(refused.blame(), Blame::Caller, "{refused}");
    }
}

#[test]
fn without_chunks_what_is_long_is_refused() {
    let mut bench = Setup { transfer_bytes_max: 200, ..Setup::default() }.build();
    bench.run(Ask::Connect).unwrap();
    bench.run(Ask::Certificate { slot: 0 }).unwrap();
    let refused = bench.run(Ask::Session { slot: 0, summary: 0 }).unwrap_err();
    assert_eq!(refused, Error::Said { code: ErrorCode::RESPONSE_TOO_LARGE, data: 0 });
    assert_eq!(bench.responder.sessions().count(), 0);
    let refused = bench.run(Ask::VendorDefined(VendorDefined::pci_sig(vec![0; 300])));
    assert_eq!(refused.map_err(|error| error.blame()), Err(Blame::Caller));
}

/// Pieces in the wrong order, of the wrong message, too many, too long.
#[test]
fn pieces_that_are_out_of_place_are_refused() {
    use bindery_spdm::message::{ChunkGet, ChunkSend, Message, Shape, encode};
    let setup = Setup { transfer_bytes_max: 64, message_bytes_max: Some(256), ..Setup::default() };
    let mut bench = setup.build();
    bench.run(Ask::Connect).unwrap();
    let shape = Shape::unnegotiated(Version::V13);
    fn frame<M: Message>(message: &M, shape: &Shape) -> Frame {
        Frame::Clear(encode(message, shape).unwrap())
    }
    let mut answer = |frame: &Frame| {
        let Frame::Clear(bytes) = bench.responder.handle(&mut bench.device, frame) else {
            panic!("a record");
        };
        bytes
    };
    let first = ChunkSend {
        handle: 1,
        sequence: 0,
        last: false,
        message_bytes: Some(100),
        chunk: vec![0x13; 40],
    };
    let invalid = |bytes: &[u8]| bytes[1] == 0x05 && bytes[2] == 1 && bytes[7] == 0x7f;
    for wrong in [
        ChunkSend { message_bytes: Some(64), ..first.clone() },
        ChunkSend { message_bytes: Some(257), ..first.clone() },
        ChunkSend { last: true, ..first.clone() },
        ChunkSend { chunk: Vec::new(), ..first.clone() },
    ] {
        let told = answer(&frame(&wrong, &shape));
        assert!(invalid(&told), "{wrong:?} {told:x?}");
    }
    let second = ChunkSend { sequence: 1, message_bytes: None, ..first.clone() };
    let unexpected = vec![0x13, 0x7f, ErrorCode::UNEXPECTED_REQUEST.0, 0];
    assert_eq!(answer(&frame(&second, &shape)), unexpected, "there is no first");
    for wrong in [
        ChunkSend { handle: 2, ..second.clone() },
        ChunkSend { sequence: 2, ..second.clone() },
        ChunkSend { chunk: vec![0; 61 - 20], last: true, ..second.clone() },
        first.clone(),
    ] {
        assert_eq!(answer(&frame(&first, &shape))[1..3], [0x05, 0]);
        let told = answer(&frame(&wrong, &shape));
        assert!(invalid(&told), "{wrong:?} {told:x?}");
    }
    // Any other request drops what has come.
    assert_eq!(answer(&frame(&first, &shape))[1..3], [0x05, 0]);
    let get = |sequence| frame(&ChunkGet { handle: 1, sequence }, &shape);
    assert_eq!(answer(&get(0)), unexpected, "there is no long answer");
    assert_eq!(answer(&frame(&second, &shape)), unexpected);
    // A long answer: pieces in order, from the first.
    let digests = Frame::Clear(vec![0x13, 0x81, 0, 0]);
    let certificate = Frame::Clear(vec![0x13, 0x82, 0, 0, 0, 0, 0xff, 0]);
    assert_eq!(answer(&digests)[1], 0x01, "short enough");
    assert_eq!(answer(&certificate)[1], 0x02, "in portions that fit");
    let challenge = Frame::Clear([vec![0x13, 0x83, 0, 0], vec![7; 40]].concat());
    let announced = answer(&challenge);
    assert_eq!(announced[1..3], [0x7f, ErrorCode::LARGE_RESPONSE.0]);
    let handle = announced[4];
    let get = |sequence| frame(&ChunkGet { handle, sequence }, &shape);
    assert_eq!(answer(&get(0))[1..4], [0x06, 0, handle]);
    assert_eq!(answer(&get(0))[1..3], [0x7f, ErrorCode::INVALID_REQUEST.0], "it was given");
    assert_eq!(answer(&get(1)), unexpected, "and is gone");
}

#[test]
fn an_answer_that_is_not_ready_is_asked_for_again() {
    let mut bench = Setup::default().build();
    bench.establish();
    bench.run(Ask::EndSession).unwrap();
    let frame = bench.requester.ask(Ask::Digests).unwrap();
    let not_ready = vec![0x13, 0x7f, ErrorCode::RESPONSE_NOT_READY.0, 0, 12, 0x81, 9, 4];
    for _ in 0..2 {
        let step = bench.requester.receive(&Frame::Clear(not_ready.clone())).unwrap();
        let Step::Wait { time_us: 4096, then } = step else { panic!("{step:?}") };
        assert_eq!(then, Frame::Clear(vec![0x13, 0xff, 0x81, 9]));
    }
    let answer = bench.responder.handle(&mut bench.device, &frame);
    assert!(matches!(bench.requester.receive(&answer), Ok(Step::Done(Outcome::Digests(_)))));
    // Our device is always ready.
    let refused = Frame::Clear(vec![0x13, 0xff, 0x81, 9]);
    let answer = bench.responder.handle(&mut bench.device, &refused);
    assert_eq!(answer, Frame::Clear(vec![0x13, 0x7f, ErrorCode::UNEXPECTED_REQUEST.0, 0]));
}

#[test]
fn what_a_side_is_not_capable_of_is_refused_by_both() {
    let without = |flag: CapabilityFlags| CapabilityFlags(ALL.0 & !flag.0);
    for (flag, ask, code) in [
        (CapabilityFlags::CERTIFICATE, Ask::Digests, 0x81),
        (CapabilityFlags::CERTIFICATE, Ask::Certificate { slot: 0 }, 0x82),
        (CapabilityFlags::CHALLENGE, Ask::Challenge { slot: 0, summary: 0 }, 0x83),
        (
            CapabilityFlags::MEASUREMENTS_SIGNED,
            Ask::Measurements { operation: 0, signed_by: None, nonce: None },
            0xe0,
        ),
    ] {
        let mut bench = Setup { flags: [ALL, without(flag)], ..Setup::default() }.build();
        bench.run(Ask::Connect).unwrap();
        assert_eq!(bench.run(ask), Err(Refusal::Unsupported.into()));
        let request = Frame::Clear([vec![0x13, code, 0, 0], vec![0; 40]].concat());
        let answer = bench.responder.handle(&mut bench.device, &request);
        let expected = vec![0x13, 0x7f, ErrorCode::UNSUPPORTED_REQUEST.0, code];
        assert_eq!(answer, Frame::Clear(expected));
    }
    for flag in [CapabilityFlags::HEARTBEAT, CapabilityFlags::KEY_UPDATE] {
        let mut bench = Setup { flags: [without(flag), ALL], ..Setup::default() }.build();
        bench.establish();
        let ask = if flag == CapabilityFlags::HEARTBEAT {
            Ask::Heartbeat
        } else {
            Ask::UpdateKeys { both: false }
        };
        // The requester asks nevertheless: what it lacks itself is its caller's affair.
        let refused = bench.run(ask).unwrap_err();
        let Error::Said { code: ErrorCode::UNSUPPORTED_REQUEST, data } = refused else {
            panic!("{refused}");
        };
        assert!([0xe8, 0xe9].contains(&data));
    }
}

#[test]
fn capabilities_that_contradict_each_other_are_refused() {
    let without = |flag: CapabilityFlags| CapabilityFlags(ALL.0 & !flag.0);
    for flags in [
        without(CapabilityFlags::KEY_EXCHANGE),
        without(CapabilityFlags::ENCRYPT | CapabilityFlags::MAC),
        without(CapabilityFlags::ENCRYPT | CapabilityFlags::MAC | CapabilityFlags::KEY_EXCHANGE),
    ] {
        let refused = Setup { flags: [flags, ALL], ..Setup::default() }.build().run(Ask::Connect);
        assert_eq!(refused, Err(Error::Said { code: ErrorCode::INVALID_REQUEST, data: 0 }));
    }
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
    let foreign = VendorDefined { standard: 9, vendor: Vec::new(), payload: vec![1].into() };
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
