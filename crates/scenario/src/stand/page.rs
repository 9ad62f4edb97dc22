//! The page that `map` maps: it knows whether a device may still touch it.
//!
//! One lock, a leaf.

use std::sync::Arc;

use iommufd::{MemoryGone, PinAccess, PinFault, Pinned, Source};
use sync::{Mutex, Named, Rank};

/// A page of a client.
pub(super) struct Page(Mutex<PageLock, bool>);

/// Whether a page was unmapped.
enum PageLock {}

impl Rank for PageLock {
    const ORDER: u8 = 145;
    const NAME: &'static str = "Page";
}

/// The pages that are mapped now.
pub(super) struct Mapped(Mutex<MappedLock, Vec<Arc<Page>>>);

enum MappedLock {}

impl Rank for MappedLock {
    const ORDER: u8 = 144;
    const NAME: &'static str = "Mapped";
}

impl Page {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(false).named("", || "page".to_owned())))
    }

    fn touch(&self) {
        let unmapped = *self.0.lock();
        assert!(!unmapped, "a device reached a page after UNMAP of it had returned");
    }
}

impl Mapped {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()).named("", || "mapped".to_owned()))
    }

    /// Notes that a page was mapped.
    pub(super) fn add(&self, page: Arc<Page>) {
        self.0.lock().push(page);
    }

    /// The pages whose mapping has returned. What an unmap that begins now takes away is among them, or is
    /// being mapped at the same time.
    pub(super) fn now(&self) -> Vec<Arc<Page>> {
        self.0.lock().clone()
    }

    /// Notes that an unmap of these has returned.
    pub(super) fn end(&self, pages: Vec<Arc<Page>>) {
        self.0.lock().retain(|page| !pages.iter().any(|ended| Arc::ptr_eq(page, ended)));
        for page in pages {
            *page.0.lock() = true;
        }
    }
}

/// A client's memory with that one page in it.
pub(super) struct Memory(pub(super) Arc<Page>);

impl Source for Memory {
    fn pin(&self, _: u64, _: u64, _: PinAccess) -> Result<Arc<dyn Pinned>, PinFault> {
        Ok(Arc::new(Memory(Arc::clone(&self.0))))
    }
}

impl Pinned for Memory {
    fn read(&self, _: u64, into: &mut [u8]) -> Result<(), MemoryGone> {
        self.0.touch();
        into.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryGone> {
        self.0.touch();
        Ok(())
    }
}
