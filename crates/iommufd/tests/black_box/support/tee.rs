//! A TEE device of one function behind a software TSM, and a clock that runs as the wall's does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex as StdMutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pci::Address;
use sync::{Mutex, Timers, rank};
use tdisp::ide_km::KeyTable;
use tdisp::{Dsm, StandIn};
use tsm::software::{Settings, Tsm};
use tsm::{Entropy, FunctionFacts, Links, Registry, Reply, Transport, Untold};

/// How long a device may take over a call, in milliseconds.
pub(crate) const TIMEOUT_MS: u64 = 40;

/// A registry with a software TSM, to which the device is connected.
pub(crate) struct Tee {
    pub(crate) registry: Arc<Registry>,
    pub(crate) device: Arc<TeeDevice>,
    pub(crate) function: Address,
    _clock: Clock,
}

impl Tee {
    pub(crate) fn connected(function: Address) -> Self {
        let tee = Self::new(function);
        tee.registry.connect(function, b"tsm0").unwrap();
        tee
    }

    pub(crate) fn new(function: Address) -> Self {
        let clock = Clock::running();
        let device = TeeDevice::new(function);
        let facts = FunctionFacts {
            address: function,
            requester_id: function.requester_id(),
            physical_function: None,
            endpoint: true,
            tee_io: true,
            ide: true,
            secure_mailbox: true,
        };
        let settings = tsm::Settings { exchange_timeout_ms: TIMEOUT_MS };
        let registry = Registry::new(vec![facts], clock.timers.clone(), settings, Arc::new(Untold));
        let wire = Arc::new(Wire(Arc::clone(&device)));
        registry.register(Tsm::new(wire, Arc::new(Drawn(AtomicU64::new(0))), Settings::default()));
        Self { registry, device, function, _clock: clock }
    }

    /// Fails unless every bind that reached the backend was followed by one unbind.
    pub(crate) fn assert_settled(&self) {
        let counters = self.registry.counters();
        assert_eq!(counters.binds, counters.unbinds, "{counters:?}");
        assert!(!self.registry.binding(self.function).is_bound());
    }
}

/// How a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    AtOnce,
    /// So many milliseconds later.
    After(u64),
    /// Not at all.
    Never,
}

/// A device with a security manager.
pub(crate) struct TeeDevice {
    /// Outermost of all ranks: taking it under any other lock fails.
    alone: Mutex<rank::DeviceSet, ()>,
    inner: StdMutex<Inner>,
}

struct Inner {
    dsm: Dsm<1>,
    keys: KeyTable<2>,
    hardware: StandIn,
    answers: Answers,
    asked: usize,
}

impl TeeDevice {
    fn new(function: Address) -> Arc<Self> {
        let mut dsm = Dsm::new(tdisp::Settings::default());
        dsm.add(function.requester_id()).unwrap();
        let (keys, hardware) = (KeyTable::new(), StandIn::default());
        let inner = Inner { dsm, keys, hardware, answers: Answers::AtOnce, asked: 0 };
        Arc::new(Self { alone: Mutex::new(()), inner: StdMutex::new(inner) })
    }

    pub(crate) fn answers(&self, answers: Answers) {
        self.inner.lock().unwrap().answers = answers;
    }

    /// How often it was asked something.
    pub(crate) fn asked(&self) -> usize {
        self.inner.lock().unwrap().asked
    }

    /// Returns once it was asked more often than `before`.
    pub(crate) fn wait_asked(&self, before: usize) {
        while self.asked() == before {
            thread::yield_now();
        }
    }
}

impl Transport for TeeDevice {
    fn submit(&self, request: &[u8], reply: Reply) -> Option<Vec<u8>> {
        drop(self.alone.lock());
        let (answer, how) = {
            let mut inner = self.inner.lock().unwrap();
            inner.asked += 1;
            let how = inner.answers;
            ((how != Answers::Never).then(|| inner.answer(request)), how)
        };
        match how {
            Answers::AtOnce => return answer,
            Answers::After(ms) => reply.deliver_after(answer?, ms),
            Answers::Never => {}
        }
        None
    }

    fn abort(&self) {
        drop(self.alone.lock());
    }
}

impl Inner {
    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let mut answer = vec![0; 256];
        let Self { dsm, keys, hardware, .. } = self;
        let length = hardware.respond(dsm, keys, request, &mut answer).unwrap();
        answer.truncate(length);
        answer
    }
}

struct Wire(Arc<TeeDevice>);

impl Links for Wire {
    fn transport(&self, _: Address) -> Option<Arc<dyn Transport>> {
        Some(Arc::clone(&self.0) as Arc<dyn Transport>)
    }
}

struct Drawn(AtomicU64);

impl Entropy for Drawn {
    fn fill(&self, into: &mut [u8]) {
        for byte in into {
            *byte = self.0.fetch_add(1, SeqCst).to_le_bytes()[0];
        }
    }
}

/// Fires deadlines by the wall's clock.
struct Clock {
    timers: Timers,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    fn running() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        let handed = Arc::new(StdMutex::new(None::<thread::Thread>));
        let sleeper = Arc::clone(&handed);
        let timers = Timers::new(move || {
            if let Some(thread) = &*sleeper.lock().unwrap() {
                thread.unpark();
            }
        });
        let fires = timers.clone();
        let thread = thread::spawn(move || {
            let start = Instant::now();
            while !stop.load(SeqCst) {
                let now = u64::try_from(start.elapsed().as_millis()).unwrap();
                match fires.next_due() {
                    Some(due) if due <= now => fires.fire_due(now),
                    Some(due) => thread::park_timeout(Duration::from_millis(due - now)),
                    None => thread::park(),
                }
            }
        });
        *handed.lock().unwrap() = Some(thread.thread().clone());
        Self { timers, ended, thread: Some(thread) }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}
