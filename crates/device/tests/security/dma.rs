//! What DMA a function does in which state, and what becomes of work that runs when the state changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use bindery_device as device;

use device::dma_engine::regs::{
    CAPABILITY_TRUSTED, bar0, flag, operation, reason, register, status_state,
};
use device::dma_engine::{Config, DmaEngine};
use device::security::{Interface, Settings};
use pci::regs::command;
use pci::{DmaAccess, DmaFaultReason, Function, HostSide};
use sync::{Mutex, rank};
use tdisp::{LockFlags, State};

use crate::rig::{Access, Deaf, IDS, Job, RAM, Ram, Rig};

const OPERATIONS: [u32; 4] = [operation::COPY, operation::FILL, operation::READ, operation::WRITE];

fn job(operation: u32, flags: u32) -> Job {
    Job { operation, flags, length: 64, source: RAM, destination: RAM + 0x1000 }
}

#[test]
fn trusted_dma_is_done_in_run_only() {
    for state in State::ALL {
        for operation in OPERATIONS.into_iter().chain([operation::NOP]) {
            let rig = Rig::new();
            rig.bring(1, state, LockFlags::default());
            rig.submit(1, job(operation, flag::TRUSTED));
            rig.run(1);
            let accesses = rig.ram.accesses();
            match state {
                State::Run => {
                    assert_eq!(rig.status(1), (status_state::DONE, reason::NONE));
                    assert!(accesses.iter().all(|access| access.trusted));
                    assert_eq!(accesses.is_empty(), operation == operation::NOP);
                    assert_eq!(rig.ram.refused(), []);
                }
                State::Unlocked | State::Locked => {
                    let refused = (status_state::FAULT, reason::TDI_NOT_IN_RUN);
                    assert_eq!(rig.status(1), refused, "{operation} in {state}");
                    assert_eq!(accesses, []);
                    assert_eq!(rig.ram.refused(), [DmaFaultReason::TdiNotInRun]);
                }
                State::Error => assert_eq!(accesses, []),
            }
        }
    }
}

#[test]
fn other_dma_is_done_in_every_state_but_error() {
    for state in State::ALL {
        for operation in OPERATIONS {
            let rig = Rig::new();
            rig.bring(1, state, LockFlags::default());
            rig.submit(1, job(operation, 0));
            rig.run(1);
            let accesses = rig.ram.accesses();
            assert!(accesses.iter().all(|access| !access.trusted));
            assert_eq!(accesses.is_empty(), state == State::Error, "{operation} in {state}");
        }
    }
}

#[test]
fn an_engine_without_tee_knows_no_trusted_descriptor() {
    let mut rig = Rig::new();
    assert_ne!(rig.read(1, register::CAPABILITIES) & CAPABILITY_TRUSTED, 0);
    let plain = DmaEngine::new(&Config::new("b1d0:02:00.0".parse().unwrap()));
    plain.back_bar(bar0::INDEX, rig.pages[1].clone());
    plain.connect(HostSide { dma: rig.ram.clone(), interrupts: Arc::new(Deaf) });
    rig.engines[1] = plain;
    rig.set_up(1);
    assert_eq!(rig.read(1, register::CAPABILITIES) & CAPABILITY_TRUSTED, 0);
    rig.submit(1, job(operation::FILL, flag::TRUSTED));
    rig.run(1);
    assert_eq!(rig.status(1), (status_state::INVALID, reason::RESERVED));
    assert_eq!(rig.ram.accesses(), []);
}

#[test]
fn stop_leaves_nothing_of_the_guest() {
    let rig = Rig::new();
    rig.bring(1, State::Run, LockFlags::default());
    rig.write(1, register::SCRATCH, 0x5ec2e7);
    rig.ram.put(RAM, &[0x5a; 64]);
    rig.submit(1, job(operation::READ, flag::TRUSTED));
    rig.run(1);
    let mut window = [0; 64];
    let mapped = usize::try_from(bar0::WINDOW).unwrap();
    rig.pages[1].read(mapped, &mut window);
    assert_eq!(window, [0x5a; 64]);
    rig.stop(1).unwrap();
    let mut all = vec![1; rig.pages[1].len() - 0x1000];
    rig.pages[1].read(0x1000, &mut all);
    assert!(all.iter().all(|byte| *byte == 0));
    assert_eq!(rig.read(1, register::SCRATCH), 0);
    assert_eq!(rig.read(1, register::COMPLETED), 0);
    // A stop of what is unlocked leaves the host's work alone.
    rig.write(1, register::SCRATCH, 9);
    rig.stop(1).unwrap();
    assert_eq!(rig.read(1, register::SCRATCH), 9);
}

