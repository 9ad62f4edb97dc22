//! The hook as shuttle has it: each operation is one of its scheduling points, and whoever may not go on is blocked for
//! its scheduler until that may have changed. A thread of its own fires deadlines.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use explore::Model;
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner, thread};
use shuttle_engine::runtime::execution::ExecutionState;
use shuttle_engine::runtime::task::TaskId;
use shuttle_engine::runtime::thread::switch;
use sync::Armed;
use sync::hook::{self, Hook, Kind, ObjectId, Operation};

use crate::What;
use crate::objects::{ALONE, Objects, Thread};

/// Every choice of shuttle's scheduler.
pub(crate) fn depth_first(what: What) {
    run(what, DfsScheduler::new(None, false));
}

/// Any choice each time.
pub(crate) fn random(what: What) {
    run(what, RandomScheduler::new_from_seed(1, usize::MAX));
}

/// Priorities, changed at two places of an execution.
pub(crate) fn pct(what: What) {
    run(what, PctScheduler::new_from_seed(1, 3, usize::MAX));
}

fn run(what: What, scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.stack_size = 1 << 18;
    let _installed = hook::install(Rc::new(Ask));
    Runner::new(scheduler, config).run(move || execute(&what));
}

fn execute(what: &What) {
    STATE.with(State::reset);
    let world = Arc::new(what.setup());
    STATE.with(|state| state.current.set(CLOCK));
    let clock = what.clock_runs.then(|| thread::spawn(keep_time));
    let spawn = |number: Thread| {
        let (what, world) = (what.clone(), Arc::clone(&world));
        thread::spawn(move || {
            STATE.with(|state| state.current.set(number));
            what.run(&world, number);
        })
    };
    let threads: Vec<_> = (0..what.script.threads.len()).map(spawn).collect();
    for thread in threads {
        thread.join().expect("a panic ends the process");
    }
    STATE.with(|state| state.over.set(true));
    wake_clock();
    if let Some(clock) = clock {
        clock.join().expect("a panic ends the process");
    }
    STATE.with(|state| state.current.set(ALONE));
    what.model.check(&world);
}

/// Fires what is armed, whenever the scheduler lets it.
fn keep_time() {
    loop {
        let is_idle = STATE.with(|state| {
            let is_idle = state.objects.borrow().armed.is_empty() && !state.over.get();
            state.clock.set(is_idle.then(shuttle::current::me));
            is_idle
        });
        if is_idle {
            block();
        } else if STATE.with(|state| state.over.get()) {
            return;
        } else {
            switch();
        }
        STATE.with(|state| state.current.set(CLOCK));
        if !is_idle {
            let next = STATE.with(|state| state.objects.borrow_mut().next_deadline());
            if let Some(armed) = next {
                armed.fire();
            }
        }
    }
}

fn block() {
    ExecutionState::with(|state| state.current_mut().block(false));
    switch();
}

fn wake_clock() {
    if let Some(clock) = STATE.with(|state| state.clock.take()) {
        ExecutionState::with(|state| state.get_mut(clock).unblock());
    }
}

struct Ask;

impl Hook for Ask {
    fn before(&self, operation: Operation) {
        STATE.with(|state| {
            let me = state.current.get();
            if me == ALONE {
                state.wait_alone(&operation);
            } else if operation.is_scheduling_point() {
                switch();
                while !state.objects.borrow().can(me, &operation) {
                    let task = shuttle::current::me();
                    state.waiting.borrow_mut().entry(operation.object).or_default().push(task);
                    block();
                }
                state.current.set(me);
            }
            let disarmed = state.objects.borrow_mut().take_effect(me, &operation);
            drop(disarmed);
            if matches!(operation.kind, Kind::Release | Kind::Wake) {
                state.let_go_on(operation.object);
            }
        });
    }

    fn armed(&self, deadline: Armed) {
        STATE.with(|state| state.objects.borrow_mut().armed.insert(deadline.object(), deadline));
        wake_clock();
    }
}

const CLOCK: Thread = ALONE - 1;

/// What is known of the execution that this OS thread runs.
struct State {
    current: Cell<Thread>,
    objects: RefCell<Objects>,
    waiting: RefCell<BTreeMap<ObjectId, Vec<TaskId>>>,
    /// The thread that fires deadlines, while it has none.
    clock: Cell<Option<TaskId>>,
    over: Cell<bool>,
}

impl State {
    fn reset(&self) {
        self.current.set(ALONE);
        drop(self.objects.take());
        drop(self.waiting.take());
        self.clock.set(None);
        self.over.set(false);
    }

    fn wait_alone(&self, operation: &Operation) {
        while !self.objects.borrow().can(ALONE, operation) {
            let next = self.objects.borrow_mut().next_deadline();
            next.expect("a wait that nobody ends").fire();
        }
    }

    /// Whoever waits for the object looks again.
    fn let_go_on(&self, object: ObjectId) {
        for task in self.waiting.borrow_mut().remove(&object).unwrap_or_default() {
            ExecutionState::with(|state| state.get_mut(task).unblock());
        }
    }
}

thread_local! {
    static STATE: State = const {
        State {
            current: Cell::new(ALONE),
            objects: RefCell::new(Objects::NONE),
            waiting: RefCell::new(BTreeMap::new()),
            clock: Cell::new(None),
            over: Cell::new(false),
        }
    };
}
