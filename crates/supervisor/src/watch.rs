//! Eventfds that a program signals and a device hears: `VFIO_IRQ_SET_ACTION_UNMASK`.
//!
//! A thread for each, which ends with the watch. No lock.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use iommufd::Signal;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vfio::{NotWatched, Watch, Watching};

use crate::eventfds::Eventfds;

/// Watches eventfds that came through [`Eventfds`].
pub(crate) struct Watcher(pub(crate) Arc<Eventfds>);

impl Watch for Watcher {
    fn watch(
        &self,
        signal: Arc<dyn Signal>,
        then: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Box<dyn Watching>, NotWatched> {
        let file = self.0.file_of(&signal).ok_or(NotWatched)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let end = Arc::new(end.map_err(|_| NotWatched)?);
        let ends = Arc::clone(&end);
        let watch = move || watch(&file, &ends, &then);
        let thread = thread::Builder::new().name("eventfd watch".to_owned());
        thread.spawn(watch).map_err(|_| NotWatched)?;
        Ok(Box::new(Watched { end }))
    }
}

/// A running watch.
struct Watched {
    end: Arc<OwnedFd>,
}

impl Watching for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.end, &1_u64.to_ne_bytes());
    }
}

fn watch(file: &OwnedFd, end: &OwnedFd, then: &dyn Fn()) {
    loop {
        let mut sources = [PollFd::new(file, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        if poll(&mut sources, None).is_err() {
            continue;
        }
        if !sources[1].revents().is_empty() {
            return;
        }
        // Somebody else may take the count first, and then a blocking file would hold us.
        let mut count = [0; 8];
        if take(file, &mut count) && u64::from_ne_bytes(count) > 0 {
            then();
        }
    }
}

fn take(file: &OwnedFd, count: &mut [u8; 8]) -> bool {
    use rustix::io::{ReadWriteFlags, preadv2};
    let buffers = &mut [std::io::IoSliceMut::new(count)];
    // Position -1 means "where the file stands", which is all that an eventfd knows.
    let taken = preadv2(file, buffers, u64::MAX, ReadWriteFlags::NOWAIT);
    taken == Ok(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Tasks;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn each_count_is_taken_and_told_until_the_watch_ends() {
        let eventfds = Arc::new(Eventfds::new());
        let file = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let task = Tasks::default().task(thread).unwrap();
        let signal = eventfds.import(&task, file.as_raw_fd()).ok().unwrap();
        let (told, hears) = mpsc::channel();
        let then = Box::new(move || told.send(()).unwrap());
        let watching = Watcher(eventfds).watch(signal, then).unwrap();
        let patience = Duration::from_secs(10);
        hears.recv_timeout(patience).unwrap();
        rustix::io::write(&file, &3_u64.to_ne_bytes()).unwrap();
        hears.recv_timeout(patience).unwrap();
        drop(watching);
        // The thread lets go of its end of the channel when it ends.
        assert_eq!(hears.recv_timeout(patience), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
