//! Time as an event: deadlines that somebody else's clock fires.
//!
//! Core crates know no clock. They [arm](Timers::arm) a deadline and see that it
//! [fired](Deadline::fired). One thread that has a clock calls [`Timers::fire_due`] with its reading
//! in milliseconds; an explorer fires a deadline at any moment while it is armed.
//!
//! The table's own lock is a leaf, held for one insertion or removal; nobody is woken under it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};

use crate::hook::{self, Kind, Object, ObjectId};
use crate::wait::WaitQueue;

#[expect(
    clippy::disallowed_types,
    reason = "a leaf inside the primitive; the hook is asked outside"
)]
type Plain<T> = std::sync::Mutex<T>;

/// The armed deadlines, ordered by when they are due. Cloning shares them.
#[derive(Clone)]
pub struct Timers {
    table: Arc<Plain<Table>>,
    /// Tells the thread with the clock that it may have to wake earlier.
    nearer: Arc<dyn Fn() + Send + Sync>,
}

/// A deadline somebody armed. Dropping it disarms it.
#[must_use = "a deadline is disarmed when dropped"]
pub struct Deadline {
    state: Arc<State>,
    number: u64,
    table: Arc<Plain<Table>>,
}

/// A deadline as a hook keeps it: to be fired at a moment of the hook's choice.
#[derive(Clone)]
pub struct Armed {
    state: Arc<State>,
    number: u64,
    table: Arc<Plain<Table>>,
}

struct State {
    fired: AtomicBool,
    wakes: Arc<WaitQueue>,
    object: Object,
}

#[derive(Default)]
struct Table {
    next_number: u64,
    /// Armed by duration and not yet dated: (number, duration in milliseconds, who).
    undated: Vec<(u64, u64, Arc<State>)>,
    /// By due time in milliseconds, then number.
    dated: BTreeMap<(u64, u64), Arc<State>>,
}

impl Timers {
    /// Timers without deadlines. `nearer` is called, with no lock of this crate held, whenever
    /// [`next_due`](Self::next_due) may have become earlier.
    pub fn new(nearer: impl Fn() + Send + Sync + 'static) -> Self {
        Self { table: Arc::default(), nearer: Arc::new(nearer) }
    }

    /// Arms a deadline due `duration_ms` milliseconds after the next [`fire_due`](Self::fire_due),
    /// which the thread with the clock is asked for at once. Firing wakes `wakes`.
    #[track_caller]
    pub fn arm(&self, duration_ms: u64, wakes: &Arc<WaitQueue>) -> Deadline {
        self.enter(wakes, |table, number, state| table.undated.push((number, duration_ms, state)))
    }

    /// Arms a deadline due at `due_ms` of the clock of [`fire_due`](Self::fire_due). Firing wakes
    /// `wakes`.
    #[track_caller]
    pub fn arm_at(&self, due_ms: u64, wakes: &Arc<WaitQueue>) -> Deadline {
        self.enter(wakes, |table, number, state| {
            table.dated.insert((due_ms, number), state);
        })
    }

    /// When [`fire_due`](Self::fire_due) should be called next, in milliseconds of its clock;
    /// zero, which is at once, where a duration has not been dated. `None` without deadlines.
    pub fn next_due(&self) -> Option<u64> {
        let table = lock(&self.table);
        if !table.undated.is_empty() {
            return Some(0);
        }
        table.dated.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }

    /// Fires every deadline due at or before `now_ms`, in order of due time, and counts new
    /// durations from `now_ms`.
    pub fn fire_due(&self, now_ms: u64) {
        let due = lock(&self.table).take_due(now_ms);
        for state in due {
            state.fire();
        }
    }

    #[track_caller]
    fn enter(
        &self,
        wakes: &Arc<WaitQueue>,
        insert: impl FnOnce(&mut Table, u64, Arc<State>),
    ) -> Deadline {
        let object = Object::new(NAME);
        hook::holds(object.id(), || 0);
        let state = State { fired: AtomicBool::new(false), wakes: Arc::clone(wakes), object };
        let state = Arc::new(state);
        hook::before(Kind::Arm, state.object.id(), NAME);
        let number = {
            let mut table = lock(&self.table);
            let number = table.next_number;
            table.next_number += 1;
            insert(&mut table, number, Arc::clone(&state));
            number
        };
        (self.nearer)();
        hook::tell(|hook| {
            let table = Arc::clone(&self.table);
            hook.armed(Armed { state: Arc::clone(&state), number, table });
        });
        Deadline { state, number, table: Arc::clone(&self.table) }
    }
}

impl State {
    fn fire(&self) {
        hook::before(Kind::Fire, self.object.id(), NAME);
        self.fired.store(true, SeqCst);
        hook::holds(self.object.id(), || 1);
        self.wakes.wake_all();
    }
}

impl Armed {
    /// The deadline's number.
    pub fn object(&self) -> ObjectId {
        self.state.object.id()
    }

    /// The number of the wait queue that it wakes.
    pub fn wakes(&self) -> ObjectId {
        self.state.wakes.id()
    }

    /// Fires the deadline, whatever the time, unless it was fired or disarmed.
    pub fn fire(&self) {
        let armed = lock(&self.table).remove(self.number);
        if armed {
            self.state.fire();
        }
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("next_due", &self.next_due()).finish_non_exhaustive()
    }
}

impl Table {
    fn take_due(&mut self, now_ms: u64) -> Vec<Arc<State>> {
        for (number, duration_ms, state) in self.undated.drain(..) {
            self.dated.insert((now_ms.saturating_add(duration_ms), number), state);
        }
        let mut due = Vec::new();
        while let Some(first) = self.dated.first_entry() {
            if first.key().0 > now_ms {
                break;
            }
            due.push(first.remove());
        }
        due
    }

    /// Takes a deadline out; says whether it was there.
    fn remove(&mut self, number: u64) -> bool {
        let before = self.undated.len() + self.dated.len();
        self.undated.retain(|(other, _, _)| *other != number);
        self.dated.retain(|(_, other), _| *other != number);
        self.undated.len() + self.dated.len() < before
    }
}

impl Deadline {
    /// A number that tells it from all others of a run, and is the same in equal runs: for
    /// [`Contents`](crate::Contents).
    pub fn identity(&self) -> u64 {
        self.state.object.id().identity()
    }

    pub(crate) fn id(&self) -> ObjectId {
        self.state.object.id()
    }

    /// Whether it has fired. Belongs in the condition of a wait on the queue it was armed with.
    #[track_caller]
    pub fn fired(&self) -> bool {
        hook::before(Kind::Fired, self.state.object.id(), NAME);
        let fired = self.state.fired.load(SeqCst);
        hook::saw(self.state.object.id(), || u64::from(fired));
        fired
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fired = self.state.fired.load(SeqCst);
        f.debug_struct("Deadline").field("fired", &fired).finish_non_exhaustive()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        hook::before(Kind::Disarm, self.state.object.id(), NAME);
        lock(&self.table).remove(self.number);
    }
}

fn lock<T>(mutex: &Plain<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const NAME: &str = "Deadline";
