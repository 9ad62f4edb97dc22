//! Device files that a group gives (`VFIO_GROUP_GET_DEVICE_FD`). They have no node.
//!
//! A group may give a device several times; all that it gives are one file, opened again, and so share the memory of
//! the BARs. Source: [uapi/vfio.h].

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use uapi::{Errno, FileKind};
use vfio::{BarPages, Device, DeviceFile, Refusal};

use super::open::{DEVICE_FILE_BYTES, bar_pages, described_again, kernels, sealed_memfd};
use crate::caller::Client;
use crate::closes::Release;
use crate::files::{Access, Object};
use crate::front_end::errno;
use crate::observer::OpenFile;
use crate::process::Identity;

/// Gives the program an open file of the device, and returns its descriptor.
///
/// # Errors
/// What `open` refuses; `ENODEV` for a device of another machine; `EMFILE`, `ENOMEM` and others where the file cannot be
/// made or given.
pub(crate) fn install(
    client: &Client<'_>,
    device: &Arc<Device>,
    open: &mut dyn FnMut(BarPages) -> Result<Arc<DeviceFile>, Refusal>,
) -> Result<u32, Errno> {
    let front = client.front;
    let mut machines = front.machine.devices.iter();
    let number = machines.position(|other| Arc::ptr_eq(&other.vfio, device));
    let number = number.ok_or(Errno::ENODEV)?;
    match again(client, number) {
        Some(answer) => answer,
        None => first(client, number, open),
    }
}

/// Gives the file once more that the program, or a part of it, has already; `None` where nobody has.
fn again(client: &Client<'_>, number: usize) -> Option<Result<u32, Errno>> {
    let front = client.front;
    let (identity, _) = front.files.granted(number)?;
    // From here on it is not released, unless that has begun.
    let hold = front.closes.hold(identity, front)?;
    let file = front.files.find(identity)?;
    let theirs = described_again(file.memfd()?, OFlags::RDWR);
    let answer = theirs.and_then(|theirs| give(client, theirs.as_fd()));
    drop(hold);
    Some(answer)
}

fn first(
    client: &Client<'_>,
    number: usize,
    open: &mut dyn FnMut(BarPages) -> Result<Arc<DeviceFile>, Refusal>,
) -> Result<u32, Errno> {
    let front = client.front;
    let device = &front.machine.devices[number];
    let memfd = sealed_memfd("vfio", DEVICE_FILE_BYTES)?;
    let theirs = described_again(&memfd, OFlags::RDWR)?;
    let identity = Identity::of(memfd.as_fd()).map_err(kernels)?;
    let pages = bar_pages(device.function.as_ref(), &memfd)?;
    let file = open(pages).map_err(|refusal| refusal.errno())?;
    let told = OpenFile {
        serial: front.files.next_serial(),
        kind: FileKind::VfioDevice,
        path: format!("/dev/vfio/{}:{}", device.group_id, device.address),
        opener: client.task.process().pid(),
    };
    let watched = front.closes.watch(memfd.as_fd(), identity);
    let object = Object::Vfio { number, file };
    front.files.insert(identity, told, object, Access::of(OFlags::RDWR), Some(memfd));
    if let Err(error) = watched {
        front.release(identity);
        return Err(errno(&error));
    }
    // Where this fails our copy is the last, and its close releases the file.
    give(client, theirs.as_fd())
}

fn give(client: &Client<'_>, file: std::os::fd::BorrowedFd<'_>) -> Result<u32, Errno> {
    let installed = client.front.listener.install(client.call, file, true);
    installed.map(i32::cast_unsigned).map_err(|error| errno(&error))
}
