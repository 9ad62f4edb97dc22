//! What is explored: a world, threads that make calls on it, and what must hold at the end.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A world in which threads make calls.
///
/// Each execution makes a new world. All that threads share, and all that one of their calls leaves for
/// the next, must be behind the primitives of [`sync`]: what the explorer does not see it takes to be
/// equal. A panic in any of the methods is a violation.
pub trait Model: Send + Sync + 'static {
    /// What the threads share. Each execution has its own.
    type World: 'static;
    /// What a thread may be told to do. Its `Display` names it in schedules and must tell it apart.
    type Call: Clone + fmt::Display + Send + Sync + 'static;
    /// What a call answers.
    type Outcome: Clone + Ord + fmt::Display + Send + 'static;

    /// Makes the world. Must do the same each time.
    fn setup(&self) -> Self::World;

    /// Makes a call, on one of the threads.
    fn call(&self, world: &Self::World, call: &Self::Call) -> Self::Outcome;

    /// What owners of objects are to be called where people read of them, by the name that they gave themselves
    /// ([`sync::Named`]): `vdev0` for `vdevice5`. Asked once, after set-up.
    fn roles(&self, _world: &Self::World) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Looks at the world after all threads have ended, and ends it. Runs alone, and never waits; a
    /// deadline that it would wait for fires.
    fn check(&self, world: &Self::World);
}

/// Which thread makes which calls, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script<C> {
    /// The calls of each thread.
    pub threads: Vec<Vec<C>>,
}

impl<C> Script<C> {
    /// A script of these threads.
    pub fn new(threads: impl IntoIterator<Item = Vec<C>>) -> Self {
        Self { threads: threads.into_iter().collect() }
    }

    /// The number of calls.
    pub fn calls(&self) -> usize {
        self.threads.iter().map(Vec::len).sum()
    }
}

impl<C: fmt::Display> fmt::Display for Script<C> {
    /// Calls of a thread are separated by `; `, threads by ` | `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (thread, calls) in self.threads.iter().enumerate() {
            f.write_str(if thread == 0 { "" } else { " | " })?;
            for (index, call) in calls.iter().enumerate() {
                write!(f, "{}{call}", if index == 0 { "" } else { "; " })?;
            }
        }
        Ok(())
    }
}

/// A model made of closures, for tests: each call is a named function on the world.
pub struct Program<W> {
    setup: fn() -> W,
    check: fn(&W),
    world: PhantomData<fn() -> W>,
}

/// A named function on a world.
pub struct Act<W> {
    name: &'static str,
    run: fn(&W),
}

impl<W: 'static> Program<W> {
    /// A program that begins with `setup` and must satisfy `check` when all threads have ended.
    pub fn new(setup: fn() -> W, check: fn(&W)) -> Arc<Self> {
        Arc::new(Self { setup, check, world: PhantomData })
    }
}

impl<W> Act<W> {
    /// A call of `run`, called `name`.
    pub const fn new(name: &'static str, run: fn(&W)) -> Self {
        Self { name, run }
    }

    /// What it is called.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<W> Clone for Act<W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Act<W> {}

impl<W> fmt::Display for Act<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<W: 'static> Model for Program<W> {
    type World = W;
    type Call = Act<W>;
    type Outcome = Done;

    fn setup(&self) -> W {
        (self.setup)()
    }

    fn call(&self, world: &W, call: &Act<W>) -> Done {
        (call.run)(world);
        Done
    }

    fn check(&self, world: &W) {
        (self.check)(world);
    }
}

/// The only outcome of a [`Program`]'s calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Done;

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("done")
    }
}
