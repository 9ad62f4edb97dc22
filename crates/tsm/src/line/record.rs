//! What the lock of a connection guards: who owns the slot, what has arrived, how each function stands.
//!
//! Takes no lock.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pci::Address;
use sync::{Contents, Deadline};
use tdisp::State;

use super::Call;
use crate::backend::TdiRecord;
use crate::{
    Binding, Cancel, Counters, FunctionFacts, Opened, Secured, Session, TdiView, Transport, VmId,
};

/// What a connection's lock guards.
pub(crate) struct Record {
    /// Claims of the slot so far.
    claims: u64,
    pub(super) owner: Option<Owner>,
    /// Here while nobody owns the slot.
    pub(super) session: Option<Box<dyn Session>>,
    pub(super) transport: Option<Arc<dyn Transport>>,
    /// Calls that wait for the slot, and those among them that nobody can refuse.
    pub(super) waiting: usize,
    urgent: usize,
    /// It is being disconnected: no command begins.
    pub(super) dead: bool,
    /// It is over.
    pub(super) ended: bool,
    /// The last message that was due an answer got none.
    pub(super) stalled: bool,
    pub(super) answer: Option<Answer>,
    /// States that the device was seen in and that the session has not heard of.
    pub(super) observed: BTreeMap<Address, State>,
    pub(crate) places: BTreeMap<Address, Place>,
    pub(super) keys: usize,
    pub(super) secured: Option<Secured>,
    pub(super) tend_after_ms: Option<u64>,
    pub(crate) counters: Counters,
}

/// How a function of the device stands.
pub(crate) struct Place {
    pub(crate) facts: FunctionFacts,
    pub(crate) binding: Binding,
    pub(crate) vm: Option<VmId>,
    pub(crate) guest_id: Option<u64>,
    /// The function is being removed: no command begins.
    pub(crate) leaving: bool,
    pub(crate) tdi: TdiRecord,
}

pub(super) struct Owner {
    claim: u64,
    pub(super) function: Address,
    pub(super) operation: &'static str,
    pub(super) cancel: Option<Cancel>,
    pub(super) urgent: bool,
    pub(super) given_up: bool,
}

/// An answer that its owner has not found yet.
pub(crate) struct Answer {
    pub(crate) message: u64,
    pub(crate) bytes: Vec<u8>,
    /// When it counts as arrived, if later.
    pub(crate) due: Option<Deadline>,
}

impl Contents for Record {
    fn contents(&self, mut into: &mut dyn Hasher) {
        let into = &mut into;
        (self.claims, self.session.is_some(), self.transport.is_some()).hash(into);
        (self.waiting, self.urgent, self.dead, self.ended, self.stalled).hash(into);
        (self.keys, self.tend_after_ms, &self.counters, &self.observed).hash(into);
        if let Some(owner) = &self.owner {
            let cancel = owner.cancel.as_ref().map(Cancel::identity);
            (owner.claim, owner.function, owner.operation, cancel).hash(into);
            (owner.urgent, owner.given_up).hash(into);
        }
        if let Some(answer) = &self.answer {
            let due = answer.due.as_ref().map(Deadline::identity);
            (answer.message, &answer.bytes, due).hash(into);
        }
        for (function, place) in &self.places {
            (function, place.binding, place.vm, place.guest_id, place.leaving).hash(into);
            place.tdi.hash(into);
        }
        if let Some(session) = self.session.as_ref().and_then(|session| session.as_contents()) {
            session.contents(*into);
        }
    }

    /// Who a device has proven to be is not told, nor what a session says nothing of.
    fn is_told(&self) -> bool {
        let session = self.session.as_ref().map(|session| session.as_contents());
        self.secured.is_none() && session.is_none_or(|contents| contents.is_some())
    }
}

impl Record {
    /// Of a connection whose slot is owned by whoever makes it.
    pub(super) fn connecting(function: Address) -> Self {
        let owner = Owner {
            claim: 1,
            function,
            operation: "connect",
            cancel: None,
            urgent: false,
            given_up: false,
        };
        Self {
            claims: 1,
            owner: Some(owner),
            session: None,
            transport: None,
            waiting: 0,
            urgent: 0,
            dead: false,
            ended: false,
            stalled: false,
            answer: None,
            observed: BTreeMap::new(),
            places: BTreeMap::new(),
            keys: 0,
            secured: None,
            tend_after_ms: None,
            counters: Counters::default(),
        }
    }

    /// Whether a command may begin about a function.
    pub(crate) fn admits(&self, function: Address) -> Option<&Place> {
        let place = self.places.get(&function)?;
        if self.dead || place.leaving { None } else { Some(place) }
    }

    /// How often the slot was claimed.
    pub(crate) const fn claims(&self) -> u64 {
        self.claims
    }

