//! A device with TEE interfaces: its functions, and the security manager that speaks for all of them.
//!
//! Two locks, never together: `FUNCTION` of each function, for what its DMA and its driver share, and
//! `DEVICE_SECURITY` of the device. Config space is touched by whoever has the device's turn in VFIO, and by
//! nobody else, so it has no place in the order.

#![expect(clippy::disallowed_types, reason = "what only the owner of the device's turn touches")]

use std::hash::Hasher;
use std::sync::{Arc, Mutex as Plain, PoisonError};

use mem::Pages;
use pci::capability::{ExpressEndpoint, express_endpoint, power_management};
use pci::regs::{command, header};
use pci::{
    Address, Bar, ConfigBuilder, ConfigSpace, Function, HostSide, Identity, Progress, Reset,
};
use sync::{Contents, Guard, Life, Mutex, Named, WaitQueue, rank};
use tdisp::ide_km::KeyTable;
use tdisp::{Breach, Dsm, FunctionReset, StandIn, State};
use tsm::{Entropy, FunctionFacts, Links, Reply, Transport};

/// Functions that the device has: a physical one and two virtual ones.
pub(super) const FUNCTIONS: usize = 3;

/// Where function `number` sits.
pub(super) fn address(number: usize) -> Address {
    let function = u8::try_from(number).unwrap_or(u8::MAX);
    Address::new(0xb1d0, 1, 0, function).expect("a device has eight functions at most")
}

/// The security manager of the device.
pub(super) struct Card(Mutex<rank::DeviceSecurity, Security>);

struct Security {
    dsm: Dsm<FUNCTIONS>,
    keys: KeyTable<2>,
    hardware: StandIn,
    breaches: usize,
}

impl Contents for Security {
    /// Nonces and reports are the same each time, and a session is all there is.
    fn contents(&self, into: &mut dyn Hasher) {
        for (function, tdi) in self.dsm.tdis() {
            into.write_u16(function);
            into.write_u8(tdi.state() as u8);
        }
        into.write_usize(self.keys.keys());
        into.write_usize(self.breaches);
    }
}

impl Card {
    pub(super) fn new(function_reset: FunctionReset) -> Arc<Self> {
        let settings = tdisp::Settings { function_reset, ..tdisp::Settings::default() };
        let mut dsm = Dsm::new(settings);
        for number in 0..FUNCTIONS {
            dsm.add(address(number).requester_id()).expect("there is room for each");
        }
        let (keys, hardware) = (KeyTable::new(), StandIn::default());
        let security = Security { dsm, keys, hardware, breaches: 0 };
        Arc::new(Self(Mutex::with_contents(security).named("security", || "card".to_owned())))
    }

    /// The state of a function's interface.
    pub(super) fn state(&self, number: usize) -> State {
        let security = self.0.lock();
        let tdi = security.dsm.tdi(address(number).requester_id());
        tdi.map_or(State::Unlocked, tdisp::Tdi::state)
    }

    /// How often something broke what LOCK had fixed.
    pub(super) fn breaches(&self) -> usize {
        self.0.lock().breaches
    }

    fn breach(&self, requester_id: u16, breach: Breach) {
        let mut security = self.0.lock();
        if security.dsm.breach(requester_id, breach).is_some() {
            security.breaches += 1;
        }
    }

    fn reset(&self, requester_id: u16) {
        let mut security = self.0.lock();
        if security.dsm.reset_function(requester_id).is_some_and(|now| now.to == State::Error) {
            security.breaches += 1;
        }
    }
}

impl Transport for Card {
    /// Answers at once: what is slow or silent is a fault of the TSM's.
    fn submit(&self, request: &[u8], _: Reply) -> Option<Vec<u8>> {
        let mut answer = vec![0; ANSWER_BYTES];
        let mut security = self.0.lock();
        let Security { dsm, keys, hardware, .. } = &mut *security;
        let length = hardware.respond(dsm, keys, request, &mut answer).ok()?;
        answer.truncate(length);
        Some(answer)
    }

    /// Nothing is outstanding.
    fn abort(&self) {}
}

/// Longest answer, in bytes.
const ANSWER_BYTES: usize = 1024;

/// The way from the TSM to the security manager.
pub(super) struct Wire(pub(super) Arc<Card>);

impl Links for Wire {
    fn transport(&self, _: Address) -> Option<Arc<dyn Transport>> {
        Some(Arc::clone(&self.0) as Arc<dyn Transport>)
    }
}

/// The same bytes each time.
pub(super) struct Nines;

impl Entropy for Nines {
    fn fill(&self, into: &mut [u8]) {
        into.fill(9);
    }
}

/// What the TSM is told of function `number`.
pub(super) fn facts(number: usize) -> FunctionFacts {
    let is_physical = number == 0;
    FunctionFacts {
        address: address(number),
        requester_id: address(number).requester_id(),
        physical_function: (!is_physical).then(|| address(0)),
        endpoint: true,
        tee_io: true,
        ide: is_physical,
        secure_mailbox: is_physical,
    }
}

/// A function without BARs, which reads memory when it is told to.
pub(super) struct Engine {
    number: usize,
    card: Arc<Card>,
    config: Plain<ConfigSpace>,
    /// Ends when the close of the device file has returned: nobody resets the function then.
    open: Life,
    traffic: Mutex<rank::Function, Traffic>,
    quiet: WaitQueue,
}

