//! KEY_EXCHANGE and all that comes in a session.
//!
//! A [`Session`] is taken out of the responder while it answers, and put back if it goes on: a
//! session that failed half-way cannot be met again.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{
    Answer, Chunks, Denied, Device, Frame, Phase, RECORD_OVERHEAD_BYTES, Responder, unexpected,
    vendor_defined,
};
use crate::crypto::{Hasher, draw_key_share};
use crate::endpoint::{Keys, transcript};
use crate::fault::Error;
use crate::key_schedule::{Handshake, Side};
use crate::message::{
    Code, EndSession, EndSessionAck, ErrorCode, Finish, FinishResponse, HEADER_BYTES, Header,
    Heartbeat, HeartbeatAck, KeyExchange, KeyExchangeResponse, KeyOperation, KeyUpdate,
    KeyUpdateAck, Shape, decode, encode, read_supported, selected_secured_version,
};
use crate::secured::SessionId;
use crate::signing::Purpose;

/// A session, from KEY_EXCHANGE_RSP on.
pub(super) struct Session {
    id: SessionId,
    /// As KEY_EXCHANGE_RSP told it.
    heartbeat_s: u8,
    keys: Keys,
    stage: Stage,
}

enum Stage {
    /// FINISH is to come.
    Handshake(Box<ExpectFinish>),
    Established(Established),
}

struct ExpectFinish {
    handshake: Handshake,
    /// To the end of KEY_EXCHANGE_RSP.
    transcript: Box<dyn Hasher>,
}

struct Established {
    /// What MEASUREMENTS signs: L1. `None` until it is asked for.
    measured: Option<Box<dyn Hasher>>,
    /// Whether the requester must prove its new keys before anything else.
    unverified: bool,
    chunks: Chunks,
}

impl Session {
    pub(super) const fn id(&self) -> SessionId {
        self.id
    }

    pub(super) const fn heartbeat_s(&self) -> u8 {
        self.heartbeat_s
    }

    pub(super) const fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Established(_))
    }
}

/// An answer in a session, and what becomes of the session.
struct Reply {
    answer: Vec<u8>,
    then: Then,
}

/// What becomes of a session after an answer, which is always sent under the keys before.
enum Then {
    GoesOn,
    Ends,
    Becomes(Box<Keys>, Stage),
}

impl Responder {
    pub(super) fn key_exchange(&mut self, device: &mut dyn Device, message: &[u8]) -> Answer {
        if self.sessions.len() >= self.config.sessions_max {
            return Err(Denied::new(ErrorCode::SESSION_LIMIT_EXCEEDED));
        }
        let responder = self.unused_session_number();
        let heartbeat_s = self.heartbeat_for_both();
        let mut parts = self.parts()?;
        let shape = parts.connection.shape();
        let selected = parts.connection.selected;
        let (request, length) = decode::<KeyExchange>(message, &shape)?;
        read_supported(&request.opaque)?;
        let chain_hash = parts.identity(request.slot)?.hash.clone();
        let share = draw_key_share(parts.crypto, parts.entropy, selected.group)?;
        let response = KeyExchangeResponse {
            heartbeat_s,
            session: responder,
            mutual: 0,
            mutual_slot: 0,
            random: parts.nonce()?,
            exchange: share.public(),
            summary: parts.summary(device, request.summary)?,
            opaque: selected_secured_version(),
            signature: Vec::new(),
            verify_data: Vec::new(),
        };
        let mut response = encode(&response, &shape)?;
        let vca = &parts.connection.vca;
        let mut transcript = transcript(parts.crypto, selected.suite, &[vca, &chain_hash]);
        transcript.update(&message[..length]);
        transcript.update(&response);
        let signature = parts.sign(request.slot, Purpose::KeyExchange, &*transcript)?;
        transcript.update(&signature);
        response.extend(signature);
        let shared =
            share.agree(&request.exchange).map_err(|_| Denied::new(ErrorCode::INVALID_REQUEST))?;
        let th1 = transcript.digest();
        let handshake = Handshake::new(parts.crypto, selected, &shared, &th1);
        let proof = handshake.verify_data(Side::Responder, &th1);
        transcript.update(proof.expose());
        response.extend_from_slice(proof.expose());
        let id = SessionId { requester: request.session, responder };
        let keys = Keys::handshake(id, &handshake, Side::Responder)?;
        let stage = Stage::Handshake(Box::new(ExpectFinish { handshake, transcript }));
        if !self.chunk_terms(0).takes(&response) {
            return Err(Denied::new(ErrorCode::RESPONSE_TOO_LARGE));
        }
        self.sessions.push(Session { id, heartbeat_s, keys, stage });
        Ok(response)
    }

