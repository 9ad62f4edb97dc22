//! Memory of the client that can be pinned, with a ledger of pins.
//!
//! Pages of it can be taken away from commands ([`Access::readable`], [`Access::writable`]) and from
//! DMA under a pin ([`Access::gone`]). It panics where a device touches memory that it may not touch
//! at that moment ([`Ledger::allow_dma`]), or writes what was pinned for reading.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iommufd::{MemoryGone, PageIdentity, PinAccess, PinFault, Pinned, Source, Unreachable};

/// Bytes of a page.
pub(crate) const PAGE_SIZE: usize = 4096;
/// Bytes of an arena.
pub(crate) const LENGTH: usize = 16 * PAGE_SIZE;

/// A run of pages.
pub(crate) struct Arena {
    /// Address, or file offset, of the first byte.
    base: u64,
    /// What pinning beyond it answers.
    outside: PinFault,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
}

/// What is known of all arenas together.
#[derive(Default)]
pub(crate) struct Ledger {
    pinned_bytes: AtomicU64,
    allowed: Mutex<Allowed>,
}

/// Where DMA may lead.
#[derive(Default)]
pub(crate) enum Allowed {
    #[default]
    Nowhere,
    To(Vec<Reach>),
    Anywhere,
}

/// A part of an arena that a mapping leads to.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) memory: Arc<Arena>,
    pub(crate) range: Range<usize>,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Ledger {
    /// Bytes of all pins.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes.load(Ordering::Relaxed)
    }

    /// Says where DMA may lead from now on.
    pub(crate) fn allow_dma(&self, allowed: Allowed) {
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    fn check_dma(&self, memory: &Arc<Arena>, range: &Range<usize>, writes: bool) {
        let allows = |reach: &Reach| {
            Arc::ptr_eq(&reach.memory, memory)
                && reach.range.start <= range.start
                && range.end <= reach.range.end
                && if writes { reach.write } else { reach.read }
        };
        match &*self.allowed.lock().unwrap_or_else(PoisonError::into_inner) {
            Allowed::Nowhere => panic!("DMA by a device that is attached to nothing"),
            Allowed::To(all) => {
                assert!(all.iter().any(allows), "DMA to {range:x?}, which is not mapped so");
            }
            Allowed::Anywhere => {}
        }
    }
}

struct State {
    bytes: Vec<u8>,
    pages: [Access; LENGTH / PAGE_SIZE],
}

/// Who reaches a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Pins of it lead nowhere.
    pub(crate) gone: bool,
}

impl Access {
    /// Everybody.
    pub(crate) const ALL: Self = Self { readable: true, writable: true, gone: false };
}

impl Arena {
    pub(crate) fn new(base: u64, outside: PinFault, ledger: &Arc<Ledger>) -> Arc<Self> {
        let state = State { bytes: vec![0; LENGTH], pages: [Access::ALL; LENGTH / PAGE_SIZE] };
        Arc::new(Self { base, outside, ledger: Arc::clone(ledger), state: Mutex::new(state) })
    }

    pub(crate) fn protect(&self, page: usize, access: Access) {
        let mut state = self.lock();
        let page = page % state.pages.len();
        state.pages[page] = access;
    }

    pub(crate) fn protect_all(&self, access: Access) {
        self.lock().pages.fill(access);
    }

    /// The part that addresses, or file offsets, lead to.
    pub(crate) fn range(&self, at: u64, length: u64) -> Option<Range<usize>> {
        inside(self.offset(at)?, usize::try_from(length).ok()?)
    }

