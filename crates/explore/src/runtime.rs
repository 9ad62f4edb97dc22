//! The explorer's side of [`sync::hook`]: suspends a coroutine before each step, and keeps the picture of the
//! shared state from which follows who may run and which states are the same.
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
use std::thread;

use mem::coroutine;
use sync::Armed;
use sync::hook::{self, Hook, Kind, Now, ObjectId, Operation};

use crate::effect::Recording;
use crate::fingerprint::{Fingerprint, Lanes};
use crate::footprint::{Access, Footprint};
use crate::moves::{Move, Point};
use crate::names::Called;
use crate::picture::{Event, Picture, Runner, Thread};
use crate::violation::{Violation, ViolationKind, raise};
use crate::{Settings, Steps};

/// What is known of the world of one OS thread.
pub(crate) struct Runtime {
    running: Cell<Runner>,
    steps: Steps,
    deadlines: bool,
    picture: RefCell<Picture>,
}

impl Runtime {
    pub(crate) fn new(settings: &Settings) -> Self {
        let Settings { steps, deadlines, .. } = *settings;
        Self { running: Cell::new(Runner::Alone), steps, deadlines, picture: RefCell::default() }
    }

    /// Which deadlines may fire; `None` for none.
    pub(crate) fn clock(&self) -> Option<Steps> {
        self.deadlines.then_some(self.steps)
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
        (state.waits, state.may_sleep, state.seen_before_wait) = (None, false, None);
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
            (state.pending, state.unwinds) = (None, false);
            state.next_object
        };
        let alone = hook::number_objects_from(next);
        self.running.set(Runner::Thread(thread));
        let result = step();
        self.running.set(Runner::Alone);
        let next = hook::number_objects_from(alone);
        let state = &mut self.picture.borrow_mut().threads[thread];
        state.next_object = next;
        state.settle();
        result
    }

    /// Fires the deadline.
    pub(crate) fn fire(&self, deadline: ObjectId) {
        let armed = {
            let mut picture = self.picture.borrow_mut();
            picture.footprint.clear();
            picture.take_armed(deadline)
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
        if !self.deadlines && !picture.abandoned {
            return;
        }
        let heard = picture.armed.iter().filter(|(deadline, armed)| {
            let mut threads = picture.threads.iter();
            self.steps == Steps::Every
                || threads.any(|thread| {
                    let woken = thread.waits.is_some_and(|(_, woken)| woken);
                    thread.hears(woken, **deadline, armed.wakes())
                })
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

    /// What is known of the execution.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Picture) -> T) -> T {
        look(&self.picture.borrow())
    }

    /// Notes from now on what steps do.
    pub(crate) fn record(&self) {
        self.picture.borrow_mut().recording = Some(Recording::default());
    }

    /// What was noted.
    pub(crate) fn take_recording(&self) -> Recording {
        self.picture.borrow_mut().recording.take().unwrap_or_default()
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
            let woken = thread.waits.is_some_and(|(_, woken)| woken);
            state.with(thread.share(index, woken))
        })
    }

    /// From now on nobody asks for states.
    pub(crate) fn abandon(&self) {
        self.picture.borrow_mut().abandoned = true;
    }

    /// What has happened, if it was to be told.
    pub(crate) fn take_tale(&self) -> Vec<Event> {
        self.picture.borrow_mut().tale.take().unwrap_or_default()
    }

    /// What objects were called, if a tale was to be told.
    pub(crate) fn take_called(&self) -> Vec<Called> {
        std::mem::take(&mut self.picture.borrow_mut().called)
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
                    state.unwinds = thread::panicking();
                }
                coroutine::suspend();
                self.picture.borrow_mut().begin_step(thread, &operation);
            }
            Runner::Thread(_) => {}
            Runner::Alone => self.wait_alone(&operation),
        }
        let (disarmed, violation) = {
            let mut picture = self.picture.borrow_mut();
            picture.take_effect(runner, &operation);
            let disarms = operation.kind == Kind::Disarm;
            let disarmed = disarms.then(|| picture.disarm(operation.object)).flatten();
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

    fn named(&self, object: ObjectId, owner: &dyn Fn() -> String, part: &'static str) {
        if self.picture.borrow().tale.is_some() {
            let owner = owner();
            self.picture.borrow_mut().call(object, owner, part);
        }
    }

    fn saw(&self, object: ObjectId, value: u64) {
        let mut picture = self.picture.borrow_mut();
        if picture.abandoned {
            return;
        }
        picture.touch(object);
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
        picture.touch(object);
        let now = match now {
            Now::Number(number) => {
                picture.footprint.note_other(object, Access::Write);
                Fingerprint::of(&number)
            }
            Now::Contents(write) => {
                let mut lanes = Lanes::default();
                if write(&mut lanes) {
                    lanes.fingerprint()
                } else {
                    picture.change_of(runner, object)
                }
            }
            Now::Changed => picture.change_of(runner, object),
            Now::Unchanged => return picture.left_as_it_was(object),
        };
        picture.set(object, now);
    }

    fn armed(&self, deadline: Armed) {
        self.picture.borrow_mut().arm(deadline);
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
