//! How fast the shipped crates are explored, and what the explorer's hook costs those who do not explore.
//!
//! Each scenario is explored by one worker that runs every path whole (what a plain search with states and sleep
//! sets does), by one that runs unknown steps only, and by two of those, in turns; the best of the rounds counts.
//! The hook is measured as the difference between an operation of `sync` and that of the standard library below it.
//!
//! `--short` leaves out what takes minutes. `--check` fails if the ways do not find the same states, or if a ratio
//! is not what it must be at least: no times are compared, and no ratio below 1.5.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Instant;

use explore::{Budget, Replay, Settings};
use scenario::exhaust::{Exhausted, exhaust};
use scenario::{Scenario, script};
use sync::{Mutex, Refcount, rank};

struct Case {
    threads: &'static str,
    /// Whether every path is run whole, too: minutes where there are millions of states.
    whole: bool,
    is_short: bool,
}

const CASES: [Case; 4] = [
    Case {
        threads: "tsm_bind vdev0 | destroy vdev0 | vdevice_alloc dev0",
        whole: true,
        is_short: true,
    },
    Case {
        threads: "tsm_bind vdev0; tsm_unbind vdev0 | destroy vdev0 | close vfio0",
        whole: true,
        is_short: true,
    },
    Case { threads: "tsm_bind vdev0 | close vfio0 | close iommu", whole: false, is_short: true },
    Case {
        threads: "tsm_bind vdev0; tsm_unbind vdev0 | destroy vdev0; vdevice_alloc dev0 \
                  | close vfio0; close iommu",
        whole: false,
        is_short: false,
    },
];

const ROUNDS: usize = 3;
/// How much faster known steps must make a search, on the last case that is run both ways.
const FASTER_MIN: f64 = 3.0;
/// How much faster two workers must be than one, on the last case of the whole bench. The goal is 1.7; a machine
/// that others use too has less to give.
const TWO_MIN: f64 = 1.5;

