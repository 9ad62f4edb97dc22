//! What the engine shows in config space, for every combination of options.

use std::sync::Arc;

use bindery_device as device;

use device::dma_engine::{Bar0Mapping, Bar0Width, Config, DmaEngine, Sriov, regs};
use mem::Pages;
use pci::regs::{cap_id, express, ext_id, header, sriov};
use pci::{BarKind, Function, Reset, walk};

use crate::client::ADDRESS;

fn all() -> impl Iterator<Item = Config> {
    (0u32..64).map(|bits| {
        let is_set = |bit: u32| bits >> bit & 1 != 0;
        Config {
            bar0: if is_set(0) { Bar0Width::Bits32 } else { Bar0Width::Bits64 },
            tee: is_set(1),
            multi_function: is_set(2),
            vf: is_set(3),
            sriov: is_set(4).then_some(Sriov { total_vfs: 2, first_offset: 1, stride: 1 }),
            serial: is_set(5).then_some(0x0011_2233_4455_6677),
            ..Config::new(ADDRESS.parse().unwrap())
        }
    })
}

fn dword(engine: &DmaEngine, offset: u16) -> u32 {
    let mut bytes = [0; 4];
    engine.config_read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

#[test]
fn every_combination_can_be_built_and_walked() {
    for config in all() {
        let engine = DmaEngine::new(&config);
        let read = |offset, into: &mut [u8]| engine.config_read(offset, into);
        let found = walk::capabilities(read);
        let ids: Vec<u8> = found.iter().map(|found| found.id).collect();
        let pm = if config.vf { vec![] } else { vec![cap_id::PM] };
        assert_eq!(ids, [pm, vec![cap_id::MSI, cap_id::MSIX, cap_id::EXPRESS]].concat());
        let express = found.last().unwrap().offset;
        let devcap = dword(&engine, express + express::DEVCAP);
        assert_ne!(devcap & express::FLR_CAPABLE, 0);
        assert_eq!(devcap & express::TEE_IO != 0, config.tee);

        let extended = walk::extended_capabilities(read);
        let has = |id| extended.iter().any(|found| found.id == id);
        assert!(has(ext_id::AER));
        assert_eq!(has(ext_id::DSN), config.serial.is_some() && !config.vf);
        assert_eq!(has(ext_id::SRIOV), config.sriov.is_some() && !config.vf);
        assert_eq!(has(ext_id::ARI), config.sriov.is_some() || config.vf);
        assert_eq!(has(ext_id::DOE), config.tee && !config.vf);
        assert_eq!(has(ext_id::IDE), config.tee && !config.vf);
    }
}

#[test]
fn bars_and_config_space_agree() {
    for config in all() {
        let engine = DmaEngine::new(&config);
        engine.config_write(header::BAR0, &[0xff; 24]);
        let sized: Vec<u32> = (0..6).map(|bar| dword(&engine, header::BAR0 + 4 * bar)).collect();
        let expected = match (config.vf, config.bar0) {
            (true, _) => [0; 6],
            (false, Bar0Width::Bits64) => [0xffff_0004, 0xffff_ffff, 0xffff_e000, 0, 0, 0],
            (false, Bar0Width::Bits32) => [0xffff_0000, 0, 0xffff_e000, 0, 0, 0],
        };
        assert_eq!(sized, expected);
        let bar = engine.bar(0).unwrap();
        let wide = matches!(bar.kind, BarKind::Memory64 { .. });
        assert_eq!(wide, config.bar0 == Bar0Width::Bits64);
        assert_eq!(bar.mappable, [(0x1000, 0xf000)]);
        assert_eq!(engine.bar(2).unwrap().msix_table, Some((0, 256)));
        assert!(engine.bar(1).is_none() && engine.bar(6).is_none());
    }
}

#[test]
fn a_bar_of_plain_memory_keeps_what_is_written_until_a_reset() {
    let config = Config {
        bar0_mapping: Bar0Mapping::None,
        bar4_bytes: Some(0x2000),
        ..Config::new(ADDRESS.parse().unwrap())
    };
    let engine = DmaEngine::new(&config);
    assert!(engine.bar(0).unwrap().mappable.is_empty());
    assert_eq!(engine.bar(4).unwrap().mappable, [(0, 0x2000)]);
    engine.config_write(header::BAR0 + 16, &[0xff; 8]);
    assert_eq!(dword(&engine, header::BAR0 + 16), 0xffff_e00c);

    let pages = Arc::new(Pages::anonymous(0x2000).unwrap());
    engine.back_bar(4, pages.clone());
    engine.bar_write(4, 0x1ffc, b"last");
    let mut read = [0; 4];
    pages.checked_read(0x1ffc, &mut read);
    assert_eq!(&read, b"last");
    engine.reset(Reset::Function);
    engine.bar_read(4, 0x1ffc, &mut read);
    assert_eq!(read, [0; 4]);
}

#[test]
fn identity_is_that_of_the_options() {
    let mut config = Config::new(ADDRESS.parse().unwrap());
    let ids = |config: &Config| dword(&DmaEngine::new(config), header::VENDOR_ID);
    assert_eq!(ids(&config), u32::from(regs::DEVICE_ID) << 16 | u32::from(regs::VENDOR_ID));
    config.set("vendor", "0x1b36").unwrap();
    config.set("device", "0x0010").unwrap();
    assert_eq!(ids(&config), 0x0010_1b36);
    config.vf = true;
    assert_eq!(ids(&config), u32::MAX);
}

#[test]
fn virtual_functions_are_found_through_the_physical_one() {
    let config = Config {
        sriov: Some(Sriov { total_vfs: 2, first_offset: 1, stride: 1 }),
        ..Config::new(ADDRESS.parse().unwrap())
    };
    let engine = DmaEngine::new(&config);
    let read = |offset, into: &mut [u8]| engine.config_read(offset, into);
    let extended = walk::extended_capabilities(read);
    let at = extended.iter().find(|found| found.id == ext_id::SRIOV).unwrap().offset;
    assert_eq!(dword(&engine, at + sriov::INITIAL_VFS), 0x0002_0002);
    let device_id = dword(&engine, at + sriov::VF_DEVICE_ID) & 0xffff;
    assert_eq!(device_id, u32::from(regs::DEVICE_ID));
    engine.config_write(at + sriov::VF_BAR0, &[0xff; 4]);
    assert_eq!(dword(&engine, at + sriov::VF_BAR0), 0xffff_0004);
}

#[test]
fn models_name_their_keys() {
    let [model] = device::models() else { panic!("one model") };
    assert_eq!(model.name, "dma-engine");
    assert!(!model.keys.is_empty());
    for key in model.keys {
        assert!(!key.values.is_empty() && !key.summary.is_empty(), "{}", key.name);
    }
}
