//! Areas that are there: finding them, and changing what they permit and carry.

use span::Span;

use super::{Area, Mapper, PageRun, count_below, next_boundary, table_start};
use crate::PAGE_LG2;
use crate::entry::{Entry, Permission, TAG_END, Target};
use crate::format::Leaf;
use crate::memory::AtomicU64;
use crate::tree::{Found, LEVEL1_LG2, LEVEL2_LG2, LEVEL3_LG2, Tree, index_in_table, load, store};

impl Mapper {
    /// Sets what devices may do to the area at exactly `span`. What is taken away may still be used
    /// by walks that go on. Allocates nothing.
    ///
    /// Returns `false`, and does nothing, where there is no such area.
    pub fn set_permission(&mut self, span: Span, permission: Permission) -> bool {
        let Some(area) = self.area_at(span.start()).filter(|area| area.span == span) else {
            return false;
        };
        self.rewrite(area, |leaf| leaf.permitting(permission));
        true
    }

    /// Gives the area at exactly `span` another tag. Walks that go on may find either.
    ///
    /// Returns `false`, and does nothing, where there is no such area or the tag is too large.
    pub fn set_tag(&mut self, span: Span, tag: u16) -> bool {
        let area = self.area_at(span.start()).filter(|area| area.span == span);
        let Some(area) = area.filter(|_| tag < TAG_END) else { return false };
        self.rewrite(area, |leaf| leaf.tagged(tag));
        self.note_tag_in_tables(span, tag);
        let pages = PageRun::covering(span).count();
        self.tags.add(tag, 1, pages);
        self.tags.remove(area.target.tag, 1, pages);
        true
    }

    /// The area that covers `iova`. Takes time in proportion to its leaves.
    pub fn area_at(&self, iova: u64) -> Option<Area> {
        self.table.tree.find(iova)?;
        let start = self.first_page_of_area(iova) << PAGE_LG2;
        let first = self.table.tree.find(start)?;
        let target = Target {
            output: first.leaf.output(),
            permission: first.leaf.permission(),
            tag: first.leaf.tag(),
        };
        let span = Span::from_ends(start, self.last_of_area(iova))?;
        Some(Area { span, target })
    }

    /// The lowest area that lies at or above `from`, or covers it.
    pub fn next_area(&self, from: u64) -> Option<Area> {
        let rest = Span::from_ends(from, self.table.aperture().last())?;
        let page = self.first_used(PageRun::covering(rest))?;
        self.area_at(from.max(page << PAGE_LG2))
    }

    /// Passes all leaves on, in ascending order, as hardware has them: as aligned in memory as they are large.
    pub fn for_each_leaf(&self, mut each: impl FnMut(Leaf)) {
        let mut from = Some(0);
        while let Some(area) = from.and_then(|from| self.next_area(from)) {
            let mut iova = area.span.start();
            while let Some(found) = self.table.tree.find(iova) {
                for_each_aligned(iova, found, &mut each);
                match found.last(iova) {
                    last if last >= area.span.last() => break,
                    last => iova = last + 1,
                }
            }
            from = area.span.last().checked_add(1);
        }
    }

    /// The lowest address in `span` that an area covers.
    pub fn first_mapped(&self, span: Span) -> Option<u64> {
        let inside = span.intersection(self.table.aperture())?;
        let page = self.first_used(PageRun::covering(inside))?;
        Some(span.start().max(page << PAGE_LG2))
    }

