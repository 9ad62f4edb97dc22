//! The interface report: what a locked interface says of itself.
//!
//! [`describe`] makes one from the BARs of a function, [`encode`] from any ranges, [`decode`] reads
//! one. Source: [pci_tdisp.h] `pci_tdisp_device_interface_report_struct_t`.

mod bars;

use core::fmt;

use crate::{EncodeFault, PeerFault, Reader, Writer};

pub use bars::{Extent, FirstPage, Function, MemoryBar, Undescribable, describe};

/// Bytes of a page, the unit of a range.
pub const PAGE_BYTES: u64 = 4096;

const RESERVED_BYTES: usize = 2;
const RANGE_BYTES: usize = 16;

/// Reads a report.
///
/// # Errors
/// [`PeerFault::Short`] where it ends inside a range or the device's own bytes,
/// [`PeerFault::Trailing`] where it goes on after them.
pub fn decode(report: &[u8]) -> Result<InterfaceReport<'_>, PeerFault> {
    Reader::all("interface report", report, |reader| {
        let fields = Fields::read(reader)?;
        let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        let ranges = Ranges { bytes: reader.bytes(count.saturating_mul(RANGE_BYTES))? };
        let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
        Ok(InterfaceReport { fields, ranges, device_specific: reader.bytes(length)? })
    })
}

/// Writes a report and returns its length in bytes.
///
/// # Errors
/// [`EncodeFault`] where `into` is too small.
pub fn encode(
    fields: &Fields,
    ranges: &[MmioRange],
    device_specific: &[u8],
    into: &mut [u8],
) -> Result<usize, EncodeFault> {
    let mut writer = Writer::new(into);
    fields.write(&mut writer);
    writer.count_u32(ranges.len());
    for range in ranges {
        range.write(&mut writer);
    }
    writer.count_u32(device_specific.len());
    writer.bytes(device_specific);
    writer.finish()
}

/// A report as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceReport<'a> {
    /// What has a fixed place.
    pub fields: Fields,
    /// The memory of the interface.
    pub ranges: Ranges<'a>,
    /// The device's own bytes.
    pub device_specific: &'a [u8],
}

/// What has a fixed place in a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// INTERFACE_INFO.
    pub info: InterfaceInfo,
    /// Message Control of MSI-X; zero where there is none or where it is not locked.
    pub msix_control: u16,
    /// LNR Control; zero where there is none.
    pub lnr_control: u16,
    /// TPH Requester Control; zero where there is none or MSI-X is not locked.
    pub tph_control: u32,
}

impl Fields {
    fn read(reader: &mut Reader<'_>) -> Result<Self, PeerFault> {
        let info = InterfaceInfo(reader.u16()?);
        reader.reserved(RESERVED_BYTES)?;
        Ok(Self {
            info,
            msix_control: reader.u16()?,
            lnr_control: reader.u16()?,
            tph_control: reader.u32()?,
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(self.info.0);
        writer.reserved(RESERVED_BYTES);
        writer.u16(self.msix_control);
        writer.u16(self.lnr_control);
        writer.u32(self.tph_control);
    }
}

/// INTERFACE_INFO, as it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceInfo(pub u16);

impl InterfaceInfo {
    /// Firmware is not updated while the interface is locked or runs.
    pub const NO_FW_UPDATE: Self = Self(1 << 0);
    /// The interface does DMA without PASID.
    pub const DMA_WITHOUT_PASID: Self = Self(1 << 1);
    /// The interface does DMA with PASID.
    pub const DMA_WITH_PASID: Self = Self(1 << 2);
    /// ATS is supported and enabled.
    pub const ATS: Self = Self(1 << 3);
    /// PRS is supported and enabled.
    pub const PRS: Self = Self(1 << 4);

    /// Whether all of `bits` are set.
    pub const fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }
}

/// A run of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmioRange {
    /// Where it starts, with the reporting offset of LOCK added; see [`FirstPage`] for the unit.
    pub first_page: u64,
    /// How many pages it has.
    pub pages: u32,
    /// What it is.
    pub attributes: RangeAttributes,
    /// Which range it is: the number of the BAR.
    pub id: u16,
}

impl MmioRange {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, PeerFault> {
        Ok(Self {
            first_page: reader.u64()?,
            pages: reader.u32()?,
            attributes: RangeAttributes(reader.u16()?),
            id: reader.u16()?,
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.u64(self.first_page);
        writer.u32(self.pages);
        writer.u16(self.attributes.0);
        writer.u16(self.id);
    }
}

/// What a range is, as it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeAttributes(pub u16);

impl RangeAttributes {
    /// Holds the MSI-X table, which is locked.
    pub const MSIX_TABLE: Self = Self(1 << 0);
    /// Holds the MSI-X pending bits, which are locked.
    pub const MSIX_PBA: Self = Self(1 << 1);
    /// Is not for the guest alone.
    pub const NON_TEE: Self = Self(1 << 2);
    /// SET_MMIO_ATTRIBUTE can change it.
    pub const UPDATABLE: Self = Self(1 << 3);

    /// Whether all of `bits` are set.
    pub const fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, bits: Self) -> Self {
        Self(self.0 | bits.0)
    }
}

/// The ranges of a report, read as they are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ranges<'a> {
    bytes: &'a [u8],
}

impl Ranges<'_> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.bytes.len() / RANGE_BYTES
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Each in its turn.
    pub fn iter(&self) -> impl Iterator<Item = MmioRange> {
        self.bytes.chunks_exact(RANGE_BYTES).filter_map(|chunk| {
            Reader::all("MMIO_RANGE", chunk, |reader| MmioRange::read(reader)).ok()
        })
    }
}

impl fmt::Debug for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
