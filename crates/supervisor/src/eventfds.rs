//! Eventfds of a program, as devices signal them.
//!
//! Where the kernel lets us, the program's eventfd is copied (pidfd_getfd). Where a container forbids
//! that, the program's eventfds are made by us, and recognised later by the `eventfd-id` that the kernel
//! shows of each. Two locks, leaves.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use iommufd::{FileFault, Signal};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::filter::EventfdMode;
use crate::process::Task;

/// How the kernel calls an eventfd in `/proc/PID/fd`.
const NAME: &[u8] = b"anon_inode:[eventfd]";

/// The program's eventfds.
#[derive(Debug)]
pub(crate) struct Eventfds {
    mode: EventfdMode,
    made: Mutex<HashMap<u64, Arc<OwnedFd>>>,
    imported: Mutex<Vec<Weak<Eventfd>>>,
}

impl Eventfds {
    /// Finds out which way is open here.
    pub(crate) fn new() -> Self {
        Self::of_mode(if may_copy() { EventfdMode::Copied } else { EventfdMode::Made })
    }

    fn of_mode(mode: EventfdMode) -> Self {
        Self { mode, made: Mutex::default(), imported: Mutex::default() }
    }

    /// The way that is open here.
    pub(crate) fn mode(&self) -> EventfdMode {
        self.mode
    }

    /// Makes one for the program.
    ///
    /// # Errors
    /// As `eventfd(2)`.
    pub(crate) fn make(&self, count: u32, flags: u32) -> io::Result<Arc<OwnedFd>> {
        let flags = EventfdFlags::from_bits_retain(flags);
        let file = Arc::new(eventfd(count, flags | EventfdFlags::CLOEXEC)?);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = id_of(&file) {
            made.insert(id, Arc::clone(&file));
        }
        Ok(file)
    }

    /// The eventfd behind a descriptor of the program.
    ///
    /// # Errors
    /// [`FileFault`].
    pub(crate) fn import(&self, task: &Task, fd: i32) -> Result<Arc<dyn Signal>, FileFault> {
        if task.path_of(fd).map_err(|_| FileFault::Closed)? != NAME {
            return Err(FileFault::OtherKind);
        }
        let file = match self.mode {
            EventfdMode::Copied => {
                Arc::new(task.process().copy_file(fd).map_err(|_| FileFault::Closed)?)
            }
            EventfdMode::Made => {
                let id = id_in(&format!("/proc/{}/fdinfo/{fd}", task.process().pid()));
                let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
                let known = id.and_then(|id| made.get(&id).cloned());
                known.ok_or(FileFault::OtherKind)?
            }
        };
        let eventfd = Arc::new(Eventfd(file));
        let mut imported = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
        if imported.len() == imported.capacity() {
            imported.retain(|eventfd| eventfd.strong_count() > 0);
        }
        imported.push(Arc::downgrade(&eventfd));
        Ok(eventfd)
    }

    /// The file behind a signal that [`import`](Self::import) made.
    pub(crate) fn file_of(&self, signal: &Arc<dyn Signal>) -> Option<Arc<OwnedFd>> {
        let imported = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
        let address = Arc::as_ptr(signal).cast::<()>();
        let found = imported.iter().find(|eventfd| eventfd.as_ptr().cast() == address)?;
        Some(Arc::clone(&found.upgrade()?.0))
    }
}

/// An eventfd that we hold.
#[derive(Debug)]
struct Eventfd(Arc<OwnedFd>);

impl Signal for Eventfd {
    fn signal(&self) {
        // Full, it is signalled already; a write would wait, for the file is as blocking as the program
        // made it.
        let mut file = [PollFd::new(&*self.0, PollFlags::OUT)];
        if poll(&mut file, Some(&Timespec::default())).is_ok_and(|ready| ready == 1) {
            let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
        }
    }
}

/// Whether descriptors of another process can be copied, tried on ourselves.
fn may_copy() -> bool {
    let Ok(probe) = eventfd(0, EventfdFlags::CLOEXEC) else { return true };
    let copied = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, probe.as_raw_fd(), PidfdGetfdFlags::empty()));
    !matches!(copied, Err(Errno::PERM | Errno::NOSYS | Errno::ACCESS))
}

/// The number by which the kernel tells an eventfd from others.
pub(crate) fn id_of(file: &OwnedFd) -> Option<u64> {
    id_in(&format!("/proc/self/fdinfo/{}", file.as_raw_fd()))
}

fn id_in(path: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("eventfd-id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Tasks;

    fn task() -> Arc<Task> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        Tasks::default().task(thread).unwrap()
    }

    fn count(file: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(file, &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn signals_reach_the_programs_eventfd_either_way() {
        for mode in [EventfdMode::Copied, EventfdMode::Made] {
            let eventfds = Eventfds::of_mode(mode);
            let file = eventfds.make(0, 0).unwrap();
            let signal = eventfds.import(&task(), file.as_raw_fd()).ok().unwrap();
            signal.signal();
            signal.signal();
            assert_eq!(count(&file), 2, "{mode:?}");
        }
    }

    #[test]
    fn a_full_eventfd_does_not_block() {
        let eventfds = Eventfds::of_mode(EventfdMode::Copied);
        let file = eventfds.make(0, 0).unwrap();
        rustix::io::write(&*file, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        eventfds.import(&task(), file.as_raw_fd()).ok().unwrap().signal();
        assert_eq!(count(&file), u64::MAX - 1);
    }

    #[test]
    fn other_files_are_told_apart() {
        let eventfds = Eventfds::new();
        let file = fs::File::open("/dev/null").unwrap();
        let fault = eventfds.import(&task(), file.as_raw_fd()).err();
        assert_eq!(fault, Some(FileFault::OtherKind));
        assert_eq!(eventfds.import(&task(), 1_000_000).err(), Some(FileFault::Closed));
    }
}
