//! A device's security manager, asked anything while anything is done to its functions.
//!
//! What GET_STATE tells is how the function acts: only in RUN is there trusted DMA, only in ERROR does
//! memory read as all ones. Every TDISP message is answered, and each change begins where the last ended.

use std::sync::{Arc, Mutex, PoisonError};

use device::dma_engine::regs::{bar0, bar2, control, descriptor, flag, operation, register};
use device::dma_engine::{Config, DmaEngine, Sriov};
use device::security::{Entropy, Manager, Settings, TDIS_MAX, TdiChange};
use mem::Pages;
use pci::regs::{CONFIG_SIZE, command, ext_id, header, sriov};
use pci::{Dma, DmaFault, Function, HostSide, Interrupts, Reset, walk};
use tdisp::exchange::{GetState, Nonce};
use tdisp::payload::{ProtocolId, join};
use tdisp::{FunctionReset, InterfaceId, Requester, Response, SessionId, State};

use crate::input::{Input, Output};

/// Deeds of one input.
const DEEDS_MAX: usize = 256;
/// What LOCK gives each time.
pub const NONCE: Nonce = Nonce([0x22; 32]);
/// The functions' requester IDs.
pub const IDS: [u16; 3] = [0x0100, 0x0101, 0x0102];

/// Does what `bytes` say; the first is the policies.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let bench = Bench::new(input.byte());
    for _ in 0..DEEDS_MAX {
        if input.is_empty() {
            break;
        }
        bench.take(&Deed::decode(&mut input));
        bench.check();
    }
}

/// Something asked of the device or done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A payload in a session.
    Ask {
        /// The session.
        session: u8,
        /// The protocol id and what follows.
        payload: Vec<u8>,
    },
    /// Writes config space.
    Config {
        /// The function, modulo three.
        function: u8,
        /// The offset, modulo its size.
        offset: u16,
        /// What is written.
        bytes: Vec<u8>,
    },
    /// Writes 32 bits to a BAR.
    Write {
        /// The function, modulo three.
        function: u8,
        /// BAR 2 rather than BAR 0.
        table: bool,
        /// The offset, which is rounded down.
        offset: u16,
        /// What is written.
        value: u32,
    },
    /// Resets a function.
    Reset {
        /// The function, modulo three.
        function: u8,
        /// With its bus.
        bus: bool,
    },
    /// Ends a session.
    EndSession(u8),
    /// Loses all keys.
    LoseKeys,
}

struct Bench {
    manager: Arc<Manager>,
    functions: [Arc<DmaEngine>; 3],
    pages: [Arc<Pages>; 3],
    host: Arc<Host>,
    states: Arc<Mutex<[State; 3]>>,
}

impl Bench {
    fn new(policies: u8) -> Self {
        let host = Arc::new(Host::default());
        let functions = ["b1d0:01:00.0", "b1d0:01:00.1", "b1d0:01:00.2"].map(engine);
        let memory = || Pages::anonymous(bar0::SIZE as usize).expect("memory for a BAR");
        let pages = [(); 3].map(|()| Arc::new(memory()));
        for (function, pages) in functions.iter().zip(&pages) {
            function.back_bar(bar0::INDEX, Arc::clone(pages));
            let (dma, interrupts) = (Arc::clone(&host), Arc::clone(&host));
            function.connect(HostSide { dma, interrupts });
        }
        set_up(&functions);
        let flr_while_locked = match policies & 1 {
            0 => FunctionReset::Unlocks,
            _ => FunctionReset::Breaches,
        };
        let settings = Settings { flr_while_locked, ..Settings::default() };
        let interfaces = functions.iter().map(|function| function.clone() as _).collect();
        let manager = Manager::new(settings, interfaces, Arc::new(Always));
        let states = Arc::new(Mutex::new([State::Unlocked; 3]));
        let told = Arc::clone(&states);
        manager.watch(Arc::new(move |change| follow(&told, change)));
        Self { manager, functions, pages, host, states }
    }

