//! Five philosophers: a deadlock and the way to it, then the table on which nobody starves, with progress.
//!
//! `cargo run --release -p bindery-explore --example philosophers`

#![expect(clippy::print_stdout, reason = "prints what it found")]

use std::fmt;
use std::sync::Arc;

use bindery_explore::{Model, Script, Settings, Verdict, explore, timeline};
use sync::{Mutex, Rank};

const SEATS: usize = 5;

/// Forks are of one rank, and the order in which they are taken is the question: so nobody asserts it.
enum Fork {}

impl Rank for Fork {
    const ORDER: u8 = 1;
    const NAME: &'static str = "fork";
    const ASSERTED: bool = false;
}

struct Table;

/// Eats once, with the forks taken in this order.
#[derive(Clone)]
struct Eat {
    first: usize,
    second: usize,
}

impl fmt::Display for Eat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eat {} {}", self.first, self.second)
    }
}

impl Model for Table {
    type World = Vec<Mutex<Fork, u32>>;
    type Call = Eat;
    type Outcome = &'static str;

    fn setup(&self) -> Self::World {
        (0..SEATS).map(|_| Mutex::new(0)).collect()
    }

    fn call(&self, forks: &Self::World, eat: &Eat) -> &'static str {
        let mut first = forks[eat.first].lock();
        *forks[eat.second].lock() += 1;
        *first += 1;
        "fed"
    }

    fn check(&self, forks: &Self::World) {
        for fork in forks {
            assert_eq!(*fork.lock(), 2, "each fork has two neighbours");
        }
    }
}

fn main() {
    let greedy = (0..SEATS).map(|seat| vec![Eat { first: seat, second: (seat + 1) % SEATS }]);
    let orderly = (0..SEATS).map(|seat| {
        let (left, right) = (seat, (seat + 1) % SEATS);
        vec![Eat { first: left.min(right), second: left.max(right) }]
    });
    dine("each takes the left fork first", &Script::new(greedy));
    dine("each takes the lower fork first", &Script::new(orderly));
}

fn dine(rule: &str, script: &Script<Eat>) {
    let (model, settings) = (Arc::new(Table), Settings::default());
    let report = explore(&model, script, &settings, &mut |progress| {
        let share = progress.done * 100.0;
        println!(
            "  {} states, {:.0} a second, {share:.0} %",
            progress.counts.states,
            progress.rate()
        );
    });
    let report = report.expect("the table is deterministic");
    println!("{rule}: {}", report.verdict);
    println!("  {} states in {:?}", report.counts.states, report.elapsed);
    if let Verdict::Counterexample(found) = report.verdict {
        let replayed = found.schedule.replay(&model, &found.script, &settings);
        let replayed = replayed.expect("the table does the same again");
        println!("{}", timeline::columns(&replayed.tale, found.script.threads.len(), 80));
        println!("{}", found.schedule);
    }
}
