//! What reference emulators of TDISP and IDE_KM let pass, and this device does not.
//!
//! | what they do | the test that this device does not |
//! |---|---|
//! | one interface for all functions | [`interfaces_stand_side_by_side`] |
//! | GET_VERSION sets the interface up anew, and unlocks it | [`questions_change_no_interface`] |
//! | LOCK takes any flags | [`lock_takes_the_flags_that_are_offered`] |
//! | LOCK takes any stream, with keys or without | [`lock_wants_each_of_the_six_keys`], `requests::locking_wants_keys_in_use` |
//! | LOCK takes any offset for the report | [`lock_takes_offsets_of_whole_pages`] |
//! | the report is canned, its addresses without the offset | `requests::the_report_tells_where_the_bars_really_are` |
//! | the report is given in every state | [`there_is_a_report_in_locked_and_run_only`] |
//! | START with a wrong nonce, in a wrong state (these they refuse) | `requests::only_the_nonce_of_this_lock_starts` |
//! | STOP while unlocked is refused | [`stop_is_taken_in_every_state`] |
//! | nothing ties an interface to its session | `requests::another_session_may_not_start_and_may_stop`, `breaches::a_lost_session_breaks_what_was_locked_in_it` |
//! | the nonce lives on after STOP | [`a_nonce_ends_with_its_lock`] |
//! | QUERY sets up the port that all else is for | [`a_query_sets_nothing_up`] |
//! | one key for all sub-streams | [`each_sub_stream_and_direction_has_a_key_of_its_own`] |
//! | K_SET_GO without KEY_PROG | [`what_was_never_programmed_is_not_used`] |
//! | QUERY_RESP with eight ports and registers of zeros | `requests::a_query_shows_the_port_and_its_ide_registers` |
//! | capabilities that say less, or more, than is so | [`capabilities_tell_what_is_taken`] |
//! | never ERROR | `breaches::each_breach_leads_to_error_from_locked_and_run_only` |
//! | messages of CXL and pre-shared keys, which they answer | `mailbox::other_vendors_and_keys_shared_before_are_refused` |
//!
//! Each state against each event is in `tests/table.rs` of [`tdisp`].

use pci::Function;
use tdisp::exchange::{GetCapabilities, GetReport, GetState, GetVersion, LockInterface};
use tdisp::ide_km::{self, KeyId, KeyKind, KeyMaterial, KeyStatus, Request, Response};
use tdisp::payload::{ProtocolId, join};
use tdisp::{
    ErrorCode, HEADER_BYTES, LockFlags, MessageType, Nonce, SessionId, State, VERSION_1_0,
};

use crate::rig::{IDS, Ram, Rig, SESSION, STREAM, keys};
use bindery_device::security::Settings;

const OTHER: SessionId = SessionId(8);

#[test]
fn interfaces_stand_side_by_side() {
    let rig = Rig::new();
    rig.bring(0, State::Run, LockFlags::default());
    rig.bring(1, State::Locked, LockFlags::default());
    for state in [State::Locked, State::Run, State::Error] {
        rig.ask(SESSION, IDS[2], &GetVersion, |_| ()).unwrap();
        let nonce = rig.lock_with(2, LockFlags::default()).unwrap();
        if state == State::Run {
            rig.start(2, nonce).unwrap();
        }
        if state == State::Error {
            rig.set_command(2, 0);
        }
        let states = [0, 1, 2].map(|function| rig.state(function));
        assert_eq!(states, [State::Run, State::Locked, state]);
        rig.stop(2).unwrap();
        rig.set_up(2);
        assert_eq!((rig.state(0), rig.state(1)), (State::Run, State::Locked), "after {state}");
    }
}

#[test]
fn questions_change_no_interface() {
    for state in State::ALL {
        let rig = Rig::new();
        rig.bring(0, state, LockFlags::default());
        for session in [SESSION, OTHER] {
            for &id in &IDS {
                rig.ask(session, id, &GetVersion, |_| ()).unwrap();
                rig.ask(session, id, &GetCapabilities::default(), drop).unwrap();
                rig.ask(session, id, &GetState, drop).unwrap();
            }
            let unknown = Err(ErrorCode::INVALID_INTERFACE);
            assert_eq!(rig.ask(session, 0xbeef, &GetVersion, |_| ()), unknown);
        }
        assert_eq!((rig.state(0), rig.changes()), (state, vec![]));
    }
}

