//! KVM being told which device files belong to a virtual machine. The real KVM would refuse ours, and
//! its users would give up, so it is not asked about them. Source: [uapi/kvm.h].

use uapi::Errno;
use uapi::kvm::{DeviceAttr, attribute_group, file_attribute};
use zerocopy::IntoBytes;

use super::{Reply, Request};
use crate::files::Object;

/// `KVM_SET_DEVICE_ATTR`: adding or taking away a file of ours succeeds, and links it with the VM of
/// the calling process or with none; all else is KVM's.
pub(super) fn set_device_attribute(request: &Request<'_>, argument: u64) -> Reply {
    let mut attribute = DeviceAttr::default();
    let mut fd = 0_i32;
    let thread = request.call.thread;
    let all = |at, bytes: &mut [u8]| host::memory::read(thread, at, bytes) == bytes.len();
    let names_a_file = all(argument, attribute.as_mut_bytes())
        && attribute.group == attribute_group::FILE
        && [file_attribute::ADD, file_attribute::DEL].contains(&attribute.attr)
        && all(attribute.addr, fd.as_mut_bytes());
    if !names_a_file {
        return Reply::Continue;
    }
    let Some(target) = request.target(fd) else { return Reply::Continue };
    if !matches!(target.file.object, Object::Vfio { .. } | Object::Group(_)) {
        return Reply::Continue;
    }
    let Some(_running) = target.file.begin() else { return Reply::Error(Errno::EBADF) };
    // Whoever has several VMs, or none to be seen, gets no link.
    let vm = match attribute.attr {
        file_attribute::ADD => request.front.vms.of(target.task.process()),
        _ => None,
    };
    match &target.file.object {
        Object::Vfio { file, .. } => file.link_vm(vm),
        Object::Group(group) => group.link_vm(vm),
        Object::Iommufd(_)
        | Object::Container(_)
        | Object::Access(_)
        | Object::Events(_)
        | Object::DmaBuf(_)
        | Object::Attribute(_) => {}
    }
    Reply::Value(0)
}
