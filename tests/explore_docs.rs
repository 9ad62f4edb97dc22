//! What the pages about the explorer show is what it says: timelines, examples, and the tables of verdicts, states and
//! steps.
//!
//! In `docs/`, a comment `<!-- bindery explore … -->` is followed by a block that is what the command prints, and
//! `<!-- table of … -->` by a table. `BINDERY_BLESS=1 cargo test --test explore_docs` writes them anew. Times and places in
//! the source are not compared, and neither is the width of a column. Everything here runs on one processor, hence with
//! one worker: with more, the counts depend on who meets which state first.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use scenario::words::Verb;
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn why_this_design_shows_what_the_explorer_says() {
    is_fresh("docs/why-this-design.md");
}

#[test]
fn the_manual_shows_what_the_explorer_says() {
    is_fresh("docs/explore.md");
}

#[test]
fn the_tables_count_what_the_explorer_counts() {
    is_fresh("docs/explore-counts.md");
}

fn is_fresh(page: &str) {
    let path = Path::new(ROOT).join(page);
    let written = fs::read_to_string(&path).expect("the page is there");
    let anew = anew(&written);
    if env::var_os("BINDERY_BLESS").is_some() {
        fs::write(&path, &anew).expect("it can be written");
        return;
    }
    let stale = written.lines().zip(anew.lines()).find(|(old, new)| lasting(old) != lasting(new));
    assert_eq!(stale, None, "{page} is stale: BINDERY_BLESS=1 cargo test --test explore_docs");
    assert_eq!(written.lines().count(), anew.lines().count(), "{page} is stale at its end");
}

/// The page with every block that a command makes made anew.
fn anew(page: &str) -> String {
    let mut lines = page.lines().peekable();
    let (mut text, mut blocks) = (String::new(), 0);
    while let Some(line) = lines.next() {
        text.push_str(&format!("{line}\n"));
        let comment = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
        let Some(source) = comment else { continue };
        if let Some(table) = source.strip_prefix("table of ") {
            while lines.next_if(|line| line.starts_with('|')).is_some() {}
            text.push_str(&self::table(table));
        } else {
            let fence = lines.next().expect("a block follows");
            assert!(fence.starts_with("```"), "a block follows {line}, not {fence}");
            assert!(lines.any(|line| line == "```"), "the block after {line} has an end");
            text.push_str(&format!("{fence}\n{}```\n", block(source, fence)));
        }
        blocks += 1;
    }
    assert!(blocks > 0, "the page has blocks that are made");
    text
}

