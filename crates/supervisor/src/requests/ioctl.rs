//! `ioctl`: commands on our files. Source: ioctl(2).

use uapi::Errno;

use super::{Reply, Request, kvm, recorded};
use crate::fail_nth;
use crate::files::Object;
use crate::observer::{Call, command_on};
use crate::reach::{Place, Touch};

pub(super) fn ioctl(request: &Request<'_>, fd: i32, number: u32, argument: u64) -> Reply {
    if number == uapi::kvm::request::SET_DEVICE_ATTR {
        return kvm::set_device_attribute(request, argument);
    }
    let Some(target) = request.target(fd) else { return Reply::Continue };
    let front = request.front;
    let command = command_on(target.file.told.kind, front.profile, number);
    let id = command.map(|row| row.id);
    let touch = match &target.file.object {
        // The kernel's test interface looks at what all contexts hold.
        Object::Iommufd(_) if front.machine.mock.is_some() => Touch::All,
        Object::Iommufd(context) => Touch::of_context(context, id),
        Object::Vfio { number, .. } => match front.machine.devices.get(*number) {
            Some(device) => Touch::of_device(Place::of(device), id),
            None => Touch::Nothing,
        },
        Object::Group(group) => match front.machine.member_of(group.group().number()) {
            Some(device) => Touch::Neighbours(Place::of(device)),
            None => Touch::Nothing,
        },
        // Which groups it has, and so what is mapped, the release of any may change.
        Object::Container(_) => Touch::All,
        Object::Access(access) => Touch::of_context(access.context(), id),
        Object::Events(events) => Touch::of_context(events.context(), id),
        Object::DmaBuf(_) => Touch::Nothing,
        Object::Attribute(_) => return Reply::Continue,
    };
    if command.is_some_and(|row| row.may_wait) {
        request.turn.pass_unless_alone();
    }
    request.complete_closes(touch);
    // Closed between the call and now: the number meant nothing by the time it would be looked up.
    let Some(running) = target.file.begin() else { return Reply::Error(Errno::EBADF) };
    let client = request.client(&target.task, argument);
    let _serving = fail_nth::serve(request.call.thread);
    let answer = match &target.file.object {
        Object::Iommufd(context) => context.ioctl(&client, number, argument),
        Object::Vfio { file, .. } => file.ioctl(&client, number, argument),
        Object::Group(group) => group.ioctl(&client, number, argument),
        Object::Container(container) => container.ioctl(&client, number, argument),
        Object::Access(_) | Object::DmaBuf(_) | Object::Events(_) | Object::Attribute(_) => {
            Err(Errno::ENOTTY)
        }
    };
    drop(running);
    let answer = answer.map(u64::from);
    let (sent, returned) = recorded(&client);
    let call = Call::Ioctl {
        fd: target.fd,
        file: &target.file.told,
        request: number,
        argument,
        sent: &sent,
        returned: &returned,
    };
    front.observer.call(request.caller(&target.task), &call, answer);
    answer.into()
}
