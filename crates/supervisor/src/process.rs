//! The program's threads and processes, as far as their calls need them, remembered between calls.
//!
//! A [`Task`] keeps a handle on `/proc/TID/fd`. The handle belongs to the thread, not to its number: once
//! the thread is gone it answers nothing, and so a number used again is noticed at the next call. A
//! [`Process`] is shared by its tasks and keeps the handle on its memory until it executes another
//! program.
//!
//! Two locks, both leaves: the table of tasks and the handle on memory.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::path::DecInt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::memory::{AddressSpace, ProcessMemory};

/// Most tasks remembered.
const TASKS_MOST: usize = 256;

/// Of `pidfd_open`: a handle on a thread rather than a process.
const PIDFD_THREAD: u32 = OFlags::EXCL.bits();

/// The tasks that called lately.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    table: Mutex<HashMap<i32, Arc<Task>>>,
    calls: AtomicU64,
}

/// A thread of the program.
#[derive(Debug)]
pub(crate) struct Task {
    files: OwnedFd,
    /// For copies of its files, where the kernel knows handles on threads (6.9).
    handle: Option<OwnedFd>,
    process: Arc<Process>,
    /// Its memory as commands pin it: the same value for each, so that what they map is known to be of one memory.
    memory: OnceLock<Arc<ProcessMemory>>,
    /// The number of the call that used it last.
    used: AtomicU64,
}

/// A process of the program.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    handle: OwnedFd,
    memory: Mutex<Option<Arc<AddressSpace>>>,
}

/// What makes an open file the one it is, in whatever process and under whatever number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Tasks {
    /// What file `fd` of thread `tid` is, and the task, for more of it.
    ///
    /// # Errors
    /// `EBADF` – no such descriptor; others where the thread may not be looked at or is gone.
    pub(crate) fn identify(&self, tid: i32, fd: i32) -> Result<(Arc<Task>, Identity), Errno> {
        let task = self.task(tid)?;
        match task.identify(fd) {
            Ok(identity) => Ok((task, identity)),
            Err(Errno::NOENT | Errno::SRCH) => {
                // Closed, or the number means another thread by now.
                self.forget(tid);
                let task = self.task(tid)?;
                let identity = task.identify(fd).map_err(|errno| match errno {
                    Errno::NOENT => Errno::BADF,
                    other => other,
                })?;
                Ok((task, identity))
            }
            Err(other) => Err(other),
        }
    }

    /// The task of this number.
    ///
    /// # Errors
    /// Where the thread may not be looked at or is gone.
    pub(crate) fn task(&self, tid: i32) -> Result<Arc<Task>, Errno> {
        let now = self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(task) = self.lock().get(&tid) {
            task.used.store(now, Ordering::Relaxed);
            return Ok(Arc::clone(task));
        }
        let task = Arc::new(self.look_up(tid, now)?);
        let mut table = self.lock();
        if table.len() >= TASKS_MOST {
            let oldest = table.iter().min_by_key(|(_, task)| task.used.load(Ordering::Relaxed));
            let oldest = oldest.map(|(&tid, _)| tid);
            oldest.map(|tid| table.remove(&tid));
        }
        table.insert(tid, Arc::clone(&task));
        Ok(task)
    }

    /// A thread is about to execute another program: its process will have other memory.
    pub(crate) fn executes(&self, tid: i32) {
        let table = self.lock();
        if let Some(task) = table.get(&tid) {
            task.process.lock().take();
        }
    }

    fn forget(&self, tid: i32) {
        self.lock().remove(&tid);
    }

    fn look_up(&self, tid: i32, now: u64) -> Result<Task, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let files = openat(CWD, format!("/proc/{tid}/fd"), flags, Mode::empty())?;
        let pid = process_of(tid).ok_or(Errno::SRCH)?;
        let known = {
            let table = self.lock();
            table
                .values()
                .find(|task| task.process.pid == pid)
                .map(|task| Arc::clone(&task.process))
        };
        let process = match known.filter(|process| process.alive()) {
            Some(process) => process,
            None => Arc::new(Process::open(pid)?),
        };
        let thread = Pid::from_raw(tid).ok_or(Errno::SRCH)?;
        let handle = pidfd_open(thread, PidfdFlags::from_bits_retain(PIDFD_THREAD)).ok();
        Ok(Task { files, handle, process, memory: OnceLock::new(), used: AtomicU64::new(now) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Arc<Task>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// Its process.
    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Its process's memory; `open` makes it known, the first time.
    pub(crate) fn memory(&self, open: impl FnOnce() -> ProcessMemory) -> &Arc<ProcessMemory> {
        self.memory.get_or_init(|| Arc::new(open()))
    }

    /// What file `fd` is.
    ///
    /// # Errors
    /// `EBADF`, or `ENOENT` where proc had to be asked – no such descriptor; `ENOENT` – no such thread any more.
    pub(crate) fn identify(&self, fd: i32) -> Result<Identity, Errno> {
        // Copying the file and asking the copy costs two thirds of asking proc.
        match self.handle.as_ref().map(|handle| copy(handle, fd)) {
            Some(Ok(copy)) => return Identity::of(copy.as_fd()),
            Some(Err(Errno::BADF)) => return Err(Errno::BADF),
            // Copying is forbidden or unknown here, or the thread is gone: proc tells which.
            Some(Err(_)) | None => {}
        }
        let stat = statat(&self.files, DecInt::new(fd), AtFlags::empty())?;
        Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
    }

    /// The path of file `fd`, or the kernel's word for what has none.
    ///
    /// # Errors
    /// `ENOENT` – no such descriptor, or no such thread any more.
    pub(crate) fn path_of(&self, fd: i32) -> Result<Vec<u8>, Errno> {
        Ok(readlinkat(&self.files, DecInt::new(fd), Vec::new())?.into_bytes())
    }

    /// Opens file `fd` anew, with an offset and flags of its own.
    ///
    /// # Errors
    /// As `open(2)`; `ENOENT` – no such descriptor.
    pub(crate) fn reopen(&self, fd: i32, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(&self.files, DecInt::new(fd), flags | OFlags::CLOEXEC, Mode::empty())
    }
}

/// Copies descriptor `fd` of the task behind `handle`. The wrapper must not be given what cannot be one.
fn copy(handle: &OwnedFd, fd: i32) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    pidfd_getfd(handle, fd, PidfdGetfdFlags::empty())
}

