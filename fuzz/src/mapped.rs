//! What a context's mappings are, told from the commands that succeeded: a slow and obvious book.

use std::collections::BTreeMap;
use std::sync::Arc;

use uapi::Errno;
use uapi::iommufd::{Destroy, HwptAlloc, IoasMap, IoasMapFile, IoasUnmap, map_flags};

use crate::arena::{Arena, Reach};

/// The mappings of one context.
#[derive(Default)]
pub(crate) struct Mapped {
    ioases: BTreeMap<u32, Vec<Area>>,
    /// The IOAS of each page table.
    tables: BTreeMap<u32, u32>,
    /// A command failed when it had done its work, or half of it.
    unsure: bool,
}

struct Area {
    iova: u64,
    length: u64,
    /// Where it leads. Nowhere, until that matters, if there is no memory.
    reach: Option<Reach>,
}

impl Mapped {
    /// `IOMMU_IOAS_MAP` of `memory`.
    pub(crate) fn map(&mut self, map: &IoasMap, memory: &Arc<Arena>) {
        let reach = reach(memory, map.user_va, map.length, map.flags);
        self.add(map.ioas_id, Area { iova: map.iova, length: map.length, reach });
    }

    /// `IOMMU_IOAS_MAP_FILE` of a file that may have memory.
    pub(crate) fn map_file(&mut self, map: &IoasMapFile, memory: Option<&Arc<Arena>>) {
        let reach = memory.and_then(|memory| reach(memory, map.start, map.length, map.flags));
        self.add(map.ioas_id, Area { iova: map.iova, length: map.length, reach });
    }

    fn add(&mut self, ioas: u32, area: Area) {
        self.ioases.entry(ioas).or_default().push(area);
    }

    /// `IOMMU_IOAS_UNMAP`, as it was asked. What lies before an area that cannot be unmapped is gone.
    pub(crate) fn unmap(&mut self, unmap: &IoasUnmap, answer: Result<u32, Errno>) {
        let areas = self.ioases.entry(unmap.ioas_id).or_default();
        areas.sort_by_key(|area| area.iova);
        let all = (unmap.iova, unmap.length) == (0, u64::MAX);
        let last = unmap.iova.wrapping_add(unmap.length.wrapping_sub(1));
        let asked = unmap.iova..=if all { u64::MAX } else { last };
        let meets = |area: &Area| area.iova <= *asked.end() && area.last() >= *asked.start();
        let inside = |area: &Area| asked.contains(&area.iova) && asked.contains(&area.last());
        let refuses = areas.iter().find(|area| meets(area) && !inside(area)).map(|area| area.iova);
        match answer {
            Ok(_) => assert_eq!(refuses, None, "{unmap:x?} cut an area in two"),
            Err(Errno::ENOENT) => {}
            Err(_) => return,
        }
        areas.retain(|area| !inside(area) || refuses.is_some_and(|refuses| area.iova > refuses));
    }

    /// `IOMMU_DESTROY`.
    pub(crate) fn destroy(&mut self, destroy: &Destroy) {
        self.ioases.remove(&destroy.id);
        self.tables.remove(&destroy.id);
    }

    /// `IOMMU_HWPT_ALLOC`.
    pub(crate) fn table(&mut self, alloc: &HwptAlloc) {
        self.tables.insert(alloc.out_hwpt_id, alloc.pt_id);
    }

    /// A device was attached to `asked`, an IOAS or a page table, and so got `table`.
    pub(crate) fn attach(&mut self, asked: u32, table: u32) {
        let ioas = self.tables.get(&asked).copied().unwrap_or(asked);
        self.tables.insert(table, ioas);
    }

    /// It is no longer known what is mapped.
    pub(crate) fn lose_track(&mut self) {
        self.unsure = true;
    }

    /// Where DMA through a page table may lead. `None` if that is not known.
    pub(crate) fn reach(&self, table: u32) -> Option<Vec<Reach>> {
        if self.unsure {
            return None;
        }
        let ioas = self.tables.get(&table).expect("a page table that a command gave");
        let areas = self.ioases.get(ioas).into_iter().flatten();
        Some(areas.filter_map(|area| area.reach.clone()).collect())
    }

    /// How many areas there are, and their bytes. `None` if that is not known.
    pub(crate) fn count(&self) -> Option<(u64, u64)> {
        let areas = || self.ioases.values().flatten();
        let bytes = areas().fold(0_u64, |bytes, area| bytes.wrapping_add(area.length));
        (!self.unsure).then(|| (areas().count() as u64, bytes))
    }
}

impl Area {
    fn last(&self) -> u64 {
        self.iova + (self.length - 1)
    }
}

fn reach(memory: &Arc<Arena>, at: u64, length: u64, flags: u32) -> Option<Reach> {
    Some(Reach {
        memory: Arc::clone(memory),
        range: memory.range(at, length)?,
        read: flags & map_flags::READABLE != 0,
        write: flags & map_flags::WRITEABLE != 0,
    })
}
