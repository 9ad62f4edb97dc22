//! Stops, aborts and resets while the engine works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use bindery_device as device;

use device::dma_engine::Config;
use device::dma_engine::regs::{bar0, control, flag, operation, register, status_state};
use pci::regs::{cap_id, command, express, header};
use pci::{Function, Progress, Reset};

use crate::client::{ADDRESS, Bench, Heard, RAM, Ram, Request, Status};

const LONG: Request = Request {
    operation: operation::COPY,
    flags: flag::INTERRUPT,
    vector: 1,
    length: 0x4_0000,
    source: RAM,
    destination: RAM + 0x4_0000,
    pattern: 0,
    window: 0,
    reserved: 0,
    cookie: 0,
};

#[test]
fn stopped_it_pauses_and_goes_on() {
    let bench = Bench::new();
    bench.submit(0, LONG);
    bench.engine.step(64 << 10);
    bench.engine.stop();
    assert_eq!(bench.engine.step(1 << 20), Progress::Idle);
    assert_eq!(bench.status(0).bytes_done, 0x1_0000);
    bench.engine.start();
    bench.run();
    assert_eq!(bench.status(0).state, status_state::DONE);
}

#[test]
fn abort_ends_what_is_queued() {
    let bench = Bench::new();
    bench.enable_msix(0..16);
    bench.submit(0, LONG);
    bench.submit(1, Request { vector: 2, ..LONG });
    bench.engine.step(64 << 10);
    bench.write(register::CONTROL, control::ENABLE | control::ABORT);
    assert_eq!(bench.read(register::CONTROL), control::ENABLE);
    assert_eq!(bench.read(register::STATE), 0);
    let aborted = Status { state: status_state::ABORTED, ..Status::default() };
    assert_eq!(bench.status(0), Status { bytes_done: 0x1_0000, ..aborted });
    assert_eq!(bench.status(1), aborted);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(1), Heard::Msix(2)]);
    bench.submit(1, Request { length: 8, ..LONG });
    bench.run();
    assert_eq!(bench.status(1).state, status_state::DONE);
}

#[test]
fn soft_reset_clears_what_bar_0_shows() {
    let bench = Bench::new();
    bench.enable_msix(0..16);
    bench.write(register::SCRATCH, 5);
    bench.pages.write(usize::try_from(bar0::WINDOW).unwrap(), &[1; 8]);
    bench.submit(0, LONG);
    bench.write(register::CONTROL, control::SOFT_RESET | control::ENABLE);
    assert_eq!(bench.read(register::CONTROL), 0);
    assert_eq!(bench.read(register::SCRATCH), 0);
    assert_eq!(bench.status(0), Status::default());
    let mut window = [9; 8];
    bench.pages.read(usize::try_from(bar0::WINDOW).unwrap(), &mut window);
    assert_eq!(window, [0; 8]);
    bench.run();
    assert_eq!(bench.ears.take(), []);
    bench.write(register::CONTROL, control::ENABLE);
    bench.submit(0, Request { length: 8, ..LONG });
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Msix(1)], "the table was kept");
}

#[test]
fn function_level_reset_resets_the_function() {
    let bench = Bench::new();
    bench.enable_msix(0..16);
    bench.engine.config_write(header::BAR0, &0x4000_0000u32.to_le_bytes());
    bench.submit(0, LONG);
    bench.engine.step(64 << 10);
    let devctl = bench.capability(cap_id::EXPRESS) + express::DEVCTL;
    bench.engine.config_write(devctl, &express::INITIATE_FLR.to_le_bytes());
    assert_eq!(bench.read(register::CONTROL), 0);
    assert_eq!(bench.status(0), Status::default());
    let mut bytes = [9; 4];
    bench.engine.config_read(header::COMMAND, &mut bytes[..2]);
    assert_eq!(bytes[..2], [0, 0]);
    bench.engine.config_read(header::BAR0, &mut bytes);
    assert_eq!(u32::from_le_bytes(bytes), 4, "a 64-bit BAR without an address");
    bench.set_command(command::BUS_MASTER);
    bench.write(register::CONTROL, control::ENABLE);
    bench.enable_msix([]);
    bench.submit(0, Request { length: 8, ..LONG });
    bench.run();
    assert_eq!(bench.status(0).state, status_state::DONE);
    assert_eq!(bench.ears.take(), [], "all vectors are masked again");
}

