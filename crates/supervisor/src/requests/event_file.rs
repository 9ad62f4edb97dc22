//! Files that events are read from. A pipe stands for each in the program, and a byte is in it while there is something
//! to read: so polling is the kernel's. Reading and writing are ours, where the descriptor keeps its number.
//!
//! The numbers are the last ones below the limit that the program started with, which the filter knows. One lock, a leaf:
//! `signalled`. Source: pipe(7), poll(2), seccomp(2).

use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use iommufd::{EventFile, Waker};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, getrlimit};
use uapi::{Errno, FileKind};

use super::open::{described_again, kernels};
use super::{Reply, Request};
use crate::caller::Client;
use crate::closes::Release;
use crate::files::{Access, Object};
use crate::front_end::errno;
use crate::observer::OpenFile;
use crate::process::Identity;
use crate::reach::Touch;

/// So many event files can be open in a program.
const NUMBERS: u32 = 128;

/// The numbers that descriptors of event files have in programs started now.
pub(crate) fn numbers() -> RangeInclusive<u32> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let end = u32::try_from(limit).unwrap_or(u32::MAX).min(i32::MAX.cast_unsigned());
    end.saturating_sub(NUMBERS)..=end.saturating_sub(1)
}

/// Gives the program an open file of events, and returns its descriptor.
///
/// # Errors
/// `EMFILE` where no number is free, and others where the file cannot be made or given. It may have been released then.
pub(crate) fn install(client: &Client<'_>, events: &Arc<EventFile>) -> Result<i32, Errno> {
    let front = client.front;
    let mut numbers = front.event_numbers.clone().rev();
    let free = numbers.find(|number| client.task.identify(number.cast_signed()).is_err());
    let number = free.ok_or(Errno::EMFILE)?;
    let (read_end, write_end) =
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(kernels)?;
    let flags = if events.is_writable() { OFlags::RDWR } else { OFlags::RDONLY };
    // A read that is not ours must not wait for what never comes by the pipe.
    let theirs = described_again(&read_end, flags | OFlags::NONBLOCK)?;
    let identity = Identity::of(read_end.as_fd()).map_err(kernels)?;
    let watched = front.closes.watch(read_end.as_fd(), identity);
    let told = OpenFile {
        serial: front.files.next_serial(),
        kind: FileKind::Iommufd,
        path: name(events).to_owned(),
        opener: client.task.process().pid(),
    };
    let signalled = Mutex::new(false);
    let file = Arc::downgrade(events);
    events.set_waker(Arc::new(Pipe { file, read_end, write_end, signalled }));
    let object = Object::Events(Arc::clone(events));
    front.files.insert(identity, told, object, Access::of(OFlags::RDWR), None);
    if let Err(error) = watched {
        front.release(identity);
        return Err(errno(&error));
    }
    // Where this fails our copy is the last, and its close releases the file.
    let installed = front.listener.install_at(client.call, theirs.as_fd(), number.cast_signed());
    installed.map_err(|error| errno(&error))
}

fn name(events: &EventFile) -> &'static str {
    if events.is_writable() {
        "anon_inode:[iommufd-pgfault]"
    } else {
        "anon_inode:[iommufd-viommu-event]"
    }
}

/// `read` of a file of events.
pub(super) fn read(request: &Request<'_>, fd: i32, at: u64, count: u64) -> Reply {
    transfer(request, fd, |events, client| events.read(client, at, count))
}

/// `write` to one; `None` where the file is none.
pub(super) fn write(request: &Request<'_>, fd: i32, at: u64, count: u64) -> Reply {
    transfer(request, fd, |events, client| events.write(client, at, count))
}

fn transfer(
    request: &Request<'_>,
    fd: i32,
    run: impl FnOnce(&EventFile, &Client<'_>) -> Result<u64, Errno>,
) -> Reply {
    let Some(target) = request.target(fd) else { return Reply::Continue };
    let Object::Events(events) = &target.file.object else { return Reply::Continue };
    request.complete_closes(Touch::of_context(events.context(), None));
    let Some(_running) = target.file.begin() else { return Reply::Error(Errno::EBADF) };
    run(events, &request.client(&target.task, 0)).into()
}

/// What the program polls.
struct Pipe {
    file: Weak<EventFile>,
    read_end: OwnedFd,
    write_end: OwnedFd,
    /// Whether a byte is in it.
    signalled: Mutex<bool>,
}

impl Waker for Pipe {
    fn refresh(&self) {
        let Some(file) = self.file.upgrade() else { return };
        let mut signalled = self.signalled.lock().unwrap_or_else(PoisonError::into_inner);
        let readable = file.is_readable();
        if readable == *signalled {
            return;
        }
        // An empty pipe has room, and ours alone read it.
        let moved = if readable {
            rustix::io::write(&self.write_end, &[1])
        } else {
            rustix::io::read(&self.read_end, &mut [0_u8; 1])
        };
        if moved.is_ok() {
            *signalled = readable;
        }
    }
}
