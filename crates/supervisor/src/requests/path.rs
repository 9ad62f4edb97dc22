//! Paths that calls name, and the calls that only ask about a path.
//!
//! An absolute path is ours if it begins with a directory that the overlay adds to; a relative one,
//! if it starts from a directory of the overlay that the program has open. Source: path_resolution(7).

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use uapi::Errno;

use super::{Reply, Request};

/// Longest path with its terminating zero, in bytes.
const PATH_BYTES_MOST: usize = 4096;
/// Enough of most paths.
const FIRST_BYTES: usize = 256;
/// Top directories in which the overlay has files.
const TOPS: [&[u8]; 2] = [b"sys", b"dev"];

/// The path at `address`, made absolute, if the overlay should be asked about it.
pub(super) fn overlay_path(request: &Request<'_>, directory: i32, address: u64) -> Option<Vec<u8>> {
    let mut first = [0; FIRST_BYTES];
    let count = host::memory::read(request.call.thread, address, &mut first);
    let first = &first[..count];
    let absolute = *first.first()? == b'/';
    if absolute && !is_under_a_top(first) {
        return None;
    }
    if !absolute && !request.front.directories_out.load(Ordering::Relaxed) {
        return None;
    }
    let path = match first.iter().position(|&byte| byte == 0) {
        Some(end) => first[..end].to_vec(),
        None if count == FIRST_BYTES => read_long(request.call.thread, address)?,
        None => return None,
    };
    if absolute { Some(path) } else { below(request, directory, &path) }
}

/// Whether the path at `address` leads down from where it starts: relative, without `..`.
pub(super) fn goes_down(request: &Request<'_>, address: u64) -> bool {
    let path = read_long(request.call.thread, address).unwrap_or_default();
    path.first().is_some_and(|&first| first != b'/')
        && path.split(|&byte| byte == b'/').all(|name| name != b"..")
}

/// Whether the path at `address` is empty; a null pointer counts as empty, as in Linux 6.11.
pub(super) fn is_empty(request: &Request<'_>, address: u64) -> bool {
    let mut byte = [0xff];
    address == 0 || host::memory::read(request.call.thread, address, &mut byte) == 1 && byte == [0]
}

/// `readlink` and `readlinkat`.
pub(super) fn readlink(
    request: &Request<'_>,
    directory: i32,
    address: u64,
    into: u64,
    size: i32,
) -> Reply {
    let Some(path) = overlay_path(request, directory, address) else { return Reply::Continue };
    let text = match request.front.overlay.readlink(&path) {
        None => return Reply::Continue,
        Some(Err(errno)) => return Reply::Error(errno),
        Some(Ok(text)) => text,
    };
    let Some(room) = usize::try_from(size).ok().filter(|&room| room > 0) else {
        return Reply::Error(Errno::EINVAL);
    };
    let text = &text[..text.len().min(room)];
    request.give(into, text).map(|()| text.len() as u64).into()
}

/// `access`, `faccessat` and `faccessat2`.
pub(super) fn access(request: &Request<'_>, directory: i32, address: u64, mode: u32) -> Reply {
    let Some(path) = overlay_path(request, directory, address) else { return Reply::Continue };
    match request.front.overlay.access(&path, mode) {
        None => Reply::Continue,
        Some(answer) => answer.map(|()| 0).into(),
    }
}

/// `getxattr` and `lgetxattr`: our files have no extended attributes.
pub(super) fn get_attribute(request: &Request<'_>, address: u64) -> Reply {
    without_attributes(request, address, Reply::Error(Errno::ENODATA))
}

/// `listxattr` and `llistxattr`: our files have no extended attributes.
pub(super) fn list_attributes(request: &Request<'_>, address: u64) -> Reply {
    without_attributes(request, address, Reply::Value(0))
}

fn without_attributes(request: &Request<'_>, address: u64, none: Reply) -> Reply {
    let Some(path) = overlay_path(request, libc::AT_FDCWD, address) else { return Reply::Continue };
    match request.front.overlay.metadata(&path, false) {
        None => Reply::Continue,
        Some(Err(errno)) => Reply::Error(errno),
        Some(Ok(_)) => none,
    }
}

/// Whether an absolute path begins with one of [`TOPS`].
fn is_under_a_top(path: &[u8]) -> bool {
    let mut rest = path;
    loop {
        rest = match rest {
            [b'/', rest @ ..] => rest,
            [b'.', b'/', rest @ ..] => rest,
            _ => break,
        };
    }
    TOPS.iter()
        .any(|&top| rest.strip_prefix(top).is_some_and(|rest| matches!(rest, [] | [b'/' | 0, ..])))
}

fn read_long(thread: i32, address: u64) -> Option<Vec<u8>> {
    let mut path = vec![0; PATH_BYTES_MOST];
    let count = host::memory::read(thread, address, &mut path);
    let end = path[..count].iter().position(|&byte| byte == 0)?;
    path.truncate(end);
    Some(path)
}

/// A relative path, from the overlay's directory that it starts from.
fn below(request: &Request<'_>, directory: i32, path: &[u8]) -> Option<Vec<u8>> {
    let thread = request.call.thread;
    let real = if directory == libc::AT_FDCWD {
        std::fs::read_link(format!("/proc/{thread}/cwd")).ok()?.into_os_string().into_vec()
    } else {
        request.front.tasks.task(thread).ok()?.path_of(directory).ok()?
    };
    let real = Path::new(OsStr::from_bytes(&real));
    let ours = request.front.overlay.path_of_directory(real)?;
    let mut whole = ours.into_os_string().into_vec();
    whole.push(b'/');
    whole.extend_from_slice(path);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_paths_that_may_be_ours() {
        for path in ["/dev/iommu\0", "/sys\0", "//sys/", "/./dev/vfio", "/.//./sys/x", "/dev"] {
            assert!(is_under_a_top(path.as_bytes()), "{path}");
        }
        for path in ["/system/x", "/devel\0", "/usr/sys", "/", "/.dev/x", "/proc/self"] {
            assert!(!is_under_a_top(path.as_bytes()), "{path}");
        }
    }
}
