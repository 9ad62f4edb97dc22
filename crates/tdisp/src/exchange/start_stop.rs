//! START_INTERFACE and STOP_INTERFACE, requests and responses.

use super::{Nonce, empty_bodies};
use crate::{Body, MessageType, PeerFault, Reader, RequestBody, Writer};

/// Lets the locked interface run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartInterface {
    /// What LOCK answered.
    pub nonce: Nonce,
}

impl<'a> Body<'a> for StartInterface {
    const TYPE: MessageType = MessageType::START_INTERFACE_REQUEST;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        Ok(Self { nonce: Nonce(reader.array()?) })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.nonce.0);
    }
}

impl RequestBody<'_> for StartInterface {
    type Response<'r> = StartInterfaceResponse;
}

impl RequestBody<'_> for StopInterface {
    type Response<'r> = StopInterfaceResponse;
}

empty_bodies! {
    /// The interface runs.
    StartInterfaceResponse = START_INTERFACE_RESPONSE;
    /// Unlocks the interface, in whatever state it is.
    StopInterface = STOP_INTERFACE_REQUEST;
    /// The interface is unlocked; what it held of the guest's is gone.
    StopInterfaceResponse = STOP_INTERFACE_RESPONSE;
}
