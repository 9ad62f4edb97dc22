//! ERROR, and RESPOND_IF_READY for the one that asks for patience.

use alloc::vec::Vec;
use core::fmt;

use super::{Code, Header, Message, Shape};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// Why a request is refused. Keeps what was sent, known or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u8);

impl ErrorCode {
    /// A field of the request is wrong.
    pub const INVALID_REQUEST: Self = Self(0x01);
    /// Not now; ask again.
    pub const BUSY: Self = Self(0x03);
    /// The request does not belong here.
    pub const UNEXPECTED_REQUEST: Self = Self(0x04);
    /// For no reason that is told.
    pub const UNSPECIFIED: Self = Self(0x05);
    /// A record did not open.
    pub const DECRYPT_ERROR: Self = Self(0x06);
    /// There is no such request; the data names it.
    pub const UNSUPPORTED_REQUEST: Self = Self(0x07);
    /// The session is not known, or cannot go on.
    pub const INVALID_SESSION: Self = Self(0x0b);
    /// No more sessions.
    pub const SESSION_LIMIT_EXCEEDED: Self = Self(0x0a);
    /// The response is longer than the requester can receive.
    pub const RESPONSE_TOO_LARGE: Self = Self(0x0d);
    /// The request is longer than the responder can receive.
    pub const REQUEST_TOO_LARGE: Self = Self(0x0e);
    /// The response comes in chunks; the extended data is its handle.
    pub const LARGE_RESPONSE: Self = Self(0x0f);
    /// The version is not spoken.
    pub const VERSION_MISMATCH: Self = Self(0x41);
    /// The response is not ready; the extended data says when.
    pub const RESPONSE_NOT_READY: Self = Self(0x42);
    /// All must begin anew with GET_VERSION.
    pub const REQUEST_RESYNCH: Self = Self(0x43);

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::INVALID_REQUEST => "InvalidRequest",
            Self::BUSY => "Busy",
            Self::UNEXPECTED_REQUEST => "UnexpectedRequest",
            Self::UNSPECIFIED => "Unspecified",
            Self::DECRYPT_ERROR => "DecryptError",
            Self::UNSUPPORTED_REQUEST => "UnsupportedRequest",
            Self::INVALID_SESSION => "InvalidSession",
            Self::SESSION_LIMIT_EXCEEDED => "SessionLimitExceeded",
            Self::RESPONSE_TOO_LARGE => "ResponseTooLarge",
            Self::REQUEST_TOO_LARGE => "RequestTooLarge",
            Self::LARGE_RESPONSE => "LargeResponse",
            Self::VERSION_MISMATCH => "VersionMismatch",
            Self::RESPONSE_NOT_READY => "ResponseNotReady",
            Self::REQUEST_RESYNCH => "RequestResynch",
            _ => return None,
        })
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// Why.
    pub code: ErrorCode,
    /// More of it.
    pub data: u8,
    /// More of it; padding cannot be told from it.
    pub extended: Vec<u8>,
}

impl ErrorMessage {
    /// A refusal without more to it.
    pub const fn new(code: ErrorCode) -> Self {
        Self { code, data: 0, extended: Vec::new() }
    }

    /// When to ask again, if that is what it says.
    pub fn not_ready(&self) -> Option<NotReady> {
        let [exponent, request, token, multiple] = *self.extended.first_chunk()?;
        (self.code == ErrorCode::RESPONSE_NOT_READY).then_some(NotReady {
            exponent,
            request: Code(request),
            token,
            multiple,
        })
    }

    /// The handle of a response in chunks, if that is what it says.
    pub fn large_response(&self) -> Option<u8> {
        let handle = self.extended.first()?;
        (self.code == ErrorCode::LARGE_RESPONSE).then_some(*handle)
    }
}

impl Message for ErrorMessage {
    const CODE: Code = Code::ERROR;
    const NAME: &'static str = "ERROR";

    fn parameters(&self) -> (u8, u8) {
        (self.code.0, self.data)
    }

    fn write(&self, w: &mut Writer, _: &Shape) {
        w.bytes(&self.extended);
    }

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        const EXTENDED_BYTES_MAX: usize = 32;
        let (code, data) = (ErrorCode(header.parameter1), header.parameter2);
        let rest = r.rest();
        if rest.len() > EXTENDED_BYTES_MAX {
            return Err(PeerFault::Trailing {
                message: Self::NAME,
                left: rest.len() - EXTENDED_BYTES_MAX,
            });
        }
        Ok(Self { code, data, extended: rest.to_vec() })
    }
}

/// When a response will be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// In 2 to this power, in microseconds.
    pub exponent: u8,
    /// The request that it answers.
    pub request: Code,
    /// To be sent with [`RespondIfReady`].
    pub token: u8,
    /// After the time times this, the response is gone.
    pub multiple: u8,
}

/// Asks for a response that was not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RespondIfReady {
    /// The request that it answers.
    pub request: Code,
    /// From [`NotReady`].
    pub token: u8,
}

impl Message for RespondIfReady {
    const CODE: Code = Code::RESPOND_IF_READY;
    const NAME: &'static str = "RESPOND_IF_READY";

    fn parameters(&self) -> (u8, u8) {
        (self.request.0, self.token)
    }

    fn write(&self, _: &mut Writer, _: &Shape) {}

    fn read(header: Header, _: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        Ok(Self { request: Code(header.parameter1), token: header.parameter2 })
    }
}
