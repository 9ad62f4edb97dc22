//! An I/O address space that a driver of the host keeps for its clients, who know nothing of contexts: what VFIO's own
//! type1 maps into.
//!
//! It is a context that no file leads to, with one IOAS and a page table for each IOMMU that has to show it. What is
//! mapped is pinned from the first page table on, devices are bound and attached as to any other context.
//!
//! `tables` is OBJECTS, a leaf. Source: [uapi/vfio.h].

use std::sync::Arc;

use span::Span;
use sync::{Mutex, rank};

use crate::area::{Area, Rights};
use crate::hwpt::{Hwpt, Purpose};
use crate::ioas::Ioas;
use crate::object::Pending;
use crate::placement::Placement;
use crate::registry::Headed;
use crate::{Context, Device, Endpoint, Iommu, Refusal, Source, Vm};

/// An address space of the host's.
pub struct HostSpace {
    ctx: Arc<Context>,
    ioas: Arc<Ioas>,
    tables: Mutex<rank::Objects, Vec<Arc<Hwpt>>>,
}

/// Memory to be mapped: `length` bytes of `source` from `at` on.
pub struct HostMapping {
    /// Whose memory.
    pub source: Arc<dyn Source>,
    /// Virtual address of the first byte.
    pub at: u64,
    /// Bytes.
    pub length: u64,
    /// Whether devices may read it.
    pub read: bool,
    /// Whether devices may write it.
    pub write: bool,
}

impl HostSpace {
    /// An empty space in a context that is nobody else's, whose file reference it takes. Ends with
    /// [`close`](Self::close).
    ///
    /// # Errors
    /// [`Refusal::OutOfIds`] (`ENOMEM`).
    pub fn new(ctx: Arc<Context>) -> Result<Self, Refusal> {
        let ioas = Pending::build(&ctx, |header| Ok(Ioas::new(&ctx, header)));
        match ioas.map(Pending::publish) {
            Ok(ioas) => Ok(Self { ctx, ioas, tables: Mutex::new(Vec::new()) }),
            Err(refusal) => {
                ctx.put_file();
                Err(refusal)
            }
        }
    }

    /// Shows the space to the devices behind `iommu`: what is mapped is pinned, from now on. An IOMMU that shows it
    /// already: nothing to do. Not called by two at a time.
    ///
    /// # Errors
    /// [`Refusal::OutOfIds`] (`ENOMEM`), [`Refusal::PageSize`] (`EINVAL`), [`Refusal::MisalignedArea`],
    /// [`Refusal::ReservedMapped`] (`EADDRINUSE`), [`Refusal::Pin`] (`EFAULT`, `EINVAL`, `ENOMEM`).
    ///
    /// Takes IOAS, IOPT_IOVA; holds none while it pins.
    pub fn show_to(&self, iommu: &Arc<Iommu>) -> Result<(), Refusal> {
        if self.table_of(iommu).is_some() {
            return Ok(());
        }
        let purpose = Purpose::Command { flags: 0 };
        let pending = Hwpt::build(&self.ctx, &self.ioas, iommu, purpose)?;
        self.ioas.tables.lock().push(Arc::clone(&pending));
        let table = pending.publish();
        self.tables.lock().push(table);
        Ok(())
    }

    /// Maps memory at `iova`.
    ///
    /// # Errors
    /// [`Refusal::Empty`], [`Refusal::TooLong`], [`Refusal::Misaligned`] (`EINVAL`), [`Refusal::PastTop`]
    /// (`EOVERFLOW`), [`Refusal::Reserved`] (`EINVAL`), [`Refusal::Overlap`] (`EEXIST`), [`Refusal::Pin`] (`EFAULT`,
    /// `EINVAL`, `ENOMEM`).
    ///
    /// Takes IOPT_IOVA; does not hold it while it pins.
    pub fn map(&self, mapping: HostMapping, iova: u64) -> Result<(), Refusal> {
        let HostMapping { source, at, length, read, write } = mapping;
        let area = Area::new(source, at, length, Rights { read, write })?;
        self.ioas.map(area, Placement::Fixed(iova)).map(|_| ())
    }

    /// Unmaps what was mapped at exactly `span`, and returns when no DMA reaches it any more. There has to be such a
    /// mapping.
    ///
    /// Takes IOPT_IOVA; holds nothing while it waits.
    pub fn unmap(&self, span: Span) {
        let unmapped = self.ioas.unmap(&self.ctx, span);
        assert_eq!(unmapped.ok(), Some(span.length()), "{span} was mapped as a whole");
    }

    /// Binds a function, for a VM if there is one.
    ///
    /// # Errors
    /// As [`Device::bind_for`].
    pub fn bind(
        &self,
        endpoint: &Arc<Endpoint>,
        vm: Option<Arc<dyn Vm>>,
    ) -> Result<Arc<Device>, Refusal> {
        Device::bind_for(&self.ctx, endpoint, vm)
    }

    /// Lets the DMA of a device that was bound here through the page table of its IOMMU.
    ///
    /// # Errors
    /// As [`Device::attach`]; [`Refusal::NoObject`] (`ENOENT`): the space is not shown to its IOMMU.
    pub fn attach(&self, device: &Arc<Device>) -> Result<(), Refusal> {
        let table = self.table_of(device.endpoint().iommu()).ok_or(Refusal::NoObject { id: 0 })?;
        device.attach(table).map(|_| ())
    }

    /// Unmaps all and ends the space. No device is bound to it any more.
    pub fn close(&self) {
        self.ctx.put_file();
    }

    fn table_of(&self, iommu: &Arc<Iommu>) -> Option<u32> {
        let tables = self.tables.lock();
        let table = tables.iter().find(|table| Arc::ptr_eq(table.iommu(), iommu))?;
        Some(table.header().id())
    }
}
