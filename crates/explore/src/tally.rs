//! What a search has found so far.

use std::collections::{BTreeMap, BTreeSet};

use crate::fingerprint::Fingerprint;
use crate::frame::Frame;
use crate::moves::{Move, Point};
use crate::violation::Violation;

/// What a search, or one of its workers, has found.
#[derive(Clone, Debug)]
pub(crate) struct Tally<O> {
    pub(crate) counts: Counts,
    /// Something was left out because of the bound on preemptions.
    pub(crate) cut: bool,
    pub(crate) found: Vec<Found>,
    /// By thread and call.
    pub(crate) outcomes: BTreeMap<(usize, usize), BTreeSet<O>>,
    /// What all objects held where all threads had ended.
    pub(crate) finals: BTreeSet<Fingerprint>,
    pub(crate) nondeterminism: Option<Nondeterminism>,
}

/// What an exploration took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Executions, those brought to an end early included.
    pub executions: u64,
    /// Executions in which every thread ended.
    pub complete: u64,
    /// Steps taken.
    pub steps: u64,
    /// Different states.
    pub states: u64,
    /// Steps of the longest execution.
    pub depth: usize,
}

/// A violation and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) violation: Violation,
    pub(crate) path: Vec<(Move, Option<Point>)>,
    pub(crate) preemptions: u32,
}

/// The explored code did something else when it was run again in the same way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the explored code is not deterministic: at step {step}, {who} did `{now}` and before `{before}`"
)]
pub struct Nondeterminism {
    /// The step, from 1; 0 is the set-up.
    pub step: usize,
    /// Whose.
    pub who: String,
    /// What it did the first time.
    pub before: String,
    /// What it did now.
    pub now: String,
}

impl<O: Ord> Tally<O> {
    pub(crate) fn new() -> Self {
        Self {
            counts: Counts::default(),
            cut: false,
            found: Vec::new(),
            outcomes: BTreeMap::new(),
            finals: BTreeSet::new(),
            nondeterminism: None,
        }
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        self.counts.absorb(&other.counts);
        self.cut |= other.cut;
        self.found.extend(other.found);
        for (call, outcomes) in other.outcomes {
            self.outcomes.entry(call).or_default().extend(outcomes);
        }
        self.finals.extend(other.finals);
        self.nondeterminism = self.nondeterminism.take().or(other.nondeterminism);
    }

    /// The violation that is easiest to follow: fewest preemptions, then fewest switches, then steps.
    pub(crate) fn best(&self) -> Option<&Found> {
        self.found.iter().min_by_key(|found| found.ease())
    }
}

impl Nondeterminism {
    pub(crate) fn at(step: usize, made: Move, before: Option<Point>, now: Option<Point>) -> Self {
        let words = |point: Option<Point>| point.map_or("nothing".to_owned(), |it| it.to_string());
        Self { step: step + 1, who: made.to_string(), before: words(before), now: words(now) }
    }

    /// The step `step`, from 1, began as before and led to another state.
    pub(crate) fn otherwise(step: usize, made: Move, point: Option<Point>) -> Self {
        let before = point.map_or("nothing".to_owned(), |it| it.to_string());
        let now = format!("{before}, to another end");
        Self { step, who: made.to_string(), before, now }
    }

    /// Set-up went well before.
    pub(crate) fn in_setup(now: &Violation) -> Self {
        let (who, before) = ("set-up".to_owned(), "well".to_owned());
        Self { step: 0, who, before, now: now.to_string() }
    }
}

impl Counts {
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.executions += other.executions;
        self.complete += other.complete;
        self.steps += other.steps;
        self.states += other.states;
        self.depth = self.depth.max(other.depth);
    }
}

impl Found {
    pub(crate) fn of(violation: Violation, path: &[Frame]) -> Self {
        Self {
            violation,
            path: path.iter().map(|frame| (frame.chosen, frame.point)).collect(),
            preemptions: path.last().map_or(0, Frame::preemptions_after),
        }
    }

    pub(crate) fn ease(&self) -> (u32, usize, usize) {
        let switches = self.path.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
        (self.preemptions, switches, self.path.len())
    }
}
