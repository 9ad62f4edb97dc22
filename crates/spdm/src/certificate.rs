//! Certificate chains: how a slot holds them, and which of them are trusted.
//!
//! [`Chain`] is the format of a slot: the root's hash, then certificates from the root to the leaf.
//! [`Trust`] judges a chain: the path by webpki, then the leaf's usage and name. It knows no clock:
//! the time is a field. Deliberately absent: revocation, chains whose root stays with the verifier,
//! names in other forms than the two of [`DeviceName`].
//!
//! Webpki refuses a certificate with an extension that is critical and unknown to it.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::algorithm::Suite;
use crate::crypto::{Crypto, hash};
use crate::der;
use crate::fault::{PeerFault, Refusal};
use crate::wire::{Reader, Writer};

/// id-DMTF-eku-responder-auth: 1.3.6.1.4.1.412.274.3.
pub(crate) const RESPONDER_USAGE: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0x1c, 0x82, 0x12, 3];
/// The form of a PCI device's name: 2.23.147.
pub(crate) const PCI_NAME: &[u8] = &[0x67, 0x81, 0x13];
/// The form of a name of DMTF's: 1.3.6.1.4.1.412.274.1.
pub(crate) const DMTF_NAME: &[u8] = &[0x2b, 6, 1, 4, 1, 0x83, 0x1c, 0x82, 0x12, 1];

/// Why a chain is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateFault {
    /// The leaf is no certificate, or one that its path does not lead to. The text is webpki's.
    #[error("the path does not hold: {0:?}")]
    Path(webpki::Error),
    /// The leaf's key is none of the suite that was negotiated.
    #[error("the leaf has no key of the negotiated kind")]
    Key,
    /// The leaf names another device, or none in the form that is asked for.
    #[error("the leaf names {found:?}")]
    Name {
        /// The names in the form that is asked for.
        found: Vec<String>,
    },
    /// The hash in the chain is not its root's.
    #[error("the chain's hash is not that of its root")]
    RootHash,
    /// Fewer than two certificates, or one that is none.
    #[error("{certificates} certificates, then {left} bytes that are none")]
    Shape {
        /// Certificates found.
        certificates: usize,
        /// Bytes that are no certificate.
        left: usize,
    },
    /// The root is none of those that are trusted.
    #[error("the root is not trusted")]
    UnknownRoot,
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The hash of the root's certificate.
    pub root_hash: Vec<u8>,
    /// In DER, one after the other, the root first.
    pub certificates: Vec<Vec<u8>>,
}

impl Chain {
    /// A chain from the root's certificate to the leaf's.
    pub fn new(crypto: &dyn Crypto, suite: Suite, certificates: Vec<Vec<u8>>) -> Self {
        let root = certificates.first().map_or(&[][..], Vec::as_slice);
        Self { root_hash: hash(crypto, suite, root), certificates }
    }

    /// The chain in the bytes of a slot.
    ///
    /// # Errors
    /// [`PeerFault::Short`], [`PeerFault::Trailing`], [`PeerFault::UnknownValue`].
    pub fn read(bytes: &[u8], suite: Suite) -> Result<Self, PeerFault> {
        Reader::all("a certificate chain", bytes, |r| {
            let length = r.u16()?;
            if usize::from(length) != bytes.len() {
                return Err(r.unknown("Length", length));
            }
            r.reserved(2)?;
            let root_hash = r.bytes(suite.hash_bytes())?.to_vec();
            let mut certificates = Vec::new();
            let mut rest = r.rest();
            while !rest.is_empty() {
                let Some((_, after)) = der::split(rest) else {
                    return Err(r.unknown("a certificate", rest[0]));
                };
                certificates.push(rest[..rest.len() - after.len()].to_vec());
                rest = after;
            }
            Ok(Self { root_hash, certificates })
        })
    }

    /// The bytes of a slot.
    ///
    /// # Errors
    /// [`Refusal::TooLong`] past 64 KiB.
    pub fn write(&self) -> Result<Vec<u8>, Refusal> {
        const HEADER_BYTES: usize = 4;
        let certificates: usize = self.certificates.iter().map(Vec::len).sum();
        let mut w = Writer::default();
        w.count_u16(HEADER_BYTES + self.root_hash.len() + certificates);
        w.reserved(2);
        w.bytes(&self.root_hash);
        self.certificates.iter().for_each(|certificate| w.bytes(certificate));
        w.finish()
    }
}

