//! Three TEE functions of one device, one of another, and one that is no TEE device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as StdMutex};
use std::thread;

use pci::Address;
use sync::Mutex;
use tsm::software::{Dialect, Settings, Tsm};
use tsm::{
    Arch, Binding, Cancel, Entropy, FunctionFacts, GuestRequest, GuestResponse, Links, Memory,
    Notice, Notices, Op, Refusal, Registry, Transport, Unreachable, VmId,
};

use super::{Clock, Device, Outermost};

pub(crate) const PF: Address = address(1, 0);
pub(crate) const VF1: Address = address(1, 1);
pub(crate) const VF2: Address = address(1, 2);
pub(crate) const ORDINARY: Address = address(2, 0);
/// Another TEE device.
pub(crate) const OTHER: Address = address(3, 0);
pub(crate) const VM: VmId = VmId(7);
pub(crate) const TIMEOUT_MS: u64 = 1000;

/// A registry with a software TSM as tsm0, and its devices.
pub(crate) struct Machine {
    pub(crate) registry: Arc<Registry>,
    pub(crate) device: Arc<Device>,
    pub(crate) other: Arc<Device>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) heard: Arc<Heard>,
}

/// What people were told.
#[derive(Default)]
pub(crate) struct Heard {
    alone: Mutex<Outermost, ()>,
    notices: StdMutex<Vec<(Address, Notice)>>,
}

/// A client whose memory cannot be read.
pub(crate) struct NoMemory;

struct Wires(BTreeMap<Address, Arc<Device>>);

/// Random bytes that can be told from each other.
#[derive(Default)]
pub(crate) struct Counting(StdMutex<u8>);

impl Machine {
    pub(crate) fn new(clock: &Arc<Clock>) -> Self {
        Self::of(clock, Dialect::Any)
    }

    pub(crate) fn of(clock: &Arc<Clock>, dialect: Dialect) -> Self {
        Self::with(clock, |device, other| {
            let wires = [(PF, Arc::clone(device)), (OTHER, Arc::clone(other))];
            Tsm::new(
                Arc::new(Wires(wires.into_iter().collect())),
                Arc::new(Counting::default()),
                Settings { dialect, ..Settings::default() },
            )
        })
    }

    /// A machine whose TSM is made for its devices.
    pub(crate) fn with(
        clock: &Arc<Clock>,
        tsm: impl FnOnce(&Arc<Device>, &Arc<Device>) -> Arc<Tsm>,
    ) -> Self {
        let rids = [PF, VF1, VF2].map(Address::requester_id);
        let (device, other) = (Device::new(&rids), Device::new(&[OTHER.requester_id()]));
        let functions = vec![
            tee(PF, None),
            tee(VF1, Some(PF)),
            tee(VF2, Some(PF)),
            ordinary(),
            tee(OTHER, None),
        ];
        let heard = Arc::new(Heard::default());
        let told = Arc::clone(&heard) as Arc<dyn Notices>;
        let registry = Registry::new(functions, clock.timers.clone(), settings(), told);
        assert_eq!(registry.register(tsm(&device, &other)), 0);
        Self { registry, device, other, clock: Arc::clone(clock), heard }
    }

    /// A machine whose first device is connected.
    pub(crate) fn connected(clock: &Arc<Clock>) -> Self {
        let machine = Self::new(clock);
        machine.connect();
        machine
    }

    pub(crate) fn connect(&self) {
        self.registry.connect(PF, b"tsm0\n").unwrap();
        self.device.take_log();
    }

    pub(crate) fn bind(&self, function: Address) -> Result<(), Refusal> {
        self.registry.bind(function, VM, 0x10, &Cancel::new())
    }

    /// Binds in a thread of its own.
    pub(crate) fn spawn_bind(
        &self,
        function: Address,
        cancel: &Cancel,
    ) -> thread::JoinHandle<Result<(), Refusal>> {
        let (registry, cancel) = (Arc::clone(&self.registry), cancel.clone());
        thread::spawn(move || registry.bind(function, VM, 0x10, &cancel))
    }

