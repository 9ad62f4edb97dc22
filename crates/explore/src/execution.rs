//! One execution: a world, its threads as coroutines, and the moves made so far.
//!
//! An execution that is of no more interest is not torn down but brought to its end: its threads go on in any
//! order, so that every destructor runs where it was written to run and no lock stays held. Threads that can
//! never go on are leaked, with their share of the world: unwound, they could wait again, and an OS thread that has left
//! a panic halfway takes itself for panicking ever after.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mem::coroutine::{Coroutine, Progress, Stack};
use sync::hook::{self, Installed};

use crate::Settings;
use crate::fingerprint::Fingerprint;
use crate::footprint::Footprint;
use crate::model::{Model, Script};
use crate::moves::{Move, Point};
use crate::names::Names;
use crate::picture::Event;
use crate::runtime::Runtime;
use crate::violation::{Quiet, Violation, ViolationKind, catch};

/// Where executions of one model run: what is kept from one to the next.
pub(crate) struct Stage<M: Model> {
    model: Arc<M>,
    script: Arc<Script<M::Call>>,
    runtime: Rc<Runtime>,
    stacks: Vec<Stack>,
    stack_bytes: usize,
    _installed: Installed,
    _quiet: Quiet,
}

/// An execution under way.
pub(crate) struct Execution<M: Model> {
    world: Rc<M::World>,
    threads: Vec<Coroutine>,
    finished: usize,
    log: Rc<RefCell<Log<M::Outcome>>>,
}

/// What the threads report.
struct Log<O> {
    outcomes: Vec<Answer<O>>,
    violation: Option<Violation>,
}

/// What one call answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Answer<O> {
    pub(crate) thread: usize,
    pub(crate) call: usize,
    pub(crate) outcome: O,
}

/// Where an execution stands.
pub(crate) enum Status {
    /// These moves can be made.
    Open(Vec<Move>),
    /// Every thread has ended.
    Ended,
    /// Something is wrong.
    Violated(Violation),
}

impl<M: Model> Stage<M> {
    /// A stage on this OS thread.
    ///
    /// # Panics
    /// If this OS thread has a hook already.
    pub(crate) fn new(model: &Arc<M>, script: &Arc<Script<M::Call>>, settings: &Settings) -> Self {
        let runtime = Rc::new(Runtime::new(settings));
        Self {
            model: Arc::clone(model),
            script: Arc::clone(script),
            _installed: hook::install(Rc::clone(&runtime) as Rc<dyn hook::Hook>),
            runtime,
            stacks: Vec::new(),
            stack_bytes: settings.stack_bytes,
            _quiet: Quiet::begin(),
        }
    }

    /// Sets a world up and brings every thread to its first step. `tell` keeps a tale of what happens.
    ///
    /// # Errors
    /// The violation, if set-up panicked.
    pub(crate) fn begin(&mut self, tell: bool) -> Result<Execution<M>, Violation> {
        let count = self.script.threads.len();
        self.runtime.reset(count, tell);
        let world = Rc::new(catch(|| self.model.setup())?);
        let log = Rc::new(RefCell::new(Log { outcomes: Vec::new(), violation: None }));
        let mut execution = Execution { world, threads: Vec::new(), finished: 0, log };
        for thread in 0..count {
            let body = self.body(thread, &execution);
            let stack = self.stacks.pop().unwrap_or_else(|| {
                Stack::new(self.stack_bytes).expect("memory for the stack of a coroutine")
            });
            execution.threads.push(Coroutine::new(stack, body));
            self.resume(&mut execution, thread);
        }
        Ok(execution)
    }

    /// Makes a move that is possible.
    pub(crate) fn make(&self, execution: &mut Execution<M>, next: Move) {
        match next {
            Move::Thread(thread) => self.resume(execution, thread),
            Move::Fire(deadline) => self.runtime.fire(deadline),
        }
    }

    /// Where the execution stands.
    pub(crate) fn status(&self, execution: &Execution<M>) -> Status {
        if let Some(violation) = &execution.log.borrow().violation {
            return Status::Violated(violation.clone());
        }
        if execution.finished == execution.threads.len() {
            return Status::Ended;
        }
        let mut enabled = Vec::new();
        self.runtime.enabled(&mut enabled);
        if enabled.is_empty() {
            Status::Violated(self.runtime.deadlock())
        } else {
            Status::Open(enabled)
        }
    }

