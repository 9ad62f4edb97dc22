//! What is mapped, as the source of a copy, and as others ask about it.

use span::Span;

use super::{AddressSpace, Piece};
use crate::Refusal;
use crate::area::Rights;

impl AddressSpace {
    /// The parts of areas that `asked` covers, ascending, each with its memory if that is there, to be mapped
    /// elsewhere with `rights`.
    ///
    /// # Errors
    /// [`Refusal::NotCovered`] (`ENOENT`): an address in it is not mapped, or is still being mapped.
    pub(crate) fn pieces(&self, asked: Span, rights: Rights) -> Result<Vec<Piece>, Refusal> {
        let mut pieces = Vec::new();
        let mut from = asked.start();
        loop {
            let covering = self.map.next(from).filter(|entry| entry.span.contains(from));
            let entry = covering.ok_or(Refusal::NotCovered { asked, iova: from })?;
            let last = entry.span.last().min(asked.last());
            let mut area = entry.area.part(from - entry.span.start(), last - from + 1);
            area.rights = rights;
            pieces.push(Piece { area, memory: entry.memory });
            match last {
                last if last == asked.last() => return Ok(pieces),
                last => from = last + 1,
            }
        }
    }

    /// Says whether all areas are of files.
    ///
    /// # Errors
    /// - [`Refusal::AreaBusy`] (`EBUSY`): one is still being mapped.
    /// - [`Refusal::NoFile`] (`EINVAL`): one is not.
    pub(crate) fn check_all_files(&self) -> Result<(), Refusal> {
        if let Some(mapped) = self.building.first() {
            return Err(Refusal::AreaBusy { mapped: *mapped });
        }
        match self.entries(0).find(|entry| !entry.area.source.is_file()) {
            Some(entry) => Err(Refusal::NoFile { mapped: entry.span }),
            None => Ok(()),
        }
    }

    /// The end of what is mapped from `span`'s first byte on without a hole, inside `span`.
    pub(crate) fn mapped_run(&self, span: Span) -> Option<Span> {
        let last = match self.map.first_hole(span) {
            Some(hole) => hole.checked_sub(1)?,
            None => span.last(),
        };
        Span::from_ends(span.start(), last)
    }
}
