//! From a shared secret to the keys of a session.
//!
//! [`Handshake`] holds what protects FINISH, [`Handshake::application`] gives what protects the rest.
//! Each [`TrafficSecret`] is one direction's, and knows how to become the next one (KEY_UPDATE).
//! All secrets wipe themselves. Deliberately absent: pre-shared keys.
//!
//! Source: \[DSP0274\] key schedule, checked against the known answers in `tests/data`.

use core::fmt;

use zeroize::Zeroizing;

use crate::algorithm::{Aead, Selected};
use crate::crypto::{Crypto, Secret};

/// Which side a key or an HMAC belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that asks.
    Requester,
    /// The side that answers.
    Responder,
}

/// The secrets between KEY_EXCHANGE and FINISH.
#[derive(Clone)]
pub struct Handshake {
    schedule: Schedule,
    secret: Secret,
    requester: TrafficSecret,
    responder: TrafficSecret,
}

impl Handshake {
    /// Derives them from the result of the key exchange and the transcript hash TH1.
    pub fn new(
        crypto: &'static dyn Crypto,
        selected: Selected,
        shared: &Secret,
        th1: &[u8],
    ) -> Self {
        let schedule = Schedule { crypto, selected };
        let zeros = [0; HASH_BYTES_MAX];
        let salt = &zeros[..selected.suite.hash_bytes()];
        let secret = crypto.hmac(selected.suite, salt, &[shared.expose()]);
        let traffic = |label| schedule.traffic(&secret, label, th1);
        let (requester, responder) = (traffic(b"req hs data"), traffic(b"rsp hs data"));
        Self { schedule, secret, requester, responder }
    }

    /// What protects records of `side` until FINISH is answered.
    pub fn traffic(&self, side: Side) -> &TrafficSecret {
        match side {
            Side::Requester => &self.requester,
            Side::Responder => &self.responder,
        }
    }

    /// The HMAC with which `side` proves that it knows the secret; `transcript` is a hash.
    pub fn verify_data(&self, side: Side, transcript: &[u8]) -> Secret {
        let Schedule { crypto, selected } = self.schedule;
        let key = self.finished_key(side);
        crypto.hmac(selected.suite, key.expose(), &[transcript])
    }

    /// The key of [`Self::verify_data`].
    pub(crate) fn finished_key(&self, side: Side) -> Secret {
        self.schedule.expand_hash(&self.traffic(side).secret, b"finished", &[])
    }

    /// The secrets after FINISH, whose transcript hash is TH2.
    pub fn application(&self, th2: &[u8]) -> Application {
        let master = self.master();
        Application {
            requester: self.schedule.traffic(&master, b"req app data", th2),
            responder: self.schedule.traffic(&master, b"rsp app data", th2),
        }
    }

    /// The secret for keys that are none of SPDM's, after FINISH, whose transcript hash is TH2.
    pub fn export_master(&self, th2: &[u8]) -> Secret {
        self.schedule.expand_hash(&self.master(), b"exp master", th2)
    }

    fn master(&self) -> Secret {
        let Schedule { crypto, selected } = self.schedule;
        let salt = self.schedule.expand_hash(&self.secret, b"derived", &[]);
        let zeros = [0; HASH_BYTES_MAX];
        let zeros = &zeros[..selected.suite.hash_bytes()];
        crypto.hmac(selected.suite, salt.expose(), &[zeros])
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("selected", &self.schedule.selected).finish()
    }
}

/// The secrets of an established session.
#[derive(Clone, Debug)]
pub struct Application {
    /// What protects the requester's records.
    pub requester: TrafficSecret,
    /// What protects the responder's records.
    pub responder: TrafficSecret,
}

/// One direction's secret.
#[derive(Clone)]
pub struct TrafficSecret {
    schedule: Schedule,
    secret: Secret,
}

impl TrafficSecret {
    /// The key of the cipher.
    pub fn key(&self) -> Secret {
        let length = self.schedule.selected.aead.key_bytes();
        self.schedule.expand(&self.secret, b"key", &[], length)
    }

    /// What each record's sequence number is mixed into.
    pub fn iv(&self) -> Zeroizing<[u8; Aead::NONCE_BYTES]> {
        let iv = self.schedule.expand(&self.secret, b"iv", &[], Aead::NONCE_BYTES);
        let mut bytes = Zeroizing::new([0; Aead::NONCE_BYTES]);
        bytes.copy_from_slice(iv.expose());
        bytes
    }

    /// The secret after a KEY_UPDATE.
    pub fn updated(&self) -> Self {
        let secret = self.schedule.expand_hash(&self.secret, b"traffic upd", &[]);
        Self { schedule: self.schedule, secret }
    }

    pub(crate) fn provider(&self) -> (&'static dyn Crypto, Aead) {
        (self.schedule.crypto, self.schedule.selected.aead)
    }

    /// The secret itself, for a key log.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Debug for TrafficSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficSecret")
    }
}

/// HKDF with the labels of a version.
#[derive(Clone, Copy)]
struct Schedule {
    crypto: &'static dyn Crypto,
    selected: Selected,
}

impl Schedule {
    fn traffic(self, secret: &Secret, label: &[u8], transcript: &[u8]) -> TrafficSecret {
        TrafficSecret { schedule: self, secret: self.expand_hash(secret, label, transcript) }
    }

    fn expand_hash(self, secret: &Secret, label: &[u8], context: &[u8]) -> Secret {
        self.expand(secret, label, context, self.selected.suite.hash_bytes())
    }

    /// HKDF-Expand. No output here is longer than a hash, so one block is enough.
    fn expand(self, secret: &Secret, label: &[u8], context: &[u8], length: usize) -> Secret {
        let suite = self.selected.suite;
        assert!(length <= suite.hash_bytes(), "one block of HKDF-Expand");
        let count = u16::try_from(length).expect("a hash is shorter than 64 KiB").to_le_bytes();
        let version = self.selected.version.key_label();
        let parts: [&[u8]; 5] = [&count, version, label, context, &[1]];
        self.crypto.hmac(suite, secret.expose(), &parts).cut(length)
    }
}

/// Bytes of the longest hash.
const HASH_BYTES_MAX: usize = 48;
