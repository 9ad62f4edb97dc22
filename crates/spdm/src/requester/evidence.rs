//! DIGESTS, CERTIFICATE, CHALLENGE_AUTH, MEASUREMENTS: who the device is, and what runs on it.

use alloc::vec::Vec;

use super::{Measured, Outcome, Pending, Requester, Slot, Step};
use crate::certificate::Chain;
use crate::crypto::{Hasher, hash};
use crate::fault::{Error, PeerFault, Refusal};
use crate::message::{
    CONTEXT_BYTES, CapabilityFlags, Certificate, Challenge, ChallengeAuth, Digests, GetCertificate,
    GetDigests, GetMeasurements, Measurements, NONCE_BYTES, SLOT_MAX, Shape, decode, encode,
};
use crate::signing::{Purpose, signed_message};

pub(super) struct ExpectCertificate {
    slot: u8,
    request: Vec<u8>,
    asked: u16,
    chain: Vec<u8>,
}

pub(super) struct ExpectChallengeAuth {
    slot: u8,
    request: Vec<u8>,
    summary: bool,
    context: [u8; CONTEXT_BYTES],
}

pub(super) struct ExpectMeasurements {
    request: Vec<u8>,
    signed_by: Option<u8>,
    context: [u8; CONTEXT_BYTES],
}

impl Requester {
    pub(super) fn ask_digests(&mut self) -> Result<(Vec<u8>, Pending), Error> {
        let connection = self.need(CapabilityFlags::CERTIFICATE)?;
        connection.measured = None;
        let request = encode(&GetDigests, &connection.shape())?;
        Ok((request.clone(), Pending::Digests { request }))
    }

    pub(super) fn digests(&mut self, request: &[u8], message: &[u8]) -> Result<Step, Error> {
        let connection = self.connection()?;
        let (digests, length) = decode::<Digests>(message, &connection.shape())?;
        if !connection.is_secured() {
            connection.challenged.update(request);
            connection.challenged.update(&message[..length]);
        }
        connection.digests = Some(digests.clone());
        Ok(Step::Done(Outcome::Digests(digests)))
    }

    pub(super) fn ask_certificate(&mut self, slot: u8) -> Result<(Vec<u8>, Pending), Error> {
        if slot > SLOT_MAX {
            return Err(Refusal::Unsupported.into());
        }
        self.need(CapabilityFlags::CERTIFICATE)?.measured = None;
        self.portion(slot, Vec::new())
    }

    /// Asks for what follows `chain`.
    fn portion(&mut self, slot: u8, chain: Vec<u8>) -> Result<(Vec<u8>, Pending), Error> {
        /// Bytes of CERTIFICATE before the portion.
        const BEFORE_BYTES: u32 = 8;
        let room = self.config.limits.transfer_bytes_max.saturating_sub(BEFORE_BYTES);
        let offset = u16::try_from(chain.len()).map_err(|_| too_long(chain.len()))?;
        let asked = u16::try_from(room).unwrap_or(u16::MAX);
        let shape = self.connection()?.shape();
        let request = encode(&GetCertificate { slot, offset, length: asked }, &shape)?;
        let expect = ExpectCertificate { slot, request: request.clone(), asked, chain };
        Ok((request, Pending::Certificate(expect)))
    }

    pub(super) fn certificate(
        &mut self,
        expect: ExpectCertificate,
        message: &[u8],
    ) -> Result<Step, Error> {
        let ExpectCertificate { slot, request, asked, mut chain } = expect;
        let connection = self.connection()?;
        let (response, length) = decode::<Certificate>(message, &connection.shape())?;
        if response.slot != slot {
            return Err(contradiction("CERTIFICATE", "SlotID"));
        }
        let portion = response.portion.len();
        if portion == 0 || portion > usize::from(asked) {
            return Err(contradiction("CERTIFICATE", "PortionLength"));
        }
        if !connection.is_secured() {
            connection.challenged.update(&request);
            connection.challenged.update(&message[..length]);
        }
        chain.extend(response.portion);
        if response.remainder != 0 {
            let (request, pending) = self.portion(slot, chain)?;
            return Ok(Step::Send(self.send(request, pending)?));
        }
        self.judge(slot, &chain)?;
        Ok(Step::Done(Outcome::Certificate(chain)))
    }

    /// Keeps the leaf's key of a slot whose chain is trusted.
    fn judge(&mut self, slot: u8, bytes: &[u8]) -> Result<(), Error> {
        let crypto = self.crypto;
        let connection = self.connection()?;
        let suite = connection.selected.suite;
        let hash = hash(crypto, suite, bytes);
        let told = connection.digests.as_ref().and_then(|digests| digests.of_slot(slot));
        if told.is_some_and(|told| told != hash) {
            return Err(contradiction("CERTIFICATE", "CertChain"));
        }
        let chain = Chain::read(bytes, suite)?;
        let public = self.config.trust.judge(crypto, suite, &chain)?;
        let place = self.connection()?.slots.get_mut(usize::from(slot));
        *place.ok_or(Refusal::Unsupported)? = Some(Slot { hash, public });
        Ok(())
    }

