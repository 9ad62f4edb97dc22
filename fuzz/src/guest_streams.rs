//! A device's DMA by a stream table entry, context descriptors and tables that a guest writes as it likes, on an SMMUv3; and the
//! guest's commands and events.
//!
//! What holds whatever the tables say is in `nested.rs`; events name the guest's own stream. Words are written by two bytes
//! each, so that little input goes deep.

use std::sync::Arc;

use iommufd::{EventFile, Geometry, Hardware};
use span::Span;
use uapi::iommufd::{
    HwptAlloc, HwptInvalidate, VdeviceAlloc, VeventqAlloc, ViommuAlloc, hwpt_data, invalidate_data,
    veventq_type, viommu_type,
};
use uapi::{CommandId, Errno};
use zerocopy::IntoBytes;

use crate::arena::PAGE_SIZE;
use crate::client::MEMORY_BASE;
use crate::input::Input;
use crate::nested::{DATA, Nested, SHOWN, index_of};

/// Steps of one input.
const STEPS_MAX: usize = 100;
/// What the guest knows the device by.
const STREAM: u64 = 0x108;
/// Valid, of stage 1.
const STAGE_1: u64 = 1 | 5 << 1;
/// A context descriptor: valid, of AArch64, faults recorded and aborted, 48 bits each way, 4 KiB in both halves.
const DESCRIPTOR: u64 =
    1 << 31 | 1 << 41 | 1 << 45 | 1 << 46 | 5 << 32 | 0b10 << 22 | 16 << 16 | 16;
/// Bytes of an event with its header.
const EVENT_BYTES: usize = 40;

/// Does what `bytes` say.
pub fn run(bytes: &[u8]) {
    accesses(bytes);
}

/// Does what `bytes` say, and tells of each access whether it was done.
pub fn accesses(bytes: &[u8]) -> Vec<bool> {
    let mut accesses = Vec::new();
    let mut input = Input::new(bytes);
    let rig = Rig::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        accesses.extend(rig.step(&mut input));
    }
    let Rig { guest, events, .. } = rig;
    events.release();
    drop(events);
    guest.finish();
    accesses
}

/// A client whose device is behind a guest's stream.
struct Rig {
    guest: Nested,
    viommu: u32,
    events: Arc<EventFile>,
}

impl Rig {
    fn new(input: &mut Input<'_>) -> Self {
        let shape = input.byte();
        let geometry = Geometry {
            aperture: Span::WHOLE,
            reserved: Vec::new(),
            page_sizes: 1 << 12 | 1 << 21 | 1 << 30,
            dirty_tracking: true,
            cache_coherent: true,
            msi_isolated: true,
            max_pasid_log2: if shape & 1 != 0 { 4 } else { 0 },
        };
        let guest = Nested::new(Hardware::Smmuv3, 48, geometry, 0);
        let dev_id = guest.device.id();
        let viommu = ViommuAlloc {
            r#type: viommu_type::ARM_SMMUV3,
            dev_id,
            hwpt_id: guest.parent,
            ..ViommuAlloc::default()
        };
        let viommu_id = guest.call(CommandId::ViommuAlloc, viommu).expect("a vIOMMU").out_viommu_id;
        let vdevice =
            VdeviceAlloc { viommu_id, dev_id, virt_id: STREAM, ..VdeviceAlloc::default() };
        guest.call(CommandId::VdeviceAlloc, vdevice).expect("a vdevice");
        let queue = VeventqAlloc {
            viommu_id,
            r#type: veventq_type::ARM_SMMUV3,
            veventq_depth: 4,
            ..VeventqAlloc::default()
        };
        guest.call(CommandId::VeventqAlloc, queue).expect("an event queue");
        let events = guest.client.events.borrow_mut().pop().expect("its file");
        Self { guest, viommu: viommu_id, events }
    }

    fn step(&self, input: &mut Input<'_>) -> Option<bool> {
        match input.choice(8) {
            0 => self.nest(input),
            1 => self.command(input),
            2 => self.guest.protect(input),
            3 | 4 => self.write_word(input),
            5 => self.read_events(input),
            _ => return Some(self.guest.access(input)),
        }
        None
    }

