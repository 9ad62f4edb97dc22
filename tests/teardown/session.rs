//! One `bindery run` that serves many clients in a row: a shell in it does what it is told.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::programs::{BINDERY, Scratch, succeed};
use crate::shape::{Policy, Shape};

/// The TEE device that is taken down, and one behind a root port of its own.
pub(crate) const DEVICE: &str = "b1d0:01:00.0";
pub(crate) const NEIGHBOUR: &str = "b1d0:04:00.0";

const NEIGHBOUR_FUNCTIONS: &str = r#"
[[function]]
address = "b1d0:00:04.0"
model = "root-port"
secondary_bus = 0x04

[[function]]
address = "b1d0:04:00.0"
model = "dma-engine"
tee = true
"#;

/// A running instance.
pub(crate) struct Session {
    child: Child,
    to_shell: Option<ChildStdin>,
    from_shell: BufReader<ChildStdout>,
    scratch: Scratch,
    has_tsm: bool,
    /// The instance's process.
    pid: u64,
    /// Functions with faults on demand.
    faulty: Vec<String>,
}

/// What the TSM core counted since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) binds: u64,
    pub(crate) unbinds: u64,
}

impl Session {
    /// Starts an instance, and builds the client for its profile.
    pub(crate) fn start(shape: &Shape, policy: &Policy) -> Self {
        let scratch = Scratch::new();
        build_clients(&scratch, shape);
        let mut child = Command::new(BINDERY)
            .arg("run")
            .arg("--platform")
            .arg(platform(&scratch, shape, policy))
            .args(["--", "sh"])
            .env("XDG_RUNTIME_DIR", scratch.path())
            .env("TDI", scratch.path().join("tdi"))
            .env("TDI_KILL", scratch.path().join("tdi_kill"))
            .env("TDI_PF", DEVICE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(findings(&scratch)).expect("it is ours"))
            .spawn()
            .expect("bindery runs");
        let to_shell = child.stdin.take();
        let from_shell = BufReader::new(child.stdout.take().expect("it is piped"));
        let has_tsm = shape.has_tsm();
        let faulty = Vec::new();
        let mut session = Self { child, to_shell, from_shell, scratch, has_tsm, pid: 0, faulty };
        let (pid, _) = session.tell("echo $BINDERY");
        session.pid = pid.concat().parse().expect("a process");
        session
    }

