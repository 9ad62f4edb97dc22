//! Mock devices: an object of the client's that holds a bound, attached device.
//!
//! `device` is OBJECTS, a leaf.

use std::sync::Arc;

use sync::{Mutex, rank};
use uapi::Errno;

use super::machine::{Unheard, device_flags};
use super::{MockMachine, TestCommand, failure};
use crate::device::Device;
use crate::dispatch::Exchange;
use crate::object::{Kind, Object, Pending};
use crate::registry::{Headed, Header};
use crate::{Context, Endpoint, PasidMode, Refusal};

/// What a client knows a mock device by, beside the device itself.
pub(crate) struct MockDevice {
    header: Header,
    /// Set before it can be found.
    device: Mutex<rank::Objects, Option<Arc<Device>>>,
    /// Whether the next page table for [`FAILING_PASID`] is refused.
    fails_next: Mutex<rank::Objects, bool>,
}

/// The PASID that the mock's hardware takes every other time only, so that a test sees what was before come back.
const FAILING_PASID: u32 = 1024;

/// Makes a mock device and attaches it to page table or IOAS `id`. Its ids follow one another: its own, that of the
/// device, and that of a page table where one had to be made.
///
/// # Errors
/// `EINVAL` for unknown flags; as [`Device::bind`] and [`Device::attach`]; [`Refusal::Unreachable`] (`EFAULT`). Nothing
/// is left then.
pub(super) fn make(
    ctx: &Arc<Context>,
    machine: &MockMachine,
    exchange: &Exchange<'_>,
    mut argument: TestCommand,
    flags: u32,
) -> Result<(), Refusal> {
    if flags & !device_flags::KNOWN != 0 {
        return Err(failure("unknown flags of a mock device", Errno::EINVAL));
    }
    let pending = Pending::build(ctx, |header| {
        let fails_next = Mutex::new(false);
        Ok(MockDevice { header, device: Mutex::new(None), fails_next })
    })?;
    let (address, group) = machine.place();
    let iommu = Arc::clone(machine.iommu(flags));
    let endpoint = Endpoint::new(address, group, iommu, Arc::new(Unheard));
    let device = Device::bind_without_file(ctx, &endpoint)?;
    *pending.device.lock() = Some(Arc::clone(&device));
    let table = device.attach(argument.id)?;
    let [stdev, hwpt, idev] = [pending.header.id(), table, device.id()];
    (argument.fields[0], argument.fields[1], argument.fields[2]) = (stdev, hwpt, idev);
    exchange.respond(&argument)?;
    pending.publish();
    Ok(())
}

/// Moves a mock device to another page table or IOAS.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`), then as [`Device::attach`].
pub(super) fn replace(
    ctx: &Arc<Context>,
    exchange: &Exchange<'_>,
    mut argument: TestCommand,
) -> Result<(), Refusal> {
    let mock = ctx.get::<MockDevice>(argument.id)?;
    let device = mock.device().ok_or(Refusal::NoObject { id: argument.id })?;
    argument.fields[0] = device.attach(argument.fields[0])?;
    exchange.respond(&argument)
}

/// Attaches a mock device by a PASID, or moves it.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`), then as [`Device::attach_pasid`]; `ENOMEM` for a PASID that fails.
pub(super) fn attach_pasid(
    ctx: &Arc<Context>,
    exchange: &Exchange<'_>,
    mut argument: TestCommand,
    mode: PasidMode,
) -> Result<(), Refusal> {
    let mock = ctx.get::<MockDevice>(argument.id)?;
    let device = mock.device().ok_or(Refusal::NoObject { id: argument.id })?;
    let [pasid, table, ..] = argument.fields;
    argument.fields[1] = device.attach_pasid_if(pasid, table, mode, || mock.enable(pasid))?;
    exchange.respond(&argument)
}

/// Takes a mock device off the page table of a PASID.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`).
pub(super) fn detach_pasid(ctx: &Context, argument: &TestCommand) -> Result<(), Refusal> {
    let mock = ctx.get::<MockDevice>(argument.id)?;
    let device = mock.device().ok_or(Refusal::NoObject { id: argument.id })?;
    let pasid = argument.fields[0];
    device.detach_pasid(pasid);
    if pasid == FAILING_PASID {
        *mock.fails_next.lock() = false;
    }
    Ok(())
}

/// Compares the page table of a PASID with one, or with none.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`), [`Refusal::OtherType`] (`EINVAL`): as they are looked up; `EINVAL` where it is another.
pub(super) fn check_pasid(ctx: &Context, argument: &TestCommand) -> Result<(), Refusal> {
    let mock = ctx.get::<MockDevice>(argument.id)?;
    let device = mock.device().ok_or(Refusal::NoObject { id: argument.id })?;
    let [pasid, id, ..] = argument.fields;
    let expected = match id {
        0 => None,
        id if matches!(*ctx.get_any(id)?, Object::Hwpt(_)) => Some(id),
        id => return Err(Refusal::OtherType { id }),
    };
    let found = device.endpoint().group().table_of_pasid(&device, pasid);
    if found.map(|table| table.header().id()) == expected {
        return Ok(());
    }
    Err(failure("the PASID goes through another page table", Errno::EINVAL))
}

/// Says whether an entry of a device's cache holds a value.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`), `EINVAL`.
pub(super) fn check_cache(ctx: &Context, argument: &TestCommand) -> Result<(), Refusal> {
    let device = ctx.get::<Device>(argument.id)?;
    let cache = device.mock_cache().ok_or(Refusal::OtherType { id: argument.id })?;
    let [entry, value, ..] = argument.fields;
    cache.check(entry, value)
}

impl MockDevice {
    fn device(&self) -> Option<Arc<Device>> {
        self.device.lock().clone()
    }

    /// What the hardware says to another page table for a PASID.
    fn enable(&self, pasid: u32) -> Result<(), Refusal> {
        if pasid != FAILING_PASID {
            return Ok(());
        }
        let mut fails_next = self.fails_next.lock();
        *fails_next = !*fails_next;
        if *fails_next { Ok(()) } else { Err(failure("this PASID fails", Errno::ENOMEM)) }
    }
}

impl Headed for MockDevice {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Kind for MockDevice {
    const NAME: &'static str = "mock";

    fn wrap(this: Arc<Self>) -> Object {
        Object::MockDevice(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::MockDevice(mock) = object { Some(Arc::clone(mock)) } else { None }
    }

    /// Detaches and unbinds the device.
    fn destroy(&self, _: &Context) {
        let device = self.device.lock().take();
        if let Some(device) = device {
            device.end();
        }
        self.header.end();
    }
}
