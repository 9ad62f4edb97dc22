//! The client's memory: bytes at addresses from [`FIRST`] on, and a book of what is pinned.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use iommufd::{MemoryGone, PageIdentity, PinAccess, PinFault, Pinned, Source};
use mem::Pages;
use sync::{Mutex, rank};

use super::PAGE_BYTES;

/// The lowest address that exists.
pub(crate) const FIRST: u64 = 0x1000;

/// Bytes that exist.
pub(crate) const MEMORY_BYTES: u64 = 4 << 20;

/// The first address after them.
pub(crate) const MEMORY_END: u64 = FIRST + MEMORY_BYTES;

/// A page that cannot be written.
pub(crate) const READ_ONLY: Range<u64> = 0x8000..0x9000;

/// Memory of a client, or of a file of its.
pub(crate) struct Memory {
    first: u64,
    bytes: Pages,
    /// What a pin outside answers.
    outside: PinFault,
    /// DeviceSet is outermost of all ranks: taking it under any other lock fails.
    book: Mutex<rank::DeviceSet, Book>,
}

/// What a test does at a moment that it cannot reach otherwise.
type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Book {
    /// Run inside the next pin, before it succeeds.
    during_pin: Option<Meanwhile>,
    /// Run inside the next copy of DMA, after the first page.
    during_copy: Option<Meanwhile>,
    /// Run inside the next read that begins at an address.
    during_read: Option<(u64, Meanwhile)>,
    pinned: BTreeMap<u64, Range<u64>>,
    pins: u64,
    /// How many pins succeed before one fails.
    pins_left: Option<u64>,
    /// Addresses that DMA must not reach any more: it panics.
    closed: Vec<Range<u64>>,
    /// Addresses whose owner took them away.
    gone: Vec<Range<u64>>,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(FIRST, MEMORY_BYTES, PinFault::Unmapped)
    }

    /// A file of so many bytes.
    pub(crate) fn file(length: u64) -> Arc<Self> {
        Self::with(0, length, PinFault::FileRange)
    }

    fn with(first: u64, length: u64, outside: PinFault) -> Arc<Self> {
        let bytes = Pages::anonymous(usize::try_from(length).unwrap()).unwrap();
        Arc::new(Self { first, bytes, outside, book: Mutex::new(Book::default()) })
    }

    /// Address and length of what is pinned now.
    pub(crate) fn pinned(&self) -> Vec<(u64, u64)> {
        let book = self.book.lock();
        let mut ranges: Vec<_> =
            book.pinned.values().map(|range| (range.start, range.end - range.start)).collect();
        ranges.sort_unstable();
        ranges
    }

    /// How often something was pinned.
    pub(crate) fn pins(&self) -> u64 {
        self.book.lock().pins
    }

    /// Lets so many pins succeed, one fail for lack of memory, and the rest succeed.
    pub(crate) fn fail_pin_after(&self, successes: u64) {
        self.book.lock().pins_left = Some(successes);
    }

    /// Whether the failure asked for has not happened; it is called off.
    pub(crate) fn call_off_failure(&self) -> bool {
        self.book.lock().pins_left.take().is_some()
    }

    /// Runs `meanwhile` inside the next pin.
    pub(crate) fn during_next_pin(&self, meanwhile: impl FnOnce() + Send + 'static) {
        self.book.lock().during_pin = Some(Box::new(meanwhile));
    }

    /// Runs `meanwhile` inside the next copy of DMA.
    pub(crate) fn during_next_copy(&self, meanwhile: impl FnOnce() + Send + 'static) {
        self.book.lock().during_copy = Some(Box::new(meanwhile));
    }

    /// Runs `meanwhile` inside the next read of a command's that begins at `at`.
    pub(crate) fn during_read_at(&self, at: u64, meanwhile: impl FnOnce() + Send + 'static) {
        self.book.lock().during_read = Some((at, Box::new(meanwhile)));
    }

    /// Makes DMA to these addresses a failure of the test.
    pub(crate) fn close(&self, range: Range<u64>) {
        self.book.lock().closed.push(range);
    }

    /// Ends all [`close`](Self::close).
    pub(crate) fn open_all(&self) {
        self.book.lock().closed.clear();
    }

    /// Takes addresses away from under whoever pinned them.
    pub(crate) fn take_away(&self, range: Range<u64>) {
        self.book.lock().gone.push(range);
    }

    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> Option<()> {
        let meanwhile = self.book.lock().during_read.take_if(|(from, _)| *from == at);
        if let Some((_, run)) = meanwhile {
            run();
        }
        self.bytes.checked_read(self.offset(at)?, into)
    }

    pub(crate) fn write(&self, at: u64, from: &[u8]) -> Option<()> {
        assert_no_lock_held(self);
        self.bytes.checked_write(self.offset(at)?, from)
    }

    /// The page at an address.
    pub(crate) fn page(&self, at: u64) -> Option<PageIdentity> {
        let object = (std::ptr::from_ref(self).addr() as u64, 0);
        let offset = self.offset(at).filter(|offset| *offset < self.bytes.len());
        offset.map(|_| PageIdentity { object, offset: at })
    }

    /// Bytes from `at` to the end.
    pub(crate) fn bytes_from(&self, at: u64) -> usize {
        let offset = self.offset(at).unwrap_or(usize::MAX);
        self.bytes.len().saturating_sub(offset)
    }

    fn offset(&self, at: u64) -> Option<usize> {
        usize::try_from(at.checked_sub(self.first)?).ok()
    }

    fn check_dma(&self, range: Range<u64>) -> Result<(), MemoryGone> {
        let book = self.book.lock();
        let closed = book.closed.iter().any(|closed| meets(closed, &range));
        assert!(!closed, "DMA reaches {range:x?} although its UNMAP has returned");
        if book.gone.iter().any(|gone| meets(gone, &range)) { Err(MemoryGone) } else { Ok(()) }
    }
}

