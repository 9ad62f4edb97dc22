//! Files closed, and clients killed, while a device's security manager is silent: what runs is given
//! up, the device is free soon, and nobody else is held up.

mod programs;

use std::fs;
use std::path::PathBuf;

use programs::{Scratch, run, succeed};
use serde_json::Value;

/// A device of its own beside the default ones, and a minute for every exchange.
const ANOTHER_DEVICE: &str = "
[[function]]
address = \"b1d0:00:04.0\"
model = \"root-port\"
secondary_bus = 0x04
[[function]]
address = \"b1d0:04:00.0\"
model = \"dma-engine\"
tee = true
";

struct Case {
    scratch: Scratch,
    platform: PathBuf,
    program: PathBuf,
}

impl Case {
    /// The default platform with another device, a fault of the virtual function, and this timeout.
    fn new(fault: &str, exchange_timeout_ms: u32) -> Self {
        let scratch = Scratch::new();
        let timeout = format!("exchange_timeout_ms = {exchange_timeout_ms}");
        let text = supervisor::DEFAULT_TOML.replace("exchange_timeout_ms = 1000", &timeout);
        let fault = format!("[[fault]]\nfunction = \"b1d0:01:00.1\"\nfault = \"{fault}\"\n");
        let platform = scratch.path().join("platform.toml");
        fs::write(&platform, format!("{text}{ANOTHER_DEVICE}{fault}")).unwrap();
        let program = scratch.c_client("releases", &[]);
        Self { scratch, platform, program }
    }

    /// Runs the client; answers the report.
    fn run(&self, arguments: &[&str]) -> Value {
        let report = self.scratch.path().join("report");
        let platform = self.platform.display().to_string();
        let told = format!("--report={}", report.display());
        let mut command = run(&["--platform", &platform, &told]);
        assert_eq!(succeed(command.arg(&self.program).args(arguments)), "ok\n", "{arguments:?}");
        serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap()
    }
}

fn assert_settled(report: &Value) {
    assert_eq!(report["tsm"]["binds"], report["tsm"]["unbinds"], "{report}");
    assert_eq!(report["tdis_left"], Value::Array(Vec::new()), "{report}");
}

#[test]
fn a_close_gives_up_a_bind_that_a_silent_device_does_not_answer() {
    for way in ["close-device", "close-iommu", "kill"] {
        let report = Case::new("bind=silent*1", 30_000).run(&[way]);
        assert_settled(&report);
        assert_eq!(report["tsm"]["cancelled"], 1, "{way}: {report}");
        assert_eq!(report["tsm"]["binds"], 2, "{way}: {report}");
    }
}

#[test]
fn a_slow_release_holds_up_nobody_who_cannot_tell() {
    let platform = supervisor::Platform::default();
    let other =
        supervisor::function_rows(&platform).iter().filter(|row| row.vfio.is_some()).count();
    let other = format!("/dev/vfio/devices/vfio{other}");
    let report = Case::new("unbind=slow:1200*1", 2_000).run(&["others", &other]);
    assert_settled(&report);
}
