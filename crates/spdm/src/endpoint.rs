//! What both roles have in common: frames, keys of a session, hashes of transcripts.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::algorithm::Suite;
use crate::crypto::{Crypto, CryptoFault, Hasher};
use crate::key_schedule::{Application, Handshake, Side, TrafficSecret};
use crate::secured::{Opener, Sealer, SessionId};

/// What goes through a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message in the clear.
    Clear(Vec<u8>),
    /// A record of a session.
    Secured(Vec<u8>),
}

/// Both directions of a session.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
}

impl Keys {
    /// The keys of a handshake, for the side `ours`.
    pub(crate) fn handshake(
        id: SessionId,
        handshake: &Handshake,
        ours: Side,
    ) -> Result<Self, CryptoFault> {
        Self::new(id, handshake.traffic(Side::Requester), handshake.traffic(Side::Responder), ours)
    }

    /// The keys of an established session, for the side `ours`.
    pub(crate) fn application(
        id: SessionId,
        application: &Application,
        ours: Side,
    ) -> Result<Self, CryptoFault> {
        Self::new(id, &application.requester, &application.responder, ours)
    }

    fn new(
        id: SessionId,
        requester: &TrafficSecret,
        responder: &TrafficSecret,
        ours: Side,
    ) -> Result<Self, CryptoFault> {
        let (sealed, opened) = match ours {
            Side::Requester => (requester, responder),
            Side::Responder => (responder, requester),
        };
        Ok(Self {
            sealer: Sealer::new(id, sealed.clone())?,
            opener: Opener::new(id, opened.clone())?,
        })
    }
}

/// A transcript that begins with `parts`.
pub(crate) fn transcript(crypto: &dyn Crypto, suite: Suite, parts: &[&[u8]]) -> Box<dyn Hasher> {
    let mut hasher = crypto.hasher(suite);
    parts.iter().for_each(|part| hasher.update(part));
    hasher
}
