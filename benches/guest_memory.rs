//! What it costs to map 64 GiB of a guest and to take them away, by ioctls of a program under `bindery run`: time as
//! the program sees it, and memory that the supervisor takes.
//!
//! Three shapes: 50 sections as a VMM has them; the same, a page off from where a hardware's large leaves could be; and
//! 32768 calls of 2 MiB each. The C program beside this file is the client.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const BINDERY: &str = env!("CARGO_BIN_EXE_bindery");
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/guest_memory/client.c");

const SHAPES: [(&str, &str); 3] = [
    ("sections", "50 sections"),
    ("shifted", "50 sections, a page off"),
    ("pieces", "32768 maps of 2 MiB"),
];

fn main() -> ExitCode {
    let client = match build(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(client) => client,
        Err(reason) => {
            eprintln!("guest_memory bench: {reason}");
            return ExitCode::FAILURE;
        }
    };
    println!(
        "| 64 GiB as | map ms | a call us | unmap all ms | attached KiB | mapped KiB | unmapped KiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (shape, words) in SHAPES {
        print_row(words, &run(&client, shape));
    }
    ExitCode::SUCCESS
}

fn build(into: &Path) -> Result<PathBuf, String> {
    let client = into.join("guest_memory_client");
    let compiled = Command::new("cc")
        .args(["-O2", "-Wall", "-Werror", "-o"])
        .arg(&client)
        .arg(SOURCE)
        .status();
    match compiled {
        Ok(status) if status.success() => Ok(client),
        Ok(_) => Err("cc failed on client.c".to_owned()),
        Err(error) => Err(format!("cc: {error}")),
    }
}

/// One step of the client: how long it took, in how many calls, and what the supervisor takes then.
struct Step {
    name: String,
    ns: f64,
    calls: f64,
    resident_kib: f64,
}

fn run(client: &Path, shape: &str) -> Vec<Step> {
    let mut child = Command::new(BINDERY)
        .args(["run", "--"])
        .arg(client)
        .arg(shape)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut go_on = child.stdin.take().expect("a pipe");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let pid = child.id();
    let steps = lines.map(|line| {
        let line = line.expect("the client prints ASCII");
        let words: Vec<&str> = line.split(' ').collect();
        let number =
            |index: usize| words.get(index).and_then(|word| word.parse().ok()).unwrap_or(f64::NAN);
        let step = Step {
            name: words[0].to_owned(),
            ns: number(1),
            calls: number(2),
            resident_kib: resident_kib(pid),
        };
        writeln!(go_on, "on").expect("the client listens");
        step
    });
    let steps = steps.collect();
    assert!(child.wait().expect("it is ours").success(), "{shape}");
    steps
}

/// What the supervisor takes: the largest of the processes of `bindery run` but the client.
fn resident_kib(pid: u32) -> f64 {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below =
        children.split_whitespace().filter_map(|child| child.parse().ok()).map(resident_kib);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of_client = status.starts_with("Name:\tguest_memory");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let own = line.trim().trim_end_matches(" kB").parse().ok().filter(|_| !of_client);
    below.fold(own.unwrap_or(0.0), f64::max)
}

fn print_row(words: &str, steps: &[Step]) {
    let median = |name: &str, of: fn(&Step) -> f64| {
        let mut values: Vec<f64> = steps.iter().filter(|step| step.name == name).map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    println!(
        "| {words} | {:.2} | {:.1} | {:.2} | {:.0} | {:.0} | {:.0} |",
        median("mapped", |step| step.ns) / 1e6,
        median("mapped", |step| step.ns / step.calls) / 1e3,
        median("unmapped", |step| step.ns) / 1e6,
        median("attached", |step| step.resident_kib),
        median("mapped", |step| step.resident_kib),
        median("unmapped", |step| step.resident_kib),
    );
}
