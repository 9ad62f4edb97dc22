//! What guests ask: payloads, evidence, mappings.

use std::sync::Mutex;

use proptest::collection::vec;
use proptest::prelude::*;
use tdisp::report;
use tsm::{Arch, Cancel, GuestRequest, GuestResponse, Memory, Op, Refusal, State, Unreachable};
use uapi::Errno;

use crate::support::{Clock, Machine, PF, VF1};

const REPORT: u32 = 3;

fn locked() -> Machine {
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.set_state(VF1, 1).unwrap();
    machine
}

fn read_at(kind: u32, offset: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &offset.to_le_bytes()].concat()
}

fn validate(base: u64, top: u64, host: u64) -> Vec<u8> {
    [base, top, host].map(u64::to_le_bytes).concat()
}

fn regen(kind: u32, flags: u64, nonce_at: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &flags.to_le_bytes(), &nonce_at.to_le_bytes()].concat()
}

#[test]
fn the_report_is_read_in_parts_of_any_size() {
    let machine = locked();
    let info = machine.ask(VF1, Op::ObjectInfo, &REPORT.to_le_bytes(), 4).unwrap();
    let length = u32::from_le_bytes(info.bytes[..].try_into().unwrap());
    assert_eq!((info.consumed, info.code), (4, 0));
    let whole = machine.ask(VF1, Op::ReadObject, &read_at(REPORT, 0), 0xffff).unwrap();
    assert_eq!(whole.bytes.len(), usize::try_from(length).unwrap());
    assert_eq!(whole.consumed, 16);
    assert_eq!(report::decode(&whole.bytes).unwrap().device_specific, [7; 200]);
    for step in [1, 7, 100, 4096] {
        let mut bytes = Vec::new();
        loop {
            let at = u64::try_from(bytes.len()).unwrap();
            let part = machine.ask(VF1, Op::ReadObject, &read_at(REPORT, at), step).unwrap().bytes;
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
        assert_eq!(bytes, whole.bytes, "in steps of {step}");
    }
    let past = machine.ask(VF1, Op::ReadObject, &read_at(REPORT, u64::from(length) + 1), 8);
    let length = whole.bytes.len();
    assert_eq!(past, Err(Refusal::PastEnd { offset: u64::try_from(length).unwrap() + 1, length }));
    let past = machine.ask(VF1, Op::ReadObject, &read_at(REPORT, u64::MAX), 8);
    assert_eq!(past.map_err(|refusal| refusal.errno()), Err(Errno::EINVAL));
}

#[test]
fn evidence_that_needs_a_session_is_absent() {
    let machine = locked();
    for kind in 0..3u32 {
        for (op, request) in [
            (Op::ObjectInfo, kind.to_le_bytes().to_vec()),
            (Op::ReadObject, read_at(kind, 0)),
            (Op::RegenObject, regen(kind, 0, 0)),
        ] {
            let refused = machine.ask(VF1, op, &request, 64).unwrap_err();
            assert_eq!(refused.errno(), Errno::ENODATA, "{op:?} of {kind}");
        }
    }
    machine.set_state(VF1, 0).unwrap();
    let refused = machine.ask(VF1, Op::ObjectInfo, &REPORT.to_le_bytes(), 4).unwrap_err();
    assert_eq!(refused.errno(), Errno::ENODATA, "no report of what is not locked");
}

#[test]
fn a_new_report_has_a_new_generation() {
    struct Client(Mutex<Vec<u64>>);
    impl Memory for Client {
        fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Unreachable> {
            self.0.lock().unwrap().push(at);
            into.fill(9);
            Ok(())
        }
    }
    let machine = locked();
    let object = || machine.registry.ledger()[0].tdis[1].objects[0];
    assert_eq!((object().generation, object().has_nonce), (1, false));
    let client = Client(Mutex::default());
    let request = regen(REPORT, 1, 0x7000);
    let request =
        GuestRequest { arch: Arch::Cca, op: Op::RegenObject, request: &request, response_room: 0 };
    let done = machine.registry.request(VF1, &request, &client, &Cancel::new()).unwrap();
    assert_eq!(done, GuestResponse { bytes: vec![], consumed: 24, code: 0 });
    assert_eq!(*client.0.lock().unwrap(), [0x7000]);
    assert_eq!((object().generation, object().has_nonce), (2, true));
    let refused = |flags| machine.ask(VF1, Op::RegenObject, &regen(REPORT, flags, 0), 0);
    assert_eq!(refused(1), Err(Refusal::Unreachable));
    assert_eq!(refused(2).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(object().generation, 2);
}

#[test]
fn private_mappings_are_gone_before_stop() {
    let machine = locked();
    let map = |base, top, host| {
        machine.ask(VF1, Op::ValidateMmio, &validate(base, top, host), 0).map(|r| r.consumed)
    };
    let count = || machine.registry.ledger()[0].tdis[1].mappings;
    assert_eq!(map(0x8000_0000, 0x8000_2000, 0xfe00_0000), Ok(24));
    let refused = map(0x8000_2000, 0x8000_3000, 0xfe00_8000);
    assert_eq!(refused, Err(Refusal::MmioNotReported { at: 0xfe00_8000, length: 0x1000 }));
    let overlap = map(0x8000_1000, 0x8000_3000, 0xfe00_4000);
    assert_eq!(overlap.unwrap_err().errno(), Errno::EEXIST);
    assert_eq!(count(), 1);
    machine.set_state(VF1, 2).unwrap();
    assert_eq!(map(0x8000_4000, 0x8000_6000, 0xfe00_4000), Ok(24), "in RUN too");
    assert_eq!(count(), 2);
    machine.heard.take();
    machine.set_state(VF1, 0).unwrap();
    assert_eq!(count(), 0);
    assert_eq!(machine.heard.lines()[0], "b1d0:01:00.1 2 private mappings dropped");
    let refused = map(0x8000_0000, 0x8000_2000, 0xfe00_0000);
    assert_eq!(refused, Err(Refusal::WrongState { state: State::Unlocked }));
    machine.set_state(VF1, 1).unwrap();
    map(0x8000_0000, 0x8000_2000, 0xfe00_0000).unwrap();
    machine.fault(VF1, "unbind=refused");
    machine.registry.unbind(VF1);
    assert_eq!(count(), 0, "whatever the device answers");
    machine.assert_clean();
}

#[test]
fn malformed_requests_reach_no_device() {
    let machine = locked();
    machine.device.take_log();
    let ask = |op, request: &[u8], room| machine.ask(VF1, op, request, room).map_err(|r| r.errno());
    for (op, length) in [
        (Op::SetTdiState, 4),
        (Op::ValidateMmio, 24),
        (Op::ReadObject, 16),
        (Op::ObjectInfo, 4),
        (Op::RegenObject, 24),
    ] {
        for short in 0..length {
            assert_eq!(ask(op, &vec![3; short], 64), Err(Errno::EINVAL), "{op:?} of {short}");
        }
    }
    for state in [3u32, 4, u32::MAX] {
        assert_eq!(ask(Op::SetTdiState, &state.to_le_bytes(), 0), Err(Errno::EINVAL));
    }
    assert_eq!(ask(Op::ObjectInfo, &4u32.to_le_bytes(), 4), Err(Errno::EINVAL));
    assert_eq!(ask(Op::ObjectInfo, &REPORT.to_le_bytes(), 3), Err(Errno::EINVAL));
    let mut reserved = read_at(REPORT, 0);
    reserved[4] = 1;
    assert_eq!(ask(Op::ReadObject, &reserved, 64), Err(Errno::EINVAL));
    assert_eq!(ask(Op::SevEnableDma, &[], 0), Err(Errno::EINVAL));
    assert_eq!(ask(Op::Scope(2), &[], 0), Err(Errno::EINVAL));
    assert_eq!(machine.device.take_log(), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a client sends, the core answers, says no more than there is room for, and counts no
    /// more of the request than there was.
    #[test]
    fn any_bytes_are_answered(
        requests in vec((0usize..9, vec(prop_oneof![Just(0u8), 0..4u8, any::<u8>()], 0..40)), 1..12),
        room in prop_oneof![0..16u32, any::<u32>()],
    ) {
        const OPS: [Op; 9] = [
            Op::ValidateMmio, Op::SetTdiState, Op::SevEnableDma, Op::SevDisableDma, Op::ReadObject,
            Op::RegenObject, Op::ObjectInfo, Op::GetState, Op::Scope(0),
        ];
        let machine = locked();
        for (op, request) in requests {
            for arch in [Arch::Cca, Arch::Sev, Arch::Tdx] {
                let asked =
                    GuestRequest { arch, op: OPS[op], request: &request, response_room: room };
                let none = &crate::support::NoMemory;
                let answer = machine.registry.request(VF1, &asked, none, &Cancel::new());
                if let Ok(GuestResponse { bytes, consumed, .. }) = answer {
                    prop_assert!(u64::try_from(bytes.len()).unwrap() <= room.into());
                    prop_assert!(usize::try_from(consumed).unwrap() <= request.len());
                }
            }
        }
        machine.registry.unbind(VF1);
        machine.assert_clean();
    }
}

#[test]
fn scopes_ask_the_same() {
    let machine = locked();
    let info = machine.ask(VF1, Op::Scope(Op::SCOPE_INFO), &[1, 2, 3], 8).unwrap();
    assert_eq!((info.bytes[..4].to_vec(), info.consumed), (1u32.to_le_bytes().to_vec(), 3));
    let run = 2u32.to_le_bytes();
    machine.ask(VF1, Op::Scope(Op::SCOPE_STATE_CHANGE), &run, 0).unwrap();
    assert_eq!(machine.device.state(VF1.requester_id()), State::Run);
    machine.registry.disconnect(PF, b"tsm0").unwrap();
    let gone = machine.ask(VF1, Op::GetState, &[], 4).unwrap_err();
    assert_eq!(gone.errno(), Errno::ENXIO);
}