    pub(super) fn ask_challenge(
        &mut self,
        slot: u8,
        summary: u8,
    ) -> Result<(Vec<u8>, Pending), Error> {
        let (nonce, context) = (self.random::<NONCE_BYTES>()?, self.context()?);
        let connection = self.need(CapabilityFlags::CHALLENGE)?;
        if connection.is_secured() {
            return Err(Refusal::WrongState.into());
        }
        connection.slot(slot)?;
        connection.measured = None;
        let request = encode(&Challenge { slot, summary, nonce, context }, &connection.shape())?;
        let (pending, summary) = (request.clone(), summary != 0);
        let expect = ExpectChallengeAuth { slot, request: pending, summary, context };
        Ok((request, Pending::Challenge(expect)))
    }

    pub(super) fn challenge_auth(
        &mut self,
        expect: &ExpectChallengeAuth,
        message: &[u8],
    ) -> Result<Step, Error> {
        const NAME: &str = "CHALLENGE_AUTH";
        let begun = self.begin_transcript()?;
        let connection = self.connection()?;
        let shape = Shape { summary: expect.summary, ..connection.shape() };
        let (response, length) = decode::<ChallengeAuth>(message, &shape)?;
        if response.slot != expect.slot {
            return Err(contradiction(NAME, "SlotID"));
        }
        if response.context != expect.context {
            return Err(contradiction(NAME, "RequesterContext"));
        }
        if response.chain_hash != connection.slot(expect.slot)?.hash {
            return Err(contradiction(NAME, "CertChainHash"));
        }
        let mut signed = core::mem::replace(&mut connection.challenged, begun);
        signed.update(&expect.request);
        signed.update(&message[..length - response.signature.len()]);
        self.verify(NAME, expect.slot, Purpose::Challenge, &*signed, &response.signature)?;
        Ok(Step::Done(Outcome::Authentic(response.summary)))
    }

    pub(super) fn ask_measurements(
        &mut self,
        operation: u8,
        signed_by: Option<u8>,
        nonce: Option<[u8; NONCE_BYTES]>,
    ) -> Result<(Vec<u8>, Pending), Error> {
        let nonce = nonce.map_or_else(|| self.random(), Ok)?;
        let context = self.context()?;
        let begun = self.begin_transcript()?;
        let connection = self.need(CapabilityFlags::MEASUREMENTS_SIGNED)?;
        if let Some(slot) = signed_by {
            connection.slot(slot)?;
        }
        if !connection.is_secured() {
            connection.challenged = begun;
        }
        let signed = signed_by.map(|slot| (slot, nonce));
        let request = encode(&GetMeasurements { operation, signed, context }, &connection.shape())?;
        let expect = ExpectMeasurements { request: request.clone(), signed_by, context };
        Ok((request, Pending::Measurements(expect)))
    }

    pub(super) fn measurements(
        &mut self,
        expect: &ExpectMeasurements,
        message: &[u8],
    ) -> Result<Step, Error> {
        const NAME: &str = "MEASUREMENTS";
        let begun = self.begin_transcript()?;
        let connection = self.connection()?;
        let shape = Shape { signed: expect.signed_by.is_some(), ..connection.shape() };
        let (response, length) = decode::<Measurements>(message, &shape)?;
        if response.context != expect.context {
            return Err(contradiction(NAME, "RequesterContext"));
        }
        let measured = connection.measured.take();
        let mut measured = measured.unwrap_or(Measured { transcript: begun, messages: Vec::new() });
        measured.transcript.update(&expect.request);
        measured.transcript.update(&message[..length - response.signature.len()]);
        measured.messages.extend_from_slice(&expect.request);
        measured.messages.extend_from_slice(&message[..length]);
        match expect.signed_by {
            Some(slot) => {
                let (purpose, transcript) = (Purpose::Measurements, &*measured.transcript);
                self.verify(NAME, slot, purpose, transcript, &response.signature)?;
                self.connection()?.signed = measured.messages;
            }
            None => connection.measured = Some(measured),
        }
        Ok(Step::Done(Outcome::Measurements(response)))
    }

    /// Verifies a signature by the key of `slot`'s leaf.
    pub(super) fn verify(
        &mut self,
        message: &'static str,
        slot: u8,
        purpose: Purpose,
        transcript: &dyn Hasher,
        signature: &[u8],
    ) -> Result<(), Error> {
        let crypto = self.crypto;
        let connection = self.connection()?;
        let selected = connection.selected;
        let signed = signed_message(selected.version, purpose, &transcript.digest());
        crypto
            .verify(selected.suite, &connection.slot(slot)?.public, &signed, signature)
            .map_err(|_| PeerFault::Signature { message }.into())
    }

    pub(super) fn random<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A context for one exchange; zero where the version has none.
    fn context(&mut self) -> Result<[u8; CONTEXT_BYTES], Error> {
        let version = self.connection()?.selected.version;
        if version.has_context() { self.random() } else { Ok([0; CONTEXT_BYTES]) }
    }
}

pub(super) fn contradiction(message: &'static str, field: &'static str) -> Error {
    PeerFault::Contradiction { message, field }.into()
}

fn too_long(length: usize) -> PeerFault {
    PeerFault::Oversized { length: length as u64, max: u16::MAX.into() }
}
