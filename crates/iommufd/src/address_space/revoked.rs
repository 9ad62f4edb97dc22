//! Areas of buffers that were taken back: they stay, and lead nowhere.

use super::AddressSpace;
use crate::area::Area;
use crate::iova_map::{Entry, Left};

impl AddressSpace {
    /// Takes the memory away from areas of buffers that were taken back. Returns what to let go of, in parts.
    pub(crate) fn empty_revoked(&self) -> Vec<Left> {
        let shown = |entry: &Entry| entry.memory.is_some() && entry.area.is_revoked();
        let revoked: Vec<_> = self.entries(0).filter(shown).collect();
        let empty = |entry: &Entry| {
            let removed = self.map.remove(entry.span);
            self.map.insert(entry.span, &entry.area, None);
            removed.left
        };
        revoked.iter().map(empty).collect()
    }
}

impl Area {
    /// Whether its memory was taken back for good.
    pub(crate) fn is_revoked(&self) -> bool {
        self.source.import().is_some_and(|import| import.is_ended())
    }
}
