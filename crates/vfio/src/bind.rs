//! BIND_IOMMUFD, ATTACH and DETACH: the bond between a device file and an iommufd.
//!
//! Takes `DEVICE_SET` for the table of holders; holds nothing while iommufd, the function or the caller's
//! memory is asked. Source: [uapi/vfio.h].

use std::mem::offset_of;
use std::sync::Arc;

use iommufd::PasidMode;
use uapi::vfio::{
    AttachIommufdPt, BindIommufd, DetachIommufdPt, attach_flags, bind_flags, detach_flags,
};

use crate::argument::Argument;
use crate::command::Bound;
use crate::device::VfToken;
use crate::file::take_apart;
use crate::{Device, DeviceFile, Group, Refusal, token};

/// `VFIO_DEVICE_BIND_IOMMUFD`: binds the file to a context and enables the device, for the VM that the file is
/// linked with by now.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::DirtyTail`] – the argument (`EFAULT`, `EINVAL`, `E2BIG`).
/// - [`Refusal::NegativeFd`], [`Refusal::Flags`] (`EINVAL`).
/// - [`Refusal::OfGroup`] – the file is the group's (`EINVAL`).
/// - [`Refusal::GroupInUse`] – a program has the device's group (`EBUSY`).
/// - [`Refusal::FileBound`] – this file is bound (`EINVAL`).
/// - [`Refusal::Unreachable`] – the token (`EFAULT`), then as [`token::check`] (`EACCES`, `EINVAL`).
/// - [`Refusal::ClosedFd`], [`Refusal::NotIommufd`] (`EBADF`, `EBADFD`).
/// - [`Refusal::DeviceBound`] – bound through another file (`EINVAL`). One that is being bound or closed is
///   waited for.
/// - [`Refusal::Iommufd`] – the context refuses.
/// - [`Refusal::OutOfMemory`] (`ENOMEM`).
/// - [`Refusal::Unreachable`] – the id cannot be written; all is undone (`EFAULT`).
pub(crate) fn bind(file: &Arc<DeviceFile>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: BindIommufd = argument.read_extensible(BIND_SIZE_MIN)?;
    if asked.iommufd < 0 {
        return Err(Refusal::NegativeFd { fd: asked.iommufd });
    }
    check_flags(asked.flags, bind_flags::TOKEN)?;
    let device = file.device();
    if file.is_of_group() {
        return Err(Refusal::OfGroup);
    }
    let block = Block::of(device.group())?;
    if file.check_bound().is_ok() {
        return Err(Refusal::FileBound);
    }
    let token = match asked.flags & bind_flags::TOKEN {
        0 => None,
        _ => {
            let mut token = VfToken::default();
            argument.caller.read(asked.token_uuid_ptr, &mut token)?;
            Some(token)
        }
    };
    token::check(device, token)?;
    let context = argument
        .caller
        .iommufd(asked.iommufd)
        .map_err(|fault| Refusal::of_iommufd(asked.iommufd, fault))?;
    let context = OpenContext::new(context);
    let claim = Claim::of(device)?;
    let iommufd = iommufd::Device::bind_for(context.context(), device.endpoint(), file.vm())?;
    device.set().note_opening(device.address(), &iommufd);
    if let Err(refusal) = device.enable(&iommufd, file.pages()) {
        iommufd.begin_end();
        iommufd.end();
        return Err(refusal);
    }
    let id = iommufd.id().to_le_bytes();
    if let Err(refusal) = argument.write_at(offset_of!(BindIommufd, out_devid), &id) {
        take_apart(device, &iommufd);
        return Err(refusal);
    }
    claim.publish(file, iommufd);
    block.keep();
    Ok(0)
}

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: lets the device's DMA through a page table, or an IOAS, in place of the one
/// before; or its DMA with a PASID. The struct gets the id of the page table.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::Iommufd`] – no such page table, or it does not serve.
/// - [`Refusal::Unreachable`] – the id cannot be written; the device is then detached, but for its PASIDs (`EFAULT`).
pub(crate) fn attach(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let mut asked: AttachIommufdPt = argument.read(offset_of!(AttachIommufdPt, pasid))?;
    check_flags(asked.flags, attach_flags::PASID)?;
    let by_pasid = asked.flags & attach_flags::PASID != 0;
    if by_pasid {
        asked = argument.read(size_of::<AttachIommufdPt>())?;
    }
    let iommufd = bound.file.bound()?;
    let page_table = if by_pasid {
        iommufd.attach_pasid(asked.pasid, asked.pt_id, PasidMode::Any)?
    } else {
        iommufd.attach(asked.pt_id)?
    };
    let id = page_table.to_le_bytes();
    if let Err(refusal) = argument.write_at(offset_of!(AttachIommufdPt, pt_id), &id) {
        iommufd.detach();
        return Err(refusal);
    }
    Ok(0)
}

/// `VFIO_DEVICE_DETACH_IOMMUFD_PT`: ends the device's DMA. Not attached: nothing to do.
///
/// # Errors
/// In this order:
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
pub(crate) fn detach(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: DetachIommufdPt = argument.read(offset_of!(DetachIommufdPt, pasid))?;
    check_flags(asked.flags, detach_flags::PASID)?;
    if asked.flags & detach_flags::PASID == 0 {
        bound.file.bound()?.detach();
        return Ok(0);
    }
    let asked: DetachIommufdPt = argument.read(size_of::<DetachIommufdPt>())?;
    bound.file.bound()?.detach_pasid(asked.pasid);
    Ok(0)
}

/// Bytes of [`BindIommufd`] in its first version.
const BIND_SIZE_MIN: usize = offset_of!(BindIommufd, token_uuid_ptr);

fn check_flags(flags: u32, known: u32) -> Result<(), Refusal> {
    if flags & !known == 0 { Ok(()) } else { Err(Refusal::Flags { flags }) }
}

/// A context whose file reference is put when this is dropped.
pub(crate) struct OpenContext(Arc<iommufd::Context>);

impl OpenContext {
    /// `context`, of which a file reference was taken for this.
    pub(crate) const fn new(context: Arc<iommufd::Context>) -> Self {
        Self(context)
    }

    pub(crate) const fn context(&self) -> &Arc<iommufd::Context> {
        &self.0
    }
}

impl Drop for OpenContext {
    fn drop(&mut self) {
        self.0.put_file();
    }
}

/// A group kept from being opened. Dropped without being kept so, it can be.
struct Block<'a> {
    group: Option<&'a Group>,
}

impl<'a> Block<'a> {
    fn of(group: &'a Group) -> Result<Self, Refusal> {
        group.block()?;
        Ok(Self { group: Some(group) })
    }

    /// Leaves it so until the file that was bound is closed.
    fn keep(mut self) {
        self.group = None;
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            group.unblock();
        }
    }
}

/// A device kept for one file. Dropped without being published, it is free again.
pub(crate) struct Claim<'a> {
    device: Option<&'a Device>,
}

impl<'a> Claim<'a> {
    pub(crate) fn of(device: &'a Device) -> Result<Self, Refusal> {
        device.set().claim(device.address())?;
        Ok(Self { device: Some(device) })
    }

    /// For a group that gives the device anew.
    pub(crate) fn after_close(device: &'a Device) -> Result<Self, Refusal> {
        device.set().claim_after_close(device.address())?;
        Ok(Self { device: Some(device) })
    }

    pub(crate) fn publish(mut self, file: &DeviceFile, iommufd: Arc<iommufd::Device>) {
        if let Some(device) = self.device.take() {
            device.set().publish(device.address(), file.id(), iommufd);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(device) = self.device {
            device.set().free(device.address());
        }
    }
}
