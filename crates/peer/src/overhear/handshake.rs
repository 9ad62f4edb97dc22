//! Certificates, KEY_EXCHANGE and FINISH: what makes a session, and whether it may.

use std::time::Duration;

use spdm::certificate::{CertificateFault, Chain, DeviceName, LeafUsage, Trust};
use spdm::crypto::hash;
use spdm::key_schedule::{Handshake, Side};
use spdm::message::KeyExchangeResponse;
use spdm::secured::SessionId;

use super::*;

/// What is known of a slot of certificates.
pub(super) struct Slot {
    /// The bytes so far.
    bytes: Vec<u8>,
    /// The leaf's key, once the chain is whole and holds.
    pub(super) public: Option<Vec<u8>>,
}

impl Overheard {
    /// Hears a portion of a chain. Gives the message's length.
    pub(super) fn certificate(
        &mut self,
        bytes: &[u8],
        told: &mut Told,
    ) -> Result<usize, PeerFault> {
        let length = words::of(bytes, &self.shape, told)?;
        let (message, _) = decode::<Certificate>(bytes, &self.shape)?;
        let begin = Slot { bytes: Vec::new(), public: None };
        let slot = self.slots.entry(message.slot).or_insert(begin);
        if slot.is_whole() {
            // It is fetched once more.
            slot.bytes.clear();
        }
        slot.bytes.extend(&message.portion);
        if message.remainder == 0
            && let Some(selected) = self.selected
        {
            let chain = Chain::read(&slot.bytes, selected.suite)?;
            slot.public = judge(self.crypto, selected.suite, &chain, told);
        }
        Ok(length)
    }

    pub(super) fn key_exchange(&mut self, bytes: &[u8], told: &mut Told) -> Result<(), PeerFault> {
        let (request, _) = decode::<KeyExchange>(&self.request, &self.shape)?;
        let shape = Shape { summary: request.summary != 0, ..self.shape };
        let (message, length) = decode::<KeyExchangeResponse>(bytes, &shape)?;
        words::of(bytes, &shape, told)?;
        let Some(selected) = self.selected else { return Ok(()) };
        let chain = self.slots.get(&request.slot).map_or(&[][..], |slot| &slot.bytes);
        let chain_hash = hash(self.crypto, selected.suite, chain);
        let proof = if self.in_clear_handshake { length } else { length - shape.hash_bytes };
        let unsigned = &bytes[..proof - message.signature.len()];
        let mut transcript = [&*self.vca, &chain_hash, &*self.request, unsigned].concat();
        self.verify(request.slot, Purpose::KeyExchange, &transcript, &message.signature, told);
        transcript.extend(&message.signature);
        let id = SessionId { requester: request.session, responder: message.session };
        if self.in_clear_handshake {
            told.unchecked("handshakes in the clear are not followed");
            return Ok(());
        }
        let th1 = hash(self.crypto, selected.suite, &transcript);
        let Some(handshake) = self.handshake(selected, &th1, &message.verify_data) else {
            told.unchecked("no secret in the key log is of this key exchange");
            return Ok(());
        };
        told.check("ResponderVerifyData is of the shared secret", true);
        transcript.extend(&message.verify_data);
        match Session::new(id, handshake, transcript) {
            Ok(session) => self.sessions.push(session),
            Err(fault) => told.unchecked(fault.to_string()),
        }
        Ok(())
    }

    /// The secret that the responder proves to have, taken from those that were given.
    fn handshake(&mut self, selected: Selected, th1: &[u8], proof: &[u8]) -> Option<Handshake> {
        let found = self.secrets.iter().enumerate().find_map(|(index, secret)| {
            let handshake = Handshake::new(self.crypto, selected, secret, th1);
            let proven = handshake.verify_data(Side::Responder, th1).matches(proof);
            proven.then_some((index, handshake))
        });
        let (index, handshake) = found?;
        self.secrets.remove(index);
        Some(handshake)
    }
}

impl Slot {
    /// Whether the bytes are all that their own length says.
    fn is_whole(&self) -> bool {
        self.bytes
            .first_chunk::<2>()
            .is_some_and(|&length| usize::from(u16::from_le_bytes(length)) <= self.bytes.len())
    }
}

/// Judges a chain as far as a reader of captures can: its root is the one it shows, its time is its own.
fn judge(crypto: &dyn Crypto, suite: Suite, chain: &Chain, told: &mut Told) -> Option<Vec<u8>> {
    let count = chain.certificates.len();
    let verdict = |usage| {
        let trust = Trust { roots: None, now: reading_time(), usage, name: DeviceName::Any };
        trust.judge(crypto, suite, chain)
    };
    let judged = verdict(LeafUsage::Responder).or_else(|_| verdict(LeafUsage::Server));
    match judged {
        Ok(public) => {
            let text = format!("the {count} certificates hold, up to a root that nobody verified");
            told.checks.push(Check::Holds(text));
            Some(public)
        }
        Err(CertificateFault::Path(error)) => {
            told.checks.push(Check::Fails(format!("the certificates do not hold: {error:?}")));
            None
        }
        Err(fault) => {
            told.checks.push(Check::Fails(fault.to_string()));
            None
        }
    }
}

fn reading_time() -> Duration {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