/// What DMA and the driver share.
#[derive(Default)]
struct Traffic {
    host: Option<HostSide>,
    masters: bool,
    stopped: bool,
    in_reset: bool,
    running: u32,
}

impl Contents for Traffic {
    fn contents(&self, into: &mut dyn Hasher) {
        into.write(&[self.host.is_some().into(), self.masters.into(), self.stopped.into()]);
        into.write_u8(self.in_reset.into());
        into.write_u32(self.running);
    }
}

/// DMA that did not take place.
pub(super) struct DmaRefused;

impl Engine {
    pub(super) fn new(number: usize, card: &Arc<Card>) -> Arc<Self> {
        let identity = Identity {
            vendor_id: 0x1234,
            device_id: 0x5678,
            revision: 1,
            class_code: 0x08_80_00,
            subsystem_vendor_id: 0x1234,
            subsystem_id: 0x5678,
            multi_function: false,
        };
        let express =
            ExpressEndpoint { function_level_reset: true, tee_io: true, virtual_function: false };
        let builder = ConfigBuilder::endpoint(&identity);
        let builder = builder.capability(power_management()).capability(express_endpoint(express));
        let name = || format!("function{number}");
        Arc::new(Self {
            number,
            card: Arc::clone(card),
            config: Plain::new(builder.build().expect("two capabilities fit")),
            open: Life::new().named("", name),
            traffic: Mutex::with_contents(Traffic::default()).named("traffic", name),
            quiet: WaitQueue::new().named("quiet", name),
        })
    }

    /// Reads a page at an I/O virtual address.
    pub(super) fn dma(&self, iova: u64) -> Result<(), DmaRefused> {
        if self.card.state(self.number) == State::Error {
            return Err(DmaRefused);
        }
        let dma = {
            let mut traffic = self.traffic.lock();
            let may = traffic.masters && !traffic.stopped;
            let Some(host) = traffic.host.clone().filter(|_| may) else { return Err(DmaRefused) };
            traffic.running += 1;
            host.dma
        };
        let read = dma.read(iova, &mut [0; 16]);
        let mut traffic = self.traffic.lock();
        traffic.running -= 1;
        drop(traffic);
        self.quiet.wake_all();
        read.map_err(|_| DmaRefused)
    }

    /// The close of the device file has returned.
    pub(super) fn close_returned(&self) {
        self.open.end();
    }

    fn config(&self) -> std::sync::MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What DMA and the driver share, for one who has the function's turn.
    fn turn(&self) -> Guard<'_, rank::Function, Traffic> {
        let traffic = self.traffic.lock();
        assert!(!traffic.in_reset, "dev{} is touched while it is reset", self.number);
        traffic
    }

    /// What a change of config space means for DMA and for the interface.
    fn follow(&self, before: u16, after: u16) {
        if (before ^ after) & command::BUS_MASTER != 0 {
            self.turn().masters = after & command::BUS_MASTER != 0;
        }
        let cleared = before & !after;
        let requester_id = address(self.number).requester_id();
        if cleared & command::BUS_MASTER != 0 {
            self.card.breach(requester_id, Breach::BusMasterCleared);
        } else if cleared & command::MEMORY != 0 {
            self.card.breach(requester_id, Breach::MemoryCleared);
        }
    }

    fn drain(&self) {
        let traffic = self.traffic.lock();
        drop(self.quiet.wait_while(traffic, |traffic| traffic.running > 0));
    }
}

impl Function for Engine {
    fn address(&self) -> Address {
        address(self.number)
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.config().read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        let (before, after) = {
            let mut config = self.config();
            let before = config.word(header::COMMAND);
            config.write(offset, from);
            (before, config.word(header::COMMAND))
        };
        self.follow(before, after);
    }

    fn bar(&self, _: usize) -> Option<&Bar> {
        None
    }

    fn bar_read(&self, _: usize, _: u64, _: &mut [u8]) {}

    fn bar_write(&self, _: usize, _: u64, _: &[u8]) {}

    fn back_bar(&self, _: usize, _: Arc<Pages>) {}

    fn connect(&self, host: HostSide) {
        self.traffic.lock().host = Some(host);
    }

    fn disconnect(&self) {
        let before = self.traffic.lock().host.take();
        drop(before);
        self.drain();
    }

    fn stop(&self) {
        self.traffic.lock().stopped = true;
        self.drain();
    }

    fn start(&self) {
        self.traffic.lock().stopped = false;
    }

    fn reset(&self, kind: Reset) {
        self.open.check();
        let mut traffic = self.turn();
        traffic.in_reset = true;
        drop(self.quiet.wait_while(traffic, |traffic| traffic.running > 0));
        let before = {
            let mut config = self.config();
            let before = config.word(header::COMMAND);
            config.reset(kind);
            before
        };
        let mut traffic = self.traffic.lock();
        traffic.in_reset = false;
        if before & command::BUS_MASTER != 0 {
            traffic.masters = false;
        }
        drop(traffic);
        self.card.reset(address(self.number).requester_id());
    }

    fn step(&self, _: usize) -> Progress {
        Progress::Idle
    }

    fn set_waker(&self, _: Arc<dyn Fn() + Send + Sync>) {}
}
