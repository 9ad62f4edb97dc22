//! Faults on demand, and devices that answer late, wrongly or never.

use tdisp::MessageType;
use tsm::{Binding, Op, Refusal, State};
use uapi::Errno;

use crate::support::{Answers, Clock, Machine, OTHER, PF, TIMEOUT_MS, VF1, VF2};

#[test]
fn a_silent_bind_is_followed_by_one_unbind() {
    let machine = Machine::connected(&Clock::leaping());
    machine.fault(VF1, "bind=silent*1");
    let (bound, took_ms) = machine.timed(|| machine.bind(VF1));
    assert_eq!(bound, Err(Refusal::TimedOut));
    assert_eq!(took_ms, TIMEOUT_MS);
    assert_eq!(machine.device.take_log(), ["STOP_INTERFACE_REQUEST 01:00.1"]);
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    let counters = machine.registry.counters();
    assert_eq!((counters.binds, counters.unbinds, counters.timed_out), (1, 1, 1));
    assert_eq!(machine.bind(VF1), Ok(()), "once was enough");
    machine.registry.unbind(VF1);
    machine.assert_clean();
}

#[test]
fn a_device_that_falls_silent_is_quarantined_and_delays_nobody_long() {
    let machine = Machine::connected(&Clock::leaping());
    machine.bind(VF1).unwrap();
    machine.bind(VF2).unwrap();
    machine.set_state(VF1, 1).unwrap();
    machine.device.answers(Answers::Never);
    let ((), took_ms) = machine.timed(|| machine.registry.unbind(VF1));
    assert_eq!(took_ms, TIMEOUT_MS);
    assert_eq!(machine.binding(VF1), Binding::Quarantined);
    let ((), took_ms) = machine.timed(|| machine.registry.unbind(VF2));
    assert_eq!(took_ms, TIMEOUT_MS / 8, "the line is known to be dead");
    let refused = machine.bind(VF1).unwrap_err();
    assert_eq!((refused, refused.errno()), (Refusal::Quarantined { function: VF1 }, Errno::EBUSY));
    machine.registry.unbind(VF1);
    let counters = machine.registry.counters();
    assert_eq!((counters.binds, counters.unbinds, counters.quarantined), (2, 2, 2));

    machine.registry.reset_done(VF1);
    assert_eq!(machine.binding(VF1), Binding::Quarantined, "still nobody knows");
    machine.device.answers(Answers::AtOnce);
    machine.registry.reset_done(VF1);
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    assert_eq!(machine.device.state(VF1.requester_id()), State::Unlocked);
    assert_eq!(machine.bind(VF1), Ok(()));
    assert_eq!(machine.binding(VF2), Binding::Quarantined);
    machine.registry.disconnect(PF, b"tsm0").unwrap();
    machine.connect();
    assert_eq!(machine.bind(VF2), Ok(()), "a disconnect ends it too");
    machine.registry.unbind(VF2);
    machine.assert_clean();
}

#[test]
fn a_slow_answer_in_time_is_an_answer() {
    let machine = Machine::connected(&Clock::leaping());
    machine.fault(VF1, "bind=slow:500");
    assert_eq!(machine.timed(|| machine.bind(VF1)), (Ok(()), 500));
    machine.fault(VF1, "unbind=slow:900");
    assert_eq!(machine.timed(|| machine.registry.unbind(VF1)), ((), 900));
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    machine.registry.clear_faults(VF1);
    machine.fault(VF1, "bind=slow:1500");
    assert_eq!(machine.timed(|| machine.bind(VF1)), (Err(Refusal::TimedOut), TIMEOUT_MS));
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    machine.assert_clean();
}

#[test]
fn busy_is_asked_again() {
    let machine = Machine::connected(&Clock::leaping());
    machine.fault(VF1, "bind=busy:2");
    machine.fault(VF1, "lock=busy:1");
    assert_eq!(machine.timed(|| machine.bind(VF1)), (Ok(()), 20));
    assert_eq!(machine.timed(|| machine.set_state(VF1, 1)), (Ok(()), 10));
    machine.fault(VF1, "unbind=busy:4000000000");
    assert_eq!(machine.timed(|| machine.registry.unbind(VF1)), ((), TIMEOUT_MS));
    assert_eq!(machine.binding(VF1), Binding::Quarantined);
    machine.assert_clean();
}

