//! Random tables of a guest, walked here and by a model that recurses and divides.

use std::cell::RefCell;

use models::{Walked, Words};
use pci::{DmaAccess, DmaFaultReason};
use proptest::prelude::*;
use uapi::iommufd::{HwptVtdS1, vtd_s1_flags};
use zerocopy::FromZeros;

use super::FirstStage;
use crate::Geometry;
use crate::hardware::{GuestMemory, Reached};

/// Pages that the guest has for tables. Entries may lead to others, where there is nothing.
const TABLES: u64 = 6;
/// Entries of tables that are not zero, and so the parts of addresses.
const USED: [u64; 4] = [0, 1, 5, 511];

struct Guest(RefCell<Words>);

impl GuestMemory for Guest {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), DmaFaultReason> {
        let words = self.0.borrow();
        let word = words.get(&(at & !7)).ok_or(DmaFaultReason::NotMapped)?;
        into.copy_from_slice(&word.to_le_bytes());
        Ok(())
    }

    fn set_flags(&self, at: u64, seen: u8, flags: u8) -> Result<(), DmaFaultReason> {
        let mut words = self.0.borrow_mut();
        let word = words.get_mut(&(at & !7)).ok_or(DmaFaultReason::NotMapped)?;
        let shift = 8 * (at % 8);
        assert_eq!((*word >> shift).to_le_bytes()[0], seen);
        *word |= u64::from(flags) << shift;
        Ok(())
    }
}

fn entry() -> impl Strategy<Value = u64> {
    let flags = prop_oneof![
        8 => Just(0b111_u64),
        2 => 0..0x1000_u64,
        1 => Just(0b1000_0111),
        1 => Just(0b0110_0111 | 1 << 10),
    ];
    let target = prop_oneof![
        12 => 0..TABLES,
        2 => TABLES..TABLES + 2,
        2 => (0..4_u64).prop_map(|large| large << 9),
        1 => (0..2_u64).prop_map(|giant| giant << 18 | 1),
        1 => 0..1_u64 << 40,
    ];
    let above = prop_oneof![4 => Just(0), 1 => 0..0x1000_u64];
    (flags, target, above).prop_map(|(flags, page, above)| above << 52 | page << 12 | flags)
}

fn tables() -> impl Strategy<Value = Words> {
    let used = usize::try_from(TABLES).unwrap() * USED.len();
    prop::collection::vec(entry(), used).prop_map(|entries| {
        let whole = (0..TABLES * 512).map(|index| (index * 8, 0));
        let mut words: Words = whole.collect();
        let places = (0..TABLES).flat_map(|table| USED.map(|index| table * 4096 + index * 8));
        words.extend(places.zip(entries));
        words
    })
}

fn address() -> impl Strategy<Value = u64> {
    let parts = prop::collection::vec(prop::sample::select(USED.to_vec()), 5);
    let through = (parts, 0..4096_u64, any::<bool>(), any::<bool>()).prop_map(
        |(parts, offset, five, extends)| {
            let low = parts.iter().fold(0, |address, part| address << 9 | part) << 12 | offset;
            let bits = if five { 57 } else { 48 };
            let low = low & ((1 << bits) - 1);
            let is_high = extends && low >> (bits - 1) != 0;
            if is_high { low | u64::MAX << bits } else { low }
        },
    );
    prop_oneof![20 => through, 1 => 0xfed0_0000..0xff00_0000_u64, 1 => any::<u64>()]
}

fn geometry(giant_pages: bool) -> Geometry {
    Geometry {
        aperture: span::Span::WHOLE,
        reserved: Vec::new(),
        page_sizes: 1 << 12 | 1 << 21 | u64::from(giant_pages) << 30,
        dirty_tracking: true,
        cache_coherent: true,
        msi_isolated: true,
        max_pasid_log2: 0,
    }
}

fn as_modelled(answer: Result<Reached, DmaFaultReason>) -> Walked {
    match answer {
        Ok(Reached { address, left }) => Walked::To(address, left),
        Err(DmaFaultReason::NotMapped) => Walked::Nowhere,
        Err(DmaFaultReason::BadTable) => Walked::Malformed,
        Err(DmaFaultReason::Permission) => Walked::Refused,
        Err(other) => panic!("a walk fails for another reason: {other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn walks_lead_where_the_model_says_and_mark_the_same(
        words in tables(),
        accesses in prop::collection::vec((address(), any::<bool>()), 1..24),
        five in any::<bool>(),
        giant_pages in any::<bool>(),
        extended in any::<bool>(),
    ) {
        let model = models::FirstStage { levels: if five { 5 } else { 4 }, giant_pages, extended };
        let asked = HwptVtdS1 {
            flags: if extended { vtd_s1_flags::EAFE } else { 0 },
            addr_width: if five { 57 } else { 48 },
            ..HwptVtdS1::new_zeroed()
        };
        let stage = FirstStage::new(&geometry(giant_pages), &asked);
        let mut expected = words.clone();
        let guest = Guest(RefCell::new(words));
        for (address, write) in accesses {
            let access = if write { DmaAccess::Write } else { DmaAccess::Read };
            let walked = as_modelled(stage.walk(&guest, address, access));
            prop_assert_eq!(walked, model.walk(&mut expected, 0, address, write));
        }
        prop_assert_eq!(guest.0.into_inner(), expected);
    }
}
