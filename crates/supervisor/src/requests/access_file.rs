//! The files of accesses, which the kernel's test interface gives: only that they are closed matters.
//!
//! They have no node. Source: v7.3 `selftest.c`.

use std::os::fd::AsFd;
use std::sync::Arc;

use iommufd::mock::AccessFile;
use rustix::fs::OFlags;
use uapi::{Errno, FileKind};

use super::open::{described_again, kernels, sealed_memfd};
use crate::caller::Client;
use crate::closes::Release;
use crate::files::{Access, Object};
use crate::front_end::errno;
use crate::observer::OpenFile;
use crate::process::Identity;

/// Gives the program an open file of the access, and returns its descriptor.
///
/// # Errors
/// `EMFILE`, `ENOMEM` and others where the file cannot be made or given. The access may have been ended then.
pub(crate) fn install(client: &Client<'_>, access: &Arc<AccessFile>) -> Result<i32, Errno> {
    let front = client.front;
    let memfd = sealed_memfd("iommufd-access", 0)?;
    let theirs = described_again(&memfd, OFlags::RDWR)?;
    let identity = Identity::of(memfd.as_fd()).map_err(kernels)?;
    let told = OpenFile {
        serial: front.files.next_serial(),
        kind: FileKind::Iommufd,
        path: "anon_inode:[iommufd_test_access]".to_owned(),
        opener: client.task.process().pid(),
    };
    let watched = front.closes.watch(memfd.as_fd(), identity);
    let object = Object::Access(Arc::clone(access));
    front.files.insert(identity, told, object, Access::of(OFlags::RDWR), Some(memfd));
    if let Err(error) = watched {
        front.release(identity);
        return Err(errno(&error));
    }
    // Where this fails our copy is the last, and its close releases the file.
    let installed = front.listener.install(client.call, theirs.as_fd(), true);
    installed.map_err(|error| errno(&error))
}
