//! What is signed: a prefix that names version and purpose, and the hash of a transcript.

use alloc::vec::Vec;

use crate::algorithm::Version;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// CHALLENGE_AUTH.
    Challenge,
    /// KEY_EXCHANGE_RSP.
    KeyExchange,
    /// MEASUREMENTS.
    Measurements,
}

impl Purpose {
    const fn context(self) -> &'static [u8] {
        match self {
            Self::Challenge => b"responder-challenge_auth signing",
            Self::KeyExchange => b"responder-key_exchange_rsp signing",
            Self::Measurements => b"responder-measurements signing",
        }
    }
}

/// The message that is signed for `purpose` over a transcript with hash `transcript`.
///
/// Source: \[DSP0274\] combined_spdm_prefix: the version four times, zeros, the context; 100 bytes.
pub fn signed_message(version: Version, purpose: Purpose, transcript: &[u8]) -> Vec<u8> {
    let context = purpose.context();
    let mut message = version.signing_label().repeat(LABELS);
    message.resize(PREFIX_BYTES - context.len(), 0);
    message.extend_from_slice(context);
    message.extend_from_slice(transcript);
    message
}

const LABELS: usize = 4;
const PREFIX_BYTES: usize = 100;
