//! Explores one scenario of the shipped crates by one explorer, and says in a line of JSON what came of it:
//! `peers EXPLORER FILE SECONDS`, where the explorer is `bindery`, `bindery-bounds`, `shuttle-dfs`, `shuttle-random`,
//! `shuttle-pct` or `loom`.
//!
//! All run the same source: the crates ask [`sync::hook`] before each operation on shared state, and here that hook is
//! made of what shuttle and loom have for threads and for waiting. What a thread may do next is decided by the same few
//! rules for both ([`objects`]); who goes on is theirs to choose.

#![forbid(unsafe_code)]

mod loom_hook;
mod objects;
mod shuttle_hook;

use std::path::Path;
use std::process::{ExitCode, exit};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use std::{panic, thread};

use explore::{Budget, Model, Script, Settings, Verdict};
use scenario::{Planned, Scenario, Shipped};
use serde_json::json;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [explorer, file, seconds] = arguments.as_slice() else {
        eprintln!("peers EXPLORER FILE SECONDS");
        return ExitCode::from(2);
    };
    let cap = Duration::from_secs(seconds.parse().unwrap_or(20));
    let what = match What::read(Path::new(file)) {
        Ok(what) => what,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    BEGAN.get_or_init(Instant::now);
    match explorer.as_str() {
        "bindery" => bindery(what, cap, &[]),
        "bindery-bounds" => bindery(what, cap, &[0, 1, 2]),
        _ => {}
    }
    // The others stop at a panic, wherever it is; deadlocks are panics to them.
    panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a panic without words");
        report(Some(text), false);
    }));
    thread::spawn(move || {
        thread::sleep(cap);
        report(None, false);
    });
    match explorer.as_str() {
        "loom" => loom_hook::explore(what),
        "shuttle-dfs" => shuttle_hook::depth_first(what),
        "shuttle-random" => shuttle_hook::random(what),
        "shuttle-pct" => shuttle_hook::pct(what),
        _ => {
            eprintln!("there is no explorer {explorer}");
            return ExitCode::from(2);
        }
    }
    report(None, true)
}

/// What is explored.
#[derive(Clone)]
struct What {
    model: Arc<Shipped>,
    script: Script<Planned>,
    clock_runs: bool,
}

impl What {
    fn read(file: &Path) -> Result<Self, String> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
        let scenario = Scenario::parse(&name, &text).map_err(|mistake| mistake.to_string())?;
        Ok(Self {
            model: Arc::new(Shipped::new(&scenario, false)),
            script: scenario::run::script(&scenario.threads),
            clock_runs: scenario.clock_runs(),
        })
    }

    /// Begins an execution.
    fn setup(&self) -> <Shipped as Model>::World {
        EXECUTIONS.fetch_add(1, SeqCst);
        self.model.setup()
    }

    /// The calls of a thread.
    fn run(&self, world: &<Shipped as Model>::World, thread: usize) {
        for call in &self.script.threads[thread] {
            self.model.call(world, call);
        }
    }
}

/// The explorer of this project, by one worker: first with so many preemptions at most, then all interleavings.
fn bindery(what: What, cap: Duration, preemptions: &[u32]) -> ! {
    struct Counted(What);

    impl Model for Counted {
        type World = <Shipped as Model>::World;
        type Call = Planned;
        type Outcome = <Shipped as Model>::Outcome;

        fn setup(&self) -> Self::World {
            self.0.setup()
        }

        fn call(&self, world: &Self::World, call: &Planned) -> Self::Outcome {
            self.0.model.call(world, call)
        }

        fn check(&self, world: &Self::World) {
            self.0.model.check(world);
        }
    }

    let settings = Settings {
        preemptions: preemptions.to_vec(),
        workers: 1,
        violations_max: 1,
        shrink: false,
        deadlines: what.clock_runs,
        budget: Budget { time: cap, ..Budget::default() },
        ..Settings::default()
    };
    let script = what.script.clone();
    let explored = explore::explore(&Arc::new(Counted(what)), &script, &settings, &mut |_| {});
    match explored.map(|explored| explored.verdict) {
        Ok(Verdict::Safe) => report(None, true),
        Ok(Verdict::SafeUpTo { .. }) => report(None, false),
        Ok(Verdict::Counterexample(found)) => report(Some(&found.violation.message), false),
        Err(nondeterminism) => {
            eprintln!("{nondeterminism}");
            exit(1)
        }
    }
}

/// Says what came of it, and ends the process: what is still running is of no interest.
fn report(found: Option<&str>, exhausted: bool) -> ! {
    let seconds = BEGAN.get().map_or(0.0, |began| began.elapsed().as_secs_f64());
    let executions = EXECUTIONS.load(SeqCst);
    println!(
        "{}",
        json!({ "found": found, "exhausted": exhausted, "executions": executions, "seconds": seconds })
    );
    exit(0)
}

static BEGAN: OnceLock<Instant> = OnceLock::new();
static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
