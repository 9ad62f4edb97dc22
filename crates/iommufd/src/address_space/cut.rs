//! Areas cut in two, as type1 of version 1 lets clients unmap any part of what they mapped.
//!
//! An IOMMU's large leaves cannot be cut, so Linux wants them off, and so do we.

use span::Span;

use super::AddressSpace;
use crate::access::AccessRefusal;
use crate::dma_buf::DmaBufRefusal;
use crate::iova_map::Left;
use crate::{PAGE_SIZE, Refusal, Resource};

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
        if !self.tables.is_empty() && self.meeting(Span::WHOLE).is_some() {
            return Err(Refusal::LargePagesInUse);
        }
        self.check_areas_aligned(PAGE_SIZE.max(self.alignment))?;
        self.large_pages = false;
        self.realign();
        Ok(())
    }

    /// Lets page tables have large leaves again.
    pub(crate) fn enable_large_pages(&mut self) {
        self.large_pages = true;
        self.realign();
    }

    /// Whether page tables may have leaves larger than the client's pages.
    pub(crate) const fn large_pages(&self) -> bool {
        self.large_pages
    }

    /// Cuts the area that has the byte at `last` after it, unless it ends there.
    ///
    /// # Errors
    /// Nothing is cut then:
    /// - [`Refusal::AreaBusy`] (`EBUSY`): it is still being mapped.
    /// - [`DmaBufRefusal::NotCut`] (`EOPNOTSUPP`)
    /// - [`AccessRefusal::PinnedArea`] (`EINVAL`): an access has pinned part of it.
    /// - [`Refusal::Misaligned`] (`EINVAL`): the cut, or its place in memory.
    /// - [`Refusal::Exhausted`] (`ENOMEM`)
    pub(crate) fn cut_after(&mut self, last: u64) -> Result<Left, Refusal> {
        let building = self.building.iter().find(|span| span.contains(last));
        if let Some(mapped) = building.filter(|span| span.last() != last) {
            return Err(Refusal::AreaBusy { mapped: *mapped });
        }
        let covering = self.map.next(last).filter(|entry| entry.span.contains(last));
        let Some(entry) = covering.filter(|entry| entry.span.last() != last) else {
            return Ok(Left::default());
        };
        if entry.area.source.import().is_some() {
            return Err(DmaBufRefusal::NotCut.into());
        }
        if self.accesses.pin_in(entry.span) {
            return Err(AccessRefusal::PinnedArea { mapped: entry.span }.into());
        }
        let below = last - entry.span.start() + 1;
        self.check_aligned(last + 1)?;
        self.check_aligned(entry.area.page_offset().wrapping_add(below))?;
        self.quota.admit(Resource::Area, self.areas + 1)?;
        self.areas += 1;
        Ok(self.map.cut(&entry, last))
    }
}
