//! `eventfd` where we make them. Source: eventfd(2).

use std::os::fd::AsFd;

use super::{Reply, Request};
use crate::front_end::errno;

pub(super) fn eventfd(request: &Request<'_>, count: u32, flags: u32) -> Reply {
    let front = request.front;
    let cloexec = flags & libc::EFD_CLOEXEC.cast_unsigned() != 0;
    let file = match front.eventfds.make(count, flags) {
        Ok(file) => file,
        Err(error) => return Reply::Error(errno(&error)),
    };
    match front.listener.install(request.call.id, file.as_fd(), cloexec) {
        Ok(fd) => Reply::Value(u64::from(fd.cast_unsigned())),
        Err(error) => Reply::Error(errno(&error)),
    }
}