/// What remains of a line when machine and source change: no times, no places, no widths.
fn lasting(line: &str) -> String {
    let words = line.split_whitespace().filter_map(|word| {
        let is_time = word.contains('.') && word.parse::<f64>().is_ok();
        let is_rule = word.chars().all(|letter| matches!(letter, '-' | '+'));
        let place = word.find(".rs:").map(|at| &word[..at]);
        (!is_time && !is_rule).then_some(place.unwrap_or(word))
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What a command prints: in a `console` the whole scenario with the command before it, elsewhere its timeline alone.
fn block(command: &str, fence: &str) -> String {
    let arguments = command.strip_prefix("bindery explore ").expect("a command of the explorer");
    let said = explore(&words(arguments));
    if fence == "```console" {
        let scenario: Vec<_> = said.lines().take_while(|line| !line.is_empty()).collect();
        return format!("$ {command}\n{}\n", scenario.join("\n"));
    }
    let is_head = |line: &str| line == "  T0" || line.starts_with("  T0  ");
    let timeline = said.lines().skip_while(|line| !is_head(line));
    let timeline: Vec<_> = timeline.take_while(|line| !line.is_empty()).collect();
    assert!(!timeline.is_empty(), "{command} draws no timeline:\n{said}");
    timeline.iter().map(|line| format!("{line}\n")).collect()
}

/// Words as a shell makes them of a line with single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn table(of: &str) -> String {
    match of {
        "designs" => verdicts("designs", "design"),
        "scenarios" => verdicts("scenarios", "number"),
        "steps" => steps(),
        other => panic!("there is no table of {other}"),
    }
}

/// Every file of a directory, its verdict, and what the search took that it rests on.
fn verdicts(directory: &str, second: &str) -> String {
    let rows = rows(&[directory.to_owned()]);
    let mut text = format!(
        "| file | {second} | verdict | states | executions | longest, steps | preemptions |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let of = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let file = of("source");
        let second = match second {
            "number" => of("number"),
            _ => design(&file),
        };
        let preemptions = row["counterexample"]["preemptions"].as_u64();
        text.push_str(&format!(
            "| [`{}`](../{file}) | {second} | {} | {} | {} | {} | {} |\n",
            file.trim_start_matches(directory).trim_matches('/').trim_end_matches(".toml"),
            of("verdict"),
            row["states"],
            row["executions"],
            row["longest"],
            preemptions.map_or("-".to_owned(), |preemptions| preemptions.to_string()),
        ));
    }
    text
}

/// The design that a file names, and the rule that it leaves out.
fn design(file: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join(file)).expect("the file is there");
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let without = value("without").map(|rule| format!(" without {rule}")).unwrap_or_default();
    format!("{}{without}", value("design").expect("the file names a design"))
}

/// How many steps each call takes that meets nobody.
fn steps() -> String {
    let mut text = "| call | after | steps |\n|---|---|---|\n".to_owned();
    for verb in Verb::ALL {
        let is_here = |(call, _, _): &&(&str, &str, &str)| verb_of(call) == Some(*verb);
        assert!(ALONE.iter().any(|row| is_here(&row)), "{verb:?} has no row");
    }
    let directory = env::temp_dir().join(format!("bindery-explore-docs-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory for files");
    let files = ALONE.iter().enumerate().map(|(index, (call, after, settings))| {
        let after =
            after.split("; ").map(|call| format!("{call:?}")).collect::<Vec<_>>().join(", ");
        let setup = if after == "\"\"" { "" } else { &format!("[setup]\ncalls = [{after}]\n") };
        let scenario = format!(
            "title = {call:?}\n[settings]\nclock = \"stopped\"\n{settings}\n{setup}\
             [[thread]]\ncalls = [\"{call} -> ok\"]\n"
        );
        let file = directory.join(format!("{index:02}.toml"));
        fs::write(&file, scenario).expect("a file can be written");
        file.to_str().expect("a plain path").to_owned()
    });
    let rows = rows(&files.collect::<Vec<_>>());
    fs::remove_dir_all(&directory).expect("the files are there");
    assert_eq!(rows.len(), ALONE.len());
    for ((call, after, settings), row) in ALONE.iter().zip(rows) {
        let with = if settings.is_empty() { "" } else { " with the bind in it" };
        let after = if after.is_empty() { "-".to_owned() } else { format!("`{after}`") };
        text.push_str(&format!("| `{call}`{with} | {after} | {} |\n", row["longest"]));
    }
    text
}

fn verb_of(call: &str) -> Option<Verb> {
    scenario::Call::parse(call).ok().map(|call| call.verb)
}

/// Each call of the vocabulary, what has to have been called before, and settings.
const ALONE: &[(&str, &str, &str)] = &[
    ("tsm_bind vdev0", "", ""),
    ("tsm_bind vdev0", "tsm_bind vdev0", ""),
    ("tsm_unbind vdev0", "tsm_bind vdev0", ""),
    ("tsm_lock vdev0", "tsm_bind vdev0", ""),
    ("tsm_run vdev0", "tsm_bind vdev0; tsm_lock vdev0", ""),
    ("destroy vdev0", "", ""),
    ("destroy vdev0", "tsm_bind vdev0", ""),
    ("destroy viommu0", "destroy vdev0", ""),
    ("vdevice_alloc dev0", "destroy vdev0", ""),
    ("vdevice_alloc dev0", "destroy vdev0", "uapi = \"rfc-v7-2026-10\"\nviommu = \"realm\""),
    ("ioas_alloc iommu", "", ""),
    ("close vfio0", "", ""),
    ("close vfio0", "tsm_bind vdev0", ""),
    ("close iommu", "", ""),
    ("close iommu", "close vfio0", ""),
    ("close vm", "", ""),
    ("tsm_connect dev0", "tsm_disconnect dev0", ""),
    ("tsm_disconnect dev0", "", ""),
    ("tsm_disconnect dev0", "tsm_bind vdev0", ""),
    ("remove dev0", "", ""),
    ("reset vfio0", "", ""),
    ("clear_bus_master vfio0", "", ""),
    ("attach vfio0", "", ""),
    ("detach vfio0", "attach vfio0", ""),
    ("map", "", ""),
    ("unmap", "map", ""),
    ("dma dev0", "attach vfio0; map", ""),
    ("fork", "", ""),
    ("exit child", "fork", ""),
];

/// What the explorer says of files, for programs.
fn rows(paths: &[String]) -> Vec<Value> {
    let format = ["--format", "json"].map(str::to_owned);
    let said = explore(&[paths, &format].concat());
    serde_json::from_str(&said).expect("the answer is JSON")
}

fn explore(arguments: &[String]) -> String {
    on_one_processor();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bindery"));
    command.arg("explore").args(arguments).current_dir(ROOT).env("NO_COLOR", "1");
    let output = command.output().expect("bindery starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!said.is_empty(), "bindery explore {arguments:?} says {errors}");
    said
}

/// Keeps this thread, and the programs that it starts, on one of its processors.
fn on_one_processor() {
    let allowed = sched_getaffinity(None).expect("the thread is there");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("it runs on one");
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).expect("it may run there");
}
