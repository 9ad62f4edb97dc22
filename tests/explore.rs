//! `bindery explore` as people and CI use it: the verdicts of `designs/` and `scenarios/`, kept orders, mistakes.
//!
//! A debug build explores twenty times slower, so it takes the fast scenarios only; a release build takes all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, process};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn explore(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bindery"));
    command.arg("explore").args(arguments).current_dir(ROOT).env("NO_COLOR", "1");
    command.output().expect("bindery starts")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("no signal ends it")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("bindery-explore-{}-{name}", process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Never written is gone too.
        let _ = fs::remove_file(&self.0);
    }
}

/// The scenario files of a directory: all, or those that a debug build has time for.
fn files(directory: &str, slow: &[&str]) -> Vec<String> {
    let listed = fs::read_dir(Path::new(ROOT).join(directory)).expect("the directory is there");
    let names = listed.map(|entry| entry.expect("it can be read").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let is_taken =
        |name: &String| !cfg!(debug_assertions) || !slow.iter().any(|slow| name.starts_with(slow));
    let mut files: Vec<_> =
        names.filter(is_taken).map(|name| format!("{directory}/{name}")).collect();
    files.sort();
    assert!(files.len() > 10, "{directory} has scenarios");
    files
}

/// Explores files and holds each to what it expects.
fn hold(files: &[String]) -> Vec<Value> {
    let mut arguments = vec!["--format", "json"];
    arguments.extend(files.iter().map(String::as_str));
    let output = explore(&arguments);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    for row in &rows {
        assert_eq!(row["as_expected"], true, "{row:#}");
    }
    assert_eq!((rows.len(), status(&output)), (files.len(), 0), "{}", text(&output.stderr));
    rows
}

#[test]
fn each_design_has_its_counterexample() {
    let rows = hold(&files("designs", &["d.toml"]));
    let broken = rows.iter().filter(|row| row["expected"] != "safe");
    for row in broken.clone() {
        let verdict = row["verdict"].as_str().unwrap();
        assert!(verdict.starts_with("COUNTEREXAMPLE"), "{verdict}");
        assert_eq!(verdict.contains("deadlock"), row["expected"] == "deadlock", "{verdict}");
        assert!(row["seconds"].as_f64().unwrap() < 5.0, "{row:#}");
    }
    assert_eq!(broken.count(), 16);
}

#[test]
fn the_shipped_code_is_safe_in_every_scenario() {
    let rows = hold(&files("scenarios", SLOW));
    for row in rows {
        assert!(row["verdict"].as_str().unwrap().starts_with("SAFE"), "{row:#}");
    }
}

/// What a debug build has no time for, by the begin of its name.
const SLOW: &[&str] =
    &["s08", "s11", "s16", "s17", "s20", "s21", "s23", "s28", "s33", "dma", "origin"];

#[test]
fn every_pair_of_calls_is_safe_and_parts_of_them_merge() {
    // A debug build has no time for all.
    let parts = if cfg!(debug_assertions) { 15 } else { 3 };
    let kept = ["1", "2", "3"].map(|part| Scratch::new(&format!("pairs-{part}.json")));
    for (index, file) in kept.iter().enumerate() {
        let part = format!("hash:{}/{parts}", index + 1);
        let output = ["--format", "json", "--output", file.path()];
        let output =
            explore(&[&["--generate", "pairs", "--partition", &part], &output[..]].concat());
        assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    }
    let merged = explore(&[&["--merge"], &kept.each_ref().map(Scratch::path)[..]].concat());
    let rows: Vec<Value> = serde_json::from_slice(&merged.stdout).expect("it prints JSON");
    for row in &rows {
        assert!(row["verdict"].as_str().unwrap().starts_with("SAFE (all"), "{row:#}");
    }
    let titles: BTreeSet<_> = rows.iter().map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!((titles.len(), status(&merged)), (rows.len(), 0));
    // Eleven calls, four starts.
    assert!(if parts == 3 { rows.len() == 264 } else { rows.len() > 20 }, "{} pairs", rows.len());
}

#[test]
fn parts_of_a_directory_merge_as_junit() {
    let kept = ["1", "2"].map(|part| Scratch::new(&format!("designs-{part}.xml")));
    let designs = files("designs", &["d.toml"]);
    for (index, file) in kept.iter().enumerate() {
        let part = format!("slice:{}/2", index + 1);
        let options = ["--partition", &part, "--format", "junit", "--output", file.path()];
        let designs = designs.iter().map(String::as_str);
        assert_eq!(status(&explore(&options.into_iter().chain(designs).collect::<Vec<_>>())), 0);
    }
    let wrong =
        explore(&["--threads", "destroy vdev0 -> ok | tsm_bind vdev0", "--format", "junit"]);
    let other = Scratch::new("wrong.xml");
    fs::write(other.path(), wrong.stdout).unwrap();

    let paths = kept.each_ref().map(Scratch::path);
    let merged = explore(&[&["--merge"], &paths[..]].concat());
    let said = text(&merged.stdout);
    assert_eq!(status(&merged), 0, "{}", text(&merged.stderr));
    let head = format!("tests=\"{}\" failures=\"0\" errors=\"0\"", designs.len());
    assert!(said.contains(&head), "{said}");
    assert_eq!(said.matches("<testcase ").count(), designs.len());

    let merged = explore(&[&["--merge", other.path()], &paths[..]].concat());
    assert_eq!(status(&merged), 1, "a merged result fails as its parts do");
    assert!(text(&merged.stdout).contains("failures=\"1\""), "{}", text(&merged.stdout));
}

#[test]
fn what_is_generated_can_be_written_and_read() {
    let directory = Scratch::new("generated");
    let part = ["--generate", "triples", "--partition", "slice:7/100"];
    let output = explore(&[&part[..], &["--write", directory.path()]].concat());
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    let written = explore(&[directory.path(), "--format", "json"]);
    let rows: Vec<Value> = serde_json::from_slice(&written.stdout).expect("it prints JSON");
    assert_eq!((rows.len(), status(&written)), (6, 0), "{}", text(&written.stderr));
    fs::remove_dir_all(directory.path()).unwrap();
}

#[test]
fn a_part_that_is_none_and_a_result_that_is_none_are_refused() {
    for part in ["hash:3/2", "sum:1/2", "1/2", "slice:0/2"] {
        let output = explore(&["--generate", "pairs", "--partition", part]);
        let said = text(&output.stderr);
        assert_eq!(status(&output), 2, "{said}");
        assert!(said.contains("say slice:K/N or hash:K/N"), "{said}");
    }
    for no_result in ["designs/d.toml", "designs/there-is-none.json"] {
        let output = explore(&["--merge", no_result]);
        let said = text(&output.stderr);
        assert_eq!(status(&output), 2, "{said}");
        assert!(said.contains(no_result), "{said}");
    }
}

/// The commands of a page print what the page says, up to an ellipsis in a line.
#[test]
fn a_design_of_your_own_goes_as_its_page_says() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/port-your-design.md")).unwrap();
    let blocks = page.split("```console\n$ bindery explore ").skip(1);
    let mut explored = 0;
    for block in blocks {
        let (block, _) = block.split_once("```").expect("a block has an end");
        let (line, expected) = block.split_once('\n').expect("a command is a line");
        let arguments = line.split('\'').enumerate().flat_map(|(index, words)| {
            let quoted = index % 2 == 1;
            if quoted { vec![words] } else { words.split_whitespace().collect() }
        });
        let said = text(&explore(&arguments.collect::<Vec<_>>()).stdout);
        let mut rest = said.as_str();
        for line in expected.lines() {
            let (begin, _) = line.split_once('…').unwrap_or((line, ""));
            let at = rest.find(begin).unwrap_or_else(|| panic!("{line:?} is not in\n{said}"));
            rest = &rest[at + begin.len()..];
        }
        explored += 1;
    }
    assert_eq!(explored, 3);
    let listed = fs::read_to_string(Path::new(ROOT).join("crates/designs/src/lib.rs")).unwrap();
    let entry = page.lines().find(|line| line.contains("mine::Template")).expect("what to add");
    assert!(listed.contains(&entry.replace("mine", "template")), "{entry}");
}

