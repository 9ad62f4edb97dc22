//! Requests in order and out of order: nonces, keys, sessions, reports.

use std::sync::Arc;

use bindery_device as device;

use device::security::{Entropy, Manager, Settings};
use pci::Function;
use pci::regs::{command, ext_id, msix, pm, sriov};
use tdisp::exchange::{GetState, GetVersion, LockInterface, StartInterface};
use tdisp::ide_km::{self, Response};
use tdisp::report::{self, MmioRange, RangeAttributes};
use tdisp::{ErrorCode, LockFlags, Nonce, SessionId, State};

use crate::rig::{BAR0, BAR2, IDS, Ram, Rig, SESSION, STREAM, VF_BAR0, VF_BAR2, keys};

#[test]
fn an_interface_is_locked_runs_and_stops() {
    let rig = Rig::new();
    for (function, &id) in IDS.iter().enumerate() {
        assert_eq!(rig.state(function), State::Unlocked);
        let nonce = rig.lock_with(function, LockFlags::default()).unwrap();
        assert_eq!(rig.state(function), State::Locked);
        assert!(rig.report(function).is_ok());
        assert_eq!(rig.start(function, nonce), Ok(()));
        assert_eq!(rig.state(function), State::Run);
        assert_eq!(rig.stop(function), Ok(()));
        assert_eq!(rig.state(function), State::Unlocked);
        let changes = rig.changes();
        let edges: Vec<_> = changes.iter().map(|change| (change.from, change.to)).collect();
        let steps = [State::Unlocked, State::Locked, State::Run, State::Unlocked];
        assert!(edges.iter().copied().eq(steps.into_iter().zip(steps.into_iter().skip(1))));
        assert!(changes.iter().all(|change| change.requester_id == id && change.cause.is_none()));
    }
}

#[test]
fn only_the_nonce_of_this_lock_starts() {
    let rig = Rig::new();
    let first = rig.lock_with(0, LockFlags::default()).unwrap();
    let other = rig.lock_with(1, LockFlags::default()).unwrap();
    assert_ne!(first, other);
    for wrong in [Nonce([0; 32]), other] {
        assert_eq!(rig.start(0, wrong), Err(ErrorCode::INVALID_NONCE));
        assert_eq!(rig.state(0), State::Locked);
    }
    rig.stop(0).unwrap();
    assert_eq!(rig.start(0, first), Err(ErrorCode::INVALID_INTERFACE_STATE));
    let second = rig.lock_with(0, LockFlags::default()).unwrap();
    assert_eq!(rig.start(0, first), Err(ErrorCode::INVALID_NONCE));
    assert_eq!(rig.start(0, second), Ok(()));
    assert_eq!(rig.start(0, second), Err(ErrorCode::INVALID_INTERFACE_STATE));
}

#[test]
fn another_session_may_not_start_and_may_stop() {
    let rig = Rig::new();
    let nonce = rig.lock_with(1, LockFlags::default()).unwrap();
    let other = SessionId(8);
    let start = StartInterface { nonce };
    assert_eq!(rig.ask(other, IDS[1], &start, drop), Err(ErrorCode::INVALID_NONCE));
    assert_eq!(rig.state(1), State::Locked);
    rig.manager.session_ended(other);
    assert_eq!(rig.state(1), State::Locked, "it was locked in another");
    rig.manager.session_ended(SESSION);
    assert_eq!(rig.state(1), State::Error);
}

#[test]
fn locking_wants_keys_in_use() {
    let rig = Rig::bare(Settings::default(), Ram::new(None));
    let lock = || rig.lock_with(0, LockFlags::default());
    assert_eq!(lock(), Err(ErrorCode::INVALID_REQUEST));
    rig.give_keys(STREAM + 1);
    assert_eq!(lock(), Err(ErrorCode::INVALID_REQUEST), "another stream");
    rig.give_keys(STREAM);
    assert_eq!(rig.manager.keys(), 12);
    assert!(lock().is_ok());
}

