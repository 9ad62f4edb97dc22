//! The DMA engine itself, driven by hands that know no rules: any register, any descriptor.
//!
//! Status blocks hold only states and reasons that the datasheet has, vectors that exist fire, and an
//! engine that is left alone comes to rest.

use std::sync::{Arc, Mutex, PoisonError};

use device::dma_engine::regs::{
    MSI_VECTORS, MSIX_VECTORS, SLOTS, bar0, bar2, descriptor, reason, status, status_state,
};
use device::dma_engine::{Config, DmaEngine, Sriov};
use mem::Pages;
use pci::regs::CONFIG_SIZE;
use pci::{
    Address, Dma, DmaAccess, DmaFault, DmaFaultReason, Function, HostSide, Interrupts, Progress,
    Reset,
};

use crate::input::{Input, Output};

/// Deeds of one input.
const DEEDS_MAX: usize = 256;
/// Where memory is, as the engine sees it.
pub const RAM: u64 = 0x10_0000;
const RAM_LENGTH: usize = 0x2_0000;
/// From here on it may only be read.
const READ_ONLY: u64 = RAM + 0x1_8000;
/// More than all slots can take, in steps of the smallest budget: an engine that works longer never rests.
const STEPS_MAX: usize = SLOTS as usize * (RAM_LENGTH / 64 + 2);

/// Does what `bytes` say; the first says what kind of engine it is.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let bench = Bench::new(input.byte());
    for _ in 0..DEEDS_MAX {
        if input.is_empty() {
            break;
        }
        bench.take(&Deed::decode(&mut input));
    }
    bench.rest();
}

/// Something done to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Writes config space.
    Config {
        /// The offset, modulo its size.
        offset: u16,
        /// What is written.
        bytes: Vec<u8>,
    },
    /// Reads config space.
    ConfigRead {
        /// The offset, modulo its size.
        offset: u16,
        /// Bytes.
        count: u8,
    },
    /// Writes to a BAR, naturally aligned.
    Write {
        /// BAR 2 rather than BAR 0.
        table: bool,
        /// The offset, which is rounded down.
        offset: u16,
        /// The width, as a power of two.
        width_lg2: u8,
        /// What is written.
        value: u64,
    },
    /// Reads from a BAR.
    Read {
        /// BAR 2 rather than BAR 0.
        table: bool,
        /// The offset, which is rounded down.
        offset: u16,
        /// The width, as a power of two.
        width_lg2: u8,
    },
    /// Puts a descriptor into a slot.
    Describe {
        /// The slot, modulo how many there are.
        slot: u8,
        /// The descriptor.
        bytes: Vec<u8>,
    },
    /// Works.
    Step {
        /// Bytes, as a power of two.
        budget_lg2: u8,
    },
    /// Does what a host does.
    Host(HostDeed),
}

/// What a host does to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostDeed {
    /// Stops its DMA.
    Stop,
    /// Lets it do DMA again.
    Start,
    /// Parts it from memory and interrupts.
    Disconnect,
    /// Joins it to them.
    Connect,
    /// Resets it alone.
    ResetFunction,
    /// Resets its bus.
    ResetBus,
    /// Gives it other memory for BAR 0.
    BackBar,
}

const HOST_DEEDS: [HostDeed; 7] = [
    HostDeed::Stop,
    HostDeed::Start,
    HostDeed::Disconnect,
    HostDeed::Connect,
    HostDeed::ResetFunction,
    HostDeed::ResetBus,
    HostDeed::BackBar,
];

struct Bench {
    engine: Arc<DmaEngine>,
    host: Arc<Host>,
    pages: Mutex<Arc<Pages>>,
}

impl Bench {
    /// Bits of `kind`: TEE-IO, virtual, with virtual functions, several functions.
    fn new(kind: u8) -> Self {
        let address: Address = "b1d0:02:00.0".parse().expect("an address");
        let sriov = Sriov { total_vfs: 2, first_offset: 1, stride: 1 };
        let engine = DmaEngine::new(&Config {
            tee: kind & 1 != 0,
            vf: kind & 2 != 0,
            sriov: (kind & 6 == 4).then_some(sriov),
            multi_function: kind & 8 != 0,
            ..Config::new(address)
        });
        let host = Arc::new(Host { ram: Mutex::new(vec![0; RAM_LENGTH]) });
        let pages = Mutex::new(backing());
        let bench = Self { engine, host, pages };
        bench.engine.back_bar(bar0::INDEX, Arc::clone(&bench.pages()));
        bench.host_does(HostDeed::Connect);
        bench
    }

