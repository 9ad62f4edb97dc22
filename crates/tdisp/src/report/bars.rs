//! A report from the BARs that a function really has.

use thiserror::Error;

use super::{Fields, InterfaceInfo, MmioRange, PAGE_BYTES, RangeAttributes, encode};
use crate::exchange::LockInterface;
use crate::{EncodeFault, LockFlags};

/// BARs of a function.
const BARS_MAX: usize = 6;
/// Ranges of a function: a BAR is cut at most four times, around the MSI-X table and pending bits.
const RANGES_MAX: usize = BARS_MAX * 5;

/// What a report is made from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Function<'a> {
    /// The memory BARs that decode. I/O BARs are not reported.
    pub bars: &'a [MemoryBar],
    /// How the function does DMA: the bits of PASID, ATS and PRS.
    pub info: InterfaceInfo,
    /// Message Control of MSI-X, zero where there is none.
    pub msix_control: u16,
    /// TPH Requester Control, zero where there is none.
    pub tph_control: u32,
    /// The device's own bytes.
    pub device_specific: &'a [u8],
}

/// A memory BAR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBar {
    /// Its number, 0..6.
    pub number: u8,
    /// The address that it decodes, in bytes.
    pub address: u64,
    /// Bytes that it decodes.
    pub length: u64,
    /// The MSI-X table, if it lies here.
    pub msix_table: Option<Extent>,
    /// The MSI-X pending bits, if they lie here.
    pub msix_pba: Option<Extent>,
    /// The device lets others than the guest reach it.
    pub non_tee: bool,
}

/// A part of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts in the BAR, in bytes.
    pub offset: u64,
    /// Bytes that it has.
    pub length: u64,
}

/// The unit of a range's first page. Public sources disagree: the newest [pci_tdisp.h] calls it a
/// byte address, the SEV-TIO tree shifts it as the number of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstPage {
    /// The address of its first byte.
    #[default]
    Address,
    /// The number of the page: the address in units of 4 KiB.
    Number,
}

/// A function that no report can describe, so that it cannot be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Undescribable {
    /// The BAR is not made of whole pages, so that a page of it may have other registers.
    #[error("BAR {bar} at {address:#x} with {length:#x} bytes is not made of whole pages")]
    NotPages {
        /// The BAR.
        bar: u8,
        /// Where it is, in bytes.
        address: u64,
        /// Bytes that it decodes.
        length: u64,
    },
    /// The BAR has more pages than a range can count, or passes the top of the address space.
    #[error("BAR {bar} at {address:#x} with {length:#x} bytes is too large")]
    TooLarge {
        /// The BAR.
        bar: u8,
        /// Where it is, in bytes.
        address: u64,
        /// Bytes that it decodes.
        length: u64,
    },
    /// Two BARs decode the same address.
    #[error("BAR {bar} and BAR {other} overlap")]
    Overlap {
        /// The lower number.
        bar: u8,
        /// The higher number.
        other: u8,
    },
    /// MSI-X lies outside of its BAR.
    #[error("MSI-X at {offset:#x} with {length:#x} bytes is outside of BAR {bar}")]
    MsixOutside {
        /// The BAR.
        bar: u8,
        /// Where it starts in the BAR, in bytes.
        offset: u64,
        /// Bytes that it has.
        length: u64,
    },
    /// The function has more BARs than there are.
    #[error("{count} BARs")]
    TooManyBars {
        /// How many were given.
        count: usize,
    },
    /// The report does not fit.
    #[error(transparent)]
    NoRoom(#[from] EncodeFault),
}

/// Writes the report of `function` as it is when `lock` takes effect, and returns its length in
/// bytes.
///
/// Pages of the MSI-X table and pending bits are ranges of their own: marked as such where LOCK
/// locks them, else as memory that is not for the guest alone.
///
/// # Errors
/// [`Undescribable`]; a DSM then answers `INVALID_DEVICE_CONFIGURATION`.
pub fn describe(
    function: &Function<'_>,
    lock: &LockInterface,
    unit: FirstPage,
    into: &mut [u8],
) -> Result<usize, Undescribable> {
    check(function.bars)?;
    let msix_locked = lock.flags.contains(LockFlags::LOCK_MSIX);
    let mut ranges = [MmioRange::default(); RANGES_MAX];
    let mut count = 0;
    for bar in function.bars {
        let cuts = bar.cuts(msix_locked).into_iter().flatten();
        for (range, cut) in ranges.iter_mut().skip(count).zip(cuts) {
            *range = bar.range(cut, lock.mmio_reporting_offset, unit)?;
            count += 1;
        }
    }
    let when_locked = |control| if msix_locked { control } else { 0 };
    let mut info = function.info;
    if lock.flags.contains(LockFlags::NO_FW_UPDATE) {
        info = info.with(InterfaceInfo::NO_FW_UPDATE);
    }
    let fields = Fields {
        info,
        msix_control: when_locked(function.msix_control),
        lnr_control: 0,
        tph_control: if msix_locked { function.tph_control } else { 0 },
    };
    let ranges = ranges.get(..count).unwrap_or_default();
    Ok(encode(&fields, ranges, function.device_specific, into)?)
}