fn assert_no_lock_held(memory: &Memory) {
    drop(memory.book.lock());
}

fn meets(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The memory as something that can be pinned.
pub(crate) struct Pinnable(pub(crate) Arc<Memory>);

impl Source for Pinnable {
    fn is_file(&self) -> bool {
        self.0.outside == PinFault::FileRange
    }

    fn pin(&self, at: u64, length: u64, _: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        let memory = &self.0;
        let meanwhile = memory.book.lock().during_pin.take();
        if let Some(run) = meanwhile {
            run();
        }
        let mut book = memory.book.lock();
        match &mut book.pins_left {
            Some(0) => {
                book.pins_left = None;
                return Err(PinFault::Limit);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let end = at.checked_add(length).ok_or(memory.outside)?;
        if at < memory.first || end > memory.first + memory.bytes.len() as u64 {
            return Err(memory.outside);
        }
        let name = book.pins;
        book.pins += 1;
        book.pinned.insert(name, at..end);
        drop(book);
        Ok(Arc::new(Pin { memory: Arc::clone(memory), name }))
    }
}

impl Drop for Pinnable {
    fn drop(&mut self) {
        assert_no_lock_held(&self.0);
    }
}

/// A pinned range.
struct Pin {
    memory: Arc<Memory>,
    name: u64,
}

impl Pin {
    /// Copies by pages, with a pause in which others run, and checks before and after each.
    fn copy(
        &self,
        at: u64,
        length: usize,
        mut page: impl FnMut(u64, Range<usize>) -> Option<()>,
    ) -> Result<(), MemoryGone> {
        self.memory.check_dma(at..at + length as u64)?;
        for start in (0..length).step_by(PAGE_BYTES) {
            let end = length.min(start + PAGE_BYTES);
            page(at + start as u64, start..end).expect("a pin lies inside the memory");
            std::thread::yield_now();
            let meanwhile = self.memory.book.lock().during_copy.take();
            if let Some(run) = meanwhile {
                run();
            }
        }
        self.memory.check_dma(at..at + length as u64)
    }
}

impl Pinned for Pin {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.copy(at, into.len(), |at, range| self.memory.read(at, &mut into[range]))
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        self.copy(at, from.len(), |at, range| self.memory.write(at, &from[range]))
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.memory.page(at)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.memory.book.lock().pinned.remove(&self.name);
    }
}
