//! The VDEVICE object: a device as the guest behind a vIOMMU knows it, and `IOMMU_VDEVICE_ALLOC`.
//!
//! A device has at most one, and only while it is not ending. The vdevice holds its device, as a command
//! would, for its whole life: a device that ends waits until its vdevice is gone. Whoever ends a vdevice goes
//! through the same steps:
//!
//! 1. it leaves the object table, so that no command finds it;
//! 2. commands that hold it are cancelled, and waited for;
//! 3. its TDI is unbound, with no lock held;
//! 4. under GROUP its device forgets it, and its vIOMMU the guest's number;
//! 5. it lets go of the vIOMMU and of the device.
//!
//! `IOMMU_DESTROY` does the first only if no command holds the vdevice, and so skips the second. The end of
//! a device leaves the vdevice's id as a tombstone: a client that destroys it afterwards hits nothing else.
//!
//! Locks: GROUP for the link, see [`crate::group`]. Source: [uapi/iommufd.h].

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tsm::VmId;
use uapi::iommufd::VdeviceAlloc;

use crate::device::Device;
use crate::dispatch::Exchange;
use crate::group::Ending;
use crate::object::{Kind, Object};
use crate::registry::{Afterwards, Headed, Header, Held, ReservedId, release_kept};
use crate::tdi::Origin;
use crate::viommu::Viommu;
use crate::{Context, Group, Refusal};

/// A device behind a vIOMMU.
pub(crate) struct Vdevice {
    header: Header,
    /// Held until the vdevice is destroyed.
    device: Arc<Device>,
    /// The vdevice is a user of it until destroyed.
    viommu: Arc<Viommu>,
    virt_id: u64,
    /// To which its TDI is bound; `None` where it cannot be.
    vm: Option<VmId>,
}

/// Puts a device behind a vIOMMU: `IOMMU_VDEVICE_ALLOC`.
///
/// Behind a vIOMMU of a confidential guest, in profiles that have it so, its TDI is bound first: the link is
/// made under GROUP, the bind waits for the device with no lock held, and GROUP is taken again to publish
/// the vdevice or to undo it. The end of the device cancels the bind.
///
/// The vdevice is published before its id is written to the client, so that no end of a device waits for
/// the client's memory. If the id cannot be written it is ended again.
///
/// # Errors
/// There is no vdevice then. In this order:
/// - [`Refusal::NoObject`] (`ENOENT`): the vIOMMU, then the device.
/// - [`Refusal::OtherIommu`] (`EINVAL`)
/// - [`Refusal::OutOfIds`] (`ENOMEM`)
/// - [`Refusal::NoObject`] (`ENOENT`): the device is ending.
/// - [`Refusal::VdeviceExists`], [`Refusal::VirtIdTaken`] (`EEXIST`)
/// - where the vdevice is bound as it is made: [`Refusal::NoTsm`] (`EOPNOTSUPP`), [`Refusal::Resetting`]
///   (`EBUSY`), [`Refusal::Tsm`] as [`tsm::Registry::bind`]; then [`Refusal::NoObject`] (`ENOENT`): the
///   device began to end meanwhile.
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written.
pub(crate) fn alloc(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: VdeviceAlloc = exchange.argument();
    let vdevice = {
        let viommu = ctx.get::<Viommu>(argument.viommu_id)?;
        let device = ctx.get::<Device>(argument.dev_id)?;
        viommu.check_same_iommu(device.endpoint().iommu())?;
        let reserved = Reserved::new(ctx, &viommu, device, argument.virt_id)?;
        if viommu.binds_vdevices(ctx.profile()) {
            reserved.vdevice.bind(Origin::Iommufd)?;
        }
        reserved.publish()?
    };
    argument.out_vdevice_id = vdevice.header.id();
    exchange.respond(&argument).inspect_err(|_| vdevice.take_back(ctx))
}

/// A vdevice that its device has and that no command can find. Dropping it ends it.
struct Reserved<'c> {
    id: Option<ReservedId<'c, Object>>,
    vdevice: Arc<Vdevice>,
}

