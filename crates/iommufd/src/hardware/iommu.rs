//! One IOMMU of the platform: which hardware it is, and what it can translate.
//!
//! Takes no lock.

use std::sync::Arc;

use super::Hardware;
use crate::Geometry;

/// One IOMMU of the platform.
#[derive(Debug)]
pub struct Iommu {
    hardware: Hardware,
    geometry: Geometry,
}

impl Iommu {
    /// An IOMMU of no particular hardware that can do what `geometry` says.
    pub fn new(geometry: Geometry) -> Arc<Self> {
        Self::of(Hardware::Plain, geometry)
    }

    /// An IOMMU of a kind of hardware, with this geometry.
    pub fn of(hardware: Hardware, geometry: Geometry) -> Arc<Self> {
        Arc::new(Self { hardware, geometry })
    }

    /// Which hardware it is.
    pub const fn hardware(&self) -> Hardware {
        self.hardware
    }

    /// What it can do.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether it is the kernel's mock.
    pub(crate) const fn is_mock(&self) -> bool {
        matches!(self.hardware, Hardware::Mock)
    }

    /// Whether page tables can be attached by PASID. The mock's take any device's.
    pub(crate) const fn has_pasids(&self) -> bool {
        self.is_mock() || self.geometry.max_pasid_log2 > 0
    }

    /// Whether page tables can be made to be attached by PASID. Drivers of real hardware ask only as one is attached.
    pub(crate) const fn makes_tables_for_pasids(&self) -> bool {
        self.has_pasids() || matches!(self.hardware, Hardware::Vtd | Hardware::Smmuv3)
    }

    /// Whether it is `other`. The mock's devices differ in what their IOMMU can, and it is one all the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.is_mock() && other.is_mock()
    }
}
