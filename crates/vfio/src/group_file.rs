//! One open `/dev/vfio/GROUP`: the way to devices before they had files of their own.
//!
//! Takes `VFIO_GROUP` for looks; what changes the group has its turn, and holds no lock. Source: [uapi/vfio.h];
//! order of checks as in Linux 7.3.

use std::sync::Arc;

use iommufd::{FileFault, Vm};
use uapi::vfio::{GroupStatus, group_flags};
use uapi::{CommandId, Errno, FileKind, Profile};
use zerocopy::IntoBytes;

use crate::argument::Argument;
use crate::bind::OpenContext;
use crate::group::Backing;
use crate::in_use::InUse;
use crate::{Caller, Device, DeviceFile, Group, Refusal, token};

/// One open file of a group. There is at most one.
pub struct GroupFile {
    group: Arc<Group>,
    profile: Profile,
    in_use: InUse,
}

impl GroupFile {
    /// Opens the group.
    ///
    /// # Errors
    /// - [`Refusal::Withdrawn`] – it has no device (`ENODEV`).
    /// - [`Refusal::GroupInUse`] – it is open, or a device of it is bound through a file of its own (`EBUSY`).
    ///
    /// Takes `VFIO_GROUP`, then `DEVICE_SET`.
    pub fn open(group: &Arc<Group>) -> Result<Arc<Self>, Refusal> {
        let device = offered(group).next().ok_or(Refusal::Withdrawn)?;
        group.open()?;
        let (group, profile) = (Arc::clone(group), device.settings().profile);
        let in_use = InUse::new(|| format!("vfio-group{}", group.number()));
        Ok(Arc::new(Self { group, profile, in_use }))
    }

    /// The group that was opened.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Links the group with a VM, or with none, for devices that are opened from now on. Takes `VFIO_GROUP`.
    pub fn link_vm(&self, vm: Option<Arc<dyn Vm>>) {
        self.group.link_vm(vm);
    }

    /// Runs the command `request` on what `argument` points to in the caller's memory, and returns what the client
    /// gets: 0, or the descriptor of a device.
    ///
    /// # Errors
    /// `ENOTTY` for a command that does not exist; else the command's, as told at its handler.
    pub fn ioctl(&self, caller: &dyn Caller, request: u32, argument: u64) -> Result<u32, Errno> {
        let argument = Argument { caller, at: argument };
        let answer = self.in_use.run(|| self.run(request, &argument));
        answer.unwrap_or(Err(Errno::EBADF))
    }

    /// The last close. Waits for what runs on the file. With VFIO's own container the group stays open until its last
    /// device is closed. Cannot fail.
    ///
    /// Takes the locks of `vfio` and `iommufd` one after the other and holds none while it waits.
    pub fn release(&self) {
        self.in_use.shut();
        self.in_use.outwait();
        self.group.change().leave(&self.group);
    }

    fn run(&self, request: u32, argument: &Argument<'_>) -> Result<u32, Errno> {
        let command = uapi::lookup(FileKind::VfioGroup, self.profile, request);
        let answer = match command.map(|command| command.id) {
            Some(CommandId::GroupGetStatus) => self.status(argument),
            Some(CommandId::GroupSetContainer) => self.set_container(argument),
            Some(CommandId::GroupUnsetContainer) => {
                self.group.change().take_backing(&self.group).map(|()| 0)
            }
            Some(CommandId::GroupGetDeviceFd) => return self.device_fd(argument),
            _ => Err(Refusal::NoSuchCommand { request }),
        };
        answer.map_err(argument.refused())
    }

    /// `VFIO_GROUP_GET_STATUS`: whether devices can be had, and whether there is a container.
    ///
    /// # Errors
    /// - [`Refusal::Unreachable`], [`Refusal::Argsz`] – the argument (`EFAULT`, `EINVAL`).
    /// - [`Refusal::Withdrawn`] – vfio-pci has none of its devices any more (`ENODEV`).
    fn status(&self, argument: &Argument<'_>) -> Result<u32, Refusal> {
        let mut status: GroupStatus = argument.read(size_of::<GroupStatus>())?;
        let member = offered(&self.group).next().ok_or(Refusal::Withdrawn)?;
        let claimed = member.endpoint().group().is_claimed();
        status.flags = match self.group.has_backing() {
            true => group_flags::VIABLE | group_flags::CONTAINER_SET,
            false if claimed => 0,
            false => group_flags::VIABLE,
        };
        argument.write_at(0, status.as_bytes())?;
        Ok(0)
    }

