//! The IOAS object: an address space, the page tables on it, and the commands that make and describe one.
//!
//! Locks: `tables` is IOAS, `space` is IOPT_IOVA, the map brings its own leaf. Neither is held while memory
//! is pinned, unpinned, or waited for. Source: [uapi/iommufd.h].

use std::sync::Arc;

use span::{Span, SpanMap};
use sync::{Mutex, Named, rank};
use uapi::iommufd::{IoasAlloc, IoasAllowIovas, IoasIovaRanges, IovaRange};
use zerocopy::IntoBytes;

use crate::address_space::{AddressSpace, Begun, Mirror, Piece, Shape, Unmapped, Usage};
use crate::area::Area;
use crate::dispatch::Exchange;
use crate::hwpt::Hwpt;
use crate::iova_map::IovaMap;
use crate::object::{Kind, Object, Pending};
use crate::placement::Placement;
use crate::registry::{Headed, Header};
use crate::{Context, Quota, Refusal, Resource};

/// An I/O address space.
pub(crate) struct Ioas {
    header: Header,
    /// The page tables on it, oldest first. Each is a user of the IOAS.
    pub(crate) tables: Mutex<rank::Ioas, Vec<Arc<Hwpt>>>,
    pub(crate) space: Mutex<rank::IoptIova, AddressSpace>,
    /// What DMA translates through, without `space`.
    pub(crate) map: Arc<dyn IovaMap>,
    quota: Arc<dyn Quota>,
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
    let pending = Pending::build(ctx, |header| Ok(Ioas::new(ctx, header)))?;
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
    ctx.quota().admit(Resource::Buffer, 1)?;
    for (index, range) in (0..given).zip(&ranges) {
        exchange.write_element(argument.allowed_iovas, index, range_bytes(*range).as_bytes())?;
    }
    let total = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
    argument.num_iovas = total;
    argument.out_iova_alignment = alignment;
    exchange.respond(&argument)?;
    if total > given { Err(Refusal::RangesLeftOut { given, total }) } else { Ok(()) }
}

/// Limits where addresses are chosen: `IOMMU_IOAS_ALLOW_IOVAS`. Replaces the former list; an empty one allows all.
///
/// # Errors
/// All is as before then. In this order:
/// - [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::TooManyRanges`] (`ENOMEM`)
/// - for each range: [`Refusal::Unreachable`] (`EFAULT`), [`Refusal::RangeOrder`] (`EINVAL`; one byte is no range),
///   [`Refusal::OverlappingRange`] (`EINVAL`).
/// - [`Refusal::ReservedAllowed`] (`EADDRINUSE`)
pub(crate) fn allow_iovas(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let argument: IoasAllowIovas = exchange.argument();
    exchange.refuse_reserved(argument.reserved)?;
    let ioas = ctx.get::<Ioas>(argument.ioas_id)?;
    let given = argument.num_iovas;
    if given > ALLOWED_MOST {
        return Err(Refusal::TooManyRanges { given });
    }
    let mut allowed = SpanMap::new();
    for index in 0..given {
        ctx.quota().admit(Resource::AllowedRange, u64::from(index) + 1)?;
        let offset = u64::from(index) * size_of::<IovaRange>() as u64;
        let at = argument.allowed_iovas.checked_add(offset).ok_or(Refusal::Unreachable)?;
        let mut range = IovaRange { start: 0, last: 0 };
        exchange.caller().read(at, range.as_mut_bytes())?;
        let IovaRange { start, last } = range;
        let span = Span::from_ends(start, last).filter(|_| start != last);
        let range = span.ok_or(Refusal::RangeOrder { start, last })?;
        allowed.insert(range, ()).map_err(|_| Refusal::OverlappingRange { range })?;
    }
    let allowed = allowed.iter().map(|(span, ())| span).collect();
    ioas.space.lock().allow(allowed)
}

/// Ranges allowed at most.
const ALLOWED_MOST: u32 = 1 << 16;

const fn range_bytes(span: Span) -> IovaRange {
    IovaRange { start: span.start(), last: span.last() }
}

impl Ioas {
    pub(crate) fn new(ctx: &Context, header: Header) -> Self {
        let map = ctx.new_map();
        let name = || format!("{}{}", Self::NAME, header.id());
        Self {
            tables: Mutex::with_contents(Vec::new()).named("tables", name),
            space: Mutex::new(AddressSpace::new(Arc::clone(&map), Arc::clone(ctx.quota())))
                .named("space", name),
            quota: Arc::clone(ctx.quota()),
            map,
            header,
        }
    }

    /// Maps `area` and returns where it landed. Where a page table mirrors the space the memory is pinned
    /// first, with no lock held; otherwise it is not touched at all.
    ///
    /// # Errors
    /// As [`AddressSpace::begin_map`], then [`Refusal::Exhausted`] (`ENOMEM`), [`Refusal::Pin`] (`EFAULT`, `EINVAL`,
    /// `ENOMEM`), [`Refusal::NotForWriting`] (`EINVAL`). Nothing is mapped then.
    pub(crate) fn map(&self, area: Area, placement: Placement) -> Result<Span, Refusal> {
        let mut piece = [Piece { area, memory: None }];
        let begun = self.space.lock().begin_map(&piece, placement)?;
        self.finish_map(begun, &mut piece)
    }

