//! QEMU under `bindery run`, driven through its qtest protocol: a guest's port, memory and config
//! accesses without a guest. The vCPU never runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The program tested against.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const CONFIG_ENABLE: u32 = 1 << 31;
/// How long QEMU may take for anything before the test calls it hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the program is there, and of version 10 or later.
pub(crate) fn new_enough() -> bool {
    let Ok(output) = Command::new(PROGRAM).arg("--version").output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split("version ").nth(1).and_then(|rest| rest.split('.').next());
    version.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 10)
}

/// A running QEMU.
pub(crate) struct Qemu {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    monitor: UnixStream,
    monitor_path: PathBuf,
}

impl Qemu {
    /// Starts `command` (which ends in running QEMU) with the machine every test uses and `arguments`,
    /// among them the accelerator.
    pub(crate) fn start(mut command: Command, scratch: &Path, arguments: &[&str]) -> Self {
        let monitor_path = scratch.join("monitor");
        let monitor = format!("unix:{},server=on,wait=off", monitor_path.display());
        let mut child = command
            .args(["-S", "-nodefaults", "-display", "none", "-machine", "pc"])
            .args(["-qtest", "stdio", "-qtest-log", "none", "-monitor", &monitor])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bindery starts");
        let requests = child.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let monitor = connect(&monitor_path, &mut child);
        let mut qemu = Self { child, requests, answers, monitor, monitor_path };
        qemu.wait_for_prompt();
        qemu
    }

    /// Reads a dword of a device's config space as guest firmware does.
    pub(crate) fn config_read(&mut self, slot: u8, offset: u16) -> u32 {
        self.select(slot, offset);
        self.number(&format!("inl {CONFIG_DATA:#x}"))
    }

    /// Writes a dword of a device's config space.
    pub(crate) fn config_write(&mut self, slot: u8, offset: u16, value: u32) {
        self.select(slot, offset);
        self.ask(&format!("outl {CONFIG_DATA:#x} {value:#x}"));
    }

    /// Loads a dword at a guest physical address.
    pub(crate) fn load(&mut self, address: u64) -> u32 {
        self.number(&format!("readl {address:#x}"))
    }

    /// Stores a dword at a guest physical address.
    pub(crate) fn store(&mut self, address: u64, value: u32) {
        self.ask(&format!("writel {address:#x} {value:#x}"));
    }

    /// Reads guest memory.
    pub(crate) fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        let answer = self.ask(&format!("read {address:#x} {length:#x}"));
        let hex = answer.strip_prefix("0x").expect("qtest answers in hexadecimal");
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
            .collect()
    }

    /// Writes guest memory.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&format!("write {address:#x} {:#x} 0x{hex}", bytes.len()));
    }

    /// Runs a monitor command and returns what it printed.
    pub(crate) fn monitor(&mut self, command: &str) -> String {
        writeln!(self.monitor, "{command}").expect("the monitor listens");
        self.wait_for_prompt()
    }

    /// Waits until `condition` holds, which something asynchronous brings about.
    pub(crate) fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come about in {PATIENCE:?}");
            sleep(Duration::from_millis(2));
        }
    }

    /// Quits through the monitor and waits for the end.
    pub(crate) fn quit(mut self) -> ExitStatus {
        writeln!(self.monitor, "quit").expect("the monitor listens");
        let status = self.child.wait().expect("QEMU ends");
        let _ = std::fs::remove_file(&self.monitor_path);
        status
    }

    fn select(&mut self, slot: u8, offset: u16) {
        let address = CONFIG_ENABLE | u32::from(slot) << 11 | u32::from(offset & 0xfc);
        self.ask(&format!("outl {CONFIG_ADDRESS:#x} {address:#x}"));
    }

    fn number(&mut self, request: &str) -> u32 {
        let answer = self.ask(request);
        let digits = answer.strip_prefix("0x").expect("qtest answers in hexadecimal");
        let value = u64::from_str_radix(digits, 16).expect("hexadecimal");
        u32::try_from(value & 0xffff_ffff).expect("masked")
    }

    fn ask(&mut self, request: &str) -> String {
        writeln!(self.requests, "{request}").expect("QEMU listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("QEMU answers");
        let answer = answer.trim_end();
        let rest = answer.strip_prefix("OK").unwrap_or_else(|| panic!("{request}: {answer:?}"));
        rest.trim_start().to_owned()
    }

    fn wait_for_prompt(&mut self) -> String {
        let mut reader = BufReader::new(self.monitor.try_clone().expect("the monitor is a socket"));
        let mut text = Vec::new();
        while !text.ends_with(b"(qemu) ") {
            let bytes = reader.fill_buf().expect("the monitor answers");
            assert!(!bytes.is_empty(), "QEMU ended: {}", String::from_utf8_lossy(&text));
            let count = bytes.len();
            text.extend_from_slice(bytes);
            reader.consume(count);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn connect(path: &Path, child: &mut Child) -> UnixStream {
    let begun = Instant::now();
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
            return stream;
        }
        if let Some(status) = child.try_wait().expect("QEMU can be waited for") {
            panic!("QEMU ended before its monitor was up: {status}");
        }
        assert!(begun.elapsed() < PATIENCE, "QEMU did not open its monitor in {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
}
