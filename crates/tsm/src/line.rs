//! One connection to a device's security manager, and the turn to speak to it.
//!
//! The record behind [`rank::Dsm`] says who owns the exchange slot, whether that call is to be given
//! up, and how each function stands. The lock is held for a look or a change. Whoever owns the
//! slot has taken the TSM's session out of the record and speaks to the device with no lock held.
//! Whoever wants the slot sleeps on the line's one wait queue; calls that nobody can refuse go
//! before those that may be refused.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pci::Address;
use sync::{Contents, Deadline, Guard, Mutex, Named, Timers, WaitQueue, rank};
use tdisp::State;

use crate::backend::TdiRecord;
use crate::exchange::{Exchange, Patience};
use crate::fault::Board;
use crate::{
    Backend, Binding, Cancel, ConnectionView, Counters, FunctionFacts, Opened, Secured, Session,
    TdiView, Transport, VmId,
};

/// Of the exchange timeout: how long a call that nobody can refuse lasts at most, once it had to
/// wait for the slot. In eighths.
const CALL_EIGHTHS: u64 = 14;
/// Of the exchange timeout: what an unbind gets that follows a bind without a known outcome.
const FOLLOW_UP_EIGHTHS: u64 = 4;
/// Of the exchange timeout: what teardown gets on a line whose last message got no answer.
const STALLED_EIGHTHS: u64 = 1;

/// A connection.
pub(crate) struct Line {
    pub(crate) tsm: u32,
    pub(crate) dsm: FunctionFacts,
    pub(crate) backend: Arc<dyn Backend>,
    timers: Timers,
    exchange_timeout_ms: u64,
    changed: Arc<WaitQueue>,
    record: Mutex<rank::Dsm, Record>,
}

/// What a connection's lock guards.
pub(crate) struct Record {
    /// Claims of the slot so far.
    claims: u64,
    owner: Option<Owner>,
    /// Here while nobody owns the slot.
    session: Option<Box<dyn Session>>,
    transport: Option<Arc<dyn Transport>>,
    /// Calls that wait for the slot, and those among them that nobody can refuse.
    waiting: usize,
    urgent: usize,
    /// It is being disconnected: no command begins.
    dead: bool,
    /// It is over.
    ended: bool,
    /// The last message that was due an answer got none.
    stalled: bool,
    answer: Option<Answer>,
    /// States that the device was seen in and that the session has not heard of.
    observed: BTreeMap<Address, State>,
    pub(crate) places: BTreeMap<Address, Place>,
    keys: usize,
    secured: Option<Secured>,
    tend_after_ms: Option<u64>,
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

struct Owner {
    claim: u64,
    function: Address,
    operation: &'static str,
    cancel: Option<Cancel>,
    urgent: bool,
    given_up: bool,
}

/// An answer that its owner has not found yet.
pub(crate) struct Answer {
    pub(crate) message: u64,
    pub(crate) bytes: Vec<u8>,
    /// When it counts as arrived, if later.
    pub(crate) due: Option<Deadline>,
}

/// A call that wants the slot.
pub(crate) struct Call<'a> {
    pub(crate) function: Address,
    pub(crate) operation: &'static str,
    /// Nobody can refuse it.
    pub(crate) urgent: bool,
    pub(crate) cancel: Option<&'a Cancel>,
    pub(crate) faults: Option<Arc<Board>>,
}

/// How a call fared that wanted the slot.
pub(crate) enum Turn<'a, V> {
    /// It is this call's turn.
    Ours(Claimed<'a>),
    /// The connection is over.
    Ended,
    /// The call is settled without the slot.
    Settled(V),
}

/// The slot, owned.
pub(crate) struct Claimed<'a> {
    pub(crate) line: &'a Arc<Line>,
    pub(crate) session: Box<dyn Session>,
    pub(crate) exchange: Exchange<'a>,
}