    /// Has the shell run a command to its end; its lines and its status.
    pub(crate) fn tell(&mut self, command: &str) -> (Vec<String>, i32) {
        const END: &str = "= ";
        let shell = self.to_shell.as_mut().expect("it runs");
        writeln!(shell, "{command} </dev/null 2>&1; echo \"{END}$?\"").expect("the shell listens");
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.from_shell.read_line(&mut line).expect("the shell speaks");
            assert!(read > 0, "the shell is gone after {lines:?}");
            match line.strip_prefix(END) {
                Some(status) => return (lines, status.trim().parse().expect("a status")),
                None => lines.push(line.trim_end().to_owned()),
            }
        }
    }

    /// Connects the device, before anything goes wrong with it.
    pub(crate) fn connect(&mut self) {
        let (said, status) =
            self.tell(&format!("echo tsm0 > /sys/bus/pci/devices/{DEVICE}/tsm/connect"));
        assert_eq!(status, 0, "{said:?}");
    }

    /// What the instance holds.
    pub(crate) fn ledger(&self) -> Value {
        let printed = self.ask(&["ls", "--ledger", "--json"]);
        self.own(&printed["instances"])["ledger"].clone()
    }

    /// What the instance holds once it serves no command: a write of `connect` outlives a writer who is
    /// killed, as it does in the kernel, which lets him die only then.
    pub(crate) fn settled_ledger(&self) -> Value {
        const PATIENCE: Duration = Duration::from_secs(10);
        let begun = Instant::now();
        loop {
            let ledger = self.ledger();
            if ledger["serving"] == 0 {
                return ledger;
            }
            assert!(begun.elapsed() < PATIENCE, "a command does not end:\n{ledger:#}");
        }
    }

    /// What the TSM core counted.
    pub(crate) fn counts(&self) -> Counts {
        let printed = self.ask(&["tsm", "status", "--json"]);
        let counts = &self.own(&printed)["counts"];
        let count = |name: &str| counts[name].as_u64().expect("a count");
        Counts { binds: count("binds"), unbinds: count("unbinds") }
    }

    /// Lets something go wrong with a function, until [`restore`](Self::restore).
    pub(crate) fn fault(&mut self, function: &str, fault: &str) {
        self.set_fault(function, fault);
        self.faulty.push(function.to_owned());
    }

    /// Puts back what an order leaves of its own nature: faults, the connection, virtual functions.
    pub(crate) fn restore(&mut self) {
        let (vfs, _) = self.tell(&format!("cat /sys/bus/pci/devices/{DEVICE}/sriov_numvfs"));
        if vfs == ["0"] {
            let (said, status) =
                self.tell(&format!("echo 2 > /sys/bus/pci/devices/{DEVICE}/sriov_numvfs"));
            assert_eq!(status, 0, "{said:?}");
        }
        for function in std::mem::take(&mut self.faulty) {
            self.set_fault(&function, "none");
        }
        if self.has_tsm {
            for function in [DEVICE, NEIGHBOUR] {
                // Refused where nobody had connected it.
                self.tell(&format!("echo tsm0 > /sys/bus/pci/devices/{function}/tsm/disconnect"));
            }
        }
    }

    /// Ends the instance, which must have come to no harm.
    pub(crate) fn end(mut self) {
        self.to_shell.take();
        let status = self.child.wait().expect("it is ours");
        let said = self.said();
        assert!(status.success() && !said.contains("panicked"), "{status}\n{said}");
    }

    fn set_fault(&self, function: &str, fault: &str) {
        let pid = self.pid.to_string();
        succeed(self.asking().args(["tsm", "fault", "--pid", &pid, function, fault]));
    }

    /// What every instance of this user answers.
    fn ask(&self, question: &[&str]) -> Value {
        let printed = succeed(self.asking().args(question));
        serde_json::from_str(&printed).expect("it is JSON")
    }

    /// This instance's answer.
    fn own<'a>(&self, all: &'a Value) -> &'a Value {
        let all = all.as_array().expect("an array");
        all.iter().find(|one| one["pid"] == self.pid).unwrap_or_else(|| {
            panic!("no answer of {}; it said\n{}", self.pid, self.said());
        })
    }

    /// What the instance wrote to stderr.
    fn said(&self) -> String {
        fs::read_to_string(findings(&self.scratch)).expect("it is ours")
    }

    fn asking(&self) -> Command {
        let mut command = Command::new(BINDERY);
        command.env("XDG_RUNTIME_DIR", self.scratch.path());
        command
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the instance says what it found.
fn findings(scratch: &Scratch) -> PathBuf {
    scratch.path().join("findings")
}

/// `tdi` on the header of the profile, and `tdi_kill`. Static: a program's first calls are then its own.
fn build_clients(scratch: &Scratch, shape: &Shape) {
    let header = succeed(Command::new(BINDERY).args(["uapi", "--header", shape.profile]));
    fs::write(scratch.path().join("bindery-uapi.h"), header).expect("it is ours");
    let include = format!("-I{}", scratch.path().display());
    scratch.c_client("tdi", &["-std=gnu11", "-Wextra", "-static", &include]);
    scratch.c_client("tdi_kill", &["-Wextra", "-static"]);
}

/// The default platform, with the policy's settings and a second TEE device.
fn platform(scratch: &Scratch, shape: &Shape, policy: &Policy) -> PathBuf {
    let default = succeed(Command::new(BINDERY).arg("platform"));
    let mut text = default;
    for (key, value) in policy.settings().into_iter().chain([("uapi", shape.profile)]) {
        text = with_setting(&text, key, value);
    }
    let path = scratch.path().join("platform.toml");
    fs::write(&path, text + NEIGHBOUR_FUNCTIONS).expect("it is ours");
    path
}

fn with_setting(text: &str, key: &str, value: &str) -> String {
    let begin = format!("{key} = ");
    assert!(text.lines().any(|line| line.starts_with(&begin)), "{key} is no setting of\n{text}");
    let lines = text.lines().map(|line| {
        if line.starts_with(&begin) {
            format!("{key} = \"{value}\"\n")
        } else {
            format!("{line}\n")
        }
    });
    lines.collect()
}
