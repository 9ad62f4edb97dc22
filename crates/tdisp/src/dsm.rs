//! A device's security manager: a table of interfaces, and the answers to requests about them.
//!
//! [`Dsm`] owns each interface's state; the [`Device`] does what a change of state means for
//! hardware. A request is checked in this order: header, type, length, version, interface, state,
//! contents, device (policy `check-order`; Cerberus and spdm-emu agree as far as they check).
//! Takes no lock; what must not run at once with [`Dsm::respond`] is its owner's to keep out.

use thiserror::Error;

use crate::exchange::{
    Capabilities, ErrorResponse, GetReport, InterfaceState, LockInterface, LockInterfaceResponse,
    ReportPortion, RequestSet, StartInterface, StartInterfaceResponse, StopInterfaceResponse,
    Versions,
};
use crate::report::PAGE_BYTES;
use crate::tdi::{Locked, Report};
use crate::{
    Breach, EncodeFault, ErrorCode, Event, FunctionReset, HEADER_BYTES, Header, InterfaceId,
    LockFlags, MessageType, Nonce, Outcome, PeerFault, REPORT_BYTES_MAX, Request, RequestNumbering,
    SessionId, State, Tdi, VERSION_1_0, encode, transition,
};

/// Room that a response needs at least. With more, reports come in larger portions.
pub const RESPONSE_BYTES_MIN: usize = 64;

/// What every DSM here takes.
const SUPPORTED: [MessageType; 7] = [
    MessageType::GET_VERSION,
    MessageType::GET_CAPABILITIES,
    MessageType::LOCK_INTERFACE_REQUEST,
    MessageType::GET_DEVICE_INTERFACE_REPORT,
    MessageType::GET_DEVICE_INTERFACE_STATE,
    MessageType::START_INTERFACE_REQUEST,
    MessageType::STOP_INTERFACE_REQUEST,
];

/// The interfaces of a device, at most `TDIS`.
#[derive(Debug)]
pub struct Dsm<const TDIS: usize> {
    slots: [Option<Slot>; TDIS],
    settings: Settings,
}

#[derive(Debug)]
struct Slot {
    requester_id: u16,
    tdi: Tdi,
}

/// What the DSM says of itself, and its policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Flags that LOCK may have. Any other is refused.
    pub lock_flags: LockFlags,
    /// Bits of an address that the device can use.
    pub address_width_bits: u8,
    /// Requests that may be outstanding, for one interface and for all.
    pub outstanding: u8,
    /// Policy `request-numbering`.
    pub numbering: RequestNumbering,
    /// Policy `flr-while-locked`.
    pub function_reset: FunctionReset,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lock_flags: LockFlags::NO_FW_UPDATE
                .with(LockFlags::CACHE_LINE_128)
                .with(LockFlags::LOCK_MSIX),
            address_width_bits: 64,
            outstanding: 1,
            numbering: RequestNumbering::default(),
            function_reset: FunctionReset::default(),
        }
    }
}

/// What a change of state means for hardware.
pub trait Device {
    /// A nonce of fresh random bytes; `None` where none can be had.
    fn nonce(&mut self) -> Option<Nonce>;

    /// Locks the configuration of a function, writes its report (see [`crate::report::describe`])
    /// and returns the report's length in bytes.
    ///
    /// # Errors
    /// [`DeviceRefusal`]; the function is then as it was.
    fn lock(
        &mut self,
        requester_id: u16,
        parameters: &LockInterface,
        report: &mut [u8; REPORT_BYTES_MAX],
    ) -> Result<usize, DeviceRefusal>;

    /// Lets a locked function do trusted DMA and answer trusted accesses.
    ///
    /// # Errors
    /// [`DeviceRefusal`]; the function stays locked.
    fn start(&mut self, requester_id: u16) -> Result<(), DeviceRefusal>;