    fn take(&self, deed: &Deed) {
        let function = |index: &u8| &self.functions[usize::from(*index) % IDS.len()];
        match deed {
            Deed::Ask { session, payload } => self.ask(*session, payload),
            Deed::Config { function: index, offset, bytes } => {
                let offset = offset % CONFIG_SIZE;
                let length = bytes.len().min(usize::from(CONFIG_SIZE - offset));
                function(index).config_write(offset, &bytes[..length]);
            }
            Deed::Write { function: index, table, offset, value } => {
                let (bar, size) =
                    if *table { (bar2::INDEX, bar2::SIZE) } else { (bar0::INDEX, bar0::SIZE) };
                let offset = (u64::from(*offset) % size) & !3;
                function(index).bar_write(bar, offset, &value.to_le_bytes());
            }
            Deed::Reset { function: index, bus } => {
                function(index).reset(if *bus { Reset::Bus } else { Reset::Function });
            }
            Deed::EndSession(session) => {
                self.manager.session_ended(SessionId(u32::from(*session)));
            }
            Deed::LoseKeys => self.manager.lose_keys(),
        }
    }

    fn ask(&self, session: u8, payload: &[u8]) {
        let mut answer = [0; 256];
        let length = self.manager.respond(SessionId(u32::from(session)), payload, &mut answer);
        if payload.first() == Some(&ProtocolId::TDISP.0) {
            let length = length.expect("TDISP always has an answer");
            Response::decode(&answer[1..length]).expect("an answer");
        }
    }

    fn check(&self) {
        assert!(self.manager.keys() <= 12 * 4 && IDS.len() <= TDIS_MAX);
        for (index, id) in IDS.into_iter().enumerate() {
            let state = self.told(id);
            assert_eq!(self.manager.state(id), Some(state));
            assert_eq!(self.states.lock().unwrap_or_else(PoisonError::into_inner)[index], state);
            self.check_memory(index, state);
            self.check_dma(index, state);
        }
    }

    fn told(&self, id: u16) -> State {
        let requester = Requester::new(InterfaceId::new(id));
        let mut message = [0; 64];
        let length =
            join(ProtocolId::TDISP, &mut message, |into| requester.request(&GetState, into));
        let length = length.expect("room enough");
        let mut answer = [0; 256];
        let length = self.manager.respond(SessionId(0), &message[..length], &mut answer);
        let answer = &answer[1..length.expect("an answer")];
        let state = requester.response::<GetState>(answer).expect("a state");
        State::try_from(state).expect("a known state")
    }

    fn check_memory(&self, index: usize, state: State) {
        let mut id = [0; 4];
        self.functions[index].bar_read(bar0::INDEX, register::ID, &mut id);
        assert_eq!(id == [u8::MAX; 4], state == State::Error);
    }

    /// Tries a trusted descriptor. In ERROR, memory is then as it was: all ones.
    fn check_dma(&self, index: usize, state: State) {
        let (function, pages) = (&self.functions[index], &self.pages[index]);
        if state != State::Error {
            let at = |field: u64| (bar0::DESCRIPTORS + field) as usize;
            pages.fill(at(0), descriptor::SIZE as usize, 0);
            pages.write(at(descriptor::OPERATION), &operation::FILL.to_le_bytes());
            pages.write(at(descriptor::FLAGS), &flag::TRUSTED.to_le_bytes());
            pages.write(at(descriptor::LENGTH), &8u32.to_le_bytes());
        }
        let enable = control::ENABLE.to_le_bytes();
        function.bar_write(bar0::INDEX, register::CONTROL, &enable);
        function.bar_write(bar0::INDEX, register::DOORBELL, &0u32.to_le_bytes());
        while function.step(1 << 16) == pci::Progress::More {}
        let trusted = std::mem::take(&mut *self.host.lock());
        assert_eq!(trusted > 0, state == State::Run, "{state}");
    }
}

fn engine(address: &str) -> Arc<DmaEngine> {
    let address: pci::Address = address.parse().expect("an address");
    let vf = address.function() != 0;
    let sriov = Sriov { total_vfs: 2, first_offset: 1, stride: 1 };
    let sriov = (!vf).then_some(sriov);
    DmaEngine::new(&Config { tee: true, vf, sriov, ..Config::new(address) })
}

