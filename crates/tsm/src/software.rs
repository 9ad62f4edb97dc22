//! A TSM in software: IDE_KM and TDISP, as bytes over a [`Transport`](crate::Transport), to whatever
//! security manager answers there.
//!
//! [`Tsm`] is the backend. With [`Security`] it speaks all of it inside of an SPDM session with a
//! device that has proven who it is, and its [`Transport`](crate::Transport)s carry data objects;
//! without, the payloads go bare. A device is a table of `Interface`s; `link` has the session, `keys`
//! sets the IDE stream up, `dialogue` sends one request and judges the answer, `requests` does what guests ask, `evidence`
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
//! | `regen-device` | MEASUREMENT is signed anew, CERT fetched anew; VCA stays as it was negotiated |
//! | `measurement-object` | the messages that were signed, request first, and the signature |
//! | `session-renewed` | an exchange in the session that was given up ends it; the next thing to say makes a new one first, which the device takes for the end of the one before: what was locked in that goes to `ERROR` |
//! | `key-refresh` | the session's keys are updated after 2^20 records, or after 32 heartbeats |
//! | `heartbeat` | half of the device's period after the last message |
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
mod link;
mod mmio;
mod requests;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pci::Address;
use sync::Contents;
use tdisp::{FirstPage, Nonce, State};

use crate::fault::Operation;
use crate::{
    Backend, Entropy, EvidenceObject, Exchange, Failure, FunctionFacts, GuestRequest,
    GuestResponse, Links, Memory, ObjectKind, Opened, Refusal, Secured, Session, Stream, TdiRecord,
};
use dialogue::Dialogue;
use evidence::Object;
use interface::Interface;
use keys::Keys;
use link::Link;
pub use link::{Authority, Policy, Security};

/// The TSM.
pub struct Tsm {
    links: Arc<dyn Links>,
    entropy: Arc<dyn Entropy>,
    settings: Settings,
    security: Option<Security>,
}

/// How the TSM behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whose TSM it plays.
    pub dialect: Dialect,
    /// LOCK includes the MSI-X table.
    pub lock_msix: bool,
    /// The IDE stream of every device; where the root port has it already, the next.
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
    link: Link,
    /// The host's part of its IDE stream.
    stream: Option<Arc<dyn Stream>>,
    keys: Keys,
    /// The TDIs: bound functions.
    interfaces: BTreeMap<Address, Interface>,
    /// Those that were locked in a session that is over, until it is asked for them.
    lost: Vec<Address>,
}

impl Tsm {
    /// A TSM that reaches devices through `links`, which carry payloads, and makes keys of `entropy`.
    pub fn new(links: Arc<dyn Links>, entropy: Arc<dyn Entropy>, settings: Settings) -> Arc<Self> {
        Arc::new(Self { links, entropy, settings, security: None })
    }

    /// Likewise, by `links` that carry data objects, in sessions with devices that `security` trusts.
    pub fn secure(
        links: Arc<dyn Links>,
        entropy: Arc<dyn Entropy>,
        settings: Settings,
        security: Security,
    ) -> Arc<Self> {
        Arc::new(Self { links, entropy, settings, security: Some(security) })
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
            link: Link::new(dsm, self.security.as_ref(), &self.entropy),
            stream: self.links.stream(dsm.address),
            keys: Keys::new(self.settings.stream),
            interfaces: BTreeMap::new(),
            lost: Vec::new(),
        });
        Ok(Opened { session, transport })
    }
}

impl Device {
    /// Lets an interface of the device speak to it. What was locked in a session that is over has a
    /// state that nobody knows.
    fn with<T>(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
        speak: impl FnOnce(&mut Interface, &mut Dialogue<'_, '_>) -> T,
    ) -> T {
        let known = self.interfaces.get_mut(&function.address);
        let mut other = Interface::new(function.requester_id, self.settings);
        let interface = known.unwrap_or(&mut other);
        let spoken = speak(interface, &mut Dialogue::new(exchange, &mut self.link));
        self.lose_session(Some(function.address));
        spoken
    }