impl Line {
    /// A connection whose slot is owned by whoever makes it: [`opened`](Self::opened) claims it.
    pub(crate) fn new(
        tsm: u32,
        dsm: FunctionFacts,
        backend: Arc<dyn Backend>,
        timers: Timers,
        exchange_timeout_ms: u64,
    ) -> Arc<Self> {
        let owner = Owner {
            claim: 1,
            function: dsm.address,
            operation: "connect",
            cancel: None,
            urgent: false,
            given_up: false,
        };
        let record = Record {
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
        };
        let name = || name(tsm);
        Arc::new(Self {
            tsm,
            dsm,
            backend,
            timers,
            exchange_timeout_ms,
            changed: Arc::new(WaitQueue::new().named("changed", name)),
            record: Mutex::with_contents(record).named("record", name),
        })
    }

    pub(crate) const fn timers(&self) -> &Timers {
        &self.timers
    }

    pub(crate) const fn changed(&self) -> &Arc<WaitQueue> {
        &self.changed
    }

    pub(crate) fn lock(&self) -> Guard<'_, rank::Dsm, Record> {
        self.record.lock()
    }

    /// The first claim of the slot, once the TSM has accepted the device.
    pub(crate) fn opened(
        self: &Arc<Self>,
        opened: Opened,
        faults: Option<Arc<Board>>,
    ) -> Claimed<'_> {
        let transport = Arc::clone(&opened.transport);
        self.lock().transport = Some(Arc::clone(&transport));
        let patience = Patience::new(self.exchange_timeout_ms, None);
        let mut exchange = Exchange::new(self, transport, 1, patience);
        exchange.set_may_give_up(true);
        exchange.turn_to(faults);
        Claimed { line: self, session: opened.session, exchange }
    }

    /// Waits for the slot, and takes it unless `settle` has a verdict. `settle` is asked under the
    /// lock, before the wait and whenever something changed; `begin` is the first thing done with
    /// the slot, under the lock.
    pub(crate) fn claim<V>(
        self: &Arc<Self>,
        call: &Call<'_>,
        mut settle: impl FnMut(&Record) -> Option<V>,
        begin: impl FnOnce(&mut Record),
    ) -> Turn<'_, V> {
        let mut whole = None;
        let mut record = self.lock();
        if record.must_wait(call.urgent) && call.urgent && !record.ended {
            drop(record);
            whole = Some(self.arm_call());
            record = self.lock();
        }
        let mut verdict = if record.ended { None } else { settle(&record) };
        if verdict.is_none() && !record.ended && record.must_wait(call.urgent) {
            record.count_waiting(call.urgent, true);
            record = self.changed.wait_while(record, |record| {
                verdict = if record.ended { None } else { settle(record) };
                verdict.is_none() && !record.ended && record.must_wait(call.urgent)
            });
            record.count_waiting(call.urgent, false);
        }
        let taken = if verdict.is_none() { record.take(call) } else { None };
        let Some((claim, Opened { mut session, transport })) = taken else {
            // An urgent call held others back that nobody else will wake.
            let wake = call.urgent && record.waiting > 0;
            drop(record);
            if wake {
                self.changed.wake_all();
            }
            return verdict.map_or(Turn::Ended, Turn::Settled);
        };
        begin(&mut record);
        let stalled = record.stalled;
        let observed = std::mem::take(&mut record.observed);
        drop(record);
        for (function, state) in observed {
            session.observe(function, state);
        }
        let eighths = if stalled && call.urgent { STALLED_EIGHTHS } else { 8 };
        let patience = Patience::new(self.eighths(eighths), whole);
        let mut exchange = Exchange::new(self, transport, claim, patience);
        exchange.stalled = stalled;
        exchange.set_may_give_up(!call.urgent);
        exchange.turn_to(call.faults.clone());
        Turn::Ours(Claimed { line: self, session, exchange })
    }

    /// Arms what a whole call may take that nobody can refuse.
    pub(crate) fn arm_call(&self) -> Deadline {
        let deadline = self.timers.arm(self.eighths(CALL_EIGHTHS), &self.changed);
        deadline.named("call_deadline", || self.name())
    }

    /// What the connection is called in timelines.
    pub(crate) fn name(&self) -> String {
        name(self.tsm)
    }

    /// Lets no command begin any more and gives up the one that runs.
    pub(crate) fn kill(&self) {
        self.give_up(|record| {
            record.dead = true;
            |_: &Owner| true
        });
    }

    /// Lets no command about a function begin any more and gives up the one that runs.
    pub(crate) fn evict(&self, function: Address) {
        self.give_up(|record| {
            if let Some(place) = record.places.get_mut(&function) {
                place.leaving = true;
            }
            move |owner: &Owner| owner.function == function
        });
    }

    /// Gives up the command that runs under `cancel`, and wakes those that wait under it.
    pub(crate) fn cancel(&self, cancel: &Cancel) {
        self.give_up(|_| |owner: &Owner| owner.cancel.as_ref().is_some_and(|own| own.is(cancel)));
    }

    /// Notes a state that the device was seen to go to on its own.
    pub(crate) fn observe(&self, function: Address, state: State) {
        let mut record = self.lock();
        record.observed.insert(function, state);
        record.apply_observed();
    }

    /// How it stands. `None` once it is over.
    pub(crate) fn view(&self) -> Option<ConnectionView> {
        let record = self.lock();
        if record.ended {
            return None;
        }
        Some(ConnectionView {
            dsm: self.dsm.address,
            tsm: self.tsm,
            backend: self.backend.name().to_owned(),
            keys: record.keys,
            secured: record.secured,
            waiting: record.waiting,
            running: record.owner.as_ref().map(|owner| (owner.operation, owner.function)),
            tdis: record.places.values().map(Place::view).collect(),
        })
    }

    fn give_up<Hit: Fn(&Owner) -> bool>(&self, change: impl FnOnce(&mut Record) -> Hit) {
        let mut record = self.lock();
        let hit = change(&mut record);
        let mut wake = record.waiting > 0;
        if let Some(owner) = record.owner.as_mut().filter(|owner| !owner.urgent && hit(owner)) {
            owner.given_up = true;
            wake = true;
        }
        drop(record);
        if wake {
            self.changed.wake_all();
        }
    }

    const fn eighths(&self, eighths: u64) -> u64 {
        self.exchange_timeout_ms.saturating_mul(eighths) / 8
    }
}

