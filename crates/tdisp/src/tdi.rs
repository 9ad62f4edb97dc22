//! One interface: its state, and what it holds in that state.
//!
//! The nonce exists in `CONFIG_LOCKED` only and the report in `CONFIG_LOCKED` and `RUN` only, so
//! whatever leaves these states loses them. Each step asks [`crate::transition`] first.

use core::fmt;

use crate::exchange::{GetReport, LockInterface, ReportPortion};
use crate::transition::{Event, Outcome, State, outcome};
use crate::{ErrorCode, LockFlags, Nonce};

/// Bytes that a report may have: thirty ranges, and some for the device's own.
pub const REPORT_BYTES_MAX: usize = 640;

/// An SPDM session, by whatever number its owner gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

/// An interface of a device.
#[derive(Clone, Debug, Default)]
pub struct Tdi {
    phase: Phase,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    #[default]
    Unlocked,
    Locked(Locked, Nonce),
    Run(Locked),
    Error(Breach),
}

/// What holds from LOCK on.
#[derive(Clone, Debug)]
pub(crate) struct Locked {
    pub(crate) session: SessionId,
    pub(crate) parameters: LockInterface,
    pub(crate) report: Report,
}

/// The report as it was when the interface was locked.
#[derive(Clone)]
pub(crate) struct Report {
    bytes: [u8; REPORT_BYTES_MAX],
    length: usize,
}

/// How the configuration of an interface came not to hold.
///
/// BARs, the command register, the power state and resets count always, the rest as LOCK asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Breach {
    /// A BAR was written.
    BarWritten,
    /// Bus master enable was cleared.
    BusMasterCleared,
    /// The virtual function is enabled no more.
    Disabled,
    /// The firmware was updated. Counts where LOCK said `NO_FW_UPDATE`.
    FirmwareUpdated,
    /// The function was reset.
    FunctionReset,
    /// The IDE stream of this number is secure no more. Counts where it is the default stream.
    StreamInsecure(u8),
    /// Power state D0 was left.
    LeftD0,
    /// Memory space enable was cleared.
    MemoryCleared,
    /// The MSI-X capability, table or pending bits were written. Counts where LOCK said
    /// `LOCK_MSIX`.
    MsixWritten,
    /// The session in which the interface was locked ended. Counts for that session only.
    SessionEnded(SessionId),
}

impl Breach {
    /// Whether it counts for an interface that LOCK locked in `session` with `parameters`.
    pub fn counts(self, session: SessionId, parameters: &LockInterface) -> bool {
        match self {
            Self::FirmwareUpdated => parameters.flags.contains(LockFlags::NO_FW_UPDATE),
            Self::MsixWritten => parameters.flags.contains(LockFlags::LOCK_MSIX),
            Self::SessionEnded(ended) => ended == session,
            Self::StreamInsecure(stream) => stream == parameters.default_stream,
            Self::BarWritten
            | Self::BusMasterCleared
            | Self::Disabled
            | Self::FunctionReset
            | Self::LeftD0
            | Self::MemoryCleared => true,
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BarWritten => f.write_str("BAR written"),
            Self::BusMasterCleared => f.write_str("bus master enable cleared"),
            Self::Disabled => f.write_str("virtual function disabled"),
            Self::FirmwareUpdated => f.write_str("firmware updated"),
            Self::FunctionReset => f.write_str("function reset"),
            Self::StreamInsecure(stream) => write!(f, "IDE stream {stream} not secure"),
            Self::LeftD0 => f.write_str("power state D0 left"),
            Self::MemoryCleared => f.write_str("memory space enable cleared"),
            Self::MsixWritten => f.write_str("MSI-X written"),
            Self::SessionEnded(SessionId(session)) => write!(f, "SPDM session {session:#x} ended"),
        }
    }
}

/// What a function-level reset does to a locked or running interface: policy `flr-while-locked`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FunctionReset {
    /// The interface is unlocked, as by STOP; `ERROR` ends too.
    #[default]
    Unlocks,
    /// The interface goes to `ERROR`.
    Breaches,
}

