//! The HWPT object: a page table on an address space or nested in another, and `IOMMU_HWPT_ALLOC`.
//!
//! All page tables of an IOAS translate through the IOAS's one map; what a page table has of its own is what
//! its hardware promised (aperture, page sizes, dirty tracking) and who is attached. One made for an
//! attachment (*automatic*) goes with its last attachment.
//!
//! Takes the IOAS lock to enter and leave the IOAS's list. Source: [uapi/iommufd.h]; order of checks from v7.3
//! `hw_pagetable.c`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use pci::DmaAccess;
use span::Span;
use sync::Contents;
use uapi::iommufd::{HwptAlloc, hwpt_flags};

use crate::address_space::{Mirror, Shape};
use crate::dispatch::Exchange;
use crate::fault_queue::FaultQueue;
use crate::hardware::{Reached, Stopped, ThroughParent, UserData};
use crate::in_flight::Stay;
use crate::ioas::Ioas;
use crate::nested::{Nested, Over};
use crate::object::{Kind, Object, Pending};
use crate::registry::{Headed, Header};
use crate::written_pages::WrittenPages;
use crate::{Context, Device, Geometry, Iommu, PAGE_SIZE, Refusal, Resource, nested};

/// A page table.
pub(crate) struct Hwpt {
    header: Header,
    /// What it shows, or its parent does. The page table is a user of it until destroyed, unless it is nested.
    ioas: Arc<Ioas>,
    /// Its name there, unless it is nested.
    mirror: Option<Mirror>,
    /// What it has if it is nested.
    nested: Option<Nested>,
    /// Where faults on it go. The page table is a user of it until destroyed.
    faults: Option<Arc<FaultQueue>>,
    iommu: Arc<Iommu>,
    /// What it can hold, which may differ from what its IOMMU can.
    geometry: Geometry,
    /// What notes the pages written through it, if it was made for that.
    written: Option<Arc<WrittenPages>>,
    automatic: bool,
    /// Whether it may be what a guest's own page tables are nested in.
    nest_parent: bool,
    /// Whether it may be used with PASIDs, or beside them.
    takes_pasids: bool,
}

/// What a page table is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A client asked for it, with these flags.
    Command { flags: u32 },
    /// A device was attached to an IOAS.
    Attachment,
}

/// Makes a page table for a device: `IOMMU_HWPT_ALLOC`. With it all areas of the IOAS are pinned.
///
/// # Errors
/// In this order:
/// - [`Refusal::ReservedField`] (`EOPNOTSUPP`): the first reserved field; the second is not looked at.
/// - [`Refusal::DataShape`] (`EINVAL`)
/// - [`Refusal::NoObject`] (`ENOENT`): the device.
/// - [`Refusal::ParentMissing`] (`EINVAL`): what to build on.
/// - on an IOAS: [`Refusal::UnknownFlags`], [`Refusal::Unsupported`] (`EOPNOTSUPP`), then as
///   [`Ioas::add_table`] (`EINVAL`, `EADDRINUSE`, `EFAULT`, `ENOMEM`).
/// - on a page table or a vIOMMU as [`nested::build`] (`EOPNOTSUPP`, `EINVAL`, `ENOMEM`); on anything else, a nested page
///   table too, [`Refusal::OtherType`] (`EINVAL`).
/// - [`Refusal::NoObject`] (`ENOENT`): the fault queue, where one is asked for.
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written; there is no page table then.
pub(crate) fn alloc(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: HwptAlloc = exchange.argument();
    exchange.refuse_reserved(argument.reserved)?;
    let HwptAlloc { flags, dev_id, pt_id, data_type, data_len, .. } = argument;
    if (data_type == 0) != (data_len == 0) {
        return Err(Refusal::DataShape { data_type, data_len });
    }
    // The device itself is let go at once: its end must not wait for the client's memory.
    let iommu = Arc::clone(ctx.get::<Device>(dev_id)?.endpoint().iommu());
    let parent = ctx.get_any(pt_id).map_err(|_| Refusal::ParentMissing { id: pt_id })?;
    // That there is none is said last.
    let faults = match flags & hwpt_flags::FAULT_ID_VALID {
        0 => Ok(None),
        _ => ctx.get::<FaultQueue>(argument.fault_id).map(|faults| Some(Arc::clone(&faults))),
    };
    let known = faults.as_ref().ok().cloned().flatten();
    let nest = |over| nested::build(ctx, exchange, &iommu, &argument, over, known.clone());
    let pending = match &*parent {
        Object::Ioas(ioas) => build_asked(ctx, exchange, &iommu, &argument, ioas, known.clone())?,
        Object::Hwpt(hwpt) if hwpt.nested.is_none() => nest(Over::Table(Arc::clone(hwpt)))?,
        Object::Viommu(viommu) => nest(Over::Viommu(Arc::clone(viommu)))?,
        Object::Access(_)
        | Object::Device(_)
        | Object::Hwpt(_)
        | Object::MockDevice(_)
        | Object::Fault(_)
        | Object::HwQueue(_)
        | Object::Vdevice(_)
        | Object::Veventq(_) => return Err(Refusal::OtherType { id: pt_id }),
    };
    faults?;
    if pending.nested.is_none() {
        pending.ioas.tables.lock().push(Arc::clone(&pending));
    }
    argument.out_hwpt_id = pending.header().id();
    exchange.respond(&argument)?;
    pending.publish();
    Ok(())
}

