//! When an open file of ours has been closed for good.
//!
//! The kernel queues an inotify event before the `close`, `munmap`, exec or exit returns that gave up the
//! last reference to the program's open description. Whoever serves a request first takes what is
//! queued and sees to it that those releases complete, so that nothing a program does after a close can
//! overtake it. A release that may wait for a device is left to threads of its own, and only calls that
//! could tell wait for it ([`reach`](crate::reach)).
//!
//! A program can open the same memfd again through `/proc/PID/fd`; then a close may not be the last,
//! and the files of all processes are searched. The same search serves where the kernel had to drop
//! events, which it says. One lock, `state`, held while a [`Release`] is asked for its reach; releases run
//! outside it.
//!
//! Source: inotify(7).

mod elsewhere;
mod taken;

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use crate::process::Identity;
use crate::reach::{Reach, Touch};
use elsewhere::open_somewhere;
use taken::Taken;

/// Room for a hundred events.
const EVENT_BYTES: usize = 4096;
/// How long a call that itself waits for a device is held up by a release: long enough for the
/// release to have begun, so that what it takes down is no longer found.
const BEGINNING: Duration = Duration::from_millis(5);

/// Watches files for their last close.
#[derive(Debug)]
pub(crate) struct Closes {
    inotify: OwnedFd,
    /// Readable where slow releases wait for somebody to begin them.
    left: OwnedFd,
    state: Mutex<State>,
    /// A release has ended.
    settled: Condvar,
}

/// Releases files.
pub(crate) trait Release {
    /// What the release of a file will change. Called under the lock of [`Closes`].
    fn reach(&self, identity: Identity) -> Reach;

    /// Releases it.
    fn release(&self, identity: Identity);
}

#[derive(Debug, Default)]
struct State {
    watches: HashMap<i32, Watch>,
    /// Those that have not ended, in the order of the closes.
    releases: Vec<Pending>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    identity: Identity,
    /// Somebody opened the file again, so that one close may not be all.
    opened_again: bool,
    /// We are handing out descriptors of it: so many calls.
    holds: u32,
    /// It was closed meanwhile, or not for good: the files of all processes tell.
    closed_meanwhile: bool,
}

/// Keeps a file from being released while another descriptor of it is handed out.
pub(crate) struct Hold<'c, R: Release> {
    closes: &'c Closes,
    releaser: &'c R,
    identity: Identity,
}

#[derive(Debug)]
struct Pending {
    identity: Identity,
    reach: Reach,
    begun: bool,
}

impl Pending {
    /// Whether a call about `touch` has to wait for it.
    fn concerns(&self, touch: Touch) -> bool {
        !self.reach.slow || self.reach.meets(touch)
    }
}

