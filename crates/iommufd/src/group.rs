//! An iommu_group: devices that the platform cannot tell apart by their DMA, and so share one owner and one
//! page table.
//!
//! The group lock guards both, and which vdevice a device has ([`link`]). Attaching reserves the devices' spans in the address space under it
//! (GROUP, then IOPT_IOVA). Whoever replaces or removes a page table gets it back as [`Released`], to be
//! settled after the lock is given back and DMA in flight has ended.
//!
//! Source: [uapi/iommufd.h]; order of checks from v7.3 `device.c`.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use sync::{Contents, Mutex, Named, WaitQueue, rank};

use crate::hwpt::Hwpt;
use crate::ioas::Ioas;
use crate::object::Object;
use crate::registry::Headed;
use crate::reservations::Owner;
use crate::{Context, Device, Refusal};

mod link;
mod pasid;

pub(crate) use link::Ending;
pub use pasid::{PasidMode, PasidRefusal};

/// An iommu_group.
pub struct Group {
    number: u32,
    state: Mutex<rank::Group, State>,
    /// Woken whenever a device has lost its vdevice.
    vacated: WaitQueue,
}

#[derive(Default)]
struct State {
    owner: Option<Ownership>,
    attachment: Option<Attachment>,
    /// Those by PASID.
    pasids: BTreeMap<u32, Attachment>,
}

/// Who alone may let the group's devices do DMA.
struct Ownership {
    context: Weak<Context>,
    bound: Vec<Bound>,
}

struct Bound {
    device: Arc<Device>,
    /// From here on nothing new is made for it.
    ending: bool,
    /// Its vdevice, from reservation to end.
    vdevice: Option<link::Link>,
}

/// What the group's devices translate through.
struct Attachment {
    hwpt: Arc<Hwpt>,
    /// Each is a user of the page table, and the attachment one of the device.
    devices: Vec<Arc<Device>>,
}

/// A page table that devices were moved off.
#[must_use = "its users are dropped once DMA in flight has ended"]
pub(crate) struct Released {
    hwpt: Arc<Hwpt>,
    /// Users that the devices were.
    users: usize,
}

impl Group {
    /// The iommu_group with this number.
    pub fn new(number: u32) -> Arc<Self> {
        let name = || format!("group{number}");
        let state = Mutex::with_contents(State::default()).named("lock", name);
        Arc::new(Self { number, state, vacated: WaitQueue::new().named("vacated", name) })
    }

    /// The group's number: the name of its directory in sysfs.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Whether a context owns the group's DMA. Takes GROUP.
    pub fn is_claimed(&self) -> bool {
        self.state.lock().owner.is_some()
    }

    /// Whether `ctx` owns the group's DMA: one of its devices is bound there.
    pub(crate) fn is_owned_by(&self, ctx: &Arc<Context>) -> bool {
        self.state.lock().owner.as_ref().is_some_and(|owner| owner.is(ctx))
    }

    /// Calls `pick` on the devices of the group that are bound to `ctx` until it returns something.
    pub(crate) fn find_bound<R>(
        &self,
        ctx: &Arc<Context>,
        pick: impl FnMut(&Arc<Device>) -> Option<R>,
    ) -> Option<R> {
        let state = self.state.lock();
        let owner = state.owner.as_ref().filter(|owner| owner.is(ctx))?;
        owner.bound.iter().map(|bound| &bound.device).find_map(pick)
    }

