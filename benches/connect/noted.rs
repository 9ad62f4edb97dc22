//! What a connect hashes, authenticates and encrypts, taken down once, and computed again without it.

use std::sync::{Mutex, PoisonError};

use rustls_pki_types::SignatureVerificationAlgorithm;
use spdm::algorithm::{Aead, Group, Suite};
use spdm::crypto::aws_lc::AwsLc;
use spdm::crypto::{AeadKey, Crypto, CryptoFault, Hasher, KeyShare, NotAuthentic, Secret};

/// One operation, with the lengths of what it takes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    Hasher,
    Update(usize),
    Digest,
    Mac {
        key: usize,
        bytes: usize,
    },
    Cipher,
    Seal(usize),
    /// Of a record without its tag.
    Open(usize),
}

static NOTES: Mutex<Vec<Note>> = Mutex::new(Vec::new());

/// What was taken down since the last time.
pub(crate) fn take() -> Vec<Note> {
    std::mem::take(&mut *NOTES.lock().unwrap_or_else(PoisonError::into_inner))
}

fn note(what: Note) {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

/// Operations to be computed again, all that is not timed made ready.
pub(crate) struct Again {
    notes: Vec<Note>,
    bytes: Vec<u8>,
    cipher: Box<dyn AeadKey>,
    /// For each [`Note::Open`], in order.
    records: Vec<Vec<u8>>,
}

const SUITE: Suite = Suite::P384Sha384;
const AEAD: Aead = Aead::Aes256Gcm;
const NONCE: [u8; Aead::NONCE_BYTES] = [3; Aead::NONCE_BYTES];
const KEY: [u8; 32] = [4; 32];
/// Bytes of a record that are authenticated only.
const AAD: [u8; 6] = [5; 6];

impl Again {
    pub(crate) fn new(notes: Vec<Note>) -> Self {
        let cipher = AwsLc.aead_key(AEAD, &KEY).expect("a key of its length");
        let bytes = vec![7; 1 << 16];
        let opened = notes.iter().filter_map(|note| {
            let Note::Open(length) = note else { return None };
            Some(bytes[..*length].to_vec())
        });
        let sealed = opened.map(|mut text| {
            cipher.seal(NONCE, &AAD, &mut text).expect("a short text");
            text
        });
        let records = sealed.collect();
        Self { notes, bytes, cipher, records }
    }

    /// All of them, one after the other.
    pub(crate) fn compute(&self) {
        let mut hasher = AwsLc.hasher(SUITE);
        let mut text = Vec::with_capacity(self.bytes.len());
        let mut records = self.records.iter();
        for note in &self.notes {
            match *note {
                Note::Hasher => hasher = AwsLc.hasher(SUITE),
                Note::Update(length) => hasher.update(&self.bytes[..length]),
                Note::Digest => assert_eq!(hasher.digest().len(), SUITE.hash_bytes()),
                Note::Mac { key, bytes } => {
                    drop(AwsLc.hmac(SUITE, &self.bytes[..key], &[&self.bytes[..bytes]]));
                }
                Note::Cipher => drop(AwsLc.aead_key(AEAD, &KEY).expect("a key of its length")),
                Note::Seal(length) => {
                    text.clear();
                    text.extend_from_slice(&self.bytes[..length]);
                    self.cipher.seal(NONCE, &AAD, &mut text).expect("a short text");
                }
                Note::Open(_) => {
                    text.clear();
                    text.extend_from_slice(records.next().expect("one for each"));
                    self.cipher.open(NONCE, &AAD, &mut text).expect("its own");
                }
            }
        }
    }
}

/// [`AwsLc`], which takes down what is asked of it.
pub(crate) struct Noted;

impl Crypto for Noted {
    fn hasher(&self, suite: Suite) -> Box<dyn Hasher> {
        note(Note::Hasher);
        Box::new(NotedHasher(AwsLc.hasher(suite)))
    }

    fn hmac(&self, suite: Suite, key: &[u8], parts: &[&[u8]]) -> Secret {
        let bytes = parts.iter().map(|part| part.len()).sum();
        note(Note::Mac { key: key.len(), bytes });
        AwsLc.hmac(suite, key, parts)
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoFault> {
        note(Note::Cipher);
        Ok(Box::new(NotedKey(AwsLc.aead_key(aead, key)?)))
    }

    fn key_share(&self, group: Group, scalar: &[u8]) -> Result<Box<dyn KeyShare>, CryptoFault> {
        AwsLc.key_share(group, scalar)
    }

    fn verify(
        &self,
        suite: Suite,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), NotAuthentic> {
        AwsLc.verify(suite, public, message, signature)
    }

    fn certificate_algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        AwsLc.certificate_algorithms()
    }
}

struct NotedHasher(Box<dyn Hasher>);

impl Hasher for NotedHasher {
    fn update(&mut self, bytes: &[u8]) {
        note(Note::Update(bytes.len()));
        self.0.update(bytes);
    }

    fn digest(&self) -> Vec<u8> {
        note(Note::Digest);
        self.0.digest()
    }

    fn fork(&self) -> Box<dyn Hasher> {
        Box::new(Self(self.0.fork()))
    }
}

struct NotedKey(Box<dyn AeadKey>);

impl AeadKey for NotedKey {
    fn seal(
        &self,
        nonce: [u8; Aead::NONCE_BYTES],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), CryptoFault> {
        note(Note::Seal(text.len()));
        self.0.seal(nonce, aad, text)
    }

    fn open(
        &self,
        nonce: [u8; Aead::NONCE_BYTES],
        aad: &[u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        note(Note::Open(sealed.len() - Aead::TAG_BYTES));
        self.0.open(nonce, aad, sealed)
    }
}
