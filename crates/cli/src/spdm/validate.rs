//! `bindery spdm validate`: the rules of SPDM, IDE_KM and TDISP turned on a device behind a socket.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use ::spdm::key_schedule::Side;
use clap::Args;
use peer::validate::{self, Finding, Rule, Subject, Verdict};
use tdisp::InterfaceId;

use super::requester::Peer;
use crate::exit;
use crate::terminal::{Style, Tone, print};

/// Turn the rules of SPDM, IDE_KM and TDISP on a device.
///
/// Each rule is broken on purpose, or asked for, in a connection of its own, and the answer judged: PASS;
/// FAIL, with the bytes exchanged; NOT APPLICABLE, where the device does not offer what the rule is about
/// or --tdi is missing; POLICY, where public texts leave it open, with what the device does.
///
/// Exits with 0 where no rule failed, 1 where one did, 2 for wrong arguments, 3 where there is no peer.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    peer: Peer,
    /// The interface that may be locked, run and stopped, such as 01:00.0
    #[arg(long, value_name = "FUNCTION", value_parser = super::interface)]
    tdi: Option<InterfaceId>,
    /// The stream of the device's link that gets keys
    #[arg(long, value_name = "STREAM", default_value_t = 0)]
    stream: u8,
    /// The port of that stream
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    port: u8,
    /// Try only this rule; may be given several times. `list` lists all
    #[arg(long, value_name = "RULE")]
    only: Vec<String>,
    /// Write the findings into this file, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.only.iter().any(|only| only == "list") {
        print(&list());
        return ExitCode::SUCCESS;
    }
    let rules = match chosen(&arguments.only) {
        Ok(rules) => rules,
        Err(mistake) => {
            eprintln!("bindery: {mistake}");
            return ExitCode::from(exit::USAGE);
        }
    };
    let (make, mut link) = match arguments.peer.open_many() {
        Ok(opened) => opened,
        Err(refused) => return refused.tell(),
    };
    let subject =
        Subject { interface: arguments.tdi, stream: arguments.stream, port: arguments.port };
    let (style, mut findings) = (Style::of_stdout(), Vec::new());
    let mut gone = None;
    for rule in rules {
        match validate::run(rule, subject, &*make, &mut link) {
            Ok(finding) => {
                print(&told(&finding, style));
                findings.push(finding);
            }
            Err(fault) => {
                gone = Some(format!("{}: {fault}", rule.id));
                break;
            }
        }
    }
    link.part();
    print(&summary(&findings));
    if let Some(path) = &arguments.junit
        && let Err(error) = fs::write(path, junit(&findings))
    {
        eprintln!("bindery: {}: {error}", path.display());
        return ExitCode::from(exit::USAGE);
    }
    if let Some(gone) = gone {
        eprintln!("bindery: the peer is gone at {gone}");
        return ExitCode::from(super::requester::NO_PEER);
    }
    let failed = findings.iter().any(|finding| matches!(finding.verdict, Verdict::Fail(_)));
    ExitCode::from(u8::from(failed))
}

fn list() -> String {
    let lines = validate::rules().map(|rule| format!("{:<28} {}\n", rule.id, rule.says));
    lines.collect()
}

fn chosen(only: &[String]) -> Result<Vec<&'static Rule>, String> {
    let known: BTreeSet<&str> = validate::rules().map(|rule| rule.id).collect();
    if let Some(unknown) = only.iter().find(|only| !known.contains(only.as_str())) {
        return Err(format!("there is no rule {unknown:?}; `--only list` lists them"));
    }
    let wanted = |rule: &&Rule| only.is_empty() || only.iter().any(|only| only == rule.id);
    Ok(validate::rules().filter(wanted).collect())
}

fn told(finding: &Finding, style: Style) -> String {
    let Finding { rule, verdict, objects } = finding;
    let (word, tone, more) = match verdict {
        Verdict::Pass => ("PASS", Tone::Green, ""),
        Verdict::Fail(how) => ("FAIL", Tone::Red, how.as_str()),
        Verdict::NotApplicable(why) => ("NOT APPLICABLE", Tone::Faint, why.as_str()),
        Verdict::Policy(what) => ("POLICY", Tone::Yellow, what.as_str()),
    };
    let word = style.paint(tone, format!("{word:<14}"));
    let mut text = format!("{word} {:<28} {}\n", rule.id, rule.says);
    // Writing to a string does not fail.
    if !more.is_empty() {
        let _ = writeln!(text, "{INDENT}{more}");
    }
    if matches!(verdict, Verdict::Fail(_)) {
        let _ = writeln!(text, "{INDENT}{}", rule.source);
        text.push_str(&exchanged(objects));
    }
    text
}

/// Beneath the name of a rule.
const INDENT: &str = "               ";

fn exchanged(objects: &[(Side, Vec<u8>)]) -> String {
    let lines = objects.iter().map(|(side, object)| {
        let arrow = match side {
            Side::Requester => "->",
            Side::Responder => "<-",
        };
        let digits: String = object.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{INDENT}{arrow} {digits}\n")
    });
    lines.collect()
}

fn summary(findings: &[Finding]) -> String {
    let count = |wanted: fn(&Verdict) -> bool| {
        findings.iter().filter(|finding| wanted(&finding.verdict)).count()
    };
    format!(
        "{} rules: {} PASS, {} FAIL, {} POLICY, {} NOT APPLICABLE\n",
        findings.len(),
        count(|verdict| *verdict == Verdict::Pass),
        count(|verdict| matches!(verdict, Verdict::Fail(_))),
        count(|verdict| matches!(verdict, Verdict::Policy(_))),
        count(|verdict| matches!(verdict, Verdict::NotApplicable(_))),
    )
}

fn junit(findings: &[Finding]) -> String {
    let failures = findings.iter().filter(|one| matches!(one.verdict, Verdict::Fail(_))).count();
    let skipped =
        findings.iter().filter(|one| matches!(one.verdict, Verdict::NotApplicable(_))).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"bindery spdm validate\" tests=\"{}\" \
         failures=\"{failures}\" skipped=\"{skipped}\">\n",
        findings.len()
    );
    for Finding { rule, verdict, objects } in findings {
        let inside = match verdict {
            Verdict::Pass => String::new(),
            Verdict::Fail(how) => {
                format!("<failure message=\"{}\">{}</failure>", escaped(how), exchanged(objects))
            }
            Verdict::NotApplicable(why) => format!("<skipped message=\"{}\"/>", escaped(why)),
            Verdict::Policy(what) => format!("<system-out>POLICY: {}</system-out>", escaped(what)),
        };
        let _ = writeln!(
            xml,
            "  <testcase classname=\"{}\" name=\"{}\">{inside}</testcase>",
            escaped(rule.source),
            rule.id
        );
    }
    xml.push_str("</testsuite>\n");
    xml
}

fn escaped(text: &str) -> String {
    let safe = text.chars().map(|one| match one {
        '&' => "&amp;".into(),
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '"' => "&quot;".into(),
        other if other.is_control() => " ".into(),
        other => other.to_string(),
    });
    safe.collect()
}
