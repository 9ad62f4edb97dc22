//! Looks at what the engine did: where addresses lead, how often pages are pinned, which were written.

use std::sync::Arc;

use pci::DmaAccess;
use span::Span;
use uapi::Errno;

use super::machine::PAGE_BYTES;
use super::{MockMachine, TestCommand, failure};
use crate::dispatch::Exchange;
use crate::hwpt::Hwpt;
use crate::in_flight::Visitors;
use crate::object::Object;
use crate::{Context, PAGE_SIZE, Refusal};

/// Says whether addresses of a page table lead to the caller's pages.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`); `EINVAL` where something is no multiple of the page table's smallest page or leads
/// elsewhere; [`Refusal::Unreachable`] (`EFAULT`) where the caller has no such page.
pub(super) fn check_map(
    ctx: &Context,
    exchange: &Exchange<'_>,
    argument: &TestCommand,
) -> Result<(), Refusal> {
    let (iova, length, at) = (argument.long(0), argument.long(2), argument.long(4));
    let hwpt = ctx.get::<Hwpt>(argument.id)?;
    let unit = hwpt.geometry().smallest_page();
    let overflows = at.checked_add(length).is_none() || iova.checked_add(length).is_none();
    if overflows || (iova | length | at) & (unit - 1) != 0 {
        return Err(failure("not whole pages of the page table", Errno::EINVAL));
    }
    let visitors = Visitors::default();
    for offset in (0..length).step_by(usize::try_from(unit).unwrap_or(usize::MAX)) {
        let page = exchange.caller().page(at + offset).ok_or(Refusal::Unreachable)?;
        let stay = ctx.enter_dma(&visitors);
        let map = &hwpt.ioas().map;
        let read = map.translate(&stay, iova + offset, DmaAccess::Read, unit);
        let found = read
            .or_else(|_| map.translate(&stay, iova + offset, DmaAccess::Write, unit))
            .map_err(|_| failure("an address that leads nowhere", Errno::EINVAL))?;
        if found.memory.page(found.at) != Some(page) {
            return Err(failure("an address that leads to another page", Errno::EINVAL));
        }
    }
    Ok(())
}

/// Says whether each of the caller's pages is pinned so often: by areas and accesses of whatever context. What was copied
/// from one address space to another is pinned once.
///
/// # Errors
/// `EINVAL` where it is not whole pages, `EIO` where a page is pinned more or less often, [`Refusal::Unreachable`]
/// (`EFAULT`).
pub(super) fn check_pins(
    machine: &Arc<MockMachine>,
    exchange: &Exchange<'_>,
    argument: &TestCommand,
) -> Result<(), Refusal> {
    let (length, at, expected) = (argument.long(0), argument.long(2), argument.fields[4]);
    if (length | at) & (PAGE_SIZE - 1) != 0 || at.checked_add(length).is_none() {
        return Err(failure("not whole pages", Errno::EINVAL));
    }
    let pins = machine.pins();
    for offset in (0..length).step_by(usize::try_from(PAGE_SIZE).unwrap_or(usize::MAX)) {
        let page = exchange.caller().page(at + offset).ok_or(Refusal::Unreachable)?;
        if pins.get(&page).copied().unwrap_or(0) != expected {
            return Err(failure("a page is pinned more or less often", Errno::EIO));
        }
    }
    Ok(())
}

/// Says whether an entry of a nested page table's IOTLB holds a value.
///
/// # Errors
/// [`Refusal::NoObject`] (`ENOENT`), `EINVAL`.
pub(super) fn check_iotlb(ctx: &Context, argument: &TestCommand) -> Result<(), Refusal> {
    let id = argument.id;
    let object = ctx.get_any(id)?;
    let nested = if let Object::Hwpt(hwpt) = &*object { hwpt.nested() } else { None };
    let [entry, value, ..] = argument.fields;
    let iotlb = nested.and_then(|nested| nested.table().mock_cache());
    iotlb.ok_or(Refusal::NoObject { id })?.check(entry, value)
}

/// Marks pages of a page table as written: one for each bit that is set in the caller's bitmap. Answers how many.
///
/// # Errors
/// `EINVAL` for what is zero or no whole pages, and where nothing is tracked; `EOVERFLOW` for a bitmap that is too
/// large; [`Refusal::NoObject`] (`ENOENT`), [`Refusal::Unreachable`] (`EFAULT`).
pub(super) fn mark_written(
    ctx: &Context,
    exchange: &Exchange<'_>,
    mut argument: TestCommand,
) -> Result<(), Refusal> {
    const PAGES_MOST: u64 = 1 << 27;
    let (iova, length) = (argument.long(2), argument.long(4));
    let (page_bytes, at) = (argument.long(6), argument.long(8));
    let whole = page_bytes != 0
        && length != 0
        && at != 0
        && iova.is_multiple_of(page_bytes)
        && length.is_multiple_of(page_bytes);
    if !whole {
        return Err(failure("not whole pages", Errno::EINVAL));
    }
    let pages = length / page_bytes;
    if pages > PAGES_MOST {
        return Err(failure("too large a bitmap", Errno::EOVERFLOW));
    }
    let hwpt = ctx.get::<Hwpt>(argument.id)?;
    let tracked = hwpt.written().filter(|written| written.is_tracking());
    let Some(written) = tracked else {
        return Err(failure("nothing is tracked", Errno::EINVAL));
    };
    let bytes = usize::try_from(pages.div_ceil(8)).unwrap_or(usize::MAX);
    let mut bitmap = vec![0; bytes];
    exchange.caller().read(at, &mut bitmap)?;
    let visitors = Visitors::default();
    let mut marked: u64 = 0;
    let unit = page_bytes.max(PAGE_BYTES);
    for page in 0..pages {
        let (byte, bit) = ((page / 8) as usize, page % 8);
        if bitmap.get(byte).is_some_and(|byte| byte >> bit & 1 != 0) {
            let stay = ctx.enter_dma(&visitors);
            if let Some(span) = Span::new(iova + page * page_bytes, unit.min(length)) {
                written.note(&stay, hwpt.leaf_of(span));
            }
            marked += 1;
        }
    }
    let [low, high] = [marked & u64::from(u32::MAX), marked >> 32];
    argument.fields[10] = u32::try_from(low).unwrap_or(u32::MAX);
    argument.fields[11] = u32::try_from(high).unwrap_or(u32::MAX);
    exchange.respond(&argument)
}
