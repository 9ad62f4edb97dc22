//! Device memory that a guest has as its own.

use std::collections::BTreeMap;

use tdisp::FirstPage;
use tdisp::report::{InterfaceReport, MmioRange, PAGE_BYTES, RangeAttributes};

use crate::{Op, Refusal};

/// Private mappings of an interface's memory: start in the guest to last byte in the guest.
#[derive(Debug, Default, Hash)]
pub(super) struct Mappings {
    by_start: BTreeMap<u64, u64>,
}

/// What a guest wants mapped, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Where it begins in the guest.
    pub(super) guest_base: u64,
    /// Where it ends in the guest: the first byte after it.
    pub(super) guest_top: u64,
    /// Where it begins in the host.
    pub(super) host_base: u64,
}

impl Mappings {
    /// Adds a mapping of memory that `report` gives to the guest alone.
    ///
    /// # Errors
    /// [`Refusal::Field`], [`Refusal::MmioNotReported`] (`EINVAL`), [`Refusal::MmioOverlap`]
    /// (`EEXIST`), in this order.
    pub(super) fn add(
        &mut self,
        wanted: Wanted,
        report: &InterfaceReport<'_>,
        first_page: FirstPage,
        reporting_offset: u64,
    ) -> Result<(), Refusal> {
        let Wanted { guest_base, guest_top, host_base } = wanted;
        for (field, value) in
            [("gpa_base", guest_base), ("gpa_top", guest_top), ("pa_base", host_base)]
        {
            if !value.is_multiple_of(PAGE_BYTES) {
                return Err(Refusal::Field { op: Op::ValidateMmio, field, value });
            }
        }
        let length = guest_top.checked_sub(guest_base).filter(|length| *length > 0);
        let length = length.ok_or(Refusal::Field {
            op: Op::ValidateMmio,
            field: "gpa_top",
            value: guest_top,
        })?;
        let mut ranges = report.ranges.iter().filter(is_private);
        let inside = |range: MmioRange| {
            let (start, pages_bytes) = extent(range, first_page, reporting_offset);
            let offset = host_base.checked_sub(start);
            offset.is_some_and(|offset| offset <= pages_bytes && length <= pages_bytes - offset)
        };
        if !ranges.any(inside) {
            return Err(Refusal::MmioNotReported { at: host_base, length });
        }
        let guest_last = guest_base + (length - 1);
        let before = self.by_start.range(..=guest_last).next_back();
        if before.is_some_and(|(_, last)| *last >= guest_base) {
            return Err(Refusal::MmioOverlap { at: guest_base });
        }
        self.by_start.insert(guest_base, guest_last);
        Ok(())
    }

    /// Takes all of them away.
    pub(super) fn clear(&mut self) {
        self.by_start.clear();
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.by_start.len()
    }
}

/// Whether a range is the guest's alone and not of MSI-X.
fn is_private(range: &MmioRange) -> bool {
    let shared = [RangeAttributes::NON_TEE, RangeAttributes::MSIX_TABLE, RangeAttributes::MSIX_PBA];
    !shared.into_iter().any(|attribute| range.attributes.contains(attribute))
}

