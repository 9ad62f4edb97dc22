//! `bindery explore --emit-c`: the programs compile without a warning, run under `bindery run`, and answer what is
//! expected; what has no form in C is told.

mod programs;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Failed, Trial};
use programs::{BINDERY, Scratch, installed, run, told};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for design in ["b-nested", "b-dropped", "d-without-tombstone"] {
        trials.push(with_cc(design, move || of_design(design)));
    }
    trials.push(with_cc("a replayed order", of_replayed_order));
    trials.push(with_cc("settings come along as a platform", settings_come_along));
    trials.push(trial("every setting has its platform", every_setting_has_its_platform));
    trials.push(with_cc("every call compiles", every_call_compiles));
    trials.push(with_cc("an outcome that is not expected", unexpected_outcome));
    trials.push(with_cc("what is needed is told", needs_are_told));
    trials.push(with_cc("no title ends the comment", hostile_title));
    trials.push(trial("what has no form in C is told", no_form));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn with_cc(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    trial(name, run).with_ignored_flag(!installed("cc")).with_kind("needs cc")
}

fn trial(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || -> Result<(), Failed> {
        run();
        Ok(())
    })
}

/// The counterexample of a design, its calls made on the shipped code.
fn of_design(design: &str) {
    let scratch = Scratch::new();
    let program = compiled(&scratch, &[&format!("designs/{design}.toml")]);
    let source = fs::read_to_string(program.with_extension("c")).unwrap();
    assert!(source.contains("Each call begins at its slot"), "{source}");
    assert_expected(&run(&[]).arg(&program).output().unwrap());
    let rounds = ["-d", "0", "-n", "20"];
    assert_expected(&run(&[]).arg(&program).args(rounds).output().unwrap());
}

/// A destroy that is refused in the middle of a bind; here the bind is done by then.
fn of_replayed_order() {
    let scratch = Scratch::new();
    let order = scratch.path().join("order.txt");
    let order = order.to_str().unwrap();
    let threads = "destroy vdev0 -> ok | tsm_bind vdev0 -> ok, ENOENT";
    let found = explore(&["--threads", threads, "--save", order]);
    assert_eq!(found.status.code(), Some(1), "{}", told(&found));
    let program = compiled(&scratch, &["--replay", order]);
    let output = run(&[]).arg(&program).args(["-d", "100"]).output().unwrap();
    assert_expected(&output);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("T1 tsm_bind vdev0         ok x1   expected ok ENOENT"), "{said}");
}

fn settings_come_along() {
    let scratch = Scratch::new();
    let program = compiled(&scratch, &["scenarios/s19-reset-error.toml"]);
    let source = fs::read_to_string(program.with_extension("c")).unwrap();
    let platform = scratch.path().join("platform.toml");
    fs::write(&platform, platform_in(&source)).unwrap();
    let platform = platform.to_str().unwrap();
    assert_expected(&run(&["--platform", platform]).arg(&program).output().unwrap());
}

/// Whatever a scenario sets, the platform that comes along is one.
fn every_setting_has_its_platform() {
    let scratch = Scratch::new();
    let [scenario, platform] =
        ["scenario.toml", "platform.toml"].map(|name| scratch.path().join(name));
    for key in scenario::file::SETTINGS {
        for value in key.values {
            let settings = format!("[settings]\n{} = \"{value}\"\n", key.name);
            let text = format!("title = \"x\"\n{settings}[[thread]]\ncalls = [\"map -> ok\"]\n");
            fs::write(&scenario, text).unwrap();
            let emitted = explore(&["--emit-c", scenario.to_str().unwrap()]);
            assert!(emitted.status.success(), "{settings}{}", told(&emitted));
            fs::write(&platform, platform_in(&String::from_utf8_lossy(&emitted.stdout))).unwrap();
            let option = ["--platform", platform.to_str().unwrap()];
            let output = run(&option).arg("true").output().unwrap();
            assert!(output.status.success(), "{settings}{}", told(&output));
        }
    }
}

