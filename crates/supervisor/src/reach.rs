//! What a release changes, and what a call is about: whether the one has to wait for the other.
//!
//! A release can take as long as a device that does not answer is waited for. It must not hold calls
//! that cannot tell whether it has ended. Takes no lock.

use std::sync::Arc;

use iommufd::Context;
use pci::Address;
use uapi::CommandId;

use crate::machine::Assignable;

/// What the release of a file changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach {
    /// The device whose file it is.
    device: Option<Place>,
    /// The context that the device is bound to, told apart by where it lives.
    context: Option<usize>,
    /// It may have to wait for a device.
    pub(crate) slow: bool,
}

/// A device among its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    number: usize,
    /// What resets together.
    bus: (u16, u8),
    group: u32,
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// Nothing that a release changes.
    Nothing,
    /// One device.
    Device(usize),
    /// A device, what resets with it, and its group.
    Neighbours(Place),
    /// The objects of one context.
    Context(usize),
    /// As [`Context`](Self::Context), by a command that itself may wait for a device: for one device's
    /// sake it need not wait until another has been taken apart, only until that has begun.
    Waiting(usize),
    /// Anything.
    All,
}

impl Place {
    /// Of a device of the machine.
    pub(crate) fn of(device: &Assignable) -> Self {
        let Address { domain, bus, .. } = device.address;
        Self { number: device.vfio_index, bus: (domain, bus), group: device.group_id }
    }
}

impl Reach {
    /// Of a device's file, bound to `context` or to none.
    pub(crate) fn of_device(place: Place, context: Option<&Arc<Context>>, slow: bool) -> Self {
        Self { device: Some(place), context: context.map(name), slow }
    }

    /// Of a file that is part of a context which others have open.
    pub(crate) fn of_context(context: &Arc<Context>, slow: bool) -> Self {
        Self { context: Some(name(context)), slow, ..Self::default() }
    }

    /// Of a file whose objects nobody can name any more.
    pub(crate) fn of_itself(slow: bool) -> Self {
        Self { slow, ..Self::default() }
    }

    /// Whether a call about `touch` could tell that the release has not ended.
    pub(crate) fn meets(&self, touch: Touch) -> bool {
        match touch {
            Touch::All => true,
            Touch::Nothing => false,
            Touch::Device(number) => self.device.is_some_and(|device| device.number == number),
            Touch::Neighbours(place) => self
                .device
                .is_some_and(|device| device.bus == place.bus || device.group == place.group),
            Touch::Context(context) | Touch::Waiting(context) => self.context == Some(context),
        }
    }
}

impl Touch {
    /// Whether the call itself may wait for a device.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Self::Waiting(_))
    }

    /// Of an `ioctl` on a context.
    pub(crate) fn of_context(context: &Arc<Context>, command: Option<CommandId>) -> Self {
        match command {
            Some(id) if WAIT_FOR_DEVICES.contains(&id) => Self::Waiting(name(context)),
            _ => Self::Context(name(context)),
        }
    }

    /// Of an `ioctl` on a device.
    pub(crate) fn of_device(place: Place, command: Option<CommandId>) -> Self {
        match command {
            Some(id) if LOOK_AROUND.contains(&id) => Self::Neighbours(place),
            _ => Self::Device(place.number),
        }
    }
}

/// Commands of contexts that ask a device and wait for it.
const WAIT_FOR_DEVICES: &[CommandId] = &[
    CommandId::VdeviceAlloc,
    CommandId::VdeviceTsmGuestRequest,
    CommandId::VdeviceTsmOp,
    CommandId::VdeviceTsmReq,
    CommandId::VdeviceTsmReqV5,
];

/// Commands of devices that depend on other devices.
const LOOK_AROUND: &[CommandId] = &[
    CommandId::DeviceBindIommufd,
    CommandId::DeviceAttachIommufdPt,
    CommandId::DeviceDetachIommufdPt,
    CommandId::DeviceGetPciHotResetInfo,
    CommandId::DevicePciHotReset,
];

/// Tells contexts apart while they live.
fn name(context: &Arc<Context>) -> usize {
    Arc::as_ptr(context).addr()
}