impl Process {
    fn open(pid: i32) -> Result<Self, Errno> {
        let handle = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
        Ok(Self { pid, handle, memory: Mutex::new(None) })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Copies a file descriptor: the same open file.
    ///
    /// # Errors
    /// `EBADF` – no such descriptor; `EPERM` – forbidden.
    pub(crate) fn copy_file(&self, fd: i32) -> Result<OwnedFd, Errno> {
        copy(&self.handle, fd)
    }

    /// Its address space as it is now.
    ///
    /// # Errors
    /// Where its memory may not be looked at, or it is gone.
    pub(crate) fn address_space(&self) -> io::Result<Arc<AddressSpace>> {
        let mut memory = self.lock();
        if let Some(space) = &*memory {
            return Ok(Arc::clone(space));
        }
        let space = Arc::new(AddressSpace::open(self.pid)?);
        *memory = Some(Arc::clone(&space));
        Ok(space)
    }

    /// Forgets an address space that turned out to be gone, and opens the one there is now.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    pub(crate) fn address_space_after(
        &self,
        gone: &Arc<AddressSpace>,
    ) -> io::Result<Arc<AddressSpace>> {
        let mut memory = self.lock();
        if memory.as_ref().is_some_and(|space| Arc::ptr_eq(space, gone)) {
            *memory = None;
        }
        drop(memory);
        self.address_space()
    }

    fn alive(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut handle = [PollFd::new(&self.handle, PollFlags::IN)];
        poll(&mut handle, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<AddressSpace>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Identity {
    /// What a file of our own is.
    ///
    /// # Errors
    /// None that an open file can meet.
    pub(crate) fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// The process that thread `tid` is in.
fn process_of(tid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    fn me() -> i32 {
        std::process::id().cast_signed()
    }

    #[test]
    fn identifies_files_of_a_thread() {
        let tasks = Tasks::default();
        let file = File::open("/proc/self/status").unwrap();
        let other = File::open("/proc/self/status").unwrap();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let (task, identity) = tasks.identify(thread, file.as_raw_fd()).unwrap();
        assert_eq!(identity, Identity::of(file.as_fd()).unwrap());
        assert_eq!(task.process().pid(), me());
        // A number that no other test can take meanwhile.
        let number = rustix::io::fcntl_dupfd_cloexec(&other, 900).unwrap().as_raw_fd();
        drop(other);
        for closed in [number, 1_000_000, i32::MAX, -1, -100, i32::MIN] {
            assert_eq!(tasks.identify(thread, closed).unwrap_err(), Errno::BADF, "{closed}");
            assert!(task.process().copy_file(closed).is_err(), "{closed}");
        }
    }

    #[test]
    fn a_thread_that_ended_is_looked_up_anew() {
        let tasks = Tasks::default();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id().cast_signed();
        tasks.identify(pid, 0).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(tasks.identify(pid, 0).is_err());
        assert!(!tasks.lock().contains_key(&pid));
    }

    #[test]
    fn remembers_a_bounded_number() {
        let tasks = Tasks::default();
        let task = tasks.task(me()).unwrap();
        for number in 0..300 {
            tasks.lock().insert(-number, Arc::clone(&task));
        }
        tasks.lock().remove(&me());
        let before = tasks.lock().len();
        tasks.task(me()).unwrap();
        assert_eq!(tasks.lock().len(), before);
    }
}
