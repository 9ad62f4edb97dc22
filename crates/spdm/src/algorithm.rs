//! What is negotiated: versions, hashes, signatures, key exchanges, ciphers, and their sizes.
//!
//! Each algorithm knows its bit in NEGOTIATE_ALGORITHMS. Deliberately absent: every algorithm that
//! this crate does not compute; a peer may name them, and they are never selected.

/// A version of SPDM that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// SPDM 1.2.
    V12,
    /// SPDM 1.3.
    V13,
}

impl Version {
    /// All, best last.
    pub const ALL: [Self; 2] = [Self::V12, Self::V13];

    /// The first byte of each message: major version in the high nibble, minor in the low.
    pub const fn wire(self) -> u8 {
        match self {
            Self::V12 => 0x12,
            Self::V13 => 0x13,
        }
    }

    /// The version with this first byte.
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.wire() == byte)
    }

    /// Whether CHALLENGE and GET_MEASUREMENTS carry a context of the requester.
    pub fn has_context(self) -> bool {
        self >= Self::V13
    }

    /// What begins the labels of the key schedule.
    pub(crate) const fn key_label(self) -> &'static [u8; 8] {
        match self {
            Self::V12 => b"spdm1.2 ",
            Self::V13 => b"spdm1.3 ",
        }
    }

    /// What is repeated at the start of each signed message.
    pub(crate) const fn signing_label(self) -> &'static [u8; 16] {
        match self {
            Self::V12 => b"dmtf-spdm-v1.2.*",
            Self::V13 => b"dmtf-spdm-v1.3.*",
        }
    }
}

/// A signature with the hash that it is made over: policy `suite-pairs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// ECDSA over P-256 with SHA-256.
    P256Sha256,
    /// ECDSA over P-384 with SHA-384.
    P384Sha384,
}

impl Suite {
    /// All, best first.
    pub const ALL: [Self; 2] = [Self::P384Sha384, Self::P256Sha256];

    /// Bytes of a hash.
    pub const fn hash_bytes(self) -> usize {
        match self {
            Self::P256Sha256 => 32,
            Self::P384Sha384 => 48,
        }
    }

    /// Bytes of a signature, `r` and `s` of one length.
    pub const fn signature_bytes(self) -> usize {
        2 * self.hash_bytes()
    }

    /// The bit in BaseAsymAlgo.
    pub const fn asymmetric_bit(self) -> u32 {
        match self {
            Self::P256Sha256 => 0x10,
            Self::P384Sha384 => 0x80,
        }
    }

    /// The bit in BaseHashAlgo.
    pub const fn hash_bit(self) -> u32 {
        match self {
            Self::P256Sha256 => 0x01,
            Self::P384Sha384 => 0x02,
        }
    }

    /// The bit in MeasurementHashAlgo.
    pub const fn measurement_hash_bit(self) -> u32 {
        match self {
            Self::P256Sha256 => 0x02,
            Self::P384Sha384 => 0x04,
        }
    }
}

/// A curve for the ephemeral key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}

impl Group {
    /// All, best first.
    pub const ALL: [Self; 2] = [Self::Secp384r1, Self::Secp256r1];

    /// Bytes of a private scalar, and of the shared secret.
    pub const fn scalar_bytes(self) -> usize {
        match self {
            Self::Secp256r1 => 32,
            Self::Secp384r1 => 48,
        }
    }

    /// Bytes of a public key: both coordinates, without a prefix.
    pub const fn public_bytes(self) -> usize {
        2 * self.scalar_bytes()
    }

    /// The bit in the DHE structure.
    pub const fn bit(self) -> u16 {
        match self {
            Self::Secp256r1 => 0x08,
            Self::Secp384r1 => 0x10,
        }
    }
}

/// A cipher of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

impl Aead {
    /// All, best first.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::ChaCha20Poly1305, Self::Aes128Gcm];
    /// Bytes of a tag.
    pub const TAG_BYTES: usize = 16;
    /// Bytes of a nonce.
    pub const NONCE_BYTES: usize = 12;

    /// Bytes of a key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// The bit in the AEAD structure.
    pub const fn bit(self) -> u16 {
        match self {
            Self::Aes128Gcm => 0x01,
            Self::Aes256Gcm => 0x02,
            Self::ChaCha20Poly1305 => 0x04,
        }
    }
}

/// What NEGOTIATE_ALGORITHMS settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The version spoken.
    pub version: Version,
    /// Signature and hash.
    pub suite: Suite,
    /// The curve of the key exchange.
    pub group: Group,
    /// The cipher of sessions.
    pub aead: Aead,
}