fn check(bars: &[MemoryBar]) -> Result<(), Undescribable> {
    if bars.len() > BARS_MAX {
        return Err(Undescribable::TooManyBars { count: bars.len() });
    }
    for bar in bars {
        bar.check()?;
    }
    for (index, bar) in bars.iter().enumerate() {
        for other in bars.iter().skip(index + 1) {
            if bar.address <= other.last() && other.address <= bar.last() {
                let (bar, other) = (bar.number.min(other.number), bar.number.max(other.number));
                return Err(Undescribable::Overlap { bar, other });
            }
        }
    }
    Ok(())
}

/// Pages of a BAR with the same attributes: `first..end`.
#[derive(Clone, Copy)]
struct Cut {
    first: u64,
    end: u64,
    attributes: RangeAttributes,
}

impl MemoryBar {
    fn check(&self) -> Result<(), Undescribable> {
        let Self { number: bar, address, length, .. } = *self;
        if length == 0 || !length.is_multiple_of(PAGE_BYTES) || !address.is_multiple_of(PAGE_BYTES)
        {
            return Err(Undescribable::NotPages { bar, address, length });
        }
        let counted = u32::try_from(length / PAGE_BYTES).is_ok();
        if !counted || address.checked_add(length - 1).is_none() {
            return Err(Undescribable::TooLarge { bar, address, length });
        }
        for Extent { offset, length } in [self.msix_table, self.msix_pba].into_iter().flatten() {
            let end = offset.checked_add(length);
            if length == 0 || end.is_none_or(|end| end > self.length) {
                return Err(Undescribable::MsixOutside { bar, offset, length });
            }
        }
        Ok(())
    }

    const fn last(&self) -> u64 {
        self.address.saturating_add(self.length.saturating_sub(1))
    }

    /// The BAR cut where attributes change; neighbours of one kind are one.
    fn cuts(&self, msix_locked: bool) -> [Option<Cut>; 5] {
        let pages = self.length / PAGE_BYTES;
        let [table, pba] = [self.msix_table, self.msix_pba].map(|extent| {
            extent.map_or((0, 0), |Extent { offset, length }| {
                (offset / PAGE_BYTES, (offset + length).div_ceil(PAGE_BYTES))
            })
        });
        let mut bounds = [0, table.0, table.1, pba.0, pba.1, pages];
        bounds.sort_unstable();
        let mut cuts: [Option<Cut>; 5] = [None; 5];
        let mut last = 0;
        for (&first, &end) in bounds.iter().zip(bounds.iter().skip(1)) {
            if first == end {
                continue;
            }
            let within = |(from, to): (u64, u64)| from <= first && first < to;
            let attributes = self.attributes(within(table), within(pba), msix_locked);
            if let Some(Some(previous)) = cuts.get_mut(last)
                && previous.attributes == attributes
            {
                previous.end = end;
                continue;
            }
            last = cuts.iter().take_while(|cut| cut.is_some()).count();
            if let Some(place) = cuts.get_mut(last) {
                *place = Some(Cut { first, end, attributes });
            }
        }
        cuts
    }

    fn attributes(&self, table: bool, pba: bool, msix_locked: bool) -> RangeAttributes {
        let mut attributes = RangeAttributes::default();
        if table && msix_locked {
            attributes = attributes.with(RangeAttributes::MSIX_TABLE);
        }
        if pba && msix_locked {
            attributes = attributes.with(RangeAttributes::MSIX_PBA);
        }
        if self.non_tee || ((table || pba) && !msix_locked) {
            attributes = attributes.with(RangeAttributes::NON_TEE);
        }
        attributes
    }

