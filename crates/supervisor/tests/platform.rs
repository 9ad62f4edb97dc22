//! Platform files and `--device` options: what they come to, and what is said of bad ones.

use std::sync::Arc;

use bindery_supervisor::machine::Machine;
use bindery_supervisor::platform::{
    Capabilities, DEFAULT_TOML, GroupName, Model, P2pMap, Platform, PlatformError, Settings,
    VfioContainer, device_help,
};
use iommufd::Tvm;
use pci::{Address, DmaFault, Interrupt, Notices};
use tdisp::FunctionReset;
use tsm::software::Dialect;
use uapi::Profile;
use vfio::{ClientClearsBme, CloseOrder, DmaBufs, Doe, ResetWhileBound, TdiErrorEvent};

struct Silent;

impl Notices for Silent {
    fn dma_fault(&self, _: Address, _: &DmaFault) {}
    fn interrupt_unheard(&self, _: Address, _: Interrupt) {}
}

fn build(platform: &Platform) -> Machine {
    Machine::build(platform, Arc::new(Silent))
}

fn addresses(platform: &Platform) -> Vec<String> {
    build(platform).devices.iter().map(|device| device.address.to_string()).collect()
}

#[test]
fn the_default_platform_is_the_one_that_is_documented() {
    let platform = Platform::default();
    assert_eq!(platform.settings.uapi, Profile::Rfc);
    assert_eq!(platform.settings.close_order, CloseOrder::UnbindFirst);
    assert_eq!(platform.settings.p2p_map, P2pMap::Accept);
    assert_eq!(platform.settings.dma_bufs, DmaBufs::Linux73);
    let machine = build(&platform);
    let shown: Vec<_> = machine
        .devices
        .iter()
        .map(|device| {
            let group = device.group_id - machine.bridges[0].group_id;
            (device.vfio_index, device.address.to_string(), group, device.tee)
        })
        .collect();
    let row = |index, address: &str, group, tee| (index, address.to_owned(), group, tee);
    assert_eq!(
        shown,
        [
            row(0, "b1d0:01:00.0", 1, true),
            row(1, "b1d0:01:00.1", 2, true),
            row(2, "b1d0:01:00.2", 3, true),
            row(3, "b1d0:02:00.0", 5, false),
            row(4, "b1d0:03:00.0", 7, false),
            row(5, "b1d0:03:00.1", 7, false),
        ]
    );
    let bridges: Vec<_> = machine.bridges.iter().map(|bridge| bridge.secondary_bus).collect();
    assert_eq!(bridges, [1, 2, 3]);
}

#[test]
fn every_key_left_out_is_what_the_default_file_says() {
    let said = Platform::default();
    let left_out = Platform::parse("empty.toml", "").unwrap();
    assert_eq!(left_out.settings, said.settings);
    assert_eq!(left_out.iommu, said.iommu);
    assert!(left_out.functions.is_empty());
    let functions: String = DEFAULT_TOML.split_inclusive("[[function]]").skip(1).collect();
    let functions = Platform::parse("f.toml", &format!("[[function]]{functions}")).unwrap();
    assert_eq!(functions.functions, said.functions);
}

#[test]
fn settings_of_tee_devices_are_taken() {
    let platform = Platform::parse(
        "p.toml",
        r#"
[settings]
reset_while_bound = "unbind"
client_clears_bme = "refuse"
flr_while_locked = "error"
tvm = "kvm"
doe = "exposed"
exchange_timeout_ms = 250
tsm_dialect = "sev"
lock_msix = true
tdi_error_event = "req"
capabilities = "mirror"
"#,
    )
    .unwrap();
    let expected = Settings {
        reset_while_bound: ResetWhileBound::Unbind,
        client_clears_bme: ClientClearsBme::Refuse,
        flr_while_locked: FunctionReset::Breaches,
        tvm: Tvm::Kvm,
        doe: Doe::Exposed,
        exchange_timeout_ms: 250,
        tsm_dialect: Dialect::Sev,
        lock_msix: true,
        tdi_error_event: TdiErrorEvent::Req,
        capabilities: Capabilities::Mirror,
        ..Settings::default()
    };
    assert_eq!(platform.settings, expected);
}

