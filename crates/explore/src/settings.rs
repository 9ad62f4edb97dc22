//! How an exploration is done, and when it gives up.

use std::time::Duration;

/// How an exploration is done.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First, all interleavings with at most so many preemptions, each in turn: most of what is wrong shows
    /// there, and the counterexample has the fewest.
    pub preemptions: Vec<u32>,
    /// Then all interleavings.
    pub all: bool,
    /// How executions are saved when all interleavings are explored.
    pub reduction: Reduction,
    /// What is run for each path.
    pub replay: Replay,
    /// Where threads may be interrupted.
    pub steps: Steps,
    /// Whether deadlines fire. If none does, whoever needs one to go on waits for ever.
    pub deadlines: bool,
    /// OS threads that explore.
    pub workers: usize,
    /// When to give up.
    pub budget: Budget,
    /// An execution of more steps has no end.
    pub steps_max: usize,
    /// So many violations are collected before the best is told.
    pub violations_max: usize,
    /// Whether calls and threads are dropped from a counterexample while it stays one.
    pub shrink: bool,
    /// The stack of an explored thread.
    pub stack_bytes: usize,
}

/// How executions that show nothing new are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// They are not: every interleaving is run.
    None,
    /// Sleep sets: of two orders of steps that commute, one is run.
    Sleep,
    /// State caching: a state is left only once.
    States,
    /// Both.
    StatesAndSleep,
    /// Source sets and sleep sets: every order of steps that do not commute, once. Runs on one worker. Shares
    /// nothing with state caching, and so checks it.
    Dpor,
}

/// What is run for each path that is explored. [`Reduction::Dpor`] runs every path whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The steps that are not known: a thread that stands where it stood once, with all that its step touches as
    /// it was, does what it did. That is what makes states the same, too.
    Unknown,
    /// All of it, from the set-up on. Checks the other.
    Full,
}

/// Where threads may be interrupted, and when deadlines fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Only where it can make a difference: a step is some locks taken, one operation that others could notice,
    /// and some locks given back. Deadlines fire when somebody is about to notice.
    Reduced,
    /// Before each operation, and deadlines fire at any time. Checks the other.
    Every,
}

/// When an exploration gives up.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// After this time.
    pub time: Duration,
    /// When the states take up so much, in bytes.
    pub memory_bytes: usize,
    /// After so many paths, those cut short included.
    pub paths: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            preemptions: vec![0, 1, 2],
            all: true,
            reduction: Reduction::StatesAndSleep,
            replay: Replay::Unknown,
            steps: Steps::Reduced,
            deadlines: true,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            budget: Budget::default(),
            steps_max: 20_000,
            violations_max: 64,
            shrink: true,
            stack_bytes: 256 << 10,
        }
    }
}

impl Default for Budget {
    /// Ten minutes and a gibibyte.
    fn default() -> Self {
        Self { time: Duration::from_secs(600), memory_bytes: 1 << 30, paths: u64::MAX }
    }
}

impl Reduction {
    pub(crate) const fn caches(self) -> bool {
        matches!(self, Self::States | Self::StatesAndSleep)
    }

    pub(crate) const fn sleeps(self) -> bool {
        matches!(self, Self::Sleep | Self::StatesAndSleep | Self::Dpor)
    }
}
