//! Random descriptors and tables of a guest, walked here and by a model that recurses and divides.

use models::{Stage1Fault, Stage1Led, Words};
use pci::{DmaAccess, DmaFaultReason};
use proptest::prelude::*;

use super::context;
use super::event::EventId;
use super::stream::Stop;
use crate::hardware::{GuestMemory, Reached};

/// Pages that the guest has for tables, behind the page of the descriptor. Entries may lead to others, where there is
/// nothing.
const TABLES: u64 = 6;
/// Entries of tables that are not zero, and so the parts of addresses.
const USED: [u64; 4] = [0, 1, 5, 511];
const HARDWARE_BITS: u32 = 48;

struct Guest(Words);

impl GuestMemory for Guest {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), DmaFaultReason> {
        let word = self.0.get(&(at & !7)).ok_or(DmaFaultReason::NotMapped)?;
        into.copy_from_slice(&word.to_le_bytes());
        Ok(())
    }

    fn set_flags(&self, _: u64, _: u8, _: u8) -> Result<(), DmaFaultReason> {
        panic!("hardware sets no flags");
    }
}

fn entry() -> impl Strategy<Value = u64> {
    let (table, page, block) = (0b11_u64, 0b11 | 1 << 6 | 1 << 10, 0b01 | 1 << 6 | 1 << 10);
    let flags = prop_oneof![
        6 => Just(table | page),
        3 => Just(block),
        1 => Just(page | 1 << 7),
        1 => Just(page & !(1 << 10)),
        1 => Just(page & !(1 << 6)),
        1 => 0..0x1000_u64,
    ];
    let target = prop_oneof![
        12 => 1..=TABLES,
        1 => Just(TABLES + 2),
        2 => (0..4_u64).prop_map(|large| large << 9),
        1 => (0..2_u64).prop_map(|giant| giant << 18 | 1),
        1 => 0..1_u64 << 36,
    ];
    let above =
        prop_oneof![6 => Just(0_u64), 1 => Just(1 << 13), 1 => Just(1 << 14), 1 => 0..0x1_0000_u64];
    (flags, target, above).prop_map(|(flags, page, above)| above << 48 | page << 12 | flags)
}

/// Valid, of AArch64, aborting, recording, with both halves in 4 KiB; then fields of each kind, and bits turned over.
fn descriptor() -> impl Strategy<Value = [u64; 3]> {
    let good = 1 << 31 | 1 << 41 | 1 << 46 | 1 << 45 | 0b10_u64 << 22;
    let size = || prop_oneof![4 => Just(16_u64), 6 => 16..=39_u64, 1 => 0..64_u64];
    let table = || prop_oneof![10 => (1..=TABLES).prop_map(|page| page << 12), 1 => any::<u64>()];
    let output = prop_oneof![3 => Just(5_u64), 1 => 0..8_u64];
    let turned = prop_oneof![
        6 => Just(0),
        4 => prop::sample::select(vec![35, 38, 39, 14, 30, 45]).prop_map(|bit| 1_u64 << bit),
        1 => (0..64_u32).prop_map(|bit| 1_u64 << bit),
    ];
    let flags = (size(), size(), output, turned).prop_map(move |(low, high, output, turned)| {
        (good | low | high << 16 | output << 32) ^ turned
    });
    (flags, table(), table()).prop_map(|(flags, lower, upper)| [flags, lower, upper])
}

fn guest() -> impl Strategy<Value = Words> {
    let used = usize::try_from(TABLES).unwrap() * USED.len();
    (descriptor(), prop::collection::vec(entry(), used)).prop_map(|(descriptor, entries)| {
        let whole = (0..(TABLES + 1) * 512).map(|index| (index * 8, 0));
        let mut words: Words = whole.collect();
        let places = (1..=TABLES).flat_map(|table| USED.map(|index| table * 4096 + index * 8));
        words.extend(places.zip(entries));
        words.extend([0, 8, 16].into_iter().zip(descriptor));
        words
    })
}

fn address() -> impl Strategy<Value = u64> {
    let parts = prop::collection::vec(prop::sample::select(USED.to_vec()), 4);
    let through = (parts, 0..4096_u64, 25..=48_u32, any::<bool>(), any::<u8>()).prop_map(
        |(parts, offset, bits, is_upper, tag)| {
            let low = parts.iter().fold(0, |address, part| address << 9 | part) << 12 | offset;
            let low = low & ((1 << bits) - 1);
            let whole = if is_upper { low | u64::MAX << bits } else { low };
            // Sometimes a tag in the top byte.
            if tag < 64 { whole & (u64::MAX >> 8) | u64::from(tag) << 56 } else { whole }
        },
    );
    prop_oneof![20 => through, 1 => any::<u64>()]
}

fn as_modelled(answer: Result<Reached, Stop>) -> Stage1Led {
    let Stop { reason, event } = match answer {
        Ok(Reached { address, left }) => return Stage1Led::To(address, left),
        Err(stop) => stop,
    };
    let fault = match (event, reason) {
        (Some(EventId::BadContextDescriptor), DmaFaultReason::BadTable) => {
            Stage1Fault::BadDescriptor
        }
        (Some(EventId::Translation), DmaFaultReason::NotMapped) => Stage1Fault::Translation,
        (Some(EventId::AddressSize), DmaFaultReason::BadTable) => Stage1Fault::AddressSize,
        (Some(EventId::Access), DmaFaultReason::Permission) => Stage1Fault::Access,
        (Some(EventId::Permission), DmaFaultReason::Permission) => Stage1Fault::Permission,
        (None, _) => return Stage1Led::Stopped(untold(reason), false),
        other => panic!("a walk is stopped otherwise: {other:?}"),
    };
    Stage1Led::Stopped(fault, true)
}

/// What people are told alone does not tell all faults apart.
fn untold(reason: DmaFaultReason) -> Stage1Fault {
    let faults = [
        (DmaFaultReason::NotMapped, Stage1Fault::Translation),
        (DmaFaultReason::BadTable, Stage1Fault::AddressSize),
        (DmaFaultReason::Permission, Stage1Fault::Permission),
    ];
    let found = faults.iter().find(|(told, _)| *told == reason);
    found.unwrap_or_else(|| panic!("a walk is stopped for another reason: {reason}")).1
}

/// The model's answer, as far as a guest that is told nothing lets it be told apart.
fn as_told(led: Stage1Led) -> Stage1Led {
    match led {
        Stage1Led::Stopped(Stage1Fault::NoMemory, told) => {
            Stage1Led::Stopped(Stage1Fault::Translation, told)
        }
        Stage1Led::Stopped(Stage1Fault::Access, false) => {
            Stage1Led::Stopped(Stage1Fault::Permission, false)
        }
        led @ (Stage1Led::To(..) | Stage1Led::Stopped(..)) => led,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn walks_lead_where_the_model_says(
        words in guest(),
        accesses in prop::collection::vec((address(), any::<bool>()), 1..24),
    ) {
        let guest = Guest(words);
        for (address, write) in accesses {
            let access = if write { DmaAccess::Write } else { DmaAccess::Read };
            let walked = context::translate(&guest, HARDWARE_BITS, 0, address, access);
            let modelled = models::stage_1(&guest.0, 0, HARDWARE_BITS, address, write);
            prop_assert_eq!(as_modelled(walked), as_told(modelled), "{:#x} {}", address, write);
        }
    }
}
