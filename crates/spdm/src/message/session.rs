//! HEARTBEAT, KEY_UPDATE, END_SESSION and what acknowledges them.

use super::{Code, Header, Message, Shape, bare_message};
use crate::fault::PeerFault;
use crate::wire::{Reader, Writer};

/// Keeps a session alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat;

bare_message!(Heartbeat, HEARTBEAT);

/// Acknowledges [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAck;

bare_message!(HeartbeatAck, HEARTBEAT_ACK);

/// What is done to the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOperation {
    /// The requester's become new.
    UpdateRequester,
    /// Both directions' become new.
    UpdateAll,
    /// Nothing: proves that the new ones work.
    Verify,
}

impl KeyOperation {
    const fn wire(self) -> u8 {
        match self {
            Self::UpdateRequester => 1,
            Self::UpdateAll => 2,
            Self::Verify => 3,
        }
    }

    fn read(r: &Reader<'_>, byte: u8) -> Result<Self, PeerFault> {
        [Self::UpdateRequester, Self::UpdateAll, Self::Verify]
            .into_iter()
            .find(|operation| operation.wire() == byte)
            .ok_or_else(|| r.unknown("KeyOperation", byte))
    }
}

/// Makes keys new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUpdate {
    /// What is done.
    pub operation: KeyOperation,
    /// Comes back in the answer.
    pub tag: u8,
}

impl Message for KeyUpdate {
    const CODE: Code = Code::KEY_UPDATE;
    const NAME: &'static str = "KEY_UPDATE";

    fn parameters(&self) -> (u8, u8) {
        (self.operation.wire(), self.tag)
    }

    fn write(&self, _: &mut Writer, _: &Shape) {}

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        let operation = KeyOperation::read(r, header.parameter1)?;
        Ok(Self { operation, tag: header.parameter2 })
    }
}

/// Acknowledges [`KeyUpdate`], and repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUpdateAck {
    /// What was done.
    pub operation: KeyOperation,
    /// The tag of the request.
    pub tag: u8,
}

impl Message for KeyUpdateAck {
    const CODE: Code = Code::KEY_UPDATE_ACK;
    const NAME: &'static str = "KEY_UPDATE_ACK";

    fn parameters(&self) -> (u8, u8) {
        (self.operation.wire(), self.tag)
    }

    fn write(&self, _: &mut Writer, _: &Shape) {}

    fn read(header: Header, r: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        let operation = KeyOperation::read(r, header.parameter1)?;
        Ok(Self { operation, tag: header.parameter2 })
    }
}

/// Ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndSession {
    /// Bit 0: forget also what was negotiated and cached.
    pub attributes: u8,
}

impl Message for EndSession {
    const CODE: Code = Code::END_SESSION;
    const NAME: &'static str = "END_SESSION";

    fn parameters(&self) -> (u8, u8) {
        (self.attributes, 0)
    }

    fn write(&self, _: &mut Writer, _: &Shape) {}

    fn read(header: Header, _: &mut Reader<'_>, _: &Shape) -> Result<Self, PeerFault> {
        Ok(Self { attributes: header.parameter1 })
    }
}

/// Acknowledges [`EndSession`]; the last record of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndSessionAck;

bare_message!(EndSessionAck, END_SESSION_ACK);
