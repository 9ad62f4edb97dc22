//! The provider on the crates of RustCrypto: no C, and the oracle of the other one.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use sha2::digest::Digest;
use sha2::{Sha256, Sha384};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{AeadKey, Crypto, CryptoFault, Hasher, KeyShare, NotAuthentic, Secret, Signer};
use crate::algorithm::{Aead, Group, Suite};

/// The provider.
#[derive(Clone, Copy, Debug)]
pub struct RustCrypto;

impl Crypto for RustCrypto {
    fn hasher(&self, suite: Suite) -> Box<dyn Hasher> {
        match suite {
            Suite::P256Sha256 => Box::new(Running(Sha256::new())),
            Suite::P384Sha384 => Box::new(Running(Sha384::new())),
        }
    }

    fn hmac(&self, suite: Suite, key: &[u8], parts: &[&[u8]]) -> Secret {
        match suite {
            Suite::P256Sha256 => mac::<Hmac<Sha256>>(key, parts),
            Suite::P384Sha384 => mac::<Hmac<Sha384>>(key, parts),
        }
    }

    fn aead_key(&self, aead: Aead, key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoFault> {
        match aead {
            Aead::Aes128Gcm => cipher::<Aes128Gcm>(key),
            Aead::Aes256Gcm => cipher::<Aes256Gcm>(key),
            Aead::ChaCha20Poly1305 => cipher::<ChaCha20Poly1305>(key),
        }
    }

    fn key_share(&self, group: Group, scalar: &[u8]) -> Result<Box<dyn KeyShare>, CryptoFault> {
        Ok(match group {
            Group::Secp256r1 => Box::new(Half256(
                p256::SecretKey::from_slice(scalar).map_err(|_| CryptoFault::UnusableKey)?,
            )),
            Group::Secp384r1 => Box::new(Half384(
                p384::SecretKey::from_slice(scalar).map_err(|_| CryptoFault::UnusableKey)?,
            )),
        })
    }

    fn verify(
        &self,
        suite: Suite,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), NotAuthentic> {
        let public = uncompressed(public);
        match suite {
            Suite::P256Sha256 => {
                p256::ecdsa::VerifyingKey::from_sec1_bytes(&public).and_then(|key| {
                    key.verify(message, &p256::ecdsa::Signature::from_slice(signature)?)
                })
            }
            Suite::P384Sha384 => {
                p384::ecdsa::VerifyingKey::from_sec1_bytes(&public).and_then(|key| {
                    key.verify(message, &p384::ecdsa::Signature::from_slice(signature)?)
                })
            }
        }
        .map_err(|_| NotAuthentic)
    }

    fn certificate_algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        &[&CertificateSuite(Suite::P256Sha256), &CertificateSuite(Suite::P384Sha384)]
    }
}

/// What holds private keys and shared secrets wipes itself.
const _: () = {
    const fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<p256::SecretKey>();
    wiped::<p384::SecretKey>();
    wiped::<p256::ecdsa::SigningKey>();
    wiped::<p384::ecdsa::SigningKey>();
    wiped::<p256::ecdh::SharedSecret>();
    wiped::<p384::ecdh::SharedSecret>();
};

/// A private key in memory.
pub enum PrivateKey {
    /// For [`Suite::P256Sha256`].
    P256(p256::ecdsa::SigningKey),
    /// For [`Suite::P384Sha384`].
    P384(p384::ecdsa::SigningKey),
}

impl PrivateKey {
    /// The key with this private scalar (big-endian).
    ///
    /// # Errors
    /// [`CryptoFault::UnusableKey`] where the scalar is zero or not below the order of the group.
    pub fn from_scalar(suite: Suite, scalar: &[u8]) -> Result<Self, CryptoFault> {
        match suite {
            Suite::P256Sha256 => p256::ecdsa::SigningKey::from_slice(scalar).map(Self::P256),
            Suite::P384Sha384 => p384::ecdsa::SigningKey::from_slice(scalar).map(Self::P384),
        }
        .map_err(|_| CryptoFault::UnusableKey)
    }

    /// Both coordinates of the public key.
    pub fn public(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => coordinates(key.verifying_key().to_sec1_point(false).as_bytes()),
            Self::P384(key) => coordinates(key.verifying_key().to_sec1_point(false).as_bytes()),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.suite())
    }
}