#[test]
fn settings_and_geometry_are_taken() {
    let platform = Platform::parse(
        "p.toml",
        r#"
[settings]
uapi = "linux-7.3"
iommu = "plain"
close_order = "linux-7.3"
p2p_map = "linux-7.3"
dma_buf = "off"
vfio_container = "vfio_iommu_type1"
[iommu]
aperture = { first = 0x1000, last = 0xffff_ffff }
reserved = [
    { first = 0x8000_0000, last = 0x8000_0fff },
    { first = 0xfee0_0000, last = 0xfeef_ffff, kind = "msi" },
]
page_sizes = ["4K"]
dirty_tracking = false
cache_coherent = false
msi_isolated = false
"#,
    )
    .unwrap();
    assert_eq!(platform.settings.uapi, Profile::Linux73);
    assert_eq!(platform.settings.close_order, CloseOrder::Linux73);
    assert_eq!(platform.settings.p2p_map, P2pMap::Linux73);
    assert_eq!(platform.settings.dma_bufs, DmaBufs::Off);
    assert_eq!(platform.settings.vfio_container, VfioContainer::Type1);
    let iommu = &platform.iommu;
    assert_eq!((iommu.aperture.start(), iommu.aperture.last()), (0x1000, 0xffff_ffff));
    assert_eq!(iommu.reserved.len(), 2);
    assert_eq!(iommu.page_sizes, 4096);
    assert!(!iommu.dirty_tracking && !iommu.cache_coherent && !iommu.msi_isolated);
}

#[test]
fn the_shipped_platform_of_vtd_is_one_of_vtd() {
    let text = include_str!("../../../platforms/vtd.toml");
    let platform = Platform::parse("vtd.toml", text).unwrap();
    let machine = build(&platform);
    assert_eq!(machine.iommu.hardware(), iommufd::Hardware::Vtd);
    assert_eq!(machine.iommu.geometry().max_pasid_log2, 20);
    for bits in [39, 57] {
        let last = (1_u64 << bits) - 1;
        let text = format!(
            "[settings]\niommu = \"vtd\"\n[iommu]\naperture = {{ first = 0, last = {last} }}\n"
        );
        assert_eq!(Platform::parse("p.toml", &text).unwrap().iommu.aperture.last(), last);
    }
}

#[test]
fn the_shipped_platform_of_smmuv3_is_one_of_smmuv3() {
    let text = include_str!("../../../platforms/smmuv3.toml");
    let machine = build(&Platform::parse("smmuv3.toml", text).unwrap());
    assert_eq!(machine.iommu.hardware(), iommufd::Hardware::Smmuv3);
    assert_eq!(machine.iommu.geometry().max_pasid_log2, 20);
}

