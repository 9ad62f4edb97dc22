//! Which capabilities a thread of the program counts as holding: by [`Capabilities::UnlessDropped`], those that it holds
//! and those that we lack ourselves, which it had no chance to drop.
//!
//! Asked anew at each question. Takes no lock. Source: capabilities(7), capget(2).

use std::sync::OnceLock;

use rustix::process::Pid;
use rustix::thread::{CapabilitySet, capabilities};

use crate::platform::Capabilities;

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// `CAP_IPC_LOCK`: what is pinned is held against no limit.
    IpcLock,
    /// `CAP_SYS_RAWIO`: physical addresses may be known.
    SysRawio,
    /// `CAP_SYS_RESOURCE`: limits may be raised.
    SysResource,
}

/// Whether thread `tid` counts as holding it. One that is gone holds all.
pub(crate) fn holds(policy: Capabilities, tid: i32, capability: Capability) -> bool {
    static OURS: OnceLock<CapabilitySet> = OnceLock::new();
    let wanted = capability.set();
    if policy == Capabilities::UnlessDropped {
        let ours = OURS.get_or_init(|| effective(None).unwrap_or(CapabilitySet::empty()));
        if !ours.contains(wanted) {
            return true;
        }
    }
    Pid::from_raw(tid).and_then(|tid| effective(Some(tid))).is_none_or(|held| held.contains(wanted))
}

/// The effective set of a thread, our own if none is named; `None` if it is gone.
fn effective(thread: Option<Pid>) -> Option<CapabilitySet> {
    Some(capabilities(thread).ok()?.effective)
}

impl Capability {
    const fn set(self) -> CapabilitySet {
        match self {
            Self::IpcLock => CapabilitySet::IPC_LOCK,
            Self::SysRawio => CapabilitySet::SYS_RAWIO,
            Self::SysResource => CapabilitySet::SYS_RESOURCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_dropped_is_held() {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        for capability in [Capability::IpcLock, Capability::SysResource] {
            assert!(holds(Capabilities::UnlessDropped, own, capability));
            let real = effective(None).is_some_and(|held| held.contains(capability.set()));
            assert_eq!(holds(Capabilities::Mirror, own, capability), real);
        }
    }

    #[test]
    fn a_thread_that_is_gone_is_not_refused() {
        assert!(holds(Capabilities::Mirror, i32::MAX, Capability::IpcLock));
    }
}
