//! GET_CAPABILITIES and CAPABILITIES.

use super::LockFlags;
use crate::{Body, MessageType, PeerFault, Reader, RequestBody, Writer};

const RESERVED_BYTES: usize = 3;
const REQUEST_SET_BYTES: usize = 16;

/// Tells what the TSM can do and asks what the DSM can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetCapabilities {
    /// TSM_CAPS: no bit has a meaning yet.
    pub tsm_caps: u32,
}

impl<'a> Body<'a> for GetCapabilities {
    const TYPE: MessageType = MessageType::GET_CAPABILITIES;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        Ok(Self { tsm_caps: reader.u32()? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.tsm_caps);
    }
}

impl RequestBody<'_> for GetCapabilities {
    type Response<'r> = Capabilities;
}

/// What the DSM can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// DSM_CAPS.
    pub dsm_caps: u32,
    /// REQ_MSGS_SUPPORTED.
    pub requests: RequestSet,
    /// LOCK_INTERFACE_FLAGS_SUPPORTED: what LOCK may ask for.
    pub lock_flags: LockFlags,
    /// DEV_ADDR_WIDTH: bits of an address that the device can use.
    pub address_width_bits: u8,
    /// NUM_REQ_THIS: requests that may be outstanding for this interface.
    pub outstanding_this: u8,
    /// NUM_REQ_ALL: requests that may be outstanding for all interfaces of the DSM.
    pub outstanding_all: u8,
}

impl<'a> Body<'a> for Capabilities {
    const TYPE: MessageType = MessageType::CAPABILITIES;

    fn read(reader: &mut Reader<'a>) -> Result<Self, PeerFault> {
        let dsm_caps = reader.u32()?;
        let requests = RequestSet(reader.array()?);
        let lock_flags = LockFlags(reader.u16()?);
        reader.reserved(RESERVED_BYTES)?;
        Ok(Self {
            dsm_caps,
            requests,
            lock_flags,
            address_width_bits: reader.u8()?,
            outstanding_this: reader.u8()?,
            outstanding_all: reader.u8()?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.dsm_caps);
        writer.bytes(&self.requests.0);
        writer.u16(self.lock_flags.0);
        writer.reserved(RESERVED_BYTES);
        writer.u8(self.address_width_bits);
        writer.u8(self.outstanding_this);
        writer.u8(self.outstanding_all);
    }
}

/// Requests that a DSM takes, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestSet(pub [u8; REQUEST_SET_BYTES]);

/// Which request bit 0 of a [`RequestSet`] stands for. Public sources disagree: Cerberus and
/// spdm-emu count from 80h, tee-io-validator (2.1.6) and spdm-rs from 81h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestNumbering {
    /// 80h, which no request has: 81h to 87h are `fe`.
    #[default]
    From80,
    /// 81h: 81h to 87h are `7f`.
    From81,
    /// Both at once: 81h to 87h are `ff`, which each reader takes to hold one request too many.
    Both,
}

impl RequestSet {
    /// The set of `requests`.
    pub fn of(requests: &[MessageType], numbering: RequestNumbering) -> Self {
        let mut set = Self::default();
        for request in requests {
            if numbering != RequestNumbering::From81 {
                set.insert(request.0.wrapping_sub(0x80));
            }
            if numbering != RequestNumbering::From80 {
                set.insert(request.0.wrapping_sub(0x81));
            }
        }
        set
    }

    /// Whether the DSM takes `request`, in whichever numbering it answered: 80h is no request, so
    /// bit 0 tells that it counted from 81h.
    pub fn takes(&self, request: MessageType) -> bool {
        let first = if self.has(0) { 0x81 } else { 0x80 };
        request.0.checked_sub(first).is_some_and(|bit| self.has(bit))
    }

    fn has(&self, bit: u8) -> bool {
        self.0.get(usize::from(bit / 8)).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }

    fn insert(&mut self, bit: u8) {
        if let Some(byte) = self.0.get_mut(usize::from(bit / 8)) {
            *byte |= 1 << (bit % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVEN: [MessageType; 7] = [
        MessageType::GET_VERSION,
        MessageType::GET_CAPABILITIES,
        MessageType::LOCK_INTERFACE_REQUEST,
        MessageType::GET_DEVICE_INTERFACE_REPORT,
        MessageType::GET_DEVICE_INTERFACE_STATE,
        MessageType::START_INTERFACE_REQUEST,
        MessageType::STOP_INTERFACE_REQUEST,
    ];

    #[test]
    fn both_numberings_are_understood() {
        use RequestNumbering::{Both, From80, From81};
        for (numbering, first) in [(From80, 0xfe), (From81, 0x7f), (Both, 0xff)] {
            let set = RequestSet::of(&SEVEN, numbering);
            assert_eq!((set.0[0], set.0[1]), (first, 0), "{numbering:?}");
            for request in SEVEN {
                assert!(set.takes(request), "{request} in {numbering:?}");
            }
            assert!(!set.takes(MessageType(0x80)));
            assert!(!set.takes(MessageType::VDM_REQUEST));
            assert!(!set.takes(MessageType::VERSION));
        }
        assert!(!RequestSet::of(&SEVEN, From81).takes(MessageType::BIND_P2P_STREAM_REQUEST));
    }

    #[test]
    fn what_is_no_request_is_in_no_set() {
        let all = RequestSet([0xff; REQUEST_SET_BYTES]);
        assert!(all.takes(MessageType(0xff)));
        assert!(!all.takes(MessageType(0x7f)));
        assert_eq!(
            RequestSet::of(&[MessageType(0x01)], RequestNumbering::Both),
            RequestSet::default()
        );
    }
}
