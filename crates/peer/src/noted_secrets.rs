//! Cryptography that writes the secret of each key exchange into a key log.
//!
//! Takes one lock, that of the log, inside of nothing.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::SignatureVerificationAlgorithm;
use spdm::algorithm::{Aead, Group, Suite};
use spdm::crypto::{AeadKey, Crypto, CryptoFault, Hasher, KeyShare, NotAuthentic, Secret};

use crate::key_log;

type Log = Arc<Mutex<Box<dyn Write + Send>>>;

/// Cryptography of `inner`, whose key exchanges are written down. Whoever reads the log reads the sessions.
pub struct NotedSecrets {
    inner: &'static dyn Crypto,
    log: Log,
}

impl NotedSecrets {
    /// Writes the secrets of `inner` into `log`. What cannot be written is not: a session does not fail
    /// for its log.
    pub fn new(inner: &'static dyn Crypto, log: Box<dyn Write + Send>) -> Self {
        Self { inner, log: Arc::new(Mutex::new(log)) }
    }
}

impl Crypto for NotedSecrets {
    fn hasher(&self, suite: Suite) -> Box<dyn Hasher> {
        self.inner.hasher(suite)
    }

    fn hmac(&self, suite: Suite, key: &[u8], parts: &[&[u8]]) -> Secret {
        self.inner.hmac(suite, key, parts)
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoFault> {
        self.inner.aead_key(aead, key)
    }

    fn key_share(&self, group: Group, scalar: &[u8]) -> Result<Box<dyn KeyShare>, CryptoFault> {
        let inner = self.inner.key_share(group, scalar)?;
        Ok(Box::new(NotedShare { inner, log: self.log.clone() }))
    }

    fn verify(
        &self,
        suite: Suite,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), NotAuthentic> {
        self.inner.verify(suite, public, message, signature)
    }

    fn certificate_algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        self.inner.certificate_algorithms()
    }
}

struct NotedShare {
    inner: Box<dyn KeyShare>,
    log: Log,
}

impl KeyShare for NotedShare {
    fn public(&self) -> Vec<u8> {
        self.inner.public()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, NotAuthentic> {
        let secret = self.inner.agree(peer)?;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = log.write_all(key_log::line(&secret).as_bytes()).and_then(|()| log.flush());
        Ok(secret)
    }
}