/// Where a range begins in the host and how many bytes it has.
fn extent(range: MmioRange, first_page: FirstPage, reporting_offset: u64) -> (u64, u64) {
    let reported = match first_page {
        FirstPage::Address => range.first_page,
        FirstPage::Number => range.first_page.wrapping_mul(PAGE_BYTES),
    };
    (reported.wrapping_sub(reporting_offset), u64::from(range.pages) * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tdisp::report::{self, Fields};

    use super::*;

    const PAGE: u64 = PAGE_BYTES;

    fn add(mappings: &mut Mappings, guest: (u64, u64), host_base: u64) -> Result<(), Refusal> {
        let range =
            |first_page, pages, attributes| MmioRange { first_page, pages, attributes, id: 0 };
        let ranges = [
            range(0x10_0000, 4, RangeAttributes::default()),
            range(0x10_4000, 1, RangeAttributes::MSIX_TABLE),
            range(0x10_5000, 1, RangeAttributes::NON_TEE),
            range(0x10_6000, 2, RangeAttributes::default()),
        ];
        let mut bytes = [0; 256];
        let length = report::encode(&Fields::default(), &ranges, &[], &mut bytes).unwrap();
        let report = report::decode(&bytes[..length]).unwrap();
        let (guest_base, guest_top) = guest;
        let wanted = Wanted { guest_base, guest_top, host_base };
        mappings.add(wanted, &report, FirstPage::Address, 0)
    }

    #[test]
    fn only_private_ranges_are_mapped() {
        let mut mappings = Mappings::default();
        for (guest, host) in [
            ((0, 5 * PAGE), 0x10_0000),
            ((0, PAGE), 0x10_4000),
            ((0, PAGE), 0x10_5000),
            ((0, PAGE), 0x0f_f000),
            ((0, 3 * PAGE), 0x10_6000),
            ((0, PAGE), 0x10_8000),
            ((0, PAGE), u64::MAX - 4095),
        ] {
            let length = guest.1;
            let refused = Err(Refusal::MmioNotReported { at: host, length });
            assert_eq!(add(&mut mappings, guest, host), refused);
        }
        assert_eq!(mappings.count(), 0);
        assert_eq!(add(&mut mappings, (0, 4 * PAGE), 0x10_0000), Ok(()));
        assert_eq!(add(&mut mappings, (4 * PAGE, 6 * PAGE), 0x10_6000), Ok(()));
        assert_eq!(mappings.count(), 2);
    }

    #[test]
    fn mappings_do_not_meet() {
        let mut mappings = Mappings::default();
        assert_eq!(add(&mut mappings, (2 * PAGE, 4 * PAGE), 0x10_0000), Ok(()));
        for base in [PAGE, 2 * PAGE, 3 * PAGE] {
            let refused = Err(Refusal::MmioOverlap { at: base });
            assert_eq!(add(&mut mappings, (base, base + 2 * PAGE), 0x10_0000), refused);
        }
        assert_eq!(add(&mut mappings, (0, 2 * PAGE), 0x10_0000), Ok(()));
        assert_eq!(add(&mut mappings, (4 * PAGE, 6 * PAGE), 0x10_0000), Ok(()));
    }

    proptest! {
        /// Against a set of pages: a mapping is taken if each of its pages is private at the host's
        /// end and free at the guest's.
        #[test]
        fn agrees_with_pages(asked in vec((0u64..12, 0u64..6, 0u64..12), 1..20)) {
            const FIRST: u64 = 0x10_0000 / PAGE;
            let is_private = |page: u64| page < 4 || (6..8).contains(&page);
            let (mut mappings, mut taken) = (Mappings::default(), BTreeSet::new());
            for (guest, pages, host) in asked {
                let at = (guest * PAGE, (guest + pages) * PAGE);
                let added = add(&mut mappings, at, (FIRST + host) * PAGE).is_ok();
                // No range of the report goes on into the next.
                let one_range = host / 4 == (host + pages.max(1) - 1) / 4;
                let private = (host..host + pages).all(is_private) && one_range;
                let free = (guest..guest + pages).all(|page| !taken.contains(&page));
                prop_assert_eq!(added, pages > 0 && private && free);
                if added {
                    taken.extend(guest..guest + pages);
                }
            }
        }
    }

    #[test]
    fn only_whole_pages_are_mapped() {
        let mut mappings = Mappings::default();
        for (guest, host) in [
            ((1, PAGE), 0x10_0000),
            ((0, PAGE + 1), 0x10_0000),
            ((0, PAGE), 0x10_0001),
            ((PAGE, PAGE), 0x10_0000),
            ((PAGE, 0), 0x10_0000),
        ] {
            let refused = add(&mut mappings, guest, host);
            assert!(matches!(refused, Err(Refusal::Field { .. })), "{guest:?} {refused:?}");
        }
    }
}
