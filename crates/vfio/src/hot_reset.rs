//! GET_PCI_HOT_RESET_INFO and PCI_HOT_RESET: a reset of the bus, which takes other functions along.
//!
//! Affected are all devices of the [`DeviceSet`](crate::DeviceSet). A client may reset them only if each is
//! bound to its own context, or in an iommu_group that its context owns; where it has its device through a group, only if
//! it shows an open file of each device's group.
//!
//! Takes `DEVICE_SET` for the list; each device's turn, by ascending address, for the reset.
//! Source: [uapi/vfio.h].

use std::mem::offset_of;
use std::sync::Arc;

use iommufd::{HotResetView, Resource};
use pci::Reset;
use uapi::vfio::{DependentDevice, HotReset, HotResetInfo, dependent_device, hot_reset_flags};
use zerocopy::IntoBytes;

use crate::argument::Argument;
use crate::command::Bound;
use crate::enable::POWER_D0;
use crate::hardware::Saved;
use crate::tdi::Affected;
use crate::{Device, Group, Refusal, ResetCause};

/// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: lists the devices that a bus reset takes along.
///
/// # Errors
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::NoBusReset`] – the bus cannot be reset (`ENODEV`).
/// - [`Refusal::ListTooShort`] – the list does not fit; the count is written all the same, the flags are zero
///   (`ENOSPC`).
/// - [`Refusal::Iommufd`] – no memory for the list (`ENOMEM`).
/// - [`Refusal::Unreachable`] – the list, then what precedes it, cannot be written (`EFAULT`).
pub(crate) fn info(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: HotResetInfo = argument.read(size_of::<HotResetInfo>())?;
    let affected = affected(bound)?;
    let needed = u32::try_from(affected.len()).unwrap_or(u32::MAX);
    let mut info = HotResetInfo { argsz: asked.argsz, flags: 0, count: needed };
    let room = (asked.argsz as usize - size_of::<HotResetInfo>()) / size_of::<DependentDevice>();
    if room < affected.len() {
        argument.write_at(0, info.as_bytes())?;
        return Err(Refusal::ListTooShort { needed });
    }
    let iommufd = bound.file.bound()?;
    iommufd.admit(Resource::Buffer)?;
    let of_group = bound.file.is_of_group();
    let devices: Vec<DependentDevice> = match of_group {
        true => affected.iter().map(|device| by_group(device)).collect(),
        false => affected.iter().map(|device| dependent(&iommufd, device)).collect(),
    };
    let all_owned = devices.iter().all(|device| device.devid != dependent_device::NOT_OWNED);
    let owned_flag = if all_owned { hot_reset_flags::DEV_ID_OWNED } else { 0 };
    info.flags = if of_group { 0 } else { hot_reset_flags::DEV_ID | owned_flag };
    argument.write_at(size_of::<HotResetInfo>(), devices.as_bytes())?;
    argument.write_at(0, info.as_bytes())?;
    Ok(0)
}

/// `VFIO_DEVICE_PCI_HOT_RESET`: resets the bus.
///
/// # Errors
/// - [`Refusal::Unreachable`], [`Refusal::Argsz`], [`Refusal::Flags`] – the argument (`EFAULT`, `EINVAL`).
/// - [`Refusal::GroupsGiven`] – a file that is bound to an iommufd names no groups, one of a group names some (`EINVAL`).
/// - [`Refusal::NoBusReset`] – the bus cannot be reset (`ENODEV`).
/// - as [`shown_groups`] (`EINVAL`, `ENOMEM`, `EFAULT`, `EBADF`).
/// - [`Refusal::BusNotOwned`] – a device is not the client's (`EINVAL`).
/// - [`Refusal::BusResetContended`] – another reset of a device runs (`EBUSY`).
/// - [`Refusal::TdiBound`] – a TDI of a device is bound, and its settings do not let the reset break that (`EBUSY`).
pub(crate) fn reset(bound: &Bound<'_>, argument: &Argument<'_>) -> Result<u32, Refusal> {
    let asked: HotReset = argument.read(offset_of!(HotReset, count) + size_of::<u32>())?;
    if asked.flags != 0 {
        return Err(Refusal::Flags { flags: asked.flags });
    }
    if (asked.count == 0) == bound.file.is_of_group() {
        return Err(Refusal::GroupsGiven { count: asked.count });
    }
    let affected = affected(bound)?;
    let owner = match bound.file.is_of_group() {
        true => Owner::Groups(shown_groups(bound, argument, asked.count, affected.len())?),
        false => Owner::Context(bound.file.bound()?),
    };
    owner.check(&affected)?;
    Affected::by_reset_of(&affected).unbind(ResetCause::Hot);
    let turns = affected
        .iter()
        .map(|device| device.take_turn_for_reset().map_err(|_| Refusal::BusResetContended))
        .collect::<Result<Vec<_>, Refusal>>()?;
    // Once more, as waiting for the turns may have taken long.
    owner.check(&affected)?;
    let held = Affected::by_reset_of(&affected);
    let admitted = held.admit(ResetCause::Hot)?;
    let mut saved = Vec::with_capacity(turns.len());
    for turn in &turns {
        let device = turn.device();
        device.set_power_state(turn, POWER_D0);
        turn.take_lent_back();
        saved.push(Saved::of(device.function(), device.facts()));
    }
    for turn in &turns {
        turn.device().function().reset(Reset::Bus);
    }
    for (turn, saved) in turns.iter().zip(&saved) {
        turn.device().put_back(turn, saved);
        turn.settle_lent();
    }
    drop(turns);
    admitted.done();
    Ok(0)
}

fn affected(bound: &Bound<'_>) -> Result<Vec<Arc<Device>>, Refusal> {
    let set = bound.device.set();
    if set.bus_reset() { Ok(set.devices()) } else { Err(Refusal::NoBusReset) }
}

/// By what a client shows that devices are its own.
enum Owner {
    /// A device of its context.
    Context(Arc<iommufd::Device>),
    /// Its open groups.
    Groups(Vec<Arc<Group>>),
}

impl Owner {
    /// # Errors
    /// [`Refusal::BusNotOwned`] (`EINVAL`).
    fn check(&self, devices: &[Arc<Device>]) -> Result<(), Refusal> {
        let is_owned = |device: &Arc<Device>| match self {
            Self::Context(iommufd) => {
                dependent(iommufd, device).devid != dependent_device::NOT_OWNED
            }
            Self::Groups(groups) => groups.iter().any(|group| Arc::ptr_eq(group, device.group())),
        };
        if devices.iter().all(is_owned) { Ok(()) } else { Err(Refusal::BusNotOwned) }
    }
}

/// The groups whose open files the client names.
///
/// # Errors
/// In this order:
/// - [`Refusal::GroupsGiven`] – more than devices (`EINVAL`).
/// - [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::ClosedFd`] (`EBADF`), [`Refusal::NotGroup`] (`EINVAL`).
fn shown_groups(
    bound: &Bound<'_>,
    argument: &Argument<'_>,
    count: u32,
    devices: usize,
) -> Result<Vec<Arc<Group>>, Refusal> {
    if count as usize > devices {
        return Err(Refusal::GroupsGiven { count });
    }
    bound.admit(Resource::Buffer)?;
    let mut bytes = vec![0; count as usize * size_of::<i32>()];
    argument.read_at(size_of::<HotReset>(), &mut bytes)?;
    let (words, _) = bytes.as_chunks();
    let group = |word: &[u8; 4]| {
        let fd = i32::from_le_bytes(*word);
        argument.caller.group(fd).map_err(|fault| Refusal::of_group(fd, fault))
    };
    words.iter().map(group).collect()
}

/// A device as a client sees it that has its devices through groups.
fn by_group(device: &Device) -> DependentDevice {
    let address = device.address();
    DependentDevice {
        devid: device.group().number(),
        segment: address.domain,
        bus: address.bus,
        devfn: address.devfn(),
    }
}

/// A device as the client's context sees it.
fn dependent(iommufd: &Arc<iommufd::Device>, device: &Device) -> DependentDevice {
    let devid = match iommufd.hot_reset_view(device.endpoint()) {
        HotResetView::Bound { id } => id,
        HotResetView::Owned => dependent_device::OWNED,
        HotResetView::NotOwned => dependent_device::NOT_OWNED,
    };
    let address = device.address();
    DependentDevice { devid, segment: address.domain, bus: address.bus, devfn: address.devfn() }
}