/// Each bad file, and all that is printed of it.
const BAD_FILES: &[(&str, &str)] = &[
    (
        "[settings]\nuapi = rfc\n",
        "\
p.toml:2:8: string values must be quoted, expected literal string
     2 | uapi = rfc
       |        ^^^",
    ),
    (
        "[setings]\n",
        "\
p.toml:1:2: unknown key `setings` in the file; keys: settings, iommu, function, fault
     1 | [setings]
       |  ^^^^^^^",
    ),
    (
        "[settings]\nclose_ordr = 1\n",
        "\
p.toml:2:1: unknown key `close_ordr` in [settings]; keys: uapi, iommu, close_order, \
         reset_while_bound, client_clears_bme, flr_while_locked, tvm, p2p_map, dma_buf, \
         vfio_container, doe, exchange_timeout_ms, tsm_dialect, lock_msix, tdi_error_event, capabilities
     2 | close_ordr = 1
       | ^^^^^^^^^^",
    ),
    (
        "[settings]\ncapabilities = \"held\"\n",
        "\
p.toml:2:16: `capabilities` has no value \"held\"; values: unless-dropped, mirror
     2 | capabilities = \"held\"
       |                ^^^^^^",
    ),
    (
        "[settings]\ntvm = \"xen\"\n",
        "\
p.toml:2:7: `tvm` has no value \"xen\"; values: implicit, kvm
     2 | tvm = \"xen\"
       |       ^^^^^",
    ),
    (
        "[settings]\nexchange_timeout_ms = 0\n",
        "\
p.toml:2:23: `exchange_timeout_ms` is 0; allowed: 1 to 60000
     2 | exchange_timeout_ms = 0
       |                       ^",
    ),
    (
        "[settings]\niommu = \"amd\"\n",
        "\
p.toml:2:9: `iommu` has no value \"amd\"; values: plain, vtd, smmuv3, mock
     2 | iommu = \"amd\"
       |         ^^^^^",
    ),
    (
        "[settings]\niommu = \"smmuv3\"\n[iommu]\naperture = { first = 0, last = 0x7f_ffff_ffff }\n",
        "\
p.toml:4:12: not with `iommu = \"smmuv3\"`: addresses have 32, 36, 40, 42, 44 or 48 bits, and begin at 0
     4 | aperture = { first = 0, last = 0x7f_ffff_ffff }
       |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    ),
    (
        "[settings]\niommu = \"smmuv3\"\n[iommu]\npage_sizes = [\"4K\", \"2M\"]\n",
        "\
p.toml:4:14: not with `iommu = \"smmuv3\"`: its granule of 4K has pages of 4K, 2M and 1G
     4 | page_sizes = [\"4K\", \"2M\"]
       |              ^^^^^^^^^^^^",
    ),
    (
        "[settings]\niommu = \"smmuv3\"\n[iommu]\ncache_coherent = false\n",
        "\
p.toml:4:18: not with `iommu = \"smmuv3\"`: it nests tables only where DMA is coherent
     4 | cache_coherent = false
       |                  ^^^^^",
    ),
    (
        "[settings]\nuapi = \"linux-6.1\"\n",
        "\
p.toml:2:8: `uapi` has no value \"linux-6.1\"; values: rfc, linux-7.3, rfc-v5-2026-05, \
         rfc-v7-2026-10, rfc-2025-05
     2 | uapi = \"linux-6.1\"
       |        ^^^^^^^^^^^",
    ),
    (
        "[iommu]\ndirty_tracking = 1\n",
        "\
p.toml:2:18: `dirty_tracking` is true or false, not a number
     2 | dirty_tracking = 1
       |                  ^",
    ),
    (
        "[iommu]\naperture = { first = 0, last = 0x1000 }\n",
        "\
p.toml:2:32: a span ends with a page, at 0x…fff, not at 0x1000
     2 | aperture = { first = 0, last = 0x1000 }
       |                                ^^^^^^",
    ),
    (
        "[iommu]\naperture = { first = 0x10000, last = 0xfff }\n",
        "\
p.toml:2:38: last 0xfff is below first 0x10000
     2 | aperture = { first = 0x10000, last = 0xfff }
       |                                      ^^^^^",
    ),
    (
        "[iommu]\npage_sizes = [\"2M\"]\n",
        "\
p.toml:2:14: page_sizes must have \"4K\", the processor's page
     2 | page_sizes = [\"2M\"]
       |              ^^^^^^",
    ),
    (
        "[iommu]\nreserved = [{ first = 0, last = 0xfff }, { first = 0, last = 0x1fff }]\n",
        "\
p.toml:2:42: [0x0-0x1fff] overlaps [0x0-0xfff], which is reserved too
     2 | reserved = [{ first = 0, last = 0xfff }, { first = 0, last = 0x1fff }]
       |                                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    ),
    (
        "[settings]\niommu = \"vtd\"\n[iommu]\naperture = { first = 0, last = 0xffff_ffff }\n",
        "\
p.toml:4:12: not with `iommu = \"vtd\"`: addresses have 39, 48 or 57 bits, and begin at 0
     4 | aperture = { first = 0, last = 0xffff_ffff }
       |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    ),
    (
        "[settings]\niommu = \"vtd\"\n[iommu]\npage_sizes = [\"4K\", \"1G\"]\n",
        "\
p.toml:4:14: not with `iommu = \"vtd\"`: pages of 1G come with pages of 2M
     4 | page_sizes = [\"4K\", \"1G\"]
       |              ^^^^^^^^^^^^",
    ),
    (
        "[settings]\niommu = \"vtd\"\n[iommu]\nreserved = []\n",
        "\
p.toml:4:12: not with `iommu = \"vtd\"`: 0xfee00000 to 0xfeefffff is for interrupts (\"msi\")
     4 | reserved = []
       |            ^^",
    ),
    (
        "[settings]\niommu = \"vtd\"\n[iommu]\ncache_coherent = false\n",
        "\
p.toml:4:18: not with `iommu = \"vtd\"`: its DMA always snoops caches
     4 | cache_coherent = false
       |                  ^^^^^",
    ),
    (
        "[settings]\niommu = \"vtd\"\n[iommu]\nmax_pasid_log2 = 21\n",
        "\
p.toml:4:18: `max_pasid_log2` is 21; allowed: 0 to 20
     4 | max_pasid_log2 = 21
       |                  ^^",
    ),
    (
        "[[function]]\naddress = \"b1d0:01:00.0\"\nmodel = \"nvm\"\n",
        "\
p.toml:3:9: unknown model \"nvm\"; models: dma-engine, root-port
     3 | model = \"nvm\"
       |         ^^^^^",
    ),
    (
        "\n[[function]]\nmodel = \"dma-engine\"\n",
        "\
p.toml:2:1: `address` is missing in [[function]]
     2 | [[function]]
       | ^^^^^^^^^^^^",
    ),
    (
        "[[function]]\nmodel = \"dma-engine\"\naddress = \"01:00.0\"\n",
        "\
p.toml:3:11: \"01:00.0\" is not a PCI address; expected dddd:bb:dd.f in hexadecimal, such as \
         b1d0:01:00.0
     3 | address = \"01:00.0\"
       |           ^^^^^^^^^",
    ),
    (
        "[[function]]\nmodel = \"dma-engine\"\naddress = \"b1d0:01:00.0\"\nbar0 = 16\n",
        "\
p.toml:4:8: `bar0` is 16; allowed: 32 or 64
     4 | bar0 = 16
       |        ^^",
    ),
    (
        "[[function]]\nmodel = \"dma-engine\"\naddress = \"b1d0:01:00.0\"\nvfs = 64\n",
        "\
p.toml:4:7: `vfs` is 64; allowed: 0 to 63
     4 | vfs = 64
       |       ^^",
    ),
    (
        "[[function]]\nmodel = \"dma-engine\"\naddress = \"b1d0:01:1f.7\"\nvfs = 1\n",
        "\
p.toml:4:7: 1 virtual functions do not fit behind b1d0:01:1f.7; at most 0
     4 | vfs = 1
       |       ^",
    ),
    (
        "[[function]]\nmodel = \"dma-engine\"\naddress = \"b1d0:01:00.0\"\nvfs = 2\n\
         [[function]]\nmodel = \"dma-engine\"\naddress = \"b1d0:01:00.2\"\n",
        "\
p.toml:7:11: b1d0:01:00.2 is taken by another function; each needs an address of its own
     7 | address = \"b1d0:01:00.2\"
       |           ^^^^^^^^^^^^^^",
    ),
    (
        "[[function]]\nmodel = \"dma-engine\"\naddress = \"b1d0:01:00.1\"\n",
        "\
p.toml:3:11: b1d0:01:00.1 has no function 0 beside it; a PCI device always has function 0
     3 | address = \"b1d0:01:00.1\"
       |           ^^^^^^^^^^^^^^",
    ),
    (
        "[[function]]\nmodel = \"root-port\"\naddress = \"b1d0:02:00.0\"\nsecondary_bus = 1\n",
        "\
p.toml:4:17: secondary_bus 0x01 must be above the bridge's own bus 0x02
     4 | secondary_bus = 1
       |                 ^",
    ),
    (
        "[[function]]\nmodel = \"root-port\"\naddress = \"b1d0:00:01.0\"\nsecondary_bus = 1\n\
         [[function]]\nmodel = \"root-port\"\naddress = \"b1d0:00:02.0\"\nsecondary_bus = 1\n",
        "\
p.toml:8:17: bus 01 is already behind another bridge
     8 | secondary_bus = 1
       |                 ^",
    ),
    (
        "[[function]]\nmodel = \"root-port\"\naddress = \"b1d0:00:01.0\"\nsecondary_bus = 1\n\
         [[function]]\nmodel = \"root-port\"\naddress = \"b1d0:01:00.0\"\nsecondary_bus = 2\n",
        "\
p.toml:7:11: a root port stands on a root bus; bus 01 is behind b1d0:00:01.0
     7 | address = \"b1d0:01:00.0\"
       |           ^^^^^^^^^^^^^^",
    ),
    (
        "[[fault]]\nfunction = \"b1d0:01:00.0\"\nfault = \"bind=silent\"\n",
        "\
p.toml:2:12: the platform has no function b1d0:01:00.0
     2 | function = \"b1d0:01:00.0\"
       |            ^^^^^^^^^^^^^^",
    ),
    (
        "[[function]]\naddress = \"b1d0:02:00.0\"\nmodel = \"dma-engine\"\n\
         [[fault]]\nfunction = \"b1d0:02:00.0\"\nfault = \"bind=silent\"\n",
        "\
p.toml:5:12: b1d0:02:00.0 takes no part in TEE-IO (`tee = true`), so no fault can befall its TDI
     5 | function = \"b1d0:02:00.0\"
       |            ^^^^^^^^^^^^^^",
    ),
    (
        "[[fault]]\nfault = \"bind=silent\"\n",
        "\
p.toml:1:1: `function` is missing in [[fault]]
     1 | [[fault]]
       | ^^^^^^^^^",
    ),
    (
        "function = 3\n",
        "\
p.toml:1:12: `function` is a list, not a number
     1 | function = 3
       |            ^",
    ),
];

#[test]
fn a_bad_file_is_told_with_place_and_remedy() {
    for (text, told) in BAD_FILES {
        let error = Platform::parse("p.toml", text).expect_err(text);
        assert_eq!(error.to_string(), *told, "of:\n{text}");
    }
}

#[test]
fn faults_are_of_functions_that_are_there() {
    let text = r#"
[[function]]
address = "b1d0:01:00.0"
model = "dma-engine"
tee = true
vfs = 1
[[fault]]
function = "b1d0:01:00.1"
fault = "bind=slow:500"
"#;
    let platform = Platform::parse("p.toml", text).unwrap();
    let [fault] = &platform.faults[..] else { panic!("{:?}", platform.faults) };
    assert_eq!(fault.function.to_string(), "b1d0:01:00.1");
    assert_eq!(fault.fault.to_string(), "bind=slow:500");
    let bad = text.replace("slow:500", "sometimes");
    let error = Platform::parse("p.toml", &bad).unwrap_err().to_string();
    assert!(error.starts_with("p.toml:9:9: \"bind=sometimes\" is no fault"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Platform::read("/nonexistent/p.toml".as_ref()).unwrap_err();
    assert!(matches!(&missing, PlatformError::Unreadable { .. }));
    assert!(missing.to_string().starts_with("/nonexistent/p.toml: cannot be read: "));
    let binary = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("binary.toml");
    std::fs::write(&binary, b"a = '\xff'").unwrap();
    let binary = Platform::read(&binary).unwrap_err();
    assert!(binary.to_string().contains("byte 5 is not UTF-8"), "{binary}");
}

#[test]
fn a_device_option_adds_a_function_behind_a_port_of_its_own() {
    let mut platform = Platform::default();
    platform.add_device("dma-engine,tee=on,vfs=1,group=pair").unwrap();
    platform.add_device("dma-engine,address=0000:7f:00.0,driver=none,group=7").unwrap();
    let all = addresses(&platform);
    assert_eq!(all.first().map(String::as_str), Some("0000:7f:00.0"));
    assert_eq!(&all[7..], ["b1d0:04:00.0", "b1d0:04:00.1"]);
    let machine = build(&platform);
    assert_eq!(machine.devices[0].group_id, 7);
    assert!(!machine.devices[0].bound_at_start);
    assert!(machine.devices[7].tee && machine.devices[8].tee);
    assert_eq!(machine.devices[7].group_id, machine.devices[6].group_id, "shares the word");
    assert_eq!(machine.devices[8].physical_function, Some(machine.devices[7].address));
    let port = machine.bridges.iter().find(|bridge| bridge.secondary_bus == 4).unwrap();
    assert_eq!(port.address.to_string(), "b1d0:00:04.0");
}

/// Each bad option, and all that is printed of it.
const BAD_OPTIONS: &[(&str, &str)] = &[
    (
        "nvm",
        "\
--device:1:1: unknown model \"nvm\"; models: dma-engine
     1 | nvm
       | ^^^",
    ),
    (
        "dma-engine,colour=red",
        "\
--device:1:12: unknown key `colour` in --device dma-engine; keys: address, vfs, group, driver, \
         bar0, bar0_mapping, bar4, tee, serial, vendor, device
     1 | dma-engine,colour=red
       |            ^^^^^^",
    ),
    (
        "dma-engine,tee",
        "\
--device:1:12: \"tee\" is not key=value; keys: address, vfs, group, driver, bar0, bar0_mapping, \
         bar4, tee, serial, vendor, device
     1 | dma-engine,tee
       |            ^^^",
    ),
    (
        "dma-engine,tee=maybe",
        "\
--device:1:16: `tee` is maybe; allowed: on or off
     1 | dma-engine,tee=maybe
       |                ^^^^^",
    ),
    (
        "dma-engine,vfs=x",
        "\
--device:1:16: `vfs` is a number, not a text
     1 | dma-engine,vfs=x
       |                ^",
    ),
    (
        "dma-engine,vfs=1,vfs=2",
        "\
--device:1:18: `vfs` is said twice
     1 | dma-engine,vfs=1,vfs=2
       |                  ^^^",
    ),
    (
        "dma-engine,address=b1d0:01:00.1",
        "\
--device:1:20: b1d0:01:00.1 is taken by another function; each needs an address of its own
     1 | dma-engine,address=b1d0:01:00.1
       |                    ^^^^^^^^^^^^",
    ),
];

#[test]
fn a_bad_option_is_told_with_place_and_remedy() {
    for (option, told) in BAD_OPTIONS {
        let mut platform = Platform::default();
        let before = platform.functions.clone();
        let error = platform.add_device(option).expect_err(option);
        assert_eq!(error.to_string(), *told);
        assert_eq!(platform.functions, before, "nothing is added in part");
    }
}

#[test]
fn as_many_devices_as_there_are_ports() {
    let mut platform = Platform::parse("p.toml", "").unwrap();
    for _ in 0..31 {
        platform.add_device("dma-engine").unwrap();
    }
    let error = platform.add_device("dma-engine").unwrap_err();
    assert!(error.to_string().contains("no bus is free"), "{error}");
    assert_eq!(addresses(&platform).len(), 31);
}

#[test]
fn help_names_every_key_that_is_taken() {
    let help = device_help();
    for key in ["address", "vfs", "group", "driver", "tee", "bar0", "dma-engine"] {
        assert!(help.contains(key), "{key} in {help}");
    }
}

#[test]
fn groups_keep_the_numbers_that_the_file_gives() {
    let text = r#"
[[function]]
address = "b1d0:01:00.0"
model = "dma-engine"
group = 1000
[[function]]
address = "b1d0:02:00.0"
model = "dma-engine"
"#;
    let platform = Platform::parse("p.toml", text).unwrap();
    assert_eq!(platform.functions[0].group, Some(GroupName::Number(1000)));
    assert!(matches!(&platform.functions[0].model, Model::DmaEngine { vfs: 0, .. }));
    let ids: Vec<u32> = build(&platform).devices.iter().map(|device| device.group_id).collect();
    assert_eq!(ids, [1000, 1001]);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}", cut in 0..DEFAULT_TOML.len(), junk in "[ -~\\n]{0,4}") {
        let _any = Platform::parse("p.toml", &text);
        let mut platform = Platform::default();
        let _any = platform.add_device(&text);
        let _any = platform.add_device(&format!("dma-engine,{text}"));
        if DEFAULT_TOML.is_char_boundary(cut) {
            let (head, tail) = DEFAULT_TOML.split_at(cut);
            if let Err(error) = Platform::parse("p.toml", &format!("{head}{junk}{tail}")) {
                // Every complaint can be shown.
                proptest::prop_assert!(error.to_string().starts_with("p.toml:"));
            }
        }
    }
}