impl Signer for PrivateKey {
    fn suite(&self) -> Suite {
        match self {
            Self::P256(_) => Suite::P256Sha256,
            Self::P384(_) => Suite::P384Sha384,
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoFault> {
        Ok(match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Self::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        })
    }
}

struct Running<D>(D);

impl<D: Digest + Clone + Send + 'static> Hasher for Running<D> {
    fn update(&mut self, bytes: &[u8]) {
        Digest::update(&mut self.0, bytes);
    }

    fn digest(&self) -> Vec<u8> {
        self.0.clone().finalize().to_vec()
    }

    fn fork(&self) -> Box<dyn Hasher> {
        Box::new(Self(self.0.clone()))
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of every length");
    parts.iter().for_each(|part| mac.update(part));
    let mut code = mac.finalize().into_bytes();
    let secret = Secret::new(code.to_vec());
    code.as_mut_slice().zeroize();
    secret
}

struct Cipher<C>(C);

fn cipher<C>(key: &[u8]) -> Result<Box<dyn AeadKey>, CryptoFault>
where
    C: KeyInit + AeadInOut + ZeroizeOnDrop + Send + 'static,
{
    let cipher = C::new_from_slice(key).map_err(|_| CryptoFault::UnusableKey)?;
    Ok(Box::new(Cipher(cipher)))
}

impl<C: AeadInOut + Send> AeadKey for Cipher<C> {
    fn seal(
        &self,
        nonce: [u8; Aead::NONCE_BYTES],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), CryptoFault> {
        let nonce = nonce.as_slice().try_into().map_err(|_| CryptoFault::UnusableKey)?;
        self.0.encrypt_in_place(nonce, aad, text).map_err(|_| CryptoFault::UnusableKey)
    }

    fn open(
        &self,
        nonce: [u8; Aead::NONCE_BYTES],
        aad: &[u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        let nonce = nonce.as_slice().try_into().map_err(|_| NotAuthentic)?;
        self.0.decrypt_in_place(nonce, aad, sealed).map_err(|_| NotAuthentic)
    }
}

struct Half256(p256::SecretKey);

impl KeyShare for Half256 {
    fn public(&self) -> Vec<u8> {
        coordinates(&self.0.public_key().to_sec1_bytes())
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, NotAuthentic> {
        let peer =
            p256::PublicKey::from_sec1_bytes(&uncompressed(peer)).map_err(|_| NotAuthentic)?;
        let shared = p256::ecdh::diffie_hellman(self.0.to_nonzero_scalar(), peer.as_affine());
        Ok(Secret::new(shared.raw_secret_bytes().to_vec()))
    }
}

struct Half384(p384::SecretKey);

impl KeyShare for Half384 {
    fn public(&self) -> Vec<u8> {
        coordinates(&self.0.public_key().to_sec1_bytes())
    }

    fn agree(self: Box<Self>, peer: &[u8]) -> Result<Secret, NotAuthentic> {
        let peer =
            p384::PublicKey::from_sec1_bytes(&uncompressed(peer)).map_err(|_| NotAuthentic)?;
        let shared = p384::ecdh::diffie_hellman(self.0.to_nonzero_scalar(), peer.as_affine());
        Ok(Secret::new(shared.raw_secret_bytes().to_vec()))
    }
}

/// Verifies certificates that are signed with a suite.
#[derive(Debug)]
struct CertificateSuite(Suite);

impl SignatureVerificationAlgorithm for CertificateSuite {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        match self.0 {
            Suite::P256Sha256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(public_key)
                .and_then(|key| key.verify(message, &p256::ecdsa::Signature::from_der(signature)?)),
            Suite::P384Sha384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(public_key)
                .and_then(|key| key.verify(message, &p384::ecdsa::Signature::from_der(signature)?)),
        }
        .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.0 {
            Suite::P256Sha256 => alg_id::ECDSA_P256,
            Suite::P384Sha384 => alg_id::ECDSA_P384,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.0 {
            Suite::P256Sha256 => alg_id::ECDSA_SHA256,
            Suite::P384Sha384 => alg_id::ECDSA_SHA384,
        }
    }
}

/// SEC1: both coordinates follow.
const UNCOMPRESSED: u8 = 0x04;

fn uncompressed(coordinates: &[u8]) -> Vec<u8> {
    let mut point = Vec::with_capacity(1 + coordinates.len());
    point.push(UNCOMPRESSED);
    point.extend_from_slice(coordinates);
    point
}

/// What follows the prefix of an uncompressed point.
fn coordinates(point: &[u8]) -> Vec<u8> {
    point.get(1..).unwrap_or_default().to_vec()
}