    fn range(&self, cut: Cut, offset: u64, unit: FirstPage) -> Result<MmioRange, Undescribable> {
        let Self { number: bar, address, length, .. } = *self;
        let start = address.wrapping_add(cut.first * PAGE_BYTES).wrapping_add(offset);
        let pages = u32::try_from(cut.end - cut.first);
        Ok(MmioRange {
            first_page: match unit {
                FirstPage::Address => start,
                FirstPage::Number => start / PAGE_BYTES,
            },
            pages: pages.map_err(|_| Undescribable::TooLarge { bar, address, length })?,
            attributes: cut.attributes,
            id: bar.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::super::decode;
    use super::*;

    const BAR0: MemoryBar = MemoryBar {
        number: 0,
        address: 0xfe00_0000,
        length: 0x8000,
        msix_table: Some(Extent { offset: 0x2000, length: 0x800 }),
        msix_pba: Some(Extent { offset: 0x3ff8, length: 0x10 }),
        non_tee: false,
    };
    const BAR2: MemoryBar = MemoryBar {
        number: 2,
        address: 0x80_0000_0000,
        length: 0x1000,
        msix_table: None,
        msix_pba: None,
        non_tee: true,
    };

    fn ranges(
        bars: &[MemoryBar],
        lock: LockInterface,
        unit: FirstPage,
    ) -> Result<Vec<(u64, u32, u16, u16)>, Undescribable> {
        let function = Function { bars, msix_control: 0x8007, ..Function::default() };
        let mut report = [0; 640];
        let length = describe(&function, &lock, unit, &mut report)?;
        let report = decode(&report[..length]).unwrap();
        let locked = lock.flags.contains(LockFlags::LOCK_MSIX);
        assert_eq!(report.fields.msix_control, if locked { 0x8007 } else { 0 });
        assert_eq!(report.ranges.len(), report.ranges.iter().count());
        Ok(report.ranges.iter().map(|r| (r.first_page, r.pages, r.attributes.0, r.id)).collect())
    }

    #[test]
    fn locked_msix_has_ranges_of_its_own() {
        let lock = LockInterface { flags: LockFlags::LOCK_MSIX, ..LockInterface::default() };
        let expected = [
            (0xfe00_0000, 2, 0, 0),
            (0xfe00_2000, 1, 1, 0),
            (0xfe00_3000, 2, 2, 0),
            (0xfe00_5000, 3, 0, 0),
            (0x80_0000_0000, 1, 4, 2),
        ];
        assert_eq!(ranges(&[BAR0, BAR2], lock, FirstPage::Address).unwrap(), expected);
    }

    #[test]
    fn msix_that_is_not_locked_is_not_for_the_guest() {
        let lock = LockInterface { mmio_reporting_offset: 0xd000_0000, ..LockInterface::default() };
        let expected = [(0x1_ce000, 2, 0, 0), (0x1_ce002, 3, 4, 0), (0x1_ce005, 3, 0, 0)];
        assert_eq!(ranges(&[BAR0], lock, FirstPage::Number).unwrap(), expected);
    }

    #[test]
    fn table_and_pending_bits_may_share_a_page() {
        let extent = |offset| Some(Extent { offset, length: 0x100 });
        let bar =
            MemoryBar { length: 0x1000, msix_table: extent(0), msix_pba: extent(0x800), ..BAR0 };
        let lock = LockInterface { flags: LockFlags::LOCK_MSIX, ..LockInterface::default() };
        let expected = [(0xfe00_0000, 1, 3, 0)];
        assert_eq!(ranges(&[bar], lock, FirstPage::Address).unwrap(), expected);
    }

    #[test]
    fn an_offset_wraps() {
        let lock = LockInterface { mmio_reporting_offset: !0xfff, ..LockInterface::default() };
        let expected = [(0x7f_ffff_f000, 1, 4, 2)];
        assert_eq!(ranges(&[BAR2], lock, FirstPage::Address).unwrap(), expected);
    }

    #[test]
    fn what_a_report_cannot_say_is_refused() {
        let lock = LockInterface::default();
        let refused = |bars: &[MemoryBar]| ranges(bars, lock, FirstPage::Address).unwrap_err();
        let (address, bar) = (BAR2.address, 2);
        for length in [0, 0x800, 0x1001] {
            let bars = [MemoryBar { length, ..BAR2 }];
            assert_eq!(refused(&bars), Undescribable::NotPages { bar, address, length });
        }
        let length = 1 << 44;
        let bars = [MemoryBar { length, ..BAR2 }];
        assert_eq!(refused(&bars), Undescribable::TooLarge { bar, address, length });
        let (address, length) = (!0xfff, 0x2000);
        let bars = [MemoryBar { address, length, ..BAR2 }];
        assert_eq!(refused(&bars), Undescribable::TooLarge { bar, address, length });
        let bars = [MemoryBar { address: BAR0.address + 0x7000, ..BAR2 }, BAR0];
        assert_eq!(refused(&bars), Undescribable::Overlap { bar: 0, other: 2 });
        let (offset, length) = (0xff0, 0x11);
        let bars = [MemoryBar { msix_pba: Some(Extent { offset, length }), ..BAR2 }];
        assert_eq!(refused(&bars), Undescribable::MsixOutside { bar: 2, offset, length });
        assert_eq!(refused(&[BAR2; 7]), Undescribable::TooManyBars { count: 7 });
        let function = Function { bars: &[BAR0], ..Function::default() };
        let small = describe(&function, &lock, FirstPage::Address, &mut [0; 67]);
        assert_eq!(small, Err(EncodeFault::NoRoom { needed: 68, room: 67 }.into()));
    }
}
