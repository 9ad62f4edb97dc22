//! What breaks a locked configuration, in each state, on both sides of each policy, and what does not.

use bindery_device as device;

use device::dma_engine::regs::{bar0, bar2, register};
use device::security::{Settings, TdiChange};
use pci::regs::{cap_id, command, ext_id, header, msix, pm, sriov};
use pci::{Function, Reset};
use tdisp::{Breach, ErrorCode, FunctionReset, LockFlags, SessionId, State};

use crate::rig::{BAR0, IDS, Ram, Rig, SESSION, STREAM, VF_BAR0};

const BOTH: u16 = command::MEMORY | command::BUS_MASTER;

/// Something done to a device whose function 0 or 1 is fixed.
struct Deed {
    name: &'static str,
    function: usize,
    act: fn(&Rig),
    breach: Breach,
    /// What LOCK must have said for it to count.
    flags: LockFlags,
}

fn deeds() -> Vec<Deed> {
    let deed = |name, function, act, breach| Deed {
        name,
        function,
        act,
        breach,
        flags: LockFlags::default(),
    };
    let msix = |name, function, act| Deed {
        flags: LockFlags::LOCK_MSIX,
        ..deed(name, function, act, Breach::MsixWritten)
    };
    vec![
        deed("memory off", 0, |rig| rig.set_command(0, command::BUS_MASTER), Breach::MemoryCleared),
        deed("master off", 0, |rig| rig.set_command(0, command::MEMORY), Breach::BusMasterCleared),
        deed("master off in a VF", 1, |rig| rig.set_command(1, 0), Breach::BusMasterCleared),
        deed("BAR 0", 0, |rig| write_bar(rig, 0, 0xd000_0000), Breach::BarWritten),
        deed("BAR 0 sized", 0, |rig| write_bar(rig, 0, !0), Breach::BarWritten),
        deed("upper half", 0, |rig| write_bar(rig, 4, 1), Breach::BarWritten),
        deed("BAR 2", 0, |rig| write_bar(rig, 8, 0xd000_0000), Breach::BarWritten),
        deed("asleep", 0, |rig| set_power(rig, pm::D3HOT), Breach::LeftD0),
        deed("VFs off", 1, |rig| rig.set_sriov(sriov::VF_MEMORY), Breach::Disabled),
        deed("VF memory off", 1, |rig| rig.set_sriov(sriov::VF_ENABLE), Breach::MemoryCleared),
        deed("fewer VFs", 1, |rig| write_sriov(rig, sriov::NUM_VFS, &[0, 0]), Breach::Disabled),
        deed(
            "VF BAR",
            1,
            |rig| write_sriov(rig, sriov::VF_BAR0, &0xd000_0000_u32.to_le_bytes()),
            Breach::BarWritten,
        ),
        deed(
            "the session's end",
            1,
            |rig| rig.manager.session_ended(SESSION),
            Breach::SessionEnded(SESSION),
        ),
        deed("keys lost", 1, |rig| rig.manager.lose_keys(), Breach::StreamInsecure(STREAM)),
        msix("MSI-X on", 0, |rig| rig.set_msix_control(0, msix::ENABLE)),
        msix("MSI-X masked in a VF", 1, |rig| rig.set_msix_control(1, msix::FUNCTION_MASK)),
        msix("a vector unmasked", 0, |rig| write_table(rig, 0, msix::ENTRY_CONTROL, 0)),
        msix("a message changed", 1, |rig| write_table(rig, 1, msix::ENTRY_DATA, 5)),
    ]
}

fn write_bar(rig: &Rig, offset: u16, value: u32) {
    rig.engines[0].config_write(header::BAR0 + offset, &value.to_le_bytes());
}

fn set_power(rig: &Rig, state: u16) {
    let at = rig.capability(0, cap_id::PM) + pm::CONTROL;
    rig.engines[0].config_write(at, &state.to_le_bytes());
}

fn write_sriov(rig: &Rig, register: u16, bytes: &[u8]) {
    let at = rig.extended(ext_id::SRIOV) + register;
    rig.engines[0].config_write(at, bytes);
}

fn write_table(rig: &Rig, function: usize, register: u64, value: u32) {
    rig.engines[function].bar_write(bar2::INDEX, register, &value.to_le_bytes());
}

#[test]
fn each_breach_leads_to_error_from_locked_and_run_only() {
    for Deed { name, function, act, breach, flags } in deeds() {
        for state in State::ALL {
            let rig = Rig::new();
            rig.bring(function, state, flags);
            act(&rig);
            let fixed = matches!(state, State::Locked | State::Run);
            let after = if fixed { State::Error } else { state };
            assert_eq!(rig.state(function), after, "{name} in {state}");
            let id = IDS[function];
            let change =
                TdiChange { requester_id: id, from: state, to: after, cause: Some(breach) };
            let heard = rig.changes();
            assert_eq!(heard, if fixed { vec![change] } else { vec![] }, "{name} in {state}");
        }
    }
}

