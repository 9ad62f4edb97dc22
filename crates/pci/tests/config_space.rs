//! Config space as host software meets it: sizing, write masks, resets, chains.

use bindery_pci as pci;

use pci::capability::{
    self, BarOffset, CapabilityBlock, ExpressEndpoint, Msi, MsixTable, express_endpoint,
    message_signalled, msix, power_management, vendor_specific,
};
use pci::extended::{
    self, DesignatedVendor, SelectiveStreams, VirtualFunctions, designated_vendor, error_reporting,
    integrity_and_encryption, serial_number, single_root_virtualization,
};
use pci::regs::{self, aer, cap_id, command, express, ext_id, header, msi, pm, sriov, status};
use pci::{Bar, BarKind, BuildFault, ConfigBuilder, ConfigSpace, Identity, PowerState, Reset};
use pci::{RegisterBlock, walk};
use proptest::prelude::*;

const IDENTITY: Identity = Identity {
    vendor_id: 0x1234,
    device_id: 0xb1d0,
    revision: 7,
    class_code: 0x08_80_00,
    subsystem_vendor_id: 0x1af4,
    subsystem_id: 0x1100,
    multi_function: false,
};

fn bar(kind: BarKind, size: u64) -> Bar {
    Bar { kind, size, mappable: Vec::new(), msix_table: None }
}

fn wide(size: u64) -> Bar {
    bar(BarKind::Memory64 { prefetchable: true }, size)
}

fn narrow(size: u64) -> Bar {
    bar(BarKind::Memory32 { prefetchable: false }, size)
}

fn msix_table() -> MsixTable {
    MsixTable {
        vectors: 16,
        table: BarOffset { bar: 2, offset: 0 },
        pba: BarOffset { bar: 2, offset: 0x1000 },
    }
}

fn endpoint() -> ConfigSpace {
    let flr = ExpressEndpoint { function_level_reset: true, ..ExpressEndpoint::default() };
    ConfigBuilder::endpoint(&IDENTITY)
        .bar(0, &wide(0x1_0000))
        .bar(2, &narrow(0x2000))
        .bar(5, &bar(BarKind::Io, 32))
        .interrupt_pin_a()
        .capability(power_management())
        .capability(message_signalled(Msi { vectors_lg2: 3, address_64: true, maskable: true }))
        .capability(msix(msix_table()))
        .capability(express_endpoint(flr))
        .extended(error_reporting(false))
        .extended(serial_number(0x0102_0304_0506_0708))
        .build()
        .unwrap()
}

/// Where a capability begins.
fn find(config: &ConfigSpace, id: u8) -> u16 {
    let found = walk::capabilities(|offset, into| config.read(offset, into));
    found.iter().find(|capability| capability.id == id).unwrap().offset
}

fn find_extended(config: &ConfigSpace, id: u16) -> u16 {
    let found = walk::extended_capabilities(|offset, into| config.read(offset, into));
    found.iter().find(|capability| capability.id == id).unwrap().offset
}

#[test]
fn shows_its_identity() {
    let config = endpoint();
    assert_eq!(config.dword(header::VENDOR_ID), 0xb1d0_1234);
    assert_eq!(config.dword(header::REVISION_ID), 0x0880_0007);
    assert_eq!(config.dword(header::SUBSYSTEM_VENDOR_ID), 0x1100_1af4);
    assert_eq!(config.byte(header::INTERRUPT_PIN), 1);
    assert_eq!(config.word(header::STATUS), status::CAPABILITIES);
    assert_eq!(config.word(header::COMMAND), 0);
}

#[test]
fn bars_answer_the_sizing_protocol() {
    let mut config = endpoint();
    let sized = [0xffff_000c, 0xffff_ffff, 0xffff_e000, 0, 0, 0xffff_ffe1];
    for (index, expected) in sized.into_iter().enumerate() {
        let at = header::BAR0 + 4 * u16::try_from(index).unwrap();
        config.write(at, &[0xff; 4]);
        assert_eq!(config.dword(at), expected, "BAR {index}");
    }
    config.write(header::BAR0, &0x0000_0012_3456_7890u64.to_le_bytes());
    config.write(header::BAR0 + 8, &0x8765_4321u32.to_le_bytes());
    assert_eq!(config.bar_address(0), Some(0x12_3456_0000));
    assert_eq!(config.bar_address(1), None);
    assert_eq!(config.bar_address(2), Some(0x8765_4000));
    assert_eq!(config.bar_address(6), None);
}

