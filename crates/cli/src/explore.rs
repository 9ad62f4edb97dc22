//! `bindery explore`: scenarios under all interleavings of their threads, on the shipped code or on a design.

mod assumptions;
mod emit_c;
mod html;
mod human;
mod inputs;
mod json;
mod junit;
mod kept;
mod markup;
mod merge;
mod partition;
mod tale;
mod timeline;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, thread};

use clap::{Args, ValueEnum};
use scenario::Scenario;
use scenario::run::{self, Failure, Finding, Limits, Report};

use self::human::Drawing;
use self::partition::Partition;
use crate::terminal::{Style, print};
use crate::{exit, terminal};

/// Explore scenarios under every interleaving of their threads: bind, unbind, destroy and close at once, on the code
/// that ships or on a design, with a timeline where something is wrong.
///
/// Exit status: 0 every verdict is the expected one, 1 one is not, 2 a mistake in a file or on the command line, 3 the
/// budget was reached before all interleavings were known.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Scenario files, and directories of them
    #[arg(value_name = "FILE|DIR", required_unless_present_any = ["threads", "replay", "without", "generate", "merge"])]
    paths: Vec<PathBuf>,
    /// A scenario on one line: calls separated by `;`, threads by `|`, and `-> ok, EBUSY` after a call for what it may
    /// answer
    #[arg(long, value_name = "THREADS", conflicts_with = "paths")]
    threads: Option<String>,
    /// Explore a design instead of the shipped code
    #[arg(long, value_name = "NAME", requires = "threads")]
    design: Option<String>,
    /// Explore the reference design without one of its rules, and show what the rule is for
    #[arg(long, value_name = "RULE", conflicts_with_all = ["design", "paths"])]
    without: Option<String>,
    /// Explore every pair, or every triple, of calls of the TSM lifecycle, each call a thread; only what is not SAFE is
    /// told at length
    #[arg(long, value_name = "SET", value_enum, conflicts_with_all = ["paths", "threads", "without", "replay"])]
    generate: Option<Generated>,
    /// Write what --generate makes as files into DIR, and explore nothing
    #[arg(long, value_name = "DIR", requires = "generate")]
    write: Option<PathBuf>,
    /// Explore a part only: slice:K/N or hash:K/N, for N machines
    #[arg(long, value_name = "PART", conflicts_with_all = ["threads", "replay"])]
    partition: Option<Partition>,
    /// Put results of several parts together: JSON, or JUnit's XML
    #[arg(long, value_name = "RESULT", num_args = 1.., conflicts_with_all = ["paths", "threads", "without", "replay", "generate"])]
    merge: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Time for one scenario
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    budget: u64,
    /// Keep the order of the first counterexample in a file
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    save: Option<PathBuf>,
    /// Run a kept order once
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "threads", "without"])]
    replay: Option<PathBuf>,
    /// Print a C program that makes the calls: threads, ioctls, and the order as delays
    #[arg(long, conflicts_with_all = ["save", "format"])]
    emit_c: bool,
    /// Write to FILE instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw timelines without line-drawing characters
    #[arg(long)]
    ascii: bool,
}

const AFTER_HELP: &str = "\
Examples:
  bindery explore --threads 'tsm_bind vdev0; tsm_unbind vdev0 | destroy vdev0 | close vfio0'
  bindery explore scenarios/                       all verdicts, as CI wants them
  bindery explore designs/b-nested.toml --save order.txt
  gdb --args bindery explore --replay order.txt
  bindery explore designs/ --format html --output designs.html
  bindery explore designs/b-nested.toml --emit-c --output b-nested.c
  bindery explore --without tombstone              what is this rule for?
  bindery explore --generate triples --partition hash:1/4 --format junit --output 1.xml
  bindery explore --merge 1.xml 2.xml 3.xml 4.xml --output all.xml";

/// Sets of scenarios that nobody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Generated {
    /// Two threads of a call each
    Pairs,
    /// Three
    Triples,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, in 80 columns
    Human,
    /// For programs
    Json,
    /// For CI
    Junit,
    /// A page for a browser
    Html,
}

/// A scenario, where it stands, and what came of it.
struct Explored {
    source: String,
    scenario: Scenario,
    result: Result<Report, Failure>,
}

