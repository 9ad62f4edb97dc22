//! The DEVICE object: a PCI function bound to a context.
//!
//! The binder (VFIO) holds one user of it from [`Device::bind`] to [`Device::end`], so a client can never
//! destroy it. It holds a file reference of the context, so the context outlives it.
//!
//! Its end has two steps, because VFIO stops the function in between: `begin_end` ends what was made for the
//! device and lets nothing new be made, `end` takes it off its page table and gives its group back.
//!
//! Locks: `table` is PAGES, a leaf; `gate` is OBJECTS, see [`crate::tdi`]. Source: [uapi/iommufd.h], [uapi/vfio.h].

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sync::{Contents, Mutex, Named, rank};

use crate::hwpt::Hwpt;
use crate::in_flight::Visitors;
use crate::object::{Kind, Object, Pending};
use crate::registry::{Afterwards, Headed, Header};
use crate::tdi::Gate;
use crate::{Context, Endpoint, Refusal, Resource, Vm, mock};

/// A function bound to a context, and the way of its DMA (`impl pci::Dma`).
pub struct Device {
    header: Header,
    ctx: Arc<Context>,
    endpoint: Arc<Endpoint>,
    /// What its DMA translates through: the IOMMU's entry for it. Written under GROUP.
    table: Mutex<rank::Pages, Option<Arc<Hwpt>>>,
    /// What its DMA is announced with.
    visitors: Visitors,
    /// The VM that its file is linked with: whom vIOMMUs that are made for it serve.
    vm: Option<Arc<dyn Vm>>,
    gate: Gate,
    /// What the kernel's mock of a device keeps of translations.
    mock_cache: Option<mock::Cache>,
    /// Whether it keeps its context open.
    holds_file: bool,
}

/// Whether another function can be reset together with a bound one, as seen by the one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HotResetView {
    /// It is bound to the same context, as the object with this id.
    Bound {
        /// The DEVICE object.
        id: u32,
    },
    /// It is not bound there, but its iommu_group is owned by the same context.
    Owned,
    /// Neither.
    NotOwned,
}

impl Device {
    /// Asks the context's quota for what a command on the device's file uses up.
    ///
    /// # Errors
    /// [`Refusal::Exhausted`] (`ENOMEM`).
    pub fn admit(&self, resource: Resource) -> Result<(), Refusal> {
        Ok(self.context().quota().admit(resource, 1)?)
    }

    /// Binds a function to a context, of which the caller holds a file reference for the length of the call.
    /// Another function of the same iommu_group may be bound there already.
    ///
    /// # Errors
    /// In this order:
    /// - [`Refusal::CacheIncoherent`] (`EINVAL`)
    /// - [`Refusal::MsiNotIsolated`] (`EPERM`)
    /// - [`Refusal::OutOfIds`] (`ENOMEM`)
    /// - [`Refusal::OwnedElsewhere`] (`EPERM`): another context has a device of the group.
    ///
    /// Takes GROUP, OBJECTS. [uapi/vfio.h]
    pub fn bind(ctx: &Arc<Context>, endpoint: &Arc<Endpoint>) -> Result<Arc<Self>, Refusal> {
        Self::bind_for(ctx, endpoint, None)
    }