    /// `VFIO_GROUP_SET_CONTAINER`: lets the group's devices translate through a container, or a context.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::ClosedFd`] (`EBADF`).
    /// - [`Refusal::ContainerSet`] – it has one (`EINVAL`).
    /// - [`Refusal::Withdrawn`] – vfio-pci has none of its devices any more (`ENODEV`).
    /// - [`Refusal::NotContainer`] (`EBADFD`).
    /// - as [`Container::attach`](crate::Container::attach); of a context [`Refusal::Iommufd`] (`ENOMEM`).
    fn set_container(&self, argument: &Argument<'_>) -> Result<u32, Refusal> {
        let mut bytes = [0; 4];
        argument.read_at(0, &mut bytes)?;
        let fd = i32::from_le_bytes(bytes);
        let (container, context) = match argument.caller.container(fd) {
            Ok(container) => (Some(container), None),
            Err(FileFault::Closed) => return Err(Refusal::ClosedFd { fd }),
            Err(FileFault::OtherKind) => (None, argument.caller.iommufd(fd).ok()),
        };
        let context = context.map(OpenContext::new);
        let change = self.group.change();
        if change.backing().is_ok() {
            return Err(Refusal::ContainerSet);
        }
        if offered(&self.group).next().is_none() {
            return Err(Refusal::Withdrawn);
        }
        let backing = match (container, context) {
            (Some(container), _) => {
                container.attach(&self.group)?;
                Backing::Container(container)
            }
            (None, Some(context)) => {
                context.context().ensure_compat_ioas()?;
                Backing::Iommufd(Arc::new(context))
            }
            (None, None) => return Err(Refusal::NotContainer { fd }),
        };
        change.set_backing(backing);
        Ok(0)
    }

    /// `VFIO_GROUP_GET_DEVICE_FD`: opens a device of the group by its name, which a VF token may follow. The first
    /// open binds the device and lets its DMA through the container.
    ///
    /// # Errors
    /// In this order:
    /// - `EFAULT`, `EINVAL` – the name.
    /// - `ENODEV` – no device of the group; `EINVAL` – what follows its name; as [`token::check`] (`EACCES`, `EINVAL`).
    /// - `EINVAL` – no container, or one without an IOMMU.
    /// - as [`DeviceFile::open_in_group`], and what the caller's table of files says (`EMFILE`).
    fn device_fd(&self, argument: &Argument<'_>) -> Result<u32, Errno> {
        let numbered = argument.refused();
        let name = read_name(argument).map_err(numbered)?;
        let device = self.named(&name).map_err(numbered)?;
        let change = self.group.change();
        let backing = change.backing().map_err(numbered)?;
        let mut open = |pages| {
            DeviceFile::open_in_group(&device, pages, &self.group, &change, &backing)
                .inspect_err(|refusal| argument.caller.refused(refusal))
        };
        argument.caller.install_device(&device, &mut open)
    }

    /// The device of this name, to whose token the client has a right.
    fn named(&self, asked: &str) -> Result<Arc<Device>, Refusal> {
        for device in offered(&self.group) {
            let name = device.address().to_string();
            let Some(options) = asked.strip_prefix(&name) else { continue };
            if !options.is_empty() && !options.starts_with(' ') {
                continue;
            }
            token::check(&device, token::of_options(options)?)?;
            return Ok(device);
        }
        Err(Refusal::NoSuchDevice)
    }
}

/// The devices of a group that vfio-pci has.
fn offered(group: &Group) -> impl Iterator<Item = Arc<Device>> {
    group.devices().into_iter().filter(|device| !device.is_withdrawn())
}

/// The longest name, with the zero at its end.
const NAME_BYTES_MOST: usize = 4096;

/// Reads a string that a zero ends.
///
/// # Errors
/// [`Refusal::Unreachable`] (`EFAULT`); [`Refusal::NameTooLong`] (`EINVAL`). What is no text names no device.
fn read_name(argument: &Argument<'_>) -> Result<String, Refusal> {
    let mut bytes = [0; NAME_BYTES_MOST];
    let count = argument.caller.read_prefix(argument.at, &mut bytes);
    let end = bytes[..count].iter().position(|&byte| byte == 0);
    match end {
        Some(end) => Ok(String::from_utf8_lossy(&bytes[..end]).into_owned()),
        None if count == NAME_BYTES_MOST => Err(Refusal::NameTooLong),
        None => Err(Refusal::Unreachable),
    }
}