    /// Forgets what was locked in a session that was replaced, but for the interface that has heard of it
    /// itself.
    fn lose_session(&mut self, but: Option<Address>) {
        if self.link.take_renewed() {
            let others = self.interfaces.iter_mut().filter(|(address, _)| Some(**address) != but);
            for (address, interface) in others {
                if interface.lose_session() {
                    self.lost.push(*address);
                }
            }
        }
    }
}

impl Contents for Device {
    fn contents(&self, mut into: &mut dyn Hasher) {
        (self.settings.stream, self.keys.in_use(), self.keys.stream()).hash(&mut into);
        for (function, interface) in &self.interfaces {
            function.hash(&mut into);
            interface.contents(into);
        }
    }

    /// An SPDM session has keys that nobody else is to see.
    fn is_told(&self) -> bool {
        matches!(self.link, Link::Bare)
    }
}

impl Session for Device {
    fn as_contents(&self) -> Option<&dyn Contents> {
        self.is_told().then_some(self as &dyn Contents)
    }

    fn connect(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        self.link.open(exchange)?;
        if self.dsm.ide {
            let dialogue = &mut Dialogue::new(exchange, &mut self.link);
            self.keys.set_up(self.stream.clone(), &*self.entropy, dialogue)?;
            self.settings.stream = self.keys.stream();
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
        self.keys.take_down(&mut Dialogue::new(exchange, &mut self.link));
        self.link.close(exchange);
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
        let bound = interface.bind(&mut Dialogue::new(exchange, &mut self.link));
        self.lose_session(None);
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
        let stopped = self.with(function, exchange, |interface, dialogue| {
            interface.stop(Operation::Unbind, dialogue)
        });
        self.interfaces.remove(&function.address);
        stopped
    }

    fn settle(
        &mut self,
        function: &FunctionFacts,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Failure> {
        let mut interface = Interface::new(function.requester_id, self.settings);
        let dialogue = &mut Dialogue::new(exchange, &mut self.link);
        let settled = match interface.ask_state(Operation::Probe, dialogue) {
            Ok(State::Unlocked) => Ok(()),
            Ok(State::Locked | State::Run | State::Error) => {
                interface.stop(Operation::Probe, dialogue)
            }
            Err(failure) => Err(failure),
        };
        self.lose_session(None);
        settled
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
        let served = requests::serve(interface, &mut self.link, request, memory, exchange);
        self.lose_session(Some(function.address));
        served
    }

    fn evidence(
        &mut self,
        function: &FunctionFacts,
        nonce: Option<Nonce>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Vec<EvidenceObject>, Failure> {
        if nonce.is_some() {
            let made = self.link.regenerate(ObjectKind::Measurement, nonce, exchange);
            self.lose_session(None);
            made?;
        }
        let interface = self.interfaces.get(&function.address);
        let report = interface.and_then(|interface| interface.evidence.report_object());
        Ok(self.link.objects().iter().chain(report).map(Object::shown).collect())
    }

    fn observe(&mut self, function: Address, state: State) {
        if let Some(interface) = self.interfaces.get_mut(&function) {
            interface.observe(state);
        }
    }

    fn record(&self, function: &FunctionFacts) -> TdiRecord {
        let Some(interface) = self.interfaces.get(&function.address) else {
            return TdiRecord::default();
        };
        interface.record(self.link.objects())
    }

    fn take_lost(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.lost)
    }

    fn keys(&self) -> usize {
        self.keys.in_use()
    }

    fn secured(&self) -> Option<Secured> {
        self.link.secured()
    }

    fn tend_after_ms(&self) -> Option<u64> {
        self.link.tend_after_ms()
    }

    fn tend(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        self.link.tend(exchange)
    }
}