    /// Unlocks a function from whatever state. Returns when no DMA of it runs and nothing of the
    /// guest's is left in it.
    fn stop(&mut self, requester_id: u16);
}

/// Why a device does not do as it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DeviceRefusal {
    /// It will later.
    #[error("busy")]
    Busy,
    /// The default stream has no keys in use, for each direction and sub-stream.
    #[error("IDE stream without keys")]
    InsecureStream,
    /// Memory or bus master enable is clear, or no report can describe it.
    #[error("configuration cannot be locked")]
    Misconfigured,
    /// Something else.
    #[error("device failed")]
    Unspecified,
}

/// A response, and what the request changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes of the response.
    pub length: usize,
    /// The change of state, if there was one.
    pub change: Option<Change>,
}

/// A change of an interface's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The function.
    pub requester_id: u16,
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
}

/// An interface cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Full {
    /// The table has no room.
    #[error("the table has room for {capacity} interfaces")]
    Table {
        /// Interfaces that it can hold.
        capacity: usize,
    },
    /// The function is there already.
    #[error("function {requester_id:#06x} is there already")]
    Present {
        /// The function.
        requester_id: u16,
    },
}

/// What becomes an ERROR response.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    code: ErrorCode,
    data: u32,
}

impl<const TDIS: usize> Dsm<TDIS> {
    /// A DSM without interfaces.
    pub const fn new(settings: Settings) -> Self {
        Self { slots: [const { None }; TDIS], settings }
    }

    /// Answers `request`, which came in `session`, and writes the response to `into`.
    ///
    /// # Errors
    /// [`EncodeFault::NoRoom`] where `into` has less than [`RESPONSE_BYTES_MIN`] bytes; the request
    /// then did nothing.
    pub fn respond(
        &mut self,
        session: SessionId,
        request: &[u8],
        device: &mut impl Device,
        into: &mut [u8],
    ) -> Result<Answer, EncodeFault> {
        if into.len() < RESPONSE_BYTES_MIN {
            return Err(EncodeFault::NoRoom { needed: RESPONSE_BYTES_MIN, room: into.len() });
        }
        let interface = Header::of(request).map_or(InterfaceId::default(), |h| h.interface);
        let requester_id = interface.requester_id();
        let from = self.tdi(requester_id).map(Tdi::state);
        let length = match self.serve(session, request, device, into) {
            Ok(length) => length,
            Err(Refusal { code, data }) => {
                encode(interface, &ErrorResponse { code, data, extended: &[] }, into)?
            }
        };
        let to = self.tdi(requester_id).map(Tdi::state);
        let change = from.zip(to).and_then(|(from, to)| Change::new(requester_id, from, to));
        Ok(Answer { length, change })
    }

    /// Adds an unlocked interface for a function.
    ///
    /// # Errors
    /// [`Full`].
    pub fn add(&mut self, requester_id: u16) -> Result<(), Full> {
        if self.tdi(requester_id).is_some() {
            return Err(Full::Present { requester_id });
        }
        let free = self.slots.iter_mut().find(|slot| slot.is_none());
        *free.ok_or(Full::Table { capacity: TDIS })? =
            Some(Slot { requester_id, tdi: Tdi::default() });
        Ok(())
    }

    /// Takes a function's interface away and returns it. The function is gone or its owner stops
    /// it.
    pub fn remove(&mut self, requester_id: u16) -> Option<Tdi> {
        let of = |slot: &mut Option<Slot>| {
            slot.as_ref().is_some_and(|slot| slot.requester_id == requester_id)
        };
        let slot = self.slots.iter_mut().find_map(|slot| of(slot).then(|| slot.take()))?;
        slot.map(|slot| slot.tdi)
    }

    /// Tells a function's interface that its configuration did not hold.
    pub fn breach(&mut self, requester_id: u16, breach: Breach) -> Option<Change> {
        self.slot(requester_id)?.change(|tdi| {
            tdi.breach(breach);
        })
    }

