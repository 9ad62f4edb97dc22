//! GET_MEASUREMENTS and MEASUREMENTS: what runs on the device.

use alloc::vec::Vec;

use super::{
    CONTEXT_BYTES, Code, Header, Message, NONCE_BYTES, Shape, read_context, read_opaque, read_slot,
    write_context, write_opaque,
};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// The operation that asks for all measurements; 0 asks how many there are.
pub const OPERATION_ALL: u8 = 0xff;
/// The bit of the attributes that asks for a signature.
const ATTRIBUTE_SIGNATURE: u8 = 0x01;

/// Asks for measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetMeasurements {
    /// 0: how many; 1 to 0xfe: one by its index; [`OPERATION_ALL`].
    pub operation: u8,
    /// Asks for a signature: the slot whose key signs, and random bytes.
    pub signed: Option<(u8, [u8; NONCE_BYTES])>,
    /// Whatever the requester likes (1.3).
    pub context: [u8; CONTEXT_BYTES],
}

impl Message for GetMeasurements {
    const CODE: Code = Code::GET_MEASUREMENTS;
    const NAME: &'static str = "GET_MEASUREMENTS";

    fn parameters(&self) -> (u8, u8) {
        let attributes = if self.signed.is_some() { ATTRIBUTE_SIGNATURE } else { 0 };
        (attributes, self.operation)
    }

    fn write(&self, w: &mut Writer, shape: &Shape) {
        if let Some((slot, nonce)) = &self.signed {
            w.bytes(nonce);
            w.u8(*slot);
        }
        write_context(w, shape, &self.context);
    }

    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault> {
        let signed = if header.parameter1 & ATTRIBUTE_SIGNATURE == 0 {
            None
        } else {
            let nonce = r.array()?;
            let slot = r.u8()?;
            Some((read_slot(r, slot)?, nonce))
        };
        let context = read_context(r, shape)?;
        Ok(Self { operation: header.parameter2, signed, context })
    }
}

/// Measurements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurements {
    /// How many there are, if that was asked.
    pub total: u8,
    /// The second parameter: the slot in bits 3:0, whether something changed in 5:4.
    pub slot_and_change: u8,
    /// What was asked for.
    pub blocks: Vec<Block>,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// Whatever the responder likes.
    pub opaque: Vec<u8>,
    /// What the requester sent (1.3).
    pub context: [u8; CONTEXT_BYTES],
    /// Over the transcript up to here; empty if none was asked for.
    pub signature: Vec<u8>,
}

impl Message for Measurements {
    const CODE: Code = Code::MEASUREMENTS;
    const NAME: &'static str = "MEASUREMENTS";

    fn parameters(&self) -> (u8, u8) {
        (self.total, self.slot_and_change)
    }

    fn write(&self, w: &mut Writer, shape: &Shape) {
        w.count_u8(self.blocks.len());
        w.count_u24(self.blocks.iter().map(Block::wire_bytes).sum());
        self.blocks.iter().for_each(|block| block.write(w));
        w.bytes(&self.nonce);
        write_opaque(w, &self.opaque);
        write_context(w, shape, &self.context);
        w.bytes(&self.signature);
    }

    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault> {
        let count = r.u8()?;
        let length = usize::try_from(r.u24()?).unwrap_or(usize::MAX);
        let record = r.bytes(length)?;
        let blocks = Reader::all("a measurement record", record, |r| {
            (0..count).map(|_| Block::read(r)).collect::<Result<_, _>>()
        })?;
        Ok(Self {
            total: header.parameter1,
            slot_and_change: header.parameter2,
            blocks,
            nonce: r.array()?,
            opaque: read_opaque(r)?,
            context: read_context(r, shape)?,
            signature: r.bytes(shape.asked_signature_bytes())?.to_vec(),
        })
    }
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number, from 1.
    pub index: u8,
    /// What it is of: bits 6:0; bit 7 says that the value is no hash.
    pub kind: u8,
    /// A hash, or the bytes themselves.
    pub value: Vec<u8>,
}

impl Block {
    /// The specification of what is inside: DMTF.
    const SPECIFICATION_DMTF: u8 = 0x01;
    /// Bytes before the measurement: index, specification, length.
    const HEADER_BYTES: usize = 4;
    /// Bytes before the value: kind, length.
    const VALUE_HEADER_BYTES: usize = 3;

    /// Bytes on the wire.
    pub fn wire_bytes(&self) -> usize {
        Self::HEADER_BYTES + Self::VALUE_HEADER_BYTES + self.value.len()
    }

    /// Writes the block as it stands in a record, and in what a summary is made of.
    pub fn write(&self, w: &mut Writer) {
        w.u8(self.index);
        w.u8(Self::SPECIFICATION_DMTF);
        w.count_u16(Self::VALUE_HEADER_BYTES + self.value.len());
        w.u8(self.kind);
        w.count_u16(self.value.len());
        w.bytes(&self.value);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, PeerFault> {
        let index = r.u8()?;
        if index == 0 {
            return Err(r.unknown("Index", index));
        }
        let specification = r.u8()?;
        if specification != Self::SPECIFICATION_DMTF {
            return Err(r.unknown("MeasurementSpecification", specification));
        }
        let size = r.u16()?;
        Reader::all("a measurement", r.bytes(size.into())?, |r| {
            let kind = r.u8()?;
            let length = r.u16()?;
            Ok(Self { index, kind, value: r.bytes(length.into())?.to_vec() })
        })
    }
}
