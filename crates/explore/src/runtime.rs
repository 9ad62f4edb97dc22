//! The explorer's side of [`sync::hook`]: suspends a coroutine before each step, and keeps the picture of the
//! shared state from which follows who may run and which states are the same.
//!
//! A state is what all objects hold and what each thread has seen since its call began. An object that says
//! what it contains is known by that. One that does not is known by who changed it after having seen what:
//! the same changes in the same order leave the same data, whatever that is.
//!
//! A step ends where the next operation could make a difference in another order. Taking a lock commutes with
//! whatever others do after it, and giving one back with whatever they do before. So a step is any number of
//! locks taken, one operation that others could notice, and any number of locks given back (Lipton's
//! reduction). A lock that is taken begins a step even so: whether it must be waited for is what deadlocks are
//! made of; and so does a look at a wait's condition, which may then ask any number of deadlines: nobody but
//! the clock fires them, in any order.
//!
//! A deadline fires only when a thread is about to notice: just before, it makes the same difference as at any
//! time since it was armed.
//!
//! Takes no lock; one OS thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;
use std::thread;

use mem::coroutine;
use sync::Armed;
use sync::hook::{self, CountOperation, Hook, Kind, Now, ObjectId, Operation};

use crate::Steps;
use crate::fingerprint::{Fingerprint, Lanes};
use crate::footprint::{Access, Footprint, access};
use crate::moves::{Move, Point};
use crate::violation::{Violation, ViolationKind, raise};

/// What is known of the world of one OS thread.
pub(crate) struct Runtime {
    running: Cell<Runner>,
    steps: Steps,
    picture: RefCell<Picture>,
}

/// Whose operations are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Runner {
    /// Set-up, check, or a deadline that fires: runs alone.
    Alone,
    /// A thread of the script.
    Thread(usize),
}

#[derive(Default)]
struct Picture {
    objects: HashMap<ObjectId, Object, BuildHasherDefault<Numbers>>,
    /// Of all objects.
    shared: Fingerprint,
    threads: Vec<Thread>,
    /// What set-up waits on, and whether it was woken.
    alone_waits: Option<(ObjectId, bool)>,
    armed: BTreeMap<ObjectId, Armed>,
    footprint: Footprint,
    /// What its thread had seen when the step began.
    seen_before_step: Fingerprint,
    tale: Option<Vec<Event>>,
    /// States are of no interest any more: the execution is only brought to its end.
    abandoned: bool,
}

struct Object {
    name: &'static str,
    holds: Fingerprint,
    holder: Option<Runner>,
    ended: bool,
}

#[derive(Default)]
struct Thread {
    pending: Option<Operation>,
    seen: Fingerprint,
    /// The queue whose condition it evaluated last, and whether that was woken since.
    waits: Option<(ObjectId, bool)>,
    /// It has done nothing since that would be out of place before sleeping.
    may_sleep: bool,
    /// What it had seen before it took its last lock, and when it had it.
    around_lock: [Fingerprint; 2],
    /// What it had seen when it began to wait: all that it knows whenever it looks again.
    seen_before_wait: Option<Fingerprint>,
    /// That is what it had seen before it took the lock, and it has learned nothing since.
    unseen: bool,
    /// It has slept and not looked yet whether that was enough.
    slept: bool,
    /// So far the step took locks and did nothing else that others could notice.
    only_acquired: bool,
    /// So far the step evaluates a condition and asked about deadlines only.
    only_asked: bool,
    next_object: u64,
    /// To be ended by a panic when it is resumed.
    doomed: bool,
    /// It is being ended by one already, as far as can be told.
    dying: bool,
}

/// Something that happened in an execution, for its timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who did it; `None` for a deadline and for what runs alone.
    pub thread: Option<usize>,
    /// What was done.
    pub what: String,
    /// Where in the source.
    pub at: Option<&'static Location<'static>>,
    /// Whether others could have run just before.
    pub is_step: bool,
}

impl Runtime {
    pub(crate) fn new(steps: Steps) -> Self {
        Self { running: Cell::new(Runner::Alone), steps, picture: RefCell::default() }
    }