    /// The lowest page of `run` that an area covers.
    pub(super) fn first_used(&self, run: PageRun) -> Option<u64> {
        let tree = &self.table.tree;
        let mut page = run.first;
        while page < run.end {
            let iova = page << PAGE_LG2;
            let skip_lg2 = if count_below(&tree.level3, iova, LEVEL3_LG2) == 0 {
                LEVEL3_LG2
            } else {
                let level2 = tree.level2_word(iova).map(load)?;
                let level1 = tree.level1_word(iova).map(load)?;
                if level2.is_leaf() || level1.is_leaf() {
                    return Some(page);
                }
                if level1.is_table() {
                    let part = run.in_table_of(page);
                    let used = self.uses.get(level1.index()).first_used(part);
                    if let Some(index) = used {
                        return Some(table_start(page) + index as u64);
                    }
                }
                if level2.is_nothing() { LEVEL2_LG2 } else { LEVEL1_LG2 }
            };
            page = next_boundary(page, skip_lg2);
        }
        None
    }

    /// Whether no area lies on both sides of the boundary before `iova`.
    pub(super) fn may_cut_before(&self, iova: u64) -> bool {
        self.table.tree.find(iova).is_none_or(|at| at.start(iova) == iova && at.leaf.is_first())
    }

    /// Whether no area lies on both sides of the boundary after `iova`.
    pub(super) fn may_cut_after(&self, iova: u64) -> bool {
        self.table.tree.find(iova).is_none_or(|at| at.last(iova) == iova && at.leaf.is_last())
    }

    pub(super) fn first_page_of_area(&self, iova: u64) -> u64 {
        let mut at = iova;
        while let Some(found) = self.table.tree.find(at) {
            at = found.start(at);
            if found.leaf.is_first() || at == 0 {
                break;
            }
            at -= 1;
        }
        at >> PAGE_LG2
    }

    fn last_of_area(&self, iova: u64) -> u64 {
        let mut at = iova;
        while let Some(found) = self.table.tree.find(at) {
            at = found.last(at);
            if found.leaf.is_last() {
                break;
            }
            at += 1;
        }
        at
    }

    fn rewrite(&self, area: Area, change: impl Fn(Entry) -> Entry) {
        let mut at = area.span.start();
        while let Some((word, found)) = self.table.tree.leaf_word(at) {
            store(word, change(found.leaf));
            match found.last(at) {
                last if last >= area.span.last() => break,
                last => at = last + 1,
            }
        }
    }

    fn note_tag_in_tables(&mut self, span: Span, tag: u16) {
        let run = PageRun::covering(span);
        let mut page = run.first;
        while page < run.end {
            let linked = self.table.tree.level1_word(page << PAGE_LG2).map(load);
            if let Some(linked) = linked.filter(|entry| entry.is_table()) {
                let count = run.in_table_of(page).count();
                self.uses.get_mut(linked.index()).note_new_tag(tag, count);
            }
            page = next_boundary(page, LEVEL1_LG2);
        }
    }
}

impl Tree {
    /// The leaf that covers `iova`, and the word that it is in.
    fn leaf_word(&self, iova: u64) -> Option<(&AtomicU64, Found)> {
        let found = self.find(iova)?;
        let word = match found.size_lg2 {
            LEVEL2_LG2 => self.level2_word(iova)?,
            LEVEL1_LG2 => self.level1_word(iova)?,
            _ => &self.table(iova)?[index_in_table(iova)],
        };
        Some((word, found))
    }
}

/// Cuts a leaf at `iova` into leaves that are as aligned in memory as they are large.
fn for_each_aligned(iova: u64, found: Found, each: &mut impl FnMut(Leaf)) {
    let Found { leaf, size_lg2 } = found;
    let alignment_lg2 = leaf.output().trailing_zeros();
    let sizes = [LEVEL2_LG2, LEVEL1_LG2, PAGE_LG2];
    let fits = |lg2: &u32| *lg2 <= size_lg2 && *lg2 <= alignment_lg2;
    let size_lg2_here = sizes.into_iter().find(fits).unwrap_or(PAGE_LG2);
    for offset in (0..1_u64 << size_lg2).step_by(1 << size_lg2_here) {
        let (iova, output) = (iova + offset, leaf.output() + offset);
        each(Leaf { iova, size_lg2: size_lg2_here, output, permission: leaf.permission() });
    }
}
