//! ERROR: the answer to a request that is refused.

use core::fmt;

use crate::{Body, MessageType, PeerFault, Reader, Writer};

/// The request is refused; the interface is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorResponse<'a> {
    /// Why.
    pub code: ErrorCode,
    /// More about it: for [`ErrorCode::UNSUPPORTED_REQUEST`] the type of the request.
    pub data: u32,
    /// A vendor's own data, after [`ErrorCode::VENDOR_SPECIFIC`].
    pub extended: &'a [u8],
}

impl<'a> Body<'a> for ErrorResponse<'a> {
    const TYPE: MessageType = MessageType::ERROR;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        let (code, data) = (ErrorCode(reader.u32()?), reader.u32()?);
        Ok(Self { code, data, extended: reader.rest() })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.code.0);
        writer.u32(self.data);
        writer.bytes(self.extended);
    }
}

/// Why a request is refused, as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $code:literal $name:ident)*) => {
        impl ErrorCode {
            /// All that are known.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The name of a known code.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    Self(_) => None,
                }
            }
        }
    };
}

codes! {
    /// A field, or the length of the message, is wrong.
    0x01 INVALID_REQUEST
    /// Ask again later.
    0x03 BUSY
    /// The request does not fit the state of the interface.
    0x04 INVALID_INTERFACE_STATE
    /// Something else.
    0x05 UNSPECIFIED
    /// The DSM does not know the request.
    0x07 UNSUPPORTED_REQUEST
    /// The DSM does not speak the version.
    0x41 VERSION_MISMATCH
    /// See the extended data.
    0xff VENDOR_SPECIFIC
    /// The DSM has no such interface.
    0x101 INVALID_INTERFACE
    /// The nonce is not the one that LOCK gave.
    0x102 INVALID_NONCE
    /// No nonce can be made.
    0x103 INSUFFICIENT_ENTROPY
    /// The device is not set up so that it could be locked.
    0x104 INVALID_DEVICE_CONFIGURATION
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Prints the name, or the number of an unknown code.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {:#x}", self.0),
        }
    }
}