    /// Reads what is there and zeros beyond, whoever may.
    pub(crate) fn peek<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some(start) = self.offset(at) {
            let length = N.min(LENGTH - start);
            bytes[..length].copy_from_slice(&self.lock().bytes[start..start + length]);
        }
        bytes
    }

    /// Reads as far as pages can be read.
    pub(crate) fn read_prefix(&self, at: u64, into: &mut [u8]) -> usize {
        let Some(start) = self.offset(at) else { return 0 };
        let state = self.lock();
        let end = (start + into.len()).min(LENGTH);
        let pages = start / PAGE_SIZE..LENGTH / PAGE_SIZE;
        let stop = pages.into_iter().find(|page| !state.pages[*page].readable);
        let end = stop.map_or(end, |page| end.min((page * PAGE_SIZE).max(start)));
        into[..end - start].copy_from_slice(&state.bytes[start..end]);
        end - start
    }

    pub(crate) fn write(&self, at: u64, from: &[u8]) -> Result<(), Unreachable> {
        let start = self.offset(at).ok_or(Unreachable)?;
        let mut state = self.lock();
        let range = inside(start, from.len()).ok_or(Unreachable)?;
        if !state.all_pages(&range, |page| page.writable) {
            return Err(Unreachable);
        }
        state.bytes[range].copy_from_slice(from);
        Ok(())
    }

    /// Which byte is at an address: arenas differ in where they begin.
    pub(crate) fn page(&self, at: u64) -> Option<PageIdentity> {
        let offset = self.offset(at)? as u64;
        Some(PageIdentity { object: (self.base, 0), offset })
    }

    /// Writes what fits, whoever may.
    pub(crate) fn poke(&self, start: usize, bytes: &[u8]) {
        let end = (start + bytes.len()).min(LENGTH);
        self.lock().bytes[start..end].copy_from_slice(&bytes[..end - start]);
    }

    fn offset(&self, at: u64) -> Option<usize> {
        let offset = usize::try_from(at.checked_sub(self.base)?).ok()?;
        (offset < LENGTH).then_some(offset)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn all_pages(&self, range: &Range<usize>, check: impl Fn(&Access) -> bool) -> bool {
        range.is_empty()
            || self.pages[range.start / PAGE_SIZE..=(range.end - 1) / PAGE_SIZE].iter().all(check)
    }
}

fn inside(start: usize, length: usize) -> Option<Range<usize>> {
    let end = start.checked_add(length)?;
    (end <= LENGTH).then_some(start..end)
}

/// An arena as commands find it.
pub(crate) struct Pinnable(pub(crate) Arc<Arena>);

impl Source for Pinnable {
    fn pin(&self, at: u64, length: u64, access: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        let arena = &self.0;
        let start = arena.offset(at).ok_or(arena.outside)?;
        let length = usize::try_from(length).map_err(|_| arena.outside)?;
        let range = inside(start, length).ok_or(arena.outside)?;
        let state = arena.lock();
        let reachable = |page: &Access| match access {
            PinAccess::Read => page.readable,
            PinAccess::Write => page.readable && page.writable,
        };
        if !state.all_pages(&range, |page| reachable(page) && !page.gone) {
            return Err(PinFault::Unmapped);
        }
        arena.ledger.pinned_bytes.fetch_add(range.len() as u64, Ordering::Relaxed);
        Ok(Arc::new(Pin { arena: Arc::clone(arena), range, access }))
    }
}

struct Pin {
    arena: Arc<Arena>,
    range: Range<usize>,
    access: PinAccess,
}

impl Pin {
    /// Locks the arena for an access, and says where that is.
    fn enter(
        &self,
        at: u64,
        length: usize,
        writes: bool,
    ) -> Result<(MutexGuard<'_, State>, Range<usize>), MemoryGone> {
        let start = self.arena.offset(at).expect("DMA before the arena");
        let range = start..start + length;
        let pinned = self.range.start <= range.start && range.end <= self.range.end;
        assert!(pinned, "DMA beyond the pin");
        self.arena.ledger.check_dma(&self.arena, &range, writes);
        let state = self.arena.lock();
        if state.all_pages(&range, |page| !page.gone) {
            Ok((state, range))
        } else {
            Err(MemoryGone)
        }
    }
}

impl Pinned for Pin {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        let (state, range) = self.enter(at, into.len(), false)?;
        into.copy_from_slice(&state.bytes[range]);
        Ok(())
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), MemoryGone> {
        assert_eq!(self.access, PinAccess::Write, "DMA writes what was pinned for reading");
        let (mut state, range) = self.enter(at, from.len(), true)?;
        state.bytes[range].copy_from_slice(from);
        Ok(())
    }

    fn page(&self, at: u64) -> Option<PageIdentity> {
        self.arena.page(at)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let length = self.range.len() as u64;
        self.arena.ledger.pinned_bytes.fetch_sub(length, Ordering::Relaxed);
    }
}
