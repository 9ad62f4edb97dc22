//! DIGESTS, CERTIFICATE, CHALLENGE_AUTH, MEASUREMENTS: who the device is, and what runs on it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Answer, Denied, Device, Parts};
use crate::crypto::{Hasher, hash};
use crate::message::{
    Block, Certificate, Challenge, ChallengeAuth, Digests, ErrorCode, GetCertificate, GetDigests,
    GetMeasurements, Measurements, NONCE_BYTES, OPERATION_ALL, Shape, decode, encode,
};
use crate::signing::{Purpose, signed_message};
use crate::wire::Writer;

/// Nothing changed while the measurements that are signed were taken.
const NOTHING_CHANGED: u8 = 0b10 << 4;
/// No summary of measurements.
const SUMMARY_NONE: u8 = 0;
/// A summary of what the device trusts.
const SUMMARY_TRUSTED: u8 = 1;
/// A summary of all.
const SUMMARY_ALL: u8 = 0xff;
/// The operation that asks how many measurements there are.
const OPERATION_COUNT: u8 = 0;

impl Parts<'_> {
    /// `challenged`: the exchange is part of what CHALLENGE_AUTH signs.
    pub(super) fn digests(&mut self, message: &[u8], challenged: bool) -> Answer {
        let shape = self.connection.shape();
        let (GetDigests, length) = decode(message, &shape)?;
        let digests: Vec<_> = self.identities.iter().map(|one| one.hash.clone()).collect();
        let provisioned = self.provisioned();
        let supported = if shape.version.has_context() { provisioned } else { 0 };
        let response = encode(&Digests { supported, provisioned, digests }, &shape)?;
        if challenged {
            self.connection.challenged.update(&message[..length]);
            self.connection.challenged.update(&response);
        }
        Ok(response)
    }

    pub(super) fn certificate(&mut self, message: &[u8], challenged: bool) -> Answer {
        /// What a portion is at most, so that it fits into each requester's mailbox.
        const OVERHEAD_BYTES: usize = 64;
        let shape = self.connection.shape();
        let (request, length) = decode::<GetCertificate>(message, &shape)?;
        let chain = &self.identity(request.slot)?.chain;
        let invalid = Denied::new(ErrorCode::INVALID_REQUEST);
        let rest = match chain.get(usize::from(request.offset)..) {
            Some(rest) if !rest.is_empty() && request.length != 0 => rest,
            _ => return Err(invalid),
        };
        let room = usize::try_from(self.connection.peer.transfer_bytes_max).unwrap_or(usize::MAX);
        let room = room.saturating_sub(OVERHEAD_BYTES).max(1);
        let (portion, after) = rest.split_at(rest.len().min(request.length.into()).min(room));
        let response = Certificate {
            slot: request.slot,
            model: 0,
            portion: portion.to_vec(),
            remainder: u16::try_from(after.len()).map_err(|_| invalid)?,
        };
        let response = encode(&response, &shape)?;
        if challenged {
            self.connection.challenged.update(&message[..length]);
            self.connection.challenged.update(&response);
        }
        Ok(response)
    }

    pub(super) fn challenge(&mut self, device: &mut dyn Device, message: &[u8]) -> Answer {
        let shape = self.connection.shape();
        let (request, length) = decode::<Challenge>(message, &shape)?;
        let chain_hash = self.identity(request.slot)?.hash.clone();
        let response = ChallengeAuth {
            slot: request.slot,
            provisioned: self.provisioned(),
            chain_hash,
            nonce: self.nonce()?,
            summary: self.summary(device, request.summary)?,
            opaque: Vec::new(),
            context: request.context,
            signature: Vec::new(),
        };
        let mut response = encode(&response, &shape)?;
        let begun = self.begin_transcript();
        let mut signed = core::mem::replace(&mut self.connection.challenged, begun);
        signed.update(&message[..length]);
        signed.update(&response);
        response.extend(self.sign(request.slot, Purpose::Challenge, &*signed)?);
        Ok(response)
    }

    /// `measured` is what was measured before without a signature.
    pub(super) fn measurements(
        &mut self,
        device: &mut dyn Device,
        message: &[u8],
        measured: &mut Option<Box<dyn Hasher>>,
    ) -> Answer {
        let shape = self.connection.shape();
        let (request, length) = decode::<GetMeasurements>(message, &shape)?;
        let all = device.measurements();
        let total = u8::try_from(all.len()).unwrap_or(u8::MAX);
        let blocks: Vec<Block> = match request.operation {
            OPERATION_COUNT => Vec::new(),
            OPERATION_ALL => all,
            index => {
                let one = all.into_iter().find(|block| block.index == index);
                Vec::from([one.ok_or(Denied::new(ErrorCode::INVALID_REQUEST))?])
            }
        };
        if let Some((slot, _)) = request.signed {
            self.identity(slot)?;
        }
        let response = Measurements {
            total: if request.operation == OPERATION_COUNT { total } else { 0 },
            slot_and_change: request.signed.map_or(0, |(slot, _)| slot | NOTHING_CHANGED),
            blocks,
            nonce: self.nonce()?,
            opaque: Vec::new(),
            context: request.context,
            signature: Vec::new(),
        };
        let mut response = encode(&response, &Shape { signed: false, ..shape })?;
        let mut transcript = measured.take().unwrap_or_else(|| self.begin_transcript());
        transcript.update(&message[..length]);
        transcript.update(&response);
        match request.signed {
            Some((slot, _)) => {
                response.extend(self.sign(slot, Purpose::Measurements, &*transcript)?);
            }
            None => *measured = Some(transcript),
        }
        Ok(response)
    }

    /// The summary that a request asks for. Each measurement is of what the device trusts.
    pub(super) fn summary(&self, device: &mut dyn Device, kind: u8) -> Answer {
        match kind {
            SUMMARY_NONE => Ok(Vec::new()),
            SUMMARY_TRUSTED | SUMMARY_ALL => {
                let mut record = Writer::default();
                device.measurements().iter().for_each(|block| block.write(&mut record));
                Ok(hash(self.crypto, self.connection.selected.suite, &record.finish()?))
            }
            _ => Err(Denied::new(ErrorCode::INVALID_REQUEST)),
        }
    }

    pub(super) fn sign(&self, slot: u8, purpose: Purpose, transcript: &dyn Hasher) -> Answer {
        let version = self.connection.selected.version;
        let message = signed_message(version, purpose, &transcript.digest());
        Ok(self.identity(slot)?.signer.sign(&message)?)
    }

    pub(super) fn nonce(&mut self) -> Result<[u8; NONCE_BYTES], Denied> {
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce)?;
        Ok(nonce)
    }

    /// Slots that have a chain, a bit each.
    fn provisioned(&self) -> u8 {
        (0..self.identities.len()).fold(0, |mask, slot| mask | 1 << slot)
    }
}
