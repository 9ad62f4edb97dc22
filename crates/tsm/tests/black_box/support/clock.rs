//! Time that passes only when it is told to, or leaps to the next deadline whenever one is armed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sync::Timers;

/// A clock in milliseconds, from zero.
pub(crate) struct Clock {
    pub(crate) timers: Timers,
    now_ms: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    armed: Sender<()>,
    rings: Mutex<Option<Receiver<()>>>,
    leaper: Mutex<Option<JoinHandle<()>>>,
}

impl Clock {
    /// A clock that stands until it is [advanced](Self::advance).
    pub(crate) fn standing() -> Arc<Self> {
        let (armed, rings) = channel();
        let ring = Mutex::new(armed.clone());
        let timers = Timers::new(move || {
            // Without a leaper nobody listens.
            let _ = ring.lock().unwrap().send(());
        });
        Arc::new(Self {
            timers,
            now_ms: Arc::default(),
            ended: Arc::default(),
            armed,
            rings: Mutex::new(Some(rings)),
            leaper: Mutex::new(None),
        })
    }

    /// A clock that leaps to each deadline as soon as it is armed.
    pub(crate) fn leaping() -> Arc<Self> {
        let clock = Self::standing();
        clock.leap();
        clock
    }

    /// From now on it leaps.
    pub(crate) fn leap(&self) {
        let rings = self.rings.lock().unwrap().take().unwrap();
        let (timers, now_ms) = (self.timers.clone(), Arc::clone(&self.now_ms));
        let ended = Arc::clone(&self.ended);
        let leaper = thread::spawn(move || {
            while !ended.load(SeqCst) {
                while let Some(due_ms) = timers.next_due() {
                    if due_ms != 0 && changes(&timers, BEFORE_LEAP) {
                        continue;
                    }
                    let before = now_ms.fetch_max(due_ms, SeqCst);
                    timers.fire_due(before.max(due_ms));
                    if due_ms != 0 {
                        changes(&timers, AFTER_LEAP);
                    }
                }
                if rings.recv().is_err() {
                    return;
                }
            }
        });
        *self.leaper.lock().unwrap() = Some(leaper);
    }

    /// Lets `ms` milliseconds pass on a clock that stands.
    pub(crate) fn advance(&self, ms: u64) {
        self.timers.fire_due(self.now_ms());
        let now_ms = self.now_ms.fetch_add(ms, SeqCst) + ms;
        self.timers.fire_due(now_ms);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(SeqCst)
    }
}

/// Whoever would disarm a deadline does so first.
const BEFORE_LEAP: Duration = Duration::from_millis(1);
/// Whoever was woken goes on first: then it disarms what it waited with.
const AFTER_LEAP: Duration = Duration::from_millis(20);

/// Whether the next deadline becomes another one within `real`.
fn changes(timers: &Timers, real: Duration) -> bool {
    let (start, before) = (Instant::now(), timers.next_due());
    while before.is_some() && start.elapsed() < real {
        if timers.next_due() != before {
            return true;
        }
        thread::sleep(Duration::from_micros(50));
    }
    false
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        let _ = self.armed.send(());
        if let Some(leaper) = self.leaper.lock().unwrap().take() {
            leaper.join().unwrap();
        }
    }
}