#[test]
fn msi_x_counts_only_where_lock_said_so() {
    for Deed { name, function, act, .. } in
        deeds().into_iter().filter(|deed| deed.breach == Breach::MsixWritten)
    {
        let rig = Rig::new();
        rig.bring(function, State::Run, LockFlags::default());
        act(&rig);
        assert_eq!(rig.state(function), State::Run, "{name}");
    }
}

#[test]
fn one_interface_breaks_and_the_others_stay() {
    for Deed { name, function, act, breach, flags } in deeds() {
        let whole_device = matches!(breach, Breach::SessionEnded(_) | Breach::StreamInsecure(_));
        let both_vfs = ["VFs off", "VF memory off", "fewer VFs", "VF BAR"].contains(&name);
        let rig = Rig::new();
        for other in 0..3 {
            rig.bring(other, State::Run, flags);
        }
        act(&rig);
        for other in 0..3 {
            let broken = other == function || whole_device || both_vfs && other != 0;
            let expected = if broken { State::Error } else { State::Run };
            assert_eq!(rig.state(other), expected, "{name}: {other}");
        }
    }
}

#[test]
fn a_write_that_changes_nothing_is_no_breach() {
    let rig = Rig::new();
    for function in 0..3 {
        rig.bring(function, State::Run, LockFlags::LOCK_MSIX);
    }
    write_bar(&rig, 0, u32::try_from(BAR0).unwrap());
    write_sriov(&rig, sriov::VF_BAR0, &u32::try_from(VF_BAR0).unwrap().to_le_bytes());
    rig.set_sriov(sriov::VF_ENABLE | sriov::VF_MEMORY);
    rig.set_command(0, BOTH);
    rig.set_command(0, BOTH | command::INTX_DISABLE);
    set_power(&rig, 0);
    rig.set_msix_control(0, 0);
    write_table(&rig, 0, msix::ENTRY_CONTROL, msix::ENTRY_MASKED);
    rig.write(0, register::SCRATCH, 7);
    for function in 0..3 {
        assert_eq!(rig.state(function), State::Run);
    }
    assert_eq!(rig.changes(), []);
}

#[test]
fn only_the_virtual_function_that_goes_is_broken() {
    let rig = Rig::new();
    for function in 0..3 {
        rig.bring(function, State::Locked, LockFlags::default());
    }
    write_sriov(&rig, sriov::NUM_VFS, &1u16.to_le_bytes());
    let states = [0, 1, 2].map(|function| rig.state(function));
    assert_eq!(states, [State::Locked, State::Locked, State::Error]);
}

#[test]
fn in_error_memory_reads_as_ones_and_takes_no_writes() {
    let rig = Rig::new();
    rig.pages[1].fill(0, rig.pages[1].len(), 0x5a);
    rig.bring(1, State::Run, LockFlags::default());
    rig.set_command(1, 0);
    assert_eq!(rig.read(1, register::ID), u32::MAX);
    let mut read = [0; 8];
    for (index, offset) in [(0, register::COMPLETED), (0, bar0::WINDOW), (2, 0), (2, bar2::PENDING)]
    {
        rig.engines[1].bar_read(index, offset, &mut read);
        assert_eq!(read, [u8::MAX; 8], "BAR {index} at {offset:#x}");
    }
    let mapped = usize::try_from(bar0::DESCRIPTORS).unwrap();
    let mut bytes = vec![0; rig.pages[1].len() - mapped];
    rig.pages[1].read(mapped, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == u8::MAX));
    rig.engines[1].bar_write(0, bar0::WINDOW, &[1; 8]);
    rig.write(1, register::SCRATCH, 1);
    write_table(&rig, 1, msix::ENTRY_DATA, 5);
    rig.pages[1].read(usize::try_from(bar0::WINDOW).unwrap(), &mut read);
    assert_eq!(read, [u8::MAX; 8]);
    // What is put under the BAR meanwhile shows nothing either.
    let fresh = std::sync::Arc::new(mem::Pages::anonymous(rig.pages[1].len()).unwrap());
    rig.engines[1].back_bar(bar0::INDEX, fresh.clone());
    assert_eq!(fresh.load_u32(mapped), u32::MAX);
    rig.stop(1).unwrap();
    assert_eq!(rig.read(1, register::SCRATCH), 0);
    rig.engines[1].bar_read(2, msix::ENTRY_DATA, &mut read);
    assert_eq!(read[..4], [0; 4], "the write was dropped");
    assert_eq!(fresh.load_u32(mapped), 0, "scrubbed");
}

fn policy(flr_while_locked: FunctionReset) -> Settings {
    Settings { flr_while_locked, ..Settings::default() }
}