    /// Makes `ctx` own the group's DMA, or stay its owner, for the sake of `device`.
    ///
    /// # Errors
    /// [`Refusal::OwnedElsewhere`] (`EPERM`).
    pub(crate) fn claim(&self, ctx: &Arc<Context>, device: &Arc<Device>) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        let owner = state
            .owner
            .get_or_insert_with(|| Ownership { context: Arc::downgrade(ctx), bound: Vec::new() });
        if !owner.is(ctx) {
            return Err(Refusal::OwnedElsewhere { group: self.number });
        }
        owner.bound.push(Bound { device: Arc::clone(device), ending: false, vdevice: None });
        Ok(())
    }

    /// Undoes [`claim`](Self::claim), if it succeeded for this device. The last one leaves the group
    /// without an owner.
    pub(crate) fn disclaim(&self, device: &Device) {
        let mut state = self.state.lock();
        if let Some(owner) = &mut state.owner {
            owner.bound.retain(|bound| !std::ptr::eq(&*bound.device, device));
            if owner.bound.is_empty() {
                state.owner = None;
            }
        }
    }

    /// Attaches `device` to `hwpt`, which the caller holds; if it is attached, moves it there together with
    /// all attached devices of the group. Calls `seal` under the lock once that has succeeded, before
    /// anybody else can undo it.
    ///
    /// # Errors
    /// All is as before then. In this order:
    /// - [`Refusal::NoObject`] (`ENOENT`): the device is ending.
    /// - [`Refusal::AttachedElsewhere`] (`EINVAL`): not attached, and another device of the group is attached
    ///   to another page table.
    /// - [`Refusal::ReservedMapped`] (`EADDRINUSE`): an area lies where a device's reserved spans are.
    /// - [`PasidRefusal::TableWithout`] (`EINVAL`): the group has PASIDs attached, and the page table is not for them.
    /// - [`Refusal::NotBehind`] (`ENOENT`): the page table is of a vIOMMU, and the device has no vdevice there.
    /// - [`Refusal::Incompatible`] (`EINVAL`)
    ///
    /// Takes GROUP, IOPT_IOVA.
    pub(crate) fn attach(
        &self,
        device: &Arc<Device>,
        hwpt: &Arc<Hwpt>,
        seal: impl FnOnce(),
    ) -> Result<Option<Released>, Refusal> {
        let mut state = self.state.lock();
        state.check_not_ending(device)?;
        let beside_pasids = state.check_beside_pasids(hwpt);
        let allowed = beside_pasids.and_then(|()| state.check_behind(device, hwpt));
        let released = match &mut state.attachment {
            Some(attachment) if attachment.has(device) => attachment.replace(hwpt, allowed)?,
            Some(attachment) => {
                attachment.check_same(hwpt, self.number)?;
                prepare(std::slice::from_ref(device), hwpt, Ok(()))?;
                attachment.join(device);
                None
            }
            None => {
                prepare(std::slice::from_ref(device), hwpt, allowed)?;
                let mut attachment = Attachment { hwpt: Arc::clone(hwpt), devices: Vec::new() };
                attachment.join(device);
                state.attachment = Some(attachment);
                None
            }
        };
        seal();
        Ok(released)
    }

    /// Says whether `device` could be attached to a new page table on `ioas`, as far as that is known before
    /// there is one. Nothing to say about a device that is attached.
    ///
    /// # Errors
    /// As [`attach`](Self::attach), the last excepted.
    pub(crate) fn check_attach(&self, device: &Arc<Device>, ioas: &Ioas) -> Result<(), Refusal> {
        let state = self.state.lock();
        state.check_not_ending(device)?;
        match &state.attachment {
            Some(attachment) if attachment.has(device) => Ok(()),
            Some(attachment) => Err(attachment.elsewhere(self.number)),
            None => {
                let regions = device.endpoint().iommu().geometry().device_regions();
                ioas.space.lock().check_reservable(regions)
            }
        }
    }

    /// Takes `device` off its page table, if it has one. It can do no new DMA when this returns.
    pub(crate) fn detach(&self, device: &Arc<Device>) -> Option<Released> {
        let mut state = self.state.lock();
        let attachment = state.attachment.as_mut().filter(|other| other.has(device))?;
        attachment.devices.retain(|other| !Arc::ptr_eq(other, device));
        device.translate_through(None);
        attachment.hwpt.forget_faults(device);
        unprepare(std::slice::from_ref(device), attachment.hwpt.ioas());
        device.header().drop_user();
        let hwpt = Arc::clone(&attachment.hwpt);
        if attachment.devices.is_empty() {
            state.attachment = None;
        }
        Some(Released { hwpt, users: 1 })
    }
}

impl Ownership {
    fn is(&self, ctx: &Arc<Context>) -> bool {
        std::ptr::eq(self.context.as_ptr(), Arc::as_ptr(ctx))
    }
}

impl State {
    fn bound(&self, device: &Device) -> Option<&Bound> {
        self.owner.as_ref()?.bound.iter().find(|bound| std::ptr::eq(&*bound.device, device))
    }

    fn bound_mut(&mut self, device: &Device) -> Option<&mut Bound> {
        let bound = &mut self.owner.as_mut()?.bound;
        bound.iter_mut().find(|bound| std::ptr::eq(&*bound.device, device))
    }

    fn check_not_ending(&self, device: &Arc<Device>) -> Result<(), Refusal> {
        let bound = self.owner.iter().flat_map(|owner| &owner.bound);
        let mut live = bound.filter(|bound| !bound.ending).map(|bound| &bound.device);
        if live.any(|other| Arc::ptr_eq(other, device)) {
            Ok(())
        } else {
            Err(Refusal::NoObject { id: device.id() })
        }
    }
}