    /// What is known of the execution.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The operation with which a move begins.
    pub(crate) fn point(&self, next: Move) -> Option<Point> {
        self.runtime.point(next)
    }

    /// What the last move touched.
    pub(crate) fn footprint(&self) -> Footprint {
        self.runtime.footprint()
    }

    /// The state.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.runtime.fingerprint()
    }

    /// What all objects hold.
    pub(crate) fn shared(&self) -> Fingerprint {
        self.runtime.shared()
    }

    /// The model's check, once every thread has ended.
    pub(crate) fn check(&self, execution: &Execution<M>) -> Option<Violation> {
        let checked = catch(|| self.model.check(&execution.world));
        checked.err().map(|mut violation| {
            if violation.kind == ViolationKind::Panic {
                violation.kind = ViolationKind::Check;
            }
            violation
        })
    }

    /// Ends the execution and returns what its calls answered, in the order in which they did.
    pub(crate) fn end(&mut self, mut execution: Execution<M>) -> Vec<Answer<M::Outcome>> {
        let outcomes = std::mem::take(&mut execution.log.borrow_mut().outcomes);
        self.runtime.abandon();
        self.run_out(&mut execution);
        for thread in execution.threads.drain(..) {
            // The others can never go on and are leaked, with their share of the world.
            self.stacks.extend(thread.into_stack());
        }
        // A destructor's panic has been told as a violation or happens to a world that has one.
        drop(catch(|| drop(execution)));
        outcomes
    }

    /// What happened, if it was to be told.
    pub(crate) fn take_tale(&self) -> Vec<Event> {
        self.runtime.take_tale()
    }

    /// What the world says that owners of its objects are.
    pub(crate) fn roles(&self, execution: &Execution<M>) -> Vec<(String, String)> {
        self.model.roles(&execution.world)
    }

    /// What objects are called, if a tale was to be told: `tale`.
    pub(crate) fn take_names(&self, roles: &[(String, String)], tale: &[Event]) -> Names {
        Names::of(self.runtime.take_called(), roles, tale)
    }

    fn run_out(&self, execution: &mut Execution<M>) {
        let mut enabled = Vec::new();
        for _ in 0..RUN_OUT_STEPS {
            if execution.finished == execution.threads.len() {
                return;
            }
            enabled.clear();
            self.runtime.enabled(&mut enabled);
            match enabled.first() {
                Some(next) => self.make(execution, *next),
                None => return,
            }
        }
    }

    fn resume(&self, execution: &mut Execution<M>, thread: usize) {
        let coroutine = &mut execution.threads[thread];
        if self.runtime.as_thread(thread, || coroutine.resume()) == Progress::Finished {
            execution.finished += 1;
        }
    }

    /// The calls of a thread, one after the other.
    fn body(&self, thread: usize, execution: &Execution<M>) -> impl FnOnce() + 'static {
        let (model, script) = (Arc::clone(&self.model), Arc::clone(&self.script));
        let (runtime, world) = (Rc::clone(&self.runtime), Rc::clone(&execution.world));
        let log = Rc::clone(&execution.log);
        move || {
            let calls = &script.threads[thread];
            for (index, call) in calls.iter().enumerate() {
                runtime.begin_call(thread, index);
                runtime.tell_call(thread, || format!("--> {call}"));
                match catch(|| model.call(&world, call)) {
                    Ok(outcome) => {
                        runtime.tell_call(thread, || format!("<-- {call} = {outcome}"));
                        log.borrow_mut().outcomes.push(Answer { thread, call: index, outcome });
                    }
                    Err(violation) => {
                        log.borrow_mut().violation.get_or_insert(violation);
                        return;
                    }
                }
            }
            runtime.begin_call(thread, calls.len());
        }
    }
}

impl<M: Model> Execution<M> {
    /// What is wrong, if a call of a thread found something.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.log.borrow().violation.clone()
    }
}

/// An abandoned execution that takes longer has no end.
const RUN_OUT_STEPS: usize = 100_000;
