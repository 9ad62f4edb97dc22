//! The page table beside what else could be used, and the goals it is held to.
//!
//! Every round runs each workload on every contender, one after the other, so that a change in the
//! machine's mood meets them all. Single-threaded work is measured in processor time of the thread.
//! Verdicts come from ratios within a round: a goal is met if three rounds of four meet it. Answers
//! are compared with what is known to be mapped, inside the runs.
//!
//! `cargo bench -p bindery-pagetable` prints all; with `-- --short` fewer rounds of less, for a run
//! that only shows that everything works; with `-- --gates` the run fails where a contender is less
//! than 1.5 times slower that ought to be several times slower, or memory is wasted; with `-- --docs` the tables and a plot are written to `docs/`. `--only NAME` runs one part, `--rounds N` another number of rounds.

#![expect(
    clippy::cast_possible_truncation,
    reason = "figures are rounded and indices are small; this reports, and serves nobody"
)]

#[path = "page_table/goals.rs"]
mod goals;
#[path = "page_table/maps.rs"]
mod maps;
#[path = "page_table/measure.rs"]
mod measure;
#[path = "page_table/peers.rs"]
mod peers;
#[path = "page_table/report.rs"]
mod report;
#[path = "page_table/scale.rs"]
mod scale;
#[path = "page_table/threads.rs"]
mod threads;
#[path = "page_table/writes.rs"]
mod writes;

use std::fs;
use std::process::ExitCode;

use maps::Scale;
use measure::Samples;
use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if let Some(at) = arguments.iter().position(|argument| argument == "--memory") {
        let contender = arguments.get(at + 1).map_or("", String::as_str);
        let areas = arguments.get(at + 2).and_then(|text| text.parse().ok()).unwrap_or(0);
        println!("{}", scale::memory_of(contender, areas));
        return ExitCode::SUCCESS;
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let mut scale = if has("--short") { SHORT } else { FULL };
    if has("--short") {
        println!("Short: what says 64 GiB is 8 GiB, what says 16.7M areas has 2M.\n");
    }
    if let Some(rounds) = value("--rounds").and_then(|text| text.parse().ok()) {
        scale.rounds = rounds;
    }
    let only = value("--only");
    let mut samples = Samples::default();
    let begin = load();
    println!("{}\n", machine());
    for (name, work) in WORK {
        if only.is_none_or(|only| only == name) {
            println!("## {name} (load {})\n", load());
            work(&scale, &mut samples);
        }
    }
    let report = Report::of(&samples);
    println!("{}\n{}\nload at the end: {}", report.figures, report.goals, load());
    let (rounds, end) = (scale.rounds, load());
    let circumstances =
        format!("{}; {rounds} rounds; load {begin} before, {end} after.", machine());
    if has("--docs")
        && let Err(error) = report.write(&circumstances)
    {
        eprintln!("the pages cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    if has("--gates") && report.gates_missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

type Work = fn(&Scale, &mut Samples);

const WORK: &[(&str, Work)] = &[
    ("memory", |_, samples| scale::memory(samples)),
    ("machine", maps::machine),
    ("small", maps::small),
    ("placement", scale::placement),
    ("dirty", writes::dirty),
    ("threads", threads::threads),
    ("whole", maps::whole),
    ("growth", scale::growth),
];

const FULL: Scale =
    Scale { rounds: 9, small_maps: 1 << 20, queries: 200_000, whole_bytes: 64 << 30 };
const SHORT: Scale =
    Scale { rounds: 3, small_maps: 1 << 20, queries: 50_000, whole_bytes: 8 << 30 };

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} x {count}, Linux {}", model.trim_start_matches(['\t', ' ', ':']), kernel.trim())
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}
