//! What each call means, a file per family.
//!
//! A request is looked at in the cheapest order: most calls that the filter lets wait are not ours, and
//! go on to the kernel after a look at a path or a file number. Absent on purpose: any check that the
//! kernel makes itself once a call goes on; letting a call go on is no security boundary.

pub(crate) mod access_file;
mod device_io;
pub(crate) mod dma_buf_file;
pub(crate) mod event_file;
mod eventfd;
pub(crate) mod granted;
mod ioctl;
mod kvm;
mod mmap;
mod open;
mod path;
mod proc_file;
mod stat;
pub(crate) mod window;
mod write;

use std::cell::RefCell;
use std::sync::Arc;

use host::notify::{Answer, Notification};
use uapi::Errno;

use crate::caller::{Client, Record};
use crate::files::File;
use crate::front_end::FrontEnd;
use crate::listener::Turn;
use crate::observer::Thread;
use crate::process::Task;
use crate::reach::Touch;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    /// It returns this.
    Value(u64),
    /// It fails so.
    Error(Errno),
    /// It is the kernel's.
    Continue,
}

impl From<Result<u64, Errno>> for Reply {
    fn from(result: Result<u64, Errno>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(errno) => Self::Error(errno),
        }
    }
}

/// Serves one call and answers it.
pub(crate) fn serve(front: &FrontEnd, turn: &Turn, call: &Notification) {
    let request = Request { turn, front, call };
    let answer = match request.dispatch() {
        Reply::Value(value) => Answer::Value(value.cast_signed()),
        Reply::Error(errno) => Answer::Error(errno.raw()),
        Reply::Continue => Answer::Continue,
    };
    // Killed meanwhile, its thread needs no answer.
    let _ = front.listener.answer(call.id, answer);
}

/// A call that waits.
#[derive(Clone, Copy)]
struct Request<'r> {
    /// To be passed before anything that may wait.
    turn: &'r Turn,
    front: &'r FrontEnd,
    call: &'r Notification,
}

/// A file of ours that a call is on.
struct Target {
    task: Arc<Task>,
    fd: i32,
    file: Arc<File>,
}

impl<'r> Request<'r> {
    fn dispatch(&self) -> Reply {
        let [first, second, third, fourth, fifth, sixth] = self.call.arguments;
        match i64::from(self.call.number) {
            libc::SYS_ioctl => ioctl::ioctl(self, int(first), word(second), third),
            libc::SYS_pread64 => device_io::pread(self, int(first), second, third, fourth),
            libc::SYS_pwrite64 => device_io::pwrite(self, int(first), second, third, fourth),
            libc::SYS_preadv => device_io::preadv(self, int(first), second, third, fourth, 0),
            libc::SYS_pwritev => device_io::pwritev(self, int(first), second, third, fourth, 0),
            libc::SYS_preadv2 => {
                device_io::preadv(self, int(first), second, third, fourth, word(sixth))
            }
            libc::SYS_pwritev2 => {
                device_io::pwritev(self, int(first), second, third, fourth, word(sixth))
            }
            libc::SYS_mmap => {
                mmap::mmap(self, second, word(third), word(fourth), int(fifth), sixth)
            }
            libc::SYS_read => event_file::read(self, int(first), second, third),
            libc::SYS_write => write::write(self, int(first), second, third),
            libc::SYS_openat => open::open(self, int(first), second, u64::from(word(third))),
            libc::SYS_openat2 => open::open_how(self, int(first), second, third, fourth),
            libc::SYS_newfstatat => stat::stat_at(self, int(first), second, third, word(fourth)),
            libc::SYS_fstat => stat::stat_file(self, int(first), second),
            libc::SYS_statx => stat::statx(self, int(first), second, word(third), fifth),
            libc::SYS_readlinkat => path::readlink(self, int(first), second, third, int(fourth)),
            libc::SYS_faccessat => path::access(self, int(first), second, word(third)),
            libc::SYS_faccessat2 => path::access(self, int(first), second, word(third)),
            libc::SYS_getxattr | libc::SYS_lgetxattr => path::get_attribute(self, first),
            libc::SYS_listxattr | libc::SYS_llistxattr => path::list_attributes(self, first),
            libc::SYS_eventfd2 => eventfd::eventfd(self, word(first), word(second)),
            libc::SYS_execve | libc::SYS_execveat => {
                self.front.tasks.executes(self.call.thread);
                Reply::Continue
            }
            other => self.dispatch_old(other),
        }
    }

    /// Calls that newer architectures no longer have.
    #[cfg(target_arch = "x86_64")]
    fn dispatch_old(&self, number: i64) -> Reply {
        const CREATE: u32 = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC).cast_unsigned();
        const STAY: u32 = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
        let [first, second, third, ..] = self.call.arguments;
        match number {
            libc::SYS_open => open::open(self, libc::AT_FDCWD, first, u64::from(word(second))),
            libc::SYS_creat => open::open(self, libc::AT_FDCWD, first, u64::from(CREATE)),
            libc::SYS_stat => stat::stat_at(self, libc::AT_FDCWD, first, second, 0),
            libc::SYS_lstat => stat::stat_at(self, libc::AT_FDCWD, first, second, STAY),
            libc::SYS_readlink => path::readlink(self, libc::AT_FDCWD, first, second, int(third)),
            libc::SYS_access => path::access(self, libc::AT_FDCWD, first, word(second)),
            libc::SYS_eventfd => eventfd::eventfd(self, word(first), 0),
            _ => Reply::Continue,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn dispatch_old(&self, _number: i64) -> Reply {
        Reply::Continue
    }

    /// Completes the releases of what was closed before this call, as far as they can concern it.
    fn complete_closes(&self, touch: Touch) {
        self.front.complete_closes(touch, || self.turn.pass());
    }

    /// The file of ours behind descriptor `fd`, if it is one.
    fn target(&self, fd: i32) -> Option<Target> {
        let (task, identity) = self.front.tasks.identify(self.call.thread, fd).ok()?;
        let file = self.front.files.find(identity)?;
        Some(Target { task, fd, file })
    }

    /// The thread, as commands on a file see it. `start` is where what the call points to begins.
    fn client<'t>(&'t self, task: &'t Arc<Task>, start: u64) -> Client<'t> {
        let record = self.front.observer.wants_bytes().then(|| Record::from(start));
        Client { front: self.front, call: self.call.id, thread: self.call.thread, task, record }
    }

    /// Who makes this call.
    fn caller(&self, task: &Task) -> Thread {
        Thread { process: task.process().pid(), id: self.call.thread }
    }

    /// Copies a struct to the program: all of it or `EFAULT`.
    fn give(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        if self.front.listener.waits(self.call.id)
            && host::memory::write(self.call.thread, at, bytes) == bytes.len()
        {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }
}

/// The bytes that a client's call moved; empty where nobody wants them.
fn recorded(client: &Client<'_>) -> (Vec<u8>, Vec<u8>) {
    let record = client.record.as_ref().map(RefCell::take);
    record.map(|record| (record.sent, record.returned)).unwrap_or_default()
}

/// An argument that the kernel takes as `int`.
fn int(argument: u64) -> i32 {
    word(argument).cast_signed()
}

/// An argument that the kernel takes as `unsigned int`.
fn word(argument: u64) -> u32 {
    let [a, b, c, d, ..] = argument.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
