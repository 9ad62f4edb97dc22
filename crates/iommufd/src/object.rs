//! The types of object that a context holds, and what each does when it ends.
//!
//! Takes no lock itself; see each type's `destroy`. Which object holds which as a *user* is told in the
//! doc of the field that does.

use std::hash::Hasher;
use std::ops::Deref;
use std::sync::Arc;

use crate::access::Access;
use crate::device::Device;
use crate::fault_queue::FaultQueue;
use crate::hw_queue::HwQueue;
use crate::hwpt::Hwpt;
use crate::ioas::Ioas;
use crate::mock::MockDevice;
use crate::registry::{Headed, Header, Held, ReservedId};
use crate::vdevice::Vdevice;
use crate::veventq::Veventq;
use crate::viommu::Viommu;
use crate::{Context, Refusal};

/// Any object.
#[derive(Clone)]
pub(crate) enum Object {
    Access(Arc<Access>),
    Device(Arc<Device>),
    Fault(Arc<FaultQueue>),
    HwQueue(Arc<HwQueue>),
    Hwpt(Arc<Hwpt>),
    Ioas(Arc<Ioas>),
    MockDevice(Arc<MockDevice>),
    Vdevice(Arc<Vdevice>),
    Veventq(Arc<Veventq>),
    Viommu(Arc<Viommu>),
}

impl Headed for Object {
    fn header(&self) -> &Header {
        match self {
            Self::Access(access) => access.header(),
            Self::Device(device) => device.header(),
            Self::Fault(faults) => faults.header(),
            Self::HwQueue(queue) => queue.header(),
            Self::Hwpt(hwpt) => hwpt.header(),
            Self::Ioas(ioas) => ioas.header(),
            Self::MockDevice(mock) => mock.header(),
            Self::Vdevice(vdevice) => vdevice.header(),
            Self::Veventq(vevents) => vevents.header(),
            Self::Viommu(viommu) => viommu.header(),
        }
    }

    fn facts(&self, into: &mut dyn Hasher) {
        match self {
            Self::Access(access) => access.facts(into),
            Self::Device(device) => device.facts(into),
            Self::Fault(faults) => faults.facts(into),
            Self::HwQueue(queue) => queue.facts(into),
            Self::Hwpt(hwpt) => hwpt.facts(into),
            Self::Ioas(ioas) => ioas.facts(into),
            Self::MockDevice(mock) => mock.facts(into),
            Self::Vdevice(vdevice) => vdevice.facts(into),
            Self::Veventq(vevents) => vevents.facts(into),
            Self::Viommu(viommu) => viommu.facts(into),
        }
    }
}

impl Object {
    /// Ends an object that was taken out of the table. Called with no lock held.
    pub(crate) fn destroy(&self, ctx: &Context) {
        match self {
            Self::Access(access) => access.destroy(ctx),
            Self::Device(device) => device.destroy(ctx),
            Self::Fault(faults) => faults.destroy(ctx),
            Self::HwQueue(queue) => queue.destroy(ctx),
            Self::Hwpt(hwpt) => hwpt.destroy(ctx),
            Self::Ioas(ioas) => ioas.destroy(ctx),
            Self::MockDevice(mock) => mock.destroy(ctx),
            Self::Vdevice(vdevice) => vdevice.destroy(ctx),
            Self::Veventq(vevents) => vevents.destroy(ctx),
            Self::Viommu(viommu) => viommu.destroy(ctx),
        }
    }
}

/// A type of object.
pub(crate) trait Kind: Headed + Sized {
    /// What an object of this type is called, before its id.
    const NAME: &'static str;

    /// The object as one of all.
    fn wrap(this: Arc<Self>) -> Object;

    /// `object` if it is of this type.
    fn pick(object: &Object) -> Option<Arc<Self>>;

    /// Undoes what building did and lets go of what the object holds. Called once, with no lock held, when
    /// nobody can find the object any more.
    fn destroy(&self, ctx: &Context);
}

impl Context {
    /// Holds object `id` of one type.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] (`ENOENT`), for another type too.
    pub(crate) fn get<T: Kind>(&self, id: u32) -> Result<Held<Arc<T>>, Refusal> {
        self.registry().get(id, T::pick)
    }

    /// Says whether there is an object `id` of one type, without holding it.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] (`ENOENT`), for another type too.
    pub(crate) fn check<T: Kind>(&self, id: u32) -> Result<(), Refusal> {
        self.registry().check(id, |object| T::pick(object).is_some())
    }

    /// Holds object `id` of any type.
    ///
    /// # Errors
    /// [`Refusal::NoObject`] (`ENOENT`).
    pub(crate) fn get_any(&self, id: u32) -> Result<Held<Object>, Refusal> {
        self.registry().get(id, |object| Some(object.clone()))
    }
}

/// An object that is built but that nobody can see. Dropping it destroys it and gives its id back.
#[must_use = "an unpublished object is destroyed when dropped"]
pub(crate) struct Pending<'c, T: Kind> {
    ctx: &'c Context,
    id: Option<ReservedId<'c, Object>>,
    object: Arc<T>,
}

impl<'c, T: Kind> Pending<'c, T> {
    /// Reserves an id and builds the object that will have it. Where building fails the id is free again.
    pub(crate) fn build(
        ctx: &'c Context,
        build: impl FnOnce(Header) -> Result<T, Refusal>,
    ) -> Result<Self, Refusal> {
        let id = ctx.registry().reserve()?;
        let object = Arc::new(build(Header::new(T::NAME, id.id()))?);
        Ok(Self { ctx, id: Some(id), object })
    }

    /// Makes the object visible. The last step, and one that cannot fail.
    pub(crate) fn publish(mut self) -> Arc<T> {
        if let Some(id) = self.id.take() {
            id.publish(T::wrap(Arc::clone(&self.object)));
        }
        Arc::clone(&self.object)
    }
}

impl<T: Kind> Deref for Pending<'_, T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.object
    }
}

impl<T: Kind> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.object.destroy(self.ctx);
        }
    }
}
