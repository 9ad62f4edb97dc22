//! The HW_QUEUE object: a hardware queue lent to a guest, whose ring is in the guest's memory, and `IOMMU_HW_QUEUE_ALLOC`.
//!
//! While it lives the ring is pinned, and the areas that it lies in cannot be unmapped. Hardware takes a ring that is one
//! piece of memory; here that is one area's.
//!
//! Takes IOPT_IOVA and OBJECTS, one at a time, and neither while memory is pinned. Source: [uapi/iommufd.h]; order of
//! checks from v7.3 `viommu.c`.

use std::sync::Arc;

use span::Span;
use sync::{Mutex, rank};
use uapi::iommufd::{HwQueueAlloc, hw_queue_type};

use crate::access::pin_part;
use crate::address_space::AccessName;
use crate::dispatch::Exchange;
use crate::ioas::Ioas;
use crate::object::{Kind, Object, Pending};
use crate::registry::{Headed, Header};
use crate::viommu::Viommu;
use crate::{Context, PAGE_SIZE, PinFault, Refusal};

/// A hardware queue that a guest has.
pub(crate) struct HwQueue {
    header: Header,
    /// The queue is a user of it until destroyed.
    viommu: Arc<Viommu>,
    index: u32,
    ring: Ring,
    /// The queue that it depends on, of which it is a user. Set as it takes its place.
    below: Mutex<rank::Objects, Option<Arc<HwQueue>>>,
}

/// Memory of a parent's address space that is pinned, and stays mapped.
struct Ring {
    ioas: Arc<Ioas>,
    name: AccessName,
}

/// Lends a hardware queue to a guest: `IOMMU_HW_QUEUE_ALLOC`.
///
/// # Errors
/// There is none then. In this order:
/// - [`Refusal::UnknownFlags`], [`Refusal::Unsupported`] (`EOPNOTSUPP`): type 0.
/// - [`Refusal::Empty`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`)
/// - [`Refusal::NoObject`] (`ENOENT`): the vIOMMU.
/// - [`Refusal::Unsupported`] (`EOPNOTSUPP`): a type that it has not.
/// - [`Refusal::OutOfIds`], [`Refusal::Exhausted`] (`ENOMEM`)
/// - [`Refusal::MisalignedArea`] (`EADDRINUSE`), as [`crate::access::Access::pin`] (`ENOENT`, `EPERM`, `EINVAL`,
///   `EFAULT`, `ENOMEM`); `EFAULT` for a ring of several areas.
/// - the hardware's about the index.
/// - [`Refusal::Unreachable`] (`EFAULT`)
pub(crate) fn alloc(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: HwQueueAlloc = exchange.argument();
    exchange.refuse_flags(argument.flags, 0)?;
    let unsupported = Refusal::Unsupported { feature: "hardware queues of that type" };
    if argument.r#type == hw_queue_type::DEFAULT {
        return Err(unsupported);
    }
    let (start, length) = (argument.nesting_parent_iova, argument.length);
    if length == 0 {
        return Err(Refusal::Empty);
    }
    let asked = Span::new(start, length).ok_or(Refusal::PastTop { start, length })?;
    let viommu = Arc::clone(&*ctx.get::<Viommu>(argument.viommu_id)?);
    if !viommu.iommu().hardware().has_hw_queues(argument.r#type) {
        return Err(unsupported);
    }
    let pending = Pending::build(ctx, |header| {
        let ring = Ring::pin(ctx, viommu.hwpt().ioas(), whole_pages(asked))?;
        viommu.header().add_user();
        let (viommu, index) = (Arc::clone(&viommu), argument.index);
        Ok(HwQueue { header, viommu, index, ring, below: Mutex::new(None) })
    })?;
    let below = pending.viommu.place_hw_queue(&pending)?;
    *pending.below.lock() = below;
    argument.out_hw_queue_id = pending.header().id();
    exchange.respond(&argument)?;
    pending.publish();
    Ok(())
}

/// The pages that bytes lie in.
fn whole_pages(span: Span) -> Span {
    let (first, last) = (span.start() & !(PAGE_SIZE - 1), span.last() | (PAGE_SIZE - 1));
    Span::from_ends(first, last).unwrap_or(span)
}

impl HwQueue {
    /// Which of the vIOMMU's it is.
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }
}

impl Ring {
    /// # Errors
    /// As [`alloc`], about memory.
    fn pin(ctx: &Context, ioas: &Arc<Ioas>, span: Span) -> Result<Self, Refusal> {
        const NUMBER: u32 = 0;
        let name = ioas.space.lock().attach_access(true)?;
        let ring = Self { ioas: Arc::clone(ioas), name };
        let pinned = || {
            let pieces = ioas.space.lock().begin_hold(name, NUMBER, span)?;
            if pieces.len() > 1 {
                return Err(Refusal::Pin(PinFault::Unmapped));
            }
            let parts = pieces.into_iter().map(|piece| pin_part(piece, ioas.quota()));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            // Nobody unmaps what is held.
            let unwanted = ioas.space.lock().finish_pin(name, NUMBER, parts).err();
            drop(unwanted);
            Ok(())
        };
        match pinned() {
            Ok(()) => Ok(ring),
            Err(refusal) => {
                ring.release(ctx);
                Err(refusal)
            }
        }
    }

    /// Gives the memory back. Called once, with no lock held.
    fn release(&self, ctx: &Context) {
        let left = self.ioas.space.lock().detach_access(self.name);
        ctx.let_go(&*self.ioas.map, left);
    }
}

impl Headed for HwQueue {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Kind for HwQueue {
    const NAME: &'static str = "hw_queue";

    fn wrap(this: Arc<Self>) -> Object {
        Object::HwQueue(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::HwQueue(queue) = object { Some(Arc::clone(queue)) } else { None }
    }

    /// Gives its place, its ring and the queue below back.
    fn destroy(&self, ctx: &Context) {
        self.viommu.free_hw_queue(self);
        let below = self.below.lock().take();
        if let Some(below) = below {
            below.header().drop_user();
        }
        self.ring.release(ctx);
        self.viommu.header().drop_user();
        self.header.end();
    }
}
