//! What is mapped, as the source of a copy, and as others ask about it.

use span::Span;

use super::{AddressSpace, Piece};
use crate::Refusal;
use crate::area::{Area, Rights};

/// Parts of areas, ascending: all that a range covers, or those before the first that is refused. What is done with each in
/// turn may fail before that one is come to.
pub(crate) struct Parts {
    pub(crate) pieces: Vec<Piece>,
    /// Why there are no more.
    pub(crate) refusal: Option<Refusal>,
}

impl Parts {
    /// All of them.
    ///
    /// # Errors
    /// What was said against the first that was refused; [`Refusal::NotCovered`] (`ENOENT`) where there is none.
    pub(crate) fn all(self) -> Result<Vec<Piece>, Refusal> {
        match self.refusal {
            None => Ok(self.pieces),
            Some(refusal) => Err(refusal),
        }
    }
}

impl AddressSpace {
    /// The parts of areas that `asked` covers, ascending, each with its memory if that is there, to be mapped
    /// elsewhere with `rights`.
    ///
    /// # Errors
    /// [`Refusal::NotCovered`] (`ENOENT`): an address in it is not mapped, or is still being mapped.
    pub(crate) fn pieces(&self, asked: Span, rights: Rights) -> Result<Vec<Piece>, Refusal> {
        let mut pieces = self.each_part(asked, |_, _| Ok(())).all()?;
        for piece in &mut pieces {
            piece.area.rights = rights;
        }
        Ok(pieces)
    }

    /// The parts of areas that `asked` covers, ascending, up to the first that `check` has something against.
    pub(super) fn each_part(
        &self,
        asked: Span,
        mut check: impl FnMut(Span, &Area) -> Result<(), Refusal>,
    ) -> Parts {
        let mut parts = Parts { pieces: Vec::new(), refusal: None };
        let mut from = asked.start();
        loop {
            let last = match self.part_at(from, asked, &mut check) {
                Ok((piece, last)) => {
                    parts.pieces.push(piece);
                    last
                }
                Err(refusal) => return Parts { refusal: Some(refusal), ..parts },
            };
            match last {
                last if last == asked.last() => return parts,
                last => from = last + 1,
            }
        }
    }

    /// The part of an area that begins at `from`, and its last address.
    fn part_at(
        &self,
        from: u64,
        asked: Span,
        mut check: impl FnMut(Span, &Area) -> Result<(), Refusal>,
    ) -> Result<(Piece, u64), Refusal> {
        let covering = self.map.next(from).filter(|entry| entry.span.contains(from));
        let uncovered = Refusal::NotCovered { asked, iova: from };
        let entry = covering.ok_or(uncovered)?;
        let last = entry.span.last().min(asked.last());
        let part = Span::from_ends(from, last).ok_or(uncovered)?;
        let area = entry.area.part(from - entry.span.start(), part.length());
        check(part, &area)?;
        Ok((Piece { area, memory: entry.memory }, last))
    }

    /// The place of an area, counted from the lowest.
    pub(crate) fn nth_area(&self, number: usize) -> Option<Span> {
        self.entries(0).nth(number).map(|entry| entry.span)
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

    /// Makes a process answer for all areas, where that is remembered.
    pub(crate) fn hand_over(&self, process: u32) {
        let entries = self.entries(0);
        entries.for_each(|entry| {
            if let Some(set) = entry.area.source.page_set() {
                set.hand_over(process);
            }
        });
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