/// Builds a page table on an IOAS as a client asks.
fn build_asked<'c>(
    ctx: &'c Context,
    exchange: &Exchange<'_>,
    iommu: &Arc<Iommu>,
    argument: &HwptAlloc,
    ioas: &Arc<Ioas>,
    faults: Option<Arc<FaultQueue>>,
) -> Result<Pending<'c, Hwpt>, Refusal> {
    let flags = argument.flags;
    check_flags(exchange, iommu, flags)?;
    let hardware = iommu.hardware();
    hardware.check_flags(flags)?;
    let geometry = match argument.data_type {
        0 => hardware.shape(iommu.geometry(), flags),
        _ => hardware.shape_with(iommu.geometry(), &UserData::of(exchange, argument))?,
    };
    Hwpt::build_shaped(ctx, ioas, iommu, geometry, Purpose::Command { flags }, faults)
}

fn check_flags(exchange: &Exchange<'_>, iommu: &Iommu, flags: u32) -> Result<(), Refusal> {
    const BOTH: u32 = hwpt_flags::FAULT_ID_VALID | hwpt_flags::NEST_PARENT;
    exchange.refuse_flags(flags, FLAGS)?;
    let unsupported = |feature| Err(Refusal::Unsupported { feature });
    if flags & hwpt_flags::DIRTY_TRACKING != 0 && !iommu.geometry().dirty_tracking {
        return unsupported("dirty tracking");
    }
    if flags & BOTH == BOTH {
        return unsupported("faults of a nest parent");
    }
    if flags & hwpt_flags::PASID != 0 && !iommu.makes_tables_for_pasids() {
        return unsupported("PASID");
    }
    Ok(())
}

const FLAGS: u32 = hwpt_flags::NEST_PARENT
    | hwpt_flags::DIRTY_TRACKING
    | hwpt_flags::FAULT_ID_VALID
    | hwpt_flags::PASID;