    /// Tells every interface that its configuration did not hold; `told` hears of each that it
    /// counts for.
    pub fn breach_all(&mut self, breach: Breach, told: impl FnMut(Change)) {
        self.change_all(told, |tdi| {
            tdi.breach(breach);
        });
    }

    /// Tells every interface that an SPDM session ended: policy `session-end`.
    pub fn session_ended(&mut self, session: SessionId, told: impl FnMut(Change)) {
        self.breach_all(Breach::SessionEnded(session), told);
    }

    /// Tells a function's interface of a function-level reset: policy `flr-while-locked`.
    pub fn reset_function(&mut self, requester_id: u16) -> Option<Change> {
        let policy = self.settings.function_reset;
        self.slot(requester_id)?.change(|tdi| tdi.reset_function(policy))
    }

    /// Tells a function's interface that a reset unlocked it, whatever the policy for resets of the
    /// function alone.
    pub fn unlocked(&mut self, requester_id: u16) -> Option<Change> {
        self.slot(requester_id)?.change(Tdi::reset_conventional)
    }

    /// Tells every interface of a reset of the bus or the whole device.
    pub fn reset_conventional(&mut self, told: impl FnMut(Change)) {
        self.change_all(told, Tdi::reset_conventional);
    }

    /// A function's interface.
    pub fn tdi(&self, requester_id: u16) -> Option<&Tdi> {
        let mut slots = self.slots.iter().flatten();
        slots.find(|slot| slot.requester_id == requester_id).map(|slot| &slot.tdi)
    }

    /// Every interface with its function, in no order.
    pub fn tdis(&self) -> impl Iterator<Item = (u16, &Tdi)> {
        self.slots.iter().flatten().map(|slot| (slot.requester_id, &slot.tdi))
    }

    fn serve(
        &mut self,
        session: SessionId,
        request: &[u8],
        device: &mut impl Device,
        into: &mut [u8],
    ) -> Result<usize, Refusal> {
        let Header { version, message_type, interface } = Header::of(request)?;
        if !SUPPORTED.contains(&message_type) {
            let data = message_type.0.into();
            return Err(Refusal { code: ErrorCode::UNSUPPORTED_REQUEST, data });
        }
        let (_, request) = Request::decode(request)?;
        if version != VERSION_1_0 {
            return Err(ErrorCode::VERSION_MISMATCH.into());
        }
        let settings = self.settings;
        let slot = self.slot(interface.requester_id()).filter(|s| interface.names(s.requester_id));
        let slot = slot.ok_or(ErrorCode::INVALID_INTERFACE)?;
        Ok(match request {
            Request::GetVersion(_) => {
                encode(interface, &Versions { entries: &[VERSION_1_0] }, into)?
            }
            Request::GetCapabilities(_) => encode(interface, &settings.capabilities(), into)?,
            Request::LockInterface(parameters) => {
                let nonce = slot.lock(session, parameters, settings.lock_flags, device)?;
                encode(interface, &LockInterfaceResponse { nonce }, into)?
            }
            Request::GetReport(asked) => slot.portion(interface, asked, into)?,
            Request::GetState(_) => {
                encode(interface, &InterfaceState::from(slot.tdi.state()), into)?
            }
            Request::StartInterface(StartInterface { nonce }) => {
                slot.start(session, &nonce, device)?;
                encode(interface, &StartInterfaceResponse, into)?
            }
            Request::StopInterface(_) => {
                device.stop(slot.requester_id);
                slot.tdi.stop();
                encode(interface, &StopInterfaceResponse, into)?
            }
            Request::BindP2pStream(_)
            | Request::UnbindP2pStream(_)
            | Request::SetMmioAttribute(_)
            | Request::VdmRequest(_) => return Err(ErrorCode::UNSUPPORTED_REQUEST.into()),
        })
    }