#[test]
fn locking_wants_memory_bus_master_and_power() {
    let rig = Rig::new();
    let refused = Err(ErrorCode::INVALID_DEVICE_CONFIGURATION);
    let both = command::MEMORY | command::BUS_MASTER;
    for (function, lacking) in
        [(0, command::BUS_MASTER), (0, command::MEMORY), (0, 0), (1, command::MEMORY)]
    {
        rig.set_command(function, lacking);
        assert_eq!(rig.lock_with(function, LockFlags::default()), refused, "{lacking:#x}");
        rig.set_command(function, both);
    }
    for control in [0, sriov::VF_ENABLE, sriov::VF_MEMORY] {
        rig.set_sriov(control);
        assert_eq!(rig.lock_with(2, LockFlags::default()), refused, "SR-IOV {control:#x}");
    }
    rig.enable_vfs();
    let power = rig.capability(0, pci::regs::cap_id::PM) + pm::CONTROL;
    rig.engines[0].config_write(power, &pm::D3HOT.to_le_bytes());
    assert_eq!(rig.lock_with(0, LockFlags::default()), refused, "asleep");
    rig.engines[0].config_write(power, &[0, 0]);
    for function in 0..3 {
        assert_eq!(rig.state(function), State::Unlocked);
        assert!(rig.lock_with(function, LockFlags::default()).is_ok());
    }
}

#[test]
fn a_virtual_function_beyond_those_enabled_cannot_be_locked() {
    let rig = Rig::new();
    let at = rig.extended(ext_id::SRIOV) + sriov::NUM_VFS;
    rig.engines[0].config_write(at, &1u16.to_le_bytes());
    assert!(rig.lock_with(1, LockFlags::default()).is_ok());
    let refused = Err(ErrorCode::INVALID_DEVICE_CONFIGURATION);
    assert_eq!(rig.lock_with(2, LockFlags::default()), refused);
}

#[test]
fn without_random_bytes_nothing_is_locked() {
    struct Dry;
    impl Entropy for Dry {
        fn fill(&self, _: &mut [u8]) -> bool {
            false
        }
    }
    let mut rig = Rig::new();
    let interfaces = rig.engines.iter().map(|engine| engine.clone() as _).collect();
    let manager = Manager::new(Settings::default(), interfaces, Arc::new(Dry));
    rig.manager = manager;
    rig.give_keys(STREAM);
    let refused = Err(ErrorCode::INSUFFICIENT_ENTROPY);
    assert_eq!(rig.lock_with(0, LockFlags::default()), refused);
    assert_eq!(rig.state(0), State::Unlocked);
}

#[test]
fn the_report_tells_where_the_bars_really_are() {
    let rig = Rig::new();
    rig.set_msix_control(1, msix::ENABLE);
    let offset = 0x7000_0000_0000_0000;
    let table = RangeAttributes::MSIX_TABLE;
    let pending = RangeAttributes::MSIX_PBA;
    let places = [(BAR0, BAR2), (VF_BAR0, VF_BAR2), (VF_BAR0 + 0x1_0000, VF_BAR2 + 0x2000)];
    for (flags, [first, second], control) in [
        (LockFlags::LOCK_MSIX, [table, pending], 0x800f),
        (LockFlags::NO_FW_UPDATE, [RangeAttributes::NON_TEE; 2], 0),
    ] {
        for (function, (bar0, bar2)) in places.into_iter().enumerate() {
            let body = LockInterface {
                flags,
                default_stream: STREAM,
                mmio_reporting_offset: offset,
                ..LockInterface::default()
            };
            rig.lock(function, &body).unwrap();
            let bytes = rig.report(function).unwrap();
            let report = report::decode(&bytes).unwrap();
            let range = |address: u64, pages, attributes, id| MmioRange {
                first_page: address + offset,
                pages,
                attributes,
                id,
            };
            let memory = range(bar0, 16, RangeAttributes::default(), 0);
            let mut expected = vec![memory, range(bar2, 1, first, 2)];
            if first == second {
                expected[1].pages = 2;
            } else {
                expected.push(range(bar2 + 0x1000, 1, second, 2));
            }
            assert_eq!(report.ranges.iter().collect::<Vec<_>>(), expected, "{function}");
            let info = report.fields.info;
            assert!(info.contains(report::InterfaceInfo::DMA_WITHOUT_PASID));
            let updates = !flags.contains(LockFlags::NO_FW_UPDATE);
            assert_eq!(!info.contains(report::InterfaceInfo::NO_FW_UPDATE), updates);
            let control = if function == 1 { control } else { control & 0xf };
            assert_eq!(report.fields.msix_control, control);
            rig.stop(function).unwrap();
        }
    }
}

