//! Windows of `/dev/iommu`, which programs map where a driver told them: the file's own memory, which we share.
//!
//! A window counts as mapped while the process that would end its vIOMMU maps it. Takes no lock of its own. Source:
//! mmap(2), proc_pid_maps(5); v7.3 `main.c`.

use std::os::fd::AsFd;
use std::sync::Arc;

use host::mappings::Mappings;
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
    let file = ((major(identity.device), minor(identity.device)), identity.inode);
    let mappings = Mappings::open(client.task.process().pid()).and_then(|list| list.all());
    mappings.unwrap_or_default().iter().any(|mapping| {
        let end = mapping.file_offset.saturating_add(mapping.end - mapping.start);
        let is_its = (mapping.device, mapping.inode) == file;
        is_its && mapping.file_offset < offset + length && offset < end
    })
}

fn file_of(client: &Client<'_>, context: &Context) -> Option<(Identity, Arc<File>)> {
    let is_its =
        |file: &File| matches!(&file.object, Object::Iommufd(its) if std::ptr::eq(&**its, context));
    client.front.files.all().into_iter().find(|(_, file)| is_its(file))
}