fn main() -> ExitCode {
    let is_given = |name: &str| std::env::args().any(|argument| argument == name);
    let (is_short, is_checked) = (is_given("--short"), is_given("--check"));
    let mut wrong = Vec::new();
    println!(
        "| threads | states | executions, whole | executions | whole s | one s | two s | states/s, two | one : whole | two : one |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let (mut faster, mut two) = (f64::INFINITY, f64::INFINITY);
    for case in CASES.iter().filter(|case| case.is_short || !is_short) {
        let row = Row::of(case);
        row.print(case);
        wrong.extend(row.differences(case));
        faster = row.faster().unwrap_or(faster);
        two = row.two_to_one();
    }
    println!();
    hooks();
    if faster < FASTER_MIN {
        wrong
            .push(format!("known steps make a search {faster:.1} times as fast, not {FASTER_MIN}"));
    }
    // What two workers win shows where a search takes seconds, and not where others want the second core.
    if !is_short
        && two < TWO_MIN
        && std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
    {
        wrong.push(format!("two workers are {two:.2} times as fast as one, not {TWO_MIN}"));
    }
    for wrong in &wrong {
        eprintln!("explore bench: {wrong}");
    }
    if is_checked && !wrong.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The best of each way.
struct Row {
    whole: Option<Exhausted>,
    one: Exhausted,
    two: Exhausted,
}

impl Row {
    fn of(case: &Case) -> Self {
        let scenario =
            Scenario::of(script::parse(case.threads).expect("the cases are well written"));
        let mut best: Option<Self> = None;
        for _ in 0..ROUNDS {
            let row = Self {
                whole: case.whole.then(|| explored(&scenario, Replay::Full, 1)),
                one: explored(&scenario, Replay::Unknown, 1),
                two: explored(&scenario, Replay::Unknown, 2),
            };
            best = Some(match best {
                Some(best) => Self {
                    whole: best.whole.zip(row.whole).map(|(one, other)| quicker(one, other)),
                    one: quicker(best.one, row.one),
                    two: quicker(best.two, row.two),
                },
                None => row,
            });
        }
        best.expect("there is more than one round")
    }

    fn faster(&self) -> Option<f64> {
        let whole = self.whole.as_ref()?;
        Some(whole.elapsed.as_secs_f64() / self.one.elapsed.as_secs_f64())
    }

    fn two_to_one(&self) -> f64 {
        self.one.elapsed.as_secs_f64() / self.two.elapsed.as_secs_f64()
    }

    fn print(&self, case: &Case) {
        let seconds = |it: &Exhausted| format!("{:.2}", it.elapsed.as_secs_f64());
        let dash = || "-".to_owned();
        let whole = self.whole.as_ref();
        println!(
            "| `{}` | {} | {} | {} | {} | {} | {} | {:.0} | {} | {:.2} |",
            case.threads.replace('|', "\\|"),
            self.one.counts.states,
            whole.map_or_else(dash, |it| it.counts.executions.to_string()),
            self.one.counts.executions,
            whole.map_or_else(dash, seconds),
            seconds(&self.one),
            seconds(&self.two),
            self.two.counts.states as f64 / self.two.elapsed.as_secs_f64(),
            self.faster().map_or_else(dash, |faster| format!("{faster:.1}")),
            self.two_to_one(),
        );
    }

    fn differences(&self, case: &Case) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |other: &Exhausted, way: &str| {
            let is_same = other.outcomes == self.one.outcomes
                && other.finals == self.one.finals
                && other.violations == self.one.violations
                && other.is_whole;
            if !is_same {
                differences.push(format!("{}: {way} finds something else", case.threads));
            }
        };
        compare(&self.two, "two workers");
        if let Some(whole) = &self.whole {
            compare(whole, "running every path whole");
            if whole.counts.states != self.one.counts.states {
                differences
                    .push(format!("{}: other states where paths are run whole", case.threads));
            }
        }
        differences
    }
}

fn quicker(one: Exhausted, other: Exhausted) -> Exhausted {
    if other.elapsed < one.elapsed { other } else { one }
}

fn explored(scenario: &Scenario, replay: Replay, workers: usize) -> Exhausted {
    let budget = Budget { paths: u64::MAX, ..Budget::default() };
    let settings = Settings { replay, workers, budget, ..Settings::default() };
    exhaust(scenario, &settings).expect("the cases are deterministic")
}

/// What the hook costs where nobody explores: nanoseconds an operation.
fn hooks() {
    println!("| operation | of `sync` ns | of the standard library ns | the hook ns |");
    println!("|---|---|---|---|");
    let mutex: Mutex<rank::Irq, u64> = Mutex::new(0);
    let plain = std::sync::Mutex::new(0_u64);
    let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..HOOK_ROUNDS {
        ours = ours.min(timed(|| *black_box(&mutex).lock() += 1));
        theirs = theirs.min(timed(|| {
            *black_box(&plain).lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }));
    }
    row("lock, add, unlock (asks twice, tells once)", ours, theirs);
    let count = Refcount::new(1);
    let raw = AtomicU32::new(1);
    let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..HOOK_ROUNDS {
        ours = ours.min(timed(|| {
            black_box(black_box(&count).inc_not_zero());
            black_box(black_box(&count).dec_not_last());
        }));
        theirs = theirs.min(timed(|| {
            let up = |count: u32| (count != 0).then(|| count + 1);
            let down = |count: u32| (count > 1).then(|| count - 1);
            black_box(black_box(&raw).fetch_update(SeqCst, SeqCst, up)).ok();
            black_box(black_box(&raw).fetch_update(SeqCst, SeqCst, down)).ok();
        }));
    }
    row("inc_not_zero, half of a pair with dec_not_last", ours / 2.0, theirs / 2.0);
}

fn row(name: &str, ours: f64, theirs: f64) {
    println!("| {name} | {ours:.2} | {theirs:.2} | {:.2} |", ours - theirs);
}

/// Short and many, so that some are not interrupted.
const HOOK_ROUNDS: usize = 1000;
const OPERATIONS: u32 = 20_000;

/// Nanoseconds of one operation.
fn timed(mut operation: impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..OPERATIONS {
        operation();
    }
    begun.elapsed().as_nanos() as f64 / f64::from(OPERATIONS)
}
