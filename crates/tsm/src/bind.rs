//! Bind, unbind, and what a guest asks in between.
//!
//! | who fails how | what is left |
//! |---|---|
//! | a bind that never reached the device | nothing |
//! | a bind that the device refused | nothing |
//! | a bind that was given up, timed out, or failed after it was done | one unbind follows at once, by the call itself |
//! | an unbind that is answered | unbound |
//! | an unbind that is not, or that is refused | quarantine |
//! | a request that was given up or timed out | bound, state unknown, until an unlock or the unbind |
//!
//! Takes [`rank::TsmRegistry`](sync::rank::TsmRegistry), then [`rank::Dsm`](sync::rank::Dsm), each
//! for a look or a change; holds nothing while the device is spoken to.

use pci::Address;
use tdisp::State;

use crate::backend::{Effect, Failure, TdiRecord};
use crate::exchange::{BindFault, INJECTED};
use crate::line::{Call, Claimed, Place, Record, Turn};
use crate::registry::Found;
use crate::{
    Binding, Cancel, Counters, FunctionFacts, GuestRequest, GuestResponse, Memory, Notice, Refusal,
    Registry, Secured, VmId,
};

/// What people are to be told, once no lock is held.
pub(crate) type Told = Vec<(Address, Notice)>;

impl Registry {
    /// Binds the TDI of a function to a VM, which knows it as `guest_id`. Does nothing where it is
    /// bound so already. Waits for the device's exchange slot.
    ///
    /// # Errors
    /// - [`Refusal::NotConnected`] – no TSM context, or none any more once it is this call's turn
    ///   (`EINVAL`).
    /// - [`Refusal::Quarantined`], [`Refusal::OtherVm`], [`Refusal::OtherGuestId`] – `EBUSY`.
    /// - [`Refusal::Cancelled`] – `cancel` was set, or the device was disconnected or removed while
    ///   the bind ran (`EINTR`). If the backend had begun, the bind counts, and has been followed by its unbind.
    /// - [`Refusal::NotUnlocked`] (`EBUSY`), [`Refusal::TimedOut`] (`ETIMEDOUT`), and what else the
    ///   device answers.
    pub fn bind(
        &self,
        function: Address,
        vm: VmId,
        guest_id: u64,
        cancel: &Cancel,
    ) -> Result<(), Refusal> {
        let Found { line, facts, faults } =
            self.find(function).ok_or(Refusal::NotConnected { function })?;
        let call =
            Call { function, operation: "bind", urgent: false, cancel: Some(cancel), faults };
        let settle = |record: &Record| {
            let Some(place) = record.admits(function) else {
                return Some(Err(Refusal::NotConnected { function }));
            };
            if cancel.is_set() {
                return Some(Err(Refusal::Cancelled));
            }
            bound_already(place, vm, guest_id)
        };
        let begin = |record: &mut Record| {
            if let Some(place) = record.places.get_mut(&function) {
                place.binding = Binding::Binding;
                (place.vm, place.guest_id) = (Some(vm), Some(guest_id));
            }
        };
        let mut told = Told::new();
        let result = match line.claim(&call, settle, begin) {
            Turn::Ours(claimed) => bind_now(claimed, &facts, vm, guest_id, &mut told),
            Turn::Settled(Err(Refusal::Cancelled)) => {
                line.lock().counters.cancelled += 1;
                told.push((function, Notice::Cancelled { operation: call.operation }));
                Err(Refusal::Cancelled)
            }
            Turn::Settled(result) => result,
            Turn::Ended => Err(Refusal::NotConnected { function }),
        };
        self.tell(&told);
        result
    }

    /// Unbinds the TDI of a function, and does nothing where it is not bound. Cannot fail: what is
    /// not answered in time is quarantined. Waits its turn for the exchange slot, before all calls
    /// that may be refused, and returns within twice the exchange timeout.
    pub fn unbind(&self, function: Address) {
        let Some(Found { line, facts, faults }) = self.find(function) else { return };
        let call = Call { function, operation: "unbind", urgent: true, cancel: None, faults };
        let settle = |record: &Record| {
            let place = record.places.get(&function);
            place.is_none_or(|place| !place.binding.is_bound()).then_some(())
        };
        let Turn::Ours(mut claimed) = line.claim(&call, settle, |_| {}) else { return };
        let mut told = Told::new();
        let unbound = unbind_now(&mut claimed, &facts, &mut told);
        claimed.finish(|record| unbound.note(record));
        self.tell(&told);
    }

