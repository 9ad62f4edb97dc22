//! A scenario or a kept order as a C program.
//!
//! What a call may answer is what its scenario says; where it says nothing, what the shipped code answers in some
//! interleaving of the same threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, thread};

use scenario::c_program::{self, NoForm, Source};
use scenario::run::{self, Finding, Limits};
use scenario::{Mistake, Scenario, Verdict};

use super::{Arguments, UNEXPECTED, clear, inputs, kept, show, write_out};
use crate::exit;

/// Writes the program.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let told = |(status, message): (u8, String)| {
        eprintln!("{message}");
        status
    };
    let text = program(arguments).map_err(told);
    let written = text.and_then(|text| write_out(arguments, &text));
    written.map_or_else(ExitCode::from, |()| ExitCode::SUCCESS)
}

/// What the program is made from, and where that stands.
struct Found {
    source: String,
    /// What the places of calls are places in.
    text: String,
    scenario: Scenario,
    order: BTreeMap<(usize, usize), usize>,
}

/// The program, or a status and why there is none.
fn program(arguments: &Arguments) -> Result<String, (u8, String)> {
    let limits = limits(arguments);
    let mut found = match &arguments.replay {
        Some(path) => of_order(path)?,
        None => of_scenario(arguments, &limits)?,
    };
    let command = command();
    let wanted = |found: &Found| {
        let order = found.order.clone();
        c_program::c_program(&Source { scenario: &found.scenario, order, command: &command })
            .map_err(|no_form| (exit::USAGE, place(found, &no_form)))
    };
    // What has no form is told before anything is explored.
    wanted(&found)?;
    expect_what_is_shipped(&mut found, &limits);
    wanted(&found)
}

fn of_order(path: &Path) -> Result<Found, (u8, String)> {
    let (scenario, schedule, _) = kept::load(path).map_err(|message| (exit::USAGE, message))?;
    let broken = run::replay(&scenario, &schedule)
        .map_err(|failure| (UNEXPECTED, format!("bindery: {}: {failure}", path.display())))?;
    let order = c_program::order(&scenario.threads, &broken.tale);
    let text = kept::scenario_text(&fs::read_to_string(path).unwrap_or_default());
    Ok(Found { source: path.display().to_string(), text, scenario, order })
}

/// A scenario that is not to be safe is explored: the program has the order of its counterexample.
fn of_scenario(arguments: &Arguments, limits: &Limits) -> Result<Found, (u8, String)> {
    let read = inputs::read(arguments).map_err(|messages| (exit::USAGE, messages.join("\n")))?;
    let count = read.len();
    let Ok([(source, scenario)]) = <[_; 1]>::try_from(read) else {
        return Err((exit::USAGE, format!("bindery: --emit-c takes one scenario, not {count}")));
    };
    let of_line = arguments.threads.clone();
    let text = of_line.unwrap_or_else(|| fs::read_to_string(&source).unwrap_or_default());
    if scenario.expect == Verdict::Safe {
        return Ok(Found { source, text, scenario, order: BTreeMap::new() });
    }
    let explored = run::run(&scenario, limits, &mut |progress| show(&source, progress));
    clear();
    let report =
        explored.map_err(|failure| (UNEXPECTED, inputs::place(&source, &scenario, &failure)))?;
    let Finding::Broken(broken) = report.finding else {
        let message = format!("bindery: {source}: {}: there is no order to keep", report.finding);
        return Err((UNEXPECTED, message));
    };
    let order = c_program::order(&broken.threads, &broken.tale);
    let mut threads = broken.threads;
    for step in threads.iter_mut().flatten() {
        let known = scenario.threads.iter().flatten().find(|known| known.call == step.call);
        step.at = known.map_or(0..0, |known| known.at.clone());
    }
    Ok(Found { source, text, scenario: Scenario { threads, ..scenario }, order })
}

fn limits(arguments: &Arguments) -> Limits {
    Limits {
        time: Duration::from_secs(arguments.budget),
        workers: thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Fills in what calls may answer that say nothing of it. Nothing, where that is not known of all interleavings.
fn expect_what_is_shipped(found: &mut Found, limits: &Limits) {
    let Found { source, scenario, .. } = found;
    let mut steps = scenario.threads.iter().flatten();
    if steps.all(|step| step.expected.is_some()) {
        return;
    }
    let shipped = Scenario { design: None, expect: Verdict::Safe, ..scenario.clone() };
    let explored = run::run(&shipped, limits, &mut |progress| show(source, progress));
    clear();
    let report = match explored {
        Ok(report) if matches!(report.finding, Finding::Safe) => report,
        Ok(report) => {
            let finding = report.finding;
            return eprintln!("bindery: {source}: {finding}: calls may answer anything");
        }
        Err(failure) => {
            return eprintln!("bindery: {source}: {failure}: calls may answer anything");
        }
    };
    for (thread, steps) in scenario.threads.iter_mut().enumerate() {
        for (call, step) in steps.iter_mut().enumerate() {
            let seen = report.outcomes.get(&(thread, call));
            step.expected = step.expected.take().or_else(|| seen.cloned());
        }
    }
}

/// What was called, to be called again.
fn command() -> String {
    let words = env::args().skip(1).map(|word| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=".contains(c);
        if word.chars().all(is_plain) { word } else { format!("'{word}'") }
    });
    format!("bindery {}", words.collect::<Vec<_>>().join(" "))
}

/// The call, at its place.
fn place(found: &Found, no_form: &NoForm) -> String {
    if no_form.at.is_empty() {
        return format!("{}: {no_form}", found.source);
    }
    let message = no_form.to_string();
    Mistake::new(&found.source, &found.text, no_form.at.clone(), message).to_string()
}
