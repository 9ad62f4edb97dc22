//! When an open file of ours has been closed for good.
//!
//! The kernel queues an inotify event before the `close`, `munmap`, exec or exit returns that gave up the
//! last reference to the program's open description. Whoever serves a request first takes what is
//! queued and completes those releases, so that nothing a program does after a close can overtake it.
//!
//! A program can open the same memfd again through `/proc/PID/fd`; then a close may not be the last,
//! and the files of all processes are searched. The same search serves where the kernel had to drop
//! events, which it says. One lock, `state`, held while releases run: a second server waits for those
//! begun by a first. No command runs under it.
//!
//! Source: inotify(7).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::process::Identity;

/// Room for a hundred events.
const EVENT_BYTES: usize = 4096;

/// Watches files for their last close.
#[derive(Debug)]
pub(crate) struct Closes {
    inotify: OwnedFd,
    state: Mutex<HashMap<i32, Watch>>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    identity: Identity,
    /// Somebody opened the file again, so that one close may not be all.
    opened_again: bool,
}

impl Closes {
    /// A watcher of nothing yet.
    ///
    /// # Errors
    /// `EMFILE` – the user has as many inotify instances as `fs.inotify.max_user_instances` allows.
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, state: Mutex::default() })
    }

    /// Watches a file of ours. Opens before this are not seen.
    ///
    /// # Errors
    /// `ENOSPC` – the user has as many watches as `fs.inotify.max_user_watches` allows.
    pub(crate) fn watch(&self, file: BorrowedFd<'_>, identity: Identity) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let events = WatchFlags::CLOSE | WatchFlags::OPEN;
        let mut state = self.lock();
        let number = inotify::add_watch(&self.inotify, path, events)?;
        state.insert(number, Watch { identity, opened_again: false });
        Ok(())
    }

    /// Calls `release` for each file that has been closed, and returns when those releases, and all
    /// that others began before, are complete. Calls `before_waiting` before it waits for others.
    pub(crate) fn complete(
        &self,
        before_waiting: impl FnOnce(),
        mut release: impl FnMut(Identity),
    ) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                before_waiting();
                self.lock()
            }
        };
        loop {
            let taken = self.take(&mut state);
            for &identity in &taken.closed {
                release(identity);
            }
            if !taken.more {
                return;
            }
        }
    }

    /// Returns when something is queued.
    pub(crate) fn wait(&self) {
        let mut source = [PollFd::new(&self.inotify, PollFlags::IN)];
        // Interrupted is as good as queued.
        let _ = poll(&mut source, None);
    }

    /// Takes one buffer of events.
    fn take(&self, watches: &mut HashMap<i32, Watch>) -> Taken {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut taken = Taken::default();
        loop {
            let Ok(event) = reader.next() else { return taken };
            taken.note(watches, event.wd(), event.events());
            if reader.is_buffer_empty() {
                taken.more = true;
                return taken;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Watch>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a buffer of events said.
#[derive(Default)]
struct Taken {
    closed: Vec<Identity>,
    /// There may be more events queued.
    more: bool,
}

impl Taken {
    fn note(&mut self, watches: &mut HashMap<i32, Watch>, number: i32, events: ReadFlags) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.note_lost_events(watches);
            return;
        }
        let Some(watch) = watches.get_mut(&number) else { return };
        if events.contains(ReadFlags::OPEN) {
            watch.opened_again = true;
        }
        if !events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::CLOSE_NOWRITE) {
            return;
        }
        if watch.opened_again && open_somewhere(&HashSet::from([watch.identity])).len() == 1 {
            return;
        }
        self.closed.push(watch.identity);
        watches.remove(&number);
    }

    /// Events were dropped: looks for every file, and closes those that nobody has.
    fn note_lost_events(&mut self, watches: &mut HashMap<i32, Watch>) {
        let all = watches.values().map(|watch| watch.identity).collect();
        let open = open_somewhere(&all);
        watches.retain(|_, watch| {
            // What happened to it in the lost events is not known.
            watch.opened_again = true;
            let stays = open.contains(&watch.identity);
            if !stays {
                self.closed.push(watch.identity);
            }
            stays
        });
    }
}

/// Which of `sought` some other process has open or mapped.
fn open_somewhere(sought: &HashSet<Identity>) -> HashSet<Identity> {
    let mut found = HashSet::new();
    let own = std::process::id();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        let files = fs::read_dir(process.path().join("fd"));
        for file in files.into_iter().flatten().flatten() {
            let Ok(data) = fs::metadata(file.path()) else { continue };
            found.insert(Identity { device: data.dev(), inode: data.ino() });
        }
        found.extend(mapped_by(pid));
    }
    found.retain(|identity| sought.contains(identity));
    found
}

/// What a process has mapped, by device and inode.
fn mapped_by(pid: u32) -> Vec<Identity> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(3);
            let (major, minor) = fields.next()?.split_once(':')?;
            let hex = |text| u32::from_str_radix(text, 16).ok();
            let device = rustix::fs::makedev(hex(major)?, hex(minor)?);
            let inode = fields.next()?.parse().ok()?;
            (inode != 0).then_some(Identity { device, inode })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
    use std::os::fd::AsFd;

    fn watched(closes: &Closes) -> (OwnedFd, OwnedFd, Identity) {
        let memfd = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let path = format!("/proc/self/fd/{}", memfd.as_raw_fd());
        let theirs = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let identity = Identity::of(memfd.as_fd()).unwrap();
        closes.watch(memfd.as_fd(), identity).unwrap();
        (memfd, theirs, identity)
    }

    fn completed(closes: &Closes) -> Vec<Identity> {
        let mut all = vec![];
        closes.complete(|| (), |identity| all.push(identity));
        all
    }

    #[test]
    fn the_last_close_is_told_and_told_once() {
        let closes = Closes::new().unwrap();
        let (_memfd, theirs, identity) = watched(&closes);
        let copy = theirs.try_clone().unwrap();
        drop(theirs);
        assert_eq!(completed(&closes), []);
        drop(copy);
        assert_eq!(completed(&closes), [identity]);
        assert_eq!(completed(&closes), []);
    }

    #[test]
    fn many_closes_are_all_told() {
        let closes = Closes::new().unwrap();
        let files: Vec<_> = (0..500).map(|_| watched(&closes)).collect();
        let mut expected = vec![];
        let mut kept = vec![];
        for (memfd, theirs, identity) in files {
            drop(theirs);
            expected.push(identity);
            kept.push(memfd);
        }
        assert_eq!(completed(&closes), expected);
    }

    #[test]
    fn a_file_opened_again_elsewhere_stays() {
        let closes = Closes::new().unwrap();
        let (memfd, theirs, identity) = watched(&closes);
        let path = format!("/proc/{}/fd/{}", std::process::id(), memfd.as_raw_fd());
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(fs::File::open(path).unwrap())
            .spawn()
            .unwrap();
        drop(theirs);
        assert_eq!(completed(&closes), []);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(completed(&closes), [identity]);
    }

    #[test]
    fn lost_events_close_what_nobody_has() {
        let closes = Closes::new().unwrap();
        let (_memfd, theirs, identity) = watched(&closes);
        drop(theirs);
        let mut taken = Taken::default();
        taken.note(&mut closes.lock(), -1, ReadFlags::QUEUE_OVERFLOW);
        assert_eq!(taken.closed, [identity]);
    }
}
