//! `mmap` of device regions. What the device allows the kernel then does, on the file's own memory,
//! which we share. Source: mmap(2).

use uapi::Errno;
use vfio::MapRequest;

use super::{Reply, Request, window};
use crate::files::Object;
use crate::observer::Call;
use crate::reach::Touch;

/// Smallest page of every supported architecture.
pub(super) const PAGE_BYTES: u64 = 4096;
pub(super) const MAP_TYPE: u32 = libc::MAP_TYPE.cast_unsigned();
pub(super) const SHARED: u32 = libc::MAP_SHARED.cast_unsigned();
pub(super) const SHARED_VALIDATE: u32 = libc::MAP_SHARED_VALIDATE.cast_unsigned();
const ANONYMOUS: u32 = libc::MAP_ANONYMOUS.cast_unsigned();

pub(super) fn mmap(
    request: &Request<'_>,
    length: u64,
    protection: u32,
    flags: u32,
    fd: i32,
    offset: u64,
) -> Reply {
    if flags & ANONYMOUS != 0 {
        return Reply::Continue;
    }
    let Some(target) = request.target(fd) else { return Reply::Continue };
    let front = request.front;
    let (number, device) = match &target.file.object {
        Object::Vfio { number, file } => (*number, file),
        Object::Iommufd(context) => {
            return match window::check(context, length, protection, flags, offset) {
                Ok(()) => Reply::Continue,
                Err(errno) => Reply::Error(errno),
            };
        }
        Object::Group(_) | Object::Container(_) | Object::Access(_) | Object::Events(_) => {
            return Reply::Error(Errno::ENODEV);
        }
        Object::DmaBuf(_) => return Reply::Error(Errno::EINVAL),
        Object::Attribute(_) => return Reply::Continue,
    };
    // What the kernel refuses by itself, it refuses first.
    let Some(length) = length.checked_next_multiple_of(PAGE_BYTES).filter(|&length| length > 0)
    else {
        return Reply::Continue;
    };
    request.complete_closes(Touch::Device(number));
    let Some(_running) = target.file.begin() else { return Reply::Error(Errno::EBADF) };
    let asks = |bit: i32| protection & bit.cast_unsigned() != 0;
    let wanted = MapRequest {
        shared: [SHARED, SHARED_VALIDATE].contains(&(flags & MAP_TYPE)),
        read: asks(libc::PROT_READ),
        write: asks(libc::PROT_WRITE),
        exec: asks(libc::PROT_EXEC),
    };
    let allowed = device.mmap(offset, length, wanted);
    let call = Call::Map { fd: target.fd, file: &target.file.told, offset, length };
    front.observer.call(request.caller(&target.task), &call, allowed.map(|()| 0));
    match allowed {
        Ok(()) => Reply::Continue,
        Err(errno) => Reply::Error(errno),
    }
}
