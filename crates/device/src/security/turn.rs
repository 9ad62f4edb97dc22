//! The manager's record, whose turn it is, and how what happens on the functions' side gets into it.
//!
//! Who has the turn owns the DSM and the keys, which nobody else then reaches, and holds no lock. The
//! record itself is behind the manager's lock for the length of a look.

use std::collections::VecDeque;

use tdisp::ide_km::KeyTable;
use tdisp::{Breach, Change, Dsm};

use super::interface::Event;
use super::{Manager, STREAMS, TDIS_MAX, TdiChange, Watcher};

/// What requests read and change.
pub(super) struct Core {
    pub(super) dsm: Dsm<TDIS_MAX>,
    pub(super) keys: KeyTable<STREAMS>,
}

/// What the manager's lock guards.
pub(super) struct Record {
    /// Away while somebody has the turn.
    core: Option<Box<Core>>,
    /// Something happened that whoever has the turn may not have recorded.
    stale: bool,
    /// The keys were lost, likewise.
    keys_lost: bool,
    /// Keys programmed, as of when the turn was last given back.
    pub(super) key_count: usize,
    pub(super) watchers: Vec<Watcher>,
    /// Changes that watchers have not heard of, oldest first.
    untold: VecDeque<TdiChange>,
    /// Somebody is calling watchers.
    telling: bool,
}

impl Record {
    pub(super) fn new(dsm: Dsm<TDIS_MAX>) -> Self {
        Self {
            core: Some(Box::new(Core { dsm, keys: KeyTable::new() })),
            stale: false,
            keys_lost: false,
            key_count: 0,
            watchers: Vec::new(),
            untold: VecDeque::new(),
            telling: false,
        }
    }
}

impl Manager {
    /// Waits for the turn and takes it, with all recorded that happened before.
    pub(super) fn take_turn(&self) -> Box<Core> {
        loop {
            let record = self.record.lock();
            let mut record = self.turn_free.wait_while(record, |record| record.core.is_none());
            if let Some(mut core) = record.core.take() {
                drop(record);
                self.record_events(&mut core);
                return core;
            }
        }
    }

    /// Records what happened meanwhile, gives the turn back and tells watchers.
    pub(super) fn give_back(&self, mut core: Box<Core>) {
        loop {
            self.record_events(&mut core);
            let mut record = self.record.lock();
            if !record.stale {
                record.key_count = core.keys.keys();
                record.core = Some(core);
                break;
            }
        }
        self.turn_free.wake_all();
        self.tell_watchers();
    }

    /// Notes that something happened on a function's side. Returns when it is recorded, or when
    /// whoever has the turn is bound to record it.
    pub(super) fn note(&self, keys_lost: bool) {
        let mut record = self.record.lock();
        record.stale = true;
        record.keys_lost |= keys_lost;
        let core = record.core.take();
        drop(record);
        if let Some(core) = core {
            self.give_back(core);
        }
    }

    /// Records what the functions noted. The caller has the turn.
    pub(super) fn record_events(&self, core: &mut Core) {
        let keys_lost = {
            let mut record = self.record.lock();
            record.stale = false;
            std::mem::take(&mut record.keys_lost)
        };
        if keys_lost {
            self.drop_keys(core);
        }
        for seat in &self.seats {
            let requester_id = seat.interface.requester_id();
            for event in seat.interface.take_events() {
                let (change, cause) = match event {
                    Event::Breached(breach) => {
                        (core.dsm.breach(requester_id, breach), Some(breach))
                    }
                    Event::Unlocked => (core.dsm.unlocked(requester_id), None),
                };
                if let Some(change) = change {
                    self.tell(change, cause);
                }
            }
        }
    }

    /// Queues a change for the watchers. The caller has the turn.
    pub(super) fn tell(&self, change: Change, cause: Option<Breach>) {
        let Change { requester_id, from, to } = change;
        self.record.lock().untold.push_back(TdiChange { requester_id, from, to, cause });
    }

    /// Calls the watchers for what is queued, unless another thread is at it, which then does.
    fn tell_watchers(&self) {
        loop {
            let (change, watchers) = {
                let mut record = self.record.lock();
                if record.telling {
                    return;
                }
                let Some(change) = record.untold.pop_front() else { return };
                record.telling = true;
                (change, record.watchers.clone())
            };
            for watcher in &watchers {
                watcher(change);
            }
            self.record.lock().telling = false;
        }
    }
}
