//! KEY_EXCHANGE, FINISH and all that comes only in a session.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::evidence::contradiction;
use super::{Outcome, Pending, Requester, Session, Step};
use crate::crypto::{Hasher, KeyShare, draw_key_share};
use crate::endpoint::{Keys, transcript};
use crate::fault::{Error, PeerFault, Refusal};
use crate::key_schedule::{Handshake, Side};
use crate::message::{
    CapabilityFlags, EndSession, EndSessionAck, Finish, FinishResponse, HEADER_BYTES, Heartbeat,
    HeartbeatAck, KeyExchange, KeyExchangeResponse, KeyOperation, KeyUpdate, KeyUpdateAck, Shape,
    VendorDefined, VendorResponse, decode, encode, read_selected, supported_secured_versions,
};
use crate::secured::SessionId;
use crate::signing::Purpose;

const KEY_EXCHANGE_RSP: &str = "KEY_EXCHANGE_RSP";

pub(super) struct ExpectKeyExchange {
    slot: u8,
    summary: bool,
    session: u16,
    request: Vec<u8>,
    share: Box<dyn KeyShare>,
}

pub(super) struct ExpectFinish {
    id: SessionId,
    heartbeat_s: u8,
    summary: Vec<u8>,
    handshake: Handshake,
    /// To the end of FINISH.
    transcript: Box<dyn Hasher>,
    pub(super) keys: Keys,
}

pub(super) struct ExpectKeyUpdate {
    operation: KeyOperation,
    tag: u8,
}

impl ExpectKeyUpdate {
    pub(super) fn renews_peer(&self) -> bool {
        self.operation == KeyOperation::UpdateAll
    }
}

impl Requester {
    pub(super) fn ask_session(
        &mut self,
        slot: u8,
        summary: u8,
    ) -> Result<(Vec<u8>, Pending), Error> {
        let flags = CapabilityFlags::KEY_EXCHANGE | CapabilityFlags::ENCRYPT | CapabilityFlags::MAC;
        let (random, begun) = (self.random()?, self.begin_transcript()?);
        let session = self.session_number;
        let connection = self.need(flags)?;
        if connection.is_secured() {
            return Err(Refusal::WrongState.into());
        }
        connection.slot(slot)?;
        connection.measured = None;
        connection.challenged = begun;
        let (shape, group) = (connection.shape(), connection.selected.group);
        let share = draw_key_share(self.crypto, &mut *self.entropy, group)?;
        let request = KeyExchange {
            summary,
            slot,
            session,
            policy: 0,
            random,
            exchange: share.public(),
            opaque: supported_secured_versions(),
        };
        let request = encode(&request, &shape)?;
        self.session_number = session.checked_sub(1).unwrap_or(u16::MAX);
        self.has_begun_session = true;
        let expect = ExpectKeyExchange {
            slot,
            summary: summary != 0,
            session,
            request: request.clone(),
            share,
        };
        Ok((request, Pending::KeyExchange(Box::new(expect))))
    }

    pub(super) fn key_exchange(
        &mut self,
        expect: ExpectKeyExchange,
        message: &[u8],
    ) -> Result<Step, Error> {
        let crypto = self.crypto;
        let connection = self.connection()?;
        let selected = connection.selected;
        let shape = Shape { summary: expect.summary, ..connection.shape() };
        let (response, length) = decode::<KeyExchangeResponse>(message, &shape)?;
        check(&response)?;
        let (hash, vca) = (&connection.slot(expect.slot)?.hash, &connection.vca);
        let mut transcript = transcript(crypto, selected.suite, &[vca, hash, &expect.request]);
        let proof = length - response.verify_data.len();
        let signature = proof - response.signature.len();
        transcript.update(&message[..signature]);
        let (slot, purpose) = (expect.slot, Purpose::KeyExchange);
        self.verify(KEY_EXCHANGE_RSP, slot, purpose, &*transcript, &response.signature)?;
        transcript.update(&message[signature..proof]);
        let point = |_| PeerFault::Point { message: KEY_EXCHANGE_RSP };
        let shared = expect.share.agree(&response.exchange).map_err(point)?;
        let th1 = transcript.digest();
        let handshake = Handshake::new(crypto, selected, &shared, &th1);
        if !handshake.verify_data(Side::Responder, &th1).matches(&response.verify_data) {
            return Err(PeerFault::VerifyData { message: KEY_EXCHANGE_RSP }.into());
        }
        transcript.update(&message[proof..length]);
        let id = SessionId { requester: expect.session, responder: response.session };
        let keys = Keys::handshake(id, &handshake, Side::Requester)?;
        let request = finish(&handshake, &mut *transcript, &shape)?;
        let KeyExchangeResponse { heartbeat_s, summary, .. } = response;
        let expect = ExpectFinish { id, heartbeat_s, summary, handshake, transcript, keys };
        Ok(Step::Send(self.send(request, Pending::Finish(Box::new(expect)))?))
    }

