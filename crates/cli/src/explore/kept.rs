//! A kept order: the schedule, with the scenario that it is an order of in remarks that begin with `#|`.

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use explore::Schedule;
use scenario::Scenario;
use scenario::run::{self, Broken};

use super::{Arguments, Explored, Format, UNEXPECTED, drawing, html, human, write_out};
use crate::exit;

const REMARK: &str = "#|";
/// What it leads to; the schedule's own remark of that comes later, and has names of its own.
const VIOLATION: &str = "# violation: ";

/// Keeps the first counterexample.
pub(super) fn save(path: &Path, explored: &[Explored]) -> io::Result<()> {
    let found = explored.iter().find_map(|one| Some((one, one.broken()?)));
    let Some((one, broken)) = found else {
        eprintln!("bindery: nothing to keep: there is no counterexample");
        return Ok(());
    };
    let scenario = Scenario { threads: broken.threads.clone(), ..one.scenario.clone() };
    fs::write(path, text(&scenario, broken))
}

/// What is kept: `scenario` with the threads that are left, and the order.
pub(super) fn text(scenario: &Scenario, broken: &Broken) -> String {
    let schedule = broken.schedule.to_string();
    let (format, rest) = schedule.split_once('\n').unwrap_or((&schedule, ""));
    let remarks = scenario.to_string();
    let remarks: String = remarks.lines().map(|line| format!("{REMARK} {line}\n")).collect();
    let violation = format!("{}: {}", broken.kind, broken.message).replace('\n', " ");
    format!("{format}\n{remarks}{VIOLATION}{violation}\n{rest}")
}

/// Runs a kept order once. Status 0: it led where it had led.
pub(super) fn replay(path: &Path, arguments: &Arguments) -> ExitCode {
    match load(path) {
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(exit::USAGE)
        }
        Ok((scenario, schedule, violation)) => match run::replay(&scenario, &schedule) {
            Err(failure) => {
                eprintln!("bindery: {}: {failure}", path.display());
                ExitCode::from(UNEXPECTED)
            }
            Ok(broken) => {
                let said = match arguments.format {
                    Format::Html => html::replayed(&path.display().to_string(), &scenario, &broken),
                    Format::Human | Format::Json | Format::Junit => {
                        human::replayed(&scenario, &broken, &drawing(arguments))
                    }
                };
                if let Err(status) = write_out(arguments, &said) {
                    return ExitCode::from(status);
                }
                let now = format!("{}: {}", broken.kind, broken.message).replace('\n', " ");
                if now == violation {
                    return ExitCode::SUCCESS;
                }
                eprintln!("bindery: {}: this order led elsewhere: {violation}", path.display());
                ExitCode::from(UNEXPECTED)
            }
        },
    }
}

/// The scenario, its order, and what that led to.
///
/// # Errors
/// What is wrong with the file, in words.
pub(super) fn load(path: &Path) -> Result<(Scenario, Schedule, String), String> {
    let source = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| format!("bindery: cannot read {source}: {error}"))?;
    let scenario = Scenario::parse(&source.to_string(), &scenario_text(&text))
        .map_err(|mistake| mistake.to_string())?;
    let violation = text.lines().position(|line| line.starts_with(VIOLATION));
    // What was put in front of the schedule is no remark of the schedule's; lines keep their numbers.
    let lines = text.lines().enumerate().map(|(index, line)| {
        let is_ours = Some(index) == violation || line.starts_with(REMARK);
        if is_ours { "\n".to_owned() } else { format!("{line}\n") }
    });
    let schedule = lines.collect::<String>().parse();
    let schedule = schedule.map_err(|bad| format!("{source}: {bad}"))?;
    let violation = text.lines().find_map(|line| line.strip_prefix(VIOLATION));
    Ok((scenario, schedule, violation.unwrap_or_default().trim().to_owned()))
}

/// The scenario in a kept order's text, each letter where it stands there.
pub(super) fn scenario_text(text: &str) -> String {
    let lines = text.lines().map(|line| line.strip_prefix(REMARK));
    lines.map(|line| line.map_or("\n".to_owned(), |line| format!("{BLANK}{line}\n"))).collect()
}

/// As wide as [`REMARK`].
const BLANK: &str = "  ";
