//! KEY_EXCHANGE, FINISH and their responses: how a session begins.

use alloc::vec::Vec;

use super::{Code, Header, Message, NONCE_BYTES, Shape, read_opaque, read_slot, write_opaque};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// Begins a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyExchange {
    /// Which measurements are to be summed up: 0 none, 1 of the trusted base, 0xff all.
    pub summary: u8,
    /// The slot whose key is to sign.
    pub slot: u8,
    /// The requester's number for the session.
    pub session: u16,
    /// What may happen to the device during the session.
    pub policy: u8,
    /// Random.
    pub random: [u8; NONCE_BYTES],
    /// Both coordinates of an ephemeral public key.
    pub exchange: Vec<u8>,
    /// Versions of secured messages that are spoken.
    pub opaque: Vec<u8>,
}

impl Message for KeyExchange {
    const CODE: Code = Code::KEY_EXCHANGE;
    const NAME: &'static str = "KEY_EXCHANGE";

    fn parameters(&self) -> (u8, u8) {
        (self.summary, self.slot)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.u16(self.session);
        w.u8(self.policy);
        w.reserved(1);
        w.bytes(&self.random);
        w.bytes(&self.exchange);
        write_opaque(w, &self.opaque);
    }

    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault> {
        let slot = read_slot(r, header.parameter2)?;
        let (session, policy) = (r.u16()?, r.u8()?);
        r.reserved(1)?;
        Ok(Self {
            summary: header.parameter1,
            slot,
            session,
            policy,
            random: r.array()?,
            exchange: r.bytes(shape.exchange_bytes)?.to_vec(),
            opaque: read_opaque(r)?,
        })
    }
}

/// Begins a session on the other side. The HMAC at its end is there because a handshake in the clear
/// is never negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyExchangeResponse {
    /// The longest time between two messages of the session, in seconds; 0: no heartbeat.
    pub heartbeat_s: u8,
    /// The responder's number for the session.
    pub session: u16,
    /// Whether and how the requester must authenticate itself.
    pub mutual: u8,
    /// The slot that the requester must use for that.
    pub mutual_slot: u8,
    /// Random.
    pub random: [u8; NONCE_BYTES],
    /// Both coordinates of an ephemeral public key.
    pub exchange: Vec<u8>,
    /// The summary of measurements; empty if none was asked for.
    pub summary: Vec<u8>,
    /// The version of secured messages that is selected.
    pub opaque: Vec<u8>,
    /// Over the transcript up to here.
    pub signature: Vec<u8>,
    /// An HMAC over the transcript up to here.
    pub verify_data: Vec<u8>,
}

impl Message for KeyExchangeResponse {
    const CODE: Code = Code::KEY_EXCHANGE_RSP;
    const NAME: &'static str = "KEY_EXCHANGE_RSP";

    fn parameters(&self) -> (u8, u8) {
        (self.heartbeat_s, 0)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.u16(self.session);
        w.u8(self.mutual);
        w.u8(self.mutual_slot);
        w.bytes(&self.random);
        w.bytes(&self.exchange);
        w.bytes(&self.summary);
        write_opaque(w, &self.opaque);
        w.bytes(&self.signature);
        w.bytes(&self.verify_data);
    }

    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault> {
        Ok(Self {
            heartbeat_s: header.parameter1,
            session: r.u16()?,
            mutual: r.u8()?,
            mutual_slot: r.u8()?,
            random: r.array()?,
            exchange: r.bytes(shape.exchange_bytes)?.to_vec(),
            summary: r.bytes(shape.summary_bytes())?.to_vec(),
            opaque: read_opaque(r)?,
            signature: r.bytes(shape.signature_bytes)?.to_vec(),
            verify_data: r.bytes(shape.hash_bytes)?.to_vec(),
        })
    }
}

/// Proves that the requester has the keys. Never signed: there is no mutual authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// An HMAC over the transcript.
    pub verify_data: Vec<u8>,
}

impl Message for Finish {
    const CODE: Code = Code::FINISH;
    const NAME: &'static str = "FINISH";

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.bytes(&self.verify_data);
    }

    fn read(header: Header, r: &mut Reader<'_>, shape: &Shape) -> Result<Self, PeerFault> {
        const SIGNATURE_INCLUDED: u8 = 0x01;
        if header.parameter1 & SIGNATURE_INCLUDED != 0 {
            return Err(r.unknown("SignatureIncluded", header.parameter1));
        }
        Ok(Self { verify_data: r.bytes(shape.hash_bytes)?.to_vec() })
    }
}

/// Ends the handshake. Without an HMAC: that is in [`KeyExchangeResponse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishResponse;

super::bare_message!(FinishResponse, FINISH_RSP);