    /// Forgets the last execution and expects one of so many threads.
    pub(crate) fn reset(&self, threads: usize, tell: bool) {
        let old = self.picture.take();
        let mut objects = old.objects;
        objects.clear();
        drop(old.armed);
        let thread = |index| Thread { next_object: number(Some(index), 0), ..Thread::default() };
        *self.picture.borrow_mut() = Picture {
            objects,
            threads: (0..threads).map(thread).collect(),
            tale: tell.then(Vec::new),
            ..Picture::default()
        };
        hook::number_objects_from(number(None, 0));
        self.running.set(Runner::Alone);
    }

    /// The thread begins its call number `call`: it remembers nothing of those before.
    pub(crate) fn begin_call(&self, thread: usize, call: usize) {
        let mut picture = self.picture.borrow_mut();
        let state = &mut picture.threads[thread];
        state.waits = None;
        (state.slept, state.unseen) = (false, false);
        state.seen = Fingerprint::of(&(thread, call));
        hook::number_objects_from(number(Some(thread), call));
    }

    /// Runs `step` as the thread.
    pub(crate) fn as_thread<T>(&self, thread: usize, step: impl FnOnce() -> T) -> T {
        let next = {
            let mut picture = self.picture.borrow_mut();
            picture.footprint.clear();
            let state = &mut picture.threads[thread];
            state.pending = None;
            state.next_object
        };
        let alone = hook::number_objects_from(next);
        self.running.set(Runner::Thread(thread));
        let result = step();
        self.running.set(Runner::Alone);
        let next = hook::number_objects_from(alone);
        self.picture.borrow_mut().threads[thread].next_object = next;
        result
    }

    /// Fires the deadline.
    pub(crate) fn fire(&self, deadline: ObjectId) {
        let armed = {
            let mut picture = self.picture.borrow_mut();
            picture.footprint.clear();
            picture.armed.remove(&deadline)
        };
        if let Some(armed) = armed {
            armed.fire();
        }
    }

    /// What could happen next, threads first. Deadlines that nobody would notice yet are left for later.
    pub(crate) fn enabled(&self, into: &mut Vec<Move>) {
        let picture = self.picture.borrow();
        let threads = picture.threads.iter().enumerate();
        let able = threads.filter(|(_, thread)| picture.is_able(thread));
        into.extend(able.map(|(index, _)| Move::Thread(index)));
        let heard = picture.armed.iter().filter(|(deadline, armed)| {
            let mut threads = picture.threads.iter();
            self.steps == Steps::Every
                || threads.any(|thread| thread.hears(**deadline, armed.wakes()))
        });
        into.extend(heard.map(|(deadline, _)| Move::Fire(*deadline)));
    }

    /// Where the thread is about to go on, which tells whether two executions are at the same place.
    pub(crate) fn point(&self, next: Move) -> Option<Point> {
        match next {
            Move::Thread(thread) => {
                let pending = self.picture.borrow().threads[thread].pending?;
                Some(Point::of(&pending))
            }
            Move::Fire(deadline) => Some(Point::firing(deadline)),
        }
    }

    /// What the last step touched.
    pub(crate) fn footprint(&self) -> Footprint {
        self.picture.borrow().footprint.clone()
    }

    /// What all objects hold.
    pub(crate) fn shared(&self) -> Fingerprint {
        self.picture.borrow().shared
    }