    pub(super) fn handle_record(&mut self, device: &mut dyn Device, record: &[u8]) -> Frame {
        let id = SessionId::of_record(record);
        let place = self.sessions.iter().position(|session| Ok(session.id) == id);
        let Some(place) = place else {
            return self.refuse_in_the_clear(ErrorCode::INVALID_SESSION);
        };
        let mut session = self.sessions.swap_remove(place);
        let id = session.id;
        let Ok(message) = session.keys.opener.open(record) else {
            device.session_ended(id);
            return self.refuse_in_the_clear(ErrorCode::DECRYPT_ERROR);
        };
        match self.answer_in(session, device, &message) {
            Ok((Some(session), frame)) => {
                self.sessions.push(session);
                frame
            }
            Ok((None, frame)) => {
                device.session_ended(id);
                frame
            }
            Err(_) => {
                device.session_ended(id);
                self.refuse_in_the_clear(ErrorCode::UNSPECIFIED)
            }
        }
    }

    /// Answers `message` in `session`, which goes on or does not.
    fn answer_in(
        &mut self,
        mut session: Session,
        device: &mut dyn Device,
        message: &[u8],
    ) -> Result<(Option<Session>, Frame), Error> {
        let reply = self.reply(&mut session, device, message);
        let reply = reply.unwrap_or_else(|denied| Reply {
            answer: self.error(&denied),
            then: if session.is_established() { Then::GoesOn } else { Then::Ends },
        });
        let record = session.keys.sealer.seal(&reply.answer)?;
        let session = match reply.then {
            Then::GoesOn => Some(session),
            Then::Ends => None,
            Then::Becomes(keys, stage) => Some(Session { keys: *keys, stage, ..session }),
        };
        Ok((session, Frame::Secured(record)))
    }

    fn reply(
        &mut self,
        session: &mut Session,
        device: &mut dyn Device,
        message: &[u8],
    ) -> Result<Reply, Denied> {
        let header = Header::of(message)?;
        let Phase::Negotiated(connection) = &self.phase else {
            return Err(unexpected(header.code));
        };
        connection.check_version(header)?;
        let shape = connection.shape();
        let Session { id, keys, stage, .. } = session;
        match stage {
            Stage::Handshake(expect) => finish(*id, expect, header, message, &shape),
            Stage::Established(established) => {
                self.reply_established(*id, keys, established, device, header, message)
            }
        }
    }

    fn reply_established(
        &mut self,
        id: SessionId,
        keys: &mut Keys,
        established: &mut Established,
        device: &mut dyn Device,
        header: Header,
        message: &[u8],
    ) -> Result<Reply, Denied> {
        if established.unverified && header.code != Code::KEY_UPDATE {
            return Err(unexpected(header.code));
        }
        if header.code == Code::END_SESSION {
            let (EndSession { .. }, _) = decode(message, &self.parts()?.connection.shape())?;
            let answer = encode(&EndSessionAck, &self.parts()?.connection.shape())?;
            return Ok(Reply { answer, then: Then::Ends });
        }
        let terms = self.chunk_terms(RECORD_OVERHEAD_BYTES);
        let mut chunks = core::mem::take(&mut established.chunks);
        let answer = chunks.answer(&terms, header, message, |code, message| {
            self.answer_established(id, keys, established, device, code, message)
        });
        established.chunks = chunks;
        Ok(Reply { answer: answer?, then: Then::GoesOn })
    }

