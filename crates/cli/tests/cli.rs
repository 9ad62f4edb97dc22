//! `bindery` as its user meets it: help, refusals, exit statuses, what it prints.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

const BINDERY: &str = env!("CARGO_BIN_EXE_bindery");

/// The command under test, as outside of any other run.
fn bindery(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINDERY);
    command.args(arguments).env_remove("BINDERY").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// Runs to the end; status, stdout and stderr.
fn outcome(arguments: &[&str]) -> (Option<i32>, String, String) {
    told(&bindery(arguments).output().unwrap())
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A file or directory of the test's own, gone with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn name() -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        env::temp_dir().join(format!("bindery-cli-test-{}-{count}", std::process::id()))
    }

    fn file(content: &str) -> Self {
        let path = Self::name();
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn directory() -> Self {
        let path = Self::name();
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
    }
}

#[test]
fn help_names_every_subcommand_and_no_hidden_one() {
    let (status, help, _) = outcome(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(!help.contains("demo-client"), "{help}");
    for subcommand in ["run", "ls", "tsm", "platform", "doctor", "demo"] {
        assert!(help.lines().any(|line| line.trim().starts_with(subcommand)), "{subcommand}");
        let (status, help, _) = outcome(&[subcommand, "--help"]);
        assert_eq!(status, Some(0), "{subcommand}");
        assert!(!help.contains("--events"), "{help}");
    }
}

#[test]
fn bad_options_of_run_exit_125_and_of_others_2() {
    for (arguments, status, say) in [
        (&["run", "--devise", "x", "true"][..], 125, "--device"),
        (&["run", "--uapi", "linux-9", "true"], 125, "linux-7.3"),
        (&["run", "--error-exitcode", "0", "true"], 125, "--error-exitcode"),
        (&["run", "--error-exitcode", "256", "true"], 125, "--error-exitcode"),
        (&["ls", "--what"], 2, "--what"),
        (&["ls", "--ledger", "--platform", "x"], 2, "--platform"),
        (&["ls", "--pid", "1"], 2, "--ledger"),
        (&["tsm"], 2, "connect"),
        (&["tsm", "fault", "b1d0:01:00.0"], 2, "<FAULT>"),
        (&["walk"], 2, "walk"),
    ] {
        let (found, _, stderr) = outcome(arguments);
        assert_eq!(found, Some(status), "{arguments:?}: {stderr}");
        assert!(stderr.contains(say), "{arguments:?}: {stderr}");
    }
}

#[test]
fn bad_platforms_devices_and_paths_exit_125_and_say_where() {
    let platform = Scratch::file("[settings]\nuapi = \"linux-9\"\n");
    for (arguments, say) in [
        (&["run", "--platform", platform.path(), "true"][..], "linux-7.3"),
        (&["run", "--platform", platform.path(), "true"], ":2:"),
        (&["run", "--platform", "/nonexistent", "true"], "/nonexistent"),
        (&["run", "--device", "toaster", "true"], "dma-engine"),
        (&["run", "--report", "/nonexistent/report", "true"], "/nonexistent/report"),
        (&["run", "--trace=/nonexistent/trace", "true"], "/nonexistent/trace"),
        (&["platform", platform.path()], ":2:"),
        (&["ls", "--platform", platform.path()], ":2:"),
    ] {
        let (found, stdout, stderr) = outcome(arguments);
        assert_eq!(found, Some(125), "{arguments:?}: {stderr}");
        assert!(stderr.contains(say), "{arguments:?}: {stderr}");
        assert_eq!(stdout, "", "{arguments:?}");
    }
}

#[test]
fn statuses_are_the_programs() {
    for (program, status) in [
        (&["true"][..], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
    ] {
        for lead in [&["run", "--"][..], &["run"]] {
            let arguments = [lead, program].concat();
            let (found, stdout, stderr) = outcome(&arguments);
            assert_eq!(found, Some(status), "{arguments:?}: {stderr}");
            assert_eq!((stdout.as_str(), stderr.as_str()), ("", ""), "{arguments:?}");
        }
    }
}

#[test]
fn what_cannot_be_started_is_127_or_126_and_one_line() {
    let plain = Scratch::file("no program\n");
    fs::set_permissions(&plain.0, fs::Permissions::from_mode(0o644)).unwrap();
    for (program, status) in
        [("/nonexistent/vmm", 127), ("no-such-vmm", 127), (plain.path(), 126), ("/tmp", 126)]
    {
        let (found, _, stderr) = outcome(&["run", "--", program]);
        assert_eq!(found, Some(status), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("bindery: ") && stderr.contains(program), "{stderr}");
    }
}

#[test]
fn without_a_program_the_users_shell_runs() {
    let output = bindery(&["run"]).env("SHELL", "/bin/false").output().unwrap();
    assert_eq!(told(&output).0, Some(1));
}

#[test]
fn works_as_cargos_runner() {
    // Cargo appends the test program and what the user gave it.
    let arguments = ["run", "--", "sh", "-c", "echo \"$@\"", "test", "--nocapture", "-q"];
    let (status, stdout, stderr) = outcome(&arguments);
    assert_eq!((status, stdout.as_str()), (Some(0), "--nocapture -q\n"), "{stderr}");
}

#[test]
fn an_inner_run_passes_through_and_a_stale_variable_does_not_count() {
    let inner = ["run", "--", BINDERY, "run", "--", "sh", "-c", "test -c /dev/iommu && exit 7"];
    let (status, _, stderr) = outcome(&inner);
    assert_eq!(status, Some(7), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("already inside bindery run"), "{stderr}");

    let (status, _, stderr) = outcome(&["run", "--", BINDERY, "run", "--", "no-such-vmm"]);
    assert_eq!(status, Some(127), "{stderr}");

    // Process 1 is an ancestor, and no instance of ours.
    let output = bindery(&["run", "--", "true"]).env("BINDERY", "1").output().unwrap();
    assert_eq!(told(&output), (Some(0), String::new(), String::new()));
}

#[test]
fn platform_prints_what_platform_accepts() {
    let (status, default, _) = outcome(&["platform"]);
    assert_eq!(status, Some(0));
    let file = Scratch::file(&default);
    let (status, checked, stderr) = outcome(&["platform", file.path()]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(checked.contains("b1d0:01:00.0  dma-engine"), "{checked}");
}

#[test]
fn device_help_lists_models_and_keys() {
    let (status, help, _) = outcome(&["run", "--device", "help"]);
    assert_eq!(status, Some(0));
    assert!(help.contains("dma-engine") && help.contains("vfs"), "{help}");
}

#[test]
fn doctor_finds_this_machine_able_and_says_so_in_json() {
    let (status, stdout, _) = outcome(&["doctor", "--json"]);
    let diagnosis: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(status, Some(0), "{stdout}");
    assert_eq!(diagnosis["ok"], true);
    let names: Vec<_> =
        diagnosis["checks"].as_array().unwrap().iter().map(|check| &check["name"]).collect();
    for name in ["kernel", "seccomp listener", "program's memory", "inotify limits"] {
        assert!(names.iter().any(|found| *found == name), "{name}: {stdout}");
    }
    let (status, text, _) = outcome(&["doctor"]);
    assert_eq!(status, Some(0));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.ends_with("bindery run will work on this machine.\n"), "{text}");
}

#[test]
fn ls_shows_a_running_instance_and_who_has_what() {
    let script = format!("exec 9<>$BINDERY_CDEV; {BINDERY} ls --json");
    let runtime = Scratch::directory();
    let mut command = bindery(&["run", "--", "sh", "-c", &script]);
    let output = command.env("XDG_RUNTIME_DIR", &runtime.0).output().unwrap();
    let (status, stdout, stderr) = told(&output);
    assert_eq!(status, Some(0), "{stderr}");
    let listed: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(listed["platform"], Value::Null);
    let instances = listed["instances"].as_array().unwrap();
    let ours = |instance: &&Value| instance["program"].as_str().unwrap().contains("exec 9<>");
    let functions = instances.iter().find(ours).unwrap()["functions"].as_array().unwrap();
    let owned: Vec<_> = functions.iter().filter(|row| row["owner"] != Value::Null).collect();
    assert_eq!(owned.len(), 1, "{stdout}");
    assert_eq!(owned[0]["vfio"], "vfio0");
    assert_eq!(owned[0]["owner"]["program"], "sh");
    let sockets = fs::read_dir(runtime.0.join("bindery")).unwrap().count();
    assert_eq!(sockets, 0, "the socket went with its instance");
}

#[test]
fn trace_and_report_tell_of_every_call() {
    let (trace, report) = (Scratch::file(""), Scratch::file(""));
    let output = bindery(&["run", "--report", report.path()])
        .arg(format!("--trace={}", trace.path()))
        .args(["--", BINDERY, "demo-client"])
        .output()
        .unwrap();
    let (status, stdout, stderr) = told(&output);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.starts_with("round 1: open /dev/iommu\n"), "{stdout}");
    assert!(stderr.ends_with("no findings\n"), "{stderr}");

    let trace = fs::read_to_string(trace.path()).unwrap();
    for part in [
        "] open(\"/dev/iommu\") = ",
        "flags=FIXED_IOVA|WRITEABLE|READABLE, ioas_id=",
        ", config+0x4, 2, 0x",
        "--- interrupt: b1d0:01:00.0 MSI-X vector 1\n",
        "+++ /dev/vfio/devices/vfio0 closed (opened by ",
    ] {
        assert!(trace.contains(part), "{part}\n{trace}");
    }

    let report: Value = serde_json::from_str(&fs::read_to_string(report.path()).unwrap()).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["clean"], true);
    assert_eq!(report["exit_status"], 0);
    let calls = report["calls"].as_array().unwrap();
    assert!(calls.iter().any(|call| call["name"] == "IOMMU_IOAS_MAP" && call["count"] == 1));
    assert!(report["dma_bytes"].as_u64().unwrap() >= 512 << 10);
}

