//! From BIND to an interrupt, with the DMA engine: descriptors in mapped memory, a doorbell in a trapped page, data
//! moved by DMA.

use std::sync::Arc;

use device::dma_engine::regs::{
    bar0, control, descriptor, flag, operation, reason, register, status, status_state,
};
use device::dma_engine::{self, DmaEngine};
use mem::Pages;
use pci::regs::{command, doe, ext_id, header};
use pci::{DmaFaultReason, Function, Progress, walk};
use uapi::iommufd::{IoasAlloc, IoasMap, IoasUnmap, map_flags};
use uapi::vfio::{DetachIommufdPt, irq_index, irq_set};
use uapi::{Command, CommandId, Errno};
use vfio::{BarPages, CloseOrder, DeviceFile, Doe, Settings};

use crate::support::{
    ADDRESS, Counter, Irqs, MEMORY, Session, Stand, config_position, fds, position,
};

/// Where the client's pages appear to the engine.
const IOVA: u64 = 0x4000_0000;
const SOURCE: u64 = MEMORY + 0x1_0000;
const LENGTH: u32 = 0x3000;
const VECTOR: u32 = 3;

/// The client's view of the engine.
struct Driver {
    session: Session,
    window: Arc<Pages>,
    heard: Arc<Counter>,
    ioas: u32,
}

impl Driver {
    fn new(stand: &Stand<DmaEngine>) -> Self {
        let pages: BarPages = stand.bar_pages();
        let window = pages[bar0::INDEX].clone().unwrap();
        let mut session = Session::bind(DeviceFile::open(&stand.device, pages).unwrap());
        let (fd, heard) = session.client.open_eventfd();
        let flags = irq_set::ACTION_TRIGGER | irq_set::DATA_EVENTFD;
        let data = fds(&[fd]);
        let irqs = Irqs { index: irq_index::MSIX, flags, start: VECTOR, count: 1, data: &data };
        assert_eq!(session.set_irqs(irqs), Ok(0));
        let mut ioas = IoasAlloc { size: 12, ..Default::default() };
        assert_eq!(session.iommu_call(CommandId::IoasAlloc, &mut ioas), Ok(0));
        let driver = Self { session, window, heard, ioas: ioas.out_ioas_id };
        driver.session.attach(driver.ioas).unwrap();
        driver.map();
        driver.set_bus_master(true);
        driver.write_register(register::CONTROL, control::ENABLE);
        driver
    }

    fn map(&self) {
        let mut map = IoasMap {
            size: 40,
            flags: map_flags::FIXED_IOVA | map_flags::WRITEABLE | map_flags::READABLE,
            ioas_id: self.ioas,
            user_va: SOURCE,
            length: 0x1_0000,
            iova: IOVA,
            ..IoasMap::default()
        };
        assert_eq!(self.session.iommu_call(CommandId::IoasMap, &mut map), Ok(0));
    }

    fn set_bus_master(&self, on: bool) {
        let bus_master = if on { command::BUS_MASTER } else { 0 };
        let value = command::MEMORY | bus_master;
        self.session.set_config(header::COMMAND, &value.to_le_bytes());
    }

    fn write_register(&self, register: u64, value: u32) {
        let at = position(0, bar0::REGISTERS + register);
        assert_eq!(self.session.write(at, &value.to_le_bytes()), Ok(4));
    }

    fn read_register(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        assert_eq!(self.session.read(position(0, bar0::REGISTERS + register), &mut bytes), Ok(4));
        u32::from_le_bytes(bytes)
    }

    /// Copies from the first mapped page to the ninth; returns state and reason.
    fn copy(&self, engine: &DmaEngine) -> (u32, u32) {
        let put = |field: u64, value: u64| {
            self.window.write(at(bar0::DESCRIPTORS + field), &value.to_le_bytes());
        };
        put(descriptor::SOURCE, IOVA);
        put(descriptor::DESTINATION, IOVA + 0x8000);
        let words = [operation::COPY, flag::INTERRUPT, VECTOR, LENGTH];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.window.write(at(bar0::DESCRIPTORS), &bytes);
        self.write_register(register::DOORBELL, 0);
        while engine.step(1 << 20) == Progress::More {}
        let word = |field: u64| self.window.load_u32(at(bar0::STATUS_BLOCKS + field));
        (word(status::STATE), word(status::REASON))
    }

    fn fill(&self, byte: u8) {
        self.session.client.put(SOURCE, &vec![byte; LENGTH as usize]);
    }

    fn copied(&self) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH as usize];
        self.session.client.get(SOURCE + 0x8000, &mut bytes);
        bytes
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

#[test]
fn a_copy_is_done_and_heard() {
    let stand = Stand::engine(Settings::default());
    let driver = Driver::new(&stand);
    assert_eq!(driver.read_register(register::ID), 0x444e_4942);
    driver.fill(0x5a);
    assert_eq!(driver.copy(&stand.function), (status_state::DONE, reason::NONE));
    assert!(driver.copied().iter().all(|&byte| byte == 0x5a));
    assert_eq!(driver.heard.taken(), 1);
    assert!(stand.heard.unheard().is_empty());
    assert!(stand.heard.faults().is_empty());
    driver.session.close();
}

#[test]
fn after_a_reset_all_works_again() {
    let stand = Stand::engine(Settings::default());
    let driver = Driver::new(&stand);
    let request = Command::of(CommandId::DeviceReset).request;
    for round in 1..4 {
        assert_eq!(driver.session.file.ioctl(&driver.session.client, request, 0), Ok(0));
        assert_eq!(driver.read_register(register::CONTROL), 0);
        driver.write_register(register::CONTROL, control::ENABLE);
        driver.fill(round);
        assert_eq!(driver.copy(&stand.function), (status_state::DONE, reason::NONE));
        assert!(driver.copied().iter().all(|&byte| byte == round));
        assert_eq!(driver.heard.taken(), 1);
    }
    driver.session.close();
}