#[test]
fn a_bar_that_moved_while_unlocked_is_reported_where_it_is() {
    let rig = Rig::new();
    rig.engines[0].config_write(0x10, &0xd000_0000_u32.to_le_bytes());
    rig.lock_with(0, LockFlags::default()).unwrap();
    let bytes = rig.report(0).unwrap();
    let first = report::decode(&bytes).unwrap().ranges.iter().next().unwrap();
    assert_eq!(first.first_page, 0xd000_0000);
}

#[test]
fn bars_that_overlap_cannot_be_locked() {
    let rig = Rig::new();
    let low = u32::try_from(BAR0).unwrap();
    rig.engines[0].config_write(0x18, &low.to_le_bytes());
    let refused = Err(ErrorCode::INVALID_DEVICE_CONFIGURATION);
    assert_eq!(rig.lock_with(0, LockFlags::default()), refused);
}

#[test]
fn who_has_no_interface_is_told_so() {
    let rig = Rig::new();
    let unknown = Err(ErrorCode::INVALID_INTERFACE);
    assert_eq!(rig.ask(SESSION, 0x0103, &GetVersion, |_| ()), unknown);
    assert_eq!(rig.ask(SESSION, 0x0200, &GetState, drop), unknown);
    assert_eq!(rig.manager.state(0x0103), None);
    assert_eq!(rig.manager.functions().collect::<Vec<_>>(), IDS);
}

#[test]
fn other_protocols_and_small_rooms_get_no_answer() {
    let rig = Rig::new();
    let mut room = [0; 256];
    assert_eq!(rig.manager.respond(SESSION, &[], &mut room), None);
    assert_eq!(rig.manager.respond(SESSION, &[2, 0, 0, 0], &mut room), None);
    assert_eq!(rig.manager.respond(SESSION, &[0, 9, 9, 9], &mut room), None, "no IDE_KM");
    assert_eq!(rig.manager.respond(SESSION, &[1; 20], &mut room[..8]), None);
    assert_eq!(rig.state(0), State::Unlocked, "and the next is served");
}

#[test]
fn a_query_shows_the_port_and_its_ide_registers() {
    let rig = Rig::new();
    let answer = rig.ide(ide_km::Request::Query { port: 0 }).unwrap();
    let Ok(Response::QueryResp { location, port_max, registers, .. }) = Response::decode(&answer)
    else {
        panic!("{answer:?}");
    };
    assert_eq!((location.bus, location.devfn, port_max), (1, 0, 0));
    let at = rig.extended(ext_id::IDE) + 4;
    let mut shown = vec![0; registers.len()];
    rig.engines[0].config_read(at, &mut shown);
    assert_eq!(registers, shown);
    assert_eq!(registers.len(), 8 + 4 * 32, "four streams of one range");
    assert_eq!(rig.ide(ide_km::Request::Query { port: 1 }), None);
}

#[test]
fn a_stopped_key_is_no_key() {
    let rig = Rig::new();
    rig.bring(0, State::Run, LockFlags::default());
    let other = LockInterface { default_stream: STREAM + 1, ..LockInterface::default() };
    rig.give_keys(STREAM + 1);
    rig.lock(1, &other).unwrap();
    let key = keys(STREAM).next().unwrap();
    assert!(rig.ide(ide_km::Request::SetStop(key)).is_some());
    assert_eq!((rig.state(0), rig.state(1)), (State::Error, State::Locked), "by stream");
    rig.stop(0).unwrap();
    let refused = Err(ErrorCode::INVALID_REQUEST);
    assert_eq!(rig.lock_with(0, LockFlags::default()), refused);
}
