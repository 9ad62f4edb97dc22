//! The side of the table that translates.

use std::io;
use std::sync::Arc;

use span::Span;

use crate::entry::{Entry, Permission};
use crate::readers::{Announcement, Readers, Visitor};
use crate::tree::{Found, LEVEL1_LG2, Tree, index_in_table, load};
use crate::{Mapper, PAGE_LG2, Shape};

/// A translation table that is read while it changes.
#[derive(Debug)]
pub struct PageTable {
    pub(crate) tree: Tree,
    pub(crate) shape: Shape,
    readers: Arc<Readers>,
}

impl PageTable {
    /// An empty table and the one handle that changes it.
    ///
    /// # Errors
    /// As `mmap(2)`: `ENOMEM`, where addresses cannot be reserved. `EINVAL` for a shape that cannot
    /// be.
    pub fn new(shape: Shape) -> io::Result<(Arc<Self>, Mapper)> {
        Self::with_readers(shape, Readers::new())
    }

    /// As [`new`](Self::new), one of several tables whose readers are waited for together.
    ///
    /// # Errors
    /// As there.
    pub fn with_readers(shape: Shape, readers: Arc<Readers>) -> io::Result<(Arc<Self>, Mapper)> {
        if !cfg!(loom) && !(30..=57).contains(&shape.address_bits) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let tree = Tree::new(&shape)?;
        let table = Arc::new(Self { tree, shape, readers });
        let mapper = Mapper::new(Arc::clone(&table))?;
        Ok((table, mapper))
    }

    /// Registers someone who will translate. Takes the list of readers.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { visitor: self.readers.visitor(), table: Arc::clone(self) }
    }

    /// Those who may be walking.
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// The addresses that can be mapped.
    pub fn aperture(&self) -> Span {
        let last = (1 << self.shape.address_bits) - 1;
        Span::from_ends(0, last).expect("starts at zero")
    }
}

/// A thread's licence to translate through one table. Unregisters itself when dropped.
#[derive(Debug)]
pub struct Reader {
    visitor: Visitor,
    table: Arc<PageTable>,
}

impl Reader {
    /// Begins a walk. What it translates to stays valid until it is dropped, because whoever unmaps
    /// waits for it: keep it while data moves, and no longer. Takes no lock and never waits.
    #[inline]
    pub fn walk(&mut self) -> Walk<'_> {
        let sequence = self.visitor.begin();
        let announced = Some((&**self.visitor.announcement(), sequence));
        Walk { table: &self.table, announced }
    }

    /// The table.
    pub fn table(&self) -> &Arc<PageTable> {
        &self.table
    }
}

impl Visitor {
    /// A walk through `table`, valid as long as the stay.
    ///
    /// # Panics
    /// If no stay is announced, or the table has other readers.
    #[inline]
    pub fn walk<'a>(&'a self, table: &'a PageTable) -> Walk<'a> {
        let waited_for = self.is_inside() && Arc::ptr_eq(self.readers(), &table.readers);
        assert!(waited_for, "nobody would wait for this walk");
        Walk { table, announced: None }
    }
}

/// A stretch of time in which translations stay valid.
#[derive(Debug)]
pub struct Walk<'a> {
    table: &'a PageTable,
    /// What to end with the walk, and what was announced; `None` where a longer stay was.
    announced: Option<(&'a Announcement, u32)>,
}

impl Walk<'_> {
    /// Where the byte at `iova` is, and all that follow it in the same leaf.
    ///
    /// # Errors
    /// A [`Fault`] at `iova`.
    #[inline]
    pub fn translate(&self, iova: u64, access: Permission) -> Result<Piece, Fault> {
        self.table.tree.translate(iova, access)
    }

    /// Translates `span` leaf by leaf, in ascending order.
    ///
    /// # Errors
    /// The first [`Fault`] in it. Pieces before that were passed on.
    #[inline]
    pub fn for_each_piece(
        &self,
        span: Span,
        access: Permission,
        each: impl FnMut(Piece),
    ) -> Result<(), Fault> {
        self.table.tree.for_each_piece(span, access, each)
    }
}

