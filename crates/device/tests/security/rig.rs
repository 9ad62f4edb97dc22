//! A device of a physical function and two virtual ones, its manager, and a requester.

use std::sync::Arc;

use bindery_device as device;

use device::dma_engine::regs::{bar0, control, descriptor, register, status};
use device::dma_engine::{Config, DmaEngine, Sriov};
use device::security::{Entropy, Manager, Settings, TdiChange};
use pci::regs::{cap_id, command, ext_id, header, msix, sriov};
use pci::{Dma, DmaAccess, DmaFault, DmaFaultReason, Function, HostSide, Interrupts, walk};
use sync::{Mutex, rank};
use tdisp::exchange::{
    GetReport, GetState, LockInterface, NONCE_BYTES, StartInterface, StopInterface,
};
use tdisp::ide_km::{self, Direction, KeyId, KeyKind, KeyMaterial, SubStream};
use tdisp::payload::{ProtocolId, join};
use tdisp::{
    ErrorCode, InterfaceId, LockFlags, Nonce, Refused, ReportAssembly, RequestBody, Requester,
    SessionId, State,
};

/// The functions' requester IDs: the physical one and its virtual ones.
pub(crate) const IDS: [u16; 3] = [0x0100, 0x0101, 0x0102];
pub(crate) const SESSION: SessionId = SessionId(7);
pub(crate) const STREAM: u8 = 3;
/// Where BARs lie: the physical function's, then the first virtual function's.
pub(crate) const BAR0: u64 = 0xc000_0000;
pub(crate) const BAR2: u64 = 0xc001_0000;
pub(crate) const VF_BAR0: u64 = 0xc002_0000;
pub(crate) const VF_BAR2: u64 = 0xc004_0000;
/// Where guest memory is.
pub(crate) const RAM: u64 = 0x10_0000;
const RAM_LENGTH: usize = 1 << 20;

pub(crate) struct Rig {
    pub(crate) engines: [Arc<DmaEngine>; 3],
    pub(crate) pages: [Arc<mem::Pages>; 3],
    pub(crate) ram: Arc<Ram>,
    pub(crate) manager: Arc<Manager>,
    changes: Arc<Mutex<rank::Objects, Vec<TdiChange>>>,
}

impl Rig {
    /// Functions with memory and bus master on, keys in use.
    pub(crate) fn new() -> Self {
        Self::with(Settings::default(), Ram::new(None))
    }

    pub(crate) fn with(settings: Settings, ram: Arc<Ram>) -> Self {
        let rig = Self::bare(settings, ram);
        rig.give_keys(STREAM);
        rig
    }

    /// Without keys.
    pub(crate) fn bare(settings: Settings, ram: Arc<Ram>) -> Self {
        let engines = ["b1d0:01:00.0", "b1d0:01:00.1", "b1d0:01:00.2"].map(engine);
        let length = usize::try_from(bar0::SIZE).unwrap();
        let pages = [(); 3].map(|()| Arc::new(mem::Pages::anonymous(length).unwrap()));
        for (engine, pages) in engines.iter().zip(&pages) {
            engine.back_bar(bar0::INDEX, pages.clone());
            engine.connect(HostSide { dma: ram.clone(), interrupts: Arc::new(Deaf) });
        }
        let interfaces = engines.iter().map(|engine| engine.clone() as _).collect();
        let manager = Manager::new(settings, interfaces, Arc::new(Counter::default()));
        let changes: Arc<Mutex<rank::Objects, Vec<TdiChange>>> = Arc::new(Mutex::new(Vec::new()));
        let heard = changes.clone();
        manager.watch(Arc::new(move |change| heard.lock().push(change)));
        let rig = Self { engines, pages, ram, manager, changes };
        for function in 0..3 {
            rig.set_up(function);
        }
        rig
    }

