//! What an IOVA map is, whatever its structure: areas by address, and for each whether its memory is there.
//!
//! All page tables of an address space translate through one map. Changes come from whoever holds the
//! address space's lock; translations come from running DMA at any time, without it. So an implementation
//! brings its own way to keep readers whole: a lock that is a leaf, or none.
//!
//! Who takes memory away waits for readers itself (see the crate documentation): a map only promises that a
//! translation begun after a change has returned sees that change.

use std::sync::Arc;

use pci::{DmaAccess, DmaFaultReason};
use span::Span;

use crate::Pinned;
use crate::area::Area;
use crate::placement::Fit;

/// Areas by address. Every span passed was checked by the address space; areas never overlap.
pub(crate) trait IovaMap: Send + Sync {
    /// Adds an area that is not filled: translation misses it.
    ///
    /// # Panics
    /// If it meets another area.
    fn insert(&self, span: Span, area: Arc<Area>);

    /// Takes out the area at exactly `span`, with its memory if it was filled.
    fn remove(&self, span: Span) -> Option<Removed>;

    /// Lets translations reach the area at exactly `span` from now on. Returns the memory where there is no
    /// such area or it is filled already.
    fn fill(&self, span: Span, memory: Arc<dyn Pinned>) -> Result<(), Arc<dyn Pinned>>;

    /// Makes two areas of the one at exactly `span`: `below` ends with the byte at `last`, `above` begins after it.
    /// Translations find the one or the two. Returns whether there was such an area.
    fn cut(&self, span: Span, last: u64, below: Arc<Area>, above: Arc<Area>) -> bool;

    /// Undoes [`fill`](Self::fill) on all areas and returns their memory.
    fn empty_all(&self) -> Vec<Arc<dyn Pinned>>;

    /// Where a byte is and how many more of the area follow, for one kind of access.
    ///
    /// # Errors
    /// [`DmaFaultReason::NotMapped`], [`DmaFaultReason::Permission`].
    fn translate(&self, iova: u64, access: DmaAccess) -> Result<Translation, DmaFaultReason>;

    /// The lowest area that lies at or above `from`, or covers it.
    fn next(&self, from: u64) -> Option<Entry>;

    /// The lowest span inside `within` that meets no area and suits `fit`.
    fn first_fit(&self, within: Span, fit: &Fit) -> Option<Span>;
}

/// An area as the map shows it.
pub(crate) struct Entry {
    pub(crate) span: Span,
    pub(crate) area: Arc<Area>,
    /// Whether its memory is there.
    pub(crate) filled: bool,
}

/// What was taken out of a map.
pub(crate) struct Removed {
    /// `None` if the area was not filled.
    pub(crate) memory: Option<Arc<dyn Pinned>>,
}

/// Where DMA finds a byte.
pub(crate) struct Translation {
    /// The memory of the area. To be let go before the reader leaves the epoch.
    pub(crate) memory: Arc<dyn Pinned>,
    /// The byte's place in that memory.
    pub(crate) offset: u64,
    /// Bytes from there to the end of the area, this one included.
    pub(crate) left: u64,
    /// How far into its page, in the client's eyes, the area's first byte lies.
    pub(crate) page_offset: u64,
}
