//! `bindery doctor`: whether `bindery run` works on this machine, in plain words, with remedies.

mod checks;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::nested;
use crate::terminal::{Style, Tone, print, print_json, wrapped};

/// Say whether this machine can do what Bindery needs, and what to do where it cannot.
///
/// Exits with 0 where `bindery run` will work, with 1 where it will not. Notes do not count: they say
/// what will be slower or different.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON: {"ok": …, "checks": [{"name", "verdict", "found", "remedy"}]}
    #[arg(long)]
    json: bool,
}

/// What was looked at and found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    remedy: Option<String>,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, and yet there is something to know.
    Note,
    /// `bindery run` cannot work.
    Fail,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn note(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<Option<&'static str>>,
    ) -> Self {
        let remedy = remedy.into().map(str::to_owned);
        Self { name, verdict: Verdict::Note, found: found.into(), remedy }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { name, verdict: Verdict::Fail, found: found.into(), remedy }
    }
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Diagnosis {
    ok: bool,
    checks: Vec<Check>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let checks = match nested::outer() {
        Some(instance) => vec![inside(instance)],
        None => checks::all(),
    };
    let ok = checks.iter().all(|check| check.verdict != Verdict::Fail);
    let diagnosis = Diagnosis { ok, checks };
    if arguments.json {
        print_json(&diagnosis);
    } else {
        print(&text(&diagnosis, Style::of_stdout()));
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The kernel lets nobody look at it from inside: what could be seen is the outer instance.
fn inside(instance: u32) -> Check {
    Check::note(
        "nesting",
        format!(
            "this is inside bindery run (process {instance}), which works; an inner one passes through"
        ),
        "run bindery doctor outside to see what the machine itself offers",
    )
}

/// Columns of the whole.
const WIDTH: usize = 80;
/// Where what was found begins.
const INDENT: usize = 26;

fn text(diagnosis: &Diagnosis, style: Style) -> String {
    let mut text = String::new();
    for Check { name, verdict, found, remedy } in &diagnosis.checks {
        let (word, tone) = match verdict {
            Verdict::Ok => ("ok", Tone::Green),
            Verdict::Note => ("note", Tone::Yellow),
            Verdict::Fail => ("FAIL", Tone::Red),
        };
        let remedy = remedy.iter().map(|remedy| format!("-> {remedy}"));
        let mut lines = [found.clone()].into_iter().chain(remedy);
        let mut lines = lines.by_ref().flat_map(|line| wrapped(&line, WIDTH - INDENT));
        let first = lines.next().unwrap_or_default();
        text += &format!("{}  {name:<18}  {first}\n", style.paint(tone, format_args!("{word:4}")));
        for line in lines {
            text += &format!("{:INDENT$}{line}\n", "");
        }
    }
    let conclusion = if diagnosis.ok {
        style.paint(Tone::Green, "bindery run will work on this machine.")
    } else {
        style.paint(Tone::Red, "bindery run will not work on this machine.")
    };
    format!("{text}\n{conclusion}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_stand_under_what_was_found() {
        let checks = vec![
            Check::ok("kernel", "Linux 6.18"),
            Check::fail("seccomp listener", "refused: EBUSY", "leave the other one"),
        ];
        let expected = "\
ok    kernel              Linux 6.18
FAIL  seccomp listener    refused: EBUSY
                          -> leave the other one

bindery run will not work on this machine.
";
        assert_eq!(text(&Diagnosis { ok: false, checks }, Style::plain()), expected);
    }

    #[test]
    fn json_has_what_help_promises() {
        let checks = vec![Check::note("yama", "scope 1", None)];
        let value = serde_json::json!(Diagnosis { ok: true, checks });
        let expected = serde_json::json!({
            "ok": true,
            "checks": [{"name": "yama", "verdict": "note", "found": "scope 1", "remedy": null}],
        });
        assert_eq!(value, expected);
    }
}