    fn change_all(&mut self, mut told: impl FnMut(Change), change: impl Fn(&mut Tdi)) {
        for slot in self.slots.iter_mut().flatten() {
            if let Some(change) = slot.change(&change) {
                told(change);
            }
        }
    }

    fn slot(&mut self, requester_id: u16) -> Option<&mut Slot> {
        self.slots.iter_mut().flatten().find(|slot| slot.requester_id == requester_id)
    }
}

impl Slot {
    fn lock(
        &mut self,
        session: SessionId,
        parameters: LockInterface,
        claimed: LockFlags,
        device: &mut impl Device,
    ) -> Result<Nonce, ErrorCode> {
        self.tdi.admits(Event::Lock)?;
        let whole_pages = parameters.mmio_reporting_offset.is_multiple_of(PAGE_BYTES);
        if !claimed.contains(parameters.flags) || !whole_pages {
            return Err(self.refused(Event::LockWrongly));
        }
        let nonce = device.nonce().ok_or_else(|| self.refused(Event::LockWithoutEntropy))?;
        let report = Report::new(|bytes| device.lock(self.requester_id, &parameters, bytes));
        let report = report.map_err(|refusal| self.code(refusal))?;
        self.tdi.lock(Locked { session, parameters, report }, nonce)?;
        Ok(nonce)
    }

    fn start(
        &mut self,
        session: SessionId,
        nonce: &Nonce,
        device: &mut impl Device,
    ) -> Result<(), ErrorCode> {
        self.tdi.may_start(session, nonce)?;
        device.start(self.requester_id).map_err(|refusal| self.code(refusal))?;
        self.tdi.start(session, nonce)
    }

    fn portion(
        &self,
        interface: InterfaceId,
        asked: GetReport,
        into: &mut [u8],
    ) -> Result<usize, Refusal> {
        let room = into.len().saturating_sub(HEADER_BYTES + ReportPortion::FIXED_BYTES);
        Ok(encode(interface, &self.tdi.portion(asked, room)?, into)?)
    }

    fn change(&mut self, change: impl FnOnce(&mut Tdi)) -> Option<Change> {
        let from = self.tdi.state();
        change(&mut self.tdi);
        Change::new(self.requester_id, from, self.tdi.state())
    }

    /// What a device's refusal is called on the wire.
    fn code(&self, refusal: DeviceRefusal) -> ErrorCode {
        match refusal {
            DeviceRefusal::Busy => ErrorCode::BUSY,
            DeviceRefusal::InsecureStream => self.refused(Event::LockWrongly),
            DeviceRefusal::Misconfigured => self.refused(Event::LockMisconfigured),
            DeviceRefusal::Unspecified => ErrorCode::UNSPECIFIED,
        }
    }

    /// The code with which the table refuses `event`.
    fn refused(&self, event: Event) -> ErrorCode {
        match transition::outcome(self.tdi.state(), event) {
            Outcome::Refuse(code) => code,
            Outcome::Stay | Outcome::Go(_) => ErrorCode::UNSPECIFIED,
        }
    }
}

impl Settings {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dsm_caps: 0,
            requests: RequestSet::of(&SUPPORTED, self.numbering),
            lock_flags: self.lock_flags,
            address_width_bits: self.address_width_bits,
            outstanding_this: self.outstanding,
            outstanding_all: self.outstanding,
        }
    }
}

impl Change {
    fn new(requester_id: u16, from: State, to: State) -> Option<Self> {
        (from != to).then_some(Self { requester_id, from, to })
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, data: 0 }
    }
}

impl From<PeerFault> for Refusal {
    fn from(_: PeerFault) -> Self {
        ErrorCode::INVALID_REQUEST.into()
    }
}

/// The response would not fit, which [`RESPONSE_BYTES_MIN`] rules out.
impl From<EncodeFault> for Refusal {
    fn from(_: EncodeFault) -> Self {
        ErrorCode::UNSPECIFIED.into()
    }
}
