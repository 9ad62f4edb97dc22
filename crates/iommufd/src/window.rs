//! Windows: memory of a driver that a client maps from the file of its context, at an offset that it was told.
//!
//! A vIOMMU has at most one, and it goes with the vIOMMU, which stays while a client maps it. Offsets are the lowest free
//! ones, in whole pages, and never 0. `taken` is OBJECTS, a leaf. Source: [uapi/iommufd.h]; v7.3 `driver.c`, `main.c`.

use std::collections::BTreeMap;

use sync::{Mutex, rank};

use crate::{PAGE_SIZE, Refusal};

/// Bytes at the beginning of a context's file in which all its windows lie.
pub const WINDOWS_BYTES: u64 = 4 << 20;

/// The windows of a context.
#[derive(Default)]
pub(crate) struct Windows {
    /// Lengths by offset.
    taken: Mutex<rank::Objects, BTreeMap<u64, u64>>,
}

/// A window, which whoever has it gives back.
#[derive(Debug)]
pub(crate) struct Window {
    /// Where in the file, in bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) length: u64,
}

impl Windows {
    /// A window of so many bytes, whole pages.
    ///
    /// # Errors
    /// [`Refusal::NoWindowFree`] (`ENOMEM`).
    ///
    /// Takes OBJECTS.
    pub(crate) fn take(&self, length: u64) -> Result<Window, Refusal> {
        let mut taken = self.taken.lock();
        let mut offset = PAGE_SIZE;
        for (&next, &others) in &*taken {
            if next - offset >= length {
                break;
            }
            offset = next + others;
        }
        if WINDOWS_BYTES - offset < length {
            return Err(Refusal::NoWindowFree { length });
        }
        taken.insert(offset, length);
        Ok(Window { offset, length })
    }

    /// Takes a window back.
    ///
    /// Takes OBJECTS.
    pub(crate) fn free(&self, window: &Window) {
        self.taken.lock().remove(&window.offset);
    }

    /// Whether exactly this is a window.
    ///
    /// Takes OBJECTS.
    pub(crate) fn has(&self, offset: u64, length: u64) -> bool {
        self.taken.lock().get(&offset) == Some(&length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_that_is_free_is_taken() {
        let windows = Windows::default();
        let offset = |length| windows.take(length).map(|window| window.offset / PAGE_SIZE);
        assert_eq!([2, 1, 3].map(|pages| offset(pages * PAGE_SIZE)), [Ok(1), Ok(3), Ok(4)]);
        windows.free(&Window { offset: 3 * PAGE_SIZE, length: PAGE_SIZE });
        assert_eq!([2, 1].map(|pages| offset(pages * PAGE_SIZE)), [Ok(7), Ok(3)]);
    }

    #[test]
    fn only_the_whole_is_a_window() {
        let windows = Windows::default();
        let window = windows.take(2 * PAGE_SIZE).unwrap();
        assert!(windows.has(window.offset, window.length));
        let others = [(0, 2), (1, 1), (1, 3), (2, 1), (3, 2)]
            .map(|(at, pages)| (at * PAGE_SIZE, pages * PAGE_SIZE));
        assert!(others.iter().all(|(offset, length)| !windows.has(*offset, *length)));
        windows.free(&window);
        assert!(!windows.has(window.offset, window.length));
    }

    #[test]
    fn there_is_an_end_of_them() {
        let windows = Windows::default();
        let length = WINDOWS_BYTES - PAGE_SIZE;
        assert_eq!(
            windows.take(length + 1).map(|_| ()),
            Err(Refusal::NoWindowFree { length: length + 1 })
        );
        windows.take(length).unwrap();
        assert_eq!(
            windows.take(PAGE_SIZE).map(|_| ()),
            Err(Refusal::NoWindowFree { length: PAGE_SIZE })
        );
    }
}
