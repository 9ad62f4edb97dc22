//! A host that lends an engine plain memory, and the driver's side of the engine.

use std::collections::BTreeSet;
use std::sync::Arc;

use bindery_device as device;

use device::dma_engine::regs::{bar0, control, descriptor, register, status};
use device::dma_engine::{Config, DmaEngine};
use pci::regs::{cap_id, command, header, msix};
use pci::{
    Dma, DmaAccess, DmaFault, DmaFaultReason, Function, HostSide, Interrupts, Progress, walk,
};
use sync::{Mutex, rank};

pub(crate) const ADDRESS: &str = "b1d0:02:00.0";
/// Where the host's memory begins, and its length.
pub(crate) const RAM: u64 = 0x10_0000;
pub(crate) const RAM_LENGTH: usize = 1 << 20;
/// From here on memory may be read only.
pub(crate) const READ_ONLY: u64 = RAM + 0x8_0000;

/// An engine with memory under its BAR, connected and on.
pub(crate) struct Bench {
    pub(crate) engine: Arc<DmaEngine>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) ears: Arc<Ears>,
    pub(crate) pages: Arc<mem::Pages>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(&Config::new(ADDRESS.parse().unwrap()), Ram::new())
    }

    pub(crate) fn with(config: &Config, ram: Arc<Ram>) -> Self {
        let engine = DmaEngine::new(config);
        let ears = Arc::new(Ears::default());
        let length = usize::try_from(bar0::SIZE).unwrap();
        let pages = Arc::new(mem::Pages::anonymous(length).unwrap());
        engine.back_bar(bar0::INDEX, pages.clone());
        engine.connect(HostSide { dma: ram.clone(), interrupts: ears.clone() });
        let bench = Self { engine, ram, ears, pages };
        bench.set_command(command::MEMORY | command::BUS_MASTER);
        bench.write(register::CONTROL, control::ENABLE);
        bench
    }

    pub(crate) fn read(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.engine.bar_read(bar0::INDEX, register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write(&self, register: u64, value: u32) {
        self.engine.bar_write(bar0::INDEX, register, &value.to_le_bytes());
    }

    pub(crate) fn set_command(&self, bits: u16) {
        self.engine.config_write(header::COMMAND, &bits.to_le_bytes());
    }

    /// Puts a descriptor into mapped memory and rings.
    pub(crate) fn submit(&self, slot: u32, request: Request) {
        self.place(slot, request);
        self.write(register::DOORBELL, slot);
    }

    pub(crate) fn place(&self, slot: u32, request: Request) {
        let at = bar0::DESCRIPTORS + u64::from(slot) * descriptor::SIZE;
        let at = |field: u64| usize::try_from(at + field).unwrap();
        let dword = |field, value: u32| self.pages.write(at(field), &value.to_le_bytes());
        let qword = |field, value: u64| self.pages.write(at(field), &value.to_le_bytes());
        dword(descriptor::OPERATION, request.operation);
        dword(descriptor::FLAGS, request.flags);
        dword(descriptor::VECTOR, request.vector);
        dword(descriptor::LENGTH, request.length);
        qword(descriptor::SOURCE, request.source);
        qword(descriptor::DESTINATION, request.destination);
        qword(descriptor::PATTERN, request.pattern);
        dword(descriptor::WINDOW_OFFSET, request.window);
        dword(descriptor::RESERVED_0, request.reserved);
        qword(descriptor::COOKIE, request.cookie);
    }

    pub(crate) fn status(&self, slot: u32) -> Status {
        let at = bar0::STATUS_BLOCKS + u64::from(slot) * status::SIZE;
        let at = |field: u64| usize::try_from(at + field).unwrap();
        Status {
            state: self.pages.load_u32(at(status::STATE)),
            reason: self.pages.load_u32(at(status::REASON)),
            fault_address: self.pages.load_u64(at(status::FAULT_ADDRESS)),
            fault_access: self.pages.load_u32(at(status::FAULT_ACCESS)),
            bytes_done: self.pages.load_u32(at(status::BYTES_DONE)),
            cookie: self.pages.load_u64(at(status::COOKIE)),
        }
    }

    /// Steps until there is nothing to do.
    pub(crate) fn run(&self) {
        while self.engine.step(1 << 20) == Progress::More {}
    }

    pub(crate) fn capability(&self, id: u8) -> u16 {
        let read = |offset, into: &mut [u8]| self.engine.config_read(offset, into);
        let found = walk::capabilities(read);
        found.iter().find(|capability| capability.id == id).unwrap().offset
    }

    /// Enables MSI-X with the given vectors unmasked.
    pub(crate) fn enable_msix(&self, vectors: impl IntoIterator<Item = u64>) {
        for vector in vectors {
            let control = vector * msix::ENTRY_SIZE + msix::ENTRY_CONTROL;
            self.engine.bar_write(2, control, &0u32.to_le_bytes());
        }
        let at = self.capability(cap_id::MSIX) + msix::CONTROL;
        self.engine.config_write(at, &msix::ENABLE.to_le_bytes());
    }

    pub(crate) fn disable_msix(&self) {
        let at = self.capability(cap_id::MSIX) + msix::CONTROL;
        self.engine.config_write(at, &0u16.to_le_bytes());
    }
}

/// A descriptor to be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    pub(crate) operation: u32,
    pub(crate) flags: u32,
    pub(crate) vector: u32,
    pub(crate) length: u32,
    pub(crate) source: u64,
    pub(crate) destination: u64,
    pub(crate) pattern: u64,
    pub(crate) window: u32,
    pub(crate) reserved: u32,
    pub(crate) cookie: u64,
}

