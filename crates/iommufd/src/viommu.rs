//! The VIOMMU object: a guest's view of an IOMMU, and `IOMMU_VIOMMU_ALLOC`.
//!
//! It is made over a page table that others can be nested in, and holds the VM whose guest looks at it: the
//! one that the device it was made for is linked with. Of what a type can add, only the kernel's mock has something.
//!
//! Takes OBJECTS, a leaf, for the guest's numbers. Source: [uapi/iommufd.h]; the type of confidential guests
//! [tsm-rfc-v5], [tsm-rfc-v7].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sync::{Contents, Mutex, Named, rank};
use tsm::VmId;
use uapi::Profile;
use uapi::iommufd::{ViommuAlloc, viommu_type};

use crate::device::Device;
use crate::dispatch::Exchange;
use crate::hardware::UserData;
use crate::hw_queue::HwQueue;
use crate::hwpt::Hwpt;
use crate::object::{Kind, Object, Pending};
use crate::registry::{Headed, Header};
use crate::veventq::Veventq;
use crate::window::Window;
use crate::{Context, Iommu, Refusal, Tvm, Vm};

/// A guest's view of an IOMMU.
pub(crate) struct Viommu {
    header: Header,
    /// What it is over. The vIOMMU is a user of it until destroyed.
    hwpt: Arc<Hwpt>,
    iommu: Arc<Iommu>,
    viommu_type: u32,
    tvm: GuestVm,
    /// What the guest knows the devices behind it by. Each of their vdevices is a user of the vIOMMU.
    virt_ids: Mutex<rank::Objects, VirtIds>,
    /// Where it tells its guest things, by their types. Each is a user of it.
    queues: Mutex<rank::Objects, BTreeMap<u32, Arc<Veventq>>>,
    /// Hardware queues that its guest has, by their indices. Each is a user of it.
    hw_queues: Mutex<rank::Objects, BTreeMap<u32, Arc<HwQueue>>>,
    /// What a client can map of it.
    window: Option<Window>,
}

/// Devices by the numbers that a guest knows them by.
#[derive(Default)]
struct VirtIds(BTreeMap<u64, Arc<Device>>);

impl Contents for VirtIds {
    fn contents(&self, mut into: &mut dyn Hasher) {
        self.0.keys().collect::<Vec<_>>().hash(&mut into);
    }
}

/// Whose guest looks through a vIOMMU.
#[derive(Clone)]
pub(crate) enum GuestVm {
    /// The VM that the device's file was linked with.
    Linked(Arc<dyn Vm>),
    /// One that stands for the context: nothing is linked, and the platform does not insist. Its number, if
    /// the device has a TSM.
    Implicit(Option<VmId>),
    /// None at all.
    Absent,
}

/// Makes a vIOMMU over a page table: `IOMMU_VIOMMU_ALLOC`. The reserved field is not looked at.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`] (`EOPNOTSUPP`): any flag.
/// - [`Refusal::Unsupported`] (`EOPNOTSUPP`): type 0.
/// - [`Refusal::NoObject`] (`ENOENT`): the device.
/// - [`Refusal::Unsupported`] (`EOPNOTSUPP`): a type that this IOMMU does not have in this profile.
/// - [`Refusal::NoObject`] (`ENOENT`): the page table.
/// - [`Refusal::NoNestParent`] (`EINVAL`)
/// - [`Refusal::Incompatible`] (`EINVAL`): the page table is not for this device's IOMMU.
/// - [`Refusal::NeedsVm`] (`EINVAL`): the type is a confidential guest's and there is no VM.
/// - [`Refusal::OutOfIds`] (`ENOMEM`)
/// - [`Refusal::ViommuData`] (`EINVAL`): data for a type that has none; else the hardware's about the data.
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written; there is no vIOMMU then.
pub(crate) fn alloc(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: ViommuAlloc = exchange.argument();
    exchange.refuse_flags(argument.flags, 0)?;
    let unsupported = Err(Refusal::Unsupported { feature: "vIOMMUs of that type" });
    if argument.r#type == viommu_type::DEFAULT {
        return unsupported;
    }
    // The device itself is let go at once: its end must not wait for the client's memory.
    let (iommu, tvm) = {
        let device = ctx.get::<Device>(argument.dev_id)?;
        (Arc::clone(device.endpoint().iommu()), GuestVm::of(ctx, &device))
    };
    if !iommu.hardware().has_viommus(ctx.profile(), argument.r#type) {
        return unsupported;
    }
    let hwpt = ctx.get::<Hwpt>(argument.hwpt_id)?;
    if !hwpt.is_nest_parent() {
        return Err(Refusal::NoNestParent { hwpt: argument.hwpt_id });
    }
    hwpt.check_suits(&iommu)?;
    let viommu_type = argument.r#type;
    if viommu_type == viommu_type::ARM_REALM_SMMUV3 && matches!(tvm, GuestVm::Absent) {
        return Err(Refusal::NeedsVm { viommu_type });
    }
    let pending = Pending::build(ctx, |header| {
        let data = UserData::of_viommu(exchange, &argument);
        let open = |data| iommu.hardware().open_window(ctx, exchange.caller(), &data);
        let window = data.map(open).transpose()?.flatten();
        hwpt.header().add_user();
        let name = || format!("{}{}", Viommu::NAME, header.id());
        let virt_ids = Mutex::with_contents(VirtIds::default()).named("virt_ids", name);
        let (queues, hw_queues) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
        let hwpt = Arc::clone(&hwpt);
        Ok(Viommu { header, hwpt, iommu, viommu_type, tvm, virt_ids, queues, hw_queues, window })
    })?;
    argument.out_viommu_id = pending.header().id();
    exchange.respond(&argument)?;
    pending.publish();
    Ok(())
}

