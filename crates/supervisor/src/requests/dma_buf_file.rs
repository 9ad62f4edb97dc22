//! The files of dma-bufs, which the kernel's test interface gives: they are mapped for devices.
//!
//! They have no node. Programs map none of them (`EINVAL`): the mock's have no mapping of their own. Source: v7.3
//! `dma-buf.c`, `selftest.c`.

use std::os::fd::AsFd;
use std::sync::Arc;

use iommufd::DmaBuf;
use rustix::fs::OFlags;
use uapi::{Errno, FileKind};

use super::open::{described_again, kernels, sealed_memfd};
use crate::caller::Client;
use crate::closes::Release;
use crate::files::{Access, Object};
use crate::front_end::errno;
use crate::observer::OpenFile;
use crate::process::Identity;

/// Gives the program an open file of the buffer, and returns its descriptor.
///
/// # Errors
/// `EMFILE`, `ENOMEM` and others where the file cannot be made or given.
pub(crate) fn install(
    client: &Client<'_>,
    buffer: &Arc<DmaBuf>,
    open_flags: u32,
) -> Result<i32, Errno> {
    let front = client.front;
    let flags = OFlags::from_bits_retain(open_flags);
    let memfd = sealed_memfd("dmabuf", buffer.length())?;
    let theirs = described_again(&memfd, flags)?;
    let identity = Identity::of(memfd.as_fd()).map_err(kernels)?;
    let told = OpenFile {
        serial: front.files.next_serial(),
        kind: FileKind::Iommufd,
        path: "/dmabuf:".to_owned(),
        opener: client.task.process().pid(),
    };
    let watched = front.closes.watch(memfd.as_fd(), identity);
    let object = Object::DmaBuf(Arc::clone(buffer));
    front.files.insert(identity, told, object, Access::of(flags), Some(memfd));
    if let Err(error) = watched {
        front.release(identity);
        return Err(errno(&error));
    }
    // Where this fails our copy is the last, and its close releases the file.
    let cloexec = flags.contains(OFlags::CLOEXEC);
    let installed = front.listener.install(client.call, theirs.as_fd(), cloexec);
    installed.map_err(|error| errno(&error))
}
