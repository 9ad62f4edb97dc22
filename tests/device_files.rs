//! Device files, nodes and attributes as C programs and shells use them: regions by every read and
//! write, interrupts of every kind, paths, refused DMA, and what a platform's settings decide.

mod programs;

use std::fs;
use std::path::Path;
use std::process::Command;

use programs::{BINDERY, Scratch, installed, run, succeed};
use serde_json::Value;

#[test]
fn regions_interrupts_and_nodes_answer_as_the_kernels() {
    for client in ["regions", "interrupts", "ioeventfds", "dma_bufs", "nodes"] {
        let scratch = Scratch::new();
        let program = scratch.c_client(client, &[]);
        assert_eq!(succeed(run(&[]).arg(program)), "ok\n", "{client}");
    }
}

#[test]
fn attributes_are_written_by_shells() {
    let scratch = Scratch::new();
    let abandon = scratch.c_client("abandon", &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/programs/attributes.sh");
    for shell in ["sh", "bash"].into_iter().filter(|shell| installed(shell)) {
        let _ = fs::remove_file(scratch.path().join("bound"));
        succeed(run(&[]).args([shell, script]).arg(&abandon).arg(scratch.path()));
    }
}

#[test]
fn refused_dma_is_in_status_trace_and_report() {
    let scratch = Scratch::new();
    let program = scratch.c_client("faults", &[]);
    let file = |name| scratch.path().join(name).display().to_string();
    let (trace, report) = (file("trace"), file("report"));
    let options = [format!("--trace={trace}"), format!("--report={report}")];
    assert_eq!(succeed(run(&[&options[0], &options[1]]).arg(program)), "ok\n");

    let trace = fs::read_to_string(trace).unwrap();
    for fault in [
        "DMA fault: b1d0:01:00.0 write iova 0x10008: permission",
        "DMA fault: b1d0:01:00.0 read iova 0x20000: permission",
        "DMA fault: b1d0:01:00.0 write iova 0x31000: not mapped",
        "DMA fault: b1d0:01:00.0 read iova 0x5000000: not mapped",
    ] {
        assert!(trace.lines().any(|line| line == format!("--- {fault}")), "{fault} in\n{trace}");
    }

    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    let of = |reason: &str| {
        let faults = report["dma_faults"].as_array().unwrap();
        let fault = faults.iter().find(|fault| fault["reason"] == reason);
        fault.unwrap_or_else(|| panic!("{reason} in {report}")).clone()
    };
    let permission = of("permission");
    assert_eq!(
        (&permission["function"], &permission["count"]),
        (&"b1d0:01:00.0".into(), &2.into())
    );
    assert_eq!(permission["first"][0], serde_json::json!({"access": "write", "iova": 0x10008}));
    assert_eq!(
        of("not mapped")["first"][1],
        serde_json::json!({"access": "read", "iova": 0x500_0000})
    );
}

#[test]
fn settings_decide() {
    let scratch = Scratch::new();
    let program = scratch.c_client("policies", &[]);
    let default = "IOAS_MAP of a BAR: 0\ndma-bufs of BARs: 0\n0x95: EFAULT\n0x96: EFAULT\n0x97: ENOTTY\n\
                   COMMAND after close: 0x2\n";
    for (setting, told, instead) in [
        ("p2p_map = \"accept\"", "", ""),
        ("p2p_map = \"linux-7.3\"", "a BAR: 0", "a BAR: EFAULT"),
        ("dma_buf = \"linux-7.3\"", "", ""),
        ("dma_buf = \"off\"", "dma-bufs of BARs: 0", "dma-bufs of BARs: ENOTTY"),
        ("uapi = \"rfc\"", "", ""),
        ("uapi = \"linux-7.3\"", "0x96: EFAULT", "0x96: ENOTTY"),
        ("uapi = \"rfc-2025-05\"", "0x95: EFAULT\n0x96: EFAULT", "0x95: ENOTTY\n0x96: ENOTTY"),
        ("close_order = \"unbind-first\"", "", ""),
        ("close_order = \"linux-7.3\"", "", ""),
    ] {
        let platform = platform_with(scratch.path(), setting);
        let printed = succeed(run(&["--platform", &platform]).arg(&program));
        assert_eq!(printed, default.replace(told, instead), "{setting}");
    }
}

/// The default platform with one setting changed.
fn platform_with(folder: &Path, setting: &str) -> String {
    let default = succeed(Command::new(BINDERY).arg("platform"));
    let key = setting.split_inclusive('=').next().unwrap();
    let lines = default.lines().map(|line| if line.starts_with(key) { setting } else { line });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert!(text.contains(setting), "{setting} is no setting of\n{text}");
    let path = folder.join("platform.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A program killed wherever it happens to be leaves a device that the next one binds at once, and
/// that works.
#[test]
fn killed_clients_leave_the_device_free() {
    const ROUNDS: usize = 20;
    let scratch = Scratch::new();
    let abandon = scratch.c_client("abandon", &[]);
    // Each round lives a little longer than the one before: mapping, DMA, interrupts are all cut short.
    let script = "i=0; while [ $i -lt $2 ]; do \
                  rm -f \"$3\"; mkfifo \"$3\"; \"$1\" > \"$3\" & \
                  read -r line < \"$3\" || exit 9; echo \"$line\"; \
                  sleep 0.00$((i * 7 % 10))$i; kill -KILL $!; wait $! 2>/dev/null; \
                  i=$((i + 1)); done";
    let fifo = scratch.path().join("fifo");
    let mut command = run(&[]);
    command.args(["sh", "-c", script, "sh"]).arg(abandon).arg(ROUNDS.to_string()).arg(fifo);
    assert_eq!(succeed(&mut command), "bound\n".repeat(ROUNDS));
}

#[test]
fn dma_goes_through_a_guests_tables_on_vtd() {
    let scratch = Scratch::new();
    let program = scratch.c_client("nested_vtd", &[]);
    let vtd = concat!(env!("CARGO_MANIFEST_DIR"), "/../../platforms/vtd.toml");
    assert_eq!(succeed(run(&["--platform", vtd]).arg(program)), "ok\n");
}

#[test]
fn dma_goes_through_a_guests_tables_on_smmuv3() {
    let scratch = Scratch::new();
    let program = scratch.c_client("nested_smmuv3", &[]);
    let smmuv3 = concat!(env!("CARGO_MANIFEST_DIR"), "/../../platforms/smmuv3.toml");
    assert_eq!(succeed(run(&["--platform", smmuv3]).arg(program)), "ok\n");
}
