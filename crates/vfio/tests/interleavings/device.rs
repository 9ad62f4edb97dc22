//! A TEE device: its function, its security manager, and the TSM that speaks to it.

#![expect(clippy::disallowed_types, reason = "what only the owner of a turn or slot touches")]

use std::sync::{Arc, Mutex};

use mem::Pages;
use pci::capability::{ExpressEndpoint, express_endpoint, power_management};
use pci::{
    Address, Bar, ConfigBuilder, ConfigSpace, Function, HostSide, Identity, Progress, Reset,
};
use sync::Timers;
use tdisp::exchange::LockInterface;
use tdisp::ide_km::{KeyTable, Port, PortLocation};
use tdisp::payload::{self, ProtocolId};
use tdisp::report::{self, MemoryBar};
use tdisp::{DeviceRefusal, Dsm, FirstPage, Nonce, REPORT_BYTES_MAX, SessionId, State};
use tsm::software::{Dialect, Settings, Tsm};
use tsm::{Entropy, FunctionFacts, Links, Registry, Reply, Transport, Untold};

/// Where the device sits.
pub(crate) const ADDRESS: Address = match Address::new(0xb1d0, 1, 0, 0) {
    Some(address) => address,
    None => panic!("an address"),
};

/// How a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    AtOnce,
    /// Some time later: before or after the deadline of whoever asked.
    Later,
}

/// A security manager. It is spoken to by the owner of the exchange slot alone, and so is no place where
/// threads meet.
pub(crate) struct Manager(Mutex<Inner>);

struct Inner {
    dsm: Dsm<1>,
    keys: KeyTable<2>,
    answers: Answers,
}

impl Manager {
    fn new() -> Arc<Self> {
        let mut dsm = Dsm::new(tdisp::Settings::default());
        dsm.add(ADDRESS.requester_id()).unwrap();
        let inner = Inner { dsm, keys: KeyTable::new(), answers: Answers::AtOnce };
        Arc::new(Self(Mutex::new(inner)))
    }

    /// How it answers from now on.
    pub(crate) fn answer(&self, answers: Answers) {
        self.0.lock().unwrap().answers = answers;
    }

    /// Its own view of the TDI.
    pub(crate) fn state(&self) -> State {
        self.0.lock().unwrap().dsm.tdi(ADDRESS.requester_id()).unwrap().state()
    }
}

impl Transport for Manager {
    fn submit(&self, request: &[u8], reply: Reply) -> Option<Vec<u8>> {
        let (answer, how) = {
            let mut inner = self.0.lock().unwrap();
            (inner.answer(request), inner.answers)
        };
        match how {
            Answers::AtOnce => return Some(answer),
            Answers::Later => reply.deliver_after(answer, 1),
        }
        None
    }

    fn abort(&self) {}
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

/// A registry of the device, which is connected to a TSM that locks as it binds.
pub(crate) fn connected() -> (Arc<Registry>, Arc<Manager>) {
    let manager = Manager::new();
    let facts = FunctionFacts {
        address: ADDRESS,
        requester_id: ADDRESS.requester_id(),
        physical_function: None,
        endpoint: true,
        tee_io: true,
        ide: true,
        secure_mailbox: true,
    };
    let timers = Timers::new(|| {});
    let registry = Registry::new(vec![facts], timers, tsm::Settings::default(), Arc::new(Untold));
    let settings = Settings { dialect: Dialect::Sev, ..Settings::default() };
    let wire = Arc::new(Wire(Arc::clone(&manager)));
    registry.register(Tsm::new(wire, Arc::new(Nines), settings));
    registry.connect(ADDRESS, b"tsm0").unwrap();
    (registry, manager)
}

struct Wire(Arc<Manager>);

impl Links for Wire {
    fn transport(&self, _: Address) -> Option<Arc<dyn Transport>> {
        Some(Arc::clone(&self.0) as Arc<dyn Transport>)
    }
}

struct Nines;

impl Entropy for Nines {
    fn fill(&self, into: &mut [u8]) {
        into.fill(9);
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
        let function = report::Function { bars: &[bar], ..report::Function::default() };
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

/// A function without BARs. Whoever has the device's turn alone touches it.
pub(crate) struct Bare(Mutex<ConfigSpace>);

impl Bare {
    pub(crate) fn new() -> Arc<Self> {
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
            ExpressEndpoint { function_level_reset: false, tee_io: true, virtual_function: false };
        let builder = ConfigBuilder::endpoint(&identity);
        let builder = builder.capability(power_management()).capability(express_endpoint(express));
        Arc::new(Self(Mutex::new(builder.build().unwrap())))
    }
}

impl Function for Bare {
    fn address(&self) -> Address {
        ADDRESS
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.0.lock().unwrap().read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        self.0.lock().unwrap().write(offset, from);
    }

    fn bar(&self, _: usize) -> Option<&Bar> {
        None
    }

    fn bar_read(&self, _: usize, _: u64, _: &mut [u8]) {}

    fn bar_write(&self, _: usize, _: u64, _: &[u8]) {}

    fn back_bar(&self, _: usize, _: Arc<Pages>) {}

    fn connect(&self, _: HostSide) {}

    fn disconnect(&self) {}

    fn stop(&self) {}

    fn start(&self) {}

    fn reset(&self, _: Reset) {}

    fn step(&self, _: usize) -> Progress {
        Progress::Idle
    }

    fn set_waker(&self, _: Arc<dyn Fn() + Send + Sync>) {}
}
