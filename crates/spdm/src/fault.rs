//! What went wrong, and whose fault it is.
//!
//! [`PeerFault`] is what the peer sent against the protocol, [`Refusal`] what the caller asked
//! wrongly; [`Error`] joins them with what the peer said itself and with faults of our own side.

use thiserror::Error;

use crate::certificate::CertificateFault;
use crate::crypto::CryptoFault;
use crate::message::{Code, ErrorCode};

/// Why an exchange gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The peer's certificates are refused.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateFault),
    /// Our cryptography gave nothing.
    #[error(transparent)]
    Crypto(#[from] CryptoFault),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Peer(#[from] PeerFault),
    /// The caller asked for what cannot be done now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The peer answered with ERROR.
    #[error("the peer answers {code} (data {data:#04x})")]
    Said {
        /// What it says.
        code: ErrorCode,
        /// What goes with it.
        data: u8,
    },
}

impl Error {
    /// Whose fault it is.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Certificate(_) | Self::Peer(_) | Self::Said { .. } => Blame::Peer,
            Self::Refused(_) => Blame::Caller,
            Self::Crypto(_) => Blame::Ourselves,
        }
    }
}

/// Whose fault an [`enum@Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The caller of this crate.
    Caller,
    /// This side: no random bytes, no signature.
    Ourselves,
    /// The other side.
    Peer,
}

/// What the peer sent is not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerFault {
    /// Two messages of the peer contradict each other.
    #[error("{message} contradicts an earlier message in {field}")]
    Contradiction {
        /// The later message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A record does not open: forged, damaged, repeated or out of order.
    #[error("a record does not open")]
    Forged,
    /// A message is longer than both sides agreed.
    #[error("{length} bytes, at most {max} were agreed")]
    Oversized {
        /// Bytes sent.
        length: u64,
        /// Bytes agreed.
        max: u64,
    },
    /// A key of the peer is no point of its curve.
    #[error("{message} carries a key that is no point of its curve")]
    Point {
        /// The message.
        message: &'static str,
    },
    /// A direction of a session has used up its sequence numbers, or failed before.
    #[error("a record for keys that are spent")]
    SpentKeys,
    /// A message ends inside a field.
    #[error("{message} ends {missing} bytes too early")]
    Short {
        /// The message being read.
        message: &'static str,
        /// Bytes that the field lacks.
        missing: usize,
    },
    /// A signature does not verify.
    #[error("the signature of {message} does not verify")]
    Signature {
        /// The message.
        message: &'static str,
    },
    /// Bytes are left after the last field that are no padding.
    #[error("{message} has {left} bytes too many")]
    Trailing {
        /// The message being read.
        message: &'static str,
        /// Bytes left.
        left: usize,
    },
    /// The message has another code.
    #[error("{found} instead of {expected}")]
    UnexpectedCode {
        /// What could have come.
        expected: Code,
        /// What came.
        found: Code,
    },
    /// A clear message where a secured one belongs, or the reverse.
    #[error("{code} came {}", if *.secured { "in a session" } else { "in the clear" })]
    UnexpectedProtection {
        /// The message.
        code: Code,
        /// Whether it came in a session.
        secured: bool,
    },
    /// A record names another session.
    #[error("a record of session {found:#010x}")]
    UnexpectedSession {
        /// The identifier in the record.
        found: u32,
    },
    /// The message has another version.
    #[error("version {found:#04x} instead of {expected:#04x}")]
    UnexpectedVersion {
        /// The version spoken.
        expected: u8,
        /// The version sent.
        found: u8,
    },
    /// No message has this code.
    #[error("{found} is no such message")]
    UnknownCode {
        /// What came.
        found: Code,
    },
    /// A field has a value that may not stand there.
    #[error("{message} has {value:#x} in {field}")]
    UnknownValue {
        /// The message being read.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// The HMAC of a handshake does not verify.
    #[error("the HMAC of {message} does not verify")]
    VerifyData {
        /// The message.
        message: &'static str,
    },
}

/// What the caller asked cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// An answer to the last request is still to come.
    #[error("an exchange is under way")]
    Busy,
    /// Nothing was asked, so nothing can be answered.
    #[error("no exchange is under way")]
    Idle,
    /// The session's keys are spent.
    #[error("the keys of the session are spent")]
    SpentKeys,
    /// A field of a message is longer than its count can say, or than both sides agreed.
    #[error("{length} bytes are more than {max}")]
    TooLong {
        /// Bytes.
        length: usize,
        /// Bytes that would fit.
        max: usize,
    },
    /// The peer has not the capability.
    #[error("the peer is not capable of it")]
    Unsupported,
    /// This comes later, or came before.
    #[error("not in this state")]
    WrongState,
}