impl Tdi {
    /// Locks the interface.
    ///
    /// # Errors
    /// [`ErrorCode::INVALID_INTERFACE_STATE`] unless it is unlocked.
    pub(crate) fn lock(&mut self, locked: Locked, nonce: Nonce) -> Result<(), ErrorCode> {
        self.admits(Event::Lock)?;
        self.enter(Event::Lock, Phase::Locked(locked, nonce));
        Ok(())
    }

    /// Whether the interface may run: it is locked, in this session, with this nonce.
    ///
    /// # Errors
    /// [`ErrorCode::INVALID_INTERFACE_STATE`] unless it is locked, [`ErrorCode::INVALID_NONCE`]
    /// where session or nonce are not those of LOCK.
    pub(crate) fn may_start(&self, session: SessionId, nonce: &Nonce) -> Result<(), ErrorCode> {
        self.admits(self.start_event(session, nonce))
    }

    /// Lets the interface run; the nonce is gone.
    ///
    /// # Errors
    /// As for [`may_start`](Self::may_start).
    pub(crate) fn start(&mut self, session: SessionId, nonce: &Nonce) -> Result<(), ErrorCode> {
        self.may_start(session, nonce)?;
        match core::mem::take(&mut self.phase) {
            Phase::Locked(locked, _) => self.phase = Phase::Run(locked),
            other @ (Phase::Unlocked | Phase::Run(_) | Phase::Error(_)) => self.phase = other,
        }
        Ok(())
    }

    /// Unlocks the interface from any state.
    pub(crate) fn stop(&mut self) {
        self.enter(Event::Stop, Phase::Unlocked);
    }

    /// Tells the interface that its configuration did not hold; whether that counts is its to say.
    /// True where it is in `ERROR` because of it.
    pub fn breach(&mut self, breach: Breach) -> bool {
        let counts =
            self.locked().is_some_and(|locked| breach.counts(locked.session, &locked.parameters));
        if counts {
            self.enter(Event::Breach, Phase::Error(breach));
        }
        counts
    }

    /// Tells the interface of a function-level reset.
    pub fn reset_function(&mut self, policy: FunctionReset) {
        match policy {
            FunctionReset::Unlocks => self.enter(Event::Reset, Phase::Unlocked),
            FunctionReset::Breaches => {
                self.breach(Breach::FunctionReset);
            }
        }
    }

    /// Tells the interface of a reset of the bus or the whole device.
    pub fn reset_conventional(&mut self) {
        self.enter(Event::Reset, Phase::Unlocked);
    }

    /// The state.
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Unlocked => State::Unlocked,
            Phase::Locked(..) => State::Locked,
            Phase::Run(_) => State::Run,
            Phase::Error(_) => State::Error,
        }
    }

    /// What LOCK asked for, while the interface is locked or runs.
    pub fn parameters(&self) -> Option<&LockInterface> {
        self.locked().map(|locked| &locked.parameters)
    }

    /// What took the interface to `ERROR`, while it is there.
    pub const fn cause(&self) -> Option<Breach> {
        match self.phase {
            Phase::Error(breach) => Some(breach),
            Phase::Unlocked | Phase::Locked(..) | Phase::Run(_) => None,
        }
    }

    /// The whole report, while the interface is locked or runs.
    pub fn report(&self) -> Option<&[u8]> {
        self.locked().map(|locked| locked.report.bytes())
    }

    /// A portion of the report, at most `room` bytes of it.
    ///
    /// # Errors
    /// [`ErrorCode::INVALID_INTERFACE_STATE`] unless the interface is locked or runs, then
    /// [`ErrorCode::INVALID_REQUEST`] where nothing is asked for or nothing is there.
    pub(crate) fn portion(
        &self,
        asked: GetReport,
        room: usize,
    ) -> Result<ReportPortion<'_>, ErrorCode> {
        self.admits(Event::Report)?;
        let report = self.report().ok_or(ErrorCode::INVALID_INTERFACE_STATE)?;
        let rest = report.get(asked.offset.into()..).filter(|rest| !rest.is_empty());
        let rest = rest.ok_or(ErrorCode::INVALID_REQUEST)?;
        let length = rest.len().min(asked.length.into()).min(room);
        let (portion, after) = rest.split_at_checked(length).ok_or(ErrorCode::INVALID_REQUEST)?;
        if portion.is_empty() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let remainder = u16::try_from(after.len()).map_err(|_| ErrorCode::UNSPECIFIED)?;
        Ok(ReportPortion { remainder, portion })
    }

    /// Whether the table lets `event` happen now.
    pub(crate) fn admits(&self, event: Event) -> Result<(), ErrorCode> {
        match outcome(self.state(), event) {
            Outcome::Stay | Outcome::Go(_) => Ok(()),
            Outcome::Refuse(code) => Err(code),
        }
    }

    fn start_event(&self, session: SessionId, nonce: &Nonce) -> Event {
        match &self.phase {
            Phase::Locked(locked, right) if locked.session != session || right != nonce => {
                Event::StartWrongNonce
            }
            Phase::Unlocked | Phase::Locked(..) | Phase::Run(_) | Phase::Error(_) => Event::Start,
        }
    }

    /// Enters the phase to which the table leads.
    fn enter(&mut self, event: Event, phase: Phase) {
        let expected = outcome(self.state(), event);
        self.phase = phase;
        debug_assert_eq!(expected, Outcome::Go(self.state()), "{event:?}");
    }

    const fn locked(&self) -> Option<&Locked> {
        match &self.phase {
            Phase::Locked(locked, _) | Phase::Run(locked) => Some(locked),
            Phase::Unlocked | Phase::Error(_) => None,
        }
    }
}

