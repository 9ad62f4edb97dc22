//! A TSM in software: IDE_KM and TDISP, as bytes over a [`Transport`](crate::Transport), to whatever
//! security manager answers there.
//!
//! [`Tsm`] is the backend. A device is a table of `Interface`s; `keys` sets its stream up,
//! `dialogue` sends one request and judges the answer, `requests` does what guests ask, `evidence`
//! and `mmio` hold what they ask about. Takes no lock: a session is never entered twice at once.
//!
//! # What each dialect does
//!
//! | | `Any`, `Cca` | `Sev`, `Tdx` |
//! |---|---|---|
//! | bind | makes the TDI, does not lock | makes the TDI and locks it |
//! | SET_TDI_STATE | u32: 0 STOP, 1 LOCK, 2 START | `Sev`: u8: 1 START, else STOP; `Tdx`: as CCA |
//! | architectures taken | `Any`: all; else its own | its own |
//!
//! # Policies
//!
//! What public texts do not say is decided here, and named:
//!
//! | policy | what is done |
//! |---|---|
//! | `absent-evidence` | VCA, CERT and MEASUREMENT need an SPDM session; without one: `ENODATA` |
//! | `read-past-end` | an offset at the end reads nothing; one past it: `EINVAL` |
//! | `regen-flags` | bit 0: a nonce of 32 bytes is at the pointer; any other bit: `EINVAL` |
//! | `mmio-payload` | VALIDATE_MMIO has CCA's layout for every architecture |
//! | `mmio-state` | VALIDATE_MMIO is taken in LOCKED and RUN |
//! | `mmio-ranges` | whole pages inside one reported range that is the guest's alone and not of MSI-X |
//! | `sev-dma-payload` | the payload of SEV_ENABLE_DMA and SEV_DISABLE_DMA is not looked at |
//! | `sev-dma-state` | SEV_ENABLE_DMA is taken in RUN |
//! | `scope-info` | u32 state, u32 bytes of the report; the request is not looked at |
//! | `scope-debug` | scopes past STATE_CHANGE: `EINVAL` |
//! | `state-unknown` | after a change without an answer only GET_STATE and an unlock are taken: `EIO` |
//! | `first-page` | [`Settings::first_page`] |
//! | `busy-again` | BUSY is asked again every 10 ms until the exchange's deadline |
//! | `stop-refused` | a STOP that is refused counts if GET_STATE then says `CONFIG_UNLOCKED` |
//! | `settle` | what a connection finds locked or in ERROR, it stops |

mod dialogue;
mod evidence;
mod interface;
mod keys;
mod mmio;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;

use pci::Address;
use tdisp::{FirstPage, State};

use crate::fault::Operation;
use crate::{
    Backend, Entropy, Exchange, Failure, FunctionFacts, GuestRequest, GuestResponse, Links, Memory,
    Opened, Refusal, Session, TdiRecord,
};
use interface::Interface;
use keys::Keys;

/// The TSM.
pub struct Tsm {
    links: Arc<dyn Links>,
    entropy: Arc<dyn Entropy>,
    settings: Settings,
}

/// How the TSM behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whose TSM it plays.
    pub dialect: Dialect,
    /// LOCK includes the MSI-X table.
    pub lock_msix: bool,
    /// The IDE stream of every device.
    pub stream: u8,
    /// The unit of a range's first page in interface reports.
    pub first_page: FirstPage,
}

/// Whose TSM is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Nobody's: bind does not lock, and requests of every architecture are taken.
    #[default]
    Any,
    /// Arm CCA's.
    Cca,
    /// AMD SEV-TIO's: bind locks.
    Sev,
    /// Intel TDX Connect's: bind locks.
    Tdx,
}

/// A device as the TSM has it.
struct Device {
    dsm: FunctionFacts,
    entropy: Arc<dyn Entropy>,
    settings: Settings,
    keys: Keys,
    /// The TDIs: bound functions.
    interfaces: BTreeMap<Address, Interface>,
}

impl Tsm {
    /// A TSM that reaches devices through `links` and makes keys of `entropy`.
    pub fn new(links: Arc<dyn Links>, entropy: Arc<dyn Entropy>, settings: Settings) -> Arc<Self> {
        Arc::new(Self { links, entropy, settings })
    }
}

impl Backend for Tsm {
    fn name(&self) -> &str {
        "software"
    }

    fn open(&self, dsm: &FunctionFacts) -> Result<Opened, Refusal> {
        let transport = self.links.transport(dsm.address).filter(|_| dsm.secure_mailbox);
        let transport = transport.ok_or(Refusal::NoMailbox { function: dsm.address })?;
        let session = Box::new(Device {
            dsm: *dsm,
            entropy: Arc::clone(&self.entropy),
            settings: self.settings,
            keys: Keys::new(self.settings.stream),
            interfaces: BTreeMap::new(),
        });
        Ok(Opened { session, transport })
    }
}

impl Session for Device {
    fn connect(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        if self.dsm.ide {
            self.keys.set_up(&*self.entropy, exchange)?;
        }
        if !self.dsm.tee_io {
            return Ok(());
        }
        let dsm = self.dsm;
        match self.settle(&dsm, exchange) {
            // Its manager may have no interface for it, only for its virtual functions.
            Err(failure) if failure.is_unknown() => Err(failure),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn disconnect(&mut self, exchange: &mut Exchange<'_>) {
        self.interfaces.clear();
        self.keys.take_down(exchange);
    }

    fn probe(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        self.settle(function, exchange)
    }

    fn forget(&mut self, function: &FunctionFacts) {
        self.interfaces.remove(&function.address);
    }

    fn bind(
        &mut self,
        function: &FunctionFacts,
        // No message of TDISP carries it.
        _: u64,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<State>, Failure> {
        let mut interface = Interface::new(function.requester_id, self.settings);
        let bound = interface.bind(exchange);
        // Also where nobody knows: the unbind that follows finds it.
        if bound.map_or_else(Failure::is_unknown, |()| true) {
            self.interfaces.insert(function.address, interface);
        }
        bound.map(|()| self.record(function).state)
    }

    fn unbind(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let interface = self.interfaces.remove(&function.address);
        let mut interface =
            interface.unwrap_or_else(|| Interface::new(function.requester_id, self.settings));
        interface.stop(Operation::Unbind, exchange)
    }

    fn settle(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let mut interface = Interface::new(function.requester_id, self.settings);
        if interface.ask_state(Operation::Probe, exchange)? == State::Unlocked {
            return Ok(());
        }
        interface.stop(Operation::Probe, exchange)
    }

    fn request(
        &mut self,
        function: &FunctionFacts,
        request: &GuestRequest<'_>,
        memory: &dyn Memory,
        exchange: &mut Exchange<'_>,
    ) -> Result<GuestResponse, Failure> {
        let not_bound = Failure::refused(Refusal::NotBound { function: function.address });
        let interface = self.interfaces.get_mut(&function.address).ok_or(not_bound)?;
        requests::serve(interface, request, memory, exchange)
    }

    fn observe(&mut self, function: Address, state: State) {
        if let Some(interface) = self.interfaces.get_mut(&function) {
            interface.observe(state);
        }
    }

    fn record(&self, function: &FunctionFacts) -> TdiRecord {
        self.interfaces.get(&function.address).map_or_else(TdiRecord::default, Interface::record)
    }

    fn keys(&self) -> usize {
        self.keys.in_use()
    }
}