#[test]
fn nothing_found_changes_no_status() {
    let opener = ["run", "--error-exitcode", "9", "--", "sh", "-c", "exec 9<>/dev/iommu"];
    let (status, _, stderr) = outcome(&opener);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let (status, _, _) = outcome(&["run", "--error-exitcode", "9", "--", "false"]);
    assert_eq!(status, Some(1));
}

#[test]
fn findings_are_told_and_turn_success_into_the_status_asked_for() {
    let program = Scratch::file("");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/c/vanish.c");
    let flags = ["-O1", "-pthread", "-o", program.path(), source];
    assert!(Command::new("cc").args(flags).status().unwrap().success());
    let (status, _, stderr) = outcome(&["run", "--", program.path(), "unmap"]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stderr.starts_with("bindery: findings ("), "{stderr}");
    assert!(stderr.contains("b1d0:01:00.0: 1 DMA fault (memory behind it is gone): "), "{stderr}");
    let (status, _, stderr) =
        outcome(&["run", "--error-exitcode", "9", "--", program.path(), "unmap"]);
    assert_eq!(status, Some(9), "{stderr}");
}

#[test]
fn demo_shows_both_sides_in_eighty_columns() {
    let (status, timeline, stderr) = outcome(&["demo"]);
    assert_eq!(status, Some(0), "{timeline}{stderr}");
    // What is done on purpose: a breach, and an exit with everything open.
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
    for finding in ["TDI went to ERROR once (bus master enable cleared)", "left at exit: 1 ioas"] {
        assert!(stderr.contains(finding), "{finding}\n{stderr}");
    }
    for part in [
        "connect the TSM: session and keys with b1d0:01:00.0",
        "    host: bound      TSM: LOCKED     device: LOCKED",
        "b1d0:01:00.0 LOCK",
        "read the interface report: ",
        "    host: bound      TSM: RUN        device: RUN",
        "b1d0:01:00.0 RUN",
        ", T=1",
        "    host: bound      TSM: RUN        device: ERROR",
        "b1d0:01:00.0 unbound",
        "    host: unbound    TSM: -          device: UNLOCKED",
        "a tombstone now: ENOENT",
        "asking for RUN: ENXIO",
        "bind it to the iommufd: device ",
        "VFIO_DEVICE_BIND_IOMMUFD",
        "b1d0:01:00.0 writes 256 KiB of memory",
        "b1d0:01:00.0 raises MSI-X vector 1",
        "compare 256 KiB: the copy is right",
        "/dev/iommu closed, nothing left in it",
    ] {
        assert!(timeline.contains(part), "{part}\n{timeline}");
    }
    assert!(timeline.lines().all(|line| line.chars().count() <= 80), "{timeline}");
    assert!(!timeline.contains('\x1b'), "no colour where there is no terminal");
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut command = bindery(&["platform"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), None);
    assert_eq!(told(&output).2, "");
}
