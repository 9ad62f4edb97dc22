//! The commands about written pages: `IOMMU_HWPT_SET_DIRTY_TRACKING`, `IOMMU_HWPT_GET_DIRTY_BITMAP`.
//!
//! Each page table that was made for it has a log of its own ([`WrittenPages`]). What is read is what is mapped
//! without a hole from where the client asks; beyond, nothing is told of and nothing made clean.
//!
//! Takes IOPT_IOVA for a look, and what the log takes; holds nothing while it waits for DMA or reaches the caller's
//! memory. Source: [uapi/iommufd.h]; order of checks from v7.3 `hw_pagetable.c`, `io_pagetable.c`.

use std::sync::Arc;

use pagetable::Clear;
use span::Span;
use uapi::iommufd::{
    HwptGetDirtyBitmap, HwptSetDirtyTracking, dirty_bitmap_flags, dirty_tracking_flags,
};

use crate::dispatch::Exchange;
use crate::hwpt::Hwpt;
use crate::written_pages::{Run, WrittenPages};
use crate::{Caller, Context, PAGE_SIZE, Refusal, Resource};

/// Starts or stops the log of written pages: `IOMMU_HWPT_SET_DIRTY_TRACKING`. Each start finds all pages clean; when it
/// returns all DMA is tracked. A stop keeps what was noted.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`] (`EOPNOTSUPP`). The reserved field is not looked at.
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::Unsupported`] (`EOPNOTSUPP`): the page table was not made for it.
pub(crate) fn set(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let argument: HwptSetDirtyTracking = exchange.argument();
    exchange.refuse_flags(argument.flags, dirty_tracking_flags::ENABLE)?;
    let hwpt = ctx.get::<Hwpt>(argument.hwpt_id)?;
    let written = log_of(&hwpt)?;
    if argument.flags == 0 {
        written.track(false);
        return Ok(());
    }
    written.forget(Span::WHOLE);
    written.track(true);
    ctx.outwait_dma();
    Ok(())
}

/// Reads the log of written pages: `IOMMU_HWPT_GET_DIRTY_BITMAP`. Sets the bits of pages that were written since they
/// were clean, and clears no bit. Makes clean what it reads, unless asked not to.
///
/// # Errors
/// In this order:
/// - [`Refusal::UnknownFlags`], [`Refusal::ReservedField`] (`EOPNOTSUPP`)
/// - [`Refusal::NoObject`] (`ENOENT`)
/// - [`Refusal::Empty`] (`EINVAL`), [`Refusal::PastTop`] (`EOVERFLOW`)
/// - [`Refusal::Misaligned`] (`EINVAL`): address or end, to the address space's alignment.
/// - [`Refusal::Misaligned`] (`EINVAL`): a page size of zero, or address or end to the page size.
/// - [`Refusal::Unsupported`] (`EOPNOTSUPP`): the page table was not made for it.
/// - [`Refusal::Exhausted`] (`ENOMEM`)
///
/// From there on it succeeds, also where the bitmap cannot be written: those bits are lost.
pub(crate) fn get(ctx: &Arc<Context>, exchange: &Exchange<'_>) -> Result<(), Refusal> {
    let argument: HwptGetDirtyBitmap = exchange.argument();
    exchange.refuse_flags(argument.flags, dirty_bitmap_flags::NO_CLEAR)?;
    exchange.refuse_reserved(argument.reserved)?;
    let hwpt = ctx.get::<Hwpt>(argument.hwpt_id)?;
    let HwptGetDirtyBitmap { iova, length, page_size, data, .. } = argument;
    if length == 0 {
        return Err(Refusal::Empty);
    }
    let asked = Span::new(iova, length).ok_or(Refusal::PastTop { start: iova, length })?;
    let alignment = hwpt.ioas().space.lock().alignment();
    check_ends(asked, alignment)?;
    if page_size == 0 {
        return Err(Refusal::Misaligned { value: page_size, alignment });
    }
    check_ends(asked, page_size)?;
    let written = log_of(&hwpt)?;
    ctx.quota().admit(Resource::Buffer, 1)?;
    let Some(mapped) = hwpt.ioas().space.lock().mapped_run(asked) else { return Ok(()) };
    let unit_lg2 = page_size.trailing_zeros();
    let mut bitmap = Bitmap::new(exchange.caller(), data, asked.start(), unit_lg2);
    let clear = clear_for(argument.flags, mapped);
    written.read(ctx.in_flight(), mapped, clear, |run| bitmap.add(run, mapped));
    bitmap.flush();
    Ok(())
}

fn log_of(hwpt: &Hwpt) -> Result<&Arc<WrittenPages>, Refusal> {
    hwpt.written().ok_or(Refusal::Unsupported { feature: "dirty tracking in that page table" })
}

/// Refuses a span of which an end has a bit below `unit`, which may be no power of two.
const fn check_ends(span: Span, unit: u64) -> Result<(), Refusal> {
    let ends = span.start() | span.last().wrapping_add(1);
    match ends & (unit - 1) {
        0 => Ok(()),
        value => Err(Refusal::Misaligned { value, alignment: unit }),
    }
}

/// A page that is read in part stays as it is: its other part was not told of.
const fn clear_for(flags: u32, span: Span) -> Clear {
    let whole_pages = (span.start() | span.last().wrapping_add(1)).is_multiple_of(PAGE_SIZE);
    if flags & dirty_bitmap_flags::NO_CLEAR == 0 && whole_pages { Clear::Yes } else { Clear::No }
}

/// The caller's bitmap, of which a window is held back.
struct Bitmap<'a> {
    caller: &'a dyn Caller,
    /// Where its first byte is, and for which address its first bit.
    data: u64,
    origin: u64,
    /// Binary logarithm of the bytes that a bit stands for.
    unit_lg2: u32,
    /// Which window that is.
    number: u64,
    window: [u8; WINDOW],
    /// The first and last bytes of it that have bits to add.
    touched: Option<(usize, usize)>,
}

/// Bytes of a window.
const WINDOW: usize = 4096;
const WINDOW_BITS: u64 = WINDOW as u64 * 8;

impl<'a> Bitmap<'a> {
    const fn new(caller: &'a dyn Caller, data: u64, origin: u64, unit_lg2: u32) -> Self {
        Self { caller, data, origin, unit_lg2, number: 0, window: [0; WINDOW], touched: None }
    }

    /// Sets the bits of the pages in `run`, as far as `within` reaches.
    fn add(&mut self, run: Run<'_>, within: Span) {
        for (index, word) in (0..).zip(run.words) {
            let (start, mut bits) = (run.first + index * u64::from(u64::BITS) * PAGE_SIZE, *word);
            while bits != 0 {
                let first = bits.trailing_zeros();
                let count = (bits >> first).trailing_ones();
                let pages =
                    Span::new(start + u64::from(first) * PAGE_SIZE, u64::from(count) * PAGE_SIZE);
                if let Some(inside) = pages.and_then(|pages| pages.intersection(within)) {
                    self.set(inside);
                }
                bits &= u64::MAX.checked_shl(first + count).unwrap_or(0);
            }
        }
    }

    fn set(&mut self, span: Span) {
        let unit = |address: u64| (address - self.origin) >> self.unit_lg2;
        let (mut first, last) = (unit(span.start()), unit(span.last()));
        while first <= last {
            self.turn_to(first / WINDOW_BITS);
            let end = last.min(self.number * WINDOW_BITS + (WINDOW_BITS - 1));
            self.set_in_window(first % WINDOW_BITS, end % WINDOW_BITS);
            first = end + 1;
        }
    }

    fn set_in_window(&mut self, first: u64, last: u64) {
        let (first_byte, last_byte) = ((first / 8) as usize, (last / 8) as usize);
        for byte in first_byte..=last_byte {
            let low = if byte == first_byte { u8::MAX << (first % 8) } else { u8::MAX };
            let high = if byte == last_byte { u8::MAX >> (7 - last % 8) } else { u8::MAX };
            self.window[byte] |= low & high;
        }
        let (first, last) = self.touched.unwrap_or((first_byte, last_byte));
        self.touched = Some((first.min(first_byte), last.max(last_byte)));
    }

    fn turn_to(&mut self, number: u64) {
        if number != self.number {
            self.flush();
            self.number = number;
        }
    }

    /// Adds the bits held back to the caller's. What cannot be reached is lost.
    fn flush(&mut self) {
        let Some((first, last)) = self.touched.take() else { return };
        let offset = self.number * WINDOW as u64 + first as u64;
        if let Some(at) = self.data.checked_add(offset) {
            let added = &self.window[first..=last];
            let mut bytes = vec![0; added.len()];
            if self.caller.read(at, &mut bytes).is_ok() {
                bytes.iter_mut().zip(added).for_each(|(byte, added)| *byte |= added);
                // A bitmap that cannot be written loses its bits, as in Linux.
                let _ = self.caller.write(at, &bytes);
            }
        }
        self.window.fill(0);
    }
}
