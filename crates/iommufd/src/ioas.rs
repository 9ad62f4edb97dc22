//! The IOAS object: an address space, the page tables on it, and the commands that make and describe one.
//!
//! Locks: `tables` is IOAS, `space` is IOPT_IOVA, the map brings its own leaf. Neither is held while memory
//! is pinned, unpinned, or waited for. Source: [uapi/iommufd.h].

use std::sync::Arc;

use span::Span;
use sync::{Mutex, rank};
use uapi::iommufd::{IoasAlloc, IoasIovaRanges, IovaRange};
use zerocopy::IntoBytes;

use crate::address_space::{AddressSpace, Begun, Mirror, Unmapped, Usage};
use crate::area::Area;
use crate::dispatch::Exchange;
use crate::flat_map::FlatMap;
use crate::hwpt::Hwpt;
use crate::iova_map::IovaMap;
use crate::object::{Kind, Object, Pending};
use crate::placement::Placement;
use crate::registry::{Headed, Header};
use crate::{Context, Geometry, Refusal};

/// An I/O address space.
pub(crate) struct Ioas {
    header: Header,
    /// The page tables on it, oldest first. Each is a user of the IOAS.
    pub(crate) tables: Mutex<rank::Ioas, Vec<Arc<Hwpt>>>,
    pub(crate) space: Mutex<rank::IoptIova, AddressSpace>,
    /// What DMA translates through, without `space`.
    pub(crate) map: Arc<dyn IovaMap>,
}

/// Makes an empty IOAS: `IOMMU_IOAS_ALLOC`.
///
/// # Errors
/// - [`Refusal::UnknownFlags`] (`EOPNOTSUPP`): any flag.
/// - [`Refusal::OutOfIds`] (`ENOMEM`)
/// - [`Refusal::Unreachable`] (`EFAULT`): the answer cannot be written; there is no IOAS then.
pub(crate) fn alloc(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: IoasAlloc = exchange.argument();
    exchange.refuse_flags(argument.flags, 0)?;
    let pending = Pending::build(ctx, |header| Ok(Ioas::new(header)))?;
    argument.out_ioas_id = pending.header().id();
    exchange.respond(&argument)?;
    pending.publish();
    Ok(())
}

/// Tells which addresses can be mapped: `IOMMU_IOAS_IOVA_RANGES`. What is mapped already plays no part.
///
/// # Errors
/// - [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::Unreachable`] (`EFAULT`): a range cannot be written; nothing is answered then.
/// - [`Refusal::RangesLeftOut`] (`EMSGSIZE`): more ranges than room. The count is answered all the same.
pub(crate) fn iova_ranges(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let mut argument: IoasIovaRanges = exchange.argument();
    exchange.refuse_reserved(argument.reserved)?;
    let (ranges, alignment) = {
        let ioas = ctx.get::<Ioas>(argument.ioas_id)?;
        let space = ioas.space.lock();
        (space.ranges(), space.alignment())
    };
    let given = argument.num_iovas;
    for (index, range) in (0..given).zip(&ranges) {
        exchange.write_element(argument.allowed_iovas, index, range_bytes(*range).as_bytes())?;
    }
    let total = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
    argument.num_iovas = total;
    argument.out_iova_alignment = alignment;
    exchange.respond(&argument)?;
    if total > given { Err(Refusal::RangesLeftOut { given, total }) } else { Ok(()) }
}

const fn range_bytes(span: Span) -> IovaRange {
    IovaRange { start: span.start(), last: span.last() }
}

impl Ioas {
    pub(crate) fn new(header: Header) -> Self {
        let map: Arc<dyn IovaMap> = Arc::new(FlatMap::new());
        Self {
            header,
            tables: Mutex::new(Vec::new()),
            space: Mutex::new(AddressSpace::new(Arc::clone(&map))),
            map,
        }
    }

