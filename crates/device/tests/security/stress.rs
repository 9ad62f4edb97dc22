//! TSM, clients, workers and hosts all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bindery_device as device;

use device::dma_engine::regs::{flag, operation};
use device::security::Interface;
use pci::regs::{command, sriov};
use pci::{Function, HostSide, Reset};
use tdisp::{LockFlags, SessionId, State};

use crate::rig::{Deaf, IDS, Job, RAM, Ram, Rig, STREAM};

const ROUNDS: usize = 150;
const LONG: Job = Job {
    operation: operation::COPY,
    flags: flag::TRUSTED,
    length: 0x4_0000,
    source: RAM,
    destination: RAM + 0x4_0000,
};

/// Each function is brought to RUN and broken again and again while it works and while the rest of the
/// device is in turmoil. No trusted access follows a breach, and what watchers hear hangs together.
#[test]
fn no_trusted_access_follows_a_breach() {
    let rig = Rig::new();
    let rams = [(); 3].map(|()| Ram::new(None));
    for (engine, ram) in rig.engines.iter().zip(&rams) {
        engine.connect(HostSide { dma: ram.clone(), interrupts: Arc::new(Deaf) });
    }
    let quit = AtomicBool::new(false);
    let ran = thread::scope(|scope| {
        for function in 0..3 {
            let (rig, quit) = (&rig, &quit);
            scope.spawn(move || {
                while !quit.load(Ordering::SeqCst) {
                    rig.engines[function].step(1 << 16);
                    thread::yield_now();
                }
            });
        }
        scope.spawn(|| disturb(&rig, &quit));
        let owners: Vec<_> = (0..3)
            .map(|function| {
                let (rig, ram) = (&rig, &rams[function]);
                scope.spawn(move || own(rig, function, ram))
            })
            .collect();
        let ran: Vec<_> = owners.into_iter().map(thread::ScopedJoinHandle::join).collect();
        quit.store(true, Ordering::SeqCst);
        ran
    });
    let ran: Vec<usize> = ran.into_iter().map(|ran| ran.expect("what the owner met")).collect();
    assert!(ran.iter().all(|ran| *ran > 0), "{ran:?}");
    check_changes(&rig);
}

/// Returns how often the function was in RUN.
fn own(rig: &Rig, function: usize, ram: &Ram) -> usize {
    let mut ran = 0;
    for round in 0..ROUNDS {
        // Where keys are lost meanwhile LOCK is refused.
        rig.try_give_keys(STREAM);
        rig.set_up(function);
        let Ok(nonce) = rig.lock_with(function, LockFlags::LOCK_MSIX) else {
            rig.stop(function).unwrap();
            continue;
        };
        if rig.start(function, nonce).is_ok() {
            ran += 1;
            rig.submit(function, LONG);
        }
        if round % 3 == 0 {
            thread::yield_now();
        }
        match round % 4 {
            0 => rig.set_command(function, 0),
            1 => rig.set_msix_control(function, 1 << 14),
            2 => rig.engines[function].reset(Reset::Function),
            _ => rig.stop(function).unwrap(),
        }
        assert!(rig.engines[function].state() != State::Run, "{round}");
        ram.accesses();
        thread::yield_now();
        assert_eq!(ram.accesses(), [], "round {round} of {function}");
        rig.stop(function).unwrap();
        rig.set_msix_control(function, 0);
        assert_eq!(rig.manager.state(IDS[function]), Some(State::Unlocked));
    }
    ran
}

/// Asks, ends sessions, loses keys and takes virtual functions away.
fn disturb(rig: &Rig, quit: &AtomicBool) {
    for round in 0u32.. {
        if quit.load(Ordering::SeqCst) {
            return;
        }
        match round % 64 {
            0 => rig.manager.lose_keys(),
            16 => rig.set_sriov(sriov::VF_ENABLE),
            17 => rig.enable_vfs(),
            32 => rig.set_command(0, command::BUS_MASTER),
            33 => rig.set_command(0, command::BUS_MASTER | command::MEMORY),
            _ => rig.manager.session_ended(SessionId(round | 0x100)),
        }
        thread::yield_now();
    }
}

/// Each function's changes begin where the last ended.
fn check_changes(rig: &Rig) {
    let changes = rig.changes();
    for (function, &id) in IDS.iter().enumerate() {
        let mut state = State::Unlocked;
        for change in changes.iter().filter(|change| change.requester_id == id) {
            assert_eq!(change.from, state, "{change:?}");
            assert_eq!(change.cause.is_some(), change.to == State::Error, "{change:?}");
            state = change.to;
        }
        assert_eq!(rig.state(function), state);
    }
    assert!(changes.len() > ROUNDS);
}
