//! What is known of an execution: who holds, waits and is pending, what each object holds and what each thread
//! has seen. From it follow who may run, and the state.
//!
//! A state is what all objects hold and what each thread has seen since its call began. An object that says
//! what it contains is known by that. One that does not is known by who changed it after having seen what:
//! the same changes in the same order leave the same data, whatever that is. Takes no lock.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::panic::Location;

use sync::Armed;
use sync::hook::{CountOperation, Kind, ObjectId, Operation};

use crate::effect::{ArmedAt, Recording};
use crate::fingerprint::Fingerprint;
use crate::footprint::{Footprint, access};
use crate::moves::{Point, object_name};
use crate::names::Called;
use crate::violation::{Violation, ViolationKind};

/// Whose operations are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Runner {
    /// Set-up, check, or a deadline that fires: runs alone.
    Alone,
    /// A thread of the script.
    Thread(usize),
}

#[derive(Default)]
pub(crate) struct Picture {
    pub(crate) objects: HashMap<ObjectId, Object, BuildHasherDefault<Numbers>>,
    /// Of all objects.
    pub(crate) shared: Fingerprint,
    pub(crate) threads: Vec<Thread>,
    /// What set-up waits on, and whether it was woken.
    pub(crate) alone_waits: Option<(ObjectId, bool)>,
    pub(crate) armed: BTreeMap<ObjectId, Armed>,
    pub(crate) footprint: Footprint,
    /// What its thread had seen when the step began.
    pub(crate) seen_before_step: Fingerprint,
    pub(crate) tale: Option<Vec<Event>>,
    /// What objects were called, where a tale is told.
    pub(crate) called: Vec<Called>,
    /// What the step does, if that is to be learned.
    pub(crate) recording: Option<Recording>,
    /// The operation that is about to take effect has been told.
    pub(crate) is_told: bool,
    /// States are of no interest any more: the execution is only brought to its end.
    pub(crate) abandoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) name: &'static str,
    pub(crate) holds: Fingerprint,
    pub(crate) holder: Option<Runner>,
    pub(crate) ended: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Thread {
    pub(crate) pending: Option<Operation>,
    pub(crate) seen: Fingerprint,
    /// The queue whose condition it evaluated last, and whether that was woken since.
    pub(crate) waits: Option<(ObjectId, bool)>,
    /// It has done nothing since that would be out of place before sleeping.
    pub(crate) may_sleep: bool,
    /// What it had seen before it took its last lock, and when it had it.
    pub(crate) around_lock: [Fingerprint; 2],
    /// What it had seen when it began to wait: all that it knows whenever it looks again.
    pub(crate) seen_before_wait: Option<Fingerprint>,
    /// That is what it had seen before it took the lock, and it has learned nothing since.
    pub(crate) unseen: bool,
    /// It has slept and not looked yet whether that was enough.
    pub(crate) slept: bool,
    /// So far the step took locks and did nothing else that others could notice.
    pub(crate) only_acquired: bool,
    /// So far the step evaluates a condition and asked about deadlines only.
    pub(crate) only_asked: bool,
    pub(crate) next_object: u64,
    /// It, or another before it, is being ended by a panic and has to wait, as far as can be told.
    pub(crate) unwinds: bool,
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

impl Picture {
    pub(crate) fn is_able(&self, thread: &Thread) -> bool {
        thread.pending.is_some_and(|pending| self.can(thread, &pending))
    }

    pub(crate) fn can(&self, thread: &Thread, operation: &Operation) -> bool {
        let is_free = || self.holder(operation.object).is_none();
        let is_woken = || thread.waits.is_none_or(|(_, woken)| woken);
        (operation.kind != Kind::Acquire || is_free())
            && (operation.kind != Kind::Sleep || is_woken())
    }

    pub(crate) fn holder(&self, object: ObjectId) -> Option<Runner> {
        self.objects.get(&object)?.holder
    }

    /// The first operation of a step: what it touches, and that the thread did it.
    pub(crate) fn begin_step(&mut self, thread: usize, operation: &Operation) {
        if self.abandoned {
            return;
        }
        let state = &mut self.threads[thread];
        (state.only_acquired, state.only_asked) = (true, false);
        self.seen_before_step = state.seen;
        self.see(Runner::Thread(thread), &Point::of(operation));
        self.tell(Runner::Thread(thread), operation, true);
        self.is_told = true;
    }

    /// What an operation does to the picture, whether or not it began a step.
    pub(crate) fn take_effect(&mut self, runner: Runner, operation: &Operation) {
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
        self.touch(operation.object);
        if let Some(access) = access(operation) {
            self.footprint.note(operation.object, access);
        }
        if !std::mem::take(&mut self.is_told) {
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

    pub(crate) fn release(&mut self, mutex: ObjectId) {
        self.footprint.note_unlocked(mutex);
        if let Some(mutex) = self.objects.get_mut(&mutex) {
            mutex.holder = None;
        }
    }

    pub(crate) fn acquire(&mut self, runner: Runner, operation: &Operation) {
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

    pub(crate) fn begin_wait(&mut self, runner: Runner, queue: ObjectId) {
        *self.waits_of(runner) = Some((queue, false));
        if let Runner::Thread(thread) = runner {
            let state = &mut self.threads[thread];
            if !std::mem::take(&mut state.slept) && !std::mem::take(&mut state.unseen) {
                state.seen_before_wait = Some(state.seen);
            }
        }
    }

    /// A wait is a loop that carries nothing from one look to the next, so what earlier looks saw is forgotten.
    pub(crate) fn end_sleep(&mut self, runner: Runner) {
        *self.waits_of(runner) = None;
        if let Runner::Thread(thread) = runner {
            let state = &mut self.threads[thread];
            state.seen = state.seen_before_wait.unwrap_or(state.seen);
            state.slept = true;
        }
    }

    pub(crate) fn waits_of(&mut self, runner: Runner) -> &mut Option<(ObjectId, bool)> {
        match runner {
            Runner::Alone => &mut self.alone_waits,
            Runner::Thread(thread) => &mut self.threads[thread].waits,
        }
    }

    pub(crate) fn wake(&mut self, queue: ObjectId) {
        if let Some(recording) = &mut self.recording {
            recording.wakes.push(queue);
        }
        let threads = self.threads.iter_mut().map(|thread| &mut thread.waits);
        for (waits_on, woken) in threads.chain([&mut self.alone_waits]).flatten() {
            *woken |= *waits_on == queue;
        }
    }

    pub(crate) fn life_violation(&mut self, operation: &Operation) -> Option<Violation> {
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

    pub(crate) fn create(&mut self, runner: Runner, object: ObjectId, name: &'static str) {
        self.touch(object);
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

    /// The object is called `part` of `owner`.
    pub(crate) fn call(&mut self, object: ObjectId, owner: String, part: &'static str) {
        let kind = self.objects.get(&object).map_or("", |known| known.name);
        self.called.push(Called { numbered: object_name(kind, object), owner, part });
    }

    /// An object made before the execution is known from its first operation on.
    pub(crate) fn object(&mut self, object: ObjectId, name: &'static str) -> &mut Object {
        if !self.objects.contains_key(&object) {
            self.create(Runner::Alone, object, name);
        }
        self.objects.get_mut(&object).expect("made if it was not there")
    }

    /// The state of data that changed and says nothing of itself.
    pub(crate) fn change_of(&self, runner: Runner, object: ObjectId) -> Fingerprint {
        let before = self.objects.get(&object).map(|mutex| mutex.holds);
        let seen = match runner {
            Runner::Alone => Fingerprint::default(),
            Runner::Thread(thread) => self.threads[thread].seen,
        };
        Fingerprint::of(&(before, seen))
    }

    /// Takes a deadline back. Nobody can ask it any more, so it is forgotten; other objects are kept, as who
    /// has the last handle of one is no part of a state.
    pub(crate) fn disarm(&mut self, deadline: ObjectId) -> Option<Armed> {
        if let Some(gone) = self.objects.remove(&deadline) {
            self.shared = self.shared.without(gone.share(deadline));
        }
        self.take_armed(deadline)
    }

    pub(crate) fn take_armed(&mut self, deadline: ObjectId) -> Option<Armed> {
        let armed = self.armed.remove(&deadline)?;
        if let Some(recording) = &mut self.recording {
            recording.disarmed.push(ArmedAt { deadline, wakes: armed.wakes() });
        }
        Some(armed)
    }

    pub(crate) fn arm(&mut self, armed: Armed) {
        let at = ArmedAt { deadline: armed.object(), wakes: armed.wakes() };
        if let Some(recording) = &mut self.recording {
            recording.armed.push(at);
        }
        self.armed.insert(at.deadline, armed);
    }

    /// Notes how an object is before the step makes a difference to it, or learns from it.
    pub(crate) fn touch(&mut self, object: ObjectId) {
        if let Some(recording) = &mut self.recording
            && recording.touched.iter().all(|(other, _)| *other != object)
        {
            recording.touched.push((object, self.objects.get(&object).copied()));
        }
    }

    /// A lock given back in the step that took it, with its data unchanged, was a look at it.
    pub(crate) fn left_as_it_was(&mut self, object: ObjectId) {
        self.footprint.only_read(object);
    }

    pub(crate) fn set(&mut self, object: ObjectId, now: Fingerprint) {
        let Some(holder) = self.objects.get_mut(&object) else { return };
        let before = holder.share(object);
        holder.holds = now;
        self.shared = self.shared.without(before).with(holder.share(object));
    }

    pub(crate) fn see(&mut self, runner: Runner, what: &impl Hash) {
        if let Runner::Thread(thread) = runner
            && !self.abandoned
        {
            let seen = &mut self.threads[thread].seen;
            *seen = seen.then(what);
        }
    }

    pub(crate) fn tell(&mut self, runner: Runner, operation: &Operation, is_step: bool) {
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

    pub(crate) fn name(&self, operation: &Operation) -> String {
        let name = self.objects.get(&operation.object).map_or(operation.name, |known| known.name);
        object_name(name, operation.object)
    }
}

impl Thread {
    /// Brings it into the one form that equal threads have between steps.
    pub(crate) fn settle(&mut self) {
        let sleeps = self.pending.is_some_and(|pending| pending.kind == Kind::Sleep);
        if !self.may_sleep && !sleeps {
            self.waits = None;
        }
        // The next step begins with something seen, after which no lock is the last thing that was.
        self.around_lock = Default::default();
    }

    /// What it adds to the state.
    pub(crate) fn share(&self, index: usize, woken: bool) -> Fingerprint {
        let pending = self.pending.as_ref().map(Point::of);
        let waits = self.waits.map(|(queue, _)| (queue, woken));
        Fingerprint::of(&(index, pending, self.seen, waits))
    }

    /// All that its next step follows from, but for what objects hold.
    pub(crate) fn place(&self, index: usize) -> Fingerprint {
        let waits = self.waits.map(|(queue, _)| queue);
        let waiting = (waits, self.may_sleep, self.seen_before_wait, self.unseen, self.slept);
        let pending = self.pending.as_ref().map(Point::of);
        Fingerprint::of(&(index, pending, self.seen, waiting, self.next_object, self.unwinds))
    }

    /// Whether the thread's next step is one that a deadline makes a difference to.
    pub(crate) fn hears(&self, woken: bool, deadline: ObjectId, wakes: ObjectId) -> bool {
        self.pending.is_some_and(|operation| match operation.kind {
            Kind::WaitCheck => operation.object == wakes,
            Kind::Sleep => !woken && self.waits.is_some_and(|(queue, _)| queue == wakes),
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
    pub(crate) fn share(&self, object: ObjectId) -> Fingerprint {
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

/// Object numbers spread by a multiplication.
#[derive(Clone, Default)]
pub(crate) struct Numbers(u64);

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
