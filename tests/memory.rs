//! Client memory that goes away under a running DMA: the device sees a fault, nobody else anything.

mod programs;

use std::process::Command;

use programs::{Scratch, is_root, run, succeed, unprivileged};

/// How memory goes, and how the work that was writing to it may end. Where the bytes stay reachable
/// by address (a hole fills with fresh pages) the work is done; else it ends in "memory gone".
const WAYS: &[(&str, &[&str])] = &[
    ("truncate", &["fault 5"]),
    ("truncate-file", &["fault 5"]),
    ("unmap", &["fault 5"]),
    ("exit", &["fault 5"]),
    ("exec", &["fault 5"]),
    ("punch", &["done"]),
    ("punch-file", &["done"]),
    ("protect", &["done", "fault 5"]),
];

#[test]
fn memory_that_vanishes_is_a_dma_fault() {
    let scratch = Scratch::new();
    let program = scratch.c_client("vanish", &[]);
    for (how, ends) in WAYS {
        let printed = succeed(run(&[]).arg(&program).arg(how));
        assert!(ends.contains(&printed.trim()), "{how}: {printed}");
    }
}

/// Shared memory stays what it was pinned as; who may not open it behind the process that is gone sees a fault.
#[test]
fn memory_that_others_share_outlives_the_process_that_mapped_it() {
    let scratch = Scratch::new();
    let program = scratch.c_client("vanish", &[]);
    let printed = succeed(run(&[]).arg(&program).arg("exit-shared"));
    let expected = if rustix::process::geteuid().is_root() { "done" } else { "fault 5" };
    assert_eq!(printed.trim(), expected);
}

/// What software pins, on the platform of the kernel's own tests.
#[test]
fn what_software_pins_is_told_and_runs_out_on_demand() {
    let scratch = Scratch::new();
    let program = scratch.c_client("software_user", &[]);
    let mock = concat!("--platform=", env!("CARGO_MANIFEST_DIR"), "/../../platforms/mock.toml");
    assert_eq!(succeed(run(&[mock]).arg(&program)).trim(), "done");
}

/// What is pinned is held against RLIMIT_MEMLOCK of who may not lock as much as it likes.
#[test]
fn pinning_ends_where_the_memlock_limit_does() {
    let scratch = Scratch::new();
    let program = scratch.c_client("locked", &[]);
    let done = |command: &mut Command| assert_eq!(succeed(command).trim(), "done");
    done(run(&[]).arg(&program).arg("free"));
    if is_root() {
        done(run(&[]).arg(&program).args(["limited", "drop"]));
    }
    let bindery = scratch.bindery();
    done(unprivileged(&bindery).args(["run", "--"]).arg(&program).arg("free"));
    let mirror = scratch.platform("capabilities = \"unless-dropped\"", "capabilities = \"mirror\"");
    let mut mirrored = unprivileged(&bindery);
    done(mirrored.arg("run").arg("--platform").arg(&mirror).arg("--").arg(&program).arg("limited"));
}

#[test]
fn fault_is_found_and_traced() {
    let scratch = Scratch::new();
    let program = scratch.c_client("vanish", &[]);
    let trace = scratch.path().join("trace");
    let report = scratch.path().join("report");
    let options =
        [format!("--trace={}", trace.display()), format!("--report={}", report.display())];
    succeed(run(&[&options[0], &options[1]]).arg(&program).arg("unmap"));
    let traced = std::fs::read_to_string(trace).unwrap();
    let fault = traced.lines().find(|line| line.contains("memory behind it is gone"));
    let fault = fault.unwrap_or_else(|| panic!("no fault in the trace:\n{traced}"));
    assert!(fault.contains("b1d0:01:00.0") && fault.contains("iova 0x1"), "{fault}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert!(report.to_string().contains("b1d0:01:00.0"), "{report}");
}
