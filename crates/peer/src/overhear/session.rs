//! A session that can be read: the keys of both directions.

use spdm::crypto::{CryptoFault, hash};
use spdm::key_schedule::{Handshake, Side, TrafficSecret};
use spdm::message::{Finish, FinishResponse, HEADER_BYTES, KeyOperation, KeyUpdate};
use spdm::secured::{Opener, SessionId};

use super::*;

/// Both directions of a session.
pub(super) struct Session {
    pub(super) id: SessionId,
    handshake: Handshake,
    /// TH, from VCA on.
    transcript: Vec<u8>,
    requester: Opener,
    responder: Opener,
}

impl Session {
    /// A session that has keys for FINISH.
    pub(super) fn new(
        id: SessionId,
        handshake: Handshake,
        transcript: Vec<u8>,
    ) -> Result<Self, CryptoFault> {
        let opener = |traffic: &TrafficSecret| Opener::new(id, traffic.clone());
        let requester = opener(handshake.traffic(Side::Requester))?;
        let responder = opener(handshake.traffic(Side::Responder))?;
        Ok(Self { id, handshake, transcript, requester, responder })
    }

    /// Opens what `side` sealed.
    pub(super) fn open(&mut self, side: Side, record: &[u8]) -> Result<Vec<u8>, PeerFault> {
        let opener = match side {
            Side::Requester => &mut self.requester,
            Side::Responder => &mut self.responder,
        };
        opener.open(record).map(|message| message.to_vec())
    }
}

impl Overheard {
    pub(super) fn finish(
        &mut self,
        bytes: &[u8],
        index: usize,
        told: &mut Told,
    ) -> Result<(), PeerFault> {
        let length = words::of(bytes, &self.shape, told)?;
        let (message, _) = decode::<Finish>(bytes, &self.shape)?;
        let (Some(selected), Some(session)) = (self.selected, self.sessions.get_mut(index)) else {
            return Ok(());
        };
        session.transcript.extend(&bytes[..HEADER_BYTES]);
        let th = hash(self.crypto, selected.suite, &session.transcript);
        let proof = session.handshake.verify_data(Side::Requester, &th);
        told.check(
            "RequesterVerifyData is of the shared secret",
            proof.matches(&message.verify_data),
        );
        session.transcript.extend(&bytes[HEADER_BYTES..length]);
        Ok(())
    }

    pub(super) fn finish_response(
        &mut self,
        bytes: &[u8],
        index: usize,
        told: &mut Told,
    ) -> Result<(), PeerFault> {
        let length = words::of(bytes, &self.shape, told)?;
        decode::<FinishResponse>(bytes, &self.shape)?;
        let (Some(selected), Some(session)) = (self.selected, self.sessions.get_mut(index)) else {
            return Ok(());
        };
        session.transcript.extend(&bytes[..length]);
        let th2 = hash(self.crypto, selected.suite, &session.transcript);
        let application = session.handshake.application(&th2);
        let opener = |traffic: &TrafficSecret| Opener::new(session.id, traffic.clone());
        match (opener(&application.requester), opener(&application.responder)) {
            (Ok(requester), Ok(responder)) => {
                (session.requester, session.responder) = (requester, responder);
            }
            (Err(fault), _) | (_, Err(fault)) => {
                told.unchecked(fault.to_string());
            }
        }
        Ok(())
    }

    pub(super) fn key_update(
        &mut self,
        bytes: &[u8],
        index: usize,
        told: &mut Told,
    ) -> Result<(), PeerFault> {
        words::of(bytes, &self.shape, told)?;
        let (message, _) = decode::<KeyUpdate>(bytes, &self.shape)?;
        let Some(session) = self.sessions.get_mut(index) else { return Ok(()) };
        let updated = match message.operation {
            KeyOperation::Verify => Ok(()),
            KeyOperation::UpdateRequester => session.requester.update(),
            // The answer comes under the new keys already.
            KeyOperation::UpdateAll => {
                session.requester.update().and_then(|()| session.responder.update())
            }
        };
        if let Err(fault) = updated {
            told.unchecked(fault.to_string());
        }
        Ok(())
    }
}