/// A status block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) state: u32,
    pub(crate) reason: u32,
    pub(crate) fault_address: u64,
    pub(crate) fault_access: u32,
    pub(crate) bytes_done: u32,
    pub(crate) cookie: u64,
}

/// Called at each access of the engine, with no lock held.
pub(crate) type Hook = Box<dyn Fn(DmaAccess) + Send + Sync>;

/// The host's memory.
pub(crate) struct Ram {
    bytes: Mutex<rank::Objects, Vec<u8>>,
    accesses: Mutex<rank::Objects, u64>,
    hook: Option<Hook>,
}

impl Ram {
    pub(crate) fn new() -> Arc<Self> {
        Self::build(None)
    }

    pub(crate) fn with_hook(hook: impl Fn(DmaAccess) + Send + Sync + 'static) -> Arc<Self> {
        Self::build(Some(Box::new(hook)))
    }

    fn build(hook: Option<Hook>) -> Arc<Self> {
        let bytes = Mutex::new(vec![0; RAM_LENGTH]);
        Arc::new(Self { bytes, accesses: Mutex::new(0), hook })
    }

    pub(crate) fn get(&self, iova: u64, length: usize) -> Vec<u8> {
        let at = usize::try_from(iova - RAM).unwrap();
        self.bytes.lock()[at..at + length].to_vec()
    }

    pub(crate) fn put(&self, iova: u64, bytes: &[u8]) {
        let at = usize::try_from(iova - RAM).unwrap();
        self.bytes.lock()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn accesses(&self) -> u64 {
        *self.accesses.lock()
    }

    /// Where an access lies, or its first byte that is refused.
    fn check(&self, iova: u64, length: usize, access: DmaAccess) -> Result<usize, DmaFault> {
        assert!(length <= 64 << 10, "an access of {length} bytes");
        *self.accesses.lock() += 1;
        if let Some(hook) = &self.hook {
            hook(access);
        }
        let end = match access {
            DmaAccess::Read => RAM + RAM_LENGTH as u64,
            DmaAccess::Write => READ_ONLY,
        };
        let last = iova + length as u64 - 1;
        let refused = match iova {
            _ if iova < RAM => Some(iova),
            _ if last >= end => Some(end.max(iova)),
            _ => None,
        };
        match refused {
            None => Ok(usize::try_from(iova - RAM).unwrap()),
            Some(iova) if (READ_ONLY..RAM + RAM_LENGTH as u64).contains(&iova) => {
                Err(DmaFault { iova, access, reason: DmaFaultReason::Permission })
            }
            Some(iova) => Err(DmaFault { iova, access, reason: DmaFaultReason::NotMapped }),
        }
    }
}

impl Dma for Ram {
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        let at = self.check(iova, into.len(), DmaAccess::Read)?;
        into.copy_from_slice(&self.bytes.lock()[at..at + into.len()]);
        Ok(())
    }

    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        let at = self.check(iova, from.len(), DmaAccess::Write)?;
        self.bytes.lock()[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }
}

/// What was heard, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Msix(u16),
    Msi(u16),
    Pin(bool),
}

#[derive(Default)]
pub(crate) struct Ears {
    heard: Mutex<rank::Irq, Vec<Heard>>,
}

impl Ears {
    /// What was heard since the last time.
    pub(crate) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.heard.lock())
    }

    /// The vectors of MSI-X heard since the last time.
    pub(crate) fn take_msix(&self) -> BTreeSet<u16> {
        let vector = |heard| match heard {
            Heard::Msix(vector) => vector,
            Heard::Msi(_) | Heard::Pin(_) => panic!("{heard:?}"),
        };
        self.take().into_iter().map(vector).collect()
    }
}

impl Interrupts for Ears {
    fn msix(&self, vector: u16) {
        self.heard.lock().push(Heard::Msix(vector));
    }

    fn msi(&self, vector: u16) {
        self.heard.lock().push(Heard::Msi(vector));
    }

    fn intx(&self, asserted: bool) {
        self.heard.lock().push(Heard::Pin(asserted));
    }
}