impl GuestVm {
    fn of(ctx: &Context, device: &Device) -> Self {
        match (device.vm(), ctx.tvm()) {
            (Some(vm), _) => Self::Linked(Arc::clone(vm)),
            (None, Tvm::Implicit) => {
                Self::Implicit(device.endpoint().tsm().map(|tsm| ctx.implicit_vm(tsm)))
            }
            (None, Tvm::Kvm) => Self::Absent,
        }
    }
}

impl Viommu {
    /// Whether a vdevice behind it is bound as it is made, as programs of `profile` know it. [tsm-rfc-v7]
    pub(crate) fn binds_vdevices(&self, profile: Profile) -> bool {
        self.viommu_type == viommu_type::ARM_REALM_SMMUV3
            && matches!(profile, Profile::Rfc | Profile::RfcV7_2026_10)
    }

    /// The VM to which TDIs of devices behind it are bound, by a TSM of `tsm`; `None` if it has none.
    pub(crate) fn vm_id(&self, ctx: &Context, tsm: &tsm::Registry) -> Option<VmId> {
        match &self.tvm {
            GuestVm::Linked(vm) => Some(vm.id()),
            GuestVm::Implicit(known) => Some(known.unwrap_or_else(|| ctx.implicit_vm(tsm))),
            GuestVm::Absent => None,
        }
    }

    /// # Errors
    /// [`Refusal::NoVm`] (`ENODEV`).
    pub(crate) const fn check_vm(&self) -> Result<(), Refusal> {
        match self.tvm {
            GuestVm::Linked(_) | GuestVm::Implicit(_) => Ok(()),
            GuestVm::Absent => Err(Refusal::NoVm { viommu: self.header.id() }),
        }
    }

    /// Whether a device behind `iommu` can be behind it.
    ///
    /// # Errors
    /// [`Refusal::OtherIommu`] (`EINVAL`).
    pub(crate) fn check_same_iommu(&self, iommu: &Arc<Iommu>) -> Result<(), Refusal> {
        if self.iommu.is(iommu) {
            Ok(())
        } else {
            Err(Refusal::OtherIommu { viommu: self.header.id() })
        }
    }

