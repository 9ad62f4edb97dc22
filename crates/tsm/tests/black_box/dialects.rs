//! SEV, TDX and CCA: what bind does, and whose requests are taken.

use tsm::software::Dialect;
use tsm::{Arch, Binding, Cancel, GuestRequest, ObjectKind, Op, Refusal, State};
use uapi::Errno;

use crate::support::{Answers, Clock, Machine, NoMemory, PF, VF1, secure_as};

fn ask(machine: &Machine, arch: Arch, op: Op, request: &[u8]) -> Result<(), Refusal> {
    let request = GuestRequest { arch, op, request, response_room: 64 };
    machine.registry.request(VF1, &request, &NoMemory, &Cancel::new()).map(drop)
}

#[test]
fn sev_and_tdx_lock_at_bind() {
    for (dialect, arch, run) in
        [(Dialect::Sev, Arch::Sev, &[1][..]), (Dialect::Tdx, Arch::Tdx, &2u32.to_le_bytes()[..])]
    {
        let machine = Machine::of(&Clock::standing(), dialect);
        machine.connect();
        machine.bind(VF1).unwrap();
        assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Locked });
        assert_eq!(machine.registry.ledger()[0].tdis[1].objects.len(), 1);
        assert_eq!(ask(&machine, arch, Op::SetTdiState, run), Ok(()));
        assert_eq!(machine.device.state(VF1.requester_id()), State::Run);
        machine.registry.unbind(VF1);
        assert_eq!(machine.device.state(VF1.requester_id()), State::Unlocked);
        machine.assert_clean();
    }
}

/// The same life in each dialect, in a session of SPDM: bind, lock, evidence, run, stop.
#[test]
fn each_dialect_works_in_a_session() {
    const LOCK: &[u8] = &1u32.to_le_bytes();
    const RUN: &[u8] = &2u32.to_le_bytes();
    const STOP: &[u8] = &0u32.to_le_bytes();
    for (dialect, arch, lock, run, stop) in [
        (Dialect::Any, Arch::Cca, Some(LOCK), RUN, STOP),
        (Dialect::Any, Arch::Tdx, Some(LOCK), RUN, STOP),
        (Dialect::Cca, Arch::Cca, Some(LOCK), RUN, STOP),
        (Dialect::Sev, Arch::Sev, None, &[1][..], &[0][..]),
        (Dialect::Tdx, Arch::Tdx, None, RUN, STOP),
    ] {
        let (machine, shown) = secure_as(&Clock::standing(), 0, dialect);
        machine.connect();
        machine.bind(VF1).unwrap();
        let before = if lock.is_some() { State::Unlocked } else { State::Locked };
        assert_eq!(machine.device.state(VF1.requester_id()), before, "{dialect:?}");
        if let Some(lock) = lock {
            ask(&machine, arch, Op::SetTdiState, lock).unwrap();
        }
        assert_eq!(machine.device.state(VF1.requester_id()), State::Locked, "{dialect:?}");
        for kind in ObjectKind::ALL {
            let request = [&(kind as u32).to_le_bytes()[..], &[0; 12]].concat();
            let request =
                GuestRequest { arch, op: Op::ReadObject, request: &request, response_room: 0xffff };
            let read = machine.registry.request(VF1, &request, &NoMemory, &Cancel::new());
            assert!(!read.unwrap().bytes.is_empty(), "{kind} in {dialect:?}");
        }
        ask(&machine, arch, Op::SetTdiState, run).unwrap();
        assert_eq!(machine.device.state(VF1.requester_id()), State::Run, "{dialect:?}");
        ask(&machine, arch, Op::SetTdiState, stop).unwrap();
        assert_eq!(machine.device.state(VF1.requester_id()), State::Unlocked, "{dialect:?}");
        machine.registry.unbind(VF1);
        machine.registry.disconnect(PF, b"tsm0").unwrap();
        assert_eq!(shown.sessions(), 0);
        machine.assert_clean();
    }
}

