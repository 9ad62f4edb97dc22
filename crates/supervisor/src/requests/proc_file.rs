//! Files of `/proc` that are ours on the mock platform: `status` of a process, with the memory that our ledger has pinned
//! for it, and `fail-nth` of a thread, where failures are asked for.
//!
//! Source: proc_pid_status(5); Documentation/fault-injection/fault-injection.rst.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use iommufd::mock::Charged;
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use uapi::Errno;

use super::open::{described_again, kernels, open_attribute};
use super::{Reply, Request};
use crate::front_end::errno;
use crate::reach::Touch;

/// Longest path that is ours, in bytes.
const PATH_BYTES_MOST: usize = 64;

/// Opens what is at `address`, if that is one of these files; `None` where it is not.
pub(super) fn open(request: &Request<'_>, address: u64, flags: OFlags) -> Option<Reply> {
    let machine = request.front.machine.mock.as_ref()?;
    let mut bytes = [0; PATH_BYTES_MOST];
    let count = host::memory::read(request.call.thread, address, &mut bytes);
    let path = bytes[..count].split(|&byte| byte == 0).next()?;
    let path = std::str::from_utf8(path).ok()?;
    let mut names = path.strip_prefix("/proc/")?.split('/');
    let process = match names.next()? {
        "self" => request.front.tasks.task(request.call.thread).ok()?.process().pid(),
        number => number.parse().ok()?,
    };
    let rest = [names.next(), names.next(), names.next(), names.next()];
    match rest {
        [Some("status"), None, ..] if flags & OFlags::RWMODE == OFlags::RDONLY => {
            // What was closed before holds nothing any more.
            request.complete_closes(Touch::All);
            let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let told = with_charges(&text, machine.charged(process.cast_unsigned()));
            Some(install(request, &told, flags).into())
        }
        [Some("fail-nth"), None, ..] => Some(open_fail_nth(request, path, process, flags).into()),
        [Some("task"), Some(thread), Some("fail-nth"), None] => {
            let thread = thread.parse().ok()?;
            Some(open_fail_nth(request, path, thread, flags).into())
        }
        _ => None,
    }
}

/// Opens `fail-nth` of a thread.
///
/// # Errors
/// `ENOENT` where there is no such thread.
fn open_fail_nth(
    request: &Request<'_>,
    path: &str,
    thread: i32,
    flags: OFlags,
) -> Result<u64, Errno> {
    fs::metadata(format!("/proc/{thread}")).map_err(|_| Errno::ENOENT)?;
    let attribute = request.front.machine.fail_nth.file(thread);
    let content = memfd_create("fail-nth", MemfdFlags::CLOEXEC).map_err(kernels)?;
    let content = described_again(&content, flags)?;
    open_attribute(request, path.to_owned(), attribute, &content, flags)
}

/// The text of a `status` in which what the ledger has is added to what the kernel has.
fn with_charges(text: &str, charged: Charged) -> String {
    let Charged { pinned_bytes, locked_bytes } = charged;
    let lines = text.lines().map(|line| match line.split_once(':') {
        Some(("VmPin", kernels)) => format!("VmPin:\t{:>8} kB\n", sum_kib(kernels, pinned_bytes)),
        Some(("VmLck", kernels)) => format!("VmLck:\t{:>8} kB\n", sum_kib(kernels, locked_bytes)),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// KiB of a line's value and `bytes` together.
fn sum_kib(value: &str, bytes: u64) -> u64 {
    let kernels = value.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
    kernels.unwrap_or(0_u64).saturating_add(bytes >> 10)
}

fn install(request: &Request<'_>, text: &str, flags: OFlags) -> Result<u64, Errno> {
    let content = memfd_create("status", MemfdFlags::CLOEXEC).map_err(kernels)?;
    let mut content = fs::File::from(content);
    content.write_all(text.as_bytes()).map_err(|error| errno(&error))?;
    let theirs = described_again(&OwnedFd::from(content), flags)?;
    let cloexec = flags.contains(OFlags::CLOEXEC);
    let installed = request.front.listener.install(request.call.id, theirs.as_fd(), cloexec);
    installed.map(|fd| u64::from(fd.cast_unsigned())).map_err(|error| errno(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_pinned_is_added_to_what_the_kernel_tells() {
        let text = "Name:\tx\nVmLck:\t       4 kB\nVmPin:\t       0 kB\nThreads:\t1\n";
        let charged = Charged { pinned_bytes: 0x3000, locked_bytes: 0x2000 };
        let told = "Name:\tx\nVmLck:\t      12 kB\nVmPin:\t      12 kB\nThreads:\t1\n";
        assert_eq!(with_charges(text, charged), told);
        assert_eq!(with_charges(text, Charged::default()), text);
    }
}