/// What a leaf must be allowed to do. A leaf that limits itself to nothing may do all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafUsage {
    /// To respond in SPDM.
    Responder,
    /// To be a TLS server, as the sample certificates of DMTF are.
    Server,
}

/// Whom the leaf must name, in an alternative name of its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// Anyone.
    Any,
    /// A PCI device: `Vendor=1b36:Device=0010:CC=010802:REV=02:SSVID=1af4:SSID=1100`.
    Pci(String),
    /// A device of DMTF's form: `ACME:WIDGET:1234567890`.
    Dmtf(String),
}

/// Which chains are trusted.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Certificates of roots, in DER. `None`: whatever root is shown, which proves nothing.
    pub roots: Option<Vec<Vec<u8>>>,
    /// The time, since 1970.
    pub now: Duration,
    /// What the leaf must be allowed to do.
    pub usage: LeafUsage,
    /// Whom it must name.
    pub name: DeviceName,
}

impl Trust {
    /// Judges `chain`. Gives the leaf's public key, both coordinates.
    ///
    /// # Errors
    /// [`CertificateFault`].
    pub fn judge(
        &self,
        crypto: &dyn Crypto,
        suite: Suite,
        chain: &Chain,
    ) -> Result<Vec<u8>, CertificateFault> {
        let [root, between @ .., leaf] = chain.certificates.as_slice() else {
            return Err(CertificateFault::Shape {
                certificates: chain.certificates.len(),
                left: 0,
            });
        };
        if hash(crypto, suite, root) != chain.root_hash {
            return Err(CertificateFault::RootHash);
        }
        if self.roots.as_ref().is_some_and(|roots| !roots.contains(root)) {
            return Err(CertificateFault::UnknownRoot);
        }
        self.check_path(crypto, root, between, leaf)?;
        self.check_name(leaf)?;
        public_key(suite, leaf)
    }

    fn check_path(
        &self,
        crypto: &dyn Crypto,
        root: &[u8],
        between: &[Vec<u8>],
        leaf: &[u8],
    ) -> Result<(), CertificateFault> {
        let usage = match self.usage {
            LeafUsage::Responder => KeyUsage::required_if_present(RESPONDER_USAGE),
            LeafUsage::Server => KeyUsage::server_auth(),
        };
        let root = CertificateDer::from(root);
        let anchors = [anchor_from_trusted_cert(&root).map_err(CertificateFault::Path)?];
        let between: Vec<_> =
            between.iter().map(|bytes| CertificateDer::from(bytes.as_slice())).collect();
        let leaf = CertificateDer::from(leaf);
        let leaf = EndEntityCert::try_from(&leaf).map_err(CertificateFault::Path)?;
        let now = UnixTime::since_unix_epoch(self.now);
        let algorithms = crypto.certificate_algorithms();
        leaf.verify_for_usage(algorithms, &anchors, &between, now, usage, None, None)
            .map(drop)
            .map_err(CertificateFault::Path)
    }

    fn check_name(&self, leaf: &[u8]) -> Result<(), CertificateFault> {
        let (form, wanted) = match &self.name {
            DeviceName::Any => return Ok(()),
            DeviceName::Pci(name) => (PCI_NAME, name),
            DeviceName::Dmtf(name) => (DMTF_NAME, name),
        };
        let found = der::other_names(leaf, form);
        if found.contains(wanted) { Ok(()) } else { Err(CertificateFault::Name { found }) }
    }
}

/// Both coordinates of the leaf's key.
fn public_key(suite: Suite, leaf: &[u8]) -> Result<Vec<u8>, CertificateFault> {
    /// What stands before the coordinates: id-ecPublicKey, the curve, an uncompressed point.
    const P256: &[u8] = &[
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    const P384: &[u8] = &[
        0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05,
        0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
    ];
    let (prefix, bytes) = match suite {
        Suite::P256Sha256 => (P256, 64),
        Suite::P384Sha384 => (P384, 96),
    };
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(CertificateFault::Path)?;
    let info = leaf.subject_public_key_info();
    match info.strip_prefix(prefix) {
        Some(coordinates) if coordinates.len() == bytes => Ok(coordinates.to_vec()),
        _ => Err(CertificateFault::Key),
    }
}