    /// The state.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let picture = self.picture.borrow();
        let threads = picture.threads.iter().enumerate();
        threads.fold(picture.shared, |state, (index, thread)| {
            let pending = thread.pending.map(|pending| Point::of(&pending));
            let waits = thread.waits.filter(|_| thread.may_sleep);
            state.with(Fingerprint::of(&(index, pending, thread.seen, waits)))
        })
    }

    /// From now on nobody asks for states.
    pub(crate) fn abandon(&self) {
        self.picture.borrow_mut().abandoned = true;
    }

    /// Names a thread that can never go on and that a panic would end, which gives back what it holds. A second
    /// panic in the same thread would end the process.
    pub(crate) fn doom(&self) -> Option<usize> {
        let mut picture = self.picture.borrow_mut();
        let stuck = |thread: &Thread| thread.pending.is_some() && !thread.dying;
        let index = picture.threads.iter().position(stuck)?;
        picture.threads[index].doomed = true;
        Some(index)
    }

    /// What has happened, if it was to be told.
    pub(crate) fn take_tale(&self) -> Vec<Event> {
        self.picture.borrow_mut().tale.take().unwrap_or_default()
    }

    pub(crate) fn tell_call(&self, thread: usize, what: impl FnOnce() -> String) {
        let mut picture = self.picture.borrow_mut();
        if let Some(tale) = &mut picture.tale {
            tale.push(Event { thread: Some(thread), what: what(), at: None, is_step: false });
        }
    }

    /// Who waits for what, where nobody can go on.
    pub(crate) fn deadlock(&self) -> Violation {
        let picture = self.picture.borrow();
        let threads = picture.threads.iter().enumerate();
        let stuck = threads.filter_map(|(index, thread)| {
            let operation = thread.pending?;
            let object = operation.object;
            Some(match picture.holder(object) {
                _ if operation.kind == Kind::Sleep => {
                    format!("T{index} sleeps on {} and nobody wakes it", picture.name(&operation))
                }
                Some(holder) => {
                    format!("T{index} wants {} held by {holder}", picture.name(&operation))
                }
                None => format!("T{index} is stuck at {}", picture.name(&operation)),
            })
        });
        let message = stuck.collect::<Vec<_>>().join("; ");
        Violation { kind: ViolationKind::Deadlock, message }
    }

    /// Whether the operation must wait for its turn here.
    fn is_step(&self, thread: usize, operation: &Operation) -> bool {
        let picture = self.picture.borrow();
        let state = &picture.threads[thread];
        match operation.kind {
            _ if self.steps == Steps::Every && !thread::panicking() => true,
            Kind::Release => false,
            // A call that panicked ends at once, unless that needs what others hold.
            _ if thread::panicking() => !picture.can(state, operation),
            Kind::Acquire | Kind::Sleep | Kind::WaitCheck => true,
            Kind::Fired => !state.only_asked,
            Kind::Count(_)
            | Kind::Wake
            | Kind::Use
            | Kind::End
            | Kind::EpochEnter
            | Kind::EpochLeave
            | Kind::EpochFlip
            | Kind::Arm
            | Kind::Disarm
            | Kind::Fire => !state.only_acquired,
        }
    }

    /// Set-up and check wait for nobody. What they would sleep on must be woken by a deadline.
    fn wait_alone(&self, operation: &Operation) {
        let is_held = self.picture.borrow().holder(operation.object).is_some();
        if operation.kind == Kind::Acquire && is_held {
            let message = format!("{} is held and wanted again", operation.name);
            raise(Violation { kind: ViolationKind::Deadlock, message });
        }
        while operation.kind == Kind::Sleep && !self.is_woken_alone() {
            let first = self.picture.borrow().armed.keys().next().copied();
            let Some(deadline) = first else {
                let message = format!("a wait on {} that nobody ends", operation.name);
                raise(Violation { kind: ViolationKind::Deadlock, message });
            };
            self.fire(deadline);
        }
    }

    fn end_if_doomed(&self, thread: usize, operation: &Operation) {
        let state = &mut self.picture.borrow_mut().threads[thread];
        if std::mem::take(&mut state.doomed) {
            state.dying = true;
            let message = format!("stuck at {}", Point::of(operation));
            raise(Violation { kind: ViolationKind::Deadlock, message });
        }
    }

    fn is_woken_alone(&self) -> bool {
        self.picture.borrow().alone_waits.is_none_or(|(_, woken)| woken)
    }
}

