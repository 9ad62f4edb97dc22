//! The provider on aws-lc-rs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce};
use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    EcdsaVerificationAlgorithm, KeyPair, UnparsedPublicKey,
};
use aws_lc_rs::{aead, digest, hmac, rand};
use rustls_pki_types::SignatureVerificationAlgorithm;

use super::{
    AeadKey, Crypto, CryptoFault, Entropy, Hasher, KeyShare, NotAuthentic, Secret, Signer,
};
use crate::algorithm::{Aead, Group, Suite};

/// SEC1: both coordinates follow.
const UNCOMPRESSED: u8 = 0x04;

/// The provider.
#[derive(Clone, Copy, Debug)]
pub struct AwsLc;

impl Crypto for AwsLc {
    fn hasher(&self, suite: Suite) -> Box<dyn Hasher> {
        let algorithm = match suite {
            Suite::P256Sha256 => &digest::SHA256,
            Suite::P384Sha384 => &digest::SHA384,
        };
        Box::new(Running(digest::Context::new(algorithm)))
    }

    fn hmac(&self, suite: Suite, key: &[u8], parts: &[&[u8]]) -> Secret {
        let algorithm = match suite {
            Suite::P256Sha256 => hmac::HMAC_SHA256,
            Suite::P384Sha384 => hmac::HMAC_SHA384,
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
        parts.iter().for_each(|part| context.update(part));
        Secret::new(context.sign().as_ref().to_vec())
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoFault> {
        let algorithm = match aead {
            Aead::Aes128Gcm => &AES_128_GCM,
            Aead::Aes256Gcm => &AES_256_GCM,
            Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = aead::UnboundKey::new(algorithm, key).map_err(|_| CryptoFault::UnusableKey)?;
        Ok(Box::new(Cipher(LessSafeKey::new(key))))
    }

    fn key_share(&self, group: Group, scalar: &[u8]) -> Result<Box<dyn KeyShare>, CryptoFault> {
        let private = agreement::PrivateKey::from_private_key(curve(group), scalar)
            .map_err(|_| CryptoFault::UnusableKey)?;
        let public = private.compute_public_key().map_err(|_| CryptoFault::UnusableKey)?;
        let (_, coordinates) = public.as_ref().split_first().ok_or(CryptoFault::UnusableKey)?;
        Ok(Box::new(Half { group, private, public: coordinates.to_vec() }))
    }

    fn verify(
        &self,
        suite: Suite,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), NotAuthentic> {
        let algorithm: &'static EcdsaVerificationAlgorithm = match suite {
            Suite::P256Sha256 => &ECDSA_P256_SHA256_FIXED,
            Suite::P384Sha384 => &ECDSA_P384_SHA384_FIXED,
        };
        UnparsedPublicKey::new(algorithm, uncompressed(public))
            .verify(message, signature)
            .map_err(|_| NotAuthentic)
    }

    fn certificate_algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        &CERTIFICATE_ALGORITHMS
    }
}

static CERTIFICATE_ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 4] = [
    webpki::aws_lc_rs::ECDSA_P256_SHA256,
    webpki::aws_lc_rs::ECDSA_P256_SHA384,
    webpki::aws_lc_rs::ECDSA_P384_SHA256,
    webpki::aws_lc_rs::ECDSA_P384_SHA384,
];

/// The system's source of random bytes.
#[derive(Clone, Copy, Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CryptoFault> {
        rand::fill(bytes).map_err(|_| CryptoFault::NoEntropy)
    }
}

/// A private key in memory.
#[derive(Debug)]
pub struct PrivateKey {
    suite: Suite,
    pair: EcdsaKeyPair,
}

impl PrivateKey {
    /// Reads a PKCS#8 document.
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`] where it is none, or one of another suite.
    pub fn from_pkcs8(suite: Suite, document: &[u8]) -> Result<Self, CryptoFault> {
        let pair = EcdsaKeyPair::from_pkcs8(signing(suite), document)
            .map_err(|_| CryptoFault::UnusableKey)?;
        Ok(Self { suite, pair })
    }

    /// A key that nobody has seen.
    ///
    /// # Errors
    /// [`CryptoFault::NoEntropy`].
    pub fn generate(suite: Suite) -> Result<Self, CryptoFault> {
        let pair = EcdsaKeyPair::generate(signing(suite)).map_err(|_| CryptoFault::NoEntropy)?;
        Ok(Self { suite, pair })
    }

    /// Both coordinates of the public key.
    pub fn public(&self) -> Vec<u8> {
        let point = self.pair.public_key().as_ref();
        point.split_first().map_or_else(Vec::new, |(_, coordinates)| coordinates.to_vec())
    }
}

fn signing(suite: Suite) -> &'static EcdsaSigningAlgorithm {
    match suite {
        Suite::P256Sha256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Suite::P384Sha384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
    }
}

impl Signer for PrivateKey {
    fn suite(&self) -> Suite {
        self.suite
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoFault> {
        let signature: signature::Signature =
            self.pair.sign(&SystemRandom::new(), message).map_err(|_| CryptoFault::NoSignature)?;
        Ok(signature.as_ref().to_vec())
    }
}

struct Running(digest::Context);

impl Hasher for Running {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn digest(&self) -> Vec<u8> {
        self.0.clone().finish().as_ref().to_vec()
    }

    fn fork(&self) -> Box<dyn Hasher> {
        Box::new(Self(self.0.clone()))
    }
}

struct Cipher(LessSafeKey);

impl AeadKey for Cipher {
    fn seal(
        &self,
        nonce: [u8; Aead::NONCE_BYTES],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), CryptoFault> {
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), text)
            .map_err(|_| CryptoFault::UnusableKey)
    }

    fn open(
        &self,
        nonce: [u8; Aead::NONCE_BYTES],
        aad: &[u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length =
            self.0.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| NotAuthentic)?.len();
        sealed.truncate(length);
        Ok(())
    }
}

struct Half {
    group: Group,
    private: agreement::PrivateKey,
    public: Vec<u8>,
}

impl KeyShare for Half {
    fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, NotAuthentic> {
        let peer = agreement::UnparsedPublicKey::new(curve(self.group), uncompressed(peer));
        agreement::agree(&self.private, peer, NotAuthentic, |secret| {
            Ok(Secret::new(secret.to_vec()))
        })
    }
}

fn curve(group: Group) -> &'static agreement::Algorithm {
    match group {
        Group::Secp256r1 => &ECDH_P256,
        Group::Secp384r1 => &ECDH_P384,
    }
}

fn uncompressed(coordinates: &[u8]) -> Vec<u8> {
    let mut point = Vec::with_capacity(1 + coordinates.len());
    point.push(UNCOMPRESSED);
    point.extend_from_slice(coordinates);
    point
}
