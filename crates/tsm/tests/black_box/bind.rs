//! The straight path, and who may bind what.

use tsm::{Binding, Cancel, Op, Refusal, State, VmId};
use uapi::Errno;

use crate::support::{Answers, Clock, Machine, OTHER, PF, VF1, VF2, VM};

#[test]
fn the_straight_path() {
    let machine = Machine::new(&Clock::standing());
    let rid = VF1.requester_id();
    machine.registry.connect(PF, b"tsm0\n").unwrap();
    let log = machine.device.take_log();
    let count = |name: &str| log.iter().filter(|line| line.starts_with(name)).count();
    assert_eq!((log[0].as_str(), count("KEY_PROG"), count("K_SET_GO")), ("QUERY", 6, 6));
    assert!(machine.device.is_secure());
    assert_eq!(machine.registry.ledger()[0].keys, 6);

    machine.bind(VF1).unwrap();
    assert_eq!(
        machine.device.take_log(),
        ["GET_VERSION 01:00.1", "GET_CAPABILITIES 01:00.1", "GET_DEVICE_INTERFACE_STATE 01:00.1"]
    );
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Unlocked });
    assert_eq!(machine.device.state(rid), State::Unlocked, "bind does not lock");
    machine.set_state(VF1, 1).unwrap();
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Locked });
    assert_eq!(machine.device.state(rid), State::Locked);
    machine.set_state(VF1, 2).unwrap();
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Run });
    assert_eq!(machine.device.state(rid), State::Run);
    assert_eq!(machine.binding(VF2), Binding::Unbound);

    machine.device.take_log();
    machine.registry.unbind(VF1);
    assert_eq!(machine.device.take_log(), ["STOP_INTERFACE_REQUEST 01:00.1"]);
    assert_eq!(machine.device.state(rid), State::Unlocked);
    assert_eq!(machine.binding(VF1), Binding::Unbound);
    machine.registry.unbind(VF1);
    assert_eq!(machine.device.take_log(), [""; 0], "once");
    machine.assert_clean();
    machine.registry.disconnect(PF, b"tsm0\n").unwrap();
    assert_eq!(machine.device.take_log(), ["K_SET_STOP"; 6]);
    assert!(!machine.device.is_secure());
    assert_eq!(machine.registry.ledger(), []);
    assert_eq!(machine.registry.counters().unbinds, 1, "what is over still counts");
    assert_eq!(
        machine.heard.lines(),
        [
            "b1d0:01:00.0 connected to tsm0",
            "b1d0:01:00.1 bound to VM 7 as 0x10",
            "b1d0:01:00.1 CONFIG_UNLOCKED -> CONFIG_LOCKED",
            "b1d0:01:00.1 LOCK",
            "b1d0:01:00.1 CONFIG_LOCKED -> RUN",
            "b1d0:01:00.1 RUN",
            "b1d0:01:00.1 RUN -> CONFIG_UNLOCKED",
            "b1d0:01:00.1 unbound",
            "b1d0:01:00.0 disconnected from tsm0",
        ]
    );
}

#[test]
fn every_way_of_answering_serves() {
    for answers in [Answers::AtOnce, Answers::ByReply, Answers::ByThread, Answers::After(3)] {
        let late = matches!(answers, Answers::After(_));
        let machine = Machine::new(&if late { Clock::leaping() } else { Clock::standing() });
        machine.device.answers(answers);
        machine.connect();
        machine.bind(VF1).unwrap();
        machine.set_state(VF1, 1).unwrap();
        machine.set_state(VF1, 2).unwrap();
        machine.registry.unbind(VF1);
        machine.registry.disconnect(PF, b"tsm0").unwrap();
        machine.assert_clean();
        assert!(!machine.device.is_secure());
    }
}

