//! A TEE device of one function behind a software TSM, and a clock that runs as the wall's does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex as StdMutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pci::Address;
use sync::{Mutex, Timers, rank};
use tdisp::exchange::LockInterface;
use tdisp::ide_km::{KeyTable, Port, PortLocation};
use tdisp::payload::{self, ProtocolId};
use tdisp::report::{self, Function, MemoryBar};
use tdisp::{DeviceRefusal, Dsm, FirstPage, Nonce, REPORT_BYTES_MAX, SessionId};
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
    answers: Answers,
    asked: usize,
}

impl TeeDevice {
    fn new(function: Address) -> Arc<Self> {
        let mut dsm = Dsm::new(tdisp::Settings::default());
        dsm.add(function.requester_id()).unwrap();
        let inner = Inner { dsm, keys: KeyTable::new(), answers: Answers::AtOnce, asked: 0 };
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
        let (protocol, message) = payload::split(request).unwrap();
        let mut answer = vec![0; 256];
        let Self { dsm, keys, .. } = self;
        let length = payload::join(protocol, &mut answer, |into| {
            Ok(match protocol {
                ProtocolId::TDISP => {
                    dsm.respond(SessionId(1), message, &mut Hardware, into).unwrap().length
                }
                _ => keys.respond(message, &Hardware, into).unwrap().length,
            })
        });
        answer.truncate(length.unwrap());
        answer
    }
}

struct Hardware;

impl tdisp::Device for Hardware {
    fn nonce(&mut self) -> Option<Nonce> {
        Some(Nonce([9; 32]))
    }

    fn lock(
        &mut self,
        _: u16,
        parameters: &LockInterface,
        report: &mut [u8; REPORT_BYTES_MAX],
    ) -> Result<usize, DeviceRefusal> {
        let bar = MemoryBar {
            number: 0,
            address: 0xfe00_0000,
            length: 0x8000,
            msix_table: None,
            msix_pba: None,
            non_tee: false,
        };
        let function = Function { bars: &[bar], ..Function::default() };
        report::describe(&function, parameters, FirstPage::Address, report)
            .map_err(|_| DeviceRefusal::Misconfigured)
    }

    fn start(&mut self, _: u16) -> Result<(), DeviceRefusal> {
        Ok(())
    }

    fn stop(&mut self, _: u16) {}
}

impl Port for Hardware {
    fn port_max(&self) -> u8 {
        0
    }

    fn location(&self, _: u8) -> PortLocation {
        PortLocation { devfn: 0, bus: 1, segment: 0 }
    }

    fn registers(&self, _: u8) -> &[u8] {
        &[0; 8]
    }

    fn has_stream(&self, _: u8, stream: u8) -> bool {
        stream == 0
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
