//! `bindery explore` beside shuttle and loom, on the same source: how many executions and how long to try all
//! interleavings of a scenario, and to find each mutant of `mutants/`.
//!
//! `cargo bench --bench explore_peers` takes most of an hour; `-- --short` looks at little and not for long,
//! `-- --cap SECONDS` says when a search is given up, `-- --mutant NAME` looks at one. With `BINDERY_BLESS=1` the tables are
//! written into `docs/explore-peers.md`.
//!
//! Each search is a process of its own, one at a time: all have one OS thread, and what one leaks is no other's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use mutants::{Mutant, Tree};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const AT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../explore-peers");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/explore-peers.md");
const BEGIN: &str = "<!-- written by benches/explore_peers.rs -->\n";

const BINDERY: &str = "bindery";
/// Those that can say that there is nothing.
const EXHAUSTIVE: [&str; 3] = [BINDERY, "loom", "shuttle-dfs"];
const ALL: [&str; 6] =
    [BINDERY, "bindery-bounds", "loom", "shuttle-dfs", "shuttle-random", "shuttle-pct"];

/// Scenarios in which nothing is wrong: two threads, and three.
const SAFE: [&str; 5] = [
    "s06-unbind-never-bound",
    "s25-two-binds",
    "s03-destroy-then-close",
    "s23-vm-and-all",
    "origin",
];

fn main() {
    let asked = Asked::of(env::args().skip(1));
    let root = fs::canonicalize(ROOT).expect("the workspace is there");
    let tree = Tree::new(&root, Path::new(AT), true).unwrap_or_else(|error| panic!("{error}"));
    let bench = Bench { root, tree, cap: asked.cap };
    let mut text =
        format!("\n{}, one search at a time, given up after {} s.\n", machine(), asked.cap);
    if asked.mutant.is_none() {
        let safe = if asked.short { &SAFE[..1] } else { &SAFE[..] };
        text += &bench.exhaust(safe);
    }
    let mut mutants =
        Mutant::all(&bench.root.join("mutants")).unwrap_or_else(|error| panic!("{error}"));
    mutants.retain(|mutant| asked.mutant.as_ref().is_none_or(|name| *name == mutant.name));
    if asked.short {
        mutants.truncate(SHORT_MUTANTS);
    }
    text += &bench.find(&mutants);
    println!("{text}");
    if env::var_os("BINDERY_BLESS").is_some() {
        let document = fs::read_to_string(DOCUMENT).expect("docs/explore-peers.md is there");
        let (prose, _) = document.split_once(BEGIN).expect("the tables' place is marked");
        fs::write(DOCUMENT, format!("{prose}{BEGIN}{text}")).expect("it can be written");
    }
}

const SHORT_MUTANTS: usize = 2;
const SHORT_CAP: u32 = 2;
const CAP: u32 = 20;

struct Asked {
    short: bool,
    cap: u32,
    mutant: Option<String>,
}

impl Asked {
    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let mut asked = Self { short: false, cap: CAP, mutant: None };
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--short" => (asked.short, asked.cap) = (true, SHORT_CAP),
                "--cap" => {
                    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
                    asked.cap = seconds.expect("--cap SECONDS");
                }
                "--mutant" => asked.mutant = Some(arguments.next().expect("--mutant NAME")),
                other => panic!("{other}: --short, --cap SECONDS or --mutant NAME"),
            }
        }
        asked
    }
}

struct Bench {
    root: PathBuf,
    tree: Tree,
    cap: u32,
}

impl Bench {
    /// How long it takes to know that nothing is wrong.
    fn exhaust(&self, scenarios: &[&str]) -> String {
        let peers = self.build(&BTreeMap::new());
        let mut text = head("scenario in which nothing is wrong", &EXHAUSTIVE);
        for scenario in scenarios {
            let file = format!("scenarios/{scenario}.toml");
            let mut cells = Vec::new();
            for explorer in EXHAUSTIVE {
                let searched = self.search(&peers, explorer, &file);
                assert_eq!(searched.found, None, "{explorer} finds something in {file}");
                cells.push(searched.cell(searched.exhausted));
            }
            text += &line(&format!("[`{scenario}`](../{file})"), &cells);
        }
        text
    }

    /// How long it takes to find what is wrong.
    fn find(&self, mutants: &[Mutant]) -> String {
        let mut text = head("mutant", &ALL);
        for mutant in mutants {
            let name = &mutant.name;
            let files = mutant.apply(&self.root).unwrap_or_else(|error| panic!("{name}: {error}"));
            let peers = self.build(&files);
            let mut cells = Vec::new();
            for explorer in ALL {
                let searched = self.search(&peers, explorer, &mutant.scenario);
                let is_found = searched.found.is_some();
                assert!(explorer != BINDERY || is_found, "{name} is not found: {searched:?}");
                cells.push(searched.cell(is_found));
            }
            text += &line(&format!("[`{name}`](../mutants/{name}.patch)"), &cells);
        }
        text
    }

    fn build(&self, files: &BTreeMap<String, String>) -> PathBuf {
        let built = self
            .tree
            .change(files)
            .and_then(|()| self.tree.build(&["--example", "peers", "--profile", PROFILE]));
        let target = built.unwrap_or_else(|error| panic!("{error}"));
        target.join(PROFILE).join("examples/peers")
    }

    fn search(&self, peers: &Path, explorer: &str, scenario: &str) -> Searched {
        let cap = self.cap.to_string();
        let output = Command::new(peers)
            .args([explorer, scenario, &cap])
            .current_dir(&self.root)
            .output()
            .expect("the searches were built");
        let said = String::from_utf8_lossy(&output.stdout);
        let said: Value = serde_json::from_str(said.trim()).unwrap_or_else(|_| {
            panic!("{explorer} {scenario}: {}", String::from_utf8_lossy(&output.stderr))
        });
        Searched {
            found: said["found"].as_str().map(str::to_owned),
            exhausted: said["exhausted"] == true,
            executions: said["executions"].as_u64().unwrap_or_default(),
            seconds: said["seconds"].as_f64().unwrap_or_default(),
        }
    }
}

/// Compiled fast enough for a mutant each, and run fast enough to be compared.
const PROFILE: &str = "peers";

#[derive(Debug)]
struct Searched {
    found: Option<String>,
    exhausted: bool,
    executions: u64,
    seconds: f64,
}

impl Searched {
    fn cell(&self, is_done: bool) -> String {
        let executions = grouped(self.executions);
        if is_done {
            format!("{executions}, {}", time(self.seconds))
        } else {
            format!("not in {executions}")
        }
    }
}

fn time(seconds: f64) -> String {
    if seconds < 0.1 {
        format!("{:.0} ms", (seconds * 1000.0).max(1.0))
    } else {
        format!("{seconds:.1} s")
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn head(first: &str, columns: &[&str]) -> String {
    let rule = "|---".repeat(columns.len() + 1);
    format!("\n| {first} | {} |\n{rule}|\n", columns.join(" | "))
}

fn line(first: &str, cells: &[String]) -> String {
    format!("| {first} | {} |\n", cells.join(" | "))
}

/// The date, and what this ran on.
fn machine() -> String {
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
    };
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {} ({cores} cores)", said("date", "-uI"), model.unwrap_or("an unnamed processor"))
}