#[test]
fn one_vm_at_a_time() {
    let machine = Machine::connected(&Clock::standing());
    let bind = |vm, id| machine.registry.bind(VF1, vm, id, &Cancel::new());
    assert_eq!(bind(VM, 0x10), Ok(()));
    machine.device.take_log();
    assert_eq!(bind(VM, 0x10), Ok(()), "it is so already");
    assert_eq!(bind(VmId(8), 0x10), Err(Refusal::OtherVm { bound: VM }));
    assert_eq!(bind(VM, 0x11), Err(Refusal::OtherGuestId { bound: 0x10 }));
    assert_eq!(bind(VmId(8), 0x10).unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(machine.device.take_log(), [""; 0], "none of it reached the device");
    assert_eq!(machine.registry.counters().binds, 1);
    machine.registry.unbind(VF1);
    assert_eq!(bind(VmId(8), 0x11), Ok(()));
    machine.registry.unbind(VF1);
    machine.assert_clean();
}

#[test]
fn what_is_not_connected_is_not_bound() {
    let machine = Machine::new(&Clock::standing());
    let refused = machine.bind(VF1).unwrap_err();
    assert_eq!(
        (refused, refused.errno()),
        (Refusal::NotConnected { function: VF1 }, Errno::EINVAL)
    );
    let refused = machine.set_state(VF1, 1).unwrap_err();
    assert_eq!((refused, refused.errno()), (Refusal::NotBound { function: VF1 }, Errno::ENXIO));
    machine.connect();
    assert_eq!(machine.bind(OTHER), Err(Refusal::NotConnected { function: OTHER }));
    assert_eq!(machine.set_state(VF1, 1), Err(Refusal::NotBound { function: VF1 }));
    machine.registry.unbind(VF1);
    machine.registry.unbind(OTHER);
    assert_eq!(machine.registry.counters().unbinds, 0);
}

/// A TDI that goes to ERROR on its own is found when it is asked about, and STOP still ends it.
#[test]
fn an_error_is_found_and_ended() {
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.set_state(VF1, 1).unwrap();
    machine.device.breach(VF1.requester_id());
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Locked }, "as last seen");
    let refused = machine.set_state(VF1, 2).unwrap_err();
    assert_eq!((refused.errno(), refused.tsm_code()), (Errno::EIO, 4));
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Error });
    let state = machine.ask(VF1, Op::GetState, &[], 4).unwrap();
    assert_eq!(state.bytes, 3u32.to_le_bytes());
    machine.registry.unbind(VF1);
    assert_eq!(machine.device.state(VF1.requester_id()), State::Unlocked);
    machine.assert_clean();
}

/// A host with an eye on the device says so at once.
#[test]
fn an_error_that_was_seen_is_known() {
    let machine = Machine::connected(&Clock::standing());
    machine.registry.observed(VF1, State::Error);
    machine.bind(VF1).unwrap();
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Unlocked });
    machine.set_state(VF1, 1).unwrap();
    machine.device.breach(VF1.requester_id());
    machine.registry.observed(VF1, State::Error);
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Error });
    let request = machine.ask(VF1, Op::ObjectInfo, &3u32.to_le_bytes(), 4);
    assert!(request.is_ok(), "the report that was fetched is still there");
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Error }, "and stays so");
    machine.set_state(VF1, 2).unwrap_err();
    machine.set_state(VF1, 0).unwrap();
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Unlocked });
    machine.registry.observed(VF1, State::Error);
    assert_eq!(machine.binding(VF1), Binding::Bound { state: State::Unlocked }, "old news");
    machine.registry.unbind(VF1);
    machine.assert_clean();
}

/// What a connection finds locked, it stops; what comes to be locked later is not bound.
#[test]
fn a_stale_interface_is_not_bound() {
    let machine = Machine::connected(&Clock::standing());
    machine.bind(VF1).unwrap();
    machine.set_state(VF1, 1).unwrap();
    machine.device.except(tdisp::MessageType::STOP_INTERFACE_REQUEST, Answers::Never);
    machine.clock.leap();
    machine.registry.disconnect(PF, b"tsm0").unwrap();
    assert_ne!(machine.device.state(VF1.requester_id()), State::Unlocked);
    machine.device.answers(Answers::AtOnce);
    machine.connect();
    assert_eq!(machine.device.state(VF1.requester_id()), State::Unlocked);
    machine.bind(VF1).unwrap();
    machine.registry.unbind(VF1);
    machine.assert_clean();
}
