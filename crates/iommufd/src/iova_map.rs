//! What an IOVA map is, whatever its structure: areas by address, and for each whether its memory is there.
//!
//! All page tables of an address space translate through one map. Changes come from whoever holds the
//! address space's lock; translations come from running DMA at any time, without it. So an implementation
//! brings its own way to keep readers whole: locks that are leaves, or none.
//!
//! Who takes memory away waits for readers himself (see the crate documentation), and gives what is [`Left`] to
//! [`IovaMap::reclaim`] afterwards: a map only promises that a translation begun after a change has returned sees
//! that change.

use std::sync::Arc;

use pci::{DmaAccess, DmaFaultReason};
use span::Span;

use crate::area::Area;
use crate::in_flight::Stay;
use crate::placement::Fit;
use crate::{Pinned, Source};

/// Areas by address. Every span passed was checked by the address space; areas never overlap.
pub(crate) trait IovaMap: Send + Sync {
    /// Adds an area. Without memory, translation misses it.
    ///
    /// # Panics
    /// If it meets another area.
    fn insert(&self, span: Span, area: &Area, memory: Option<Arc<dyn Pinned>>);

    /// Takes out all areas wholly inside `asked`, ascending, up to the first that is only partly inside.
    fn remove(&self, asked: Span) -> Removed;

    /// Lets translations reach the area at exactly `span` from now on. Returns the memory where there is no
    /// such area or it is filled already.
    fn fill(&self, span: Span, memory: Arc<dyn Pinned>) -> Option<Arc<dyn Pinned>>;

    /// Undoes [`fill`](Self::fill) on all areas.
    fn empty_all(&self) -> Left;

    /// Makes two areas of the one that `entry` shows: the lower ends with the byte at `last`, the upper begins after
    /// it. Translations find the one or the two.
    fn cut(&self, entry: &Entry, last: u64) -> Left;

    /// Where a byte is and how many more follow there, for one kind of access. More than `most` may follow.
    ///
    /// # Errors
    /// [`DmaFaultReason::NotMapped`], [`DmaFaultReason::Permission`].
    fn translate(
        &self,
        inside: &Stay<'_>,
        iova: u64,
        access: DmaAccess,
        most: u64,
    ) -> Result<Translation, DmaFaultReason>;

    /// The lowest area that lies at or above `from`, or covers it.
    fn next(&self, from: u64) -> Option<Entry>;

    /// The lowest area that shares a byte with `span`.
    fn meeting(&self, span: Span) -> Option<Span>;

    /// The lowest address in `span` that no area covers.
    fn first_hole(&self, span: Span) -> Option<u64>;

    /// The lowest span inside `within` that meets no area and suits `fit`.
    fn first_fit(&self, within: Span, fit: &Fit) -> Option<Span>;

    /// Bytes of the areas whose memory is there.
    fn pinned_bytes(&self) -> u128;

    /// Takes back what changes left, once no reader of before them is left. Called with no lock held: memory is let
    /// go of here.
    fn reclaim(&self, left: Left);
}

/// An area as the map shows it.
pub(crate) struct Entry {
    pub(crate) span: Span,
    pub(crate) area: Area,
    /// Its memory, if that is there.
    pub(crate) memory: Option<Arc<dyn Pinned>>,
}

/// What was taken out of a map.
#[derive(Default)]
pub(crate) struct Removed {
    pub(crate) areas: u64,
    pub(crate) bytes: u128,
    /// The area that was only partly inside.
    pub(crate) sticks_out: Option<Span>,
    pub(crate) left: Left,
}

/// What readers may still use of what was changed, and what is to be dropped with no lock held.
#[derive(Default)]
#[must_use = "is given to `IovaMap::reclaim` when readers have left"]
pub(crate) struct Left {
    /// Whether readers may: those that stay have to be outwaited first.
    pub(crate) reachable: bool,
    pub(crate) memory: Vec<Arc<dyn Pinned>>,
    pub(crate) sources: Vec<Arc<dyn Source>>,
    pub(crate) tables: Option<pagetable::Retired>,
    /// Tags that no area carries any more.
    pub(crate) tags: Vec<u16>,
}

/// Where DMA finds a byte.
pub(crate) struct Translation {
    /// The memory. To be let go before the reader leaves.
    pub(crate) memory: Arc<dyn Pinned>,
    /// The byte's address there.
    pub(crate) at: u64,
    /// Bytes from there that follow one another, this one included.
    pub(crate) left: u64,
}