impl Hook for Runtime {
    fn before(&self, operation: Operation) {
        let runner = self.running.get();
        match runner {
            Runner::Thread(thread) if self.is_step(thread, &operation) => {
                {
                    let state = &mut self.picture.borrow_mut().threads[thread];
                    state.pending = Some(operation);
                    state.dying |= thread::panicking();
                }
                coroutine::suspend();
                self.end_if_doomed(thread, &operation);
                self.picture.borrow_mut().begin_step(thread, &operation);
            }
            Runner::Thread(_) => {}
            Runner::Alone => self.wait_alone(&operation),
        }
        let (disarmed, violation) = {
            let mut picture = self.picture.borrow_mut();
            picture.take_effect(runner, &operation);
            let disarms = operation.kind == Kind::Disarm;
            let disarmed = disarms.then(|| picture.armed.remove(&operation.object)).flatten();
            (disarmed, picture.life_violation(&operation))
        };
        // It may own the last handle of a primitive, which says so.
        drop(disarmed);
        if let Some(violation) = violation
            && !thread::panicking()
        {
            raise(violation);
        }
    }

    fn created(&self, object: ObjectId, name: &'static str) {
        self.picture.borrow_mut().create(self.running.get(), object, name);
    }

    fn dropped(&self, object: ObjectId) {
        let mut picture = self.picture.borrow_mut();
        if let Some(gone) = picture.objects.remove(&object) {
            picture.shared = picture.shared.without(gone.share(object));
        }
    }

    fn saw(&self, object: ObjectId, value: u64) {
        let mut picture = self.picture.borrow_mut();
        if picture.abandoned {
            return;
        }
        picture.footprint.note_other(object, Access::Read);
        picture.see(self.running.get(), &(object, value));
    }

    fn unseen(&self, _: ObjectId) {
        let Runner::Thread(thread) = self.running.get() else { return };
        let state = &mut self.picture.borrow_mut().threads[thread];
        let [before, after] = state.around_lock;
        if state.seen == after {
            state.seen_before_wait = Some(before);
            state.unseen = true;
        }
    }

    fn holds(&self, object: ObjectId, now: Now<'_>) {
        let runner = self.running.get();
        let mut picture = self.picture.borrow_mut();
        if picture.abandoned {
            return;
        }
        let now = match now {
            Now::Number(number) => {
                picture.footprint.note_other(object, Access::Write);
                Fingerprint::of(&number)
            }
            Now::Contents(write) => {
                let mut lanes = Lanes::default();
                write(&mut lanes);
                lanes.fingerprint()
            }
            Now::Changed => picture.change_of(runner, object),
            Now::Unchanged => return picture.left_as_it_was(object),
        };
        picture.set(object, now);
    }

    fn armed(&self, deadline: Armed) {
        self.picture.borrow_mut().armed.insert(deadline.object(), deadline);
    }
}

impl Picture {
    fn is_able(&self, thread: &Thread) -> bool {
        thread.pending.is_some_and(|pending| self.can(thread, &pending))
    }

    fn can(&self, thread: &Thread, operation: &Operation) -> bool {
        let is_free = || self.holder(operation.object).is_none();
        let is_woken = || thread.waits.is_none_or(|(_, woken)| woken);
        (operation.kind != Kind::Acquire || is_free())
            && (operation.kind != Kind::Sleep || is_woken())
    }

    fn holder(&self, object: ObjectId) -> Option<Runner> {
        self.objects.get(&object)?.holder
    }

    /// The first operation of a step: what it touches, and that the thread did it.
    fn begin_step(&mut self, thread: usize, operation: &Operation) {
        if self.abandoned {
            return;
        }
        let state = &mut self.threads[thread];
        (state.only_acquired, state.only_asked) = (true, false);
        self.seen_before_step = state.seen;
        self.see(Runner::Thread(thread), &Point::of(operation));
        self.tell(Runner::Thread(thread), operation, true);
    }

