//! Results of several machines, put together: JSON with JSON, JUnit's XML with JUnit's XML.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::{Arguments, BUDGET, UNEXPECTED, write_out};
use crate::{exit, terminal};

/// Puts the results in `files` together, in their order. Exits as an exploration of all of them would have.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let merged = merge(&arguments.merge);
    match merged {
        Ok((text, status)) => match write_out(arguments, &text) {
            Ok(()) => ExitCode::from(status),
            Err(status) => ExitCode::from(status),
        },
        Err(message) => {
            eprintln!("bindery: {message}");
            ExitCode::from(exit::USAGE)
        }
    }
}

fn merge(files: &[PathBuf]) -> Result<(String, u8), String> {
    let texts: Vec<(&Path, String)> = files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file);
            let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            Ok((file.as_path(), text))
        })
        .collect::<Result<_, String>>()?;
    let is_xml = |(_, text): &(&Path, String)| text.trim_start().starts_with('<');
    if texts.iter().all(is_xml) { merge_xml(&texts) } else { merge_json(&texts) }
}

fn merge_json(texts: &[(&Path, String)]) -> Result<(String, u8), String> {
    let mut rows = Vec::new();
    for (file, text) in texts {
        let wrong = |why: String| format!("{} holds no results: {why}", file.display());
        let found: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let Value::Array(found) = found else { return Err(wrong("it is no array".into())) };
        rows.extend(found);
    }
    let says = |row: &Value, key: &str, value: bool| row.get(key) == Some(&Value::Bool(value));
    let status = if rows.iter().any(|row| !says(row, "as_expected", true)) {
        UNEXPECTED
    } else if rows.iter().any(|row| says(row, "budget_reached", true)) {
        BUDGET
    } else {
        0
    };
    Ok((terminal::json(&rows), status))
}

const BEGIN: &str = "<testsuite ";
const END: &str = "</testsuite>";

fn merge_xml(texts: &[(&Path, String)]) -> Result<(String, u8), String> {
    let mut cases = String::new();
    let (mut tests, mut failures, mut errors) = (0, 0, 0);
    for (file, text) in texts {
        let wrong = || format!("{} holds no results of bindery explore", file.display());
        let (_, suite) = text.split_once(BEGIN).ok_or_else(wrong)?;
        let (attributes, inside) = suite.split_once(">\n").ok_or_else(wrong)?;
        let (inside, _) = inside.rsplit_once(END).ok_or_else(wrong)?;
        let number = |name: &str| -> Result<u64, String> {
            let (_, value) = attributes.split_once(&format!("{name}=\"")).ok_or_else(wrong)?;
            let (digits, _) = value.split_once('"').ok_or_else(wrong)?;
            digits.parse().map_err(|_| wrong())
        };
        tests += number("tests")?;
        failures += number("failures")?;
        errors += number("errors")?;
        cases.push_str(inside);
    }
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{BEGIN}name=\"bindery explore\" tests=\"{tests}\" \
         failures=\"{failures}\" errors=\"{errors}\">\n{cases}{END}\n"
    );
    let status = match (failures, errors) {
        (0, 0) => 0,
        (0, _) => BUDGET,
        _ => UNEXPECTED,
    };
    Ok((text, status))
}
