//! What the front end costs a client, against the least any seccomp-notify supervisor can cost and
//! against no supervisor at all.
//!
//! Every round runs each measure under each contender once, so that a change in the machine's mood
//! meets them all; ratios are taken within a round and their median and quartiles printed. The C
//! programs beside this file are the client and the floor. With `--check` the coarse bounds that
//! are safe on a shared machine are enforced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;
const BINDERY: &str = env!("CARGO_BIN_EXE_bindery");
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/front_end");

/// One comparison: a measure of the client under two contenders.
struct Comparison {
    title: &'static str,
    ours: (Contender, &'static str),
    theirs: (Contender, &'static str),
    /// Largest median ratio that `--check` accepts; coarse, as the machine is shared.
    bound: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    /// `bindery run`.
    Bindery,
    /// The C floor with one copy (in).
    NoopOneCopy,
    /// The C floor with two copies (in, out).
    NoopTwoCopies,
    /// The C floor that also makes the system calls which a MAP needs, with one copy.
    LooksOneCopy,
    /// The same with two copies.
    LooksTwoCopies,
    /// No supervisor.
    Native,
}

use Contender::{Bindery, LooksOneCopy, LooksTwoCopies, Native, NoopOneCopy, NoopTwoCopies};

const fn against_native(
    title: &'static str,
    measure: &'static str,
    bound: Option<f64>,
) -> Comparison {
    Comparison { title, ours: (Bindery, measure), theirs: (Native, measure), bound }
}

const COMPARISONS: &[Comparison] = &[
    Comparison {
        title: "IOAS_MAP, automatic IOVA / no-op, copy in and out",
        ours: (Bindery, "map_auto"),
        theirs: (NoopTwoCopies, "map_auto"),
        bound: Some(1.95),
    },
    Comparison {
        title: "IOAS_MAP, fixed IOVA / no-op, copy in and out",
        ours: (Bindery, "map_fixed"),
        theirs: (NoopTwoCopies, "map_auto"),
        bound: Some(1.95),
    },
    Comparison {
        title: "IOAS_MAP, fixed IOVA / no-op, copy in only",
        ours: (Bindery, "map_fixed"),
        theirs: (NoopOneCopy, "map_fixed"),
        bound: None,
    },
    Comparison {
        title: "IOAS_MAP, automatic IOVA / C loop of the same system calls",
        ours: (Bindery, "map_auto"),
        theirs: (LooksTwoCopies, "map_auto"),
        bound: Some(1.5),
    },
    Comparison {
        title: "IOAS_MAP, fixed IOVA / C loop of the same system calls",
        ours: (Bindery, "map_fixed"),
        theirs: (LooksOneCopy, "map_fixed"),
        bound: Some(1.5),
    },
    Comparison {
        title: "GET_IRQ_INFO / no-op, copy in and out",
        ours: (Bindery, "irq_info"),
        theirs: (NoopTwoCopies, "irq_info"),
        bound: None,
    },
    Comparison {
        title: "mapped BAR access / plain shared memory",
        ours: (Bindery, "bar"),
        theirs: (Bindery, "memory"),
        bound: Some(1.5),
    },
    against_native("read of 4 KiB", "read4k", Some(1.5)),
    against_native("write of 4 KiB", "write4k", Some(1.5)),
    against_native("pread of 4 KiB", "pread4k", Some(1.5)),
    against_native("pwrite of 4 KiB", "pwrite4k", Some(1.5)),
    against_native("getppid (untrapped)", "getppid", None),
    against_native("write of 8 bytes (untrapped)", "write8", None),
    against_native("write of 5 bytes (trapped, continued)", "write5", None),
    against_native("fstat (trapped, continued)", "fstat", None),
    against_native("stat (trapped, continued)", "stat", None),
    against_native("open + close (trapped, continued)", "open", None),
];

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let programs = match Programs::build(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(programs) => programs,
        Err(reason) => {
            eprintln!("front_end bench: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        eprintln!("front_end: round {} of {ROUNDS}", round + 1);
        rounds.push(programs.round());
    }
    let missed = print_table(&rounds);
    print_start_up();
    if check && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Nanoseconds (median of one process's calls) by contender and measure.
type Round = BTreeMap<(Contender, String), f64>;

struct Programs {
    client: PathBuf,
    noop: PathBuf,
}

impl Programs {
    fn build(into: &Path) -> Result<Self, String> {
        let build = |name: &str| {
            let program = into.join(format!("front_end_{name}"));
            let status = Command::new("cc")
                .args(["-O2", "-Wall", "-Werror", "-o"])
                .arg(&program)
                .arg(Path::new(SOURCES).join(format!("{name}.c")))
                .status()
                .map_err(|error| format!("cc: {error}"))?;
            if status.success() { Ok(program) } else { Err(format!("cc failed on {name}.c")) }
        };
        Ok(Self { client: build("client")?, noop: build("noop")? })
    }

    fn round(&self) -> Round {
        let mut round = Round::new();
        for contender in [NoopOneCopy, NoopTwoCopies, LooksOneCopy, LooksTwoCopies, Bindery, Native]
        {
            let measures: std::collections::BTreeSet<&str> = COMPARISONS
                .iter()
                .flat_map(|comparison| [comparison.ours, comparison.theirs])
                .filter(|(of, measure)| *of == contender && *measure != "memory")
                .map(|(_, measure)| measure)
                .collect();
            // One process a measure, so that no measure is taken in the wake of another.
            for measure in measures {
                for (name, ns) in self.take(contender, measure) {
                    round.insert((contender, name), ns);
                }
            }
        }
        round
    }

    fn take(&self, contender: Contender, measure: &str) -> Vec<(String, f64)> {
        let mut command = match contender {
            Bindery => Command::new(BINDERY),
            NoopOneCopy | NoopTwoCopies | LooksOneCopy | LooksTwoCopies => Command::new(&self.noop),
            Native => Command::new(&self.client),
        };
        match contender {
            Bindery => command.args(["run", "--"]).arg(&self.client),
            NoopOneCopy => command.args(["1", "0"]).arg(&self.client).arg("noop"),
            NoopTwoCopies => command.args(["2", "0"]).arg(&self.client).arg("noop"),
            LooksOneCopy => command.args(["1", "1"]).arg(&self.client).arg("noop"),
            LooksTwoCopies => command.args(["2", "1"]).arg(&self.client).arg("noop"),
            Native => &mut command,
        };
        let output = command.arg(measure).stderr(Stdio::inherit()).output().expect("it starts");
        assert!(output.status.success(), "{measure}: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("the client prints ASCII");
        text.lines().map(parse).collect()
    }
}

fn parse(line: &str) -> (String, f64) {
    let mut words = line.split(' ');
    let name = words.next().expect("a name").to_owned();
    (name, words.next().and_then(|p50| p50.parse().ok()).expect("a median"))
}

/// Prints the table; true if a bound was missed.
fn print_table(rounds: &[Round]) -> bool {
    println!("| measure | ours ns | theirs ns | ratio | quartiles | ours - theirs ns |");
    println!("|---|---|---|---|---|---|");
    let mut missed = false;
    for comparison in COMPARISONS {
        let key = |(contender, measure): (Contender, &str)| (contender, measure.to_owned());
        let ours: Vec<f64> = rounds.iter().map(|round| round[&key(comparison.ours)]).collect();
        let theirs: Vec<f64> = rounds.iter().map(|round| round[&key(comparison.theirs)]).collect();
        let ratios: Vec<f64> =
            ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        let differences: Vec<f64> =
            ours.iter().zip(&theirs).map(|(ours, theirs)| ours - theirs).collect();
        let ratio = quantile(&ratios, 0.5);
        println!(
            "| {} | {:.1} | {:.1} | {ratio:.2} | {:.2}-{:.2} | {:+.0} |",
            comparison.title,
            quantile(&ours, 0.5),
            quantile(&theirs, 0.5),
            quantile(&ratios, 0.25),
            quantile(&ratios, 0.75),
            quantile(&differences, 0.5),
        );
        if let Some(bound) = comparison.bound.filter(|bound| ratio > *bound) {
            println!("\nMISSED: {}: {ratio:.2} is over {bound:.2}\n", comparison.title);
            missed = true;
        }
    }
    missed
}

fn print_start_up() {
    let time = |command: &mut Command| {
        let begun = Instant::now();
        let status = command.status().expect("it starts");
        assert!(status.success(), "{status}");
        begun.elapsed()
    };
    let mut added = Vec::new();
    for _ in 0..21 {
        let under = time(Command::new(BINDERY).args(["run", "--", "true"]));
        let native = time(&mut Command::new("true"));
        added.push(milliseconds(under) - milliseconds(native));
    }
    println!(
        "\n`bindery run -- true` adds {:.1} ms (quartiles {:.1}-{:.1}) to `true`.",
        quantile(&added, 0.5),
        quantile(&added, 0.25),
        quantile(&added, 0.75)
    );
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a handful of rounds"
    )]
    let index = ((sorted.len() - 1) as f64 * at).round() as usize;
    sorted[index]
}
