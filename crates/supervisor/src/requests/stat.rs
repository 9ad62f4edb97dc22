//! `stat` and its kin: device files are character devices with the numbers that sysfs names.
//! Source: stat(2), statx(2), [uapi/asm/stat.h].

use rustix::fs::{major, makedev, minor};
use uapi::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::path::{is_empty, overlay_path};
use super::{Reply, Request};
use crate::files::Object;
use crate::overlay::Metadata;

const STAY: u32 = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH.cast_unsigned();
/// What every file system tells: `STATX_BASIC_STATS`.
const BASIC_STATS: u32 = 0x07ff;
/// What `stat` gives as the best size of a read.
const BLOCK_BYTES: u32 = 4096;

/// `stat`, `lstat` and `newfstatat`.
pub(super) fn stat_at(
    request: &Request<'_>,
    directory: i32,
    path: u64,
    into: u64,
    flags: u32,
) -> Reply {
    answer(find(request, directory, path, flags), |data| {
        request.give(into, Stat::from(data).as_bytes())
    })
}

/// `fstat`.
pub(super) fn stat_file(request: &Request<'_>, fd: i32, into: u64) -> Reply {
    answer(of_file(request, fd), |data| request.give(into, Stat::from(data).as_bytes()))
}

/// `statx`.
pub(super) fn statx(
    request: &Request<'_>,
    directory: i32,
    path: u64,
    flags: u32,
    into: u64,
) -> Reply {
    answer(find(request, directory, path, flags), |data| {
        request.give(into, Statx::from(data).as_bytes())
    })
}

fn answer(
    found: Option<Result<Metadata, Errno>>,
    give: impl FnOnce(&Metadata) -> Result<(), Errno>,
) -> Reply {
    match found {
        None => Reply::Continue,
        Some(Err(errno)) => Reply::Error(errno),
        Some(Ok(data)) => give(&data).map(|()| 0).into(),
    }
}

/// What a path or, where that is empty, an open file is; `None` where it is the kernel's.
fn find(
    request: &Request<'_>,
    directory: i32,
    path: u64,
    flags: u32,
) -> Option<Result<Metadata, Errno>> {
    if flags & EMPTY_PATH != 0 && is_empty(request, path) {
        return of_file(request, directory);
    }
    let path = overlay_path(request, directory, path)?;
    request.front.overlay.metadata(&path, flags & STAY == 0)
}

fn of_file(request: &Request<'_>, fd: i32) -> Option<Result<Metadata, Errno>> {
    let target = request.target(fd)?;
    match target.file.object {
        // Like any file that has no name.
        Object::Vfio { ref file, .. } if file.is_of_group() => None,
        Object::Iommufd(_) | Object::Vfio { .. } | Object::Group(_) | Object::Container(_) => {
            request.front.overlay.metadata(target.file.told.path.as_bytes(), true)
        }
        Object::Access(_) | Object::DmaBuf(_) | Object::Events(_) | Object::Attribute(_) => None,
    }
}

/// `struct stat` of x86-64.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct Stat {
    dev: u64,
    ino: u64,
    nlink: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    padding: u32,
    rdev: u64,
    size: u64,
    blksize: u64,
    blocks: u64,
    atime: [i64; 2],
    mtime: [i64; 2],
    ctime: [i64; 2],
    reserved: [u64; 3],
}

const _: () = assert!(size_of::<Stat>() == size_of::<libc::stat>());

impl From<&Metadata> for Stat {
    fn from(data: &Metadata) -> Self {
        let (major, minor) = data.device_number;
        let time = [data.mtime_s, 0];
        Self {
            dev: data.dev,
            ino: data.ino,
            nlink: data.nlink,
            mode: data.mode,
            uid: data.uid,
            gid: data.gid,
            rdev: makedev(major, minor),
            size: data.size,
            blksize: BLOCK_BYTES.into(),
            atime: time,
            mtime: time,
            ctime: time,
            ..Self::default()
        }
    }
}

/// `struct statx`.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    padding: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: [i64; 2],
    btime: [i64; 2],
    ctime: [i64; 2],
    mtime: [i64; 2],
    rdev: [u32; 2],
    dev: [u32; 2],
    reserved: [u64; 14],
}

const _: () = assert!(size_of::<Statx>() == 256);

impl From<&Metadata> for Statx {
    fn from(data: &Metadata) -> Self {
        let time = [data.mtime_s, 0];
        let (rdev_major, rdev_minor) = data.device_number;
        Self {
            mask: BASIC_STATS,
            blksize: BLOCK_BYTES,
            nlink: u32::try_from(data.nlink).unwrap_or(u32::MAX),
            uid: data.uid,
            gid: data.gid,
            mode: u16::try_from(data.mode).unwrap_or_default(),
            ino: data.ino,
            size: data.size,
            atime: time,
            ctime: time,
            mtime: time,
            rdev: [rdev_major, rdev_minor],
            dev: [major(data.dev), minor(data.dev)],
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        Metadata {
            mode: 0o020_600,
            device_number: (511, 3),
            size: 0,
            dev: makedev(0, 5),
            ino: 77,
            nlink: 1,
            uid: 1000,
            gid: 100,
            mtime_s: 1_700_000_000,
        }
    }

    /// What the C library reads out of the same bytes.
    #[test]
    fn fields_lie_where_the_c_library_looks() {
        let bytes = Stat::from(&metadata());
        let bytes = bytes.as_bytes();
        let word =
            |offset: usize| u64::from_ne_bytes(bytes[offset..offset + 8].try_into().unwrap());
        let half =
            |offset: usize| u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap());
        assert_eq!(word(std::mem::offset_of!(libc::stat, st_ino)), 77);
        assert_eq!(word(std::mem::offset_of!(libc::stat, st_rdev)), makedev(511, 3));
        assert_eq!(half(std::mem::offset_of!(libc::stat, st_mode)), 0o020_600);
        assert_eq!(half(std::mem::offset_of!(libc::stat, st_uid)), 1000);
        assert_eq!(word(std::mem::offset_of!(libc::stat, st_mtime)), 1_700_000_000);
        let bytes = Statx::from(&metadata());
        let bytes = bytes.as_bytes();
        let half =
            |offset: usize| u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap());
        assert_eq!(half(std::mem::offset_of!(libc::statx, stx_rdev_major)), 511);
        assert_eq!(half(std::mem::offset_of!(libc::statx, stx_rdev_minor)), 3);
        assert_eq!(half(std::mem::offset_of!(libc::statx, stx_dev_minor)), 5);
        assert_eq!(half(std::mem::offset_of!(libc::statx, stx_uid)), 1000);
    }
}
