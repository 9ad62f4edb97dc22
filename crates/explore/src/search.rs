//! Explores a script: bound by bound, then everything, and tells what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::course::Replayed;
use crate::depth_first::{Plan, Search};
use crate::dpor;
use crate::execution::Stage;
use crate::fingerprint::Fingerprint;
use crate::learned::Learned;
use crate::model::{Model, Script};
use crate::places::Places;
use crate::pool::{Limit, Pool, Progress};
use crate::schedule::Schedule;
use crate::settings::{Budget, Reduction, Replay, Settings};
use crate::shrink;
use crate::tally::{Counts, Found, Nondeterminism, Tally};
use crate::violation::Violation;

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Report<C, O> {
    /// What it says about the script.
    pub verdict: Verdict<C>,
    /// What the last search took: the one that the verdict rests on.
    pub counts: Counts,
    /// What each call answered in some interleaving, by thread and call, in the last search.
    pub outcomes: BTreeMap<(usize, usize), BTreeSet<O>>,
    /// What was found wrong in the last search, each thing once.
    pub violations: BTreeSet<Violation>,
    /// What all objects held in the ends that were seen: a fingerprint for each.
    pub finals: BTreeSet<Fingerprint>,
    /// The limit that the last search reached.
    pub limit: Option<Limit>,
    /// How long all searches took.
    pub elapsed: Duration,
}

/// What an exploration says about a script.
#[derive(Clone, Debug)]
pub enum Verdict<C> {
    /// Nothing is wrong in any interleaving.
    Safe,
    /// Nothing is wrong in any interleaving of at most so many preemptions, if that much is known. The rest
    /// was not explored to its end.
    SafeUpTo {
        /// The highest bound that was explored to its end.
        preemptions: Option<u32>,
        /// The limit that was reached; `None` if no more was asked for.
        limit: Option<Limit>,
    },
    /// Something is wrong.
    Counterexample(Box<Counterexample<C>>),
}

/// A script and an order of its steps in which something is wrong.
#[derive(Clone, Debug)]
pub struct Counterexample<C> {
    /// What is left of the script after shrinking.
    pub script: Script<C>,
    /// What is wrong.
    pub violation: Violation,
    /// The order of steps.
    pub schedule: Schedule,
    /// How often a thread was interrupted that could have gone on.
    pub preemptions: u32,
}

impl<C> fmt::Display for Verdict<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safe => f.write_str("SAFE (all interleavings)"),
            Self::SafeUpTo { preemptions: None, .. } => f.write_str("UNKNOWN (budget reached)"),
            Self::SafeUpTo { preemptions: Some(bound), limit: Some(_) } => {
                write!(f, "SAFE (up to {bound} preemptions; budget reached)")
            }
            Self::SafeUpTo { preemptions: Some(bound), limit: None } => {
                write!(f, "SAFE (up to {bound} preemptions)")
            }
            Self::Counterexample(found) => write!(f, "COUNTEREXAMPLE ({})", found.violation),
        }
    }
}

/// Explores the interleavings of `script` on worlds of `model`. `progress` is called a few times a second.
///
/// # Errors
/// [`Nondeterminism`] – the explored code did not do the same when run in the same order.
pub fn explore<M: Model>(
    model: &Arc<M>,
    script: &Script<M::Call>,
    settings: &Settings,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Report<M::Call, M::Outcome>, Nondeterminism> {
    let began = Instant::now();
    let script = &Arc::new(script.clone());
    let mut explored = None;
    let report = |verdict, limit, tally: Tally<M::Outcome>| {
        let Tally { counts, outcomes, finals, found, .. } = tally;
        let violations = found.into_iter().map(|found| found.violation).collect();
        Ok(Report {
            verdict,
            counts,
            outcomes,
            violations,
            finals,
            limit,
            elapsed: began.elapsed(),
        })
    };
    let searches = settings.preemptions.iter().map(|bound| Some(*bound));
    let mut last = None;
    for bound in searches.chain(settings.all.then_some(None)) {
        let budget = Budget {
            time: settings.budget.time.saturating_sub(began.elapsed()),
            ..settings.budget
        };
        let (tally, limit) = search(model, script, settings, bound, budget, progress)?;
        if let Some(found) = tally.best() {
            let found = counterexample(model, script, settings, found)?;
            return report(Verdict::Counterexample(Box::new(found)), limit, tally);
        }
        if limit.is_some() {
            return report(Verdict::SafeUpTo { preemptions: explored, limit }, limit, tally);
        }
        if !tally.cut {
            return report(Verdict::Safe, limit, tally);
        }
        explored = bound;
        last = Some(tally);
    }
    let tally = last.unwrap_or_else(Tally::new);
    report(Verdict::SafeUpTo { preemptions: explored, limit: None }, None, tally)
}

/// One search, bounded or of everything.
pub(crate) fn search<M: Model>(
    model: &Arc<M>,
    script: &Arc<Script<M::Call>>,
    settings: &Settings,
    preemptions: Option<u32>,
    budget: Budget,
    progress: &mut dyn FnMut(&Progress),
) -> Result<(Tally<M::Outcome>, Option<Limit>), Nondeterminism> {
    let pool = Pool::new(budget);
    let mut tally = if preemptions.is_none() && settings.reduction == Reduction::Dpor {
        run(1, &pool, None, progress, || dpor::search(model, script, settings, &pool))
    } else {
        let plan = Plan {
            preemptions,
            caches: settings.reduction.caches(),
            sleeps: settings.reduction.sleeps() && preemptions.is_none(),
        };
        let places = Places::new();
        run(settings.workers.max(1), &pool, preemptions, progress, || {
            let stage = Stage::new(model, script, settings);
            match settings.replay {
                Replay::Full => Search::new(Replayed::new(stage), plan, settings, &pool).run(),
                Replay::Unknown => {
                    let course = Learned::new(stage, &places);
                    Search::new(course, plan, settings, &pool).run()
                }
            }
        })
    };
    tally.counts.states = pool.seen().states() as u64;
    match tally.nondeterminism.take() {
        Some(nondeterminism) => Err(nondeterminism),
        None => Ok((tally, pool.exhausted())),
    }
}

/// Runs so many workers to their end and joins what they found.
fn run<O: Ord + Send>(
    workers: usize,
    pool: &Pool,
    preemptions: Option<u32>,
    progress: &mut dyn FnMut(&Progress),
    work: impl Fn() -> Tally<O> + Sync,
) -> Tally<O> {
    let mut whole = Tally::new();
    thread::scope(|scope| {
        let (done, results) = mpsc::channel();
        for _ in 0..workers {
            let (done, work) = (done.clone(), &work);
            scope.spawn(move || done.send(Box::new(work())));
        }
        drop(done);
        loop {
            match results.recv_timeout(PROGRESS_EVERY) {
                Ok(tally) => whole.absorb(*tally),
                Err(mpsc::RecvTimeoutError::Timeout) => progress(&pool.progress(preemptions)),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    whole
}

fn counterexample<M: Model>(
    model: &Arc<M>,
    script: &Arc<Script<M::Call>>,
    settings: &Settings,
    found: &Found,
) -> Result<Counterexample<M::Call>, Nondeterminism> {
    let (script, found) = if settings.shrink {
        shrink::shrink(model, script, settings, found)?
    } else {
        (Arc::clone(script), found.clone())
    };
    Ok(Counterexample {
        schedule: Schedule::of(&script, &found),
        script: (*script).clone(),
        violation: found.violation,
        preemptions: found.preemptions,
    })
}

const PROGRESS_EVERY: Duration = Duration::from_millis(200);