    /// Does what firmware and a driver do: addresses, memory, bus master, the engine on.
    pub(crate) fn set_up(&self, function: usize) {
        let engine = &self.engines[function];
        if function == 0 {
            for (register, value) in [(0, BAR0), (8, BAR2)] {
                let low = u32::try_from(value).unwrap();
                engine.config_write(header::BAR0 + register, &low.to_le_bytes());
            }
            self.enable_vfs();
        }
        self.set_command(function, command::MEMORY | command::BUS_MASTER);
        self.write(function, register::CONTROL, control::ENABLE);
    }

    pub(crate) fn enable_vfs(&self) {
        let at = self.extended(ext_id::SRIOV);
        let engine = &self.engines[0];
        for (register, value) in [(0, VF_BAR0), (8, VF_BAR2)] {
            let low = u32::try_from(value).unwrap();
            engine.config_write(at + sriov::VF_BAR0 + register, &low.to_le_bytes());
        }
        engine.config_write(at + sriov::NUM_VFS, &2u16.to_le_bytes());
        self.set_sriov(sriov::VF_ENABLE | sriov::VF_MEMORY);
    }

    pub(crate) fn set_sriov(&self, control: u16) {
        let at = self.extended(ext_id::SRIOV);
        self.engines[0].config_write(at + sriov::CONTROL, &control.to_le_bytes());
    }

    pub(crate) fn set_command(&self, function: usize, bits: u16) {
        self.engines[function].config_write(header::COMMAND, &bits.to_le_bytes());
    }

    pub(crate) fn extended(&self, id: u16) -> u16 {
        let read = |offset, into: &mut [u8]| self.engines[0].config_read(offset, into);
        let found = walk::extended_capabilities(read);
        found.iter().find(|capability| capability.id == id).unwrap().offset
    }

    pub(crate) fn capability(&self, function: usize, id: u8) -> u16 {
        let read = |offset, into: &mut [u8]| self.engines[function].config_read(offset, into);
        let found = walk::capabilities(read);
        found.iter().find(|capability| capability.id == id).unwrap().offset
    }

    pub(crate) fn set_msix_control(&self, function: usize, bits: u16) {
        let at = self.capability(function, cap_id::MSIX) + msix::CONTROL;
        self.engines[function].config_write(at, &bits.to_le_bytes());
    }

