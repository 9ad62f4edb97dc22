//! One TDI: what the TSM holds of it, and the steps of its life.
//!
//! The state is what the device said last; a change that got no answer leaves it unknown. The
//! nonce of LOCK stays here: START shows it, nobody else sees it.

use std::hash::{Hash, Hasher};

use sync::Contents;
use tdisp::exchange::{
    GetCapabilities, GetState, GetVersion, LockInterface, StartInterface, StopInterface,
};
use tdisp::{
    ErrorCode, InterfaceId, LockFlags, Nonce, PeerFault, ReportAssembly, Requester, State,
    VERSION_1_0, report,
};

use super::dialogue::{Dialogue, peer};
use super::evidence::{Evidence, Object};
use super::mmio::{Mappings, Wanted};
use super::{Dialect, Settings};
use crate::fault::Operation;
use crate::{Effect, Failure, Refusal, TdiRecord};

/// The longest report that there can be.
const REPORT_BYTES_MAX: usize = 0xffff;
/// Bytes asked for at once.
const PORTION_BYTES_MAX: u16 = 1024;
/// Added to the addresses of a report by LOCK.
const REPORTING_OFFSET: u64 = 0;

/// A TDI.
pub(super) struct Interface {
    requester: Requester,
    settings: Settings,
    state: Option<State>,
    nonce: Option<Nonce>,
    pub(super) evidence: Evidence,
    mappings: Mappings,
    /// SEV: the host's IOMMU lets it reach private memory.
    dma_enabled: bool,
}

impl Contents for Interface {
    fn contents(&self, mut into: &mut dyn Hasher) {
        let nonce = self.nonce.as_ref().map(|nonce| nonce.0);
        (self.state, nonce, self.dma_enabled).hash(&mut into);
        self.mappings.hash(&mut into);
        self.evidence.contents(into);
    }
}

impl Interface {
    pub(super) fn new(requester_id: u16, settings: Settings) -> Self {
        Self {
            requester: Requester::new(InterfaceId::new(requester_id)),
            settings,
            state: None,
            nonce: None,
            evidence: Evidence::default(),
            mappings: Mappings::default(),
            dma_enabled: false,
        }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        self.settings.dialect
    }

    /// The state that the device told last.
    pub(super) const fn state(&self) -> Option<State> {
        self.state
    }

    /// What is held of it; `device` is the evidence of the device.
    pub(super) fn record(&self, device: &[Object]) -> TdiRecord {
        let mut objects: Vec<_> = device.iter().map(Object::view).collect();
        objects.extend(self.evidence.views());
        TdiRecord {
            state: self.state,
            mappings: self.mappings.count(),
            trusted_dma: self.dma_enabled,
            objects,
        }
    }

    /// The session is over that it may have been locked in: what was locked or ran does so no more.
    /// Says whether its state is lost.
    pub(super) fn lose_session(&mut self) -> bool {
        let lost = matches!(self.state, Some(State::Locked | State::Run));
        if lost {
            (self.state, self.nonce) = (None, None);
        }
        lost
    }

    /// Gets to know the interface, which must be unlocked, and locks it where the dialect does so
    /// at bind.
    ///
    /// # Errors
    /// [`Failure`]. What fails after LOCK leaves it locked, so that an unbind must follow.
    pub(super) fn bind(&mut self, dialogue: &mut Dialogue<'_, '_>) -> Result<(), Failure> {
        let on = Operation::Bind;
        let speaks = dialogue.ask(on, self.requester, &GetVersion, |versions| {
            versions.entries.contains(&VERSION_1_0)
        })?;
        if !speaks {
            let (code, data) = (ErrorCode::VERSION_MISMATCH, 0);
            return Err(Failure::refused(Refusal::Device { code, data }));
        }
        dialogue.ask(on, self.requester, &GetCapabilities::default(), drop)?;
        let state = self.ask_state(on, dialogue)?;
        if state != State::Unlocked {
            return Err(Failure::refused(Refusal::NotUnlocked { state }));
        }
        match self.settings.dialect {
            Dialect::Any | Dialect::Cca => Ok(()),
            Dialect::Sev | Dialect::Tdx => {
                let locked = self.lock(dialogue);
                locked.map_err(|failure| match self.state {
                    Some(State::Unlocked) => failure,
                    Some(State::Locked | State::Run | State::Error) | None => {
                        Failure::unknown(failure.refusal)
                    }
                })
            }
        }
    }

    /// LOCK, then the report.
    ///
    /// # Errors
    /// [`Failure`]. The interface may be locked without a report.
    pub(super) fn lock(&mut self, dialogue: &mut Dialogue<'_, '_>) -> Result<(), Failure> {
        let flags =
            if self.settings.lock_msix { LockFlags::LOCK_MSIX } else { LockFlags::default() };
        let request = LockInterface {
            flags,
            default_stream: self.settings.stream,
            mmio_reporting_offset: REPORTING_OFFSET,
            p2p_address_mask: 0,
        };
        let locked = dialogue.ask(Operation::Lock, self.requester, &request, |r| r.nonce);
        let nonce = locked.map_err(|failure| self.fail(failure, dialogue))?;
        (self.state, self.nonce) = (Some(State::Locked), Some(nonce));
        self.fetch_report(None, dialogue)
    }

