//! Sessions that nobody uses any more: a device ends what was silent for twice its heartbeat period.
//!
//! A session is looked at twice a period, and what it received meanwhile is noted without a clock, so that it ends at
//! the earliest two periods after its last record, and half a period later at the latest. The lock is of rank
//! [`sync::rank::DeviceSecurity`], never together with another. Deliberately absent: the thread that
//! sleeps.
//!
//! Source: \[DSP0274\] HEARTBEAT.

use std::collections::BTreeMap;
use std::sync::Arc;

use spdm::responder::Responder;
use spdm::secured::SessionId;
use sync::{Deadline, Mutex, Timers, WaitQueue, rank};

use super::Manager;

/// How often a session is looked at in a period.
const LOOKS_PER_PERIOD: u64 = 2;
/// Looks in a row that found nothing new, after which two whole periods have passed.
const SILENT_LOOKS_MAX: u64 = 2 * LOOKS_PER_PERIOD + 1;

/// When sessions are looked at.
pub(super) struct Silence {
    wakes: Arc<WaitQueue>,
    plan: Mutex<rank::DeviceSecurity, Plan>,
}

#[derive(Default)]
struct Plan {
    /// Without them nothing is looked at.
    timers: Option<Timers>,
    /// By [`SessionId::joined`].
    sessions: BTreeMap<u32, Look>,
    ended: bool,
}

/// The next look at a session.
struct Look {
    due: Deadline,
    interval_ms: u64,
    /// Looks since its last record.
    silent: u64,
}

impl Silence {
    pub(super) fn new() -> Self {
        Self { wakes: Arc::new(WaitQueue::new()), plan: Mutex::new(Plan::default()) }
    }

    /// Notes what an exchange did: a record of the session `used` may have come, and sessions may have
    /// come and gone.
    pub(super) fn note(&self, used: Option<SessionId>, responder: &Responder) {
        let mut plan = self.plan.lock();
        let Some(timers) = plan.timers.clone() else { return };
        if let Some(look) = used.and_then(|used| plan.sessions.get_mut(&used.joined())) {
            look.silent = 0;
        }
        let is_there = |number: u32| responder.sessions().any(|one| one.joined() == number);
        let gone: Vec<_> = plan.sessions.extract_if(.., |number, _| !is_there(*number)).collect();
        let new: Vec<SessionId> =
            responder.sessions().filter(|one| !plan.sessions.contains_key(&one.joined())).collect();
        drop(plan);
        // Disarms them, which takes a lock of its own.
        drop(gone);
        for session in new {
            let interval_ms = u64::from(responder.heartbeat_s(session)) * 1000 / LOOKS_PER_PERIOD;
            if interval_ms != 0 {
                let due = timers.arm(interval_ms, &self.wakes);
                let look = Look { due, interval_ms, silent: 0 };
                self.plan.lock().sessions.insert(session.joined(), look);
                // Who sleeps has not seen it.
                self.wakes.wake_all();
            }
        }
    }

    /// Sleeps until sessions are due to be looked at. Says whether one was silent for too long; `None`
    /// once all has ended.
    fn look(&self) -> Option<bool> {
        let is_idle =
            |plan: &Plan| !plan.ended && plan.sessions.values().all(|look| !look.due.fired());
        let plan = self.wakes.wait_while(self.plan.lock(), is_idle);
        let timers = plan.timers.clone().filter(|_| !plan.ended)?;
        let due = plan.sessions.iter().filter(|(_, look)| look.due.fired());
        let due: Vec<_> = due.map(|(number, look)| (*number, look.interval_ms)).collect();
        drop(plan);
        // Arming and disarming take a lock of their own.
        let next = due.into_iter().map(|(number, ms)| (number, timers.arm(ms, &self.wakes)));
        let mut next: Vec<_> = next.collect();
        let mut plan = self.plan.lock();
        let mut over = false;
        for (number, due) in &mut next {
            let Some(look) = plan.sessions.get_mut(number) else { continue };
            std::mem::swap(&mut look.due, due);
            look.silent += 1;
            over |= look.silent >= SILENT_LOOKS_MAX;
        }
        drop(plan);
        drop(next);
        Some(over)
    }

    /// Whether a session was silent for too long.
    fn is_over(&self, session: SessionId) -> bool {
        let plan = self.plan.lock();
        plan.sessions.get(&session.joined()).is_some_and(|look| look.silent >= SILENT_LOOKS_MAX)
    }
}

impl Manager {
    /// Gives the device time: from now on [`tend`](Self::tend) ends new sessions that are silent for too
    /// long.
    pub fn keep_time(&self, timers: Timers) {
        self.silence.plan.lock().timers = Some(timers);
    }

    /// Sleeps until sessions are to be looked at, and ends those that were silent for twice their
    /// heartbeat period. `false` once [`end_tending`](Self::end_tending) was called. To be called by one
    /// thread, which may sleep for ever.
    pub fn tend(&self) -> bool {
        let Some(over) = self.silence.look() else { return false };
        if over {
            self.end_sessions(|session| self.silence.is_over(session));
        }
        true
    }

    /// Ends all tending; [`tend`](Self::tend) returns.
    pub fn end_tending(&self) {
        self.silence.plan.lock().ended = true;
        self.silence.wakes.wake_all();
    }
}