#[test]
fn lock_takes_the_flags_that_are_offered() {
    let rig = Rig::new();
    let offered = rig.ask(SESSION, IDS[0], &GetCapabilities::default(), |c| c.lock_flags).unwrap();
    for bit in 0..16 {
        let flags = LockFlags(1 << bit);
        let locked = rig.lock_with(0, flags);
        if offered.contains(flags) {
            locked.unwrap();
            rig.stop(0).unwrap();
        } else {
            assert_eq!(locked, Err(ErrorCode::INVALID_REQUEST), "{flags:?}");
            assert_eq!(rig.state(0), State::Unlocked);
        }
    }
}

#[test]
fn lock_wants_each_of_the_six_keys() {
    for missing in keys(STREAM) {
        let rig = Rig::new();
        assert!(rig.ide(Request::SetStop(missing)).is_some());
        let refused = Err(ErrorCode::INVALID_REQUEST);
        assert_eq!(rig.lock_with(0, LockFlags::default()), refused, "stopped {missing:?}");
        assert_eq!(program(&rig, missing), Some(KeyStatus::SUCCESS));
        assert_eq!(rig.lock_with(0, LockFlags::default()), refused, "not in use {missing:?}");
        rig.ide(Request::SetGo(missing)).unwrap();
        rig.lock_with(0, LockFlags::default()).unwrap();
    }
}

#[test]
fn lock_takes_offsets_of_whole_pages() {
    let rig = Rig::new();
    let with = |mmio_reporting_offset| LockInterface {
        default_stream: STREAM,
        mmio_reporting_offset,
        ..LockInterface::default()
    };
    for offset in [1, 0x800, 0xfff, 0x1001, u64::MAX] {
        assert_eq!(rig.lock(0, &with(offset)), Err(ErrorCode::INVALID_REQUEST), "{offset:#x}");
    }
    for offset in [0, 0x1000, 0xd000_0000, u64::MAX - 0xfff] {
        rig.lock(0, &with(offset)).unwrap();
        rig.stop(0).unwrap();
    }
}

#[test]
fn there_is_a_report_in_locked_and_run_only() {
    for state in State::ALL {
        let rig = Rig::new();
        rig.bring(0, state, LockFlags::default());
        let all = GetReport { offset: 0, length: u16::MAX };
        let told = rig.ask(SESSION, IDS[0], &all, |portion| portion.portion.len());
        match state {
            State::Locked | State::Run => assert!(told.unwrap() > 0),
            State::Unlocked | State::Error => {
                assert_eq!(told, Err(ErrorCode::INVALID_INTERFACE_STATE), "{state}");
            }
        }
    }
}

#[test]
fn stop_is_taken_in_every_state() {
    for state in State::ALL {
        let rig = Rig::new();
        rig.bring(0, state, LockFlags::default());
        assert_eq!((rig.stop(0), rig.state(0)), (Ok(()), State::Unlocked), "{state}");
    }
}

#[test]
fn a_nonce_ends_with_its_lock() {
    type End = fn(&Rig, Nonce);
    let ends: [(&str, End); 4] = [
        ("STOP", |rig, _| rig.stop(0).unwrap()),
        ("START", |rig, nonce| {
            rig.start(0, nonce).unwrap();
            rig.stop(0).unwrap();
        }),
        ("a breach", |rig, _| {
            rig.manager.session_ended(SESSION);
            rig.stop(0).unwrap();
        }),
        ("a reset", |rig, _| {
            rig.engines[0].reset(pci::Reset::Function);
            rig.set_up(0);
        }),
    ];
    for (name, end) in ends {
        let rig = Rig::new();
        let nonce = rig.lock_with(0, LockFlags::default()).unwrap();
        end(&rig, nonce);
        assert_eq!(rig.start(0, nonce), Err(ErrorCode::INVALID_INTERFACE_STATE), "{name}");
        rig.lock_with(0, LockFlags::default()).unwrap();
        assert_eq!(rig.start(0, nonce), Err(ErrorCode::INVALID_NONCE), "{name}");
    }
}

