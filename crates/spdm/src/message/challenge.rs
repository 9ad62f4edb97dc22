//! CHALLENGE and CHALLENGE_AUTH: proof that the private key of a chain is there.

use alloc::vec::Vec;

use super::{
    CONTEXT_BYTES, Code, Header, Message, NONCE_BYTES, SLOT_MASK, Shape, read_context, read_opaque,
    read_slot, write_context, write_opaque,
};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// Asks for the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The slot whose key is to sign.
    pub slot: u8,
    /// Which measurements are to be summed up: 0 none, 1 of the trusted base, 0xff all.
    pub summary: u8,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// Whatever the requester likes (1.3).
    pub context: [u8; CONTEXT_BYTES],
}

impl Message for Challenge {
    const CODE: Code = Code::CHALLENGE;
    const NAME: &'static str = "CHALLENGE";

    fn parameters(&self) -> (u8, u8) {
        (self.slot, self.summary)
    }

    fn write(&self, w: &mut Writer, shape: &Shape) {
        w.bytes(&self.nonce);
        write_context(w, shape, &self.context);
    }

    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault> {
        let slot = read_slot(r, header.parameter1)?;
        let (nonce, context) = (r.array()?, read_context(r, shape)?);
        Ok(Self { slot, summary: header.parameter2, nonce, context })
    }
}

/// The proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeAuth {
    /// The slot whose key signs.
    pub slot: u8,
    /// Slots that have a chain, a bit each.
    pub provisioned: u8,
    /// The hash of the slot's chain.
    pub chain_hash: Vec<u8>,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// The summary of measurements; empty if none was asked for.
    pub summary: Vec<u8>,
    /// Whatever the responder likes.
    pub opaque: Vec<u8>,
    /// What the requester sent (1.3).
    pub context: [u8; CONTEXT_BYTES],
    /// Over the transcript up to here.
    pub signature: Vec<u8>,
}

impl Message for ChallengeAuth {
    const CODE: Code = Code::CHALLENGE_AUTH;
    const NAME: &'static str = "CHALLENGE_AUTH";

    fn parameters(&self) -> (u8, u8) {
        (self.slot & SLOT_MASK, self.provisioned)
    }

    fn write(&self, w: &mut Writer, shape: &Shape) {
        w.bytes(&self.chain_hash);
        w.bytes(&self.nonce);
        w.bytes(&self.summary);
        write_opaque(w, &self.opaque);
        write_context(w, shape, &self.context);
        w.bytes(&self.signature);
    }

    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault> {
        Ok(Self {
            slot: read_slot(r, header.parameter1)?,
            provisioned: header.parameter2,
            chain_hash: r.bytes(shape.hash_bytes)?.to_vec(),
            nonce: r.array()?,
            summary: r.bytes(shape.summary_bytes())?.to_vec(),
            opaque: read_opaque(r)?,
            context: read_context(r, shape)?,
            signature: r.bytes(shape.signature_bytes)?.to_vec(),
        })
    }
}
