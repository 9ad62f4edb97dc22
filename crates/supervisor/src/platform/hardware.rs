//! What an IOMMU of a kind of hardware cannot be like.
//!
//! Takes no lock.

use std::ops::Range;

use iommufd::{Geometry, Hardware, ReservedKind};
use span::Span;

use super::fields::{Fields, Read};
use super::mistake::Fault;

/// Where values that hardware may refuse stand in the file.
pub(super) struct Places {
    aperture: Range<usize>,
    reserved: Range<usize>,
    page_sizes: Range<usize>,
    cache_coherent: Range<usize>,
}

impl Places {
    /// Those of `[iommu]`, before its keys are taken out.
    pub(super) fn of(fields: &Fields<'_>) -> Self {
        Self {
            aperture: fields.place_of("aperture"),
            reserved: fields.place_of("reserved"),
            page_sizes: fields.place_of("page_sizes"),
            cache_coherent: fields.place_of("cache_coherent"),
        }
    }
}

/// Refuses a geometry that the hardware cannot have.
pub(super) fn check(
    fields: &Fields<'_>,
    hardware: Hardware,
    geometry: &Geometry,
    places: &Places,
) -> Read<()> {
    let (hardware, wrong) = match hardware {
        Hardware::Plain | Hardware::Mock => return Ok(()),
        Hardware::Vtd => ("vtd", vtd(geometry, places)),
        Hardware::Smmuv3 => ("smmuv3", smmuv3(geometry, places)),
    };
    match wrong {
        None => Ok(()),
        Some((place, what)) => {
            Err(fields.mistake(place.clone(), Fault::OtherHardware { hardware, what }))
        }
    }
}

/// What is wrong, and where it stands.
type Wrong<'p> = Option<(&'p Range<usize>, &'static str)>;

const VTD_ADDRESS_BITS: [u32; 3] = [39, 48, 57];
const LARGE_PAGE: u64 = 2 << 20;
const GIANT_PAGE: u64 = 1 << 30;

fn vtd<'p>(geometry: &Geometry, places: &'p Places) -> Wrong<'p> {
    let apertures = VTD_ADDRESS_BITS.map(|bits| Span::from_ends(0, (1 << bits) - 1));
    if !apertures.contains(&Some(geometry.aperture)) {
        return Some((&places.aperture, "addresses have 39, 48 or 57 bits, and begin at 0"));
    }
    if geometry.page_sizes & GIANT_PAGE != 0 && geometry.page_sizes & LARGE_PAGE == 0 {
        return Some((&places.page_sizes, "pages of 1G come with pages of 2M"));
    }
    let interrupts = Span::from_ends(0xfee0_0000, 0xfeef_ffff);
    let mut msi = geometry.reserved.iter().filter(|region| region.kind == ReservedKind::Msi);
    if !msi.any(|region| Some(region.span) == interrupts) {
        return Some((&places.reserved, "0xfee00000 to 0xfeefffff is for interrupts (\"msi\")"));
    }
    if !geometry.cache_coherent {
        return Some((&places.cache_coherent, "its DMA always snoops caches"));
    }
    None
}

const SMMUV3_ADDRESS_BITS: [u32; 6] = [32, 36, 40, 42, 44, 48];
const PAGE: u64 = 4 << 10;

fn smmuv3<'p>(geometry: &Geometry, places: &'p Places) -> Wrong<'p> {
    let apertures = SMMUV3_ADDRESS_BITS.map(|bits| Span::from_ends(0, (1 << bits) - 1));
    if !apertures.contains(&Some(geometry.aperture)) {
        let what = "addresses have 32, 36, 40, 42, 44 or 48 bits, and begin at 0";
        return Some((&places.aperture, what));
    }
    if geometry.page_sizes != PAGE | LARGE_PAGE | GIANT_PAGE {
        return Some((&places.page_sizes, "its granule of 4K has pages of 4K, 2M and 1G"));
    }
    if !geometry.cache_coherent {
        return Some((&places.cache_coherent, "it nests tables only where DMA is coherent"));
    }
    None
}
