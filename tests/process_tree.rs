//! `bindery run` as a process among processes: exit statuses, signals, daemons, and that nothing
//! survives whoever is killed.

mod programs;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use std::{fs, hint};

use programs::{BINDERY, Scratch, run, succeed};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn exit_status_is_the_programs() {
    for (script, status) in
        [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
    {
        let output = run(&[]).args(["sh", "-c", script]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{script}");
    }
}

#[test]
fn program_that_cannot_start_is_126_or_127() {
    let scratch = Scratch::new();
    let plain = scratch.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    for (program, status) in [("bindery-no-such-program", 127), (plain.to_str().unwrap(), 126)] {
        let output = run(&[]).arg(program).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(program), "{told}");
    }
}

#[test]
fn clients_output_is_its_own() {
    let output = run(&[]).args(["echo", "hello"]).output().unwrap();
    assert_eq!(output.stdout, b"hello\n");
    assert_eq!(output.stderr, b"");
}

#[test]
fn an_instance_can_be_asked_from_the_programs_beginning() {
    let scratch = Scratch::new();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        // On a busy machine the program is often faster than whoever serves it.
        for _ in 0..4 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let is_there = |_: &i32| {
            let mut command = run(&[]);
            command.env("XDG_RUNTIME_DIR", scratch.path());
            let script = "test -S $XDG_RUNTIME_DIR/bindery/$BINDERY";
            command.args(["sh", "-c", script]).status().unwrap().success()
        };
        let missed = (0..20).filter(|round| !is_there(round)).count();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(missed, 0, "of 20");
    });
}

#[test]
fn nested_run_passes_through() {
    let output = run(&[])
        .args([BINDERY, "run", "--", "sh", "-c", "test -c /dev/iommu && exit 7"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn waits_for_a_daemon() {
    let scratch = Scratch::new();
    let mark = scratch.path().join("mark");
    let script = format!(
        "setsid sh -c 'sleep 0.5; test -c /dev/iommu && echo alive > {}' >/dev/null 2>&1 &",
        mark.display()
    );
    succeed(run(&[]).args(["sh", "-c", &script]));
    assert_eq!(fs::read_to_string(mark).unwrap(), "alive\n");
}

#[test]
fn terminating_signal_reaches_the_program_once() {
    let script = "trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = piped(&["sh", "-c", script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "term");
    assert!(lines.next().is_none(), "the signal came twice");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn nothing_survives_the_guard() {
    let (mut child, tree) = tree();
    kill_process(pid(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    all_end(&tree);
}

#[test]
fn nothing_survives_the_supervisor() {
    let (mut child, tree) = tree();
    let supervisor = children(child.id())[0];
    kill_process(Pid::from_raw(i32::try_from(supervisor).unwrap()).unwrap(), Signal::KILL).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(125), "our own failure");
    all_end(&tree);
}

#[test]
fn no_call_fails_with_enosys_while_the_supervisor_dies() {
    let script =
        "echo $$; while :; do cat /sys/bus/pci/devices/$BINDERY_BDF/vendor || exit; done 2>&1";
    let mut child = piped(&["sh", "-c", script]);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    sleep(Duration::from_millis(200));
    let supervisor = children(child.id())[0];
    kill_process(Pid::from_raw(i32::try_from(supervisor).unwrap()).unwrap(), Signal::KILL).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    child.wait().unwrap();
    assert!(!rest.contains("not implemented"), "{rest}");
}

/// A supervised tree of several generations and sessions, and the pids in it.
fn tree() -> (Child, Vec<u32>) {
    let script = "sleep 1000 & setsid sleep 1000 & (sh -c 'sleep 1000; :' &) ; \
                  setsid sh -c '(sleep 1000 &) ; sleep 1000; :' & echo ready; wait";
    let mut child = piped(&["sh", "-c", script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    sleep(Duration::from_millis(300));
    let mut pids = vec![];
    let mut pending = children(child.id());
    while let Some(pid) = pending.pop() {
        pending.extend(children(pid));
        pids.push(pid);
    }
    assert!(pids.len() >= 7, "supervisor, shell and sleepers: {pids:?}");
    (child, pids)
}

fn piped(program: &[&str]) -> Child {
    run(&[]).args(program).stdout(Stdio::piped()).spawn().unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return vec![] };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

fn all_end(pids: &[u32]) {
    let begun = Instant::now();
    let alive = |pid: &&u32| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    loop {
        let left: Vec<_> = pids.iter().filter(alive).collect();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "still alive: {left:?}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn kill_by_pid_of_everything_visible_is_clean() {
    let mut children = vec![];
    for _ in 0..4 {
        let mut child = Command::new(BINDERY)
            .args(["run", "--", "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(50));
        kill_process(pid(&child), Signal::TERM).unwrap();
        children.push(child.wait().unwrap().code());
    }
    // TERM either met the guard before the program ran, or was forwarded to it.
    assert!(children.iter().all(|status| matches!(status, Some(143) | None)), "{children:?}");
}