    /// What an operation does to the picture, whether or not it began a step.
    fn take_effect(&mut self, runner: Runner, operation: &Operation) {
        if let Runner::Thread(thread) = runner {
            let state = &mut self.threads[thread];
            state.only_acquired &= matches!(operation.kind, Kind::Acquire | Kind::Use);
            state.only_asked &= operation.kind == Kind::Fired;
            state.only_asked |= operation.kind == Kind::WaitCheck;
            // A condition may ask some things before the thread sleeps.
            let asks = matches!(
                operation.kind,
                Kind::Fired | Kind::Count(CountOperation::Read) | Kind::Use | Kind::Release
            );
            state.may_sleep = operation.kind == Kind::WaitCheck || state.may_sleep && asks;
        }
        if let Some(access) = access(operation) {
            self.footprint.note(operation.object, access);
        }
        if runner == Runner::Alone {
            self.tell(runner, operation, operation.kind == Kind::Fire);
        }
        let object = operation.object;
        match operation.kind {
            Kind::Acquire => self.acquire(runner, operation),
            Kind::Release => self.release(object),
            Kind::WaitCheck => self.begin_wait(runner, object),
            Kind::Sleep => self.end_sleep(runner),
            Kind::Wake => self.wake(object),
            Kind::Count(_)
            | Kind::Use
            | Kind::End
            | Kind::EpochEnter
            | Kind::EpochLeave
            | Kind::EpochFlip
            | Kind::Arm
            | Kind::Disarm
            | Kind::Fire
            | Kind::Fired => {}
        }
    }

    fn release(&mut self, mutex: ObjectId) {
        self.footprint.note_unlocked(mutex);
        if let Some(mutex) = self.objects.get_mut(&mutex) {
            mutex.holder = None;
        }
    }

    fn acquire(&mut self, runner: Runner, operation: &Operation) {
        let mutex = self.object(operation.object, operation.name);
        mutex.holder = Some(runner);
        let holds = mutex.holds;
        let before = self.seen_before_step;
        self.footprint.note_locked(operation.object);
        self.see(runner, &holds);
        if let Runner::Thread(thread) = runner {
            let state = &mut self.threads[thread];
            state.around_lock = [before, state.seen];
        }
    }

    fn begin_wait(&mut self, runner: Runner, queue: ObjectId) {
        *self.waits_of(runner) = Some((queue, false));
        if let Runner::Thread(thread) = runner {
            let state = &mut self.threads[thread];
            if !std::mem::take(&mut state.slept) && !std::mem::take(&mut state.unseen) {
                state.seen_before_wait = Some(state.seen);
            }
        }
    }

    /// A wait is a loop that carries nothing from one look to the next, so what earlier looks saw is forgotten.
    fn end_sleep(&mut self, runner: Runner) {
        *self.waits_of(runner) = None;
        if let Runner::Thread(thread) = runner {
            let state = &mut self.threads[thread];
            state.seen = state.seen_before_wait.unwrap_or(state.seen);
            state.slept = true;
        }
    }

    fn waits_of(&mut self, runner: Runner) -> &mut Option<(ObjectId, bool)> {
        match runner {
            Runner::Alone => &mut self.alone_waits,
            Runner::Thread(thread) => &mut self.threads[thread].waits,
        }
    }

    fn wake(&mut self, queue: ObjectId) {
        let threads = self.threads.iter_mut().map(|thread| &mut thread.waits);
        for (waits_on, woken) in threads.chain([&mut self.alone_waits]).flatten() {
            *woken |= *waits_on == queue;
        }
    }

    fn life_violation(&mut self, operation: &Operation) -> Option<Violation> {
        let ends = operation.kind == Kind::End;
        if !ends && operation.kind != Kind::Use {
            return None;
        }
        let name = self.name(operation);
        let life = self.object(operation.object, operation.name);
        if !life.ended {
            life.ended = ends;
            return None;
        }
        let what = if ends { "ended twice" } else { "used after its end" };
        let message = format!("{name} {what} ({})", operation.at);
        Some(Violation { kind: ViolationKind::UseAfterEnd, message })
    }

    fn create(&mut self, runner: Runner, object: ObjectId, name: &'static str) {
        let holds = match runner {
            Runner::Alone => Fingerprint::default(),
            Runner::Thread(thread) => self.threads[thread].seen,
        };
        let made = Object { name, holds, holder: None, ended: false };
        self.shared = self.shared.with(made.share(object));
        if let Some(before) = self.objects.insert(object, made) {
            self.shared = self.shared.without(before.share(object));
        }
    }

    /// An object made before the execution is known from its first operation on.
    fn object(&mut self, object: ObjectId, name: &'static str) -> &mut Object {
        if !self.objects.contains_key(&object) {
            self.create(Runner::Alone, object, name);
        }
        self.objects.get_mut(&object).expect("made if it was not there")
    }

