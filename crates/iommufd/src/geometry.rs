//! What an IOMMU of the platform can translate.
//!
//! Plain values that a platform file describes. Takes no lock. Deliberately absent: what is mapped.

use span::Span;

/// What an IOMMU can do and which addresses it leaves to devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The I/O virtual addresses that it translates.
    pub aperture: Span,
    /// Spans inside or outside the aperture that are not for mappings.
    pub reserved: Vec<Reserved>,
    /// Page sizes: bit n set means pages of 2^n bytes.
    pub page_sizes: u64,
    /// Whether written pages can be logged.
    pub dirty_tracking: bool,
    /// Whether DMA is coherent with caches. Devices behind one that is not cannot be bound.
    pub cache_coherent: bool,
    /// Whether interrupts are isolated. Devices behind one that does not cannot be bound.
    pub msi_isolated: bool,
    /// Bits of the largest PASID; 0 means no PASID.
    pub max_pasid_log2: u8,
}

impl Geometry {
    /// Spans that a device behind this IOMMU keeps from being mapped in what it is attached to.
    pub(crate) fn device_regions(&self) -> impl Iterator<Item = Span> + Clone {
        self.reserved
            .iter()
            .filter(|region| region.kind != ReservedKind::DirectRelaxable)
            .map(|region| region.span)
    }

    /// Spans below and above the aperture.
    pub(crate) fn outside_aperture(&self) -> impl Iterator<Item = Span> + Clone {
        let below = self.aperture.start().checked_sub(1).and_then(|last| Span::from_ends(0, last));
        let above =
            self.aperture.last().checked_add(1).and_then(|start| Span::from_ends(start, u64::MAX));
        below.into_iter().chain(above)
    }

    /// Bytes of the smallest page; 0 if there is none.
    pub(crate) const fn smallest_page(&self) -> u64 {
        self.page_sizes & self.page_sizes.wrapping_neg()
    }
}

/// A span of I/O virtual addresses that is not for mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The addresses.
    pub span: Span,
    /// What they are for.
    pub kind: ReservedKind,
}

/// What a reserved span is for, as `reserved_regions` in sysfs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedKind {
    /// Firmware uses it through an identity mapping: `direct`.
    Direct,
    /// As `Direct`, but an assigned device does without: `direct-relaxable`. Does not keep mappings out.
    DirectRelaxable,
    /// Not translated: `reserved`.
    Reserved,
    /// Where devices write MSIs: `msi`.
    Msi,
}