impl Hwpt {
    /// Builds a page table for devices behind `iommu` on `ioas`, which the caller holds, and pins what the
    /// IOAS maps. Called with no lock held.
    ///
    /// # Errors
    /// [`Refusal::OutOfIds`] (`ENOMEM`), then as [`Ioas::add_table`].
    pub(crate) fn build<'c>(
        ctx: &'c Context,
        ioas: &Arc<Ioas>,
        iommu: &Arc<Iommu>,
        purpose: Purpose,
    ) -> Result<Pending<'c, Self>, Refusal> {
        let geometry = iommu.hardware().shape(iommu.geometry(), 0);
        Self::build_shaped(ctx, ioas, iommu, geometry, purpose, None)
    }

    fn build_shaped<'c>(
        ctx: &'c Context,
        ioas: &Arc<Ioas>,
        iommu: &Arc<Iommu>,
        geometry: Geometry,
        purpose: Purpose,
        faults: Option<Arc<FaultQueue>>,
    ) -> Result<Pending<'c, Self>, Refusal> {
        let (flags, automatic) = match purpose {
            Purpose::Command { flags } => (flags, false),
            Purpose::Attachment => (0, true),
        };
        Pending::build(ctx, |header| {
            let written = if flags & hwpt_flags::DIRTY_TRACKING != 0 {
                ctx.quota().admit(Resource::WrittenPages, 1)?;
                Some(WrittenPages::new(ctx.in_flight()))
            } else {
                None
            };
            let is_parent = flags & hwpt_flags::NEST_PARENT != 0;
            let takes_read_only = !is_parent || iommu.hardware().nests_in_read_only();
            let log = written.clone();
            let shape = Shape { geometry: &geometry, log, takes_read_only };
            let mirror = ioas.add_table(ctx, shape)?;
            ioas.header().add_user();
            Ok(Self {
                header,
                ioas: Arc::clone(ioas),
                mirror: Some(mirror),
                nested: None,
                faults: hold(faults),
                iommu: Arc::clone(iommu),
                geometry,
                written,
                automatic,
                nest_parent: is_parent,
                takes_pasids: flags & hwpt_flags::PASID != 0,
            })
        })
    }

    /// One that is nested, made with `flags` for devices behind `iommu`.
    pub(crate) fn nested_in(
        header: Header,
        nested: Nested,
        iommu: &Arc<Iommu>,
        flags: u32,
        faults: Option<Arc<FaultQueue>>,
    ) -> Self {
        Self {
            header,
            ioas: Arc::clone(&nested.parent().ioas),
            mirror: None,
            iommu: Arc::clone(iommu),
            geometry: nested.parent().geometry.clone(),
            nested: Some(nested),
            faults: hold(faults),
            written: None,
            automatic: false,
            nest_parent: false,
            takes_pasids: flags & hwpt_flags::PASID != 0,
        }
    }

    /// Where faults on it go.
    pub(crate) const fn faults(&self) -> Option<&Arc<FaultQueue>> {
        self.faults.as_ref()
    }

    /// Forgets the faults of a device that leaves it.
    pub(crate) fn forget_faults(&self, device: &Device) {
        if let Some(faults) = &self.faults {
            faults.forget(device.id());
        }
    }

    /// What it has if it is nested.
    pub(crate) const fn nested(&self) -> Option<&Nested> {
        self.nested.as_ref()
    }

    /// What it shows, or its parent does.
    pub(crate) const fn ioas(&self) -> &Arc<Ioas> {
        &self.ioas
    }

    /// Whose hardware walks it.
    pub(crate) const fn iommu(&self) -> &Arc<Iommu> {
        &self.iommu
    }

    /// What it can hold.
    pub(crate) const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The leaf that an address lies in, as far as writes are told apart.
    pub(crate) fn leaf_of(&self, span: Span) -> Span {
        const HUGE_LEAF_BYTES: u64 = 1 << 20;
        let huge = self.geometry.page_sizes == (HUGE_LEAF_BYTES | PAGE_SIZE);
        let bytes = if huge && self.ioas.large_pages() { HUGE_LEAF_BYTES } else { PAGE_SIZE };
        let first = span.start() & !(bytes - 1);
        let last = span.last() | (bytes - 1);
        Span::from_ends(first, last).unwrap_or(span)
    }

    /// What notes the pages written through it; `None` where it was not made for that.
    pub(crate) const fn written(&self) -> Option<&Arc<WrittenPages>> {
        self.written.as_ref()
    }

    /// Notes a write through it, inside the access.
    pub(crate) fn note_write(&self, stay: &Stay<'_>, iova: u64, length: u64) {
        if let Some((written, span)) = self.written.as_ref().zip(Span::new(iova, length)) {
            written.note(stay, span);
        }
    }

    /// Where an address of a device leads in what it shows: by the guest's tables if it is nested, else nowhere else.
    ///
    /// # Errors
    /// As [`GuestTable::translate`](crate::hardware::GuestTable::translate).
    pub(crate) fn reach(
        &self,
        stay: &Stay<'_>,
        address: u64,
        access: DmaAccess,
    ) -> Result<Reached, Stopped> {
        let Some(nested) = &self.nested else { return Ok(Reached { address, left: u64::MAX }) };
        let memory = ThroughParent { parent: nested.parent(), stay };
        nested.table().translate(&memory, address, access)
    }

    /// The one at the bottom: itself, unless it is nested.
    pub(crate) fn bottom(&self) -> &Self {
        self.nested.as_ref().map_or(self, |nested| nested.parent())
    }

    /// Whether it goes with its last attachment.
    pub(crate) const fn is_automatic(&self) -> bool {
        self.automatic
    }

    /// Whether a vIOMMU can be made over it.
    pub(crate) const fn is_nest_parent(&self) -> bool {
        self.nest_parent
    }

    /// Whether it may be used with PASIDs, or beside them.
    pub(crate) const fn takes_pasids(&self) -> bool {
        self.takes_pasids
    }

    /// Whether the hardware of a device can walk it.
    ///
    /// # Errors
    /// [`Refusal::Incompatible`] (`EINVAL`): the IOMMU is of another kind, or lacks dirty tracking, a page size, or
    /// address bits; then the hardware's about a guest's tables.
    pub(crate) fn check_suits(&self, iommu: &Iommu) -> Result<(), Refusal> {
        self.check_shape(iommu)?;
        self.nested.as_ref().map_or(Ok(()), |nested| nested.table().check_attach(iommu.geometry()))
    }

    fn check_shape(&self, iommu: &Iommu) -> Result<(), Refusal> {
        let (made_for, other) = (&self.geometry, iommu.geometry());
        // The mock's devices take any of the mock's page tables.
        let translates_all = self.iommu.is_mock()
            || made_for.page_sizes & !other.page_sizes == 0
                && other.aperture.contains_span(made_for.aperture);
        let suits = self.iommu.hardware() == iommu.hardware()
            && (self.written.is_none() || other.dirty_tracking)
            && translates_all;
        if suits { Ok(()) } else { Err(Refusal::Incompatible { hwpt: self.header.id() }) }
    }
}

