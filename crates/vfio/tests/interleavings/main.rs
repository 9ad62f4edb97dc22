//! Every interleaving of two calls that bind, unbind or end a TDI, or open and end what a group gives, on the shipped crates: nobody waits for
//! ever, nothing is used after its end, and what must hold when nothing runs does.
//!
//! The numbers of the invariants are those of the design: I1 nothing is bound after VFIO's close returned, I2 the
//! two pointers between device and vdevice agree, I3 one unbind per bind, I4 no use after end, I5 an id never
//! names two objects, I8 close is bounded, I9 host and device agree on the TDI's state or the host says that it
//! does not know.

#![expect(clippy::print_stdout, reason = "prints what it took")]

extern crate bindery_vfio as vfio;

mod device;
mod groups;
mod world;

use std::sync::Arc;
use std::time::Duration;

use explore::{Budget, Report, Script, Settings, Verdict, explore};

use crate::device::Answers;
use crate::world::{CALLS, Call, Outcome, Shipped, Start};

type Explored = Report<Call, Outcome>;

fn run(start: Start, threads: &[Call], settings: &Settings) -> Explored {
    let script = Script::new(threads.iter().map(|call| vec![*call]));
    explore(&Arc::new(Shipped(start)), &script, settings, &mut |_| {}).unwrap()
}

fn assert_safe(start: Start, threads: &[Call], report: &Explored) {
    if let Verdict::Counterexample(found) = &report.verdict {
        panic!("{start}: {threads:?}: {}\n{}", found.violation, found.schedule);
    }
}

fn pairs() -> impl Iterator<Item = [Call; 2]> {
    let all = CALLS.iter().enumerate();
    all.flat_map(|(index, one)| CALLS[index..].iter().map(|other| [*one, *other]))
}

fn every_pair(answers: Answers, settings: &Settings) {
    for bound in [false, true] {
        let start = Start { bound, answers };
        for pair in pairs() {
            let report = run(start, &pair, settings);
            assert_safe(start, &pair, &report);
            let [one, other] = pair;
            let counts = report.counts;
            println!(
                "{start}: {one} | {other}: {}: {} states, {} executions, {} steps at most",
                report.verdict, counts.states, counts.executions, counts.depth
            );
        }
    }
}

#[test]
fn every_pair_is_safe_in_all_interleavings() {
    let everything = Settings { preemptions: Vec::new(), ..Settings::default() };
    every_pair(Answers::AtOnce, &everything);
}

#[test]
fn every_pair_is_safe_with_a_slow_device() {
    let budget = Budget { time: Duration::from_secs(2), ..Budget::default() };
    let bounded = Settings { preemptions: vec![0, 1], all: false, budget, ..Settings::default() };
    every_pair(Answers::Later, &bounded);
}

/// A call that runs alone meets nobody: its one execution has as many steps as it has scheduling points.
#[test]
fn calls_have_few_scheduling_points() {
    let everything = Settings { preemptions: Vec::new(), ..Settings::default() };
    for bound in [false, true] {
        let start = Start { bound, answers: Answers::AtOnce };
        for call in CALLS {
            let report = run(start, &[call], &everything);
            assert_safe(start, &[call], &report);
            assert_eq!(report.counts.executions, 1, "{call} meets nobody");
            let points = report.counts.depth;
            println!("{start}: {call}: {points} scheduling points");
            let is_tsm_call = matches!(call, Call::Bind | Call::Unbind | Call::Disconnect);
            assert!(!is_tsm_call || points <= POINTS_MAX, "{call} has {points}");
        }
    }
}

/// What a TSM call may have, so that scripts of several stay explorable.
const POINTS_MAX: usize = 15;
