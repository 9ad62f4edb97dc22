//! The hook as loom has it: each object has one of its mutexes, which every operation on the object takes, so that its
//! reduction knows what does not commute; who must sleep does so on a condition variable beside it. A thread of its own
//! fires deadlines, which leaves three for a scenario.
//!
//! loom gives threads small stacks, its first one too, so set-up and check run on a stack of their own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use explore::Model;
use loom::sync::{Condvar, Mutex, MutexGuard};
use loom::thread::{Builder, JoinHandle};
use mem::coroutine::{Coroutine, Stack};
use sync::Armed;
use sync::hook::{self, Hook, Kind, ObjectId, Operation};

use crate::What;
use crate::objects::{ALONE, Objects, Thread};

/// Every order of operations that do not commute, as loom tells them apart.
pub(crate) fn explore(what: What) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = BRANCHES_MAX;
    let _installed = hook::install(Rc::new(Ask));
    builder.check(move || execute(&what));
}

fn execute(what: &What) {
    STATE.with(State::reset);
    let made = Rc::new(RefCell::new(None));
    let (own, into) = (what.clone(), Rc::clone(&made));
    aside(move || *into.borrow_mut() = Some(Arc::new(own.setup())));
    let world = made.take().expect("set-up has run");
    STATE.with(|state| state.current.set(CLOCK));
    let clock = what.clock_runs.then(|| spawn(CLOCK, keep_time));
    let threads = (0..what.script.threads.len()).map(|number| {
        let (what, world) = (what.clone(), Arc::clone(&world));
        spawn(number, move || what.run(&world, number))
    });
    let threads: Vec<_> = threads.collect();
    for thread in threads {
        thread.join().expect("a panic ends the process");
    }
    STATE.with(|state| state.over.set(true));
    if let Some(clock) = clock {
        wake_clock();
        clock.join().expect("a panic ends the process");
    }
    STATE.with(|state| state.current.set(ALONE));
    let own = what.clone();
    aside(move || own.model.check(&world));
}

fn spawn(number: Thread, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let body = move || {
        STATE.with(|state| state.current.set(number));
        body();
    };
    Builder::new().stack_size(STACK_WORDS).spawn(body).expect("memory for a stack")
}

/// Runs what asks loom for nothing on a stack that is large enough.
fn aside(body: impl FnOnce() + 'static) {
    let kept = STATE.with(|state| state.stack.take());
    let stack = kept.unwrap_or_else(|| Stack::new(STACK_BYTES).expect("memory for a stack"));
    let mut coroutine = Coroutine::new(stack, body);
    coroutine.resume();
    STATE.with(|state| state.stack.set(coroutine.into_stack()));
}

/// Fires what is armed, whenever loom lets it.
fn keep_time() {
    let slot = STATE.with(|state| state.slot(None));
    loop {
        let mut guard = slot.lock();
        while STATE.with(State::is_idle) {
            guard = slot.changed.wait(guard).expect("a panic ends the process");
        }
        drop(guard);
        if STATE.with(|state| state.over.get()) {
            return;
        }
        STATE.with(|state| state.current.set(CLOCK));
        let next = STATE.with(|state| state.objects.borrow_mut().next_deadline());
        if let Some(armed) = next {
            armed.fire();
        }
    }
}

fn wake_clock() {
    let slot = STATE.with(|state| state.slot(None));
    let guard = slot.lock();
    slot.changed.notify_all();
    drop(guard);
}

struct Ask;

impl Hook for Ask {
    fn before(&self, operation: Operation) {
        STATE.with(|state| {
            let me = state.current.get();
            if me == ALONE {
                state.wait_alone(&operation);
            } else {
                state.wait_turn(me, &operation);
                state.current.set(me);
            }
            let disarmed = state.objects.borrow_mut().take_effect(me, &operation);
            drop(disarmed);
        });
    }

    fn armed(&self, deadline: Armed) {
        STATE.with(|state| {
            let me = state.current.get();
            state.objects.borrow_mut().armed.insert(deadline.object(), deadline);
            if me != ALONE {
                wake_clock();
                state.current.set(me);
            }
        });
    }
}

const CLOCK: Thread = ALONE - 1;
/// loom counts a stack in words.
const STACK_WORDS: usize = 1 << 15;
const STACK_BYTES: usize = 1 << 18;
/// Choices in one execution at most.
const BRANCHES_MAX: usize = 20_000;

/// What loom knows of an object. Lives as long as the process: some dozens an execution.
struct Slot {
    mutex: Mutex<()>,
    changed: Condvar,
}

impl Slot {
    fn lock(&'static self) -> MutexGuard<'static, ()> {
        self.mutex.lock().expect("a panic ends the process")
    }
}

/// What is known of the execution that this OS thread runs.
struct State {
    current: Cell<Thread>,
    objects: RefCell<Objects>,
    /// By object; the clock's is that of none.
    slots: RefCell<BTreeMap<Option<ObjectId>, &'static Slot>>,
    held: RefCell<BTreeMap<ObjectId, MutexGuard<'static, ()>>>,
    over: Cell<bool>,
    stack: Cell<Option<Stack>>,
}

impl State {
    fn reset(&self) {
        self.current.set(ALONE);
        drop(self.objects.take());
        drop(self.slots.take());
        drop(self.held.take());
        self.over.set(false);
    }

    fn is_idle(&self) -> bool {
        self.objects.borrow().armed.is_empty() && !self.over.get()
    }

    fn slot(&self, object: Option<ObjectId>) -> &'static Slot {
        let known = self.slots.borrow().get(&object).copied();
        known.unwrap_or_else(|| {
            let slot: &'static Slot =
                Box::leak(Box::new(Slot { mutex: Mutex::new(()), changed: Condvar::new() }));
            self.slots.borrow_mut().insert(object, slot);
            slot
        })
    }

    fn wait_alone(&self, operation: &Operation) {
        while !self.objects.borrow().can(ALONE, operation) {
            let next = self.objects.borrow_mut().next_deadline();
            next.expect("a wait that nobody ends").fire();
        }
    }

    /// Returns when the operation may take effect; nobody else runs between that and its effect.
    fn wait_turn(&self, me: Thread, operation: &Operation) {
        let object = operation.object;
        if operation.kind == Kind::Release {
            let guard = self.held.borrow_mut().remove(&object);
            drop(guard);
            return;
        }
        let slot = self.slot(Some(object));
        let mut guard = slot.lock();
        if operation.kind == Kind::Acquire {
            self.held.borrow_mut().insert(object, guard);
            return;
        }
        if operation.kind == Kind::Wake {
            slot.changed.notify_all();
        }
        while !self.objects.borrow().can(me, operation) {
            guard = slot.changed.wait(guard).expect("a panic ends the process");
        }
    }
}

thread_local! {
    static STATE: State = const {
        State {
            current: Cell::new(ALONE),
            objects: RefCell::new(Objects::NONE),
            slots: RefCell::new(BTreeMap::new()),
            held: RefCell::new(BTreeMap::new()),
            over: Cell::new(false),
            stack: Cell::new(None),
        }
    };
}