impl Contents for State {
    fn contents(&self, mut into: &mut dyn Hasher) {
        for bound in self.owner.iter().flat_map(|owner| &owner.bound) {
            bound.device.contents(into);
            let link = bound.vdevice.as_ref().map(link::Link::identity);
            (bound.ending, link).hash(&mut into);
        }
        into.write_u8(self.owner.is_some().into());
        if let Some(attachment) = &self.attachment {
            attachment.hwpt.contents(into);
            attachment.devices.contents(into);
        }
        for (pasid, attachment) in &self.pasids {
            pasid.hash(&mut into);
            attachment.hwpt.contents(into);
            attachment.devices.contents(into);
        }
    }
}

impl Attachment {
    fn has(&self, device: &Arc<Device>) -> bool {
        self.devices.iter().any(|other| Arc::ptr_eq(other, device))
    }

    fn check_same(&self, hwpt: &Arc<Hwpt>, group: u32) -> Result<(), Refusal> {
        if Arc::ptr_eq(&self.hwpt, hwpt) { Ok(()) } else { Err(self.elsewhere(group)) }
    }

    fn elsewhere(&self, group: u32) -> Refusal {
        Refusal::AttachedElsewhere { group, hwpt: self.hwpt.header().id() }
    }

    fn join(&mut self, device: &Arc<Device>) {
        self.hwpt.header().add_user();
        device.header().add_user();
        device.translate_through(Some(Arc::clone(&self.hwpt)));
        self.devices.push(Arc::clone(device));
    }

    /// Moves all devices to `hwpt`.
    fn replace(
        &mut self,
        hwpt: &Arc<Hwpt>,
        allowed: Result<(), Refusal>,
    ) -> Result<Option<Released>, Refusal> {
        if Arc::ptr_eq(&self.hwpt, hwpt) {
            return Ok(None);
        }
        if Arc::ptr_eq(self.hwpt.ioas(), hwpt.ioas()) {
            allowed?;
            check_suits(&self.devices, hwpt)?;
        } else {
            prepare(&self.devices, hwpt, allowed)?;
            unprepare(&self.devices, self.hwpt.ioas());
        }
        for device in &self.devices {
            hwpt.header().add_user();
            device.translate_through(Some(Arc::clone(hwpt)));
            self.hwpt.forget_faults(device);
        }
        let old = std::mem::replace(&mut self.hwpt, Arc::clone(hwpt));
        Ok(Some(Released { hwpt: old, users: self.devices.len() }))
    }
}

/// Reserves in the IOAS of `hwpt` what `devices` need there, passes on what was `allowed`, and checks that they can walk
/// it. Undone by [`unprepare`]; on refusal nothing is left to undo.
fn prepare(
    devices: &[Arc<Device>],
    hwpt: &Hwpt,
    allowed: Result<(), Refusal>,
) -> Result<(), Refusal> {
    for (done, device) in devices.iter().enumerate() {
        let regions = device.endpoint().iommu().geometry().device_regions();
        let reserved = hwpt.ioas().space.lock().reserve(Owner::Device(device.id()), regions);
        if let Err(refusal) = reserved {
            unprepare(&devices[..done], hwpt.ioas());
            return Err(refusal);
        }
    }
    let suits = allowed.and_then(|()| check_suits(devices, hwpt));
    suits.inspect_err(|_| unprepare(devices, hwpt.ioas()))
}

fn check_suits(devices: &[Arc<Device>], hwpt: &Hwpt) -> Result<(), Refusal> {
    devices.iter().try_for_each(|device| hwpt.check_suits(device.endpoint().iommu()))
}

fn unprepare(devices: &[Arc<Device>], ioas: &Ioas) {
    for device in devices {
        ioas.space.lock().release(Owner::Device(device.id()));
    }
}

impl Released {
    /// Waits until DMA that began before has ended and drops the devices' users. An automatic page table
    /// without users is destroyed. Called with no lock held.
    pub(crate) fn settle(self, ctx: &Context) {
        ctx.outwait_dma();
        for _ in 1..self.users {
            self.hwpt.header().drop_user();
        }
        if !self.hwpt.is_automatic() {
            return self.hwpt.header().drop_user();
        }
        if let Some(object) = ctx.registry().drop_user_and_take(&Object::Hwpt(self.hwpt)) {
            object.destroy(ctx);
        }
    }
}