#[test]
fn sev_knows_one_state_and_its_end() {
    let machine = Machine::of(&Clock::standing(), Dialect::Sev);
    machine.connect();
    machine.bind(VF1).unwrap();
    let dma = |op| ask(&machine, Arch::Sev, op, &[]);
    let trusted = || machine.registry.ledger()[0].tdis[1].trusted_dma;
    assert_eq!(dma(Op::SevEnableDma), Err(Refusal::WrongState { state: State::Locked }));
    assert_eq!(ask(&machine, Arch::Sev, Op::SetTdiState, &[1]), Ok(()));
    assert_eq!(dma(Op::SevEnableDma), Ok(()));
    assert!(trusted());
    assert_eq!(dma(Op::SevDisableDma), Ok(()));
    assert!(!trusted());
    dma(Op::SevEnableDma).unwrap();
    assert_eq!(ask(&machine, Arch::Sev, Op::SetTdiState, &[0]), Ok(()));
    assert!(!trusted());
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Unlocked });
    machine.registry.unbind(VF1);
    machine.assert_clean();
}

#[test]
fn a_tsm_takes_its_own_requests() {
    let archs = [Arch::Cca, Arch::Sev, Arch::Tdx];
    for (own, dialect) in
        [(Arch::Cca, Dialect::Cca), (Arch::Sev, Dialect::Sev), (Arch::Tdx, Dialect::Tdx)]
    {
        let machine = Machine::of(&Clock::standing(), dialect);
        machine.connect();
        machine.bind(VF1).unwrap();
        for arch in archs {
            let asked = ask(&machine, arch, Op::GetState, &[]).map_err(|r| r.errno());
            let expected = if arch == own { Ok(()) } else { Err(Errno::EINVAL) };
            assert_eq!(asked, expected, "{arch:?} of {dialect:?}");
        }
    }
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    for arch in archs {
        assert_eq!(ask(&machine, arch, Op::GetState, &[]), Ok(()));
        let dma = ask(&machine, arch, Op::SevDisableDma, &[]);
        assert_eq!(dma.is_ok(), arch == Arch::Sev);
    }
}

/// A bind that locks and then fails leaves a lock behind, which its unbind takes away.
#[test]
fn a_bind_that_fails_after_lock_is_undone() {
    for fault in [
        "bind=error-after-commit",
        "lock=error-after-commit",
        "report=error-before-commit",
        "report=silent",
    ] {
        let machine = Machine::of(&Clock::leaping(), Dialect::Sev);
        machine.connect();
        machine.fault(VF1, fault);
        machine.bind(VF1).unwrap_err();
        assert_eq!(machine.device.state(VF1.requester_id()), State::Unlocked, "{fault}");
        let counters = machine.registry.counters();
        assert_eq!((counters.binds, counters.unbinds), (1, 1), "{fault}");
        machine.assert_clean();
    }
    let machine = Machine::of(&Clock::leaping(), Dialect::Tdx);
    machine.connect();
    machine.fault(VF1, "lock=error-before-commit");
    machine.bind(VF1).unwrap_err();
    assert_eq!(machine.registry.counters().binds, 0, "nothing was locked");
    machine.device.answers(Answers::Never);
    machine.assert_clean();
}

#[test]
fn a_scope_is_whatever_tsm_there_is() {
    for (dialect, run) in [
        (Dialect::Cca, &2_u32.to_le_bytes()[..]),
        (Dialect::Sev, &[1]),
        (Dialect::Tdx, &2_u32.to_le_bytes()),
    ] {
        let machine = Machine::of(&Clock::standing(), dialect);
        machine.connect();
        machine.bind(VF1).unwrap();
        if dialect == Dialect::Cca {
            machine.set_state(VF1, 1).unwrap();
        }
        let scope = Op::Scope(Op::SCOPE_STATE_CHANGE);
        assert_eq!(ask(&machine, Arch::Cca, scope, run), Ok(()), "{dialect:?}");
        assert_eq!(machine.device.state(VF1.requester_id()), State::Run);
    }
}
