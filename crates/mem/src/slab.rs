//! Tables of atomic words, named by index instead of by pointer.
//!
//! The slab reserves address space for as many tables as it may ever hold and takes memory for a
//! table when it is first written. So it grows in place, a table's address never changes, and an
//! index of 32 bits is all that an entry needs to name the next table down.
//!
//! One lock inside, a leaf: held while an index is handed out or taken back, not while a table is
//! read. A free table's first word links to the next free one, so freeing allocates nothing and
//! cannot fail.
//!
//! A large slab is held in large pages of the processor, so that a table far from the last is found
//! without a walk through memory. A small one is not, because a large page is taken whole.

#![expect(unsafe_code, reason = "UNSAFETY: views parts of a private mapping as arrays of atomics")]

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::mm::{Advice, MapFlags, madvise};

use crate::mapping::Mapping;

/// Entries in a table: a page of 8-byte words.
pub const TABLE_ENTRIES: usize = 512;

const TABLE_BYTES: usize = TABLE_ENTRIES * size_of::<AtomicU64>();
const LARGE_PAGE_BYTES: usize = 2 << 20;
const LARGE_PAGE_TABLES: u32 = 512;
/// Tables below this index are taken in small pages and moved into a large one when that is full;
/// above, a large page is taken at once, at most a sixteenth of what is there already.
const SMALL_TABLES: u32 = 16 * LARGE_PAGE_TABLES;

/// A slab of tables of [`TABLE_ENTRIES`] words.
#[derive(Debug)]
pub struct TableSlab {
    mapping: Mapping,
    /// Bytes from the mapping's first to the first table, which lies on a large page.
    origin: usize,
    tables_max: u32,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Tables from this index on were never handed out, and are zero.
    unused: u32,
    /// The table freed last.
    first: Option<u32>,
    /// Tables handed out and not freed.
    in_use: u32,
}

impl TableSlab {
    /// A slab that can hold `tables_max` tables, at least one. Reserves 4 KiB of address space for
    /// each and takes no memory yet.
    ///
    /// # Errors
    /// As `mmap(2)`: `EINVAL` where `tables_max` is zero, `ENOMEM`.
    pub fn new(tables_max: u32) -> io::Result<Self> {
        if tables_max == 0 {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let length = tables_max as usize * TABLE_BYTES + LARGE_PAGE_BYTES;
        let mapping = Mapping::anonymous(length, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        let origin = mapping.address().align_offset(LARGE_PAGE_BYTES);
        let slab = Self { mapping, origin, tables_max, free: Mutex::default() };
        slab.advise(SMALL_TABLES..tables_max, Advice::LinuxHugepage);
        Ok(slab)
    }

    /// Hands out a table of zeros and returns its index; `None` where all are in use.
    pub fn allocate(&self) -> Option<u32> {
        let mut free = self.lock();
        let index = match free.first {
            Some(index) => {
                let link = &self.table(index)[LINK];
                free.first = u32::try_from(link.load(Relaxed)).ok().filter(|next| *next != END);
                link.store(0, Relaxed);
                index
            }
            None if free.unused < self.tables_max => {
                free.unused += 1;
                if free.unused.is_multiple_of(LARGE_PAGE_TABLES) && free.unused <= SMALL_TABLES {
                    // The page about to be completed is not written yet, but nearly all are.
                    self.collapse(free.unused - LARGE_PAGE_TABLES..free.unused);
                }
                free.unused - 1
            }
            None => return None,
        };
        free.in_use += 1;
        Some(index)
    }

    /// Takes a table back. Nobody may still be reading it, and nobody may name it again before it
    /// is handed out anew.
    ///
    /// # Panics
    /// If `index` was never handed out.
    pub fn free(&self, index: u32) {
        // Here and not in `allocate`, so that mapping need not wait for it.
        for entry in self.table(index) {
            entry.store(0, Relaxed);
        }
        self.free_zeroed(index);
    }

    /// As [`free`](Self::free), for a table that holds nothing but zeros.
    ///
    /// # Panics
    /// If `index` was never handed out.
    pub fn free_zeroed(&self, index: u32) {
        let mut free = self.lock();
        assert!(index < free.unused, "table {index} was never handed out");
        self.table(index)[LINK].store(u64::from(free.first.unwrap_or(END)), Relaxed);
        free.first = Some(index);
        free.in_use -= 1;
    }

    /// Takes all tables back and gives their memory to the system, without reading a table. As for
    /// [`free`](Self::free), nobody may still be reading one.
    pub fn reset(&self) {
        let mut free = self.lock();
        if !self.advise(0..free.unused, Advice::LinuxDontNeed) {
            for index in 0..free.unused {
                self.table(index).iter().for_each(|entry| entry.store(0, Relaxed));
            }
        }
        *free = Free::default();
    }

    /// The table at `index`. Of one that is not handed out the contents mean nothing.
    ///
    /// # Panics
    /// If `index` is not below the slab's maximum.
    #[inline]
    pub fn table(&self, index: u32) -> &[AtomicU64; TABLE_ENTRIES] {
        assert!(index < self.tables_max, "table {index} is outside of the slab");
        let offset = self.origin + index as usize * TABLE_BYTES;
        // SAFETY: inside the mapping, which lives as long as the borrow of `self`; aligned to a
        // page; zeroed or written through these atomics, so initialized; never written otherwise.
        unsafe { self.mapping.address().add(offset).cast().as_ref() }
    }

    /// Tables handed out and not freed.
    pub fn in_use(&self) -> u32 {
        self.lock().in_use
    }

    /// Moves tables that were taken in small pages into a large one. Where the kernel cannot, they
    /// stay where they are.
    fn collapse(&self, tables: Range<u32>) {
        let (address, length) = self.place(tables);
        // SAFETY: inside the mapping. What the addresses hold does not change.
        let _ = unsafe { libc::madvise(address, length, libc::MADV_COLLAPSE) };
    }

    /// Whether the kernel took the advice, which must be one that leaves the tables as they are or
    /// zero.
    fn advise(&self, tables: Range<u32>, advice: Advice) -> bool {
        if tables.is_empty() {
            return true;
        }
        let (address, length) = self.place(tables);
        // SAFETY: whole pages inside the mapping; the words keep their values or become zero.
        unsafe { madvise(address, length, advice) }.is_ok()
    }

    fn place(&self, tables: Range<u32>) -> (*mut c_void, usize) {
        assert!(tables.end <= self.tables_max, "tables {tables:?} are outside of the slab");
        let offset = self.origin + tables.start as usize * TABLE_BYTES;
        // SAFETY: inside the mapping, or one past its end.
        let address = unsafe { self.mapping.address().add(offset) };
        (address.as_ptr().cast(), tables.len() * TABLE_BYTES)
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The word of a free table that links to the next.
const LINK: usize = 0;
/// No table: the slab's maximum is a `u32`, so this index is never reached.
const END: u32 = u32::MAX;
