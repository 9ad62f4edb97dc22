//! A device without hardware, for scenarios and tests: it locks, starts and stops whatever it is asked to.
//!
//! It has one BAR and one port, and draws the nonce that it was given. Takes no lock. Deliberately absent: anything that
//! could refuse.

use crate::exchange::LockInterface;
use crate::ide_km::{KeyTable, Port, PortLocation};
use crate::payload::{self, ProtocolId};
use crate::report::{self, Function, MemoryBar};
use crate::{Device, DeviceRefusal, Dsm, FirstPage, Nonce, PeerFault, REPORT_BYTES_MAX, SessionId};

/// What stands in for a device's hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// Its BAR, as reports tell of it.
    pub bar: MemoryBar,
    /// What else reports tell.
    pub device_specific: &'static [u8],
    /// What it draws next, and again.
    pub nonce: Nonce,
    /// Streams that are set up at its port: those of the lowest numbers.
    pub streams: u8,
}

/// The session that its requests come in.
pub const SESSION: SessionId = SessionId(1);

impl Default for StandIn {
    fn default() -> Self {
        let bar = MemoryBar {
            number: 0,
            address: 0xfe00_0000,
            length: 0x8000,
            msix_table: None,
            msix_pba: None,
            non_tee: false,
        };
        Self { bar, device_specific: &[], nonce: Nonce([9; 32]), streams: 1 }
    }
}

impl StandIn {
    /// Answers a payload of either protocol, in [`SESSION`], for a device of these interfaces and keys. Returns how many
    /// bytes of `into` the answer has: the protocol's alone where there is no answer, or less room than
    /// [`RESPONSE_BYTES_MIN`](crate::RESPONSE_BYTES_MIN) behind it.
    ///
    /// # Errors
    /// [`PeerFault`] for an empty payload; nothing was done then.
    pub fn respond<const TDIS: usize, const STREAMS: usize>(
        &mut self,
        dsm: &mut Dsm<TDIS>,
        keys: &mut KeyTable<STREAMS>,
        request: &[u8],
        into: &mut [u8],
    ) -> Result<usize, PeerFault> {
        let (protocol, message) = payload::split(request)?;
        let joined = payload::join(protocol, into, |into| {
            let length = match protocol {
                ProtocolId::TDISP => {
                    dsm.respond(SESSION, message, self, into).map(|answer| answer.length).ok()
                }
                _ => keys.respond(message, self, into).map(|answer| answer.length).ok(),
            };
            Ok(length.unwrap_or(0))
        });
        Ok(joined.unwrap_or(0))
    }
}

impl Device for StandIn {
    fn nonce(&mut self) -> Option<Nonce> {
        Some(self.nonce)
    }

    fn lock(
        &mut self,
        _: u16,
        parameters: &LockInterface,
        report: &mut [u8; REPORT_BYTES_MAX],
    ) -> Result<usize, DeviceRefusal> {
        let bars = [self.bar];
        let function =
            Function { bars: &bars, device_specific: self.device_specific, ..Function::default() };
        report::describe(&function, parameters, FirstPage::Address, report)
            .map_err(|_| DeviceRefusal::Misconfigured)
    }

    fn start(&mut self, _: u16) -> Result<(), DeviceRefusal> {
        Ok(())
    }

    fn stop(&mut self, _: u16) {}
}

impl Port for StandIn {
    fn port_max(&self) -> u8 {
        0
    }

    fn location(&self, _: u8) -> PortLocation {
        PortLocation { devfn: 0, bus: 1, segment: 0 }
    }

    fn registers(&self, _: u8) -> &[u8] {
        &[0; 8]
    }

    fn has_stream(&self, _: u8, stream: u8) -> bool {
        stream < self.streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::GetState;
    use crate::{InterfaceId, RESPONSE_BYTES_MIN, Request, Settings};

    #[test]
    fn each_protocol_is_answered_in_its_own() {
        let mut dsm = Dsm::<1>::new(Settings::default());
        dsm.add(7).unwrap();
        let mut keys = KeyTable::<1>::new();
        let mut request = [0; 64];
        let length = payload::join(ProtocolId::TDISP, &mut request, |into| {
            Request::GetState(GetState).encode(InterfaceId::new(7), into)
        });
        let mut answer = [0; 1 + RESPONSE_BYTES_MIN];
        let mut device = StandIn::default();
        let mut ask = |request: &[u8]| {
            device.respond(&mut dsm, &mut keys, request, &mut answer).map(|length| (length, answer))
        };
        let (got, answer) = ask(&request[..length.unwrap()]).unwrap();
        assert!(got > crate::HEADER_BYTES, "{got}");
        assert_eq!(answer[0], ProtocolId::TDISP.0);
        let (got, answer) = ask(&[ProtocolId::IDE_KM.0, 0xff]).unwrap();
        assert_eq!((got, answer[0]), (1, ProtocolId::IDE_KM.0), "no answer to nonsense");
        assert!(ask(&[]).is_err());
    }
}