/// The platform file in a program's comment, as its comment says to get it.
fn platform_in(source: &str) -> String {
    let lines = source.lines().filter_map(|line| line.strip_prefix(" * | "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Each word, in both shapes of bind.
fn every_call_compiles() {
    let scratch = Scratch::new();
    let has_no_form = [
        scenario::Verb::Dma,
        scenario::Verb::Remove,
        scenario::Verb::Fork,
        scenario::Verb::ExitChild,
    ];
    let verbs = scenario::Verb::ALL.iter().filter(|verb| !has_no_form.contains(verb));
    let calls: Vec<_> = verbs
        .map(|verb| format!("{} -> ok, ENOENT", scenario::Call { verb: *verb, number: 0 }))
        .collect();
    let threads: Vec<_> = calls.chunks(6).map(|calls| calls.join("; ")).collect();
    compiled(&scratch, &["--threads", &threads.join(" | ")]);
    let file = scratch.path().join("earlier.toml");
    let text = "title = \"x\"\n[settings]\nuapi = \"rfc-2025-05\"\n[[thread]]\n\
                calls = [\"tsm_bind vdev1 -> ok\", \"tsm_unbind vdev1 -> ok\"]\n";
    fs::write(&file, text).unwrap();
    let program = compiled(&scratch, &[file.to_str().unwrap()]);
    assert_expected(&run(&["--uapi", "rfc-2025-05"]).arg(&program).output().unwrap());
}

fn unexpected_outcome() {
    let scratch = Scratch::new();
    let program = compiled(&scratch, &["--threads", "tsm_unbind vdev0 -> EIO"]);
    let output = run(&[]).arg(&program).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("ok x1 (not expected)   expected EIO"), "{said}");
}

fn needs_are_told() {
    let scratch = Scratch::new();
    let program = compiled(&scratch, &["--threads", "tsm_bind vdev0 -> ok"]);
    let output = Command::new(&program).env_remove("BINDERY_CDEV").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    for needed in ["usage: ", "vfio-pci", "a TSM", "can nest", "bindery run -- PROGRAM"] {
        assert!(said.contains(needed), "{said}");
    }
    let missing = run(&[]).arg(&program).arg("/dev/vfio/devices/vfio99").output().unwrap();
    assert_eq!(missing.status.code(), Some(2), "{}", told(&missing));
}

fn hostile_title() {
    let scratch = Scratch::new();
    let file = scratch.path().join("hostile.toml");
    let title = r#"title = "*/ #error no /* ??/ \\ \" \n*/ #error no""#;
    fs::write(&file, format!("{title}\n[[thread]]\ncalls = [\"map -> ok\"]\n")).unwrap();
    let program = compiled(&scratch, &[file.to_str().unwrap()]);
    assert_expected(&run(&[]).arg(&program).output().unwrap());
}

fn no_form() {
    let scratch = Scratch::new();
    let refused = |text: &str| {
        let file = scratch.path().join("refused.toml");
        fs::write(&file, text).unwrap();
        let output = explore(&["--emit-c", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(output.stdout.is_empty(), "{}", told(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said =
        refused("title = \"x\"\n[[thread]]\ncalls = [\"map -> ok\", \"remove dev1 -> ok\"]\n");
    assert!(said.contains("refused.toml:3:24: remove dev1 has no form in C: "), "{said}");
    let said = refused("title = \"x\"\n[[thread]]\ncalls = [\"dma dev0 -> ok\"]\n");
    assert!(said.contains("refused.toml:3:11: dma dev0 has no form in C: "), "{said}");
    let said = refused(
        "title = \"x\"\n[settings]\nuapi = \"linux-7.3\"\n[[thread]]\ncalls = [\"tsm_bind vdev0 -> ok\"]\n",
    );
    assert!(
        said.contains(":5:11: ") && said.contains("profile linux-7.3 has no IOMMU_VDEVICE_TSM_OP"),
        "{said}"
    );
    let line = explore(&["--threads", "map -> ok | dma -> ok", "--emit-c"]);
    let said = String::from_utf8_lossy(&line.stderr);
    assert!(said.contains("--threads:1:13: dma dev0 has no form in C"), "{said}");
    let order = scratch.path().join("order.txt");
    let order = order.to_str().unwrap();
    explore(&["--threads", "dma dev0 -> ok", "--save", order]);
    let output = explore(&["--replay", order, "--emit-c"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("order.txt:6:14: dma dev0 has no form in C"), "{said}");
}

fn explore(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINDERY);
    command.arg("explore").args(arguments).current_dir(ROOT).env("NO_COLOR", "1");
    command.output().unwrap()
}

/// Emits a program and compiles it.
fn compiled(scratch: &Scratch, arguments: &[&str]) -> PathBuf {
    let program = scratch.path().join("program");
    let source = program.with_extension("c");
    let wanted = ["--emit-c", "--output", source.to_str().unwrap()];
    let emitted = explore(&[arguments, &wanted].concat());
    assert!(emitted.status.success(), "{}", told(&emitted));
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program).arg(&source);
    let output = cc.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    program
}

/// Every call answered, and what is expected.
fn assert_expected(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", told(output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.lines().next().is_some(), "{}", told(output));
    for line in said.lines() {
        let is_answer =
            line.starts_with('T') && line.contains(" x") && line.contains("   expected ");
        assert!(is_answer && !line.contains("not expected"), "{}", told(output));
    }
}
