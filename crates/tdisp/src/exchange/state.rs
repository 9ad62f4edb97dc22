//! GET_DEVICE_INTERFACE_STATE and DEVICE_INTERFACE_STATE.

use super::empty_bodies;
use crate::{Body, MessageType, PeerFault, Reader, RequestBody, State, Writer};

empty_bodies! {
    /// Asks for the state of the interface.
    GetState = GET_DEVICE_INTERFACE_STATE;
}

impl RequestBody<'_> for GetState {
    type Response<'r> = InterfaceState;
}

/// The state of the interface, as it was sent; [`State::try_from`] knows the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceState(pub u8);

impl From<State> for InterfaceState {
    fn from(state: State) -> Self {
        Self(state as u8)
    }
}

impl TryFrom<InterfaceState> for State {
    type Error = PeerFault;

    fn try_from(state: InterfaceState) -> Result<Self, PeerFault> {
        let known = Self::ALL.into_iter().find(|known| *known as u8 == state.0);
        known.ok_or(PeerFault::UnknownValue {
            message: "DEVICE_INTERFACE_STATE",
            field: "TDI_STATE",
            value: state.0.into(),
        })
    }
}

impl<'a> Body<'a> for InterfaceState {
    const TYPE: MessageType = MessageType::DEVICE_INTERFACE_STATE;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        Ok(Self(reader.u8()?))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u8(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_states_are_known() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            let sent = InterfaceState::from(state);
            assert_eq!(usize::from(sent.0), number);
            assert_eq!(State::try_from(sent), Ok(state));
        }
        assert!(State::try_from(InterfaceState(4)).is_err());
    }
}
