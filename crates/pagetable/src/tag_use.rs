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
#[derive(Debug, Default)]
pub(crate) struct TagUses {
    by_tag: Vec<TagUse>,
    /// Tags that may have lost their last area.
    emptied: Vec<u16>,
}

impl TagUses {
    pub(crate) fn get(&self, tag: u16) -> TagUse {
        self.by_tag.get(usize::from(tag)).copied().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn add(&mut self, tag: u16, areas: u64, pages: u64) {
        match self.by_tag.get_mut(usize::from(tag)) {
            Some(usage) => {
                usage.areas += areas;
                usage.pages += pages;
            }
            None => self.add_first(tag, TagUse { areas, pages }),
        }
    }

    #[cold]
    fn add_first(&mut self, tag: u16, usage: TagUse) {
        self.by_tag.resize(usize::from(tag), TagUse::default());
        self.by_tag.push(usage);
    }

    #[inline]
    pub(crate) fn remove(&mut self, tag: u16, areas: u64, pages: u64) {
        let Some(usage) = self.by_tag.get_mut(usize::from(tag)) else { return };
        usage.areas -= areas;
        usage.pages -= pages;
        if areas > 0 && usage.areas == 0 && self.emptied.last() != Some(&tag) {
            self.emptied.push(tag);
        }
    }

    /// Tags that may have lost their last area since the last call.
    pub(crate) fn drain_emptied(&mut self) -> impl Iterator<Item = u16> {
        self.emptied.drain(..)
    }

    pub(crate) fn empty_all(&mut self) {
        for (tag, usage) in (0..).zip(&mut self.by_tag) {
            if std::mem::take(usage).areas > 0 {
                self.emptied.push(tag);
            }
        }
    }
}
