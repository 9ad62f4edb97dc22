//! Where a physical function puts its virtual functions: SR-IOV as it stands.
//!
//! Takes no lock.

use crate::ConfigSpace;
use crate::regs::{BAR_COUNT, sriov};

/// The SR-IOV capability of a physical function, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Virtualization {
    /// Whether virtual functions are there.
    pub enabled: bool,
    /// Whether they decode their memory.
    pub memory_enabled: bool,
    /// How many there are once enabled.
    pub count: u16,
    /// Requester ID of the first less that of the physical function.
    pub first_offset: u16,
    /// Requester IDs from one to the next.
    pub stride: u16,
    /// What no part of a BAR is smaller than.
    page_bytes: u64,
    bars: [Option<u64>; BAR_COUNT],
}

impl Virtualization {
    /// The requester ID of virtual function `index`, counted from 0, where that of the physical
    /// function is `physical`.
    pub fn requester_id(&self, physical: u16, index: u16) -> u16 {
        let offset = self.first_offset.wrapping_add(self.stride.wrapping_mul(index));
        physical.wrapping_add(offset)
    }

    /// Where BAR `bar` of virtual function `index` lies, if the BAR of each has `size` bytes; `None`
    /// where there is no such BAR. Whether it is decoded is not asked here.
    pub fn bar_address(&self, bar: usize, size: u64, index: u16) -> Option<u64> {
        let part = size.max(self.page_bytes);
        let first = (*self.bars.get(bar)?)?;
        first.checked_add(part.checked_mul(u64::from(index))?)
    }
}

impl ConfigSpace {
    /// SR-IOV as it stands; `None` where the function has none.
    pub fn virtualization(&self) -> Option<Virtualization> {
        let at = self.sriov_offset()?;
        let control = self.word(at + sriov::CONTROL);
        // The bit that is set is the size in units of 4 KiB.
        let page = u64::from(self.dword(at + sriov::SYSTEM_PAGE_SIZE)) * PAGE_UNIT_BYTES;
        let mut bars = [None; BAR_COUNT];
        for (index, bar) in bars.iter_mut().enumerate() {
            *bar = self.address_in(at + sriov::VF_BAR0, BAR_COUNT, index);
        }
        Some(Virtualization {
            enabled: control & sriov::VF_ENABLE != 0,
            memory_enabled: control & sriov::VF_MEMORY != 0,
            count: self.word(at + sriov::NUM_VFS),
            first_offset: self.word(at + sriov::FIRST_VF_OFFSET),
            stride: self.word(at + sriov::VF_STRIDE),
            page_bytes: page,
            bars,
        })
    }
}

/// What bit 0 of System Page Size stands for.
const PAGE_UNIT_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use crate::extended::{VirtualFunctions, single_root_virtualization};
    use crate::regs::sriov;
    use crate::{Bar, BarKind, ConfigBuilder, Identity};

    fn bar(kind: BarKind, size: u64) -> Option<Bar> {
        Some(Bar { kind, size, mappable: Vec::new(), msix_table: None })
    }

    #[test]
    fn parts_of_a_bar_lie_one_behind_the_other() {
        let wide = bar(BarKind::Memory64 { prefetchable: false }, 0x1_0000);
        let narrow = bar(BarKind::Memory32 { prefetchable: false }, 0x2000);
        let options = VirtualFunctions {
            total_vfs: 4,
            first_offset: 1,
            stride: 2,
            device_id: 1,
            function: 0,
            bars: [wide, None, narrow, None, None, None],
        };
        let identity = Identity {
            vendor_id: 1,
            device_id: 1,
            revision: 0,
            class_code: 0,
            subsystem_vendor_id: 0,
            subsystem_id: 0,
            multi_function: false,
        };
        let builder = ConfigBuilder::endpoint(&identity);
        let mut space = builder.extended(single_root_virtualization(&options)).build().unwrap();
        let at = 0x100;
        space.write(at + sriov::VF_BAR0, &0x12_c000_0000_u64.to_le_bytes());
        space.write(at + sriov::VF_BAR0 + 8, &0xd000_0000_u32.to_le_bytes());
        space.write(at + sriov::NUM_VFS, &2u16.to_le_bytes());
        let off = space.virtualization().unwrap();
        assert!(!off.enabled && !off.memory_enabled);
        assert_eq!((off.count, off.requester_id(0x100, 1)), (2, 0x103));
        assert_eq!(off.bar_address(0, 0x1_0000, 1), Some(0x12_c001_0000));
        assert_eq!(off.bar_address(1, 0x1_0000, 0), None, "the upper half");
        assert_eq!(off.bar_address(2, 0x2000, 3), Some(0xd000_6000));
        space.write(at + sriov::SYSTEM_PAGE_SIZE, &0x10u32.to_le_bytes());
        space.write(at + sriov::CONTROL, &sriov::VF_ENABLE.to_le_bytes());
        let on = space.virtualization().unwrap();
        assert_eq!(on.bar_address(2, 0x2000, 1), Some(0xd001_0000), "a page is 64 KiB");
        assert!(on.enabled && !on.memory_enabled);
    }
}
