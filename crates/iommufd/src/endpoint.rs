//! A function of the platform as iommufd meets it: where it sits, which iommu_group and IOMMU it has, and
//! what binds its TDI.
//!
//! Outlives contexts. Takes no lock.

use std::sync::Arc;

use pci::{Address, Notices};

use crate::{Group, Iommu};

/// A PCI function that can be bound to a context.
pub struct Endpoint {
    address: Address,
    group: Arc<Group>,
    iommu: Arc<Iommu>,
    notices: Arc<dyn Notices>,
    tsm: Option<Arc<tsm::Registry>>,
}

impl Endpoint {
    /// The function at `address`. Its DMA faults are told to `notices`, with no lock held.
    pub fn new(
        address: Address,
        group: Arc<Group>,
        iommu: Arc<Iommu>,
        notices: Arc<dyn Notices>,
    ) -> Arc<Self> {
        Arc::new(Self { address, group, iommu, notices, tsm: None })
    }

    /// As [`new`](Self::new); its TDI can be bound through `tsm`.
    pub fn with_tsm(
        address: Address,
        group: Arc<Group>,
        iommu: Arc<Iommu>,
        notices: Arc<dyn Notices>,
        tsm: Arc<tsm::Registry>,
    ) -> Arc<Self> {
        Arc::new(Self { address, group, iommu, notices, tsm: Some(tsm) })
    }

    /// Where the function sits.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Its iommu_group.
    pub const fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// The IOMMU in front of it.
    pub const fn iommu(&self) -> &Arc<Iommu> {
        &self.iommu
    }

    /// Where what goes wrong with it is told to people.
    pub const fn notices(&self) -> &Arc<dyn Notices> {
        &self.notices
    }

    /// What speaks to its security manager; `None` where nothing does.
    pub const fn tsm(&self) -> Option<&Arc<tsm::Registry>> {
        self.tsm.as_ref()
    }
}