/// Explores what was asked for.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.emit_c {
        return emit_c::run(arguments);
    }
    if let Some(kept) = &arguments.replay {
        return kept::replay(kept, arguments);
    }
    if !arguments.merge.is_empty() {
        return merge::run(arguments);
    }
    let scenarios = match inputs::read(arguments) {
        Ok(scenarios) => scenarios,
        Err(messages) => {
            messages.iter().for_each(|message| eprintln!("{message}"));
            return ExitCode::from(exit::USAGE);
        }
    };
    if let Some(directory) = &arguments.write {
        return inputs::write(directory, &scenarios);
    }
    let limits = Limits {
        time: Duration::from_secs(arguments.budget),
        workers: thread::available_parallelism().map_or(1, usize::from),
    };
    let drawing = drawing(arguments);
    let (mut explored, mut said) = (Vec::new(), String::new());
    for (source, scenario) in scenarios {
        let result = run::run(&scenario, &limits, &mut |progress| show(&source, progress));
        clear();
        let one = Explored { source, scenario, result };
        let worth_telling = arguments.generate.is_none() || one.status() != 0;
        if arguments.format == Format::Human && worth_telling {
            said += &human::one(&one, &drawing);
            // Whoever watches need not wait for the next one.
            if arguments.output.is_none() {
                print(&std::mem::take(&mut said));
            }
        }
        explored.push(one);
    }
    said += &match arguments.format {
        Format::Human => human::summary(&explored, drawing.style),
        Format::Json => terminal::json(&json::of(&explored)),
        Format::Junit => junit::of(&explored),
        Format::Html => html::of(&explored),
    };
    if let Err(status) = write_out(arguments, &said) {
        return ExitCode::from(status);
    }
    if let Some(path) = &arguments.save
        && let Err(error) = kept::save(path, &explored)
    {
        eprintln!("bindery: cannot write {}: {error}", path.display());
        return ExitCode::from(exit::USAGE);
    }
    ExitCode::from(
        explored.iter().map(Explored::status).max_by_key(|status| weight(*status)).unwrap_or(0),
    )
}

/// Writes to the file that `--output` names, or prints.
///
/// # Errors
/// The exit status, once it was told why.
fn write_out(arguments: &Arguments, text: &str) -> Result<(), u8> {
    let Some(path) = &arguments.output else {
        print(text);
        return Ok(());
    };
    fs::write(path, text).map_err(|error| {
        eprintln!("bindery: cannot write {}: {error}", path.display());
        exit::USAGE
    })
}

fn drawing(arguments: &Arguments) -> Drawing {
    let kept = arguments.save.as_ref().map(|path| path.display().to_string());
    let is_file = arguments.output.is_some();
    let style = if is_file { Style::plain() } else { Style::of_stdout() };
    Drawing { style, ascii: arguments.ascii, kept }
}

impl Explored {
    /// The exit status that this one alone would have.
    fn status(&self) -> u8 {
        match &self.result {
            Err(Failure::Setup { .. }) => exit::USAGE,
            Err(Failure::Nondeterminism(_) | Failure::Diverged(_)) => UNEXPECTED,
            Ok(report) if !report.surprises(&self.scenario).is_empty() => UNEXPECTED,
            Ok(Report { finding, .. }) if finding.is_cut_short() => BUDGET,
            Ok(_) => 0,
        }
    }

    /// What is wrong with the verdict, in a sentence each.
    fn complaints(&self) -> Vec<String> {
        match &self.result {
            Err(failure) => vec![inputs::place(&self.source, &self.scenario, failure)],
            Ok(report) => report.surprises(&self.scenario),
        }
    }

    fn broken(&self) -> Option<&run::Broken> {
        match &self.result {
            Ok(Report { finding: Finding::Broken(broken), .. }) => Some(broken),
            Ok(_) | Err(_) => None,
        }
    }
}

/// Which status tells more: a mistake hides the rest, and a counterexample tells more than a budget.
const fn weight(status: u8) -> u8 {
    match status {
        exit::USAGE => 3,
        UNEXPECTED => 2,
        BUDGET => 1,
        _ => 0,
    }
}

/// An unexpected verdict.
const UNEXPECTED: u8 = 1;
/// The budget was reached before all was known.
const BUDGET: u8 = 3;

/// A line of progress, where somebody looks.
fn show(source: &str, progress: &explore::Progress) {
    let mut stderr = io::stderr();
    if !stderr.is_terminal() {
        return;
    }
    let bound =
        progress.preemptions.map_or("all".to_owned(), |bound| format!("<= {bound} preemptions"));
    let states = progress.counts.states.max(progress.counts.executions);
    let left = progress.left().filter(|left| left.as_secs() < 3600);
    let left = left.map_or(String::new(), |left| format!(", about {} s left", left.as_secs()));
    // A terminal that went away is nobody's loss.
    let _ = write!(
        stderr,
        "\r\x1b[K{source}: {bound}: {states} states, {:.0}/s{left}",
        progress.rate()
    );
    let _ = stderr.flush();
}

fn clear() {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K");
        let _ = stderr.flush();
    }
}