#[test]
fn dma_faults_where_it_must() {
    let stand = Stand::engine(Settings::default());
    let driver = Driver::new(&stand);
    driver.set_bus_master(false);
    driver.copy(&stand.function);
    assert_eq!(driver.copy(&stand.function), (status_state::FAULT, reason::BUS_MASTER_OFF));
    driver.set_bus_master(true);
    let mut unmap = IoasUnmap { size: 24, ioas_id: driver.ioas, iova: IOVA, length: 0x1_0000 };
    assert_eq!(driver.session.iommu_call(CommandId::IoasUnmap, &mut unmap), Ok(0));
    assert_eq!(driver.copy(&stand.function), (status_state::FAULT, reason::NOT_MAPPED));
    let mut detach = DetachIommufdPt { argsz: 8, ..Default::default() };
    let detached = driver.session.call(CommandId::DeviceDetachIommufdPt, &mut detach);
    assert_eq!(detached, Ok(0));
    assert_eq!(driver.copy(&stand.function), (status_state::FAULT, reason::NOT_ATTACHED));
    let reasons: Vec<_> = stand.heard.faults().iter().map(|fault| fault.reason).collect();
    assert!(reasons.ends_with(&[DmaFaultReason::NotMapped, DmaFaultReason::NotAttached]));
    driver.map();
    driver.session.attach(driver.ioas).unwrap();
    assert_eq!(driver.copy(&stand.function), (status_state::DONE, reason::NONE));
    driver.session.close();
}

#[test]
fn nothing_of_one_client_reaches_the_next() {
    for close_order in [CloseOrder::UnbindFirst, CloseOrder::Linux73] {
        let stand = Stand::engine(Settings { close_order, ..Settings::default() });
        for round in 0..3 {
            let driver = Driver::new(&stand);
            let mut window = [0xff; 16];
            driver.window.read(at(bar0::WINDOW), &mut window);
            assert_eq!(window, [0; 16], "round {round}");
            driver.window.write(at(bar0::WINDOW), &[0x77; 16]);
            driver.write_register(register::SCRATCH, 0x1234);
            driver.fill(0x31);
            // A doorbell that nobody has served yet: close must not let it run later.
            driver.window.write(at(bar0::DESCRIPTORS), &operation::NOP.to_le_bytes());
            driver.write_register(register::DOORBELL, 0);
            let heard = driver.heard.clone();
            driver.session.close();
            while stand.function.step(1 << 20) == Progress::More {}
            assert_eq!(heard.taken(), 0);
        }
        let driver = Driver::new(&stand);
        assert_eq!(driver.read_register(register::SCRATCH), 0);
        driver.session.close();
    }
}

/// One object there, one back: discovery of what else the mailbox takes.
#[test]
fn an_exposed_mailbox_answers_the_client() {
    let config = dma_engine::Config { tee: true, ..dma_engine::Config::new(ADDRESS) };
    let settings = Settings { doe: Doe::Exposed, ..Settings::default() };
    let stand = Stand::of(DmaEngine::new(&config), settings);
    let session = stand.bound();
    let read = |offset: u16, into: &mut [u8]| {
        let at = config_position(u64::from(offset));
        assert_eq!(session.read(at, into), Ok(into.len() as u64));
    };
    let found = walk::extended_capabilities(read);
    let at = found.iter().find(|capability| capability.id == ext_id::DOE).unwrap().offset;
    let pci_sig_discovery = 0x0001_u32;
    for dword in [pci_sig_discovery, 3, 0] {
        session.set_config(at + doe::WRITE_MAILBOX, &dword.to_le_bytes());
    }
    session.set_config(at + doe::CONTROL, &doe::GO.to_le_bytes());
    assert_eq!(session.config_dword(at + doe::STATUS), doe::READY);
    let mut answer = [0; 3];
    for dword in &mut answer {
        *dword = session.config_dword(at + doe::READ_MAILBOX);
        assert_eq!(session.config_dword(at + doe::READ_MAILBOX), *dword, "until it is taken");
        session.set_config(at + doe::READ_MAILBOX, &[0; 4]);
    }
    assert_eq!(answer[..2], [pci_sig_discovery, 3]);
    assert_eq!(answer[2] & 0xff_ffff, pci_sig_discovery, "discovery is what it lists first");
    assert_eq!(session.config_dword(at + doe::STATUS), 0);
    session.close();
}

#[test]
fn the_msix_table_cannot_be_mapped_or_read() {
    let stand = Stand::engine(Settings::default());
    let driver = Driver::new(&stand);
    let shared = vfio::MapRequest { shared: true, read: true, write: true, exec: false };
    let map =
        |region, offset, length| driver.session.file.mmap(position(region, offset), length, shared);
    assert_eq!(map(0, bar0::DESCRIPTORS, bar0::SIZE - bar0::DESCRIPTORS), Ok(()));
    assert_eq!(map(0, 0, bar0::SIZE), Err(Errno::EINVAL), "its first page has registers");
    assert_eq!(map(2, 0, 0x1000), Err(Errno::EINVAL));
    let mut table = [0; 16];
    assert_eq!(driver.session.read(position(2, 0), &mut table), Ok(16));
    assert_eq!(table, [0xff; 16]);
    driver.session.close();
}
