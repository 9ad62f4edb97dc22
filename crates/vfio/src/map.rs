//! Which parts of a device file may be mapped.
//!
//! Differs from vfio-pci, which maps a BAR whole: pages with registers cannot be mapped here, as a store to
//! a mapping would do nothing. The sparse-mmap capability says so to clients, and a mapping that
//! touches such a page is refused. Nor does a mapping end, or raise SIGBUS, while memory decoding
//! is off or during a reset.
//!
//! Takes no lock.

use pci::{Bar, BarKind};

use crate::region::{self, REGION_BASE, REGION_SHIFT, Region};
use crate::{Device, Refusal};

/// How a client asks to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// `MAP_SHARED`.
    pub shared: bool,
    /// `PROT_READ`.
    pub read: bool,
    /// `PROT_WRITE`.
    pub write: bool,
    /// `PROT_EXEC`.
    pub exec: bool,
}

/// Bytes of a page.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// Says whether `length` bytes at file offset `offset` may be mapped. What is asked beyond sharing does not
/// matter.
///
/// # Errors
/// [`Refusal::NotMappable`] – private, no BAR, not in whole pages, or not wholly inside one mappable area (`EINVAL`).
pub(crate) fn check(
    device: &Device,
    offset: u64,
    length: u64,
    request: MapRequest,
) -> Result<(), Refusal> {
    let region = offset.wrapping_sub(REGION_BASE) >> REGION_SHIFT;
    let refusal = Refusal::NotMappable { region, offset: offset & ((1 << REGION_SHIFT) - 1) };
    let Ok((Region::Bar(index), offset)) = region::locate(offset) else { return Err(refusal) };
    let length = length.checked_next_multiple_of(PAGE_SIZE).filter(|&length| length > 0);
    let end = length.and_then(|length| offset.checked_add(length));
    let bar = device.function().bar(index).filter(|bar| is_mappable(bar));
    let (Some(end), Some(bar)) = (end, bar) else { return Err(refusal) };
    let inside = areas(bar).any(|(start, length)| start <= offset && end <= start + length);
    if request.shared && offset.is_multiple_of(PAGE_SIZE) && inside { Ok(()) } else { Err(refusal) }
}

/// Whether any part of the BAR can be mapped.
pub(crate) fn is_mappable(bar: &Bar) -> bool {
    bar.kind != BarKind::Io && bar.size >= PAGE_SIZE && !bar.mappable.is_empty()
}

/// The parts of a BAR that can be mapped, neighbours joined: offset and length in bytes.
pub(crate) fn areas(bar: &Bar) -> impl Iterator<Item = (u64, u64)> {
    let mut areas: Vec<(u64, u64)> = bar.mappable.clone();
    areas.sort_unstable();
    areas.dedup_by(|next, area| {
        let touches = area.0 + area.1 >= next.0;
        if touches {
            area.1 = area.1.max(next.0 + next.1 - area.0);
        }
        touches
    });
    areas.into_iter()
}