/// Memory whose first access waits.
struct Held {
    ram: Arc<Ram>,
    begun: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
    /// The first access is over.
    over: Arc<AtomicBool>,
}

fn held() -> Held {
    let (tell, begun) = mpsc::channel();
    let (release, wait) = mpsc::channel();
    let first = Mutex::<rank::Objects, _>::new(Some((tell, wait)));
    let over = Arc::new(AtomicBool::new(false));
    let told = over.clone();
    let hook = move |_: Access| {
        let taken = first.lock().take();
        if let Some((tell, wait)) = taken {
            tell.send(()).unwrap();
            wait.recv().unwrap();
            told.store(true, Ordering::SeqCst);
        }
    };
    Held { ram: Ram::new(Some(Box::new(hook))), begun, release, over }
}

const LONG: Job = Job {
    operation: operation::COPY,
    flags: flag::TRUSTED,
    length: 0x4_0000,
    source: RAM,
    destination: RAM + 0x4_0000,
};

#[test]
fn a_breach_ends_work_that_runs() {
    let Held { ram, begun, release, over } = held();
    let rig = Rig::with(Settings::default(), ram);
    rig.bring(0, State::Run, LockFlags::default());
    rig.submit(0, LONG);
    thread::scope(|scope| {
        scope.spawn(|| rig.run(0));
        begun.recv().unwrap();
        let breaker = scope.spawn(|| {
            rig.set_command(0, command::MEMORY);
            assert!(over.load(Ordering::SeqCst), "returns when no DMA runs");
        });
        // The gate closes at once, while the access still runs.
        while rig.manager.state(IDS[0]) != Some(State::Error) {
            thread::yield_now();
        }
        assert!(!over.load(Ordering::SeqCst));
        release.send(()).unwrap();
        breaker.join().unwrap();
        let only = Access { access: DmaAccess::Read, trusted: true };
        assert_eq!(rig.ram.accesses(), [only], "the write of the same step is left out");
        assert_eq!(rig.ram.refused(), [DmaFaultReason::TdiInError]);
        assert_eq!(rig.status(0), (u32::MAX, u32::MAX));
    });
    assert_eq!(rig.state(0), State::Error);
    assert_eq!(rig.ram.accesses(), []);
    rig.stop(0).unwrap();
    rig.set_up(0);
    rig.bring(0, State::Run, LockFlags::default());
    rig.submit(0, LONG);
    rig.run(0);
    assert_eq!(rig.status(0), (status_state::DONE, reason::NONE));
}

#[test]
fn stop_waits_for_work_that_runs() {
    let Held { ram, begun, release, over } = held();
    let rig = Rig::with(Settings::default(), ram);
    rig.bring(0, State::Run, LockFlags::default());
    rig.bring(1, State::Run, LockFlags::default());
    rig.submit(0, LONG);
    thread::scope(|scope| {
        scope.spawn(|| rig.run(0));
        begun.recv().unwrap();
        let stopper = scope.spawn(|| {
            rig.stop(0).unwrap();
            assert!(over.load(Ordering::SeqCst));
            assert_eq!(rig.status(0), (0, 0));
            rig.ram.accesses();
        });
        for _ in 0..1000 {
            thread::yield_now();
        }
        // Nobody else is held up: another function breaks, and its state is known.
        rig.set_command(1, 0);
        assert_eq!(rig.engines[1].state(), State::Error);
        release.send(()).unwrap();
        stopper.join().unwrap();
    });
    assert_eq!(rig.ram.accesses(), []);
    assert_eq!((rig.state(0), rig.state(1)), (State::Unlocked, State::Error));
}