    /// As [`bind`](Self::bind), for a device file that is linked with a VM. A vIOMMU made for the device
    /// keeps the VM as long as it lives.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_for(
        ctx: &Arc<Context>,
        endpoint: &Arc<Endpoint>,
        vm: Option<Arc<dyn Vm>>,
    ) -> Result<Arc<Self>, Refusal> {
        Self::bind_holding(ctx, endpoint, vm, true)
    }

    /// As [`bind`](Self::bind), for a binder that is an object of the context itself and ends with it.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub(crate) fn bind_without_file(
        ctx: &Arc<Context>,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Arc<Self>, Refusal> {
        Self::bind_holding(ctx, endpoint, None, false)
    }

    fn bind_holding(
        ctx: &Arc<Context>,
        endpoint: &Arc<Endpoint>,
        vm: Option<Arc<dyn Vm>>,
        holds_file: bool,
    ) -> Result<Arc<Self>, Refusal> {
        let geometry = endpoint.iommu().geometry();
        if !geometry.cache_coherent {
            return Err(Refusal::CacheIncoherent);
        }
        if !geometry.msi_isolated {
            return Err(Refusal::MsiNotIsolated);
        }
        let pending = Pending::build(ctx, |header| {
            let name = || format!("{}{}", Self::NAME, header.id());
            Ok(Self {
                table: Mutex::with_contents(None).named("table", name),
                gate: Gate::new(header.id()),
                header,
                ctx: Arc::clone(ctx),
                endpoint: Arc::clone(endpoint),
                visitors: Visitors::default(),
                vm,
                mock_cache: endpoint.iommu().is_mock().then(mock::Cache::of_device),
                holds_file,
            })
        })?;
        endpoint.group().claim(ctx, &pending)?;
        let open = !holds_file || ctx.get_file();
        assert!(open, "whoever binds to a context holds a file reference of it");
        pending.header.add_user();
        Ok(pending.publish())
    }

    /// The id that the client knows it by.
    pub const fn id(&self) -> u32 {
        self.header.id()
    }

    /// The function.
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The id of the page table that its DMA goes through; `None` where it is attached to none. Whoever
    /// attaches another device of its group may move it. Takes PAGES.
    pub fn page_table_id(&self) -> Option<u32> {
        self.table.lock().as_ref().map(|table| table.header().id())
    }

    /// What it is bound to.
    pub const fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Begins the end: from here on nothing new is made for the device. A TSM command that is running about
    /// it is given up, and when this returns its vdevice has ended and its TDI is not bound. The vdevice's id
    /// is not given out again. The device stays attached, so that DMA that is running can end. Cannot fail,
    /// and is bounded whatever the device does; doing it again changes nothing.
    ///
    /// Takes GROUP, OBJECTS; holds none while it waits for a command or for the device.
    pub fn begin_end(&self) {
        self.end_vdevice();
    }

    /// Ends the device: detaches it, removes the object once no command holds it, releases the group and
    /// puts the file reference, which may close the context. Called once. Cannot fail.
    ///
    /// Takes IOAS, GROUP, IOPT_IOVA, OBJECTS; holds none while it waits for DMA or for a command to let go.
    pub fn end(self: &Arc<Self>) {
        self.begin_end();
        self.detach_pasids();
        self.detach();
        let object = Object::Device(Arc::clone(self));
        self.ctx.registry().remove(&object, Afterwards::Free);
        object.destroy(&self.ctx);
        if self.holds_file {
            self.ctx.put_file();
        }
    }

    /// How `other` looks to the client of this device, which wants to reset both.
    ///
    /// Takes the GROUP lock of `other`. [uapi/vfio.h]
    pub fn hot_reset_view(&self, other: &Endpoint) -> HotResetView {
        let at = other.address();
        let id = other.group().find_bound(&self.ctx, |device| {
            (device.endpoint.address() == at).then_some(device.header.id())
        });
        match id {
            Some(id) => HotResetView::Bound { id },
            None if other.group().is_owned_by(&self.ctx) => HotResetView::Owned,
            None => HotResetView::NotOwned,
        }
    }

    /// The VM that its file is linked with.
    pub(crate) const fn vm(&self) -> Option<&Arc<dyn Vm>> {
        self.vm.as_ref()
    }

    /// What it keeps of translations, if it is the kernel's mock of a device.
    pub(crate) const fn mock_cache(&self) -> Option<&mock::Cache> {
        self.mock_cache.as_ref()
    }

    /// Where TSM commands about it pass.
    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What DMA goes through from now on. Called under GROUP; DMA in flight may still use the former.
    pub(crate) fn translate_through(&self, table: Option<Arc<Hwpt>>) {
        *self.table.lock() = table;
    }

    /// What its DMA is announced with.
    pub(crate) const fn visitors(&self) -> &Visitors {
        &self.visitors
    }

    /// What DMA goes through. Used inside the context's DMA epoch only.
    pub(crate) fn table(&self) -> Option<Arc<Hwpt>> {
        self.table.lock().clone()
    }
}

impl Headed for Device {
    fn header(&self) -> &Header {
        &self.header
    }
    fn facts(&self, mut into: &mut dyn Hasher) {
        (self.endpoint.address(), self.vm.as_ref().map(|vm| vm.id())).hash(&mut into);
    }
}

impl Contents for Device {
    /// Which device it is.
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_u64(self.header.identity());
        self.facts(into);
    }
}

impl Kind for Device {
    const NAME: &'static str = "device";

    fn wrap(this: Arc<Self>) -> Object {
        Object::Device(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::Device(device) = object { Some(Arc::clone(device)) } else { None }
    }

    /// Releases the group.
    fn destroy(&self, _: &Context) {
        self.endpoint.group().disclaim(self);
        self.header.end();
    }
}