impl Closes {
    /// A watcher of nothing yet.
    ///
    /// # Errors
    /// `EMFILE` – the user has as many inotify instances as `fs.inotify.max_user_instances` allows.
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let left = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { inotify, left, state: Mutex::default(), settled: Condvar::new() })
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
        let watch = Watch { identity, opened_again: false, holds: 0, closed_meanwhile: false };
        state.watches.insert(number, watch);
        Ok(())
    }

    /// Keeps a file from being released until what is returned is dropped; `None` where it has been closed for good.
    pub(crate) fn hold<'c, R: Release>(
        &'c self,
        identity: Identity,
        releaser: &'c R,
    ) -> Option<Hold<'c, R>> {
        let mut state = self.lock();
        let watch = state.watches.values_mut().find(|watch| watch.identity == identity)?;
        watch.holds += 1;
        Some(Hold { closes: self, releaser, identity })
    }

    /// Releases what has been closed, and returns when every release that a call about `touch` could
    /// miss has ended, whoever began it. Calls `before_waiting` before it waits for others.
    pub(crate) fn complete(
        &self,
        releaser: &impl Release,
        touch: Touch,
        before_waiting: impl FnOnce(),
    ) {
        let mut state = self.lock();
        self.take(&mut state, releaser);
        if state.releases.is_empty() {
            return;
        }
        drop(state);
        self.release_those(releaser, |pending| {
            !pending.reach.slow || (pending.concerns(touch) && !touch.waits())
        });
        let state = self.lock();
        self.announce(&state);
        if state.releases.iter().any(|pending| pending.concerns(touch)) {
            drop(state);
            before_waiting();
            self.outwait(touch);
        }
    }

    /// Returns when every release has ended that concerns `touch`. Others see to it that they do.
    fn outwait(&self, touch: Touch) {
        let begun = Instant::now();
        let mut state = self.lock();
        while state.releases.iter().any(|pending| pending.concerns(touch)) {
            if touch.waits() {
                let Some(left) = BEGINNING.checked_sub(begun.elapsed()) else { return };
                let woken = self.settled.wait_timeout(state, left);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                let woken = self.settled.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Releases whatever is closed from now on, for as long as this process lives. `help` makes another
    /// thread that calls [`release_left`](Self::release_left), if it can: a slow release is not to
    /// hold up another.
    pub(crate) fn serve(&self, releaser: &impl Release, help: &dyn Fn() -> bool) -> ! {
        loop {
            let mut sources =
                [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.left, PollFlags::IN)];
            // Interrupted is as good as queued.
            let _ = poll(&mut sources, None);
            let _ = rustix::io::read(&self.left, &mut [0; 8]);
            self.take(&mut self.lock(), releaser);
            self.release_those(releaser, |pending| !pending.reach.slow);
            let slow = self.lock().releases.iter().filter(|pending| !pending.begun).count();
            if !(0..slow).all(|_| help()) {
                self.release_left(releaser);
            }
        }
    }

    /// Begins releases that nobody has begun, until there are none, and completes them.
    pub(crate) fn release_left(&self, releaser: &impl Release) {
        self.release_those(releaser, |_| true);
    }

    fn release_those(&self, releaser: &impl Release, fit: impl Fn(&Pending) -> bool) {
        let mut state = self.lock();
        while let Some(identity) = begin(&mut state, &fit) {
            drop(state);
            releaser.release(identity);
            state = self.end(identity);
        }
    }

    /// Takes every event that is queued.
    fn take(&self, state: &mut State, releaser: &impl Release) {
        loop {
            let taken = self.take_buffer(&mut state.watches);
            state.releases.extend(taken.closed.into_iter().map(|identity| Pending {
                identity,
                reach: releaser.reach(identity),
                begun: false,
            }));
            if !taken.more {
                return;
            }
        }
    }

    /// Takes one buffer of events.
    fn take_buffer(&self, watches: &mut HashMap<i32, Watch>) -> Taken {
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

    /// Wakes the thread that serves, if something is left to it.
    fn announce(&self, state: &State) {
        if state.releases.iter().any(|pending| !pending.begun) {
            // Full, it has been told.
            let _ = rustix::io::write(&self.left, &1_u64.to_ne_bytes());
        }
    }

    fn end(&self, identity: Identity) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.releases.retain(|pending| pending.identity != identity);
        self.settled.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Release> Drop for Hold<'_, R> {
    fn drop(&mut self) {
        let mut state = self.closes.lock();
        // A close that came before we opened the file again may be queued still.
        self.closes.take(&mut state, self.releaser);
        self.closes.announce(&state);
        let found = state.watches.iter_mut().find(|(_, watch)| watch.identity == self.identity);
        let Some((&number, watch)) = found else { return };
        watch.holds -= 1;
        if watch.holds > 0 || !std::mem::take(&mut watch.closed_meanwhile) {
            return;
        }
        watch.opened_again = true;
        if open_somewhere(&HashSet::from([self.identity])).is_empty() {
            state.watches.remove(&number);
            let reach = self.releaser.reach(self.identity);
            state.releases.push(Pending { identity: self.identity, reach, begun: false });
            self.closes.announce(&state);
        }
    }
}

/// Marks the first release that fits as begun.
fn begin(state: &mut State, fits: impl Fn(&Pending) -> bool) -> Option<Identity> {
    let pending = state.releases.iter_mut().find(|pending| !pending.begun && fits(pending))?;
    pending.begun = true;
    Some(pending.identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::inotify::ReadFlags;
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

    /// Notes what is released; those of `slow` count as slow ones about device 1.
    #[derive(Default)]
    struct Log {
        released: Mutex<Vec<Identity>>,
        slow: Vec<Identity>,
    }

    impl Release for Log {
        fn reach(&self, identity: Identity) -> Reach {
            Reach::of_itself(self.slow.contains(&identity))
        }

        fn release(&self, identity: Identity) {
            self.released.lock().unwrap().push(identity);
        }
    }

    fn completed(closes: &Closes) -> Vec<Identity> {
        let log = Log::default();
        closes.complete(&log, Touch::Nothing, || ());
        log.released.into_inner().unwrap()
    }

    #[test]
    fn a_slow_release_is_left_to_others_by_calls_that_it_does_not_concern() {
        let closes = Closes::new().unwrap();
        let (_memfd, theirs, identity) = watched(&closes);
        let (_other_memfd, others, other) = watched(&closes);
        let log = Log { slow: vec![identity], ..Log::default() };
        drop((theirs, others));
        closes.complete(&log, Touch::Nothing, || ());
        assert_eq!(*log.released.lock().unwrap(), [other]);
        let mut left = [0; 8];
        assert_eq!(rustix::io::read(&closes.left, &mut left), Ok(8), "somebody is told");
        closes.complete(&log, Touch::All, || ());
        assert_eq!(*log.released.lock().unwrap(), [other, identity]);
        closes.release_left(&log);
        assert_eq!(log.released.lock().unwrap().len(), 2, "once");
    }

    #[test]
    fn a_call_waits_for_a_release_that_concerns_it_and_others_do_not() {
        struct Gate(Identity, std::sync::Barrier, std::sync::Barrier);
        impl Release for Gate {
            fn reach(&self, _: Identity) -> Reach {
                Reach::of_itself(true)
            }
            fn release(&self, identity: Identity) {
                assert_eq!(identity, self.0);
                self.1.wait();
                self.2.wait();
            }
        }
        let closes = Closes::new().unwrap();
        let (_memfd, theirs, identity) = watched(&closes);
        let gate = Gate(identity, std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        drop(theirs);
        closes.take(&mut closes.lock(), &gate);
        std::thread::scope(|scope| {
            scope.spawn(|| closes.release_left(&gate));
            gate.1.wait();
            closes.complete(&gate, Touch::Nothing, || panic!("waits for nobody"));
            let concerned = scope.spawn(|| {
                let mut passed = false;
                closes.complete(&gate, Touch::All, || passed = true);
                assert!(passed, "told before it waits");
            });
            std::thread::sleep(Duration::from_millis(20));
            assert!(!concerned.is_finished());
            gate.2.wait();
        });
        assert!(closes.lock().releases.is_empty());
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
    fn a_file_that_is_being_handed_out_stays_until_that_is_done() {
        let closes = Closes::new().unwrap();
        let (memfd, theirs, identity) = watched(&closes);
        let log = Log::default();
        let hold = closes.hold(identity, &log).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), memfd.as_raw_fd());
        drop(theirs);
        assert_eq!(completed(&closes), []);
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(std::fs::File::open(path).unwrap())
            .spawn()
            .unwrap();
        drop(hold);
        assert_eq!(completed(&closes), [], "somebody got it");
        let hold = closes.hold(identity, &log).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(completed(&closes), []);
        drop(hold);
        assert_eq!(completed(&closes), [identity], "nobody did");
        assert!(closes.hold(identity, &log).is_none());
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
            .stdin(std::fs::File::open(path).unwrap())
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
        taken.note(&mut closes.lock().watches, -1, ReadFlags::QUEUE_OVERFLOW);
        assert_eq!(taken.closed, [identity]);
    }
}