fn flr_by_config(rig: &Rig, function: usize) {
    let at = rig.capability(function, cap_id::EXPRESS) + pci::regs::express::DEVCTL;
    rig.engines[function].config_write(at, &pci::regs::express::INITIATE_FLR.to_le_bytes());
}

#[test]
fn a_function_level_reset_is_a_policy() {
    let ways: [fn(&Rig, usize); 2] =
        [|rig, function| rig.engines[function].reset(Reset::Function), flr_by_config];
    for (setting, fixed, error) in [
        (FunctionReset::Unlocks, State::Unlocked, State::Unlocked),
        (FunctionReset::Breaches, State::Error, State::Error),
    ] {
        for reset in ways {
            for (state, after) in [
                (State::Unlocked, State::Unlocked),
                (State::Locked, fixed),
                (State::Run, fixed),
                (State::Error, error),
            ] {
                let rig = Rig::with(policy(setting), Ram::new(None));
                rig.bring(1, state, LockFlags::default());
                rig.pages[1].fill(0x2000, 8, 0x5a);
                reset(&rig, 1);
                assert_eq!(rig.state(1), after, "{setting:?} in {state}");
                let shown = if after == State::Error { u32::MAX } else { 0 };
                assert_eq!(rig.pages[1].load_u32(0x2000), shown);
                let cause = (after == State::Error).then_some(Breach::FunctionReset);
                let change = TdiChange { requester_id: IDS[1], from: state, to: after, cause };
                let expected = if state == after { vec![] } else { vec![change] };
                assert_eq!(rig.changes(), expected);
            }
        }
    }
}

#[test]
fn a_reset_of_the_physical_function_takes_its_virtual_ones_along() {
    for (setting, after) in
        [(FunctionReset::Unlocks, State::Unlocked), (FunctionReset::Breaches, State::Error)]
    {
        let rig = Rig::with(policy(setting), Ram::new(None));
        for function in 0..3 {
            rig.bring(function, State::Run, LockFlags::default());
        }
        rig.engines[0].reset(Reset::Function);
        assert_eq!([0, 1, 2].map(|function| rig.state(function)), [after; 3], "{setting:?}");
        let rig = Rig::with(policy(setting), Ram::new(None));
        for function in 0..3 {
            rig.bring(function, State::Run, LockFlags::default());
        }
        rig.engines[2].reset(Reset::Function);
        let states = [0, 1, 2].map(|function| rig.state(function));
        assert_eq!(states, [State::Run, State::Run, after], "{setting:?}: no further");
    }
}

#[test]
fn a_bus_reset_unlocks_all_and_loses_the_keys() {
    for setting in [FunctionReset::Unlocks, FunctionReset::Breaches] {
        let rig = Rig::with(policy(setting), Ram::new(None));
        for (function, state) in
            [2, 0, 1].into_iter().zip([State::Error, State::Locked, State::Run])
        {
            rig.bring(function, state, LockFlags::default());
        }
        rig.engines[0].reset(Reset::Bus);
        assert_eq!([0, 1, 2].map(|function| rig.state(function)), [State::Unlocked; 3]);
        assert_eq!(rig.manager.keys(), 0);
        for function in 0..3 {
            rig.set_up(function);
        }
        let refused = Err(ErrorCode::INVALID_REQUEST);
        assert_eq!(rig.lock_with(1, LockFlags::default()), refused);
        rig.give_keys(STREAM);
        assert!(rig.lock_with(1, LockFlags::default()).is_ok());
    }
}

#[test]
fn a_lost_session_breaks_what_was_locked_in_it() {
    let rig = Rig::new();
    rig.bring(0, State::Run, LockFlags::default());
    rig.manager.session_ended(SessionId(99));
    assert_eq!(rig.state(0), State::Run);
    rig.manager.session_ended(SESSION);
    assert_eq!(rig.state(0), State::Error);
    assert!(rig.manager.keys() > 0, "the keys stay");
    rig.stop(0).unwrap();
    assert!(rig.lock_with(0, LockFlags::default()).is_ok());
}

#[test]
fn a_watcher_may_ask_again() {
    let rig = Rig::new();
    let seen = std::sync::Arc::new(sync::Mutex::<sync::rank::Objects, _>::new(Vec::new()));
    let (manager, heard) = (std::sync::Arc::downgrade(&rig.manager), seen.clone());
    rig.manager.watch(std::sync::Arc::new(move |change: TdiChange| {
        let manager = manager.upgrade().unwrap();
        if change.to == State::Error {
            manager.session_ended(SESSION);
        }
        heard.lock().push((change.requester_id, change.to));
    }));
    rig.bring(0, State::Run, LockFlags::default());
    rig.bring(1, State::Run, LockFlags::default());
    seen.lock().clear();
    rig.set_command(0, 0);
    assert_eq!(*seen.lock(), [(IDS[0], State::Error), (IDS[1], State::Error)]);
}