    /// The session with the device, as of when the slot was last given back.
    pub(crate) const fn secured(&self) -> Option<Secured> {
        self.secured
    }

    /// How long the connection may be silent, as of then.
    pub(crate) const fn tend_after_ms(&self) -> Option<u64> {
        self.tend_after_ms
    }

    /// Whether the owner of the slot is to give up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.given_up)
    }

    /// Whether the answer to a message has arrived.
    pub(crate) fn has_answer(&self, message: u64) -> bool {
        let answer = self.answer.as_ref().filter(|answer| answer.message == message);
        answer.is_some_and(|answer| answer.due.as_ref().is_none_or(Deadline::fired))
    }

    /// Takes the answer that has arrived.
    pub(crate) fn take_answer(&mut self) -> Option<Vec<u8>> {
        self.answer.take().map(|answer| answer.bytes)
    }

    /// Leaves an answer for the owner of claim `claim`. Says whether it is the newest.
    pub(crate) fn leave_answer(&mut self, claim: u64, answer: Answer) -> bool {
        let owned = self.owner.as_ref().is_some_and(|owner| owner.claim == claim);
        let newest = self.answer.as_ref().is_none_or(|other| other.message < answer.message);
        if owned && newest {
            self.answer = Some(answer);
        }
        owned && newest
    }

    /// Nobody knows any more whether a function is locked or runs.
    pub(super) fn lose(&mut self, function: Address) {
        if let Some(place) = self.places.get_mut(&function)
            && let Binding::Bound { state: State::Locked | State::Run } = place.binding
        {
            place.binding = Binding::Unknown;
            place.tdi.state = None;
        }
    }

    /// Ends the connection. Its owner does.
    pub(crate) fn end(&mut self) {
        self.dead = true;
        self.ended = true;
        self.owner = None;
        self.transport = None;
        self.places.clear();
    }

    /// Its functions, and whether each is bound, in the reverse of the order in which they are
    /// walked: the one with the security manager last.
    pub(crate) fn reverse_walk(&self) -> Vec<(FunctionFacts, bool)> {
        let mut functions: Vec<_> =
            self.places.values().map(|place| (place.facts, place.binding.is_bound())).collect();
        functions.sort_by_key(|(facts, _)| std::cmp::Reverse(facts.walk_order()));
        functions
    }

    /// Applies what was seen to what is locked, runs or is in ERROR: an unlocked interface changes
    /// by LOCK only, so what was seen of it is older than its STOP.
    pub(super) fn apply_observed(&mut self) {
        let places = &mut self.places;
        self.observed.retain(|function, seen| match places.get_mut(function) {
            Some(Place { binding: Binding::Bound { state }, tdi, .. })
                if *state != State::Unlocked =>
            {
                *state = *seen;
                tdi.state = Some(*seen);
                true
            }
            Some(_) | None => false,
        });
    }

    pub(super) fn must_wait(&self, urgent: bool) -> bool {
        self.owner.is_some() || !urgent && self.urgent > 0
    }

    pub(super) fn count_waiting(&mut self, urgent: bool, more: bool) {
        let count = |count: usize| if more { count + 1 } else { count.saturating_sub(1) };
        self.waiting = count(self.waiting);
        if urgent {
            self.urgent = count(self.urgent);
        }
    }

    pub(super) fn take(&mut self, call: &Call<'_>) -> Option<(u64, Opened)> {
        if self.ended {
            return None;
        }
        let transport = Arc::clone(self.transport.as_ref()?);
        let session = self.session.take()?;
        self.claims += 1;
        self.owner = Some(Owner {
            claim: self.claims,
            function: call.function,
            operation: call.operation,
            cancel: call.cancel.cloned(),
            urgent: call.urgent,
            given_up: false,
        });
        Some((self.claims, Opened { session, transport }))
    }
}

impl Place {
    pub(crate) fn new(facts: FunctionFacts) -> Self {
        Self {
            facts,
            binding: Binding::Unbound,
            vm: None,
            guest_id: None,
            leaving: false,
            tdi: TdiRecord::default(),
        }
    }

    /// Notes that the TDI is not bound, or that nobody knows what the device holds of it.
    pub(crate) fn release(&mut self, binding: Binding) {
        (self.binding, self.vm, self.guest_id) = (binding, None, None);
    }

    pub(super) fn view(&self) -> TdiView {
        TdiView {
            function: self.facts.address,
            host: self.binding,
            tsm: self.tdi.state,
            vm: self.vm,
            guest_id: self.guest_id,
            mappings: self.tdi.mappings,
            trusted_dma: self.tdi.trusted_dma,
            objects: self.tdi.objects.clone(),
        }
    }
}
