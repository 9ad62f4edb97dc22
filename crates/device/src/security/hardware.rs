//! What the protocols ask of the hardware, for the length of one request. Takes no lock of its own.

use tdisp::exchange::LockInterface;
use tdisp::ide_km::{KeyTable, Port, PortLocation};
use tdisp::{Device, DeviceRefusal, Nonce, REPORT_BYTES_MAX, SessionId};

use super::interface::{Part, Terms};
use super::{PORT, STREAMS, Seat, Settings};
use crate::security::Entropy;

/// The functions behind a DSM, as one request of one session meets them.
pub(super) struct Hardware<'a> {
    pub(super) seats: &'a [Seat],
    pub(super) keys: &'a KeyTable<STREAMS>,
    pub(super) entropy: &'a dyn Entropy,
    pub(super) settings: &'a Settings,
    pub(super) session: SessionId,
    /// A function was not as its record says: something happened that is not recorded yet.
    pub(super) overtaken: bool,
}

impl Hardware<'_> {
    fn seat(&self, requester_id: u16) -> Result<&Seat, DeviceRefusal> {
        let mut seats = self.seats.iter();
        let seat = seats.find(|seat| seat.interface.requester_id() == requester_id);
        seat.ok_or(DeviceRefusal::Unspecified)
    }

    /// What the physical function says of a virtual one, and the count of its changes.
    fn part(&self, seat: &Seat) -> Result<Option<(Part, u64)>, DeviceRefusal> {
        let Some(place) = seat.place else { return Ok(None) };
        let physical = self.seats.get(place.physical).ok_or(DeviceRefusal::Unspecified)?;
        let found = physical.interface.virtualization().ok_or(DeviceRefusal::Misconfigured)?;
        let (of, changes) = found;
        Ok(Some((Part { of, index: place.index }, changes)))
    }
}

impl Device for Hardware<'_> {
    fn nonce(&mut self) -> Option<Nonce> {
        let mut nonce = Nonce([0; tdisp::exchange::NONCE_BYTES]);
        self.entropy.fill(&mut nonce.0).then_some(nonce)
    }

    fn lock(
        &mut self,
        requester_id: u16,
        parameters: &LockInterface,
        report: &mut [u8; REPORT_BYTES_MAX],
    ) -> Result<usize, DeviceRefusal> {
        let seat = self.seat(requester_id)?;
        if !self.keys.is_secure(PORT, parameters.default_stream) {
            return Err(DeviceRefusal::InsecureStream);
        }
        let part = self.part(seat)?;
        let terms = Terms {
            session: self.session,
            parameters: *parameters,
            function_reset: self.settings.flr_while_locked,
        };
        let length = seat.interface.lock(terms, part.map(|(part, _)| part), report)?;
        // The physical function may have moved it before it was locked.
        let changes = self.part(seat)?.map(|(_, changes)| changes);
        if changes != part.map(|(_, changes)| changes) {
            seat.interface.stop();
            return Err(DeviceRefusal::Busy);
        }
        Ok(length)
    }

    fn start(&mut self, requester_id: u16) -> Result<(), DeviceRefusal> {
        if self.seat(requester_id)?.interface.start() {
            return Ok(());
        }
        self.overtaken = true;
        Err(DeviceRefusal::Busy)
    }

    fn stop(&mut self, requester_id: u16) {
        if let Ok(seat) = self.seat(requester_id) {
            seat.interface.stop();
        }
    }
}

/// The one port of the device.
pub(super) struct OnePort {
    location: PortLocation,
    registers: Vec<u8>,
}

impl OnePort {
    /// The port of the first physical function.
    pub(super) fn of(seats: &[Seat]) -> Self {
        let seat = seats.iter().find(|seat| !seat.interface.is_virtual());
        let [devfn, bus] = seat.map_or(0, |seat| seat.interface.requester_id()).to_le_bytes();
        let registers = seat.map_or_else(Vec::new, |seat| seat.interface.ide_registers());
        Self { location: PortLocation { devfn, bus, segment: 0 }, registers }
    }
}

impl Port for OnePort {
    fn port_max(&self) -> u8 {
        PORT
    }

    fn location(&self, _: u8) -> PortLocation {
        self.location
    }

    fn registers(&self, _: u8) -> &[u8] {
        &self.registers
    }

    /// Policy `key-streams`: the number of a stream is the requester's to choose.
    fn has_stream(&self, _: u8, _: u8) -> bool {
        true
    }
}
