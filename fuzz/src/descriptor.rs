//! Descriptors of the DMA engine as bytes, for seeds.

use device::dma_engine::regs::{bar0, descriptor};

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    /// What to do.
    pub operation: u32,
    /// Whether and how to interrupt.
    pub flags: u32,
    /// Bytes.
    pub length: u32,
    /// From where.
    pub source: u64,
    /// To where.
    pub destination: u64,
    /// The offset in the data window.
    pub window: u32,
}

impl Descriptor {
    /// The bytes of the descriptor.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; descriptor::SIZE as usize];
        let mut put = |field: u64, value: &[u8]| {
            bytes[field as usize..][..value.len()].copy_from_slice(value);
        };
        put(descriptor::OPERATION, &self.operation.to_le_bytes());
        put(descriptor::FLAGS, &self.flags.to_le_bytes());
        put(descriptor::LENGTH, &self.length.to_le_bytes());
        put(descriptor::SOURCE, &self.source.to_le_bytes());
        put(descriptor::DESTINATION, &self.destination.to_le_bytes());
        put(descriptor::PATTERN, &0x0123_4567_89ab_cdef_u64.to_le_bytes());
        put(descriptor::WINDOW_OFFSET, &self.window.to_le_bytes());
        bytes
    }

    /// Where the descriptor of a slot lies, from the start of what can be mapped.
    pub fn offset(slot: u16) -> u16 {
        (bar0::DESCRIPTORS - bar0::REGISTERS_LENGTH) as u16 + slot * descriptor::SIZE as u16
    }
}