    pub(crate) fn read(&self, function: usize, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.engines[function].bar_read(bar0::INDEX, register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write(&self, function: usize, register: u64, value: u32) {
        self.engines[function].bar_write(bar0::INDEX, register, &value.to_le_bytes());
    }

    /// Puts a descriptor into slot 0 and rings.
    pub(crate) fn submit(&self, function: usize, job: Job) {
        let at = |field: u64| usize::try_from(bar0::DESCRIPTORS + field).unwrap();
        let pages = &self.pages[function];
        pages.write(at(descriptor::OPERATION), &job.operation.to_le_bytes());
        pages.write(at(descriptor::FLAGS), &job.flags.to_le_bytes());
        pages.write(at(descriptor::LENGTH), &job.length.to_le_bytes());
        pages.write(at(descriptor::SOURCE), &job.source.to_le_bytes());
        pages.write(at(descriptor::DESTINATION), &job.destination.to_le_bytes());
        self.write(function, register::DOORBELL, 0);
    }

    /// STATE and REASON of slot 0.
    pub(crate) fn status(&self, function: usize) -> (u32, u32) {
        let at = |field: u64| usize::try_from(bar0::STATUS_BLOCKS + field).unwrap();
        let load = |field| self.pages[function].load_u32(at(field));
        (load(status::STATE), load(status::REASON))
    }

    pub(crate) fn run(&self, function: usize) {
        while self.engines[function].step(1 << 20) == pci::Progress::More {}
    }

    /// Programs and uses all keys of a stream.
    pub(crate) fn give_keys(&self, stream: u8) {
        assert!(self.try_give_keys(stream));
    }

    /// The same where another thread may take keys away meanwhile. Says whether none was.
    pub(crate) fn try_give_keys(&self, stream: u8) -> bool {
        keys(stream).into_iter().all(|key| {
            let material = KeyMaterial::new([5; 32], 1);
            self.ide(ide_km::Request::KeyProg { key, material }).is_some()
                && self.ide(ide_km::Request::SetGo(key)).is_some()
        })
    }

    pub(crate) fn ide(&self, request: ide_km::Request) -> Option<Vec<u8>> {
        let mut message = [0; 64];
        let length = join(ProtocolId::IDE_KM, &mut message, |into| request.encode(into)).unwrap();
        let mut answer = [0; 256];
        let length = self.manager.respond(SESSION, &message[..length], &mut answer)?;
        Some(answer[1..length].to_vec())
    }

    /// Sends a request of TDISP and gives the response to `judge`.
    pub(crate) fn ask<'a, B: RequestBody<'a>, R>(
        &self,
        session: SessionId,
        id: u16,
        body: &B,
        judge: impl FnOnce(B::Response<'_>) -> R,
    ) -> Result<R, ErrorCode> {
        let requester = Requester::new(InterfaceId::new(id));
        let mut message = [0; 128];
        let length =
            join(ProtocolId::TDISP, &mut message, |into| requester.request(body, into)).unwrap();
        let mut answer = [0; 256];
        let length = self.manager.respond(session, &message[..length], &mut answer).unwrap();
        assert_eq!(answer[0], ProtocolId::TDISP.0);
        match requester.response::<B>(&answer[1..length]) {
            Ok(response) => Ok(judge(response)),
            Err(Refused::Error { code, .. }) => Err(code),
            Err(other) => panic!("{other:?}"),
        }
    }

    pub(crate) fn lock_with(&self, function: usize, flags: LockFlags) -> Result<Nonce, ErrorCode> {
        let body = LockInterface { flags, default_stream: STREAM, ..LockInterface::default() };
        self.lock(function, &body)
    }

    pub(crate) fn lock(&self, function: usize, body: &LockInterface) -> Result<Nonce, ErrorCode> {
        self.ask(SESSION, IDS[function], body, |response| response.nonce)
    }

    pub(crate) fn start(&self, function: usize, nonce: Nonce) -> Result<(), ErrorCode> {
        self.ask(SESSION, IDS[function], &StartInterface { nonce }, drop)
    }

    pub(crate) fn stop(&self, function: usize) -> Result<(), ErrorCode> {
        self.ask(SESSION, IDS[function], &StopInterface, drop)
    }

    /// The state, which GET_STATE and the function agree on.
    pub(crate) fn state(&self, function: usize) -> State {
        let told = self.ask(SESSION, IDS[function], &GetState, State::try_from);
        let told = told.unwrap().unwrap();
        assert_eq!(self.manager.state(IDS[function]), Some(told));
        told
    }

    /// Takes a function to a state by requests, and to `ERROR` by a lost session.
    pub(crate) fn bring(&self, function: usize, state: State, flags: LockFlags) {
        if state == State::Unlocked {
            return;
        }
        let nonce = self.lock_with(function, flags).unwrap();
        if state == State::Run {
            self.start(function, nonce).unwrap();
        }
        if state == State::Error {
            self.manager.session_ended(SESSION);
        }
        assert_eq!(self.state(function), state);
        self.changes();
    }

    pub(crate) fn report(&self, function: usize) -> Result<Vec<u8>, ErrorCode> {
        let mut room = [0; tdisp::REPORT_BYTES_MAX];
        let mut assembly = ReportAssembly::new(&mut room);
        while let Some(asked) = assembly.next(48) {
            let asked: GetReport = asked;
            self.ask(SESSION, IDS[function], &asked, |portion| assembly.take(portion).unwrap())?;
        }
        Ok(assembly.report().unwrap().to_vec())
    }

    /// What watchers heard since the last time.
    pub(crate) fn changes(&self) -> Vec<TdiChange> {
        std::mem::take(&mut *self.changes.lock())
    }
}

fn engine(address: &str) -> Arc<DmaEngine> {
    let address: pci::Address = address.parse().unwrap();
    let vf = address.function() != 0;
    let sriov = Sriov { total_vfs: 2, first_offset: 1, stride: 1 };
    let sriov = (!vf).then_some(sriov);
    DmaEngine::new(&Config { tee: true, vf, sriov, ..Config::new(address) })
}

/// The keys of a stream that make it secure.
pub(crate) fn keys(stream: u8) -> impl Iterator<Item = KeyId> {
    SubStream::ALL.into_iter().flat_map(move |sub| {
        let kinds = Direction::ALL.map(|direction| KeyKind::new(false, direction, sub));
        kinds.map(|kind| KeyId { stream, kind, port: 0 })
    })
}

/// A descriptor to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Job {
    pub(crate) operation: u32,
    pub(crate) flags: u32,
    pub(crate) length: u32,
    pub(crate) source: u64,
    pub(crate) destination: u64,
}

/// Nonces that differ, and none once told so.
#[derive(Default)]
struct Counter(Mutex<rank::Objects, u64>);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) -> bool {
        assert_eq!(bytes.len(), NONCE_BYTES);
        let mut count = self.0.lock();
        *count += 1;
        bytes[..8].copy_from_slice(&count.to_le_bytes());
        true
    }
}

