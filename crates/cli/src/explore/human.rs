//! What people read: the verdict, what calls answered, the timeline, and what it all rests on, in 80 columns.

use scenario::run::{Broken, Finding, Report};
use scenario::{Scenario, script};

use super::timeline::{self, WIDTH};
use super::{Explored, assumptions};
use crate::terminal::{Style, Tone, wrapped};

/// How to draw.
pub(super) struct Drawing {
    pub(super) style: Style,
    pub(super) ascii: bool,
    /// Where the order is kept.
    pub(super) kept: Option<String>,
}

/// What came of one scenario.
pub(super) fn one(explored: &Explored, drawing: &Drawing) -> String {
    let Explored { source, scenario, result } = explored;
    let number = scenario.number.as_ref().map_or(String::new(), |number| format!("{number}  "));
    let title = format!("{number}{}", scenario.title);
    let mut lines: Vec<String> =
        wrapped(&title, WIDTH).iter().map(|line| drawing.style.paint(Tone::Bold, line)).collect();
    match result {
        Err(_) => {}
        Ok(report) => {
            lines.push(format!("  {}", verdict(report, drawing.style)));
            lines.extend(answers(scenario, report));
        }
    }
    if let Some(broken) = explored.broken() {
        lines.extend(counterexample(source, scenario, broken, drawing));
    }
    let rests_on = format!("assumes {}", assumptions::of(scenario));
    lines.extend(indented(&rests_on));
    for complaint in explored.complaints() {
        lines.push(drawing.style.paint(Tone::Red, format!("  NOT AS EXPECTED: {complaint}")));
    }
    lines.push(String::new());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn verdict(report: &Report, style: Style) -> String {
    let (finding, size) = (&report.finding, size(report));
    let took = report.elapsed.as_secs_f64();
    match finding {
        Finding::Safe => {
            let text = format!("SAFE (all interleavings: {size})");
            format!("{}, {took:.1} s", style.paint(Tone::Green, text))
        }
        Finding::SafeUpTo { .. } => {
            format!("{}: {size}, {took:.1} s", style.paint(Tone::Yellow, finding))
        }
        Finding::Broken(_) => {
            format!("{}: {size}, {took:.1} s", style.paint(Tone::Red, finding))
        }
    }
}

/// How much the verdict rests on; of a counterexample, how much there is to follow.
pub(super) fn size(report: &Report) -> String {
    let counts = &report.counts;
    match (&report.finding, counts.states) {
        (Finding::Broken(broken), _) => {
            let preemptions = match broken.preemptions {
                0 => "no preemption".to_owned(),
                1 => "1 preemption".to_owned(),
                more => format!("{more} preemptions"),
            };
            format!("{preemptions}, {} steps", broken.schedule.steps())
        }
        (_, 0) => format!("{} executions", grouped(counts.executions)),
        (_, states) => {
            format!("{} states, {} executions", grouped(states), grouped(counts.executions))
        }
    }
}

/// What each call answered in some interleaving.
fn answers(scenario: &Scenario, report: &Report) -> Vec<String> {
    let unseen = report.unseen(scenario);
    let mut lines = Vec::new();
    for (thread, steps) in scenario.threads.iter().enumerate() {
        for (index, step) in steps.iter().enumerate() {
            let seen = report.outcomes.get(&(thread, index));
            let seen: Vec<_> = seen.into_iter().flatten().map(ToString::to_string).collect();
            let never = unseen.iter().filter(|(t, i, _)| (*t, *i) == (thread, index));
            let never: Vec<_> = never.map(|(_, _, outcome)| outcome.to_string()).collect();
            let never = match (&report.finding, never.is_empty()) {
                (Finding::Safe, false) => format!(" (never {})", never.join(", ")),
                _ => String::new(),
            };
            let call = step.call.to_string();
            let line = format!("  T{thread} {call:22} {}{never}", seen.join(", "));
            lines.push(line.trim_end().to_owned());
        }
    }
    lines
}

/// A timeline and how to see it again.
fn counterexample(
    source: &str,
    scenario: &Scenario,
    broken: &Broken,
    drawing: &Drawing,
) -> Vec<String> {
    let mut lines = vec![String::new()];
    lines.extend(timeline::draw(broken, drawing.ascii));
    lines.push(String::new());
    let line = script::line(&broken.threads);
    if script::line(&scenario.threads) != line {
        lines.extend(indented(&format!("What is left of the threads: {line}")));
    }
    match &drawing.kept {
        Some(file) => lines.push(format!("  Again: bindery explore --replay {file}")),
        None if source.ends_with(".toml") => {
            lines.push(format!("  To keep it: bindery explore {source} --save order.txt"));
            lines.push("  Then: gdb --args bindery explore --replay order.txt".to_owned());
        }
        None => lines.push("  To keep it: the same with --save order.txt".to_owned()),
    }
    lines
}

/// A replayed order.
pub(super) fn replayed(scenario: &Scenario, broken: &Broken, drawing: &Drawing) -> String {
    let mut lines = vec![drawing.style.paint(Tone::Bold, &scenario.title), String::new()];
    lines.extend(timeline::draw(broken, drawing.ascii));
    lines.extend(indented(&format!("assumes {}", assumptions::of(scenario))));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// How many there were, and what holds for all.
pub(super) fn summary(explored: &[Explored], style: Style) -> String {
    let as_expected = explored.iter().filter(|one| one.complaints().is_empty()).count();
    let states: u64 = explored
        .iter()
        .filter_map(|one| one.result.as_ref().ok())
        .map(|report| report.counts.states)
        .sum();
    let took: f64 = explored
        .iter()
        .filter_map(|one| one.result.as_ref().ok())
        .map(|report| report.elapsed.as_secs_f64())
        .sum();
    let scenarios = if explored.len() == 1 { "scenario" } else { "scenarios" };
    let text = format!(
        "{} {scenarios}, {as_expected} as expected; {} states, {took:.1} s",
        explored.len(),
        grouped(states)
    );
    let tone = if as_expected == explored.len() { Tone::Green } else { Tone::Red };
    let mut lines = vec![style.paint(tone, text)];
    lines.extend(indented(&format!("All verdicts assume: {}.", assumptions::GENERAL)));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn indented(text: &str) -> Vec<String> {
    wrapped(text, WIDTH - 4)
        .into_iter()
        .enumerate()
        .map(|(index, line)| if index == 0 { format!("  {line}") } else { format!("    {line}") })
        .collect()
}

/// 1,234,567
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
