//! Which capabilities a thread of the program counts as holding.
//!
//! A capability counts as held unless the program has dropped it since it was started: what whoever runs Bindery lacks
//! from the beginning is no fault of the program's. Read anew at each question. Takes no lock. Source: capabilities(7),
//! proc_pid_status(5).

use std::fs;
use std::sync::OnceLock;

/// A capability, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// `CAP_IPC_LOCK`: what is pinned is held against no limit.
    IpcLock = 14,
    /// `CAP_SYS_RESOURCE`: limits may be raised.
    SysResource = 24,
}

/// Whether thread `tid` counts as holding it.
pub(crate) fn holds(tid: i32, capability: Capability) -> bool {
    static OURS: OnceLock<u64> = OnceLock::new();
    let bit = 1_u64 << capability as u32;
    let ours = *OURS.get_or_init(|| effective("self").unwrap_or(0));
    ours & bit == 0 || effective(&tid.to_string()).is_none_or(|held| held & bit != 0)
}

/// The effective set of a thread; `None` if it is gone.
fn effective(task: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{task}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_dropped_is_held() {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(holds(own, Capability::IpcLock));
        assert!(holds(own, Capability::SysResource));
        assert!(effective("self").is_some());
        assert!(effective("0").is_none());
    }
}