    /// Maps what another address space maps already, one area for each piece. Memory that is pinned is shared.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub(crate) fn map_pieces(
        &self,
        mut pieces: Vec<Piece>,
        placement: Placement,
    ) -> Result<Span, Refusal> {
        let begun = self.space.lock().begin_map(&pieces, placement)?;
        self.finish_map(begun, &mut pieces)
    }

    fn finish_map(&self, begun: Begun, pieces: &mut [Piece]) -> Result<Span, Refusal> {
        let span = match begun {
            Begun::Mapped(span) => return Ok(span),
            Begun::Pin(span) => span,
        };
        if let Err(refusal) = self.pin_all(pieces) {
            self.space.lock().abort_map(span);
            return Err(refusal);
        }
        self.space.lock().finish_map(span, pieces)?;
        Ok(span)
    }

    /// Unmaps all areas inside `asked` and returns how many bytes those were, when no DMA uses them any
    /// more.
    ///
    /// # Errors
    /// As [`AddressSpace::unmap`]. Areas below the one that refused are gone.
    pub(crate) fn unmap(&self, ctx: &Context, asked: Span) -> Result<u64, Refusal> {
        let (bytes, outcome) = self.unmap_counted(ctx, asked);
        outcome.map(|()| bytes)
    }

    /// As [`unmap`](Self::unmap), and says how many bytes are gone where an area refused.
    pub(crate) fn unmap_counted(&self, ctx: &Context, asked: Span) -> (u64, Result<(), Refusal>) {
        let Unmapped { outcome, bytes, left } = self.space.lock().unmap(asked);
        ctx.let_go(&*self.map, left);
        (bytes, outcome)
    }

    /// Sets whether page tables may have leaves larger than the client's pages. With none, areas can be cut.
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
    pub(crate) fn cut_after(&self, ctx: &Context, last: u64) -> Result<(), Refusal> {
        let left = self.space.lock().cut_after(last)?;
        ctx.let_go(&*self.map, left);
        Ok(())
    }

    /// Makes a page table mirror this space: when this returns, all areas are pinned and stay so.
    ///
    /// # Errors
    /// As [`AddressSpace::begin_table`], then [`Refusal::Exhausted`] (`ENOMEM`), [`Refusal::Pin`] (`EFAULT`, `EINVAL`,
    /// `ENOMEM`), [`Refusal::NotForWriting`] (`EINVAL`). All is as before then.
    pub(crate) fn add_table(&self, ctx: &Context, shape: Shape<'_>) -> Result<Mirror, Refusal> {
        let takes_read_only = shape.takes_read_only;
        let mirror = self.space.lock().begin_table(shape)?;
        let pinned = self.pin_areas();
        // What is mapped from now on is judged as it is mapped.
        let check =
            || if takes_read_only { Ok(()) } else { self.space.lock().check_all_writable() };
        match pinned.and_then(|()| check()) {
            Ok(()) => Ok(mirror),
            Err(refusal) => {
                self.remove_table(ctx, mirror);
                Err(refusal)
            }
        }
    }

    /// Pins all areas for a new page table.
    fn pin_areas(&self) -> Result<(), Refusal> {
        let mut from = Some(0);
        while let Some((span, area)) = from.and_then(|from| self.space.lock().next_unfilled(from)) {
            let memory = area.pin(&*self.quota)?;
            let unwanted = self.space.lock().fill(span, &area, memory);
            // What changed meanwhile is looked at again: it may have been cut in two.
            from = match unwanted {
                None => span.last().checked_add(1),
                Some(_) => Some(span.start()),
            };
        }
        Ok(())
    }

    /// Undoes [`add_table`](Self::add_table). The last one unpins all areas, when no DMA uses them any more.
    pub(crate) fn remove_table(&self, ctx: &Context, mirror: Mirror) {
        let left = self.space.lock().end_table(mirror);
        ctx.let_go(&*self.map, left);
    }

    /// Takes the memory away from areas of buffers that were taken back. When this returns no DMA reaches it.
    pub(crate) fn empty_revoked(&self, ctx: &Context) {
        let parts = self.space.lock().empty_revoked();
        parts.into_iter().for_each(|left| ctx.let_go(&*self.map, left));
    }

    /// Pins what is not pinned. Called with no lock held.
    fn pin_all(&self, pieces: &mut [Piece]) -> Result<(), Refusal> {
        for piece in pieces.iter_mut().filter(|piece| piece.memory.is_none()) {
            piece.memory = Some(piece.area.pin(&*self.quota)?);
        }
        Ok(())
    }

    /// Who says how much there is of what it uses up.
    pub(crate) fn quota(&self) -> &dyn Quota {
        &*self.quota
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
    const NAME: &'static str = "ioas";

    fn wrap(this: Arc<Self>) -> Object {
        Object::Ioas(this)
    }

    fn pick(object: &Object) -> Option<Arc<Self>> {
        if let Object::Ioas(ioas) = object { Some(Arc::clone(ioas)) } else { None }
    }

    /// Unmaps all. No page table is left, so nothing is pinned.
    fn destroy(&self, ctx: &Context) {
        let unmapped = self.unmap(ctx, Span::WHOLE);
        assert!(unmapped.is_ok(), "an IOAS ends when no command works on it");
        self.header.end();
    }
}
