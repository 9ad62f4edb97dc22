//! A device's DMA through tables that a guest writes as it likes, nested in a page table that shows some of its memory.
//!
//! Whatever the tables say, DMA stays in what the parent shows, ends, and names a byte of its own where it is refused;
//! when all is closed nothing is pinned or alive. Entries are written by two bytes each, so that little input goes deep.

use std::sync::Arc;

use iommufd::{Context, Device, Endpoint, Geometry, Group, Hardware, Iommu};
use pci::{Address, Dma, DmaFault, Interrupt, Notices};
use span::Span;
use uapi::iommufd::{
    HwptAlloc, HwptInvalidate, HwptVtdS1, HwptVtdS1Invalidate, IoasAlloc, IoasMap, hwpt_data,
    hwpt_flags, invalidate_data, map_flags,
};
use uapi::{Command, CommandId, Errno, Profile};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::arena::{Access, Allowed, Ledger, PAGE_SIZE, Reach};
use crate::client::{Client, MEMORY_BASE};
use crate::input::Input;

/// Steps of one input.
const STEPS_MAX: usize = 100;
/// Pages from the first that the parent shows, at guest-physical address 0; the others are the client's own.
const SHOWN: usize = 12;
const DATA: u64 = MEMORY_BASE + 0xe000;
const STRUCTS: u64 = MEMORY_BASE + 0xf000;
/// Bytes of one access at most.
const BUFFER: usize = 3 * PAGE_SIZE;

struct Unheard;

impl Notices for Unheard {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}

    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

/// Does what `bytes` say.
pub fn run(bytes: &[u8]) {
    accesses(bytes);
}

/// Does what `bytes` say, and tells of each access whether it was done.
pub fn accesses(bytes: &[u8]) -> Vec<bool> {
    let mut accesses = Vec::new();
    let mut input = Input::new(bytes);
    let mut rig = Rig::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        accesses.extend(rig.step(&mut input));
    }
    rig.finish();
    accesses
}

/// A client whose device goes through a guest's tables.
struct Rig {
    ledger: Arc<Ledger>,
    client: Client,
    context: Arc<Context>,
    device: Arc<Device>,
    /// Where address bits end.
    five_levels: bool,
    parent: u32,
    nested: Option<u32>,
}

impl Rig {
    fn new(input: &mut Input<'_>) -> Self {
        let shape = input.byte();
        let five_levels = shape & 1 != 0;
        let bits = if five_levels { 57 } else { 48 };
        let geometry = Geometry {
            aperture: Span::from_ends(0, (1 << bits) - 1).expect("0 is first"),
            reserved: Vec::new(),
            page_sizes: 1 << 12 | 1 << 21 | u64::from(shape & 2 != 0) << 30,
            dirty_tracking: true,
            cache_coherent: true,
            msi_isolated: true,
            max_pasid_log2: 0,
        };
        let ledger = Arc::new(Ledger::default());
        let client = Client::new(&ledger);
        let memory = Arc::clone(&client.memory);
        let shown = Reach { memory, range: 0..SHOWN * PAGE_SIZE, read: true, write: true };
        ledger.allow_dma(Allowed::To(vec![shown]));
        let context = Context::open(Profile::Linux73);
        let address = Address::new(0xb1d0, 1, 0, 0).expect("an address");
        let iommu = Iommu::of(Hardware::Vtd, geometry);
        let endpoint = Endpoint::new(address, Group::new(1), iommu, Arc::new(Unheard));
        let device = Device::bind(&context, &endpoint).expect("a device alone in its group");
        let mut rig =
            Self { ledger, client, context, device, five_levels, parent: 0, nested: None };
        rig.parent = rig.show();
        rig
    }

    /// Makes the page table that the guest's are nested in.
    fn show(&self) -> u32 {
        let ioas = self.call(CommandId::IoasAlloc, IoasAlloc::default()).expect("an IOAS");
        let map = IoasMap {
            flags: map_flags::FIXED_IOVA | map_flags::READABLE | map_flags::WRITEABLE,
            ioas_id: ioas.out_ioas_id,
            user_va: MEMORY_BASE,
            length: (SHOWN * PAGE_SIZE) as u64,
            ..IoasMap::default()
        };
        self.call(CommandId::IoasMap, map).expect("a mapping");
        let parent = HwptAlloc {
            flags: hwpt_flags::NEST_PARENT | hwpt_flags::DIRTY_TRACKING,
            dev_id: self.device.id(),
            pt_id: ioas.out_ioas_id,
            ..HwptAlloc::default()
        };
        self.call(CommandId::HwptAlloc, parent).expect("a page table").out_hwpt_id
    }

    fn call<T: IntoBytes + FromBytes + Immutable>(
        &self,
        id: CommandId,
        argument: T,
    ) -> Result<T, Errno> {
        let at = (STRUCTS - MEMORY_BASE) as usize;
        self.client.memory.poke(at, argument.as_bytes());
        self.client.memory.poke(at, &(size_of::<T>() as u32).to_ne_bytes());
        self.context.ioctl(&self.client, Command::of(id).request, STRUCTS)?;
        let bytes = self.client.memory.peek::<256>(STRUCTS);
        Ok(T::read_from_prefix(&bytes).expect("structs are smaller").0)
    }

