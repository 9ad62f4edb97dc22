//! The header of every TDISP message, and the messages as a whole.
//!
//! Types are open: [`MessageType`] keeps what was sent, [`Request`] and [`Response`] are the known
//! ones. Source: [pci_tdisp.h].

use core::fmt;

use crate::exchange::{
    BindP2pStream, BindP2pStreamResponse, Capabilities, ErrorResponse, GetCapabilities, GetReport,
    GetState, GetVersion, InterfaceState, LockInterface, LockInterfaceResponse, ReportPortion,
    SetMmioAttribute, SetMmioAttributeResponse, StartInterface, StartInterfaceResponse,
    StopInterface, StopInterfaceResponse, UnbindP2pStream, UnbindP2pStreamResponse, VdmRequest,
    VdmResponse, Versions,
};
use crate::{EncodeFault, InterfaceId, PeerFault, Reader, Writer};

/// Version 1.0, the only one.
pub const VERSION_1_0: u8 = 0x10;
/// Bytes of a header: version, type, two reserved, INTERFACE_ID.
pub const HEADER_BYTES: usize = 16;

const RESERVED_BYTES: usize = 2;

/// Writes a message of version 1.0 and returns its length in bytes.
///
/// # Errors
/// [`EncodeFault`] where `into` is too small or a field too long for its count.
pub fn encode<'a, B: Body<'a>>(
    interface: InterfaceId,
    body: &B,
    into: &mut [u8],
) -> Result<usize, EncodeFault> {
    let mut writer = Writer::new(into);
    Header { version: VERSION_1_0, message_type: B::TYPE, interface }.write(&mut writer);
    body.write(&mut writer);
    writer.finish()
}

/// What follows the header of one type of message.
pub trait Body<'a>: Sized {
    /// The type in the header.
    const TYPE: MessageType;

    /// Reads the fields.
    ///
    /// # Errors
    /// [`PeerFault::Short`] where the message ends first.
    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault>;

    /// Writes the fields.
    fn write(&self, writer: &mut Writer<'_>);
}

/// A request, and what answers it.
pub trait RequestBody<'a>: Body<'a> {
    /// The response to it.
    type Response<'r>: Body<'r>;
}

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version: [`VERSION_1_0`].
    pub version: u8,
    /// What follows.
    pub message_type: MessageType,
    /// What the message is about.
    pub interface: InterfaceId,
}

impl Header {
    /// The header of a message, whatever follows it.
    ///
    /// # Errors
    /// [`PeerFault::Short`] where there are fewer bytes than a header has.
    pub fn of(message: &[u8]) -> Result<Self, PeerFault> {
        Reader::all("TDISP header", message, |reader| {
            let header = Self::read(reader)?;
            reader.rest();
            Ok(header)
        })
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, PeerFault> {
        let (version, message_type) = (reader.u8()?, MessageType(reader.u8()?));
        reader.reserved(RESERVED_BYTES)?;
        Ok(Self { version, message_type, interface: InterfaceId::read(reader)? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u8(self.version);
        writer.u8(self.message_type.0);
        writer.reserved(RESERVED_BYTES);
        self.interface.write(writer);
    }
}

/// The type of a message, as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageType(pub u8);

macro_rules! types {
    ($($code:literal $name:ident)*) => {
        impl MessageType {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                pub const $name: Self = Self($code);
            )*

            /// The name of a known type.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    Self(_) => None,
                }
            }
        }
    };
}

types! {
    0x01 VERSION
    0x02 CAPABILITIES
    0x03 LOCK_INTERFACE_RESPONSE
    0x04 DEVICE_INTERFACE_REPORT
    0x05 DEVICE_INTERFACE_STATE
    0x06 START_INTERFACE_RESPONSE
    0x07 STOP_INTERFACE_RESPONSE
    0x08 BIND_P2P_STREAM_RESPONSE
    0x09 UNBIND_P2P_STREAM_RESPONSE
    0x0a SET_MMIO_ATTRIBUTE_RESPONSE
    0x0b VDM_RESPONSE
    0x7f ERROR
    0x81 GET_VERSION
    0x82 GET_CAPABILITIES
    0x83 LOCK_INTERFACE_REQUEST
    0x84 GET_DEVICE_INTERFACE_REPORT
    0x85 GET_DEVICE_INTERFACE_STATE
    0x86 START_INTERFACE_REQUEST
    0x87 STOP_INTERFACE_REQUEST
    0x88 BIND_P2P_STREAM_REQUEST
    0x89 UNBIND_P2P_STREAM_REQUEST
    0x8a SET_MMIO_ATTRIBUTE_REQUEST
    0x8b VDM_REQUEST
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Prints the name, or the number of an unknown type.
impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {:#04x}", self.0),
        }
    }
}

