//! Windows of `/dev/iommu`, which programs map where a driver told them: the file's own memory, which we share.
//!
//! A window counts as mapped while the process that would end its vIOMMU maps it. Takes no lock of its own. Source:
//! mmap(2), proc_pid_maps(5); v7.3 `main.c`.

use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;

use iommufd::Context;
use rustix::fs::{major, minor};
use uapi::Errno;

use super::mmap::{MAP_TYPE, PAGE_BYTES, SHARED, SHARED_VALIDATE};
use super::open::kernels;
use crate::caller::Client;
use crate::files::{File, Object};
use crate::process::Identity;

/// Says whether a program may map bytes of a context's file.
///
/// # Errors
/// In this order: `EINVAL` for a copy of its own, `EPERM` for code, `ENXIO` for what is not exactly a window.
pub(super) fn check(
    context: &Context,
    length: u64,
    protection: u32,
    flags: u32,
    offset: u64,
) -> Result<(), Errno> {
    if ![SHARED, SHARED_VALIDATE].contains(&(flags & MAP_TYPE)) {
        return Err(Errno::EINVAL);
    }
    if protection & libc::PROT_EXEC.cast_unsigned() != 0 {
        return Err(Errno::EPERM);
    }
    let length = length.checked_next_multiple_of(PAGE_BYTES).ok_or(Errno::ENOMEM)?;
    if context.has_window(offset, length) { Ok(()) } else { Err(Errno::ENXIO) }
}

/// Puts bytes into the file of a context.
///
/// # Errors
/// `EOPNOTSUPP` where it has no memory; the system's.
pub(crate) fn fill(
    client: &Client<'_>,
    context: &Context,
    offset: u64,
    bytes: &[u8],
) -> Result<(), Errno> {
    let (_, file) = file_of(client, context).ok_or(Errno::EOPNOTSUPP)?;
    let memfd = file.memfd().ok_or(Errno::EOPNOTSUPP)?;
    let written = rustix::io::pwrite(memfd.as_fd(), bytes, offset).map_err(kernels)?;
    if written == bytes.len() { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Whether the client's process maps bytes of the file of a context.
pub(crate) fn is_mapped(client: &Client<'_>, context: &Context, offset: u64, length: u64) -> bool {
    let Some((identity, _)) = file_of(client, context) else { return false };
    let maps = fs::read_to_string(format!("/proc/{}/maps", client.task.process().pid()));
    maps.unwrap_or_default().lines().filter_map(Mapped::parse).any(|mapped| {
        mapped.is_of(identity) && mapped.offset < offset + length && offset < mapped.end()
    })
}

fn file_of(client: &Client<'_>, context: &Context) -> Option<(Identity, Arc<File>)> {
    let is_its =
        |file: &File| matches!(&file.object, Object::Iommufd(its) if std::ptr::eq(&**its, context));
    client.front.files.all().into_iter().find(|(_, file)| is_its(file))
}

/// A line of `/proc/PID/maps`.
#[derive(Debug, PartialEq, Eq)]
struct Mapped {
    length: u64,
    offset: u64,
    device: (u32, u32),
    inode: u64,
}

impl Mapped {
    fn parse(line: &str) -> Option<Self> {
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (offset, device, inode) = (words.nth(1)?, words.next()?, words.next()?);
        let (major, minor) = device.split_once(':')?;
        Some(Self {
            length: hex(end)?.checked_sub(hex(start)?)?,
            offset: hex(offset)?,
            device: (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?),
            inode: inode.parse().ok()?,
        })
    }

    fn is_of(&self, file: Identity) -> bool {
        (self.device, self.inode) == ((major(file.device), minor(file.device)), file.inode)
    }

    const fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = "7f10a000-7f10c000 rw-s 00001000 00:01 2055        /memfd:iommu (deleted)";
        let mapped = Mapped { length: 0x2000, offset: 0x1000, device: (0, 1), inode: 2055 };
        assert_eq!(Mapped::parse(line), Some(mapped));
        assert_eq!(Mapped::parse("7f10a000 rw-s"), None);
    }
}
