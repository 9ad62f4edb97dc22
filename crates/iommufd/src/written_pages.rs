//! Which pages devices wrote through one page table, for as long as that is tracked.
//!
//! A device notes a write inside its stay, before or after it copies: who reads the log and makes it clean waits for
//! stays of before, so what it tells of is written by then. Pages are the client's, of 4 KiB, whatever the leaves: a
//! page is told apart as if no memory were contiguous.
//!
//! Locks: `tracked` and `reader` are OBJECTS, the plain log PAGES: each a leaf. None is held while somebody is waited
//! for. One reading at a time; others sleep.

use std::collections::BTreeSet;
use std::sync::Arc;

use pagetable::{Clear, DirtyBits, DirtyLog, DirtyReader, PAGE_LG2, Shape};
use span::Span;
use sync::{Mutex, WaitQueue, rank};

use crate::PAGE_SIZE;
use crate::in_flight::{InFlight, Stay};

/// The log of one page table.
pub(crate) struct WrittenPages {
    tracked: Mutex<rank::Objects, bool>,
    log: Log,
}

enum Log {
    /// Marked without locks.
    Lines {
        log: Arc<DirtyLog>,
        /// `None` while somebody reads.
        reader: Mutex<rank::Objects, Option<DirtyReader>>,
        /// Woken when a reading is over.
        idle: WaitQueue,
    },
    /// Numbers of pages.
    Plain(Mutex<rank::Pages, BTreeSet<u64>>),
}

/// Pages that were written: `words` has a bit for each from `first` on, the lowest first.
pub(crate) struct Run<'a> {
    pub(crate) first: u64,
    pub(crate) words: &'a [u64],
}

impl WrittenPages {
    /// A log of nothing, not tracking, for DMA that is counted as `in_flight` does.
    pub(crate) fn new(in_flight: &InFlight) -> Arc<Self> {
        let lines = match in_flight {
            InFlight::Announced(_) => DirtyLog::new(Shape::default().address_bits).ok(),
            InFlight::Counted(_) => None,
        };
        let log = match lines {
            Some((log, reader)) => {
                Log::Lines { log, reader: Mutex::new(Some(reader)), idle: WaitQueue::new() }
            }
            None => Log::Plain(Mutex::new(BTreeSet::new())),
        };
        Arc::new(Self { tracked: Mutex::new(false), log })
    }

    /// Notes that a device writes to `span`, if that is tracked.
    pub(crate) fn note(&self, stay: &Stay<'_>, span: Span) {
        if !*self.tracked.lock() {
            return;
        }
        match (&self.log, stay.visitor()) {
            (Log::Lines { log, .. }, Some(visitor)) => log.mark_in_stay(visitor, span),
            (Log::Lines { .. }, None) => {}
            (Log::Plain(pages), _) => pages.lock().extend(numbers(span)),
        }
    }

    /// Whether writes are noted.
    pub(crate) fn is_tracking(&self) -> bool {
        *self.tracked.lock()
    }

    /// Starts or stops tracking. What was noted stays.
    pub(crate) fn track(&self, tracked: bool) {
        *self.tracked.lock() = tracked;
    }

    /// Makes the pages of `span` clean. Called with nothing mapped there that a device may be writing to, or where it
    /// does not matter if that was before or after.
    pub(crate) fn forget(&self, span: Span) {
        match &self.log {
            Log::Lines { log, .. } => log.forget(span),
            Log::Plain(pages) => pages.lock().retain(|page| !numbers(span).contains(page)),
        }
    }

    /// Calls `each` with the pages of `span`, which is whole pages, that were written, ascending, and makes them clean
    /// if asked to. Called with no lock held, and holds none meanwhile.
    pub(crate) fn read(
        &self,
        in_flight: &InFlight,
        span: Span,
        clear: Clear,
        each: impl FnMut(Run<'_>),
    ) {
        match &self.log {
            Log::Lines { reader, idle, .. } => {
                let mut reader = Turn::take(reader, idle);
                reader.read(in_flight, span, clear, each);
            }
            Log::Plain(pages) => read_plain(pages, in_flight, span, clear, each),
        }
    }
}

/// A reading under way.
struct Turn<'a> {
    reader: Option<DirtyReader>,
    of: &'a Mutex<rank::Objects, Option<DirtyReader>>,
    idle: &'a WaitQueue,
}

impl<'a> Turn<'a> {
    fn take(of: &'a Mutex<rank::Objects, Option<DirtyReader>>, idle: &'a WaitQueue) -> Self {
        let mut free = idle.wait_while(of.lock(), |reader| reader.is_none());
        Self { reader: free.take(), of, idle }
    }

    fn read(
        &mut self,
        in_flight: &InFlight,
        span: Span,
        clear: Clear,
        mut each: impl FnMut(Run<'_>),
    ) {
        let Some(reader) = &mut self.reader else { return };
        if !reader.take(span, clear) {
            return;
        }
        if clear == Clear::Yes {
            in_flight.outwait();
        }
        let mut words = vec![0; CHUNK_WORDS];
        while let Some(at) = reader.next_taken() {
            let Some(chunk) = Span::new(at & !(CHUNK_BYTES - 1), CHUNK_BYTES) else { return };
            words.fill(0);
            let Some(mut bits) = DirtyBits::new(chunk, PAGE_LG2, &mut words) else { return };
            reader.deliver(chunk.last(), clear, &mut bits);
            each(Run { first: chunk.start(), words: &words });
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.of.lock() = self.reader.take();
        self.idle.wake_all();
    }
}

fn read_plain(
    pages: &Mutex<rank::Pages, BTreeSet<u64>>,
    in_flight: &InFlight,
    span: Span,
    clear: Clear,
    mut each: impl FnMut(Run<'_>),
) {
    let inside = numbers(span);
    let written: Vec<u64> = {
        let mut pages = pages.lock();
        let written = pages.range(inside.clone()).copied().collect();
        if clear == Clear::Yes {
            pages.retain(|page| !inside.contains(page));
        }
        written
    };
    if clear == Clear::Yes && !written.is_empty() {
        // A write noted before it was copied is told of when it is.
        in_flight.outwait();
    }
    for page in written {
        each(Run { first: page << PAGE_LG2, words: &[1] });
    }
}

/// The pages that `span` meets.
const fn numbers(span: Span) -> std::ops::RangeInclusive<u64> {
    span.start() / PAGE_SIZE..=span.last() / PAGE_SIZE
}

/// Bytes of addresses told of at once.
const CHUNK_BYTES: u64 = 1 << 30;
const CHUNK_WORDS: usize = (CHUNK_BYTES >> PAGE_LG2) as usize / u64::BITS as usize;
