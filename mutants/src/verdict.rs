//! What the judge says of a scenario: one line of JSON, between two processes.

use std::path::Path;
use std::time::Duration;

use scenario::Scenario;
use scenario::run::{self, Finding, Limits};
use serde::{Deserialize, Serialize};

/// What is so in a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The verdict, in the words of `bindery explore`.
    pub verdict: String,
    /// What is wrong, if something is.
    pub message: Option<String>,
    /// What is left of the threads after shrinking.
    pub threads: Option<String>,
    /// How often a thread was interrupted that could have gone on.
    pub preemptions: Option<u32>,
    /// Executions of the search that the verdict rests on.
    pub executions: u64,
    /// States of it.
    pub states: u64,
}

/// Explores the scenario in a file, by one worker: so that its counts are the same each time.
///
/// # Errors
/// Why it cannot be explored, in words.
pub fn judge(file: &Path, time: Duration) -> Result<Judged, String> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let scenario = Scenario::parse(&name, &text).map_err(|mistake| mistake.to_string())?;
    let report = run::run(&scenario, &Limits { time, workers: 1 }, &mut |_| {})
        .map_err(|failure| failure.to_string())?;
    let broken = match &report.finding {
        Finding::Broken(broken) => Some(broken),
        Finding::Safe | Finding::SafeUpTo { .. } => None,
    };
    Ok(Judged {
        verdict: report.finding.to_string(),
        message: broken.map(|broken| broken.message.clone()),
        threads: broken.map(|broken| scenario::script::line(&broken.threads)),
        preemptions: broken.map(|broken| broken.preemptions),
        executions: report.counts.executions,
        states: report.counts.states,
    })
}
