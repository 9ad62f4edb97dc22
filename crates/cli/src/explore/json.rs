//! What programs read.

use scenario::script;
use serde::Serialize;

use super::{Explored, assumptions};

/// One scenario.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    source: String,
    title: String,
    number: Option<String>,
    verdict: Option<String>,
    expected: String,
    as_expected: bool,
    budget_reached: bool,
    complaints: Vec<String>,
    states: u64,
    executions: u64,
    longest: usize,
    seconds: f64,
    calls: Vec<CallRow>,
    counterexample: Option<CounterexampleRow>,
    assumptions: [String; 2],
}

/// A call and its answers.
#[derive(Debug, Serialize)]
struct CallRow {
    thread: usize,
    call: String,
    outcomes: Vec<String>,
}

/// What is wrong.
#[derive(Debug, Serialize)]
struct CounterexampleRow {
    kind: String,
    message: String,
    preemptions: u32,
    threads: String,
    schedule: String,
    timeline: Vec<EventRow>,
}

/// What happens.
#[derive(Debug, Serialize)]
struct EventRow {
    thread: Option<usize>,
    what: String,
    at: Option<String>,
}

/// A row for each scenario.
pub(super) fn of(explored: &[Explored]) -> Vec<Row> {
    explored.iter().map(row).collect()
}

fn row(explored: &Explored) -> Row {
    let Explored { source, scenario, result } = explored;
    let report = result.as_ref().ok();
    let counts = report.map(|report| report.counts).unwrap_or_default();
    let complaints = explored.complaints();
    let mut calls = Vec::new();
    for (thread, steps) in scenario.threads.iter().enumerate() {
        for (index, step) in steps.iter().enumerate() {
            let seen = report.and_then(|report| report.outcomes.get(&(thread, index)));
            let outcomes = seen.into_iter().flatten().map(ToString::to_string).collect();
            calls.push(CallRow { thread, call: step.call.to_string(), outcomes });
        }
    }
    Row {
        source: source.clone(),
        title: scenario.title.clone(),
        number: scenario.number.clone(),
        verdict: report.map(|report| report.finding.to_string()),
        expected: scenario.expect.to_string(),
        as_expected: complaints.is_empty(),
        budget_reached: report.is_some_and(|report| report.finding.is_cut_short()),
        complaints,
        states: counts.states,
        executions: counts.executions,
        longest: counts.depth,
        seconds: report.map_or(0.0, |report| report.elapsed.as_secs_f64()),
        calls,
        counterexample: counterexample(explored),
        assumptions: [assumptions::of(scenario), assumptions::GENERAL.to_owned()],
    }
}

fn counterexample(explored: &Explored) -> Option<CounterexampleRow> {
    let broken = explored.broken()?;
    let timeline = broken.tale.iter().map(|event| EventRow {
        thread: event.thread,
        what: event.what.clone(),
        at: event.at.map(|at| format!("{}:{}", at.file(), at.line())),
    });
    Some(CounterexampleRow {
        kind: broken.kind.to_string(),
        message: broken.message.clone(),
        preemptions: broken.preemptions,
        threads: script::line(&broken.threads),
        schedule: broken.schedule.to_string(),
        timeline: timeline.collect(),
    })
}
