//! Each mutant of `mutants/` is caught: the shipped crates without one of their rules, under the scenario that the patch
//! names, go wrong in the way that it says.
//!
//! `cargo test --test mutants NAME` tries one. What each costs to find is the table of `docs/mutants.md`, which the trial
//! of each compares; `BINDERY_BLESS=1` writes it anew. A patch that no longer applies is named with file and hunk by a
//! trial of its own, which compiles nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, fs};

use libtest_mimic::{Arguments, Failed, Trial};
use mutants::{Judged, Mutant, Tree};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Where the copy of the workspace lies, and what is built of it.
const AT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../mutants");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/mutants.md");
const BEGIN: &str = "<!-- written by tests/mutants.rs -->\n";
const HEAD: &str = "\n| mutant | the rule that it breaks | scenario | what is said | preemptions | executions | states |\n\
                    |---|---|---|---|---|---|---|\n";
const SECONDS: &str = "120";

fn main() -> ExitCode {
    // One tree is all mutants, one after the other.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let root = fs::canonicalize(ROOT).expect("the workspace is there");
    let mutants = Mutant::all(&root.join("mutants")).unwrap_or_else(|error| panic!("{error}"));
    let mut trials = vec![applies(&root, mutants.clone()), has_no_other_rows(&mutants)];
    let bench = Arc::new(Bench { root, tree: Mutex::new(None), rows: Mutex::default() });
    for mutant in mutants {
        let bench = Arc::clone(&bench);
        trials.push(Trial::test(mutant.name.clone(), move || bench.try_mutant(&mutant)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if env::var_os("BINDERY_BLESS").is_some() && !arguments.list {
        bench.bless();
    }
    conclusion.exit_code()
}

/// No patch is stale.
fn applies(root: &Path, mutants: Vec<Mutant>) -> Trial {
    let root = root.to_owned();
    Trial::test("every_patch_applies", move || {
        let stale = mutants.iter().filter_map(|mutant| {
            let error = mutant.apply(&root).err()?;
            Some(format!("mutants/{}.patch: {error}", mutant.name))
        });
        let stale: Vec<_> = stale.collect();
        if stale.is_empty() { Ok(()) } else { Err(stale.join("\n").into()) }
    })
}

/// The page tells of no mutant that there is not.
fn has_no_other_rows(mutants: &[Mutant]) -> Trial {
    let names: Vec<_> = mutants.iter().map(|mutant| mutant.name.clone()).collect();
    Trial::test("the_page_has_no_other_rows", move || {
        if env::var_os("BINDERY_BLESS").is_some() {
            return Ok(());
        }
        let other = written().into_keys().find(|name| !names.contains(name));
        other.map_or(Ok(()), |name| Err(format!("docs/mutants.md tells of {name}").into()))
    })
}

struct Bench {
    root: PathBuf,
    tree: Mutex<Option<Tree>>,
    /// What the page is to say, by mutant.
    rows: Mutex<BTreeMap<String, String>>,
}

impl Bench {
    fn try_mutant(&self, mutant: &Mutant) -> Result<(), Failed> {
        let judged = self.judge(mutant)?;
        let Some(message) = judged.message.as_deref() else {
            return Err(format!("it survives {}: {}", mutant.scenario, judged.verdict).into());
        };
        if !message.contains(&mutant.says) {
            let said = format!("it was to be said {:?}, and was {message:?}", mutant.says);
            return Err(said.into());
        }
        let row = row(mutant, &judged);
        if env::var_os("BINDERY_BLESS").is_some() {
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            rows.insert(mutant.name.clone(), row);
            return Ok(());
        }
        match written().get(&mutant.name) {
            Some(line) if *line == row => Ok(()),
            Some(line) => Err(format!("docs/mutants.md says\n{line}\nand seen is\n{row}").into()),
            None => Err(format!("docs/mutants.md has no line\n{row}").into()),
        }
    }

    /// Builds the mutant, and explores its scenario.
    fn judge(&self, mutant: &Mutant) -> Result<Judged, Failed> {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        if tree.is_none() {
            *tree = Some(Tree::new(&self.root, Path::new(AT), false)?);
        }
        let tree = tree.as_ref().ok_or("there is no tree")?;
        tree.change(&mutant.apply(&self.root)?)?;
        let programs = tree.build(&["--bin", "judge"])?;
        let output = Command::new(programs.join("debug/judge"))
            .args([&mutant.scenario, SECONDS])
            .current_dir(&self.root)
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Writes what was seen into the page; lines of mutants that were not tried stay.
    fn bless(&self) {
        let mut rows = written();
        let seen = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.extend(seen.clone());
        rows.retain(|name, _| self.root.join(format!("mutants/{name}.patch")).exists());
        let document = fs::read_to_string(DOCUMENT).expect("docs/mutants.md is there");
        let (prose, _) = document.split_once(BEGIN).expect("the table's place is marked");
        let lines: Vec<_> = rows.into_values().collect();
        let text = format!("{prose}{BEGIN}{HEAD}{}\n", lines.join("\n"));
        fs::write(DOCUMENT, text).expect("it can be written");
    }
}

/// The lines of the page, by mutant.
fn written() -> BTreeMap<String, String> {
    let document = fs::read_to_string(DOCUMENT).expect("docs/mutants.md is there");
    let (_, table) = document.split_once(BEGIN).expect("the table's place is marked");
    let rows = table.lines().filter_map(|line| {
        let name = line.strip_prefix("| [`")?.split('`').next()?;
        Some((name.to_owned(), line.to_owned()))
    });
    rows.collect()
}

/// A violation in one line, without what moves: the place in the source, and the numbers of objects.
fn said(message: &str) -> String {
    let words = message.split_once(" (crates/").map_or(message, |(words, _)| words);
    let bare = |word: &str| {
        let (name, number) = word.split_once('#')?;
        Some(format!("{name}{}", number.trim_start_matches(is_place)))
    };
    let words = words.split_whitespace().map(|word| bare(word).unwrap_or_else(|| word.to_owned()));
    words.collect::<Vec<_>>().join(" ").replace('|', "/")
}

fn is_place(character: char) -> bool {
    character.is_ascii_digit() || matches!(character, 'T' | '.')
}

fn row(mutant: &Mutant, judged: &Judged) -> String {
    let Mutant { name, rule, scenario, .. } = mutant;
    let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    let file = scenario.rsplit('/').next().unwrap_or(scenario).trim_end_matches(".toml");
    format!(
        "| [`{name}`](../mutants/{name}.patch) | {rule} | [`{file}`](../{scenario}) | {} | {} | {} | {} |",
        said(judged.message.as_deref().unwrap_or_default()),
        number(judged.preemptions),
        judged.executions,
        judged.states,
    )
}