#[test]
fn a_reset_lowers_the_pin() {
    let bench = Bench::new();
    bench.submit(0, Request { operation: operation::NOP, length: 0, ..LONG });
    bench.run();
    bench.engine.reset(Reset::Bus);
    bench.run();
    assert_eq!(bench.ears.take(), [Heard::Pin(true), Heard::Pin(false)]);
}

#[test]
fn there_is_work_only_when_there_is() {
    let bench = Bench::new();
    let calls = Arc::new(AtomicU64::new(0));
    let counter = calls.clone();
    bench.engine.set_waker(Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    bench.write(register::SCRATCH, 1);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    bench.submit(0, LONG);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    bench.engine.stop();
    bench.submit(1, LONG);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    bench.engine.start();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

/// An engine whose first access waits until it is let go, working on a thread of its own.
struct Held {
    bench: Arc<Bench>,
    entered: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
    worker: std::thread::JoinHandle<()>,
    quit: Arc<AtomicBool>,
}

impl Held {
    fn new() -> Self {
        let (enter, entered) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let gate = sync::Mutex::<sync::rank::DeviceSet, _>::new(Some((enter, released)));
        let ram = Ram::with_hook(move |_| {
            let first = gate.lock().take();
            if let Some((enter, released)) = first {
                enter.send(()).unwrap();
                released.recv().unwrap();
            }
        });
        let config = Config::new(ADDRESS.parse().unwrap());
        let bench = Arc::new(Bench::with(&config, ram));
        bench.submit(0, LONG);
        let quit = Arc::new(AtomicBool::new(false));
        let worker = {
            let (bench, quit) = (bench.clone(), quit.clone());
            std::thread::spawn(move || {
                while !quit.load(Ordering::Relaxed) {
                    bench.engine.step(1 << 20);
                    std::thread::yield_now();
                }
            })
        };
        Self { bench, entered, release, worker, quit }
    }

    /// Runs `action` on a thread of its own while an access is held up, and sees that it waits.
    fn during_access(self, action: impl FnOnce(&Bench) + Send + 'static) -> Arc<Bench> {
        self.entered.recv().unwrap();
        let (done, is_done) = mpsc::channel();
        let actor = {
            let bench = self.bench.clone();
            std::thread::spawn(move || {
                action(&bench);
                done.send(bench.ram.accesses()).unwrap();
            })
        };
        let early = is_done.recv_timeout(std::time::Duration::from_millis(30));
        assert!(early.is_err(), "returned while an access was running");
        self.release.send(()).unwrap();
        let accesses = is_done.recv().unwrap();
        actor.join().unwrap();
        for _ in 0..100 {
            std::thread::yield_now();
        }
        assert_eq!(self.bench.ram.accesses(), accesses, "an access after it returned");
        self.quit.store(true, Ordering::Relaxed);
        self.worker.join().unwrap();
        self.bench
    }
}

#[test]
fn stop_waits_for_the_step_that_runs() {
    let bench = Held::new().during_access(|bench| bench.engine.stop());
    assert_eq!(bench.status(0).bytes_done, 0x1_0000, "the step counts");
    bench.engine.start();
    bench.run();
    assert_eq!(bench.status(0).state, status_state::DONE);
}

#[test]
fn disconnect_waits_for_the_step_that_runs() {
    Held::new().during_access(|bench| {
        bench.engine.disconnect();
    });
}

#[test]
fn a_reset_waits_and_nothing_of_the_step_is_published() {
    let bench = Held::new().during_access(|bench| {
        let devctl = bench.capability(cap_id::EXPRESS) + express::DEVCTL;
        bench.engine.config_write(devctl, &express::INITIATE_FLR.to_le_bytes());
    });
    assert_eq!(bench.status(0), Status::default());
    assert_eq!(bench.read(register::COMPLETED), 0);
    assert_eq!(bench.ears.take(), []);
}

#[test]
fn an_abort_waits_and_the_step_does_not_count() {
    let bench = Held::new()
        .during_access(|bench| bench.write(register::CONTROL, control::ENABLE | control::ABORT));
    let aborted = Status { state: status_state::ABORTED, ..Status::default() };
    assert_eq!(bench.status(0), aborted);
}