    /// START, with the nonce of LOCK, which is gone afterwards.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] where there is no nonce, else [`Failure`].
    pub(super) fn start(&mut self, dialogue: &mut Dialogue<'_, '_>) -> Result<(), Failure> {
        let state = self.state.unwrap_or_default();
        let nonce = self.nonce.ok_or(Failure::refused(Refusal::WrongState { state }))?;
        let request = StartInterface { nonce };
        let started = dialogue.ask(Operation::Start, self.requester, &request, drop);
        started.map_err(|failure| self.fail(failure, dialogue))?;
        (self.state, self.nonce) = (Some(State::Run), None);
        Ok(())
    }

    /// Takes the private mappings away, then STOP. A refusal counts for nothing where the device
    /// says that the interface is unlocked.
    ///
    /// # Errors
    /// [`Failure`]; the mappings are gone nevertheless.
    pub(super) fn stop(
        &mut self,
        operation: Operation,
        dialogue: &mut Dialogue<'_, '_>,
    ) -> Result<(), Failure> {
        self.mappings.clear();
        self.dma_enabled = false;
        let stopped = dialogue.ask(operation, self.requester, &StopInterface, drop);
        if let Err(failure) = stopped {
            let refused = matches!(failure.refusal, Refusal::Device { .. });
            let answered = failure.effect == Effect::None && refused && !dialogue.was_struck();
            let state = if answered { self.ask_state(operation, dialogue).ok() } else { None };
            if state != Some(State::Unlocked) {
                self.state = if failure.is_unknown() { None } else { state.or(self.state) };
                return Err(failure);
            }
        }
        (self.state, self.nonce) = (Some(State::Unlocked), None);
        self.evidence.drop_report();
        Ok(())
    }

    /// GET_STATE.
    ///
    /// # Errors
    /// [`Failure`], [`Refusal::Peer`] for a state that nobody knows.
    pub(super) fn ask_state(
        &mut self,
        operation: Operation,
        dialogue: &mut Dialogue<'_, '_>,
    ) -> Result<State, Failure> {
        let state = dialogue.ask(operation, self.requester, &GetState, State::try_from)?;
        let state = state.map_err(peer)?;
        self.state = Some(state);
        if state != State::Locked {
            self.nonce = None;
        }
        Ok(state)
    }

    /// Notes a state that the device went to on its own. What nobody knows stays unknown.
    pub(super) fn observe(&mut self, state: State) {
        if self.state.is_some() {
            self.state = Some(state);
        }
        if state != State::Locked {
            self.nonce = None;
        }
    }

    /// Fetches the report in portions and keeps it as evidence of a new generation.
    ///
    /// # Errors
    /// [`Failure`]; the report that there was is kept.
    pub(super) fn fetch_report(
        &mut self,
        nonce: Option<Nonce>,
        dialogue: &mut Dialogue<'_, '_>,
    ) -> Result<(), Failure> {
        let mut bytes = vec![0; REPORT_BYTES_MAX];
        let mut assembly = ReportAssembly::new(&mut bytes);
        while let Some(request) = assembly.next(PORTION_BYTES_MAX) {
            let taken =
                dialogue.ask(Operation::Report, self.requester, &request, |r| assembly.take(r));
            let taken = taken.map_err(|failure| self.fail_asking(failure, dialogue))?;
            taken.map_err(peer)?;
        }
        let whole = assembly.report().ok_or(peer(INCOMPLETE))?;
        report::decode(whole).map_err(peer)?;
        let length = whole.len();
        bytes.truncate(length);
        self.evidence.keep_report(bytes, nonce);
        Ok(())
    }

    /// Maps memory of the interface as the guest's own.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] outside LOCKED and RUN, [`Refusal::NoObject`] without a report, and
    /// as [`Mappings::add`].
    pub(super) fn map(&mut self, wanted: Wanted) -> Result<(), Refusal> {
        let state = self.state.ok_or(Refusal::StateUnknown)?;
        if !matches!(state, State::Locked | State::Run) {
            return Err(Refusal::WrongState { state });
        }
        let bytes = self.evidence.bytes(crate::ObjectKind::InterfaceReport, &[])?;
        let report = report::decode(bytes).map_err(Refusal::Peer)?;
        self.mappings.add(wanted, &report, self.settings.first_page, REPORTING_OFFSET)
    }

    /// Lets it reach the guest's private memory, or not any more.
    ///
    /// # Errors
    /// [`Refusal::WrongState`] outside RUN, where it is to be enabled.
    pub(super) fn set_dma(&mut self, enabled: bool) -> Result<(), Refusal> {
        let state = self.state.ok_or(Refusal::StateUnknown)?;
        if enabled && state != State::Run {
            return Err(Refusal::WrongState { state });
        }
        self.dma_enabled = enabled;
        Ok(())
    }

    /// What a change of state that failed leaves: unknown, or as the device says where it refused
    /// because of the state.
    fn fail(&mut self, failure: Failure, dialogue: &mut Dialogue<'_, '_>) -> Failure {
        if failure.is_unknown() {
            (self.state, self.nonce) = (None, None);
        }
        self.fail_asking(failure, dialogue)
    }

    /// What a question that failed tells: where the state was wrong, the device is asked for it.
    fn fail_asking(&mut self, failure: Failure, dialogue: &mut Dialogue<'_, '_>) -> Failure {
        if let Refusal::Device { code: ErrorCode::INVALID_INTERFACE_STATE, .. } = failure.refusal {
            // Where this fails too, the state stays what it was believed to be.
            let _ = self.ask_state(Operation::State, dialogue);
        }
        failure
    }
}

const INCOMPLETE: PeerFault = PeerFault::Short { message: "interface report", missing: 1 };