macro_rules! messages {
    ($(#[$doc:meta])* $set:ident { $($variant:ident($body:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $set<'a> {
            $(
                #[doc = concat!("See [`", stringify!($variant), "`].")]
                $variant($body),
            )*
        }

        impl<'a> $set<'a> {
            /// The types that can be read.
            pub const TYPES: &'static [MessageType] = &[$(<$body as Body>::TYPE,)*];

            /// Reads a whole message. The version is for the caller to judge.
            ///
            /// # Errors
            /// [`PeerFault::Short`] or [`PeerFault::Trailing`] where the length is wrong,
            /// [`PeerFault::UnknownType`] where the type is none of [`TYPES`](Self::TYPES).
            pub fn decode(message: &'a [u8]) -> Result<(Header, Self), PeerFault> {
                let found = Header::of(message)?.message_type;
                let name = found.name().unwrap_or("TDISP message");
                Reader::all(name, message, |reader| {
                    let header = Header::read(reader)?;
                    $(
                        if found == <$body as Body>::TYPE {
                            return Ok((header, Self::$variant(Body::read(reader)?)));
                        }
                    )*
                    Err(PeerFault::UnknownType { found })
                })
            }

            /// Writes a message of version 1.0 and returns its length in bytes.
            ///
            /// # Errors
            /// As for [`encode`].
            pub fn encode(
                &self,
                interface: InterfaceId,
                into: &mut [u8],
            ) -> Result<usize, EncodeFault> {
                match self {
                    $(Self::$variant(body) => encode(interface, body, into),)*
                }
            }
        }
    };
}

messages! {
    /// What a TSM asks.
    Request {
        GetVersion(GetVersion),
        GetCapabilities(GetCapabilities),
        LockInterface(LockInterface),
        GetReport(GetReport),
        GetState(GetState),
        StartInterface(StartInterface),
        StopInterface(StopInterface),
        BindP2pStream(BindP2pStream),
        UnbindP2pStream(UnbindP2pStream),
        SetMmioAttribute(SetMmioAttribute),
        VdmRequest(VdmRequest<'a>),
    }
}

messages! {
    /// What a DSM answers.
    Response {
        Versions(Versions<'a>),
        Capabilities(Capabilities),
        LockInterfaceResponse(LockInterfaceResponse),
        ReportPortion(ReportPortion<'a>),
        InterfaceState(InterfaceState),
        StartInterfaceResponse(StartInterfaceResponse),
        StopInterfaceResponse(StopInterfaceResponse),
        BindP2pStreamResponse(BindP2pStreamResponse),
        UnbindP2pStreamResponse(UnbindP2pStreamResponse),
        SetMmioAttributeResponse(SetMmioAttributeResponse),
        VdmResponse(VdmResponse<'a>),
        ErrorResponse(ErrorResponse<'a>),
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn types_are_named_and_unknown_ones_kept() {
        assert_eq!(format!("{}", MessageType(0x83)), "LOCK_INTERFACE_REQUEST");
        assert_eq!(format!("{}", MessageType(0x8c)), "type 0x8c");
        let mut message = [0; HEADER_BYTES];
        message[..2].copy_from_slice(&[VERSION_1_0, 0x8c]);
        let unknown = Err(PeerFault::UnknownType { found: MessageType(0x8c) });
        assert_eq!(Request::decode(&message), unknown);
        message[1] = 0x85;
        assert!(Request::decode(&message).is_ok());
    }

    #[test]
    fn a_response_is_no_request() {
        for &kind in Response::TYPES {
            assert!(kind.0 < 0x80);
            assert!(!Request::TYPES.contains(&kind));
        }
        assert_eq!(Request::TYPES.len(), 11);
        assert_eq!(Response::TYPES.len(), 12);
    }
}
