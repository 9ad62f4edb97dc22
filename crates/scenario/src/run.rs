//! Explores a scenario: the shipped crates, or a design, under all interleavings of its threads.
//!
//! A first search takes all interleavings. Where that is more than the time allows, a second says up to how many
//! preemptions nothing is wrong. What a call answered that its scenario does not expect is looked for in a third,
//! so that it too is told with the order that leads to it.
//!
//! Takes no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use explore::{
    Budget, Counts, Event, Model, Names, Nondeterminism, Progress, Schedule, Script, ViolationKind,
};

use crate::file::Scenario;
use crate::models::{Drawn, Planned, Shipped};
use crate::script::{Outcome, Step, Threads};

/// When to give up, and with how many workers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time for one scenario.
    pub time: Duration,
    /// OS threads that explore.
    pub workers: usize,
}

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Report {
    /// What is so.
    pub finding: Finding,
    /// What the search took that it rests on.
    pub counts: Counts,
    /// What each call answered in some interleaving, by thread and call.
    pub outcomes: BTreeMap<(usize, usize), BTreeSet<Outcome>>,
    /// How long all searches took.
    pub elapsed: Duration,
}

/// What is so.
#[derive(Clone, Debug)]
pub enum Finding {
    /// Nothing is wrong in any interleaving.
    Safe,
    /// Nothing is wrong with so many preemptions at most, if that much is known.
    SafeUpTo {
        /// So many.
        preemptions: Option<u32>,
        /// More was asked for, and the time was over.
        budget_reached: bool,
    },
    /// Something is wrong.
    Broken(Box<Broken>),
}

/// Something that is wrong, and the order of steps that leads to it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What is left of the threads after shrinking.
    pub threads: Threads,
    /// What sort of thing.
    pub kind: ViolationKind,
    /// What it is.
    pub message: String,
    /// How often a thread was interrupted that could have gone on.
    pub preemptions: u32,
    /// The order.
    pub schedule: Schedule,
    /// What happens in that order.
    pub tale: Vec<Event>,
}

