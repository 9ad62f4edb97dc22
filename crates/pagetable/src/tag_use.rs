//! How much of a table carries each tag.
//!
//! Whoever keeps something by tag learns here when the last area that refers to it is gone, although
//! whole tables are dropped unread. Takes no lock; belongs to the mapper.

/// How much carries a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagUse {
    /// Areas.
    pub areas: u64,
    /// Pages in them.
    pub pages: u64,
}

/// What carries each tag, up to the highest ever used.
///
/// Two lists, and not one of pairs: a compiler may write both halves of a pair one by one and read them together,
/// and then the processor waits until all that was stored before is in the cache, the leaves included.
#[derive(Debug, Default)]
pub(crate) struct TagUses {
    areas: Vec<u64>,
    pages: Vec<u64>,
    /// Tags that may have lost their last area.
    emptied: Vec<u16>,
}

impl TagUses {
    pub(crate) fn get(&self, tag: u16) -> TagUse {
        let of = |counts: &[u64]| counts.get(usize::from(tag)).copied().unwrap_or_default();
        TagUse { areas: of(&self.areas), pages: of(&self.pages) }
    }

    /// What carries any tag.
    pub(crate) fn total(&self) -> TagUse {
        TagUse { areas: self.areas.iter().sum(), pages: self.pages.iter().sum() }
    }

    #[inline]
    pub(crate) fn add(&mut self, tag: u16, areas: u64, pages: u64) {
        let index = usize::from(tag);
        match (self.areas.get_mut(index), self.pages.get_mut(index)) {
            (Some(areas_now), Some(pages_now)) => {
                *areas_now += areas;
                *pages_now += pages;
            }
            _ => self.add_first(index, TagUse { areas, pages }),
        }
    }

    #[cold]
    fn add_first(&mut self, index: usize, usage: TagUse) {
        self.areas.resize(index, 0);
        self.areas.push(usage.areas);
        self.pages.resize(index, 0);
        self.pages.push(usage.pages);
    }

    #[inline]
    pub(crate) fn remove(&mut self, tag: u16, areas: u64, pages: u64) {
        let index = usize::from(tag);
        let counts = (self.areas.get_mut(index), self.pages.get_mut(index));
        let (Some(areas_now), Some(pages_now)) = counts else { return };
        *areas_now -= areas;
        *pages_now -= pages;
        if areas > 0 && *areas_now == 0 {
            self.note_emptied(tag);
        }
    }

    #[cold]
    fn note_emptied(&mut self, tag: u16) {
        if self.emptied.last() != Some(&tag) {
            self.emptied.push(tag);
        }
    }

    /// Tags that may have lost their last area since the last call.
    pub(crate) fn drain_emptied(&mut self) -> impl Iterator<Item = u16> {
        self.emptied.drain(..)
    }

    pub(crate) fn empty_all(&mut self) {
        for (tag, areas) in (0..).zip(&mut self.areas) {
            if std::mem::take(areas) > 0 {
                self.emptied.push(tag);
            }
        }
        self.pages.fill(0);
    }
}
