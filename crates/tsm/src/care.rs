//! What keeps connections alive while nobody uses them: heartbeats, and with them new keys.
//!
//! A thread of the host's calls [`Registry::tend`] again and again. It sleeps until a connection was
//! silent for as long as its session lets it be, and has the session [tended](crate::Session::tend).
//! A connection that was used meanwhile is left alone. Takes [`rank::TsmCare`], and the locks of a call
//! one after the other. Deliberately absent: the thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use pci::Address;
use sync::{Deadline, Mutex, Named, Timers, WaitQueue, rank};

use crate::line::{Call, Line, Record, Turn};
use crate::registry::Found;
use crate::{Notice, Registry};

/// The connections that are to be tended.
pub(crate) struct Care {
    queue: Arc<WaitQueue>,
    plan: Mutex<rank::TsmCare, Plan>,
}

#[derive(Default)]
struct Plan {
    visits: BTreeMap<Address, Visit>,
    ended: bool,
}

/// When a connection is looked at next.
struct Visit {
    line: Weak<Line>,
    due: Deadline,
    /// Its claims when this was planned.
    claims: u64,
}

impl Care {
    pub(crate) fn new() -> Self {
        let name = || "tsm".to_owned();
        Self {
            queue: Arc::new(WaitQueue::new().named("visits_due", name)),
            plan: Mutex::new(Plan::default()).named("visits", name),
        }
    }

    /// Plans the next visit of a connection.
    pub(crate) fn plan(&self, timers: &Timers, line: &Arc<Line>, after_ms: u64) {
        let claims = line.lock().claims();
        let due = timers.arm(after_ms, &self.queue).named("visit_due", || line.name());
        let visit = Visit { line: Arc::downgrade(line), due, claims };
        let before = self.plan.lock().visits.insert(line.dsm.address, visit);
        drop(before);
        // Who sleeps has not seen it.
        self.queue.wake_all();
    }

    /// Sleeps until visits are due, and takes them; `None` once all has ended.
    fn take_due(&self) -> Option<Vec<Visit>> {
        let is_idle =
            |plan: &Plan| !plan.ended && plan.visits.values().all(|visit| !visit.due.fired());
        let mut plan = self.queue.wait_while(self.plan.lock(), is_idle);
        if plan.ended {
            return None;
        }
        let due = plan.visits.extract_if(.., |_, visit| visit.due.fired());
        Some(due.map(|(_, visit)| visit).collect())
    }

    fn end(&self) {
        let visits = {
            let mut plan = self.plan.lock();
            plan.ended = true;
            std::mem::take(&mut plan.visits)
        };
        drop(visits);
        self.queue.wake_all();
    }
}

impl Registry {
    /// Sleeps until a connection wants to be tended, and tends it. `false` once
    /// [`end_tending`](Self::end_tending) was called. To be called by one thread, which may sleep for
    /// ever.
    pub fn tend(&self) -> bool {
        let Some(visits) = self.care.take_due() else { return false };
        for visit in visits {
            if let Some(line) = visit.line.upgrade() {
                self.visit(&line, visit.claims);
            }
        }
        true
    }

    /// Ends all tending; [`tend`](Self::tend) returns.
    pub fn end_tending(&self) {
        self.care.end();
    }

    /// Tends a connection that was not used since it had so many claims, and plans the next visit.
    fn visit(&self, line: &Arc<Line>, claims: u64) {
        let function = line.dsm.address;
        let found = self.find(function).filter(|found| Arc::ptr_eq(&found.line, line));
        let Some(Found { faults, .. }) = found else { return };
        let call = Call { function, operation: "tend", urgent: false, cancel: None, faults };
        let used = |record: &Record| {
            let unused = record.admits(function).is_some() && record.claims() == claims;
            (!unused).then_some(())
        };
        let mut told = Ok(());
        let after_ms = match line.claim(&call, used, |_| {}) {
            Turn::Ours(mut claimed) => {
                told = claimed.session.tend(&mut claimed.exchange);
                let after_ms = claimed.session.tend_after_ms();
                claimed.finish(|_| after_ms)
            }
            Turn::Settled(()) => line.lock().tend_after_ms(),
            Turn::Ended => None,
        };
        if let Err(failure) = told {
            self.tell(&[(function, Notice::SessionLost { refusal: failure.refusal })]);
        }
        if let Some(after_ms) = after_ms {
            self.care.plan(line.timers(), line, after_ms);
        }
    }
}