#[test]
fn what_calls_answer_is_told() {
    let output = explore(&["--threads", "tsm_bind vdev0 | destroy vdev0"]);
    let said = text(&output.stdout);
    assert_eq!(status(&output), 0, "{said}");
    assert!(said.contains("SAFE (all interleavings: "), "{said}");
    assert!(said.contains("T1 destroy vdev0          ok, EBUSY\n"), "{said}");
    assert!(said.contains("assumes the shipped iommufd, vfio and tsm"), "{said}");
}

#[test]
fn an_outcome_that_is_not_expected_fails_with_a_timeline() {
    let output = explore(&["--threads", "destroy vdev0 -> ok | tsm_bind vdev0"]);
    let said = text(&output.stdout);
    assert_eq!(status(&output), 1, "{said}");
    assert!(said.contains("destroy vdev0 answers EBUSY, and ok is expected"), "{said}");
    assert!(said.contains("NOT AS EXPECTED: expected safe"), "{said}");
}

#[test]
fn pages_paste_into_mails() {
    let listed = files("designs", &["d.toml"]);
    let mut arguments = vec!["--ascii"];
    arguments.extend(listed.iter().map(String::as_str));
    let said = text(&explore(&arguments).stdout);
    assert!(said.is_ascii());
    let commands = ["To keep it: ", "Then: "];
    let is_command = |line: &&str| commands.iter().any(|begin| line.trim().starts_with(begin));
    let long: Vec<_> =
        said.lines().filter(|line| !is_command(line) && line.chars().count() > 80).collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn a_kept_order_leads_there_again() {
    let kept = Scratch::new("order.txt");
    let found = explore(&["designs/b-dropped.toml", "--save", kept.path()]);
    let found = text(&found.stdout);
    let again = explore(&["--replay", kept.path()]);
    assert_eq!(status(&again), 0, "{}", text(&again.stderr));
    let is_drawn = |line: &&str| line.contains(" │ ");
    let again = text(&again.stdout);
    let lines: Vec<_> = again.lines().filter(is_drawn).collect();
    assert!(lines.len() > 10, "{again}");
    assert_eq!(lines, found.lines().filter(is_drawn).collect::<Vec<_>>());
    assert!(again.contains("device used after its end"), "{again}");
}

/// The timeline of a page.
fn table(page: &str) -> &str {
    let (_, rest) = page.split_once("<table class=\"timeline").expect("a timeline");
    rest.split_once("</table>").expect("its end").0
}

#[test]
fn a_kept_order_gives_the_same_timeline_byte_for_byte() {
    for (name, arguments) in [
        ("nested", ["designs/b-nested.toml"].as_slice()),
        ("shipped", ["--threads", "destroy vdev0 -> ok | tsm_bind vdev0"].as_slice()),
    ] {
        let kept = Scratch::new(name);
        let found = explore(&[arguments, ["--save", kept.path()].as_slice()].concat());
        let found = text(&found.stdout);
        let drawn = |said: &str| -> Vec<String> {
            let lines = said.lines().skip_while(|line| !line.starts_with("  T0  "));
            lines
                .take_while(|line| !line.is_empty() && !line.contains("assumes "))
                .map(str::to_owned)
                .collect()
        };
        let again = text(&explore(&["--replay", kept.path()]).stdout);
        assert!(drawn(&found).len() > 10, "{found}");
        assert_eq!(drawn(&again), drawn(&found));
        let page = |format: &[&str]| text(&explore(format).stdout);
        let first = page(&["--replay", kept.path(), "--format", "html"]);
        let second = page(&["--replay", kept.path(), "--format", "html"]);
        assert_eq!(first, second);
        assert!(table(&first).contains("Violation: "), "{first}");
        let order = fs::read_to_string(&kept.0).unwrap();
        let escaped = order.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let escaped = escaped.replace('"', "&quot;").replace('\'', "&#39;");
        assert!(first.contains(&escaped), "the page has the order itself:\n{first}");
    }
}

#[test]
fn a_page_shows_the_timeline_that_its_order_leads_to() {
    let (kept, page) = (Scratch::new("page-order.txt"), Scratch::new("page.html"));
    let arguments = ["designs/b-dropped.toml", "--format", "html"];
    let files = ["--output", page.path(), "--save", kept.path()];
    let output = explore(&[arguments.as_slice(), files.as_slice()].concat());
    assert_eq!((status(&output), output.stdout.len()), (0, 0), "{}", text(&output.stderr));
    let page = fs::read_to_string(&page.0).unwrap();
    let again = text(&explore(&["--replay", kept.path(), "--format", "html"]).stdout);
    assert_eq!(table(&again), table(&page));
    let (_, end) = table(&page).rsplit_once("<tr").unwrap();
    assert!(end.starts_with(" class=\"violation\""), "{end}");
    assert!(end.contains("device used after its end"), "{end}");
    assert!(page.contains("bindery explore designs/b-dropped.toml --save order.txt"), "{page}");
    assert!(page.contains("design = &quot;B-dropped&quot;"), "{page}");
}

#[test]
fn several_files_are_one_page_with_an_index() {
    let files =
        ["designs/b-nested.toml", "designs/e.toml", "scenarios/s06-unbind-never-bound.toml"];
    let output = explore(&[files.as_slice(), ["--format", "html"].as_slice()].concat());
    let page = text(&output.stdout);
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    let (_, index) = page.split_once("<nav").unwrap();
    let index = index.split_once("</nav>").unwrap().0;
    assert!(index.contains("3 scenarios, 3 as expected"), "{index}");
    for number in 0..3 {
        assert!(index.contains(&format!("href=\"#s{number}\"")), "{index}");
        assert!(page.contains(&format!("<section id=\"s{number}\"")), "{page}");
    }
    assert_eq!(index.matches("COUNTEREXAMPLE (deadlock)").count(), 2, "{index}");
    assert_eq!(index.matches("SAFE (all interleavings)").count(), 1, "{index}");
}

#[test]
fn a_timeline_of_shipped_code_names_objects_by_their_role() {
    let threads = "destroy vdev0 -> ok | tsm_bind vdev0";
    let said = text(&explore(&["--threads", threads, "--ascii"]).stdout);
    for step in [
        "inc_not_zero iommu.running",
        "lock iommufd.objects",
        "inc_not_zero vdev0.users",
        "inc_not_zero vdev0.in_flight",
        "use vdev0",
    ] {
        assert!(said.contains(step), "{step} in\n{said}");
    }
    let kinds = ["Refcount", "Life", "WaitQueue", "Objects", "Dsm", "#"];
    assert!(!kinds.iter().any(|kind| said.contains(kind)), "{said}");
}

#[test]
fn a_changed_program_is_noticed() {
    let kept = Scratch::new("changed.txt");
    explore(&["designs/b-nested.toml", "--save", kept.path()]);
    let order = fs::read_to_string(&kept.0).unwrap();
    fs::write(&kept.0, order.replace("T1 lock igroup->lock", "T1 lock xa_lock")).unwrap();
    let again = explore(&["--replay", kept.path()]);
    let said = text(&again.stderr);
    assert_eq!(status(&again), 1, "{said}");
    assert!(
        said.contains("the program has changed since: step 11 was `T1 lock xa_lock#2`"),
        "{said}"
    );
}

#[test]
fn a_rule_left_out_shows_what_it_is_for() {
    let output = explore(&["--without", "tombstone"]);
    assert_eq!(status(&output), 0);
    let said = text(&output.stdout);
    assert!(said.contains("I5: an id that the program still has names another object"), "{said}");
    let other = explore(&["--without", "gravity"]);
    assert_eq!(status(&other), 2);
    assert!(text(&other.stderr).contains("rules are destroying, tombstone"));
}

#[test]
fn a_budget_that_is_too_small_is_told() {
    let threads = "tsm_bind vdev0; tsm_unbind vdev0 | destroy vdev0; vdevice_alloc dev0 | close vfio0; close iommu";
    let output = explore(&["--threads", threads, "--budget", "1"]);
    let said = text(&output.stdout);
    assert_eq!(status(&output), 3, "{said}");
    assert!(said.contains("budget reached"), "{said}");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let file = Scratch::new("mistake.toml");
    let wrong = |text_of_file: &str| {
        fs::write(&file.0, text_of_file).unwrap();
        let output = explore(&[file.path()]);
        assert_eq!(status(&output), 2, "{}", text(&output.stdout));
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    };
    let said = wrong("title = \"x\"\n[[thread]]\ncalls = [\"close vfio0\", \"bind vdev0\"]\n");
    assert!(
        said.contains(":3:26: there is no call \"bind vdev0\"")
            || said.contains(":3:26: there is no call \"bind\""),
        "{said}"
    );
    let said = wrong("title = \"x\"\ndesign = \"Z\"\n[[thread]]\ncalls = [\"close vfio0\"]\n");
    assert!(said.contains(":2:10: there is no design \"Z\"; designs are A, "), "{said}");
    let said = wrong("title = \"x\"\n[[thread]]\ncalls = [\"close vfio7\"]\n");
    assert!(
        said.contains(":3:11: there is no such object; the last is that of close vfio2"),
        "{said}"
    );
    let said = wrong(
        "title = \"x\"\n[setup]\ncalls = [\"close vfio0\", \"tsm_bind vdev0\"]\n[[thread]]\ncalls = [\"map\"]\n",
    );
    assert!(
        said.contains(":3:26: the set-up is impossible: tsm_bind vdev0 answers ENOENT"),
        "{said}"
    );
    let line = explore(&["--threads", "close vfio0 | ; | map"]);
    assert_eq!(status(&line), 2);
    assert!(text(&line.stderr).contains("--threads:1:14: a thread makes no call here"));
    assert_eq!(status(&explore(&["nowhere.toml"])), 2);
}

#[test]
fn ci_gets_junit() {
    let output = explore(&["designs/b-nested.toml", "--format", "junit"]);
    let said = text(&output.stdout);
    assert!(said.contains("tests=\"1\" failures=\"0\" errors=\"0\""), "{said}");
    assert!(said.contains("<testcase classname=\"designs/b-nested.toml\""), "{said}");
    let output = explore(&["--threads", "tsm_bind vdev0 -> EIO", "--format", "junit"]);
    let said = text(&output.stdout);
    assert!(said.contains("<failure message=\"COUNTEREXAMPLE (panic): expected safe\">"), "{said}");
}
