//! Where the words of tables live, and the atomics they are made of.
//!
//! In production `mem` has them. Under `--cfg loom` small ones of loom's own take their place, so
//! that every order of their loads and stores can be tried.

#[cfg(not(loom))]
pub(crate) use mem::{SparseWords, TableSlab, store_series};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(loom)]
pub(crate) use small::{SparseWords, TableSlab, store_series};

/// How the two sides of a handshake order their stores and loads: the frequent side pays nothing
/// where the rare one can issue a barrier on all threads.
#[derive(Debug)]
pub(crate) struct Barriers {
    /// The kernel issues no barrier for us: each side has its own fence.
    both_sides: bool,
}

impl Barriers {
    #[cfg(not(loom))]
    pub(crate) fn new() -> Self {
        Self { both_sides: mem::membarrier().is_err() }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { both_sides: true }
    }

    /// The frequent side: orders its stores so far before its loads from here on.
    #[inline]
    pub(crate) fn light(&self) {
        if self.both_sides {
            fence(Ordering::SeqCst);
        } else {
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
        }
    }

    /// The rare side.
    pub(crate) fn heavy(&self) {
        fence(Ordering::SeqCst);
        #[cfg(not(loom))]
        if !self.both_sides {
            mem::membarrier().expect("it was there when the table was made, and is not taken away");
        }
    }
}

#[cfg(loom)]
mod small {
    use std::io;
    use std::ops::Range;
    use std::sync::Mutex;

    use super::{AtomicU64, Ordering};
    use crate::TABLE_ENTRIES;

    #[derive(Debug)]
    pub(crate) struct SparseWords(Vec<AtomicU64>);

    impl SparseWords {
        pub(crate) fn new(length: usize) -> io::Result<Self> {
            Ok(Self((0..length).map(|_| AtomicU64::new(0)).collect()))
        }

        pub(crate) fn get(&self, index: u64) -> Option<&AtomicU64> {
            self.0.get(index as usize)
        }

        pub(crate) fn length(&self) -> usize {
            self.0.len()
        }

        pub(crate) fn slice(&self, range: Range<usize>) -> &[AtomicU64] {
            &self.0[range]
        }

        pub(crate) fn discard(&self, range: Range<usize>) {
            self.0[range].iter().for_each(|word| word.store(0, Ordering::SeqCst));
        }
    }

    pub(crate) fn store_series(words: &[AtomicU64], first: u64, step: u64) {
        for (value, word) in (0..).map(|index| first + index * step).zip(words) {
            word.store(value, Ordering::Release);
        }
    }

    const TABLES: u32 = 2;

    #[derive(Debug)]
    pub(crate) struct TableSlab {
        tables: Vec<[AtomicU64; TABLE_ENTRIES]>,
        free: Mutex<Vec<u32>>,
    }

    impl TableSlab {
        pub(crate) fn new(_tables_max: u32) -> io::Result<Self> {
            let table = || std::array::from_fn(|_| AtomicU64::new(0));
            let tables = (0..TABLES).map(|_| table()).collect();
            Ok(Self { tables, free: Mutex::new((0..TABLES).rev().collect()) })
        }

        pub(crate) fn allocate(&self) -> Option<u32> {
            self.free.lock().unwrap().pop()
        }

        pub(crate) fn free(&self, index: u32) {
            self.table(index).iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
            self.free_zeroed(index);
        }

        pub(crate) fn free_zeroed(&self, index: u32) {
            self.free.lock().unwrap().push(index);
        }

        pub(crate) fn reset(&self) {
            let mut free = self.free.lock().unwrap();
            for table in &self.tables {
                table.iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
            }
            *free = (0..TABLES).rev().collect();
        }

        pub(crate) fn in_use(&self) -> u32 {
            TABLES - self.free.lock().unwrap().len() as u32
        }

        pub(crate) fn table(&self, index: u32) -> &[AtomicU64; TABLE_ENTRIES] {
            &self.tables[index as usize]
        }
    }
}