    pub(super) fn finish(
        &mut self,
        mut expect: ExpectFinish,
        message: &[u8],
    ) -> Result<Step, Error> {
        let connection = self.connection()?;
        let (FinishResponse, length) = decode(message, &connection.shape())?;
        expect.transcript.update(&message[..length]);
        let application = expect.handshake.application(&expect.transcript.digest());
        let ExpectFinish { id, heartbeat_s, summary, .. } = expect;
        let keys = Keys::application(id, &application, Side::Requester)?;
        connection.session = Some(Session { id, keys });
        Ok(Step::Done(Outcome::Established { id, heartbeat_s, summary }))
    }

    pub(super) fn ask_heartbeat(&mut self) -> Result<(Vec<u8>, Pending), Error> {
        let shape = self.in_session(CapabilityFlags::HEARTBEAT)?;
        Ok((encode(&Heartbeat, &shape)?, Pending::Heartbeat))
    }

    pub(super) fn heartbeat(&mut self, message: &[u8]) -> Result<Step, Error> {
        let (HeartbeatAck, _) = decode(message, &self.connection()?.shape())?;
        Ok(Step::Done(Outcome::Alive))
    }

    pub(super) fn ask_key_update(&mut self, both: bool) -> Result<(Vec<u8>, Pending), Error> {
        self.in_session(CapabilityFlags::KEY_UPDATE)?;
        let all = KeyOperation::UpdateAll;
        self.key_operation(if both { all } else { KeyOperation::UpdateRequester })
    }

    fn key_operation(&mut self, operation: KeyOperation) -> Result<(Vec<u8>, Pending), Error> {
        let [tag] = self.random()?;
        let request = encode(&KeyUpdate { operation, tag }, &self.connection()?.shape())?;
        Ok((request, Pending::KeyUpdate(ExpectKeyUpdate { operation, tag })))
    }

    /// The answer to an update of both is already under the peer's new key.
    pub(super) fn key_update(
        &mut self,
        expect: ExpectKeyUpdate,
        message: &[u8],
    ) -> Result<Step, Error> {
        let connection = self.connection()?;
        let (response, _) = decode::<KeyUpdateAck>(message, &connection.shape())?;
        let ExpectKeyUpdate { operation, tag } = expect;
        if response != (KeyUpdateAck { operation, tag }) {
            return Err(contradiction("KEY_UPDATE_ACK", "Tag"));
        }
        if operation == KeyOperation::Verify {
            return Ok(Step::Done(Outcome::KeysUpdated));
        }
        let session = connection.session.as_mut().ok_or(Refusal::WrongState)?;
        session.keys.sealer.update()?;
        let (request, pending) = self.key_operation(KeyOperation::Verify)?;
        Ok(Step::Send(self.send(request, pending)?))
    }

    pub(super) fn ask_vendor_defined(
        &mut self,
        message: VendorDefined,
    ) -> Result<(Vec<u8>, Pending), Error> {
        let connection = self.connection()?;
        connection.measured = None;
        let request = encode(&message, &connection.shape())?;
        let VendorDefined { standard, vendor, .. } = message;
        Ok((request, Pending::VendorDefined { standard, vendor }))
    }

    pub(super) fn vendor_defined(
        &mut self,
        standard: u16,
        vendor: &[u8],
        message: &[u8],
    ) -> Result<Step, Error> {
        let shape = self.connection()?.shape();
        let (VendorResponse(response), _) = decode(message, &shape)?;
        if response.standard != standard || response.vendor != vendor {
            return Err(contradiction("VENDOR_DEFINED_RESPONSE", "VendorID"));
        }
        Ok(Step::Done(Outcome::VendorDefined(response)))
    }

    pub(super) fn ask_end_session(&mut self) -> Result<(Vec<u8>, Pending), Error> {
        let shape = self.in_session(CapabilityFlags::default())?;
        Ok((encode(&EndSession { attributes: 0 }, &shape)?, Pending::EndSession))
    }

    pub(super) fn end_session(&mut self, message: &[u8]) -> Result<Step, Error> {
        let connection = self.connection()?;
        let (EndSessionAck, _) = decode(message, &connection.shape())?;
        connection.session = None;
        self.has_begun_session = false;
        Ok(Step::Done(Outcome::Ended))
    }

    /// Refuses what needs a session where there is none.
    fn in_session(&mut self, flags: CapabilityFlags) -> Result<Shape, Refusal> {
        let connection = self.need(flags)?;
        connection.measured = None;
        if connection.is_secured() { Ok(connection.shape()) } else { Err(Refusal::WrongState) }
    }
}

/// What cannot be read off the message's form alone.
fn check(response: &KeyExchangeResponse) -> Result<(), PeerFault> {
    if response.mutual != 0 {
        let (message, field) = (KEY_EXCHANGE_RSP, "MutAuthRequested");
        return Err(PeerFault::UnknownValue { message, field, value: response.mutual.into() });
    }
    read_selected(&response.opaque)
}

/// FINISH, which the transcript then includes.
fn finish(
    handshake: &Handshake,
    transcript: &mut dyn Hasher,
    shape: &Shape,
) -> Result<Vec<u8>, Error> {
    let mut request = encode(&Finish { verify_data: Vec::new() }, shape)?;
    debug_assert_eq!(request.len(), HEADER_BYTES);
    transcript.update(&request);
    let proof = handshake.verify_data(Side::Requester, &transcript.digest());
    transcript.update(proof.expose());
    request.extend_from_slice(proof.expose());
    Ok(request)
}