    /// Does what a guest asks about its TDI. Waits for the exchange slot.
    ///
    /// # Errors
    /// - [`Refusal::NotBound`] – not bound, or no TSM context (`ENXIO`).
    /// - [`Refusal::Cancelled`] – given up (`EINTR`); a change of state that was asked for may have
    ///   been done.
    /// - What the TSM or the device refuses.
    pub fn request(
        &self,
        function: Address,
        request: &GuestRequest<'_>,
        memory: &dyn Memory,
        cancel: &Cancel,
    ) -> Result<GuestResponse, Refusal> {
        let not_bound = Refusal::NotBound { function };
        let Found { line, facts, faults } = self.find(function).ok_or(not_bound)?;
        let call =
            Call { function, operation: "request", urgent: false, cancel: Some(cancel), faults };
        let settle = |record: &Record| {
            let place = record.admits(function);
            if place.is_none_or(|place| !place.binding.is_bound()) {
                return Some(not_bound);
            }
            cancel.is_set().then_some(Refusal::Cancelled)
        };
        let mut told = Told::new();
        let result = match line.claim(&call, settle, |_| {}) {
            Turn::Ours(claimed) => request_now(claimed, &facts, request, memory, &mut told),
            Turn::Settled(refusal) => Err(refusal),
            Turn::Ended => Err(not_bound),
        };
        self.tell(&told);
        result
    }

    /// The function was reset: ends its quarantine, once the device says that the interface is
    /// unlocked. Returns within twice the exchange timeout.
    pub fn reset_done(&self, function: Address) {
        let Some(Found { line, facts, faults }) = self.find(function) else { return };
        let call = Call { function, operation: "settle", urgent: true, cancel: None, faults };
        let settle = |record: &Record| {
            let place = record.admits(function);
            place.is_none_or(|place| place.binding != Binding::Quarantined).then_some(())
        };
        let Turn::Ours(mut claimed) = line.claim(&call, settle, |_| {}) else { return };
        let settled = claimed.session.settle(&facts, &mut claimed.exchange).is_ok();
        claimed.finish(|record| {
            if let Some(place) = record.places.get_mut(&function).filter(|_| settled) {
                place.release(Binding::Unbound);
            }
        });
        if settled {
            self.tell(&[(function, Notice::QuarantineEnded)]);
        }
    }
}

/// What becomes of a TDI's place in the record after an unbind.
pub(crate) struct Unbound {
    function: Address,
    binding: Binding,
    tdi: TdiRecord,
}

impl Unbound {
    pub(crate) fn note(self, record: &mut Record) {
        record.counters.unbinds += 1;
        record.counters.quarantined += u64::from(self.binding == Binding::Quarantined);
        if let Some(place) = record.places.get_mut(&self.function) {
            place.release(self.binding);
            place.tdi = self.tdi;
        }
    }
}

/// Unbinds with the slot owned.
pub(crate) fn unbind_now(
    claimed: &mut Claimed<'_>,
    facts: &FunctionFacts,
    told: &mut Told,
) -> Unbound {
    let function = facts.address;
    let before = claimed.session.record(facts);
    let secured = claimed.session.secured();
    let done = claimed.session.unbind(facts, &mut claimed.exchange);
    let tdi = claimed.session.record(facts);
    told_session(secured, claimed, done.err(), told);
    if before.mappings > 0 {
        told.push((function, Notice::MappingsDropped { count: before.mappings }));
    }
    let binding = match done {
        Ok(()) => {
            told_state(function, before.state, Some(State::Unlocked), told);
            told.push((function, Notice::Unbound));
            Binding::Unbound
        }
        Err(Failure { refusal, .. }) => {
            told_state(function, before.state, None, told);
            if refusal == Refusal::TimedOut {
                told.push((function, Notice::TimedOut { operation: "unbind" }));
            }
            told.push((function, Notice::Quarantined { refusal }));
            Binding::Quarantined
        }
    };
    Unbound { function, binding, tdi }
}

fn bind_now(
    mut claimed: Claimed<'_>,
    facts: &FunctionFacts,
    vm: VmId,
    guest_id: u64,
    told: &mut Told,
) -> Result<(), Refusal> {
    let function = facts.address;
    let secured = claimed.session.secured();
    let bound = bind_backend(&mut claimed, facts, guest_id);
    told_session(secured, &claimed, bound.err(), told);
    let failure = match bound {
        Ok(state) => {
            told.push((function, Notice::Bound { vm, guest_id }));
            told_state(function, Some(State::Unlocked), Some(state), told);
            let tdi = claimed.session.record(facts);
            claimed.finish(|record| {
                record.counters.binds += 1;
                note_bound(record, function, Binding::Bound { state }, tdi);
            });
            return Ok(());
        }
        Err(failure) => failure,
    };
    let refusal = failure.refusal;
    tell_failure("bind", function, refusal, told);
    let unknown = failure.effect == Effect::Unknown;
    told.push((function, Notice::BindFailed { refusal, unknown }));
    let unbound = unknown.then(|| {
        claimed.begin_follow_up();
        unbind_now(&mut claimed, facts, told)
    });
    claimed.finish(|record| {
        count_failure(&mut record.counters, refusal);
        match unbound {
            Some(unbound) => {
                record.counters.binds += 1;
                unbound.note(record);
            }
            None => {
                record.counters.binds_refused += 1;
                if let Some(place) = record.places.get_mut(&function) {
                    place.release(Binding::Unbound);
                }
            }
        }
    });
    Err(refusal)
}