    fn take(&self, deed: &Deed) {
        match deed {
            Deed::Config { offset, bytes } => {
                let offset = offset % CONFIG_SIZE;
                let length = bytes.len().min(usize::from(CONFIG_SIZE - offset));
                self.engine.config_write(offset, &bytes[..length]);
            }
            Deed::ConfigRead { offset, count } => {
                let offset = offset % CONFIG_SIZE;
                let length = usize::from(*count).min(usize::from(CONFIG_SIZE - offset));
                self.engine.config_read(offset, &mut vec![0; length]);
            }
            Deed::Write { table, offset, width_lg2, value } => {
                let (bar, offset, width) = place(*table, *offset, *width_lg2);
                self.engine.bar_write(bar, offset, &value.to_le_bytes()[..width]);
            }
            Deed::Read { table, offset, width_lg2 } => {
                let (bar, offset, width) = place(*table, *offset, *width_lg2);
                self.engine.bar_read(bar, offset, &mut [0; 8][..width]);
            }
            Deed::Describe { slot, bytes } => {
                let slot = u64::from(*slot) % u64::from(SLOTS);
                let at = bar0::DESCRIPTORS + slot * descriptor::SIZE;
                let length = bytes.len().min(descriptor::SIZE as usize);
                self.pages().write(at as usize, &bytes[..length]);
            }
            Deed::Step { budget_lg2 } => {
                self.engine.step(1 << budget_lg2);
                self.check_status();
            }
            Deed::Host(deed) => self.host_does(*deed),
        }
    }

    fn host_does(&self, deed: HostDeed) {
        match deed {
            HostDeed::Stop => self.engine.stop(),
            HostDeed::Start => self.engine.start(),
            HostDeed::Disconnect => self.engine.disconnect(),
            HostDeed::Connect => {
                let (dma, interrupts) = (Arc::clone(&self.host), Arc::clone(&self.host));
                self.engine.connect(HostSide { dma, interrupts });
            }
            HostDeed::ResetFunction => self.engine.reset(Reset::Function),
            HostDeed::ResetBus => self.engine.reset(Reset::Bus),
            HostDeed::BackBar => {
                let pages = backing();
                self.engine.back_bar(bar0::INDEX, Arc::clone(&pages));
                *self.pages.lock().unwrap_or_else(PoisonError::into_inner) = pages;
            }
        }
    }

    /// Works until there is nothing to do.
    fn rest(&self) {
        for _ in 0..STEPS_MAX {
            if self.engine.step(1 << 16) == Progress::Idle {
                self.check_status();
                return;
            }
        }
        panic!("the engine never comes to rest");
    }

    fn check_status(&self) {
        let pages = self.pages();
        for slot in 0..u64::from(SLOTS) {
            let at = (bar0::STATUS_BLOCKS + slot * status::SIZE) as usize;
            let state = pages.load_u32(at + status::STATE as usize);
            let reason = pages.load_u32(at + status::REASON as usize);
            let documented = match state {
                status_state::FAULT => reason::BUS_MASTER_OFF..=reason::BAD_TABLE,
                status_state::INVALID => reason::OPERATION..=reason::ADDRESS,
                status_state::IDLE..=status_state::ABORTED => reason::NONE..=reason::NONE,
                _ => panic!("slot {slot} is in state {state}"),
            };
            assert!(documented.contains(&reason), "slot {slot}: state {state}, reason {reason}");
        }
    }

    fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.pages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn backing() -> Arc<Pages> {
    Arc::new(Pages::anonymous(bar0::SIZE as usize).expect("memory for a BAR"))
}

/// A naturally aligned access inside a BAR; none to status blocks, which are the engine's to write.
fn place(table: bool, offset: u16, width_lg2: u8) -> (usize, u64, usize) {
    let width = 1 << (width_lg2 & 3);
    let (bar, size) = if table { (bar2::INDEX, bar2::SIZE) } else { (bar0::INDEX, bar0::SIZE) };
    let offset = u64::from(offset) % size / width * width;
    let blocks = bar0::STATUS_BLOCKS..bar0::WINDOW;
    let offset = if !table && blocks.contains(&offset) { offset % width } else { offset };
    (bar, offset, width as usize)
}

/// Memory with a hole on each side, and ears.
struct Host {
    ram: Mutex<Vec<u8>>,
}

impl Host {
    /// Copies between memory and the engine, or says which byte is refused.
    fn reach(
        &self,
        iova: u64,
        length: usize,
        access: DmaAccess,
        copy: impl FnOnce(&mut [u8]),
    ) -> Result<(), DmaFault> {
        assert!(length <= 64 << 10, "an access of {length} bytes");
        let fault = |iova, reason| Err(DmaFault { iova, access, reason });
        let end = RAM + RAM_LENGTH as u64;
        let last = iova.checked_add(length as u64 - 1).expect("an access inside the address space");
        if iova < RAM || iova >= end {
            return fault(iova, DmaFaultReason::NotMapped);
        }
        if last >= end {
            return fault(end, DmaFaultReason::NotMapped);
        }
        if access == DmaAccess::Write && last >= READ_ONLY {
            return fault(iova.max(READ_ONLY), DmaFaultReason::Permission);
        }
        let at = (iova - RAM) as usize;
        let mut ram = self.ram.lock().unwrap_or_else(PoisonError::into_inner);
        copy(&mut ram[at..at + length]);
        Ok(())
    }
}

impl Dma for Host {
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        self.reach(iova, into.len(), DmaAccess::Read, |memory| into.copy_from_slice(memory))
    }

    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.reach(iova, from.len(), DmaAccess::Write, |memory| memory.copy_from_slice(from))
    }
}

impl Interrupts for Host {
    fn msix(&self, vector: u16) {
        assert!(vector < MSIX_VECTORS, "MSI-X vector {vector}");
    }

    fn msi(&self, vector: u16) {
        assert!(vector < MSI_VECTORS, "MSI vector {vector}");
    }

    fn intx(&self, _: bool) {}
}

impl Deed {
    /// The next deed of an input.
    pub fn decode(input: &mut Input<'_>) -> Self {
        match input.choice(7) {
            0 => Self::Config { offset: input.word(), bytes: input.counted() },
            1 => Self::ConfigRead { offset: input.word(), count: input.byte() },
            2 => Self::Write {
                table: input.byte() & 1 != 0,
                offset: input.word(),
                width_lg2: input.byte(),
                value: input.qword(),
            },
            3 => Self::Read {
                table: input.byte() & 1 != 0,
                offset: input.word(),
                width_lg2: input.byte(),
            },
            4 => Self::Describe { slot: input.byte(), bytes: input.counted() },
            5 => Self::Step { budget_lg2: input.byte() % 21 },
            _ => Self::Host(HOST_DEEDS[input.choice(HOST_DEEDS.len())]),
        }
    }

    /// The bytes that [`decode`](Self::decode) takes for this deed.
    pub fn encode(&self, out: &mut Output) {
        match self {
            Self::Config { offset, bytes } => {
                out.put(&[0]);
                out.put(&offset.to_le_bytes());
                out.counted(bytes);
            }
            Self::ConfigRead { offset, count } => {
                out.put(&[1]);
                out.put(&offset.to_le_bytes());
                out.put(&[*count]);
            }
            Self::Write { table, offset, width_lg2, value } => {
                out.put(&[2, u8::from(*table)]);
                out.put(&offset.to_le_bytes());
                out.put(&[*width_lg2]);
                out.put(&value.to_le_bytes());
            }
            Self::Read { table, offset, width_lg2 } => {
                out.put(&[3, u8::from(*table)]);
                out.put(&offset.to_le_bytes());
                out.put(&[*width_lg2]);
            }
            Self::Describe { slot, bytes } => {
                out.put(&[4, *slot]);
                out.counted(bytes);
            }
            Self::Step { budget_lg2 } => out.put(&[5, *budget_lg2]),
            Self::Host(deed) => {
                let number = HOST_DEEDS.iter().position(|one| one == deed).expect("all are listed");
                out.put(&[6, number as u8]);
            }
        }
    }
}
