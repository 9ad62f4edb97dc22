//! What programs may lock of memory, and what pinned pages take of it.
//!
//! A mapping by a thread without `CAP_IPC_LOCK` is held against `RLIMIT_MEMLOCK` of its process while it is pinned, by
//! whole pages: together with all others of its user in this run, or, where a context or VFIO's own container counts by
//! process, with what the process itself has locked. The limit is read at each pinning, as Linux reads it.
//!
//! One lock, a leaf: `pages`. Source: getrlimit(2), proc_pid_limits(5), proc_pid_status(5); v7.3 `pages.c`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iommufd::{MemoryGone, PageIdentity, PinAccess, PinFault, Pinned, Source};

use crate::process::Process;

/// Pages that are pinned, by whom they are held against.
#[derive(Debug, Default)]
pub(crate) struct LockedMemory {
    pages: Mutex<BTreeMap<Holder, u64>>,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    User(u32),
    Process(i32),
}

const PAGE_BYTES: u64 = 4096;

impl LockedMemory {
    /// `memory`, so that what is pinned of it is held against a limit of `process`, or of its user.
    pub(crate) fn charged(
        self: &Arc<Self>,
        memory: Arc<dyn Source>,
        process: &Arc<Process>,
        to_process: bool,
    ) -> Arc<dyn Source> {
        let pid = process.pid();
        let holder = if to_process {
            Holder::Process(pid)
        } else {
            Holder::User(
                status_number(pid, "Uid:").and_then(|uid| uid.try_into().ok()).unwrap_or(0),
            )
        };
        Arc::new(Charged { memory, holder, pid, locked: Arc::clone(self) })
    }

    /// Holds `pages` more against a limit in bytes, of which `others` are taken already.
    fn charge(&self, holder: Holder, pages: u64, limit: u64, others: u64) -> Result<(), PinFault> {
        let mut held = self.lock();
        let before = held.get(&holder).copied().unwrap_or(0);
        let after = before.saturating_add(pages);
        if after.saturating_add(others / PAGE_BYTES) > limit / PAGE_BYTES {
            return Err(PinFault::Limit);
        }
        held.insert(holder, after);
        Ok(())
    }

    fn uncharge(&self, holder: Holder, pages: u64) {
        if let Entry::Occupied(mut entry) = self.lock().entry(holder) {
            let left = entry.get().saturating_sub(pages);
            if left == 0 {
                entry.remove();
            } else {
                entry.insert(left);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Holder, u64>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that somebody is charged for while it is pinned.
struct Charged {
    memory: Arc<dyn Source>,
    holder: Holder,
    /// The process whose limit counts.
    pid: i32,
    locked: Arc<LockedMemory>,
}

impl Source for Charged {
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        let memory = self.memory.pin(at, length, access)?;
        let (limit, others) = (limit_bytes(self.pid), self.locked_elsewhere());
        let pages = pages_of(at, length);
        self.locked.charge(self.holder, pages, limit, others)?;
        let (holder, locked) = (self.holder, Arc::clone(&self.locked));
        Ok(Arc::new(ChargedPin { memory, holder, pages, locked }))
    }

    fn is_file(&self) -> bool {
        self.memory.is_file()
    }
}

impl Charged {
    /// Bytes that count against the same limit and that we did not pin.
    fn locked_elsewhere(&self) -> u64 {
        match self.holder {
            Holder::User(_) => 0,
            Holder::Process(pid) => status_number(pid, "VmLck:").unwrap_or(0) << 10,
        }
    }
}

/// Pinned memory; when it goes, so does the charge.
struct ChargedPin {
    memory: Arc<dyn Pinned>,
    holder: Holder,
    pages: u64,
    locked: Arc<LockedMemory>,
}

impl Drop for ChargedPin {
    fn drop(&mut self) {
        self.locked.uncharge(self.holder, self.pages);
    }
}

impl Pinned for ChargedPin {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.memory.read(at, into)
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        self.memory.write(at, from)
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.memory.page(at)
    }
}

/// The pages that bytes lie in.
const fn pages_of(at: u64, length: u64) -> u64 {
    if length == 0 {
        return 0;
    }
    let last = at.saturating_add(length - 1);
    last / PAGE_BYTES - at / PAGE_BYTES + 1
}

/// What a process may lock, in bytes. One that is gone may nothing.
fn limit_bytes(pid: i32) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    limit_in(&limits).unwrap_or(0)
}

fn limit_in(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

/// The first number of a line of `/proc/PID/status`.
fn status_number(pid: i32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_together_stays_below_the_limit() {
        let locked = LockedMemory::default();
        let (user, process) = (Holder::User(7), Holder::Process(7));
        let limit = 4 * PAGE_BYTES + PAGE_BYTES / 2;
        assert_eq!(locked.charge(user, 3, limit, 0), Ok(()));
        assert_eq!(locked.charge(user, 2, limit, 0), Err(PinFault::Limit));
        assert_eq!(locked.charge(user, 1, limit, 0), Ok(()));
        assert_eq!(locked.charge(process, 4, limit, PAGE_BYTES), Err(PinFault::Limit));
        assert_eq!(locked.charge(process, 3, limit, PAGE_BYTES), Ok(()));
        locked.uncharge(user, 3);
        assert_eq!(locked.charge(user, 3, limit, 0), Ok(()));
        locked.uncharge(user, 4);
        locked.uncharge(process, 3);
        assert!(locked.lock().is_empty());
    }

    #[test]
    fn pages_are_counted_whole() {
        let counts = [(0, 0), (0, 1), (4095, 2), (4096, 4096), (u64::MAX, 1)];
        assert_eq!(counts.map(|(at, length)| pages_of(at, length)), [0, 1, 2, 1, 1]);
    }

    #[test]
    fn the_limit_is_the_soft_one() {
        let table = |soft| {
            format!("Limit  Soft  Hard  Units\nMax locked memory  {soft}  unlimited  bytes\n")
        };
        assert_eq!(limit_in(&table("65536")), Some(65536));
        assert_eq!(limit_in(&table("unlimited")), Some(u64::MAX));
        assert_eq!(limit_in("Max open files 3 4 files"), None);
        assert_eq!(limit_bytes(0), 0);
        let own = std::process::id().cast_signed();
        assert!(limit_bytes(own) > 0);
        assert!(status_number(own, "Uid:").is_some());
    }
}
