//! The line to cryptography: what this crate computes nothing of itself.
//!
//! [`Crypto`] is a provider, as a value without state; [`AeadKey`], [`Hasher`] and [`KeyShare`] are
//! what it makes. Private keys of identities are behind [`Signer`], so that they may live
//! elsewhere, and random bytes come from [`Entropy`]. `aws_lc` and `rust_crypto` implement all of
//! it. Nothing is global: each endpoint is given its own.

#[cfg(feature = "aws-lc")]
pub mod aws_lc;
#[cfg(feature = "rust-crypto")]
pub mod rust_crypto;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use rustls_pki_types::SignatureVerificationAlgorithm;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::algorithm::{Aead, Group, Suite};

/// Why a provider gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CryptoFault {
    /// The source of random bytes has none.
    #[error("no random bytes")]
    NoEntropy,
    /// The key of an identity did not sign.
    #[error("no signature")]
    NoSignature,
    /// A key of ours has a length or value that the algorithm does not take.
    #[error("unusable key")]
    UnusableKey,
}

/// What the peer sent does not verify: a signature, a tag or a point. Says no more on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("does not verify")]
pub struct NotAuthentic;

/// Hashes, MACs, ciphers, key exchanges and signatures to verify.
pub trait Crypto: Sync {
    /// Begins a hash.
    fn hasher(&self, suite: Suite) -> Box<dyn Hasher>;

    /// The HMAC of `parts`, one after the other.
    fn hmac(&self, suite: Suite, key: &[u8], parts: &[&[u8]]) -> Secret;

    /// A key of a cipher.
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`] where `key` has another length than [`Aead::key_bytes`].
    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoFault>;

    /// Our half of a key exchange, from a private scalar (big-endian).
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`] where the scalar is zero or not below the order of the group.
    fn key_share(&self, group: Group, scalar: &[u8]) -> Result<Box<dyn KeyShare>, CryptoFault>;

    /// Verifies `signature` over `message`; `public` is both coordinates of the signer's key.
    ///
    /// # Errors
    /// [`NotAuthentic`].
    fn verify(
        &self,
        suite: Suite,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), NotAuthentic>;

    /// What verifies the signatures of certificates.
    fn certificate_algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm];
}

/// A hash under way.
pub trait Hasher: Send {
    /// Takes more bytes.
    fn update(&mut self, bytes: &[u8]);

    /// The hash of what was taken so far.
    fn digest(&self) -> Vec<u8>;

    /// A second hash with the same beginning.
    fn fork(&self) -> Box<dyn Hasher>;
}

/// A key of a cipher; never given out again.
pub trait AeadKey: Send {
    /// Encrypts `text` in place and puts the tag behind it.
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`] where the text is longer than the cipher takes.
    fn seal(
        &self,
        nonce: [u8; Aead::NONCE_BYTES],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), CryptoFault>;

    /// Decrypts `sealed` in place and takes the tag off its end.
    ///
    /// # Errors
    /// [`NotAuthentic`]; what `sealed` then holds is no text.
    fn open(
        &self,
        nonce: [u8; Aead::NONCE_BYTES],
        aad: &[u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic>;
}

/// Our half of a key exchange.
pub trait KeyShare: Send {
    /// Both coordinates of the public key.
    fn public(&self) -> Vec<u8>;

    /// The shared secret with the peer whose public key is `peer`; ends the private half.
    ///
    /// # Errors
    /// [`NotAuthentic`] where `peer` is no point of the curve.
    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, NotAuthentic>;
}

/// The private key of an identity.
pub trait Signer: Send {
    /// What the key signs with.
    fn suite(&self) -> Suite;

    /// A signature over `message`, `r` and `s` of one length.
    ///
    /// # Errors
    /// [`CryptoFault::NoSignature`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoFault>;
}

/// A source of random bytes.
pub trait Entropy: Send {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`CryptoFault::NoEntropy`].
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CryptoFault>;
}

/// Bytes that are wiped when dropped, compared in constant time and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes `bytes` over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for a computation.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The first bytes of it; the others are wiped with them.
    #[must_use]
    pub(crate) fn cut(mut self, length: usize) -> Self {
        self.0.truncate(length);
        self
    }

    /// Whether `other` has the same bytes; takes the same time for each `other` of one length.
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }
}

impl ZeroizeOnDrop for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// A half of a key exchange from random bytes; a scalar out of range is drawn again.
///
/// # Errors
/// [`CryptoFault::NoEntropy`].
pub fn draw_key_share(
    crypto: &dyn Crypto,
    entropy: &mut dyn Entropy,
    group: Group,
) -> Result<Box<dyn KeyShare>, CryptoFault> {
    // Less than one scalar in 2^32 is out of range.
    const DRAWS_MAX: usize = 4;
    let mut scalar = Zeroizing::new(alloc::vec![0; group.scalar_bytes()]);
    for _ in 0..DRAWS_MAX {
        entropy.fill(&mut scalar)?;
        if let Ok(share) = crypto.key_share(group, &scalar) {
            return Ok(share);
        }
    }
    Err(CryptoFault::NoEntropy)
}

/// The hash of `bytes`.
pub fn hash(crypto: &dyn Crypto, suite: Suite, bytes: &[u8]) -> Vec<u8> {
    let mut hasher = crypto.hasher(suite);
    hasher.update(bytes);
    hasher.digest()
}
