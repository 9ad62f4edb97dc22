//! Changes that one would fear, each of which a test must notice.
//!
//! Every patch in `mutants/` is applied to a copy of the crate, and the test named for it run there.
//! It must fail; the unchanged copy must pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The crate as it is committed, and what it is made of.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const CRATES: [&str; 3] = ["pagetable", "mem", "span"];

/// A patch, and the test that must fail with it.
const MUTANTS: &[(&str, Test)] = &[
    ("reader_without_fence", Test::Loom),
    ("writer_without_fence", Test::Loom),
    ("nobody_waited_for", Test::Loom),
    ("walk_ends_early", Test::Loom),
    ("table_freed_early", Test::Loom),
    ("table_linked_too_soon", Test::Loom),
    ("dirty_without_wait", Test::Loom),
    ("dirty_group_cleared_last", Test::Loom),
    ("last_bit_lost", Test::Model),
    ("first_bit_lost", Test::Model),
    ("gap_not_marked", Test::Model),
    ("tag_lost_with_its_table", Test::Model),
    ("mixed_tags_taken_for_one", Test::Model),
    ("start_noted_nowhere", Test::Model),
    ("empty_table_left_under_leaf", Test::Model),
];

#[derive(Clone, Copy, Debug)]
enum Test {
    Loom,
    Model,
}

#[test]
fn each_mutant_is_caught() {
    for test in [Test::Loom, Test::Model] {
        let passed = run(&copy("unchanged"), test);
        assert!(passed.status.success(), "{test:?}: {}", text(&passed));
    }
    for (name, test) in MUTANTS {
        let tree = copy(name);
        apply(&tree, name);
        let outcome = run(&tree, *test);
        let said = text(&outcome);
        assert!(!said.contains("could not compile"), "{name}: {said}");
        assert!(!outcome.status.success(), "{name} was not noticed by {test:?}");
        assert!(said.contains("FAILED") || said.contains("panicked"), "{name}: {said}");
    }
}

/// A workspace of its own, without what only the bench needs.
fn copy(name: &str) -> PathBuf {
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants").join(name);
    if tree.exists() {
        fs::remove_dir_all(&tree).unwrap();
    }
    for part in CRATES {
        let from = Path::new(ROOT).join("crates").join(part);
        copy_tree(&from, &tree.join("crates").join(part));
    }
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    fs::write(tree.join("Cargo.toml"), narrow_workspace(&manifest)).unwrap();
    fs::copy(Path::new(ROOT).join("Cargo.lock"), tree.join("Cargo.lock")).unwrap();
    let own = tree.join("crates/pagetable/Cargo.toml");
    let manifest = fs::read_to_string(&own).unwrap();
    fs::write(&own, without_bench(&manifest)).unwrap();
    tree
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn narrow_workspace(manifest: &str) -> String {
    let kept = manifest.lines().filter(|line| !line.starts_with("default-members"));
    let lines = kept
        .map(|line| if line.starts_with("members") { r#"members = ["crates/*"]"# } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

fn without_bench(manifest: &str) -> String {
    let manifest = manifest.split("[[bench]]").next().unwrap_or_default();
    let peer =
        |line: &&str| ["nodit", "rangemap", "vm-memory"].iter().any(|peer| line.starts_with(peer));
    manifest.lines().filter(|line| !peer(line)).collect::<Vec<_>>().join("\n")
}

fn apply(tree: &Path, name: &str) {
    let patch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutants").join(name);
    let patch = patch.with_extension("patch");
    // As in no repository at all, wherever the copy lies.
    let applied = Command::new("git")
        .args(["apply", "-p1"])
        .arg(&patch)
        .env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap())
        .current_dir(tree)
        .output()
        .unwrap();
    assert!(applied.status.success(), "{name} does not apply: {}", text(&applied));
}

fn run(tree: &Path, test: Test) -> Output {
    let (file, flags) = match test {
        Test::Loom => ("loom", "--cfg loom"),
        Test::Model => ("model", ""),
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants/target").join(file);
    Command::new(env!("CARGO"))
        .args(["test", "-p", "bindery-pagetable", "--test", file])
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", flags)
        .env("RUST_BACKTRACE", "0")
        .current_dir(tree)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}
