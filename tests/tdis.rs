//! TDIs of unmodified programs: which VM they are bound to, and what people and programs are told of
//! one that goes to ERROR.

mod programs;

use std::fs;

use programs::{Scratch, run, succeed};
use serde_json::{Value, json};

#[test]
fn a_file_belongs_to_the_one_vm_of_the_process_that_links_it() {
    let scratch = Scratch::new();
    let program = scratch.c_client("vms", &[]);
    let platform = scratch.path().join("platform.toml");
    let text = supervisor::DEFAULT_TOML.replace("tvm = \"implicit\"", "tvm = \"kvm\"");
    fs::write(&platform, text).unwrap();
    let mut command = run(&["--platform", &platform.display().to_string()]);
    let said = succeed(command.arg(program));
    assert!(["ok\n", "no KVM\n"].contains(&said.as_str()), "{said}");
}

#[test]
fn a_breach_reaches_the_program_the_trace_and_the_report() {
    let scratch = Scratch::new();
    let program = scratch.c_client("breach", &[]);
    let file = |name: &str| scratch.path().join(name).display().to_string();
    let (platform, trace, report) = (file("platform.toml"), file("trace"), file("report"));
    for event in ["err", "req", "none"] {
        let setting = format!("tdi_error_event = \"{event}\"");
        let text = supervisor::DEFAULT_TOML.replace("tdi_error_event = \"err\"", &setting);
        assert!(text.contains(&setting));
        fs::write(&platform, text).unwrap();
        let (to_trace, to_report) = (format!("--trace={trace}"), format!("--report={report}"));
        let mut command = run(&["--platform", &platform, &to_trace, &to_report]);
        assert_eq!(succeed(command.arg(&program)), format!("{event}\n"));
        assert_told(&fs::read_to_string(&trace).unwrap());
        let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
        let cause = "bus master enable cleared";
        let expected = json!([{"function": "b1d0:01:00.1", "cause": cause, "count": 1}]);
        assert_eq!(report["tdi_errors"], expected);
        assert_eq!(report["tdis_left"], json!([]));
        assert_eq!(
            (&report["tsm"]["binds"], &report["tsm"]["unbinds"]),
            (&json!(1), &json!(1)),
            "{report}"
        );
        assert_eq!(report["clean"], false, "a TDI in ERROR is a finding");
    }
}

/// Each line, in this order.
fn assert_told(trace: &str) {
    let mut lines = trace.lines();
    for expected in [
        "--- TDI: b1d0:01:00.1 CONFIG_UNLOCKED -> CONFIG_LOCKED",
        "--- TDI: b1d0:01:00.1 CONFIG_LOCKED -> RUN",
        "--- DMA T=1: b1d0:01:00.1 write iova 0x100000000, 4096 bytes",
        "--- TDI: b1d0:01:00.1 RUN -> ERROR: bus master enable cleared",
        "--- TDI: b1d0:01:00.1 ERROR -> CONFIG_UNLOCKED",
        "--- TSM: b1d0:01:00.1 unbound",
    ] {
        assert!(lines.any(|line| line == expected), "{expected} in\n{trace}");
    }
}