/// The backend's bind: what never reached the device had no effect, and what bound nothing has one
/// that nobody knows.
fn bind_backend(
    claimed: &mut Claimed<'_>,
    facts: &FunctionFacts,
    guest_id: u64,
) -> Result<State, Failure> {
    let fault = claimed.exchange.strike_bind();
    if fault == Some(BindFault::Null) {
        return Err(Failure::unknown(Refusal::NullBind));
    }
    let bound = claimed.session.bind(facts, guest_id, &mut claimed.exchange);
    let bound = bound.map_err(|failure| {
        if claimed.exchange.has_begun() { failure } else { Failure::refused(failure.refusal) }
    });
    let state = bound?.ok_or(Failure::unknown(Refusal::NullBind))?;
    if fault == Some(BindFault::ErrorAfter) { Err(Failure::unknown(INJECTED)) } else { Ok(state) }
}

fn request_now(
    mut claimed: Claimed<'_>,
    facts: &FunctionFacts,
    request: &GuestRequest<'_>,
    memory: &dyn Memory,
    told: &mut Told,
) -> Result<GuestResponse, Refusal> {
    let function = facts.address;
    let before = claimed.session.record(facts);
    let secured = claimed.session.secured();
    let result = claimed.session.request(facts, request, memory, &mut claimed.exchange);
    told_session(secured, &claimed, result.as_ref().err().copied(), told);
    let result = result.map_err(|failure| failure.refusal);
    let tdi = claimed.session.record(facts);
    let (from, to) = (before.state, tdi.state);
    if before.mappings > tdi.mappings {
        let count = before.mappings - tdi.mappings;
        told.push((function, Notice::MappingsDropped { count }));
    }
    told_state(function, from, to, told);
    if let Err(refusal) = &result {
        let refusal = *refusal;
        tell_failure("request", function, refusal, told);
        told.push((function, Notice::RequestRefused { refusal }));
    }
    claimed.finish(|record| {
        if let Err(refusal) = &result {
            count_failure(&mut record.counters, *refusal);
        }
        let binding = to.map_or(Binding::Unknown, |state| Binding::Bound { state });
        note_bound(record, function, binding, tdi);
    });
    result
}

/// Whether a bind is settled as things are.
fn bound_already(place: &Place, vm: VmId, guest_id: u64) -> Option<Result<(), Refusal>> {
    match place.binding {
        Binding::Unbound | Binding::Binding => None,
        Binding::Quarantined => Some(Err(Refusal::Quarantined { function: place.facts.address })),
        Binding::Bound { .. } | Binding::Unknown => Some(match (place.vm, place.guest_id) {
            (Some(bound), _) if bound != vm => Err(Refusal::OtherVm { bound }),
            (_, Some(bound)) if bound != guest_id => Err(Refusal::OtherGuestId { bound }),
            _ => Ok(()),
        }),
    }
}

fn note_bound(record: &mut Record, function: Address, binding: Binding, tdi: TdiRecord) {
    if let Some(place) = record.places.get_mut(&function) {
        place.binding = binding;
        place.tdi = tdi;
    }
}

fn told_state(function: Address, from: Option<State>, to: Option<State>, told: &mut Told) {
    if from == to {
        return;
    }
    told.push((function, Notice::StateChanged { from, to }));
    match to {
        Some(State::Locked) => told.push((function, Notice::Locked)),
        Some(State::Run) => told.push((function, Notice::Runs)),
        Some(State::Unlocked | State::Error) | None => {}
    }
}

/// Tells what became of the session beneath, where it is not as it was.
fn told_session(
    before: Option<Secured>,
    claimed: &Claimed<'_>,
    failure: Option<Failure>,
    told: &mut Told,
) {
    let renewals = |secured: Option<Secured>| secured.map(|secured| secured.renewals);
    let now = claimed.session.secured();
    let dsm = claimed.line.dsm.address;
    match (now, failure) {
        (Some(Secured { session, .. }), _) if renewals(before) != renewals(now) => {
            told.push((dsm, Notice::SessionRenewed { session }));
        }
        (None, Some(Failure { refusal, .. })) if before.is_some() => {
            told.push((dsm, Notice::SessionLost { refusal }));
        }
        _ => {}
    }
}

fn tell_failure(operation: &'static str, function: Address, refusal: Refusal, told: &mut Told) {
    if refusal == Refusal::Cancelled {
        told.push((function, Notice::Cancelled { operation }));
    } else if refusal == Refusal::TimedOut {
        told.push((function, Notice::TimedOut { operation }));
    }
}

fn count_failure(counters: &mut Counters, refusal: Refusal) {
    counters.cancelled += u64::from(refusal == Refusal::Cancelled);
}