impl<'c> Reserved<'c> {
    /// # Errors
    /// As [`alloc`], from [`Refusal::OutOfIds`] to [`Refusal::VirtIdTaken`].
    fn new(
        ctx: &'c Context,
        viommu: &Arc<Viommu>,
        device: Held<Arc<Device>>,
        virt_id: u64,
    ) -> Result<Self, Refusal> {
        let id = ctx.registry().reserve()?;
        let vdevice = Arc::new(Vdevice {
            header: Header::new(Vdevice::NAME, id.id()),
            device: Arc::clone(&device),
            viommu: Arc::clone(viommu),
            virt_id,
            vm: device.endpoint().tsm().and_then(|tsm| viommu.vm_id(ctx, tsm)),
        });
        device.endpoint().group().reserve_vdevice(&vdevice)?;
        device.keep();
        viommu.header().add_user();
        Ok(Self { id: Some(id), vdevice })
    }

    /// # Errors
    /// [`Refusal::NoObject`] (`ENOENT`): the device is ending.
    fn publish(mut self) -> Result<Arc<Vdevice>, Refusal> {
        if let Some(id) = self.id.take() {
            let published = self.vdevice.group().publish_vdevice(&self.vdevice, id);
            published.inspect_err(|_| self.vdevice.finish())?;
        }
        Ok(Arc::clone(&self.vdevice))
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.vdevice.finish();
        }
    }
}

impl Device {
    /// Ends the vdevice of a device that is ending, and leaves its id as a tombstone; if another thread ends
    /// it or makes it, waits until it is gone.
    pub(crate) fn end_vdevice(&self) {
        let group = self.endpoint().group();
        match group.begin_end(self) {
            Ending::Done => {}
            Ending::Ours(vdevice) => vdevice.end(self.context(), Afterwards::Tombstone),
            Ending::Others => {
                self.cancel();
                group.wait_without_vdevice(self);
            }
        }
    }
}

impl Vdevice {
    /// The device that it stands for.
    pub(crate) const fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// What it is behind.
    pub(crate) const fn viommu(&self) -> &Arc<Viommu> {
        &self.viommu
    }

    /// What the guest knows it by.
    pub(crate) const fn virt_id(&self) -> u64 {
        self.virt_id
    }

    /// To which VM its TDI is bound.
    pub(crate) const fn vm(&self) -> Option<VmId> {
        self.vm
    }

    fn group(&self) -> &Group {
        self.device.endpoint().group()
    }

    /// Ends it because the client was never told of it, unless somebody was quicker.
    fn take_back(self: &Arc<Self>, ctx: &Context) {
        if self.group().begin_end_vdevice(self) {
            self.end(ctx, Afterwards::Free);
        }
    }

    /// Ends it: all steps. The caller has a user of it, which goes.
    fn end(self: &Arc<Self>, ctx: &Context, afterwards: Afterwards) {
        self.device.cancel();
        ctx.registry().remove(&Object::Vdevice(Arc::clone(self)), afterwards);
        self.finish();
    }

    /// The steps from the third on. Called once, with no lock held, when no command can find it.
    fn finish(&self) {
        self.device.unbind();
        self.group().unlink_vdevice(self);
        self.viommu.header().drop_user();
        release_kept(&self.device);
        self.header.end();
    }
}

impl Headed for Vdevice {
    fn header(&self) -> &Header {
        &self.header
    }

    fn facts(&self, mut into: &mut dyn Hasher) {
        into.write_u64(self.device.header().identity());
        into.write_u64(self.viommu.header().identity());
        (self.virt_id, self.vm).hash(&mut into);
    }
}

impl Kind for Vdevice {
    const NAME: &'static str = "vdevice";

    fn wrap(this: Arc<Self>) -> Object {
        Object::Vdevice(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::Vdevice(vdevice) = object { Some(Arc::clone(vdevice)) } else { None }
    }

    fn destroy(&self, _: &Context) {
        self.finish();
    }
}