    fn step(&mut self, input: &mut Input<'_>) -> Option<bool> {
        match input.choice(8) {
            0 => self.nest(input),
            1 => self.invalidate(input),
            2 => self.protect(input),
            3 | 4 => self.write_entry(input),
            _ => return Some(self.access(input)),
        }
        None
    }

    /// Attaches the device to tables that begin where the input says; what was before is left alone.
    fn nest(&mut self, input: &mut Input<'_>) {
        let (root, flags, odd) = (input.byte(), input.byte(), input.byte());
        let width = match odd {
            0xff => u32::from(input.byte()),
            _ if self.five_levels => 57,
            _ => 48,
        };
        let stage = HwptVtdS1 {
            flags: flags.into(),
            pgtbl_addr: u64::from(root & 0x0f) << 12 | u64::from(root >> 4) << 40,
            addr_width: width,
            ..HwptVtdS1::new_zeroed()
        };
        self.client.memory.poke((DATA - MEMORY_BASE) as usize, stage.as_bytes());
        let asked = HwptAlloc {
            dev_id: self.device.id(),
            pt_id: self.parent,
            data_type: hwpt_data::VTD_S1,
            data_len: size_of::<HwptVtdS1>() as u32,
            data_uptr: DATA,
            ..HwptAlloc::default()
        };
        let made = self.call(CommandId::HwptAlloc, asked).expect("any tables can be named");
        let is_known = width == 48 || width == 57 && self.five_levels;
        let attached = self.device.attach(made.out_hwpt_id);
        assert_eq!(attached.is_ok(), is_known, "tables of {width} bits");
        if attached.is_ok() {
            self.nested = Some(made.out_hwpt_id);
        }
    }

    fn invalidate(&self, input: &mut Input<'_>) {
        const BYTES: usize = size_of::<HwptVtdS1Invalidate>();
        let entries: [u8; 2 * BYTES] = input.array();
        self.client.memory.poke((DATA - MEMORY_BASE) as usize, &entries);
        let asked = HwptInvalidate {
            hwpt_id: self.nested.unwrap_or(self.parent),
            data_uptr: DATA,
            data_type: invalidate_data::VTD_S1,
            entry_len: BYTES as u32,
            entry_num: 2,
            ..HwptInvalidate::default()
        };
        let answer = self.call(CommandId::HwptInvalidate, asked);
        assert!(matches!(answer, Ok(_) | Err(Errno::EINVAL | Errno::EOPNOTSUPP)), "{answer:?}");
    }

    /// Takes a page of what is shown away, or gives it back.
    fn protect(&self, input: &mut Input<'_>) {
        let byte = input.byte();
        let gone = byte & 0x80 != 0;
        let page = usize::from(byte & 0x7f) % SHOWN;
        self.client.memory.protect(page, Access { gone, ..Access::ALL });
    }

    fn write_entry(&self, input: &mut Input<'_>) {
        let (place, target) = (input.byte(), input.byte());
        let (table, index) = (usize::from(place & 0x0f) % SHOWN, index_of(place >> 4));
        let at = table * PAGE_SIZE + index as usize * 8;
        let entry = match target >> 4 {
            0..=7 => u64::from(target & 0x0f) << 12 | 0b111,
            8 | 9 => u64::from(target & 0x0f) << 21 | 0b1000_0111,
            10 => u64::from(target & 0x0f) << 30 | 0b1000_0111,
            11 => u64::from(target & 0x0f) << 12 | 0b101,
            12 => u64::from(target & 0x0f) << 49 | 0b111,
            _ => u64::from_le_bytes(input.array()),
        };
        self.client.memory.poke(at, &entry.to_le_bytes());
    }

    fn access(&self, input: &mut Input<'_>) -> bool {
        let (how, offset) = (input.byte(), input.word());
        let through: [u8; 3] = input.array();
        let parts = through.iter().flat_map(|byte| [byte & 0x0f, byte >> 4]).take(5);
        let iova = parts.fold(0, |iova, part| iova << 9 | index_of(part)) << 12;
        let iova = if how & 2 != 0 { !0 << 57 | iova } else { iova } | u64::from(offset & 0xfff);
        let length = usize::from(how >> 2) * BUFFER / 63;
        let mut buffer = [0; BUFFER];
        let bytes = &mut buffer[..length];
        let answer = match how & 1 {
            0 => self.device.read(iova, bytes),
            _ => self.device.write(iova, bytes),
        };
        if let Err(fault) = answer {
            let index = fault.iova.wrapping_sub(iova);
            assert!(index < length as u64, "{fault:?} of {length} bytes at {iova:#x}");
        }
        answer.is_ok()
    }

    fn finish(self) {
        let Self { ledger, client, context, device, .. } = self;
        client.memory.protect_all(Access::ALL);
        device.end();
        drop(device);
        context.put_file();
        // It names memory, which names the ledger.
        ledger.allow_dma(Allowed::Nowhere);
        assert_eq!(ledger.pinned_bytes(), 0, "bytes pinned for a closed file");
        assert_eq!(Arc::strong_count(&context), 1, "somebody has the context");
    }
}

/// Entries of tables that are used: the first, the last, and a few between.
fn index_of(part: u8) -> u64 {
    match part & 0x0f {
        15 => 511,
        14 => 256,
        part => u64::from(part & 3),
    }
}
