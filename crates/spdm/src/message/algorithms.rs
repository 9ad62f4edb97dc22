//! NEGOTIATE_ALGORITHMS and ALGORITHMS: one side offers, the other selects.

use alloc::vec::Vec;

use super::{Code, HEADER_BYTES, Header, Message, Shape};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// The bit of OtherParams: opaque data has the general format.
pub const OTHER_PARAMS_OPAQUE_FORMAT_1: u8 = 0x02;

/// Algorithms of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// The kind.
    pub kind: u8,
    /// Offered: each bit an algorithm. Selected: one bit, or none.
    pub bits: u16,
}

impl Structure {
    /// The kind of key exchanges.
    pub const DHE: u8 = 2;
    /// The kind of ciphers.
    pub const AEAD: u8 = 3;
    /// The kind of the requester's signatures.
    pub const REQUESTER_ASYMMETRIC: u8 = 4;
    /// The kind of key schedules.
    pub const KEY_SCHEDULE: u8 = 5;
    /// The key schedule of SPDM, the only one.
    pub const KEY_SCHEDULE_SPDM: u16 = 0x01;

    /// A structure has two bytes of bits and no external algorithm.
    const COUNTS: u8 = 0x20;
    /// The number of external algorithms in the counts.
    const EXTERNAL_MASK: u8 = 0x0f;
    /// Bytes of an external algorithm.
    const EXTERNAL_BYTES: usize = 4;

    /// The bits of `kind` among `structures`; none where it is absent.
    pub fn bits_of(structures: &[Self], kind: u8) -> u16 {
        structures.iter().find(|structure| structure.kind == kind).map_or(0, |found| found.bits)
    }

    fn write(&self, w: &mut Writer) {
        w.u8(self.kind);
        w.u8(Self::COUNTS);
        w.u16(self.bits);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, PeerFault> {
        let kind = r.u8()?;
        let counts = r.u8()?;
        if counts & !Self::EXTERNAL_MASK != Self::COUNTS {
            return Err(r.unknown("AlgCount", counts));
        }
        let bits = r.u16()?;
        r.reserved(usize::from(counts & Self::EXTERNAL_MASK) * Self::EXTERNAL_BYTES)?;
        Ok(Self { kind, bits })
    }

    /// Reads `count` structures, whose kinds ascend.
    fn read_all(r: &mut Reader<'_>, count: u8) -> Result<Vec<Self>, PeerFault> {
        let mut structures: Vec<Self> = Vec::new();
        for _ in 0..count {
            let structure = Self::read(r)?;
            if structures.last().is_some_and(|last| last.kind >= structure.kind) {
                return Err(r.unknown("AlgType", structure.kind));
            }
            structures.push(structure);
        }
        Ok(structures)
    }
}

/// Offers algorithms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiateAlgorithms {
    /// Formats of measurements.
    pub measurement_specification: u8,
    /// Formats of opaque data.
    pub other_params: u8,
    /// Signatures.
    pub asymmetric: u32,
    /// Hashes.
    pub hash: u32,
    /// Formats of measurement logs (1.3).
    pub log_specification: u8,
    /// The rest, by kind.
    pub structures: Vec<Structure>,
}

impl Message for NegotiateAlgorithms {
    const CODE: Code = Code::NEGOTIATE_ALGORITHMS;
    const NAME: &'static str = "NEGOTIATE_ALGORITHMS";

    fn parameters(&self) -> (u8, u8) {
        (count(&self.structures), 0)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        const FIXED_BYTES: usize = 32;
        w.count_u16(FIXED_BYTES + self.structures.len() * STRUCTURE_BYTES);
        w.u8(self.measurement_specification);
        w.u8(self.other_params);
        w.u32(self.asymmetric);
        w.u32(self.hash);
        w.reserved(12);
        w.u8(0);
        w.u8(0);
        w.reserved(1);
        w.u8(self.log_specification);
        self.structures.iter().for_each(|structure| structure.write(w));
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        let length = r.u16()?;
        let (measurement_specification, other_params) = (r.u8()?, r.u8()?);
        let (asymmetric, hash) = (r.u32()?, r.u32()?);
        r.reserved(12)?;
        let external = usize::from(r.u8()?) + usize::from(r.u8()?);
        r.reserved(1)?;
        let log_specification = r.u8()?;
        r.reserved(external * Structure::EXTERNAL_BYTES)?;
        let structures = Structure::read_all(r, header.parameter1)?;
        check_length(r, length)?;
        Ok(Self {
            measurement_specification,
            other_params,
            asymmetric,
            hash,
            log_specification,
            structures,
        })
    }
}

/// Selects algorithms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Algorithms {
    /// The format of measurements.
    pub measurement_specification: u8,
    /// The format of opaque data.
    pub other_params: u8,
    /// The hash of measurements.
    pub measurement_hash: u32,
    /// The signature.
    pub asymmetric: u32,
    /// The hash.
    pub hash: u32,
    /// The format of measurement logs (1.3).
    pub log_specification: u8,
    /// The rest, by kind.
    pub structures: Vec<Structure>,
}

impl Message for Algorithms {
    const CODE: Code = Code::ALGORITHMS;
    const NAME: &'static str = "ALGORITHMS";

    fn parameters(&self) -> (u8, u8) {
        (count(&self.structures), 0)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        const FIXED_BYTES: usize = 36;
        w.count_u16(FIXED_BYTES + self.structures.len() * STRUCTURE_BYTES);
        w.u8(self.measurement_specification);
        w.u8(self.other_params);
        w.u32(self.measurement_hash);
        w.u32(self.asymmetric);
        w.u32(self.hash);
        w.reserved(11);
        w.u8(self.log_specification);
        w.u8(0);
        w.u8(0);
        w.reserved(2);
        self.structures.iter().for_each(|structure| structure.write(w));
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        let length = r.u16()?;
        let (measurement_specification, other_params) = (r.u8()?, r.u8()?);
        let (measurement_hash, asymmetric, hash) = (r.u32()?, r.u32()?, r.u32()?);
        r.reserved(11)?;
        let log_specification = r.u8()?;
        let external = usize::from(r.u8()?) + usize::from(r.u8()?);
        r.reserved(2)?;
        r.reserved(external * Structure::EXTERNAL_BYTES)?;
        let structures = Structure::read_all(r, header.parameter1)?;
        check_length(r, length)?;
        Ok(Self {
            measurement_specification,
            other_params,
            measurement_hash,
            asymmetric,
            hash,
            log_specification,
            structures,
        })
    }
}

/// Bytes of a structure without external algorithms.
const STRUCTURE_BYTES: usize = HEADER_BYTES;

/// There are fewer kinds than a byte can count; a longer list ends in a length that is refused.
fn count(structures: &[Structure]) -> u8 {
    u8::try_from(structures.len()).unwrap_or(u8::MAX)
}

fn check_length(r: &Reader<'_>, length: u16) -> Result<(), PeerFault> {
    if usize::from(length) == r.position() { Ok(()) } else { Err(r.unknown("Length", length)) }
}
