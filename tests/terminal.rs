//! `bindery run` as a job of a shell on a terminal: Ctrl-C arrives once, Ctrl-Z stops the job and `fg`
//! goes on with it, a new window size is heard of. All as without us.

mod programs;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use programs::{BINDERY, installed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(20);
const CTRL_C: &[u8] = b"\x03";
const CTRL_Z: &[u8] = b"\x1a";

fn main() {
    let arguments = Arguments::from_args();
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
        .with_ignored_flag(!installed("setsid"))
        .with_kind("needs setsid")
    };
    let trials = vec![
        trial("interrupt_arrives_once", interrupt_arrives_once),
        trial("stop_and_continue_as_a_shell_job", stop_and_continue_as_a_shell_job),
        trial("new_window_size_is_heard_of", new_window_size_is_heard_of),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn interrupt_arrives_once() {
    let mut terminal = Terminal::run(
        "trap 'count=$((count+1)); echo interrupt $count' INT; echo ready; \
         while [ ! -e /dev/iommu.none ]; do sleep 0.05; [ \"$count\" ] && sleep 0.3 && exit $count; done",
        "echo ended $?",
    );
    terminal.expect("ready");
    terminal.press(CTRL_C);
    terminal.expect("interrupt 1");
    terminal.expect("ended 1");
    assert!(!terminal.seen.contains("interrupt 2"), "{}", terminal.seen);
}

fn stop_and_continue_as_a_shell_job() {
    // One process that spawns no other: a shell is not stopped while its child is between vfork and exec.
    let mut terminal = Terminal::run(
        "echo ready; exec sleep 1000",
        "echo stopped $?; fg >/dev/null; echo ended $?",
    );
    terminal.expect("ready");
    terminal.press(CTRL_Z);
    // 128 + SIGTSTP or SIGSTOP: shells differ in nothing else.
    terminal.expect("stopped 14");
    std::thread::sleep(Duration::from_millis(200));
    terminal.press(CTRL_C);
    terminal.expect("ended 130");
}

fn new_window_size_is_heard_of() {
    let mut terminal = Terminal::run(
        "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done",
        "echo ended $?",
    );
    terminal.expect("ready");
    tcsetwinsize(&terminal.master, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 })
        .unwrap();
    terminal.expect("33 77");
    terminal.press(CTRL_C);
    terminal.expect("ended 130");
}

/// A shell with job control on a terminal of its own, which runs one script under `bindery run`.
struct Terminal {
    master: File,
    shell: Child,
    seen: String,
}

impl Terminal {
    /// `script` is the supervised program's, `after` the shell's own once the job has stopped or ended.
    fn run(script: &str, after: &str) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave: OwnedFd = open(name, flags, Mode::empty()).unwrap();
        let job = format!("\"$0\" run -- sh -c \"$1\"; {after}");
        // Whoever runs the tests in the background may have keyboard signals ignored.
        let shell = Command::new("env")
            .args(["--default-signal=INT,QUIT,TSTP", "setsid", "--ctty", "--wait"])
            .args(["sh", "-mc", &job, BINDERY, script])
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        Self { master: master.into(), shell, seen: String::new() }
    }

    fn press(&mut self, key: &[u8]) {
        self.master.write_all(key).unwrap();
    }

    fn expect(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.seen.contains(text) {
            assert!(begun.elapsed() < PATIENCE, "no {text:?} in:\n{}", self.seen);
            let mut source = [PollFd::new(&self.master, PollFlags::IN)];
            let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            if poll(&mut source, Some(&moment)).unwrap() == 0 {
                continue;
            }
            let mut bytes = [0; 4096];
            // EIO: the last process has left the terminal.
            let count = self.master.read(&mut bytes).unwrap_or(0);
            assert!(
                count > 0 || self.seen.contains(text),
                "ended without {text:?}:\n{}",
                self.seen
            );
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