/// Adds a user to a fault queue.
fn hold(faults: Option<Arc<FaultQueue>>) -> Option<Arc<FaultQueue>> {
    faults.inspect(|faults| faults.header().add_user())
}

impl Headed for Hwpt {
    fn header(&self) -> &Header {
        &self.header
    }
    /// The IOMMU is that of the device that it was made for.
    fn facts(&self, mut into: &mut dyn Hasher) {
        into.write_u64(self.ioas.header().identity());
        let flags = (self.written.is_some(), self.automatic, self.nest_parent);
        let mirror = self.mirror.map(|mirror| mirror.0);
        (mirror, flags).hash(&mut into);
    }
}

impl Contents for Hwpt {
    /// Which page table it is.
    fn contents(&self, into: &mut dyn Hasher) {
        into.write_u64(self.header.identity());
        self.facts(into);
    }
}

impl Kind for Hwpt {
    const NAME: &'static str = "hwpt";

    fn wrap(this: Arc<Self>) -> Object {
        Object::Hwpt(this)
    }

    /// One that is not nested.
    fn pick(object: &Object) -> Option<Arc<Self>> {
        let Object::Hwpt(hwpt) = object else { return None };
        hwpt.nested.is_none().then(|| Arc::clone(hwpt))
    }

    /// Leaves the IOAS, or what it is nested in. The last page table of an IOAS unpins its areas.
    fn destroy(&self, ctx: &Context) {
        if let Some(faults) = &self.faults {
            faults.header().drop_user();
        }
        if let Some(nested) = &self.nested {
            nested.leave();
        }
        if let Some(mirror) = self.mirror {
            self.ioas.tables.lock().retain(|table| table.mirror != self.mirror);
            self.ioas.remove_table(ctx, mirror);
            self.ioas.header().drop_user();
        }
        self.header.end();
    }
}
