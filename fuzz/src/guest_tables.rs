//! A device's DMA through tables that a guest writes as it likes, nested in a page table that shows some of its memory.
//!
//! What holds whatever the tables say is in `nested.rs`. Entries are written by two bytes each, so that little input goes deep.

use iommufd::{Geometry, Hardware};
use span::Span;
use uapi::iommufd::{
    HwptAlloc, HwptInvalidate, HwptVtdS1, HwptVtdS1Invalidate, hwpt_data, hwpt_flags,
    invalidate_data,
};
use uapi::{CommandId, Errno};
use zerocopy::{FromZeros, IntoBytes};

use crate::arena::PAGE_SIZE;
use crate::client::MEMORY_BASE;
use crate::input::Input;
use crate::nested::{DATA, Nested, SHOWN, index_of};

/// Steps of one input.
const STEPS_MAX: usize = 100;

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
    rig.guest.finish();
    accesses
}

/// A client whose device goes through a guest's tables.
struct Rig {
    guest: Nested,
    /// Where address bits end.
    five_levels: bool,
    nested: Option<u32>,
}

impl Rig {
    fn new(input: &mut Input<'_>) -> Self {
        let shape = input.byte();
        let five_levels = shape & 1 != 0;
        let geometry = Geometry {
            aperture: Span::WHOLE,
            reserved: Vec::new(),
            page_sizes: 1 << 12 | 1 << 21 | u64::from(shape & 2 != 0) << 30,
            dirty_tracking: true,
            cache_coherent: true,
            msi_isolated: true,
            max_pasid_log2: 0,
        };
        let bits = if five_levels { 57 } else { 48 };
        let guest = Nested::new(Hardware::Vtd, bits, geometry, hwpt_flags::DIRTY_TRACKING);
        Self { guest, five_levels, nested: None }
    }

    fn step(&mut self, input: &mut Input<'_>) -> Option<bool> {
        match input.choice(8) {
            0 => self.nest(input),
            1 => self.invalidate(input),
            2 => self.guest.protect(input),
            3 | 4 => self.write_entry(input),
            _ => return Some(self.guest.access(input)),
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
        self.guest.client.memory.poke((DATA - MEMORY_BASE) as usize, stage.as_bytes());
        let asked = HwptAlloc {
            dev_id: self.guest.device.id(),
            pt_id: self.guest.parent,
            data_type: hwpt_data::VTD_S1,
            data_len: size_of::<HwptVtdS1>() as u32,
            data_uptr: DATA,
            ..HwptAlloc::default()
        };
        let made = self.guest.call(CommandId::HwptAlloc, asked).expect("any tables can be named");
        let is_known = width == 48 || width == 57 && self.five_levels;
        let attached = self.guest.device.attach(made.out_hwpt_id);
        assert_eq!(attached.is_ok(), is_known, "tables of {width} bits");
        if attached.is_ok() {
            self.nested = Some(made.out_hwpt_id);
        }
    }

    fn invalidate(&self, input: &mut Input<'_>) {
        const BYTES: usize = size_of::<HwptVtdS1Invalidate>();
        let entries: [u8; 2 * BYTES] = input.array();
        self.guest.client.memory.poke((DATA - MEMORY_BASE) as usize, &entries);
        let asked = HwptInvalidate {
            hwpt_id: self.nested.unwrap_or(self.guest.parent),
            data_uptr: DATA,
            data_type: invalidate_data::VTD_S1,
            entry_len: BYTES as u32,
            entry_num: 2,
            ..HwptInvalidate::default()
        };
        let answer = self.guest.call(CommandId::HwptInvalidate, asked);
        assert!(matches!(answer, Ok(_) | Err(Errno::EINVAL | Errno::EOPNOTSUPP)), "{answer:?}");
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
        self.guest.client.memory.poke(at, &entry.to_le_bytes());
    }
}
