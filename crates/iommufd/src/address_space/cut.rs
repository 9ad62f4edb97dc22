//! Areas cut in two, as type1 of version 1 lets clients unmap any part of what they mapped.
//!
//! A page table's large leaves cannot be cut, so they have to be off.

use std::sync::Arc;

use super::AddressSpace;
use crate::area::Area;
use crate::{PAGE_SIZE, Refusal};

impl AddressSpace {
    /// Lets page tables have no leaf larger than the client's pages. Off already: nothing to do.
    ///
    /// # Errors
    /// - [`Refusal::LargePagesInUse`] (`EINVAL`): a page table shows areas.
    /// - [`Refusal::MisalignedArea`] (`EADDRINUSE`): an area is no whole number of pages.
    pub(crate) fn disable_large_pages(&mut self) -> Result<(), Refusal> {
        if !self.large_pages {
            return Ok(());
        }
        if !self.tables.is_empty() && self.map.next(0).is_some() {
            return Err(Refusal::LargePagesInUse);
        }
        self.check_areas_aligned(PAGE_SIZE.max(self.alignment))?;
        self.large_pages = false;
        self.realign();
        Ok(())
    }

    /// Whether page tables may have leaves larger than the client's pages.
    pub(crate) const fn large_pages(&self) -> bool {
        self.large_pages
    }

    /// Cuts the area that has the byte at `last` after it, unless it ends there. Returns the area that was cut, to be
    /// dropped with no lock held.
    ///
    /// # Errors
    /// Nothing is cut then:
    /// - [`Refusal::AreaBusy`] (`EBUSY`): it is still being mapped.
    /// - [`Refusal::Misaligned`] (`EINVAL`): the cut, or its place in memory.
    pub(crate) fn cut_after(&mut self, last: u64) -> Result<Option<Arc<Area>>, Refusal> {
        let Some(entry) = self.next_until(last, last) else { return Ok(None) };
        if entry.span.last() == last {
            return Ok(None);
        }
        if self.building.contains(&entry.span) {
            return Err(Refusal::AreaBusy { mapped: entry.span });
        }
        let below = last - entry.span.start() + 1;
        self.check_aligned(last + 1)?;
        self.check_aligned(entry.area.page_offset().wrapping_add(below))?;
        let lower = Arc::new(entry.area.part(0, below));
        let upper = Arc::new(entry.area.part(below, entry.area.length() - below));
        if self.map.cut(entry.span, last, lower, upper) {
            self.usage.areas += 1;
        }
        Ok(Some(entry.area))
    }
}