    /// Maps `area` and returns where it landed. Where a page table mirrors the space the memory is pinned
    /// first, with no lock held; otherwise it is not touched at all.
    ///
    /// # Errors
    /// As [`AddressSpace::begin_map`], then [`Refusal::Pin`] (`EFAULT`, `EINVAL`, `ENOMEM`). Nothing is mapped
    /// then.
    pub(crate) fn map(&self, area: Area, placement: Placement) -> Result<Span, Refusal> {
        let area = Arc::new(area);
        let begun = self.space.lock().begin_map(&area, placement)?;
        let span = match begun {
            Begun::Mapped(span) => return Ok(span),
            Begun::Pin(span) => span,
        };
        match area.pin() {
            Ok(memory) => {
                let unwanted = self.space.lock().finish_map(span, &area, memory);
                drop(unwanted);
                Ok(span)
            }
            Err(fault) => {
                self.space.lock().abort_map(span);
                Err(fault.into())
            }
        }
    }

    /// Unmaps all areas inside `asked` and returns how many bytes those were, when no DMA uses them any
    /// more.
    ///
    /// # Errors
    /// As [`AddressSpace::unmap`]. Areas below the one that refused are gone.
    pub(crate) fn unmap(&self, ctx: &Context, asked: Span) -> Result<u64, Refusal> {
        let Unmapped { outcome, memory, areas, .. } = self.space.lock().unmap(asked);
        ctx.let_go(memory);
        drop(areas);
        outcome
    }

    /// As [`unmap`](Self::unmap), and says how many bytes are gone where an area refused.
    pub(crate) fn unmap_counted(&self, ctx: &Context, asked: Span) -> (u64, Result<(), Refusal>) {
        let Unmapped { outcome, bytes, memory, areas } = self.space.lock().unmap(asked);
        ctx.let_go(memory);
        drop(areas);
        (bytes, outcome.map(|_| ()))
    }

    /// Lets page tables have no leaf larger than the client's pages, so that areas can be cut.
    ///
    /// # Errors
    /// As [`AddressSpace::disable_large_pages`].
    pub(crate) fn disable_large_pages(&self) -> Result<(), Refusal> {
        self.space.lock().disable_large_pages()
    }

    /// Whether page tables may have leaves larger than the client's pages.
    pub(crate) fn large_pages(&self) -> bool {
        self.space.lock().large_pages()
    }

    /// Sees to it that no area lies on both sides of the end of the byte at `last`.
    ///
    /// # Errors
    /// As [`AddressSpace::cut_after`].
    pub(crate) fn cut_after(&self, last: u64) -> Result<(), Refusal> {
        let whole = self.space.lock().cut_after(last)?;
        drop(whole);
        Ok(())
    }

    /// Makes a page table mirror this space: when this returns, all areas are pinned and stay so.
    ///
    /// # Errors
    /// As [`AddressSpace::begin_table`], then [`Refusal::Pin`] (`EFAULT`, `EINVAL`, `ENOMEM`). All is as before
    /// then.
    pub(crate) fn add_table(&self, ctx: &Context, geometry: &Geometry) -> Result<Mirror, Refusal> {
        let (mirror, unfilled) = self.space.lock().begin_table(geometry)?;
        for (span, area) in unfilled {
            match area.pin() {
                Ok(memory) => {
                    let unwanted = self.space.lock().fill(span, &area, memory);
                    drop(unwanted);
                }
                Err(fault) => {
                    self.remove_table(ctx, mirror);
                    return Err(fault.into());
                }
            }
        }
        Ok(mirror)
    }

    /// Undoes [`add_table`](Self::add_table). The last one unpins all areas, when no DMA uses them any more.
    pub(crate) fn remove_table(&self, ctx: &Context, mirror: Mirror) {
        let memory = self.space.lock().end_table(mirror);
        ctx.let_go(memory);
    }

    /// How much is mapped.
    pub(crate) fn usage(&self) -> Usage {
        self.space.lock().usage()
    }
}

impl Headed for Ioas {
    fn header(&self) -> &Header {
        &self.header
    }
}

impl Kind for Ioas {
    fn wrap(this: Arc<Self>) -> Object {
        Object::Ioas(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        match object {
            Object::Ioas(ioas) => Some(Arc::clone(ioas)),
            Object::Device(_) | Object::Hwpt(_) | Object::Vdevice(_) | Object::Viommu(_) => None,
        }
    }

    /// Unmaps all. No page table is left, so nothing is pinned.
    fn destroy(&self, ctx: &Context) {
        let unmapped = self.unmap(ctx, Span::WHOLE);
        assert!(unmapped.is_ok(), "an IOAS ends when no command works on it");
        self.header.end();
    }
}