impl Report {
    /// A report that `write` writes; it returns the length in bytes.
    pub(crate) fn new<E>(
        write: impl FnOnce(&mut [u8; REPORT_BYTES_MAX]) -> Result<usize, E>,
    ) -> Result<Self, E> {
        let mut bytes = [0; REPORT_BYTES_MAX];
        let length = write(&mut bytes)?.min(REPORT_BYTES_MAX);
        Ok(Self { bytes, length })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Report({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transition::TABLE;

    const SESSION: SessionId = SessionId(7);
    const NONCE: Nonce = Nonce([1; 32]);
    const WRONG: Nonce = Nonce([2; 32]);

    fn locked(flags: LockFlags) -> Locked {
        let parameters = LockInterface { flags, default_stream: 3, ..LockInterface::default() };
        let report = Report::new(|bytes| {
            bytes[..4].copy_from_slice(&[1, 2, 3, 4]);
            Ok::<_, ErrorCode>(4)
        });
        Locked { session: SESSION, parameters, report: report.unwrap() }
    }

    fn tdi(state: State) -> Tdi {
        let mut tdi = Tdi::default();
        if state != State::Unlocked {
            tdi.lock(locked(LockFlags::LOCK_MSIX), NONCE).unwrap();
        }
        if state == State::Run {
            tdi.start(SESSION, &NONCE).unwrap();
        }
        if state == State::Error {
            assert!(tdi.breach(Breach::BarWritten));
        }
        assert_eq!(tdi.state(), state);
        tdi
    }

    /// What the interface itself does is what the table says.
    #[test]
    fn obeys_the_table() {
        for (event, _) in TABLE {
            for state in State::ALL {
                let mut tdi = tdi(state);
                let answer = match event {
                    Event::Lock => tdi.lock(locked(LockFlags::default()), NONCE),
                    Event::Start => tdi.start(SESSION, &NONCE),
                    Event::StartWrongNonce => tdi.start(SESSION, &WRONG),
                    Event::Report => tdi.portion(GetReport { offset: 0, length: 1 }, 9).map(drop),
                    Event::Ask
                    | Event::LockWrongly
                    | Event::LockMisconfigured
                    | Event::LockWithoutEntropy
                    | Event::Stop
                    | Event::Breach
                    | Event::Reset => tdi.admits(event),
                };
                if event == Event::Stop {
                    tdi.stop();
                } else if event == Event::Breach {
                    tdi.breach(Breach::MemoryCleared);
                } else if event == Event::Reset {
                    tdi.reset_function(FunctionReset::Unlocks);
                }
                let (expected, next) = match outcome(state, event) {
                    Outcome::Stay => (Ok(()), state),
                    Outcome::Go(next) => (Ok(()), next),
                    Outcome::Refuse(code) => (Err(code), state),
                };
                assert_eq!((answer, tdi.state()), (expected, next), "{event:?} in {state}");
            }
        }
    }

    #[test]
    fn a_nonce_of_another_session_is_wrong() {
        let mut tdi = tdi(State::Locked);
        assert_eq!(tdi.start(SessionId(8), &NONCE), Err(ErrorCode::INVALID_NONCE));
        assert_eq!(tdi.start(SESSION, &NONCE), Ok(()));
    }

    #[test]
    fn a_nonce_ends_with_the_lock() {
        let mut tdi = tdi(State::Locked);
        tdi.stop();
        let state = Err(ErrorCode::INVALID_INTERFACE_STATE);
        assert_eq!(tdi.start(SESSION, &NONCE), state);
        tdi.lock(locked(LockFlags::default()), WRONG).unwrap();
        assert_eq!(tdi.start(SESSION, &NONCE), Err(ErrorCode::INVALID_NONCE));
    }

    #[test]
    fn a_breach_counts_as_lock_asked() {
        let cases = [
            (Breach::BarWritten, LockFlags(0), true),
            (Breach::BusMasterCleared, LockFlags(0), true),
            (Breach::MemoryCleared, LockFlags(0), true),
            (Breach::LeftD0, LockFlags(0), true),
            (Breach::Disabled, LockFlags(0), true),
            (Breach::FirmwareUpdated, LockFlags(0), false),
            (Breach::FirmwareUpdated, LockFlags::NO_FW_UPDATE, true),
            (Breach::MsixWritten, LockFlags::NO_FW_UPDATE, false),
            (Breach::MsixWritten, LockFlags::LOCK_MSIX, true),
            (Breach::StreamInsecure(2), LockFlags(0), false),
            (Breach::StreamInsecure(3), LockFlags(0), true),
            (Breach::SessionEnded(SessionId(8)), LockFlags(0), false),
            (Breach::SessionEnded(SESSION), LockFlags(0), true),
        ];
        for (breach, flags, counts) in cases {
            let mut tdi = Tdi::default();
            assert!(!tdi.breach(breach), "{breach} while unlocked");
            tdi.lock(locked(flags), NONCE).unwrap();
            assert_eq!(tdi.breach(breach), counts, "{breach}");
            assert_eq!(tdi.cause(), counts.then_some(breach));
            assert!(!counts || !tdi.breach(breach), "{breach} again");
        }
    }

    #[test]
    fn a_reset_of_the_function_is_a_policy() {
        let after = |state, policy| {
            let mut tdi = tdi(state);
            tdi.reset_function(policy);
            tdi.state()
        };
        for state in State::ALL {
            assert_eq!(after(state, FunctionReset::Unlocks), State::Unlocked);
            let locked = state != State::Unlocked;
            let breached = if locked { State::Error } else { State::Unlocked };
            assert_eq!(after(state, FunctionReset::Breaches), breached);
        }
        let mut tdi = tdi(State::Error);
        tdi.reset_conventional();
        assert_eq!(tdi.state(), State::Unlocked);
    }

    #[test]
    fn a_report_is_given_in_portions() {
        let tdi = tdi(State::Run);
        let portion = |offset, length, room| tdi.portion(GetReport { offset, length }, room);
        let got = |remainder, portion| Ok(ReportPortion { remainder, portion });
        assert_eq!(portion(0, 0xffff, 100), got(0, &[1, 2, 3, 4]));
        assert_eq!(portion(1, 2, 100), got(1, &[2, 3]));
        assert_eq!(portion(1, 3, 1), got(2, &[2]));
        for (offset, length) in [(0, 0), (4, 1), (5, 1), (0xffff, 1)] {
            assert_eq!(portion(offset, length, 100), Err(ErrorCode::INVALID_REQUEST), "{offset}");
        }
    }
}
