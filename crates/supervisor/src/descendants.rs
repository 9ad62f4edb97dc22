//! Ending every process that descends from this one.
//!
//! This process must be a child subreaper: what a killed process leaves behind then becomes our
//! child, so killing children again and again reaches all, and no number can be reused between
//! seeing and killing it, for only we reap. Takes no lock.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};

/// Kills children until there are none.
pub(crate) fn kill_all() {
    loop {
        kill_children();
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Kills the children that there are now.
pub(crate) fn kill_children() {
    for child in children(getpid()) {
        // Gone already is as good.
        let _ = kill_process(child, Signal::KILL);
    }
}

/// Processes whose parent is `parent`.
fn children(parent: Pid) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let pids = numbers.filter_map(Pid::from_raw);
    pids.filter(|&pid| stat(pid).is_some_and(|stat| stat.parent == parent.as_raw_nonzero().get()))
        .collect()
}

/// What `/proc/PID/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R`, `S`, `T`, `Z`, …
    pub(crate) state: char,
    /// The parent's number.
    pub(crate) parent: i32,
    /// The process is on its way out.
    pub(crate) exiting: bool,
}

/// Reads `/proc/PID/stat`; `None` where there is no such process.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// The kernel's `PF_EXITING`.
const EXITING: u64 = 4;

fn parse(text: &str) -> Option<Stat> {
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let flags: u64 = fields.nth(4)?.parse().ok()?;
    Some(Stat { state, parent, exiting: flags & EXITING != 0 || state == 'Z' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_a_child_and_its_end() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(children(getpid()).contains(&pid));
        assert!(!stat(pid).unwrap().exiting);
        child.kill().unwrap();
        while !stat(pid).unwrap().exiting {
            thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert_eq!(stat(pid), None);
    }

    #[test]
    fn names_may_hold_parentheses() {
        let text = "12 (a) R (b) S 7 12 12 0 -1 4194308 0";
        assert_eq!(parse(text), Some(Stat { state: 'S', parent: 7, exiting: true }));
        assert_eq!(parse("12 (a"), None);
    }
}
