//! Areas of one page in a table that is there: what most changes are about.
//!
//! The leaf is seldom in a cache, and until its store is through, the processor holds all later stores back, as many
//! as it has room for. So these ways through make few, and read no leaf.

use super::{Mapper, Removed};
use crate::PAGE_LG2;
use crate::entry::{Entry, Target};
use crate::table_use::PageUse;
use crate::tree::{index_in_table, load, store};

impl Mapper {
    /// Inserts an area of the page at `iova`. Returns whether that was all there was to it.
    #[inline]
    pub(super) fn insert_page(&mut self, iova: u64, target: Target) -> bool {
        let Some(table) = self.table_at(iova) else { return false };
        let index = index_in_table(iova);
        let usage = self.uses.get_mut(table);
        if usage.page(index) != PageUse::Free {
            return false;
        }
        usage.note_tag(target.tag);
        usage.take_page(index);
        let leaf = Entry::leaf(target).starting_area().ending_area();
        store(&self.table.tree.tables.table(table)[index], leaf);
        self.gaps.touch(iova);
        self.tags.add(target.tag, 1, 1);
        true
    }

    /// Takes out the area of exactly the page at `iova`. `None` where there is more to it.
    #[inline]
    pub(super) fn remove_page(&mut self, iova: u64) -> Option<Removed> {
        let table = self.table_at(iova)?;
        let index = index_in_table(iova);
        let usage = self.uses.get_mut(table);
        if usage.page(index) != PageUse::Area || usage.mixed {
            return None;
        }
        usage.give_back_page(index);
        let (tag, pages) = (usage.tag, usage.pages);
        store(&self.table.tree.tables.table(table)[index], Entry::NOTHING);
        self.tags.remove(tag, 1, 1);
        self.gaps.touch(iova);
        if pages == 0 {
            self.note_empty(iova, table);
        }
        Some(Removed { areas: 1, bytes: 1 << PAGE_LG2 })
    }

    /// The level-0 table for `iova`.
    #[inline]
    pub(super) fn table_at(&self, iova: u64) -> Option<u32> {
        let linked = load(self.table.tree.level1_word(iova)?);
        linked.is_table().then(|| linked.index())
    }
}