    fn answer_established(
        &mut self,
        id: SessionId,
        keys: &mut Keys,
        established: &mut Established,
        device: &mut dyn Device,
        code: Code,
        message: &[u8],
    ) -> Answer {
        self.check_capable(code)?;
        let mut parts = self.parts()?;
        let shape = parts.connection.shape();
        if code != Code::GET_MEASUREMENTS {
            established.measured = None;
        }
        match code {
            Code::GET_DIGESTS => parts.digests(message, false),
            Code::GET_CERTIFICATE => parts.certificate(message, false),
            Code::GET_MEASUREMENTS => {
                parts.measurements(device, message, &mut established.measured)
            }
            Code::VENDOR_DEFINED_REQUEST => vendor_defined(device, Some(id), message, &shape),
            Code::HEARTBEAT => {
                let (Heartbeat, _) = decode(message, &shape)?;
                Ok(encode(&HeartbeatAck, &shape)?)
            }
            Code::KEY_UPDATE => update_keys(keys, established, message, &shape),
            other => Err(unexpected(other)),
        }
    }

    fn refuse_in_the_clear(&self, code: ErrorCode) -> Frame {
        Frame::Clear(self.error(&Denied::new(code)))
    }

    /// Zero where one side can do no heartbeats.
    fn heartbeat_for_both(&self) -> u8 {
        let both = self.check_capable(Code::HEARTBEAT).is_ok();
        if both { self.config.heartbeat_s } else { 0 }
    }

    /// A number that no session has, from the highest down.
    fn unused_session_number(&mut self) -> u16 {
        loop {
            self.session_number = self.session_number.checked_sub(1).unwrap_or(u16::MAX);
            let number = self.session_number;
            if self.sessions.iter().all(|session| session.id.responder != number) {
                return number;
            }
        }
    }
}

fn finish(
    id: SessionId,
    expect: &mut ExpectFinish,
    header: Header,
    message: &[u8],
    shape: &Shape,
) -> Result<Reply, Denied> {
    if header.code != Code::FINISH {
        return Err(unexpected(header.code));
    }
    let (request, length) = decode::<Finish>(message, shape)?;
    let (before, rest) = message[..length].split_at(HEADER_BYTES);
    let ExpectFinish { handshake, transcript } = expect;
    transcript.update(before);
    let proof = handshake.verify_data(Side::Requester, &transcript.digest());
    if !proof.matches(&request.verify_data) {
        return Err(Denied::new(ErrorCode::DECRYPT_ERROR));
    }
    transcript.update(rest);
    let answer = encode(&FinishResponse, shape)?;
    transcript.update(&answer);
    let application = handshake.application(&transcript.digest());
    let keys = Keys::application(id, &application, Side::Responder)?;
    let established = Established { measured: None, unverified: false, chunks: Chunks::default() };
    Ok(Reply { answer, then: Then::Becomes(Box::new(keys), Stage::Established(established)) })
}

/// The answer to an update is already under the responder's new key.
fn update_keys(
    keys: &mut Keys,
    established: &mut Established,
    message: &[u8],
    shape: &Shape,
) -> Answer {
    let (KeyUpdate { operation, tag }, _) = decode(message, shape)?;
    if established.unverified != (operation == KeyOperation::Verify) {
        return Err(unexpected(Code::KEY_UPDATE));
    }
    let answer = encode(&KeyUpdateAck { operation, tag }, shape)?;
    match operation {
        KeyOperation::Verify => {}
        KeyOperation::UpdateRequester => keys.opener.update()?,
        KeyOperation::UpdateAll => {
            keys.opener.update()?;
            keys.sealer.update()?;
        }
    }
    established.unverified = operation != KeyOperation::Verify;
    Ok(answer)
}
