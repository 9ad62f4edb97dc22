//! `write` of a few bytes, which may be to a sysfs attribute. Source: write(2), sysfs(5).

use uapi::Errno;

use super::{Reply, Request, event_file};
use crate::files::Object;
use crate::filter::ATTRIBUTE_WRITE_BYTES;
use crate::reach::Touch;

pub(super) fn write(request: &Request<'_>, fd: i32, from: u64, count: u64) -> Reply {
    let Some(target) = request.target(fd) else { return Reply::Continue };
    if matches!(target.file.object, Object::Events(_)) {
        return event_file::write(request, fd, from, count);
    }
    let Object::Attribute(attribute) = &target.file.object else { return Reply::Continue };
    let mut buffer = [0; *ATTRIBUTE_WRITE_BYTES.end() as usize];
    let length = usize::try_from(count).unwrap_or(usize::MAX);
    let Some(bytes) = buffer.get_mut(..length) else { return Reply::Continue };
    if !target.file.access.write {
        return Reply::Continue;
    }
    // Before the memory is read: a writer that is dead by then writes nothing.
    let _writing = request.front.files.begin_write();
    if host::memory::read(request.call.thread, from, bytes) != length {
        return Reply::Error(Errno::EFAULT);
    }
    request.turn.pass();
    request.complete_closes(Touch::All);
    let Some(_running) = target.file.begin() else { return Reply::Error(Errno::EBADF) };
    attribute.write(bytes).map(|count| count as u64).into()
}