#[test]
fn an_error_before_leaves_nothing_and_one_after_is_undone() {
    let machine = Machine::connected(&Clock::standing());
    machine.fault(VF1, "bind=error-before-commit");
    assert_eq!(machine.bind(VF1).map_err(|refusal| refusal.errno()), Err(Errno::EIO));
    assert_eq!(machine.device.take_log(), [""; 0]);
    let counters = machine.registry.counters();
    assert_eq!((counters.binds, counters.unbinds, counters.binds_refused), (0, 0, 1));
    machine.registry.clear_faults(VF1);
    for fault in ["bind=error-after-commit", "bind=null"] {
        machine.fault(VF1, fault);
        assert_eq!(machine.bind(VF1).map_err(|refusal| refusal.errno()), Err(Errno::EIO));
        assert_eq!(machine.device.count("STOP"), 1, "{fault}");
        assert_eq!(machine.binding(VF1), Binding::Unbound);
        machine.device.take_log();
        machine.registry.clear_faults(VF1);
    }
    assert_eq!(machine.registry.counters().binds, 2);
    machine.assert_clean();
}

#[test]
fn an_unbind_without_a_known_outcome_is_quarantined() {
    for (fault, left) in
        [("unbind=refused", State::Locked), ("unbind=error-after-commit", State::Unlocked)]
    {
        let machine = Machine::connected(&Clock::standing());
        machine.bind(VF1).unwrap();
        machine.set_state(VF1, 1).unwrap();
        machine.fault(VF1, fault);
        machine.registry.unbind(VF1);
        assert_eq!(machine.binding(VF1), Binding::Quarantined, "{fault}");
        assert_eq!(machine.device.state(VF1.requester_id()), left);
        assert_eq!(machine.registry.attributes(VF1).unwrap().bound.as_deref(), Some("\n"));
        machine.registry.clear_faults(VF1);
        machine.device.reset(VF1.requester_id());
        machine.registry.reset_done(VF1);
        assert_eq!(machine.binding(VF1), Binding::Unbound);
        machine.assert_clean();
    }
}

#[test]
fn nonsense_is_no_answer() {
    let machine = Machine::connected(&Clock::standing());
    machine.device.except(MessageType::GET_VERSION, Answers::Nonsense);
    let refused = machine.bind(VF1).unwrap_err();
    assert_eq!(refused.errno(), Errno::EPROTO);
    assert_eq!(machine.device.count("STOP"), 1, "nobody knows what it did");
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    machine.device.answers(Answers::Nonsense);
    machine.bind(VF2).unwrap_err();
    assert_eq!(machine.binding(VF2), Binding::Quarantined);
    machine.assert_clean();
}

#[test]
fn a_change_without_an_answer_leaves_the_state_unknown() {
    for (fault, then) in [
        ("lock=silent*1", State::Unlocked),
        ("lock=error-after-commit*1", State::Locked),
        ("lock=slow:5000*1", State::Locked),
    ] {
        let machine = Machine::connected(&Clock::leaping());
        machine.bind(VF1).unwrap();
        machine.fault(VF1, fault);
        machine.set_state(VF1, 1).unwrap_err();
        assert_eq!(machine.binding(VF1), Binding::Unknown, "{fault}");
        assert_eq!(machine.registry.attributes(VF1).unwrap().bound.as_deref(), Some("tsm0\n"));
        assert_eq!(machine.set_state(VF1, 2), Err(Refusal::StateUnknown));
        let state = machine.ask(VF1, Op::GetState, &[], 4).unwrap();
        assert_eq!(state.bytes, (then as u32).to_le_bytes());
        assert_eq!(machine.binding(VF1), Binding::Bound { state: then });
        assert_eq!(machine.set_state(VF1, 0), Ok(()), "an unlock settles it");
        assert_eq!(machine.set_state(VF1, 1), Ok(()));
        machine.registry.unbind(VF1);
        machine.assert_clean();
    }
}

#[test]
fn a_start_that_was_refused_can_be_tried_again() {
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.set_state(VF1, 1).unwrap();
    machine.fault(VF1, "start=error-before-commit*1");
    machine.set_state(VF1, 2).unwrap_err();
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Locked });
    machine.set_state(VF1, 2).unwrap();
    machine.fault(VF1, "stop=error-before-commit*1");
    machine.set_state(VF1, 0).unwrap_err();
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Run });
    machine.set_state(VF1, 0).unwrap();
    machine.registry.unbind(VF1);
    machine.assert_clean();
}