/// Places BARs, enables virtual functions, memory and bus master.
fn set_up(functions: &[Arc<DmaEngine>; 3]) {
    let [physical, ..] = functions;
    let read = |offset, into: &mut [u8]| physical.config_read(offset, into);
    let capabilities = walk::extended_capabilities(read);
    let found = capabilities.iter().find(|capability| capability.id == ext_id::SRIOV);
    let at = found.expect("SR-IOV").offset;
    for (register, address) in [
        (header::BAR0, 0xc000_0000_u32),
        (header::BAR0 + 8, 0xc001_0000),
        (at + sriov::VF_BAR0, 0xc002_0000),
        (at + sriov::VF_BAR0 + 8, 0xc004_0000),
    ] {
        physical.config_write(register, &address.to_le_bytes());
    }
    physical.config_write(at + sriov::NUM_VFS, &2u16.to_le_bytes());
    let both = sriov::VF_ENABLE | sriov::VF_MEMORY;
    physical.config_write(at + sriov::CONTROL, &both.to_le_bytes());
    for function in functions {
        let both = command::MEMORY | command::BUS_MASTER;
        function.config_write(header::COMMAND, &both.to_le_bytes());
    }
}

/// Takes note of a change, which begins where the last ended.
fn follow(states: &Mutex<[State; 3]>, change: TdiChange) {
    let index = IDS.iter().position(|id| *id == change.requester_id).expect("a function");
    let state = &mut states.lock().unwrap_or_else(PoisonError::into_inner)[index];
    assert_eq!(*state, change.from, "{change:?}");
    assert_eq!(change.cause.is_some(), change.to == State::Error, "{change:?}");
    *state = change.to;
}

/// The same nonce each time, so that an input can know it.
struct Always;

impl Entropy for Always {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        bytes.copy_from_slice(&NONCE.0);
        true
    }
}

/// Counts trusted accesses.
#[derive(Default)]
struct Host {
    trusted: Mutex<u32>,
}

impl Host {
    fn lock(&self) -> std::sync::MutexGuard<'_, u32> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dma for Host {
    fn read(&self, _: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        into.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), DmaFault> {
        Ok(())
    }

    fn read_trusted(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        *self.lock() += 1;
        self.read(iova, into)
    }

    fn write_trusted(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        *self.lock() += 1;
        self.write(iova, from)
    }
}

impl Interrupts for Host {
    fn msix(&self, _: u16) {}

    fn msi(&self, _: u16) {}

    fn intx(&self, _: bool) {}
}

impl Deed {
    /// The next deed of an input.
    pub fn decode(input: &mut Input<'_>) -> Self {
        match input.choice(7) {
            0 | 1 => Self::Ask { session: input.byte(), payload: input.counted() },
            2 => Self::Config {
                function: input.byte(),
                offset: input.word(),
                bytes: input.counted(),
            },
            3 => Self::Write {
                function: input.byte(),
                table: input.byte() & 1 != 0,
                offset: input.word(),
                value: input.dword(),
            },
            4 => Self::Reset { function: input.byte(), bus: input.byte() & 1 != 0 },
            5 => Self::EndSession(input.byte()),
            _ => Self::LoseKeys,
        }
    }

    /// The bytes that [`decode`](Self::decode) takes for this deed.
    pub fn encode(&self, out: &mut Output) {
        match self {
            Self::Ask { session, payload } => {
                out.put(&[0, *session]);
                out.counted(payload);
            }
            Self::Config { function, offset, bytes } => {
                out.put(&[2, *function]);
                out.put(&offset.to_le_bytes());
                out.counted(bytes);
            }
            Self::Write { function, table, offset, value } => {
                out.put(&[3, *function, u8::from(*table)]);
                out.put(&offset.to_le_bytes());
                out.put(&value.to_le_bytes());
            }
            Self::Reset { function, bus } => out.put(&[4, *function, u8::from(*bus)]),
            Self::EndSession(session) => out.put(&[5, *session]),
            Self::LoseKeys => out.put(&[6]),
        }
    }
}