/// Why a scenario was not explored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A call of the set-up does not answer as it must for the threads to begin.
    #[error("the set-up is impossible: {call} answers {outcome}")]
    Setup {
        /// Which call, from 0.
        index: usize,
        /// The call.
        call: String,
        /// What it answers.
        outcome: Outcome,
    },
    /// The explored code is not deterministic.
    #[error(transparent)]
    Nondeterminism(#[from] Nondeterminism),
    /// The code is not what it was when the order was kept.
    #[error("the program has changed since: {0}")]
    Diverged(#[from] explore::Diverged),
}

/// Explores `scenario`. `progress` is called a few times a second.
///
/// # Errors
/// [`Failure`].
pub fn run(
    scenario: &Scenario,
    limits: &Limits,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report, Failure> {
    let script = script(&scenario.threads);
    match &scenario.design {
        Some(design) => {
            let search = |strict| Arc::new(Drawn::new(design, strict));
            Search { scenario, limits, script, progress }.run(search, |_| None)
        }
        None => {
            let search = |strict| Arc::new(Shipped::new(scenario, strict));
            Search { scenario, limits, script, progress }.run(search, Shipped::impossible)
        }
    }
}

/// Runs a scenario once, in a kept order.
///
/// # Errors
/// [`Failure`].
pub fn replay(scenario: &Scenario, schedule: &Schedule) -> Result<Broken, Failure> {
    let script = script(&scenario.threads);
    let settings =
        explore::Settings { deadlines: scenario.clock_runs(), ..explore::Settings::default() };
    let replayed = match &scenario.design {
        Some(design) => schedule.replay(&Arc::new(Drawn::new(design, true)), &script, &settings),
        None => schedule.replay(&Arc::new(Shipped::new(scenario, true)), &script, &settings),
    }?;
    let violation = replayed.violation;
    let broken = Broken {
        threads: scenario.threads.clone(),
        kind: violation.as_ref().map_or(ViolationKind::Check, |violation| violation.kind),
        message: violation.map_or_else(|| "nothing is wrong any more".to_owned(), |it| it.message),
        preemptions: 0,
        schedule: schedule.clone(),
        tale: replayed.tale,
    };
    Ok(broken.named(&replayed.names))
}

impl Broken {
    /// With its objects called by what they are. The order keeps their numbers.
    fn named(mut self, names: &Names) -> Self {
        self.message = names.apply(&self.message);
        for event in &mut self.tale {
            event.what = names.apply(&event.what);
        }
        self
    }
}

impl Report {
    /// What is not as the scenario expects it, in a sentence each.
    pub fn surprises(&self, scenario: &Scenario) -> Vec<String> {
        let mut surprises = Vec::new();
        if !self.finding.is(scenario) {
            surprises.push(format!("expected {}", scenario.expect));
        }
        if let (Finding::Broken(broken), Some(says)) = (&self.finding, &scenario.says)
            && !broken.message.contains(says)
        {
            surprises.push(format!("expected it to say {says:?}"));
        }
        surprises
    }

    /// Outcomes that the scenario allows and that no interleaving had, by thread and call.
    pub fn unseen(&self, scenario: &Scenario) -> Vec<(usize, usize, Outcome)> {
        let mut unseen = Vec::new();
        for (thread, steps) in scenario.threads.iter().enumerate() {
            for (index, step) in steps.iter().enumerate() {
                let seen = self.outcomes.get(&(thread, index));
                let allowed = step.expected.iter().flatten();
                let never = allowed.filter(|it| !seen.is_some_and(|seen| seen.contains(it)));
                unseen.extend(never.map(|outcome| (thread, index, *outcome)));
            }
        }
        unseen
    }
}

impl Finding {
    /// Whether it is what the scenario expects.
    fn is(&self, scenario: &Scenario) -> bool {
        use crate::Verdict::{Counterexample, Deadlock, Safe};
        match self {
            Self::Safe | Self::SafeUpTo { budget_reached: false, .. } => scenario.expect == Safe,
            // Told by the exit status, and no surprise.
            Self::SafeUpTo { budget_reached: true, .. } => true,
            Self::Broken(broken) if broken.kind == ViolationKind::Deadlock => {
                scenario.expect == Deadlock
            }
            Self::Broken(_) => scenario.expect == Counterexample,
        }
    }

    /// Whether more was asked for than the time allowed.
    pub const fn is_cut_short(&self) -> bool {
        matches!(self, Self::SafeUpTo { budget_reached: true, .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safe => f.write_str("SAFE (all interleavings)"),
            Self::SafeUpTo { preemptions: None, .. } => f.write_str("UNKNOWN (budget reached)"),
            Self::SafeUpTo { preemptions: Some(bound), budget_reached } => {
                let reached = if *budget_reached { "; budget reached" } else { "" };
                write!(f, "SAFE (up to {bound} preemptions{reached})")
            }
            Self::Broken(broken) if broken.kind == ViolationKind::Deadlock => {
                f.write_str("COUNTEREXAMPLE (deadlock)")
            }
            Self::Broken(broken) => write!(f, "COUNTEREXAMPLE ({})", broken.kind),
        }
    }
}

/// The script of threads.
pub fn script(threads: &Threads) -> Script<Planned> {
    let planned = |steps: &Vec<Step>| {
        let planned = |step: &Step| Planned { call: step.call, expected: step.expected.clone() };
        steps.iter().map(planned).collect()
    };
    Script::new(threads.iter().map(planned).collect::<Vec<_>>())
}

struct Search<'a> {
    scenario: &'a Scenario,
    limits: &'a Limits,
    script: Script<Planned>,
    progress: &'a mut dyn FnMut(&Progress),
}

type Explored = explore::Report<Planned, Outcome>;

impl Search<'_> {
    /// `model` makes what is explored: if asked so, with a panic where a call answers what is not expected.
    /// `impossible` says whether its set-up failed.
    fn run<M>(
        mut self,
        model: impl Fn(bool) -> Arc<M>,
        impossible: impl Fn(&M) -> Option<Failure>,
    ) -> Result<Report, Failure>
    where
        M: Model<Call = Planned, Outcome = Outcome>,
    {
        let lenient = model(false);
        let mut explored = self.first(&lenient)?;
        if let Some(failure) = impossible(&lenient) {
            return Err(failure);
        }
        let mut from = lenient;
        if !is_broken(&explored) && self.is_surprised(&explored) {
            from = model(true);
            let lenient = explored;
            explored = self.bounded(&from, BOUNDS, true, false)?;
            explored.elapsed += lenient.elapsed;
            // What stops this search is among what the first one saw.
            for (call, seen) in lenient.outcomes {
                explored.outcomes.entry(call).or_default().extend(seen);
            }
        } else if is_broken(&explored) && self.scenario.preemptions.is_none() {
            // The order that is easiest to follow has few preemptions, and the first search knows no order.
            let nearer = self.bounded(&from, BOUNDS, false, true)?;
            if is_broken(&nearer) {
                explored = nearer;
            }
        }
        self.report(explored, &from)
    }

    /// All interleavings, or as many as the scenario asks for; else as many as there is time for.
    fn first<M>(&mut self, model: &Arc<M>) -> Result<Explored, Nondeterminism>
    where
        M: Model<Call = Planned, Outcome = Outcome>,
    {
        if let Some(preemptions) = self.scenario.preemptions {
            let bounds: Vec<u32> = (0..=preemptions).collect();
            return self.bounded(model, &bounds, false, true);
        }
        let share = self.limits.time.mul_f64(ALL_SHARE);
        let whole = self.settings(&[], true, false, share);
        let explored = explore::explore(model, &self.script, &whole, self.progress)?;
        if !matches!(explored.verdict, explore::Verdict::SafeUpTo { .. }) {
            return Ok(explored);
        }
        let rest = self.limits.time.saturating_sub(explored.elapsed);
        let bounds = self.settings(BOUNDS, true, false, rest);
        let mut bounded = explore::explore(model, &self.script, &bounds, self.progress)?;
        bounded.elapsed += explored.elapsed;
        Ok(bounded)
    }

    fn bounded<M>(
        &mut self,
        model: &Arc<M>,
        bounds: &[u32],
        then_all: bool,
        shrink: bool,
    ) -> Result<Explored, Nondeterminism>
    where
        M: Model<Call = Planned, Outcome = Outcome>,
    {
        let settings = self.settings(bounds, then_all, shrink, self.limits.time);
        explore::explore(model, &self.script, &settings, self.progress)
    }

    fn settings(
        &self,
        bounds: &[u32],
        all: bool,
        shrink: bool,
        time: Duration,
    ) -> explore::Settings {
        // Threads that are there to be wrong are as few as their author wants them; and where no deadline fires, a
        // call that was to be given up by another must not be left without that.
        let is_meant = self.scenario.expect != crate::Verdict::Safe;
        let shrink = shrink && !is_meant && self.scenario.clock_runs();
        explore::Settings {
            preemptions: bounds.to_vec(),
            all,
            shrink,
            deadlines: self.scenario.clock_runs(),
            workers: self.limits.workers,
            budget: Budget { time, ..Budget::default() },
            ..explore::Settings::default()
        }
    }

    /// Whether a call answered what the scenario does not expect.
    fn is_surprised(&self, explored: &Explored) -> bool {
        explored.outcomes.iter().any(|((thread, index), outcomes)| {
            let steps = self.scenario.threads.get(*thread);
            let expected = steps.and_then(|steps| steps.get(*index)?.expected.as_ref());
            expected.is_some_and(|expected| !outcomes.is_subset(expected))
        })
    }

    fn report<M>(&self, explored: Explored, model: &Arc<M>) -> Result<Report, Failure>
    where
        M: Model<Call = Planned, Outcome = Outcome>,
    {
        let finding = match explored.verdict {
            explore::Verdict::Safe => Finding::Safe,
            explore::Verdict::SafeUpTo { preemptions, limit } => {
                Finding::SafeUpTo { preemptions, budget_reached: limit.is_some() }
            }
            explore::Verdict::Counterexample(found) => {
                let settings = self.settings(&[], false, false, self.limits.time);
                let again = found.schedule.replay(model, &found.script, &settings)?;
                let broken = Broken {
                    threads: steps(&found.script),
                    kind: found.violation.kind,
                    message: found.violation.message,
                    preemptions: found.preemptions,
                    schedule: found.schedule,
                    tale: again.tale,
                };
                Finding::Broken(Box::new(broken.named(&again.names)))
            }
        };
        let explore::Report { counts, outcomes, elapsed, .. } = explored;
        Ok(Report { finding, counts, outcomes, elapsed })
    }
}

fn is_broken(explored: &Explored) -> bool {
    matches!(explored.verdict, explore::Verdict::Counterexample(_))
}

fn steps(script: &Script<Planned>) -> Threads {
    let step = |planned: &Planned| Step::new(planned.call, planned.expected.clone());
    script.threads.iter().map(|calls| calls.iter().map(step).collect()).collect()
}

/// Bounds on preemptions where not all interleavings are known.
const BOUNDS: &[u32] = &[0, 1, 2];
/// The share of the time that the search of all interleavings has.
const ALL_SHARE: f64 = 0.75;