    /// The state of data that changed and says nothing of itself.
    fn change_of(&self, runner: Runner, object: ObjectId) -> Fingerprint {
        let before = self.objects.get(&object).map(|mutex| mutex.holds);
        let seen = match runner {
            Runner::Alone => Fingerprint::default(),
            Runner::Thread(thread) => self.threads[thread].seen,
        };
        Fingerprint::of(&(before, seen))
    }

    /// A lock given back in the step that took it, with its data unchanged, was a look at it.
    fn left_as_it_was(&mut self, object: ObjectId) {
        self.footprint.only_read(object);
    }

    fn set(&mut self, object: ObjectId, now: Fingerprint) {
        let Some(holder) = self.objects.get_mut(&object) else { return };
        let before = holder.share(object);
        holder.holds = now;
        self.shared = self.shared.without(before).with(holder.share(object));
    }

    fn see(&mut self, runner: Runner, what: &impl std::hash::Hash) {
        if let Runner::Thread(thread) = runner
            && !self.abandoned
        {
            let seen = &mut self.threads[thread].seen;
            *seen = seen.then(what);
        }
    }

    fn tell(&mut self, runner: Runner, operation: &Operation, is_step: bool) {
        if self.tale.is_none() {
            return;
        }
        let thread = match runner {
            Runner::Thread(thread) => Some(thread),
            // Set-up and check are not part of the tale.
            Runner::Alone if operation.kind != Kind::Fire => return,
            Runner::Alone => None,
        };
        let what = Point::of(operation).to_string();
        if let Some(tale) = &mut self.tale {
            tale.push(Event { thread, what, at: Some(operation.at), is_step });
        }
    }

    fn name(&self, operation: &Operation) -> String {
        let name = self.objects.get(&operation.object).map_or(operation.name, |known| known.name);
        crate::moves::object_name(name, operation.object)
    }
}

impl Thread {
    /// Whether the thread's next step is one that a deadline makes a difference to.
    fn hears(&self, deadline: ObjectId, wakes: ObjectId) -> bool {
        self.pending.is_some_and(|operation| match operation.kind {
            Kind::WaitCheck => operation.object == wakes,
            Kind::Sleep => self.waits == Some((wakes, false)),
            Kind::Fired => operation.object == deadline,
            Kind::Acquire
            | Kind::Release
            | Kind::Count(_)
            | Kind::Wake
            | Kind::Use
            | Kind::End
            | Kind::EpochEnter
            | Kind::EpochLeave
            | Kind::EpochFlip
            | Kind::Arm
            | Kind::Disarm
            | Kind::Fire => false,
        })
    }
}

impl Object {
    fn share(&self, object: ObjectId) -> Fingerprint {
        Fingerprint::of(&(object, self.holds))
    }
}

impl fmt::Display for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => f.write_str("set-up"),
            Self::Thread(thread) => write!(f, "T{thread}"),
        }
    }
}

const CALL_SHIFT: u32 = 24;
const THREAD_SHIFT: u32 = 48;

/// The first number of the objects that a thread makes in one of its calls. Numbers below belong to what was
/// made outside of any execution.
fn number(thread: Option<usize>, call: usize) -> u64 {
    let thread = thread.map_or(1, |thread| thread as u64 + 2);
    thread << THREAD_SHIFT | (call as u64) << CALL_SHIFT | 1
}

/// Who made an object, in which of its calls, and as which of those made there; `None` as its maker is set-up.
pub(crate) fn maker(object: ObjectId) -> (Option<usize>, u64, u64) {
    let number = object.number();
    let thread =
        usize::try_from(number >> THREAD_SHIFT).ok().and_then(|thread| thread.checked_sub(2));
    let call = number >> CALL_SHIFT & ((1 << (THREAD_SHIFT - CALL_SHIFT)) - 1);
    (thread, call, number & ((1 << CALL_SHIFT) - 1))
}

/// Object numbers spread by a multiplication.
#[derive(Default)]
struct Numbers(u64);

impl Hasher for Numbers {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
