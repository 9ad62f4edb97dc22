//! One search over a scenario, as it is set, for those who measure searches or hold them against each other.
//!
//! Says nothing of what is expected, and never begins a second search, as [`run`](crate::run) does. Takes no lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use explore::{Counts, Fingerprint, Model, Settings, Violation};

use crate::file::Scenario;
use crate::models::{Drawn, Shipped};
use crate::run::{Failure, script};
use crate::script::Outcome;

/// What a search found.
#[derive(Clone, Debug)]
pub struct Exhausted {
    /// Whether it came to its end: no limit was reached, and it was not cut short by what it found.
    pub is_whole: bool,
    /// What is wrong, each thing once.
    pub violations: BTreeSet<Violation>,
    /// What it took.
    pub counts: Counts,
    /// What each call answered, by thread and call.
    pub outcomes: BTreeMap<(usize, usize), BTreeSet<Outcome>>,
    /// What all objects held in the ends.
    pub finals: BTreeSet<Fingerprint>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Searches all interleavings of `scenario` by `settings`, whose bounds on preemptions are not looked at.
///
/// # Errors
/// [`Failure`].
pub fn exhaust(scenario: &Scenario, settings: &Settings) -> Result<Exhausted, Failure> {
    match &scenario.design {
        Some(design) => search(&Arc::new(Drawn::new(design, false)), scenario, settings),
        None => search(&Arc::new(Shipped::new(scenario, false)), scenario, settings),
    }
}

fn search<M>(model: &Arc<M>, scenario: &Scenario, settings: &Settings) -> Result<Exhausted, Failure>
where
    M: Model<Call = crate::models::Planned, Outcome = Outcome>,
{
    let settings =
        Settings { preemptions: Vec::new(), all: true, shrink: false, ..settings.clone() };
    let script = script(&scenario.threads);
    let report = explore::explore(model, &script, &settings, &mut |_| {})?;
    let explore::Report { counts, outcomes, violations, finals, elapsed, limit, .. } = report;
    let is_whole = limit.is_none();
    Ok(Exhausted { is_whole, violations, counts, outcomes, finals, elapsed })
}