#[test]
fn chains_are_in_order_with_the_lengths_of_vfio() {
    let config = endpoint();
    let found = walk::capabilities(|offset, into| config.read(offset, into));
    let found: Vec<_> = found.iter().map(|found| (found.id, found.offset, found.length)).collect();
    let expected = [
        (cap_id::PM, 0x40, Some(8)),
        (cap_id::MSI, 0x48, Some(24)),
        (cap_id::MSIX, 0x60, Some(12)),
        (cap_id::EXPRESS, 0x6c, Some(0x34)),
    ];
    assert_eq!(found, expected);
    let found = walk::extended_capabilities(|offset, into| config.read(offset, into));
    let found: Vec<_> = found.iter().map(|found| (found.id, found.offset, found.length)).collect();
    assert_eq!(found, [(ext_id::AER, 0x100, Some(0x2c)), (ext_id::DSN, 0x12c, Some(12))]);
}

#[test]
fn lengths_follow_the_registers() {
    for (address_64, maskable, length) in
        [(false, false, 10), (true, false, 14), (false, true, 20), (true, true, 24)]
    {
        let options = Msi { vectors_lg2: 0, address_64, maskable };
        let builder = ConfigBuilder::endpoint(&IDENTITY).capability(message_signalled(options));
        let config = builder.capability(vendor_specific(&[1, 2, 3])).build().unwrap();
        let found = walk::capabilities(|offset, into| config.read(offset, into));
        let lengths: Vec<_> = found.iter().map(|found| found.length).collect();
        assert_eq!(lengths, [Some(length), Some(6)]);
    }
    let options = DesignatedVendor { vendor_id: 0x1234, id: 9, revision: 1, bytes: &[1; 6] };
    let streams = SelectiveStreams { count: 2, associations: 1 };
    let config = ConfigBuilder::endpoint(&IDENTITY)
        .extended(designated_vendor(options))
        .extended(integrity_and_encryption(streams))
        .extended(extended::alternative_routing(0))
        .build()
        .unwrap();
    let found = walk::extended_capabilities(|offset, into| config.read(offset, into));
    let found: Vec<_> = found.iter().map(|found| (found.id, found.offset, found.length)).collect();
    let ide_end = 0x110 + 12 + 2 * (20 + 12);
    let expected = [
        (ext_id::DVSEC, 0x100, Some(16)),
        (ext_id::IDE, 0x110, None),
        (ext_id::ARI, ide_end, Some(8)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn accessors_follow_the_registers() {
    let mut config = endpoint();
    assert!(!config.bus_master() && !config.memory_enabled() && !config.intx_disabled());
    let bits = command::MEMORY | command::BUS_MASTER | command::INTX_DISABLE;
    config.write(header::COMMAND, &bits.to_le_bytes());
    assert!(config.bus_master() && config.memory_enabled() && config.intx_disabled());

    let at = find(&config, cap_id::PM) + pm::CONTROL;
    config.write(at, &pm::D3HOT.to_le_bytes());
    assert_eq!(config.power_state(), PowerState::D3Hot);
    assert!(!config.bus_master(), "asleep");

    let at = find(&config, cap_id::MSI);
    let control = msi::ENABLE | 2 << msi::ENABLED_SHIFT;
    config.write(at + msi::CONTROL, &control.to_le_bytes());
    config.write(at + msi::MASK_64, &[0xff; 4]);
    let msi = config.msi().unwrap();
    assert_eq!((msi.enabled, msi.vectors, msi.masked), (true, 4, 0xff));
    let too_many = msi::ENABLE | 5 << msi::ENABLED_SHIFT;
    config.write(at + msi::CONTROL, &too_many.to_le_bytes());
    assert_eq!(config.msi().unwrap().vectors, 8, "no more than it has");
    config.set_msi_pending(0x81);
    assert_eq!(config.dword(at + msi::PENDING_64), 0x81);

    let at = find(&config, cap_id::MSIX) + regs::msix::CONTROL;
    config.write(at, &(regs::msix::ENABLE | regs::msix::FUNCTION_MASK).to_le_bytes());
    let msix = config.msix().unwrap();
    assert_eq!((msix.enabled, msix.function_masked, msix.vectors), (true, true, 16));
}

#[test]
fn flr_is_asked_for_by_one_bit_that_reads_zero() {
    let mut config = endpoint();
    let devctl = find(&config, cap_id::EXPRESS) + express::DEVCTL;
    let flr = express::INITIATE_FLR.to_le_bytes();
    assert!(config.initiates_flr(devctl, &flr));
    assert!(config.initiates_flr(devctl - 2, &[0, 0, 0, 0x80]));
    assert!(config.initiates_flr(devctl + 1, &[0x80]));
    assert!(!config.initiates_flr(devctl, &[0xff]));
    assert!(!config.initiates_flr(devctl + 2, &[0xff, 0xff]));
    config.write(devctl, &[0xff; 2]);
    assert_eq!(config.word(devctl) & express::INITIATE_FLR, 0);

    let without = ConfigBuilder::endpoint(&IDENTITY)
        .capability(express_endpoint(ExpressEndpoint::default()))
        .build()
        .unwrap();
    assert!(!without.initiates_flr(find(&without, cap_id::EXPRESS) + express::DEVCTL, &flr));
}

#[test]
fn resets_keep_what_they_must() {
    let aer_mask = find_extended(&endpoint(), ext_id::AER) + aer::UNCORRECTABLE_MASK;
    let devctl = find(&endpoint(), cap_id::EXPRESS) + express::DEVCTL;
    for (kind, payload) in [(Reset::Function, express::PAYLOAD), (Reset::Bus, 0)] {
        let mut config = endpoint();
        let fresh = config.clone();
        config.write(header::COMMAND, &[0xff; 2]);
        config.write(header::BAR0, &[0xff; 24]);
        config.write(aer_mask, &0x10u32.to_le_bytes());
        config.write(devctl, &(express::PAYLOAD | express::ERROR_REPORTING).to_le_bytes());
        config.reset(kind);
        assert_eq!(config.dword(aer_mask), 0x10, "sticky");
        assert_eq!(config.word(devctl) & express::PAYLOAD, payload);
        assert_eq!(config.word(devctl) & express::ERROR_REPORTING, 0);
        assert_eq!(config.word(header::COMMAND), 0);
        assert_eq!(config.bar_address(0), fresh.bar_address(0));
    }
}

#[test]
fn errors_clear_by_writing_one() {
    let mut config = endpoint();
    config.set_bits(header::STATUS, status::ERRORS, status::ERRORS);
    config.write(header::STATUS, &0u16.to_le_bytes());
    assert_eq!(config.word(header::STATUS), status::CAPABILITIES | status::ERRORS);
    config.write(header::STATUS, &0x8000u16.to_le_bytes());
    assert_eq!(config.word(header::STATUS) & status::ERRORS, status::ERRORS & !0x8000);
    config.set_intx_pending(true);
    config.write(header::STATUS, &[0xff; 2]);
    assert_eq!(config.word(header::STATUS), status::CAPABILITIES | status::INTERRUPT);
}

#[test]
fn a_physical_function_describes_its_virtual_ones() {
    let bars = [Some(wide(0x1_0000)), None, Some(narrow(0x2000)), None, None, None];
    let sriov_block = single_root_virtualization(&VirtualFunctions {
        total_vfs: 2,
        first_offset: 1,
        stride: 1,
        device_id: 0xb1d0,
        function: 0,
        bars,
    });
    let mut config = ConfigBuilder::endpoint(&IDENTITY).extended(sriov_block).build().unwrap();
    let at = find_extended(&config, ext_id::SRIOV);
    assert_eq!(config.dword(at + sriov::INITIAL_VFS), 0x0002_0002);
    assert_eq!(config.dword(at + sriov::FIRST_VF_OFFSET), 0x0001_0001);
    config.write(at + sriov::VF_BAR0, &[0xff; 24]);
    let sizes = [0xffff_000c, 0xffff_ffff, 0xffff_e000, 0, 0, 0];
    for (offset, size) in (at + sriov::VF_BAR0..).step_by(4).zip(sizes) {
        assert_eq!(config.dword(offset), size);
    }
    config.write(at + sriov::NUM_VFS, &2u16.to_le_bytes());
    config.write(at + sriov::CONTROL, &[0xff; 2]);
    let on = sriov::VF_ENABLE | sriov::VF_MEMORY | sriov::ARI_HIERARCHY;
    assert_eq!(config.word(at + sriov::CONTROL), on);
    config.reset(Reset::Function);
    assert_eq!(config.word(at + sriov::CONTROL), 0);
    assert_eq!(config.word(at + sriov::NUM_VFS), 0);
}

#[test]
fn a_virtual_function_shows_no_ids() {
    let mut config = ConfigBuilder::endpoint(&IDENTITY).virtual_function().build().unwrap();
    assert_eq!(config.dword(header::VENDOR_ID), u32::MAX);
    config.write(header::COMMAND, &[0xff; 2]);
    assert_eq!(config.word(header::COMMAND), command::BUS_MASTER);
}

#[test]
fn what_does_not_fit_is_refused() {
    let builder = || ConfigBuilder::endpoint(&IDENTITY);
    let size = builder().bar(0, &narrow(0x3000)).build();
    assert_eq!(size, Err(BuildFault::BarSize { index: 0, size: 0x3000 }));
    assert_eq!(builder().bar(6, &narrow(0x1000)).build(), Err(BuildFault::BarIndex { index: 6 }));
    assert_eq!(builder().bar(5, &wide(0x1000)).build(), Err(BuildFault::BarIndex { index: 5 }));
    let twice = builder().bar(0, &wide(0x1000)).bar(1, &narrow(0x1000)).build();
    assert_eq!(twice, Err(BuildFault::BarIndex { index: 1 }));
    let large = CapabilityBlock::new(cap_id::VENDOR, RegisterBlock::new(0xc4));
    let full = builder().capability(large).build();
    assert_eq!(full, Err(BuildFault::CapabilitiesFull { id: cap_id::VENDOR }));
    let streams = SelectiveStreams { count: 255, associations: 15 };
    let full = builder().extended(integrity_and_encryption(streams)).build();
    assert_eq!(full, Err(BuildFault::ExtendedFull { id: ext_id::IDE }));
}

#[test]
fn a_link_up_root_port_has_its_number() {
    let config = ConfigBuilder::endpoint(&IDENTITY)
        .capability(capability::express_root_port(9))
        .build()
        .unwrap();
    let at = find(&config, cap_id::EXPRESS);
    assert_eq!(config.dword(at + express::LNKCAP) >> express::PORT_NUMBER_SHIFT, 9);
    assert_ne!(config.word(at + express::LNKSTA) & express::LINK_ACTIVE, 0);
}

proptest! {
    /// Bits that a write of all ones does not change, no write changes.
    #[test]
    fn read_only_bits_stay(
        writes in prop::collection::vec((0u16..4200, prop::collection::vec(any::<u8>(), 1..9)), 1..50),
    ) {
        let fresh = endpoint();
        let mut ones = fresh.clone();
        for offset in 0..regs::CONFIG_SIZE {
            ones.write(offset, &[0xff]);
        }
        let mut zeros = fresh.clone();
        for offset in 0..regs::CONFIG_SIZE {
            zeros.write(offset, &[0]);
        }
        let mut config = fresh.clone();
        for (offset, bytes) in &writes {
            config.write(*offset, bytes);
        }
        for offset in 0..regs::CONFIG_SIZE {
            let may_change = ones.byte(offset) ^ zeros.byte(offset);
            let changed = config.byte(offset) ^ fresh.byte(offset);
            prop_assert_eq!(changed & !may_change, 0, "offset {:#x}", offset);
        }
    }

    /// Sizing any BAR finds its size, and an address put there comes back.
    #[test]
    fn any_size_is_found(size_lg2 in 7u32..31, wide_bar: bool, address: u64) {
        let size = 1u64 << size_lg2;
        let kind = if wide_bar { wide(size) } else { narrow(size) };
        let mut config = ConfigBuilder::endpoint(&IDENTITY).bar(1, &kind).build().unwrap();
        config.write(header::BAR0 + 4, &[0xff; 8]);
        let low = config.dword(header::BAR0 + 4) & !0xf;
        let high = if wide_bar { config.dword(header::BAR0 + 8) } else { u32::MAX };
        let mask = u64::from(high) << 32 | u64::from(low);
        prop_assert_eq!((!mask).wrapping_add(1), size);
        config.write(header::BAR0 + 4, &address.to_le_bytes());
        let held = if wide_bar { address } else { address & u64::from(u32::MAX) };
        prop_assert_eq!(config.bar_address(1), Some(held & !(size - 1)));
    }

    /// Walking any bytes ends, inside config space, at each place once.
    #[test]
    fn walks_of_anything_end(bytes in prop::collection::vec(any::<u8>(), 4096)) {
        let mut bytes = bytes;
        bytes[usize::from(header::STATUS)] |= 0x10;
        let read = |offset: u16, into: &mut [u8]| {
            into.copy_from_slice(&bytes[usize::from(offset)..][..into.len()]);
        };
        let offsets: Vec<u16> = walk::capabilities(read).iter().map(|found| found.offset).collect();
        let mut once = offsets.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), offsets.len());
        prop_assert!(offsets.iter().all(|offset| (0x40..0x100).contains(offset)));
        let extended = walk::extended_capabilities(read);
        prop_assert!(extended.len() <= 960);
        prop_assert!(extended.iter().all(|found| (0x100..0x1000).contains(&found.offset)));
    }
}