impl Drop for Walk<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((announcement, sequence)) = self.announced {
            self.table.readers.end(announcement, sequence);
        }
    }
}

/// A run of bytes that one leaf translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The I/O virtual address of the first byte.
    pub iova: u64,
    /// Where it is.
    pub output: u64,
    /// Bytes.
    pub length: u64,
    /// What a device may do there.
    pub permission: Permission,
    /// The area's tag.
    pub tag: u16,
}

/// Why an address has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at I/O virtual address {iova:#x}")]
pub struct Fault {
    /// Where.
    pub iova: u64,
    /// Why.
    pub reason: FaultReason,
}

/// See [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultReason {
    /// Nothing is mapped, or an area that permits nothing.
    #[error("nothing is mapped")]
    Unmapped,
    /// The area permits less than was asked for.
    #[error("access not permitted")]
    Denied,
}

impl Tree {
    #[inline]
    pub(crate) fn translate(&self, iova: u64, access: Permission) -> Result<Piece, Fault> {
        let found = self.find_permitting(iova, access)?;
        Ok(found.piece(iova, found.last(iova)))
    }

    #[inline]
    fn for_each_piece(
        &self,
        span: Span,
        access: Permission,
        mut each: impl FnMut(Piece),
    ) -> Result<(), Fault> {
        let found = self.find_permitting(span.start(), access)?;
        let last = found.last(span.start());
        if span.last() <= last {
            each(found.piece(span.start(), span.last()));
            return Ok(());
        }
        each(found.piece(span.start(), last));
        self.further_pieces(found, last + 1, span.last(), access, each)
    }

    /// The pieces from `at` on, where the leaf `found` just ended.
    fn further_pieces(
        &self,
        mut found: Found,
        mut at: u64,
        span_last: u64,
        access: Permission,
        mut each: impl FnMut(Piece),
    ) -> Result<(), Fault> {
        loop {
            if found.size_lg2 == PAGE_LG2 && at & ((1 << LEVEL1_LG2) - 1) != 0 {
                at = match self.rest_of_table(at, span_last, access, &mut each)? {
                    Some(next) => next,
                    None => return Ok(()),
                };
            }
            found = self.find_permitting(at, access)?;
            let last = found.last(at).min(span_last);
            each(found.piece(at, last));
            if last == span_last {
                return Ok(());
            }
            at = last + 1;
        }
    }

    #[inline]
    fn find_permitting(&self, iova: u64, access: Permission) -> Result<Found, Fault> {
        match self.find(iova) {
            Some(found) if found.leaf.permits(access) => Ok(found),
            other => Err(refuse(iova, other.map_or(Entry::NOTHING, |found| found.leaf))),
        }
    }

    /// Goes on with the small pages of the table that covers `at`, which starts a page, without
    /// looking that up again for each. Returns where to continue, `None` at the end.
    #[inline]
    fn rest_of_table(
        &self,
        mut at: u64,
        last: u64,
        access: Permission,
        each: &mut impl FnMut(Piece),
    ) -> Result<Option<u64>, Fault> {
        let Some(table) = self.table(at) else { return Err(refuse(at, Entry::NOTHING)) };
        for word in &table[index_in_table(at)..] {
            let found = Found { leaf: load(word), size_lg2: PAGE_LG2 };
            if !found.leaf.permits(access) {
                return Err(refuse(at, found.leaf));
            }
            let page_last = found.last(at);
            each(found.piece(at, page_last.min(last)));
            if page_last >= last {
                return Ok(None);
            }
            at = page_last + 1;
        }
        Ok(Some(at))
    }
}

impl Found {
    #[inline]
    fn piece(self, iova: u64, last: u64) -> Piece {
        Piece {
            iova,
            output: self.output(iova),
            length: last - iova + 1,
            permission: self.leaf.permission(),
            tag: self.leaf.tag(),
        }
    }
}

#[cold]
fn refuse(iova: u64, leaf: Entry) -> Fault {
    let reason =
        if leaf.permits(Permission::NONE) { FaultReason::Denied } else { FaultReason::Unmapped };
    Fault { iova, reason }
}