impl<'a> Claimed<'a> {
    /// Gives an unbind that follows a bind without a known outcome its own deadline. It is not
    /// given up.
    pub(crate) fn begin_follow_up(&mut self) {
        self.exchange.set_may_give_up(false);
        self.exchange.begin_again(self.line.eighths(FOLLOW_UP_EIGHTHS));
    }

    /// Gives the slot back. `change` is made under the lock.
    pub(crate) fn finish<T>(self, change: impl FnOnce(&mut Record) -> T) -> T {
        let Self { line, mut session, exchange } = self;
        let lost = session.take_lost();
        let mut record = line.lock();
        lost.into_iter().for_each(|function| record.lose(function));
        record.keys = session.keys();
        record.secured = session.secured();
        record.tend_after_ms = session.tend_after_ms();
        record.session = Some(session);
        record.owner = None;
        record.answer = None;
        record.stalled = exchange.stalled;
        record.counters.timed_out += u64::from(exchange.timed_out);
        let result = change(&mut record);
        // What was seen meanwhile is newer than what the exchange heard.
        record.apply_observed();
        let wake = record.waiting > 0;
        // A session that is over is dropped with no lock held.
        let over = if record.ended { record.session.take() } else { None };
        drop(record);
        if wake {
            line.changed.wake_all();
        }
        drop(over);
        result
    }
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
    fn lose(&mut self, function: Address) {
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
    fn apply_observed(&mut self) {
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

    fn must_wait(&self, urgent: bool) -> bool {
        self.owner.is_some() || !urgent && self.urgent > 0
    }

    fn count_waiting(&mut self, urgent: bool, more: bool) {
        let count = |count: usize| if more { count + 1 } else { count.saturating_sub(1) };
        self.waiting = count(self.waiting);
        if urgent {
            self.urgent = count(self.urgent);
        }
    }

    fn take(&mut self, call: &Call<'_>) -> Option<(u64, Opened)> {
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

    fn view(&self) -> TdiView {
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

fn name(tsm: u32) -> String {
    format!("tsm{tsm}")
}