    pub(crate) fn ask(
        &self,
        function: Address,
        op: Op,
        request: &[u8],
        response_room: u32,
    ) -> Result<GuestResponse, Refusal> {
        let request = GuestRequest { arch: Arch::Cca, op, request, response_room };
        self.registry.request(function, &request, &NoMemory, &Cancel::new())
    }

    pub(crate) fn set_state(&self, function: Address, state: u32) -> Result<(), Refusal> {
        self.ask(function, Op::SetTdiState, &state.to_le_bytes(), 0).map(drop)
    }

    pub(crate) fn fault(&self, function: Address, text: &str) {
        self.registry.set_fault(function, text.parse().unwrap());
    }

    pub(crate) fn binding(&self, function: Address) -> Binding {
        self.registry.binding(function)
    }

    /// Virtual milliseconds that `call` takes, on a clock that leaps.
    pub(crate) fn timed<T>(&self, call: impl FnOnce() -> T) -> (T, u64) {
        let before = self.clock.now_ms();
        let result = call();
        (result, self.clock.now_ms() - before)
    }

    /// Waits until an exchange of this name runs on the device with this address.
    pub(crate) fn wait_running(&self, dsm: Address, operation: &str) {
        wait_until(|| {
            let ledger = self.registry.ledger();
            let line = ledger.iter().find(|line| line.dsm == dsm);
            line.and_then(|line| line.running).is_some_and(|(name, _)| name == operation)
        });
    }

    /// Waits until so many calls wait for the slot.
    pub(crate) fn wait_waiting(&self, dsm: Address, count: usize) {
        wait_until(|| {
            let ledger = self.registry.ledger();
            ledger.iter().any(|line| line.dsm == dsm && line.waiting == count)
        });
    }

    /// Nothing is bound, and every bind was followed by one unbind.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let counters = self.registry.counters();
        assert_eq!(counters.binds, counters.unbinds, "{counters:?}");
        for line in self.registry.ledger() {
            assert_eq!((line.waiting, line.running), (0, None));
            for tdi in line.tdis {
                assert!(!tdi.host.is_bound(), "{tdi:?}");
                assert_eq!((tdi.vm, tdi.guest_id, tdi.mappings), (None, None, 0));
                assert_eq!(tdi.objects, []);
            }
        }
    }
}

impl Heard {
    pub(crate) fn take(&self) -> Vec<(Address, Notice)> {
        std::mem::take(&mut self.notices.lock().unwrap())
    }

    /// What was told, as people read it.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.take().iter().map(|(function, notice)| format!("{function} {notice}")).collect()
    }
}

impl Notices for Heard {
    fn tsm(&self, function: Address, notice: &Notice) {
        drop(self.alone.lock());
        self.notices.lock().unwrap().push((function, *notice));
    }
}

impl Memory for NoMemory {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Unreachable> {
        Err(Unreachable)
    }
}

impl Links for Wires {
    fn transport(&self, function: Address) -> Option<Arc<dyn Transport>> {
        self.0.get(&function).map(|device| Arc::clone(device) as Arc<dyn Transport>)
    }
}

impl Entropy for Counting {
    fn fill(&self, into: &mut [u8]) {
        let mut next = self.0.lock().unwrap();
        *next = next.wrapping_add(1);
        into.fill(*next);
    }
}

/// Yields until `done`.
#[track_caller]
pub(crate) fn wait_until(done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 20, "it never came");
        thread::yield_now();
    }
}

pub(crate) fn settings() -> tsm::Settings {
    tsm::Settings { exchange_timeout_ms: TIMEOUT_MS }
}

const fn address(bus: u8, function: u8) -> Address {
    match Address::new(0xb1d0, bus, 0, function) {
        Some(address) => address,
        None => panic!("no such function"),
    }
}

fn tee(address: Address, physical_function: Option<Address>) -> FunctionFacts {
    FunctionFacts {
        address,
        requester_id: address.requester_id(),
        physical_function,
        endpoint: true,
        tee_io: physical_function.is_none(),
        ide: physical_function.is_none(),
        secure_mailbox: physical_function.is_none(),
    }
}

fn ordinary() -> FunctionFacts {
    FunctionFacts { tee_io: false, ide: false, secure_mailbox: false, ..tee(ORDINARY, None) }
}
