//! One connection to a device's security manager, and the turn to speak to it.
//!
//! The record behind [`rank::Dsm`] says who owns the exchange slot, whether that call is to be given
//! up, and how each function stands. The lock is held for a look or a change. Whoever owns the
//! slot has taken the TSM's session out of the record and speaks to the device with no lock held.
//! Whoever wants the slot sleeps on the line's one wait queue; calls that nobody can refuse go
//! before those that may be refused.

mod record;

use std::sync::Arc;

use pci::Address;
use sync::{Deadline, Guard, Mutex, Named, Timers, WaitQueue, rank};
use tdisp::State;

use crate::exchange::{Exchange, Patience};
use crate::fault::Board;
use crate::{Backend, Cancel, ConnectionView, FunctionFacts, Opened, Session};

use record::Owner;
pub(crate) use record::{Answer, Place, Record};

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
        let record = Record::connecting(dsm.address);
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

fn name(tsm: u32) -> String {
    format!("tsm{tsm}")
}
