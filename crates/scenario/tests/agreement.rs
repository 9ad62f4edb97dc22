//! Every way of exploring says the same of every scenario that is small enough for it: what can go wrong, what the
//! calls answer, and what is left when all threads have ended.
//!
//! | way | shares with what ships |
//! |---|---|
//! | states and sleep sets, known steps not run again | is it |
//! | the same, every path run whole | the state, the sleep sets |
//! | states alone, every path run whole | the state |
//! | DPOR | the footprints |
//! | every interleaving | nothing but the scheduling points |

#![expect(clippy::print_stdout, reason = "prints how far each way came")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bindery_scenario::Scenario;
use bindery_scenario::exhaust::{Exhausted, exhaust};
use bindery_scenario::generate::{Width, scenarios};
use explore::{Budget, Reduction, Replay, Settings};

/// Paths that a way may take; larger scenarios are left to the others.
const PATHS: u64 = 2_000;
/// Likewise where hardly anything is run.
const KNOWN_PATHS: u64 = 100_000;
/// A scenario of more states is not small.
const STATES: u64 = 4_000;
/// Nor one of more than these where every interleaving is run.
const STATES_UNREDUCED: u64 = 250;

/// From the one that shares least.
const WAYS: [(&str, Reduction, Replay, u64); 6] = [
    ("every interleaving", Reduction::None, Replay::Full, PATHS),
    ("every interleaving of known steps", Reduction::None, Replay::Unknown, KNOWN_PATHS),
    ("DPOR", Reduction::Dpor, Replay::Full, PATHS),
    ("states", Reduction::States, Replay::Full, PATHS),
    ("states and sleep sets", Reduction::StatesAndSleep, Replay::Full, PATHS),
    ("states of known steps", Reduction::States, Replay::Unknown, KNOWN_PATHS),
];

fn explored(scenario: &Scenario, reduction: Reduction, replay: Replay, paths: u64) -> Exhausted {
    let budget = Budget { time: Duration::from_secs(60), paths, ..Budget::default() };
    // Threads of an execution in a deadlock are leaked, and there is room for so many.
    let violations_max = 2000;
    let settings =
        Settings { reduction, replay, budget, violations_max, workers: 1, ..Settings::default() };
    exhaust(scenario, &settings).unwrap()
}

/// Explores scenarios in every way and returns how many of them each way came to the end of.
fn agree(scenarios: &[Scenario]) -> [usize; WAYS.len()] {
    let mut whole = [0; WAYS.len()];
    for scenario in scenarios {
        let name = &scenario.title;
        let ours = explored(scenario, Reduction::StatesAndSleep, Replay::Unknown, KNOWN_PATHS);
        if !ours.is_whole || ours.counts.states > STATES {
            println!("{name}: too large");
            continue;
        }
        let mut ends = Vec::new();
        for (index, (way, reduction, replay, paths)) in WAYS.into_iter().enumerate() {
            if reduction == Reduction::None && ours.counts.states > STATES_UNREDUCED {
                continue;
            }
            let theirs = explored(scenario, reduction, replay, paths);
            if !theirs.is_whole {
                continue;
            }
            assert_agree(&format!("{name}: {way}"), reduction, &theirs, &ours);
            whole[index] += 1;
            ends.push(way);
        }
        println!("{name}: {} states: {}", ours.counts.states, ends.join(", "));
    }
    println!("{whole:?}");
    whole
}

/// The scenario files of a directory.
fn files(directory: &str) -> Vec<Scenario> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory);
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let is_scenario = |file: &&PathBuf| file.extension().is_some_and(|it| it == "toml");
    let read = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy();
        Scenario::parse(&name, &std::fs::read_to_string(file).unwrap()).unwrap()
    };
    files.iter().filter(is_scenario).map(read).collect()
}

fn assert_agree(what: &str, reduction: Reduction, theirs: &Exhausted, ours: &Exhausted) {
    if reduction == Reduction::Dpor {
        // A path that is cut short by what it found shows no races of what would have followed.
        assert_eq!(theirs.violations.is_empty(), ours.violations.is_empty(), "{what}");
    } else {
        assert_eq!(theirs.violations, ours.violations, "{what}");
    }
    if ours.violations.is_empty() {
        assert_eq!(theirs.outcomes, ours.outcomes, "{what}");
        assert_eq!(theirs.finals, ours.finals, "{what}");
    }
    if reduction == Reduction::StatesAndSleep {
        assert_eq!(theirs.counts.states, ours.counts.states, "{what}");
    }
}

#[test]
fn every_way_agrees_on_the_designs() {
    let whole = agree(&files("designs"));
    assert!(whole.iter().all(|whole| *whole >= 1), "{whole:?}");
}

#[test]
fn every_way_agrees_on_the_shipped_crates() {
    let whole = agree(&files("scenarios"));
    // None of them is so small that every interleaving can be run from its start.
    assert!(whole[1..].iter().all(|whole| *whole >= 1), "{whole:?}");
}

/// The pairs that refuse one another at once are small enough for every way.
#[test]
fn every_way_agrees_on_pairs_of_calls() {
    let pairs = scenarios(Width::Pairs);
    let whole = agree(&pairs[..66]);
    assert!(whole.iter().all(|whole| *whole >= 1), "{whole:?}");
}
