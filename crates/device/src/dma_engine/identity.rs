//! What the engine shows in config space, and its BARs.

use pci::capability::{self, BarOffset, ExpressEndpoint, Msi, MsixTable};
use pci::extended::{self, SelectiveStreams, VirtualFunctions};
use pci::{Bar, BarKind, ConfigBuilder, ConfigSpace, Identity};

use super::registers::low;
use super::regs::{self, bar0, bar2};
use super::{Bar0Mapping, Bar0Width, Config};

/// The BARs: registers and memory in 0, the MSI-X table in 2, memory alone in 4 if asked for.
pub(super) fn bars(config: &Config) -> [Option<Bar>; 6] {
    let memory = Bar {
        kind: match config.bar0 {
            Bar0Width::Bits32 => BarKind::Memory32 { prefetchable: false },
            Bar0Width::Bits64 => BarKind::Memory64 { prefetchable: false },
        },
        size: bar0::SIZE,
        mappable: match config.bar0_mapping {
            Bar0Mapping::Sparse => vec![(bar0::DESCRIPTORS, bar0::SIZE - bar0::DESCRIPTORS)],
            Bar0Mapping::None => Vec::new(),
        },
        msix_table: None,
    };
    let table_length = u64::from(regs::MSIX_VECTORS) * pci::regs::msix::ENTRY_SIZE;
    let table = Bar {
        kind: BarKind::Memory32 { prefetchable: false },
        size: bar2::SIZE,
        mappable: Vec::new(),
        msix_table: Some((bar2::TABLE, table_length)),
    };
    let spare = config.bar4_bytes.map(|size| Bar {
        kind: BarKind::Memory64 { prefetchable: true },
        size,
        mappable: vec![(0, size)],
        msix_table: None,
    });
    [Some(memory), None, Some(table), None, spare, None]
}

/// Config space after power-on.
///
/// # Panics
/// Never: every combination of options fits, which a test goes through.
pub(super) fn config_space(config: &Config, bars: &[Option<Bar>; 6]) -> ConfigSpace {
    let builder = ConfigBuilder::endpoint(&Identity {
        vendor_id: config.vendor_id,
        device_id: config.device_id,
        revision: regs::REVISION,
        class_code: regs::CLASS_CODE,
        subsystem_vendor_id: config.vendor_id,
        subsystem_id: config.device_id,
        multi_function: config.multi_function && !config.vf,
    });
    let builder = if config.vf {
        builder.virtual_function()
    } else {
        let builder = builder.interrupt_pin_a();
        bars.iter()
            .enumerate()
            .filter_map(|(index, bar)| Some((index, bar.as_ref()?)))
            .fold(builder, |builder, (index, bar)| builder.bar(index, bar))
    };
    let builder = with_capabilities(builder, config);
    let builder = with_extended_capabilities(builder, config, bars);
    builder.build().expect("all options together fit into config space")
}

fn with_capabilities(builder: ConfigBuilder, config: &Config) -> ConfigBuilder {
    let msi = Msi { vectors_lg2: regs::MSI_VECTORS_LG2, address_64: true, maskable: true };
    let msix = MsixTable {
        vectors: regs::MSIX_VECTORS,
        table: place(bar2::TABLE),
        pba: place(bar2::PENDING),
    };
    let express = ExpressEndpoint {
        function_level_reset: true,
        tee_io: config.tee,
        virtual_function: config.vf,
    };
    let builder =
        if config.vf { builder } else { builder.capability(capability::power_management()) };
    builder
        .capability(capability::message_signalled(msi))
        .capability(capability::msix(msix))
        .capability(capability::express_endpoint(express))
}

fn with_extended_capabilities(
    mut builder: ConfigBuilder,
    config: &Config,
    bars: &[Option<Bar>; 6],
) -> ConfigBuilder {
    builder = builder.extended(extended::error_reporting(false));
    if let Some(serial) = config.serial.filter(|_| !config.vf) {
        builder = builder.extended(extended::serial_number(serial));
    }
    if config.vf || config.sriov.is_some() {
        builder = builder.extended(extended::alternative_routing(0));
    }
    if let Some(sriov) = config.sriov.filter(|_| !config.vf) {
        builder = builder.extended(extended::single_root_virtualization(&VirtualFunctions {
            total_vfs: sriov.total_vfs,
            first_offset: sriov.first_offset,
            stride: sriov.stride,
            device_id: config.device_id,
            function: config.address.function(),
            bars: bars.clone(),
        }));
    }
    if config.tee && !config.vf {
        builder = builder
            .extended(extended::data_object_exchange())
            .extended(extended::integrity_and_encryption(STREAMS));
    }
    builder
}

/// As many streams as a small endpoint has, each with one address range.
const STREAMS: SelectiveStreams = SelectiveStreams { count: 4, associations: 1 };

fn place(offset: u64) -> BarOffset {
    const BAR: u8 = 2;
    const _: () = assert!(BAR as usize == bar2::INDEX);
    BarOffset { bar: BAR, offset: low(offset) }
}
