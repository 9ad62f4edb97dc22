//! GET_DIGESTS and DIGESTS: hashes of the certificate chains.

use alloc::vec::Vec;

use super::{Code, Header, Message, Shape, bare_message};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// Asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetDigests;

bare_message!(GetDigests, GET_DIGESTS);

/// A hash for each slot that has a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Slots that could have a chain, a bit each (1.3; zero before).
    pub supported: u8,
    /// Slots that have one, a bit each.
    pub provisioned: u8,
    /// Their hashes, lowest slot first.
    pub digests: Vec<Vec<u8>>,
}

impl Digests {
    /// The hash of `slot`'s chain.
    pub fn of_slot(&self, slot: u8) -> Option<&[u8]> {
        let bit = 1_u8.checked_shl(slot.into())?;
        if self.provisioned & bit == 0 {
            return None;
        }
        let before = (self.provisioned & (bit - 1)).count_ones();
        self.digests.get(usize::try_from(before).ok()?).map(Vec::as_slice)
    }
}

impl Message for Digests {
    const CODE: Code = Code::DIGESTS;
    const NAME: &'static str = "DIGESTS";

    fn parameters(&self) -> (u8, u8) {
        (self.supported, self.provisioned)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        self.digests.iter().for_each(|digest| w.bytes(digest));
    }

    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault> {
        let (supported, provisioned) = (header.parameter1, header.parameter2);
        if shape.version.has_context() && provisioned & !supported != 0 {
            return Err(r.unknown("SupportedSlotMask", supported));
        }
        let digests = (0..provisioned.count_ones())
            .map(|_| r.bytes(shape.hash_bytes).map(<[u8]>::to_vec))
            .collect::<Result<_, _>>()?;
        Ok(Self { supported, provisioned, digests })
    }
}