#[test]
fn a_query_sets_nothing_up() {
    let rig = Rig::bare(Settings::default(), Ram::new(None));
    rig.give_keys(STREAM);
    rig.ide(Request::Query { port: 0 }).unwrap();
    assert_eq!(rig.manager.keys(), 6, "the keys that were there before are there still");
    assert_eq!(rig.ide(Request::Query { port: 1 }), None);
    let elsewhere = KeyId { port: 1, ..keys(STREAM).next().unwrap() };
    assert_eq!(program(&rig, elsewhere), Some(KeyStatus::UNSUPPORTED_PORT));
    assert_eq!(rig.ide(Request::SetGo(elsewhere)), None);
    assert_eq!(rig.ide(Request::SetStop(elsewhere)), None);
    assert!(rig.lock_with(0, LockFlags::default()).is_ok());
}

#[test]
fn each_sub_stream_and_direction_has_a_key_of_its_own() {
    let rig = Rig::bare(Settings::default(), Ram::new(None));
    let all: Vec<KeyId> = keys(STREAM).collect();
    for (count, &key) in all.iter().enumerate() {
        assert_eq!(rig.manager.keys(), count);
        assert_eq!(program(&rig, key), Some(KeyStatus::SUCCESS));
        for &other in &all[count + 1..] {
            assert_eq!(rig.ide(Request::SetGo(other)), None, "{other:?} after {key:?}");
        }
        rig.ide(Request::SetGo(key)).unwrap();
    }
    for sub_stream in 3..16 {
        let unknown = KeyId { kind: KeyKind(sub_stream << 4), ..all[0] };
        assert_eq!(program(&rig, unknown), Some(KeyStatus::UNSUPPORTED_VALUE));
        assert_eq!(rig.ide(Request::SetGo(unknown)), None);
    }
}

#[test]
fn what_was_never_programmed_is_not_used() {
    let rig = Rig::bare(Settings::default(), Ram::new(None));
    for key in keys(STREAM) {
        assert_eq!(rig.ide(Request::SetGo(key)), None, "{key:?}");
    }
    assert_eq!(rig.manager.keys(), 0);
    let refused = Err(ErrorCode::INVALID_REQUEST);
    assert_eq!(rig.lock_with(0, LockFlags::default()), refused);
}

#[test]
fn capabilities_tell_what_is_taken() {
    let rig = Rig::new();
    let told = rig.ask(SESSION, IDS[0], &GetCapabilities::default(), |told| told).unwrap();
    assert!(told.address_width_bits >= 52, "an address of a guest's");
    assert!(told.outstanding_this >= 1 && told.outstanding_all >= told.outstanding_this);
    for code in 0x81..=0x8f {
        let mut message = [0; 64];
        message[..2].copy_from_slice(&[VERSION_1_0, code]);
        message[4..6].copy_from_slice(&IDS[0].to_le_bytes());
        let answer = tdisp_bytes(&rig, &message[..HEADER_BYTES]);
        let unsupported = answer[1] == MessageType::ERROR.0
            && answer[HEADER_BYTES..][..4] == ErrorCode::UNSUPPORTED_REQUEST.0.to_le_bytes();
        let claimed = told.requests.takes(MessageType(code));
        assert_eq!(claimed, !unsupported, "{code:#x}");
    }
}

/// What KEY_PROG is answered by.
fn program(rig: &Rig, key: KeyId) -> Option<KeyStatus> {
    let material = KeyMaterial::new([9; ide_km::KEY_BYTES], 1);
    let answer = rig.ide(Request::KeyProg { key, material })?;
    match Response::decode(&answer) {
        Ok(Response::KeyProgAck { key: told, status }) if told == key => Some(status),
        other => panic!("{other:?}"),
    }
}

/// The answer to a message of TDISP.
fn tdisp_bytes(rig: &Rig, message: &[u8]) -> Vec<u8> {
    let mut payload = [0; 128];
    let length = join(ProtocolId::TDISP, &mut payload, |into| {
        into[..message.len()].copy_from_slice(message);
        Ok(message.len())
    });
    let mut answer = [0; 256];
    let length = rig.manager.respond(SESSION, &payload[..length.unwrap()], &mut answer).unwrap();
    answer[1..length].to_vec()
}