#[test]
fn a_lost_report_leaves_the_interface_locked() {
    let machine = Machine::connected(&Clock::leaping());
    machine.bind(VF1).unwrap();
    machine.fault(VF1, "report=silent*1");
    assert_eq!(machine.set_state(VF1, 1), Err(Refusal::TimedOut));
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Locked });
    let mut regen = [0; 24];
    regen[0] = 3;
    machine.ask(VF1, Op::RegenObject, &regen, 0).unwrap();
    assert_eq!(machine.registry.ledger()[0].tdis[1].objects[0].generation, 1);
    machine.set_state(VF1, 2).unwrap();
    machine.registry.unbind(VF1);
    machine.assert_clean();
}

#[test]
fn a_connect_that_fails_leaves_nothing() {
    for fault in
        ["connect=silent*1", "connect=error-before-commit*1", "connect=error-after-commit*1"]
    {
        let machine = Machine::new(&Clock::leaping());
        machine.fault(PF, fault);
        let (connected, took_ms) = machine.timed(|| machine.registry.connect(PF, b"tsm0"));
        connected.unwrap_err();
        assert!(took_ms < 2 * TIMEOUT_MS, "{took_ms}");
        assert_eq!(machine.registry.ledger(), [], "{fault}");
        assert_eq!(machine.registry.attributes(PF).unwrap().connect.as_deref(), Some("\n"));
        assert!(!machine.device.is_secure());
        assert_eq!(machine.registry.connect(PF, b"tsm0"), Ok(()));
    }
    let machine = Machine::new(&Clock::leaping());
    machine.device.answers(Answers::Never);
    let (connected, took_ms) = machine.timed(|| machine.registry.connect(PF, b"tsm0"));
    assert_eq!(connected, Err(Refusal::TimedOut));
    assert!(took_ms < 2 * TIMEOUT_MS, "{took_ms}");
}

/// The whole of a disconnect from a device that never answers has one deadline, however many TDIs
/// are bound; so has the end of a TSM with two such devices.
#[test]
fn a_disconnect_from_a_silent_device_is_bounded() {
    let bound = || {
        let machine = Machine::connected(&Clock::leaping());
        machine.registry.connect(OTHER, b"tsm0").unwrap();
        for function in [PF, VF1, VF2, OTHER] {
            machine.bind(function).unwrap();
        }
        machine.device.answers(Answers::Never);
        machine.other.answers(Answers::Never);
        machine.device.take_log();
        machine
    };
    let machine = bound();
    let (done, took_ms) = machine.timed(|| machine.registry.disconnect(PF, b"tsm0"));
    assert_eq!((done, took_ms), (Ok(()), TIMEOUT_MS));
    assert_eq!(
        machine.device.take_log()[..3],
        [
            "STOP_INTERFACE_REQUEST 01:00.2",
            "STOP_INTERFACE_REQUEST 01:00.1",
            "STOP_INTERFACE_REQUEST 01:00.0"
        ],
        "in reverse order, and all of them are said"
    );
    assert_eq!(machine.registry.counters().unbinds, 3);
    let machine = bound();
    let ((), took_ms) = machine.timed(|| machine.registry.unregister(0));
    assert!((TIMEOUT_MS..2 * TIMEOUT_MS).contains(&took_ms), "{took_ms}");
    assert_eq!(machine.registry.ledger(), []);
    machine.assert_clean();
}

#[test]
fn an_answer_that_comes_too_late_is_dropped() {
    let machine = Machine::connected(&Clock::leaping());
    machine.device.answers(Answers::DoesNotTell);
    machine.bind(VF1).unwrap_err();
    machine.bind(VF2).unwrap_err();
    assert!(machine.device.aborts() >= 2);
    machine.device.answers(Answers::AtOnce);
    machine.device.pay();
    machine.registry.reset_done(VF1);
    machine.bind(VF1).unwrap();
    machine.device.pay();
    machine.set_state(VF1, 1).unwrap();
    machine.registry.unbind(VF1);
    machine.assert_clean();
}