pub(crate) struct Deaf;

impl Interrupts for Deaf {
    fn msix(&self, _: u16) {}
    fn msi(&self, _: u16) {}
    fn intx(&self, _: bool) {}
}

/// An access as memory saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) access: DmaAccess,
    pub(crate) trusted: bool,
}

/// Called at each access, with no lock held.
pub(crate) type Hook = Box<dyn Fn(Access) + Send + Sync>;

/// Memory that notes how it is accessed.
pub(crate) struct Ram {
    bytes: Mutex<rank::Objects, Vec<u8>>,
    accesses: Mutex<rank::Objects, Vec<Access>>,
    refused: Mutex<rank::Objects, Vec<DmaFaultReason>>,
    hook: Option<Hook>,
}

impl Ram {
    pub(crate) fn new(hook: Option<Hook>) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(vec![0; RAM_LENGTH]),
            accesses: Mutex::new(Vec::new()),
            refused: Mutex::new(Vec::new()),
            hook,
        })
    }

    pub(crate) fn accesses(&self) -> Vec<Access> {
        std::mem::take(&mut *self.accesses.lock())
    }

    pub(crate) fn refused(&self) -> Vec<DmaFaultReason> {
        std::mem::take(&mut *self.refused.lock())
    }

    pub(crate) fn put(&self, iova: u64, bytes: &[u8]) {
        let at = usize::try_from(iova - RAM).unwrap();
        self.bytes.lock()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn note(&self, access: DmaAccess, trusted: bool) {
        let access = Access { access, trusted };
        self.accesses.lock().push(access);
        if let Some(hook) = &self.hook {
            hook(access);
        }
    }

    fn copy_out(&self, iova: u64, into: &mut [u8]) {
        let at = usize::try_from(iova - RAM).unwrap();
        into.copy_from_slice(&self.bytes.lock()[at..at + into.len()]);
    }
}

impl Dma for Ram {
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        self.note(DmaAccess::Read, false);
        self.copy_out(iova, into);
        Ok(())
    }

    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.note(DmaAccess::Write, false);
        self.put(iova, from);
        Ok(())
    }

    fn read_trusted(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        self.note(DmaAccess::Read, true);
        self.copy_out(iova, into);
        Ok(())
    }

    fn write_trusted(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.note(DmaAccess::Write, true);
        self.put(iova, from);
        Ok(())
    }

    fn refused(&self, fault: &DmaFault) {
        self.refused.lock().push(fault.reason);
    }
}