    /// Gives a device the number that the guest will know it by. Called under GROUP.
    ///
    /// # Errors
    /// [`Refusal::VirtIdTaken`] (`EEXIST`).
    pub(crate) fn take_virt_id(&self, virt_id: u64, device: &Arc<Device>) -> Result<(), Refusal> {
        match self.virt_ids.lock().0.entry(virt_id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(device));
                Ok(())
            }
            Entry::Occupied(_) => Err(Refusal::VirtIdTaken { viommu: self.header.id(), virt_id }),
        }
    }

    /// The device that the guest knows by a number.
    pub(crate) fn device(&self, virt_id: u64) -> Option<Arc<Device>> {
        self.virt_ids.lock().0.get(&virt_id).cloned()
    }

    /// The number that the guest knows a device by.
    pub(crate) fn virt_id(&self, device: &Device) -> Option<u64> {
        let virt_ids = self.virt_ids.lock();
        virt_ids
            .0
            .iter()
            .find(|(_, other)| std::ptr::eq(Arc::as_ptr(other), device))
            .map(|(id, _)| *id)
    }

    /// Has events of a type told by `queue`.
    ///
    /// # Errors
    /// [`Refusal::VeventqExists`] (`EEXIST`).
    pub(crate) fn take_queue(&self, r#type: u32, queue: &Arc<Veventq>) -> Result<(), Refusal> {
        match self.queues.lock().entry(r#type) {
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(queue));
                Ok(())
            }
            Entry::Occupied(_) => Err(Refusal::VeventqExists { viommu: self.header.id() }),
        }
    }

    /// Undoes [`take_queue`](Self::take_queue), if it succeeded for this queue.
    pub(crate) fn free_queue(&self, r#type: u32, queue: &Veventq) {
        let mut queues = self.queues.lock();
        let ours = queues.get(&r#type).is_some_and(|other| std::ptr::eq(&**other, queue));
        let freed = if ours { queues.remove(&r#type) } else { None };
        drop(queues);
        drop(freed);
    }

    /// Gives a hardware queue its place. Returns the queue that it depends on, with a user added.
    ///
    /// # Errors
    /// The hardware's about the index.
    pub(crate) fn place_hw_queue(
        &self,
        queue: &Arc<HwQueue>,
    ) -> Result<Option<Arc<HwQueue>>, Refusal> {
        let index = queue.index();
        let mut queues = self.hw_queues.lock();
        let hardware = self.iommu.hardware();
        // One that is going is there no more for others to depend on.
        let below = index.checked_sub(1).and_then(|below| queues.get(&below));
        let below = below.filter(|below| below.header().try_add_user()).cloned();
        let is_taken = |other| match index.checked_sub(1) {
            Some(lower) if other == lower => below.is_some(),
            _ => queues.contains_key(&other),
        };
        if let Err(refusal) = hardware.check_hw_queue(index, is_taken) {
            if let Some(below) = below {
                below.header().drop_user();
            }
            return Err(refusal);
        }
        queues.insert(index, Arc::clone(queue));
        Ok(below)
    }

    /// Undoes [`place_hw_queue`](Self::place_hw_queue), if it succeeded for this queue; the user aside.
    pub(crate) fn free_hw_queue(&self, queue: &HwQueue) {
        let mut queues = self.hw_queues.lock();
        let index = queue.index();
        let ours = queues.get(&index).is_some_and(|other| std::ptr::eq(&**other, queue));
        let freed = if ours { queues.remove(&index) } else { None };
        drop(queues);
        drop(freed);
    }

    /// Where events of a type are told.
    pub(crate) fn queue(&self, r#type: u32) -> Option<Arc<Veventq>> {
        self.queues.lock().get(&r#type).cloned()
    }

    /// What a client can map of it.
    pub(crate) const fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    /// What it is over.
    pub(crate) const fn hwpt(&self) -> &Arc<Hwpt> {
        &self.hwpt
    }

    /// Whose it is.
    pub(crate) const fn iommu(&self) -> &Arc<Iommu> {
        &self.iommu
    }

    /// Undoes [`take_virt_id`](Self::take_virt_id).
    pub(crate) fn free_virt_id(&self, virt_id: u64) {
        let device = self.virt_ids.lock().0.remove(&virt_id);
        drop(device);
    }
}

impl Headed for Viommu {
    fn header(&self) -> &Header {
        &self.header
    }
    fn facts(&self, mut into: &mut dyn Hasher) {
        into.write_u64(self.hwpt.header().identity());
        into.write_u32(self.viommu_type);
        let (kind, vm) = match &self.tvm {
            GuestVm::Linked(vm) => (0, Some(vm.id())),
            GuestVm::Implicit(vm) => (1, *vm),
            GuestVm::Absent => (2, None),
        };
        (kind, vm).hash(&mut into);
    }
}

impl Kind for Viommu {
    const NAME: &'static str = "viommu";

    fn wrap(this: Arc<Self>) -> Object {
        Object::Viommu(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::Viommu(viommu) = object { Some(Arc::clone(viommu)) } else { None }
    }

    /// Leaves the page table, and gives its window back.
    fn destroy(&self, ctx: &Context) {
        if let Some(window) = &self.window {
            ctx.windows().free(window);
        }
        self.hwpt.header().drop_user();
        self.header.end();
    }
}
