//! Commands that are given up: by their token, by a disconnect, by the end of a function.

use tsm::{Binding, Cancel, Notice, Refusal};
use uapi::Errno;

use crate::support::{Answers, Clock, Machine, OTHER, PF, TIMEOUT_MS, VF1, VF2};

#[test]
fn a_token_stays_set() {
    let machine = Machine::connected(&Clock::standing());
    let cancel = Cancel::new();
    machine.registry.cancel(VF1, &cancel);
    let refused = machine.registry.bind(VF1, crate::support::VM, 1, &cancel).unwrap_err();
    assert_eq!((refused, refused.errno()), (Refusal::Cancelled, Errno::EINTR));
    assert_eq!(machine.device.take_log(), [""; 0]);
    let counters = machine.registry.counters();
    assert_eq!((counters.binds, counters.unbinds, counters.cancelled), (0, 0, 1));
}

/// The bind was sent and nobody knows what became of it: EINTR, and one unbind.
#[test]
fn a_cancelled_bind_counts_as_bound() {
    let machine = Machine::connected(&Clock::standing());
    machine.device.except(tdisp::MessageType::GET_VERSION, Answers::Never);
    let cancel = Cancel::new();
    let bind = machine.spawn_bind(VF1, &cancel);
    machine.wait_running(PF, "bind");
    assert_eq!(machine.binding(VF1), Binding::Binding);
    machine.registry.cancel(VF1, &Cancel::new());
    assert_eq!(machine.binding(VF1), Binding::Binding, "another token");
    machine.registry.cancel(VF1, &cancel);
    assert_eq!(bind.join().unwrap(), Err(Refusal::Cancelled));
    assert_eq!(machine.clock.now_ms(), 0, "at once");
    assert_eq!(machine.device.aborts(), 1);
    assert_eq!(machine.device.count("STOP"), 1);
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    machine.registry.unbind(VF1);
    let counters = machine.registry.counters();
    assert_eq!((counters.binds, counters.unbinds, counters.cancelled), (1, 1, 1));
    assert!(machine.heard.take().contains(&(VF1, Notice::Cancelled { operation: "bind" })));
    machine.assert_clean();
}

/// A bind that waits for its turn has not begun: EINTR, and no unbind.
#[test]
fn a_bind_that_waits_never_began() {
    let machine = Machine::connected(&Clock::standing());
    machine.device.answers(Answers::Never);
    let (first, second) = (Cancel::new(), Cancel::new());
    let running = machine.spawn_bind(VF1, &first);
    machine.wait_running(PF, "bind");
    let waiting = machine.spawn_bind(VF2, &second);
    machine.wait_waiting(PF, 1);
    machine.registry.cancel(VF2, &second);
    assert_eq!(waiting.join().unwrap(), Err(Refusal::Cancelled));
    assert_eq!(machine.binding(VF2), Binding::Unbound);
    assert_eq!(machine.registry.counters().binds, 0);
    machine.registry.cancel(VF1, &first);
    while !running.is_finished() {
        machine.clock.advance(TIMEOUT_MS / 2);
    }
    assert_eq!(running.join().unwrap(), Err(Refusal::Cancelled));
    assert_eq!(machine.binding(VF1), Binding::Quarantined);
    machine.assert_clean();
}

#[test]
fn a_cancelled_request_leaves_the_state_unknown() {
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.device.except(tdisp::MessageType::LOCK_INTERFACE_REQUEST, Answers::DoesNotTell);
    let cancel = Cancel::new();
    let lock = {
        let (registry, cancel) = (machine.registry.clone(), cancel.clone());
        std::thread::spawn(move || {
            let request = tsm::GuestRequest {
                arch: tsm::Arch::Cca,
                op: tsm::Op::SetTdiState,
                request: &1u32.to_le_bytes(),
                response_room: 0,
            };
            registry.request(VF1, &request, &crate::support::NoMemory, &cancel)
        })
    };
    machine.wait_running(PF, "request");
    machine.registry.cancel(VF1, &cancel);
    assert_eq!(lock.join().unwrap(), Err(Refusal::Cancelled));
    assert_eq!(machine.binding(VF1), Binding::Unknown);
    machine.registry.unbind(VF1);
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    machine.assert_clean();
}

/// Disconnect, removal of the function, removal of its physical function and the end of the TSM give
/// a bind in flight up instead of waiting for it.
#[test]
fn what_nobody_can_refuse_gives_a_bind_up() {
    for end in 0..4 {
        let machine = Machine::connected(&Clock::standing());
        machine.registry.connect(OTHER, b"tsm0").unwrap();
        machine.bind(VF2).unwrap();
        machine.device.except(tdisp::MessageType::GET_VERSION, Answers::Never);
        let bind = machine.spawn_bind(VF1, &Cancel::new());
        machine.wait_running(PF, "bind");
        let registry = &machine.registry;
        match end {
            0 => registry.disconnect(PF, b"tsm0").unwrap(),
            1 => registry.remove(VF1),
            2 => registry.remove(PF),
            _ => registry.unregister(0),
        }
        assert_eq!(bind.join().unwrap(), Err(Refusal::Cancelled));
        assert_eq!(machine.clock.now_ms(), 0, "at once");
        registry.unbind(VF2);
        assert_eq!(machine.registry.counters().unbinds, 2);
        assert_eq!(registry.attributes(VF1), None);
        machine.assert_clean();
    }
}

/// A client's unbind waits its turn: it goes before a bind that waits too, and gives nobody up.
#[test]
fn an_unbind_waits_its_turn_and_goes_first() {
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.device.except(tdisp::MessageType::GET_VERSION, Answers::Never);
    let cancel = Cancel::new();
    let running = machine.spawn_bind(PF, &cancel);
    machine.wait_running(PF, "bind");
    let waiting = machine.spawn_bind(VF2, &cancel);
    machine.wait_waiting(PF, 1);
    let unbind = {
        let registry = machine.registry.clone();
        std::thread::spawn(move || registry.unbind(VF1))
    };
    machine.wait_waiting(PF, 2);
    assert!(machine.binding(VF1).is_bound());
    machine.device.answers(Answers::AtOnce);
    machine.device.take_log();
    machine.clock.advance(TIMEOUT_MS);
    assert_eq!(running.join().unwrap(), Err(Refusal::TimedOut));
    unbind.join().unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(()));
    let log = machine.device.take_log();
    assert_eq!(
        log[..3],
        ["STOP_INTERFACE_REQUEST 01:00.0", "STOP_INTERFACE_REQUEST 01:00.1", "GET_VERSION 01:00.2"]
    );
    machine.registry.unbind(VF2);
    machine.assert_clean();
}

/// A bind that is stuck on one function and an unbind of another, from a device that never answers.
#[test]
fn an_unbind_behind_a_stuck_bind_is_bounded() {
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.device.answers(Answers::Never);
    let bind = machine.spawn_bind(VF2, &Cancel::new());
    machine.wait_running(PF, "bind");
    machine.clock.leap();
    let ((), took_ms) = machine.timed(|| machine.registry.unbind(VF1));
    assert!(took_ms < 2 * TIMEOUT_MS, "{took_ms}");
    assert_eq!(bind.join().unwrap(), Err(Refusal::TimedOut));
    assert_eq!(machine.binding(VF1), Binding::Quarantined);
    assert_eq!(machine.binding(VF2), Binding::Quarantined);
    machine.assert_clean();
}