    /// Puts the device behind an entry that the input says; what was before is left alone.
    fn nest(&self, input: &mut Input<'_>) {
        let (root, odd) = (input.byte(), input.byte());
        let near = STAGE_1 | u64::from(root & 0x0f) << 12;
        let entry: [u64; 2] = match odd & 7 {
            0 => [near | u64::from(root >> 4) << 59, 0],
            1 => [near | u64::from(odd >> 3) << 4, u64::from(root >> 4)],
            2 => [1 | 4 << 1, 0],
            3 => [u64::from(root) & 1, 0],
            4 => [near, u64::from_le_bytes(input.array())],
            5 => [u64::from_le_bytes(input.array()), 0],
            _ => [near, 0],
        };
        self.guest.client.memory.poke((DATA - MEMORY_BASE) as usize, entry.as_bytes());
        let asked = HwptAlloc {
            dev_id: self.guest.device.id(),
            pt_id: self.viommu,
            data_type: hwpt_data::ARM_SMMUV3,
            data_len: size_of_val(&entry) as u32,
            data_uptr: DATA,
            ..HwptAlloc::default()
        };
        match self.guest.call(CommandId::HwptAlloc, asked) {
            Ok(made) => {
                self.guest.device.attach(made.out_hwpt_id).expect("the guest knows the device");
            }
            Err(errno) => assert_eq!(errno, Errno::EIO, "{entry:x?}"),
        }
    }

    fn command(&self, input: &mut Input<'_>) {
        const OPCODES: [u64; 8] = [0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x40];
        let mut batch = [[0_u64; 2]; 2];
        for command in &mut batch {
            let kind = input.byte();
            let opcode = OPCODES[usize::from(kind & 7)];
            let [low, high] = [input.word(), input.word()].map(u64::from);
            let stream = if kind & 8 != 0 { STREAM << 32 } else { low << 32 };
            *command = match kind >> 4 {
                0..=7 => [opcode | stream, u64::from(kind >> 4 & 1)],
                8..=13 => [opcode | stream, high << 12 | low & 0xfff],
                _ => [u64::from_le_bytes(input.array()), u64::from_le_bytes(input.array())],
            };
        }
        self.guest.client.memory.poke((DATA - MEMORY_BASE) as usize, batch.as_bytes());
        let asked = HwptInvalidate {
            hwpt_id: self.viommu,
            data_uptr: DATA,
            data_type: invalidate_data::VIOMMU_ARM_SMMUV3,
            entry_len: size_of_val(&batch[0]) as u32,
            entry_num: 2,
            ..HwptInvalidate::default()
        };
        let answer = self.guest.call(CommandId::HwptInvalidate, asked);
        assert!(matches!(answer, Ok(_) | Err(Errno::EIO)), "{batch:x?}: {answer:?}");
    }

    /// An entry of a table, or a word of a descriptor, which looks alike.
    fn write_word(&self, input: &mut Input<'_>) {
        let (place, target) = (input.byte(), input.byte());
        let (table, index) = (usize::from(place & 0x0f) % SHOWN, index_of(place >> 4));
        let at = table * PAGE_SIZE + index as usize * 8;
        let page = u64::from(target & 0x0f) << 12;
        let word = match target >> 4 {
            0..=4 => page | 0b11 | 1 << 6 | 1 << 10,
            5 => page | 0b11 | 1 << 6 | 1 << 7 | 1 << 10,
            6 => u64::from(target & 0x0f) << 21 | 0b01 | 1 << 6 | 1 << 10,
            7 => u64::from(target & 0x0f) << 30 | 0b01 | 1 << 6 | 1 << 10,
            8 => u64::from(target & 0x0f) << 60 | 0b11,
            9 | 10 => DESCRIPTOR ^ u64::from(target & 0x0f) << 14,
            11 => DESCRIPTOR ^ u64::from(target & 0x0f) << 35,
            12 => DESCRIPTOR + u64::from(target & 0x0f),
            13 => page,
            _ => u64::from_le_bytes(input.array()),
        };
        self.guest.client.memory.poke(at, &word.to_le_bytes());
    }

    fn read_events(&self, input: &mut Input<'_>) {
        let count = usize::from(input.byte());
        let Ok(read) = self.events.read(&self.guest.client, DATA, count as u64) else { return };
        let read = usize::try_from(read).expect("a few");
        assert!(read <= count && read.is_multiple_of(8), "{read} bytes of {count}");
        let bytes = self.guest.client.memory.peek::<256>(DATA);
        for event in bytes[..read].chunks_exact(EVENT_BYTES) {
            let stream = u32::from_le_bytes(*event[12..].first_chunk().expect("40 bytes"));
            assert_eq!(u64::from(stream), STREAM, "an event of another stream");
        }
    }
}
