//! The scenarios that the command line names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use scenario::run::Failure;
use scenario::{Mistake, Scenario, file, generate, script};

use super::{Arguments, Generated};
use crate::exit;

/// All scenarios, with where each stands.
///
/// # Errors
/// What is wrong, a text each; with mistakes in several files all of them are told.
pub(super) fn read(arguments: &Arguments) -> Result<Vec<(String, Scenario)>, Vec<String>> {
    let mut scenarios = read_all(arguments)?;
    if let Some(part) = arguments.partition {
        let mut index = 0;
        scenarios.retain(|(source, scenario)| {
            // Generated ones are told apart by their titles.
            let name = if source == GENERATED { &scenario.title } else { source };
            index += 1;
            part.has(index - 1, name)
        });
    }
    Ok(scenarios)
}

fn read_all(arguments: &Arguments) -> Result<Vec<(String, Scenario)>, Vec<String>> {
    if let Some(set) = arguments.generate {
        let width = match set {
            Generated::Pairs => generate::Width::Pairs,
            Generated::Triples => generate::Width::Triples,
        };
        let all = generate::scenarios(width).into_iter();
        return Ok(all.map(|scenario| (GENERATED.to_owned(), scenario)).collect());
    }
    if let Some(line) = &arguments.threads {
        let design = arguments.without.as_ref().map(|_| file::WITH_RULES.to_owned());
        let design = arguments.design.clone().or(design);
        let scenario = of_line(line, design, arguments.without.clone());
        return scenario
            .map(|scenario| vec![(LINE.to_owned(), scenario)])
            .map_err(|text| vec![text]);
    }
    if let Some(rule) = &arguments.without {
        return of_rule(rule).map(|found| vec![found]).map_err(|text| vec![text]);
    }
    let (mut scenarios, mut messages) = (Vec::new(), Vec::new());
    for path in &arguments.paths {
        match files(path) {
            Ok(files) => {
                for file in files {
                    match of_file(&file) {
                        Ok(scenario) => scenarios.push((file.display().to_string(), scenario)),
                        Err(message) => messages.push(message),
                    }
                }
            }
            Err(message) => messages.push(message),
        }
    }
    if messages.is_empty() { Ok(scenarios) } else { Err(messages) }
}

/// Where generated scenarios stand.
const GENERATED: &str = "--generate";

/// Writes scenarios as files into a directory, which is made if need be.
pub(super) fn write(directory: &Path, scenarios: &[(String, Scenario)]) -> ExitCode {
    let written = fs::create_dir_all(directory).and_then(|()| {
        scenarios.iter().try_for_each(|(_, scenario)| {
            let name: String = scenario.title.replace(" | ", "-").replace([':', ' '], "_");
            fs::write(directory.join(format!("{name}.toml")), scenario.to_string())
        })
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bindery: cannot write into {}: {error}", directory.display());
            ExitCode::from(exit::USAGE)
        }
    }
}

/// What mistakes on the command line are called after.
const LINE: &str = "--threads";

fn of_line(
    line: &str,
    design: Option<String>,
    without: Option<String>,
) -> Result<Scenario, String> {
    let mistake = |at, message: String| Mistake::new(LINE, line, at, message).to_string();
    let threads =
        script::parse(line).map_err(|error| mistake(error.at.clone(), error.to_string()))?;
    let mut scenario = Scenario::of(threads);
    if let Some(design) = design {
        file::check_design(&design, without.as_deref())
            .map_err(|(key, message)| format!("--{key}: {message}"))?;
        scenario.design = Some((design, without));
    }
    scenario.check().map_err(|(at, message)| mistake(at, message))?;
    Ok(scenario)
}

/// The scenario that shows what a rule is for.
fn of_rule(rule: &str) -> Result<(String, Scenario), String> {
    file::check_design(file::WITH_RULES, Some(rule))
        .map_err(|(key, message)| format!("--{key}: {message}"))?;
    let named = |(name, _): &&(&str, &str)| *name == format!("d-without-{rule}.toml");
    let Some((name, text)) = RULES.iter().find(named) else {
        return Err(format!(
            "--without: say by which threads {rule} is to be missed: --threads '…'"
        ));
    };
    let source = format!("designs/{name}");
    let scenario = Scenario::parse(&source, text).map_err(|mistake| mistake.to_string())?;
    Ok((source, scenario))
}

macro_rules! rules {
    ($($name:literal)*) => {
        /// The scenarios of `designs/` that leave a rule out, compiled in.
        const RULES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../designs/", $name)))),*];
    };
}

rules! {
    "d-without-destroying.toml"
    "d-without-tombstone.toml"
    "d-without-wait-cnt.toml"
    "d-without-wake.toml"
    "d-without-put-order.toml"
    "d-without-unbind-under-group.toml"
}

/// The file, or the scenario files in the directory, in order of name.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let tell = |error| format!("bindery: cannot read {}: {error}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(tell)? {
        let file = entry.map_err(tell)?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("bindery: there is no scenario (*.toml) in {}", path.display()));
    }
    Ok(files)
}

fn of_file(path: &Path) -> Result<Scenario, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("bindery: cannot read {}: {error}", path.display()))?;
    Scenario::parse(&path.display().to_string(), &text).map_err(|mistake| mistake.to_string())
}

/// What hindered an exploration, at its place in the file if it has one.
pub(super) fn place(source: &str, scenario: &Scenario, failure: &Failure) -> String {
    let Failure::Setup { index, .. } = failure else { return failure.to_string() };
    let at = scenario.setup.get(*index).map(|step| step.at.clone());
    match (at, fs::read_to_string(source)) {
        (Some(at), Ok(text)) => Mistake::new(source, &text, at, failure.to_string()).to_string(),
        _ => failure.to_string(),
    }
}
