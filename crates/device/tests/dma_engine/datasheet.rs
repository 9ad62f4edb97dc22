//! The datasheet says what the code says.
//!
//! A table in `docs/dma-engine.md` that follows a line `<!-- regs::MODULE -->` lists every constant of
//! that module: its first column is the value, its second the name.

use std::collections::BTreeMap;

use bindery_device as device;

use device::dma_engine::regs;

use pci::Function;

use crate::client::Bench;

const DATASHEET: &str = include_str!("../../../../docs/dma-engine.md");
const SOURCE: &str = include_str!("../../src/dma_engine/regs.rs");

/// Constants of the source that have no row: sizes, indexes, unions.
const NOT_IN_TABLES: [&str; 6] = ["INDEX", "SIZE", "ALL", "REGISTERS_LENGTH", "WINDOW_LENGTH", ""];

/// A row, cell by cell.
type Row = Vec<String>;

/// The rows of each marked table, by module.
fn tables() -> BTreeMap<String, Vec<Row>> {
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut module = None;
    for line in DATASHEET.lines() {
        if let Some(marker) = line.strip_prefix("<!-- regs::") {
            module = marker.strip_suffix(" -->").map(str::to_owned);
        } else if line.starts_with('#') {
            module = None;
        } else if let (Some(module), Some(cells)) = (&module, line.strip_prefix("| ")) {
            let row: Row = cells.split('|').map(|cell| cell.trim().to_owned()).collect();
            let is_header = ["offset", "bit", "value"].contains(&row[0].as_str());
            if !is_header {
                tables.entry(module.clone()).or_default().push(row);
            }
        }
    }
    tables
}

/// The constants of each module of the source, by name. A bit counts as its number.
fn constants() -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut modules: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut module = String::new();
    for line in SOURCE.lines() {
        if let Some(name) = line.strip_prefix("pub mod ") {
            module = name.trim_end_matches(" {").to_owned();
        } else if let Some(constant) = line.strip_prefix("    pub const ") {
            let (name, rest) = constant.split_once(':').unwrap();
            let (_, value) = rest.split_once(" = ").unwrap();
            let value = value.trim_end_matches(';').trim_start_matches("1 << ");
            if let Some(value) = number(value) {
                modules.entry(module.clone()).or_default().insert(name.to_owned(), value);
            }
        }
    }
    modules
}

fn number(text: &str) -> Option<u64> {
    let text = text.replace('_', "");
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[test]
fn tables_list_the_constants_of_the_source() {
    let constants = constants();
    let tables = tables();
    assert_eq!(tables.len(), 11, "{:?}", tables.keys());
    for (module, rows) in &tables {
        let documented: BTreeMap<String, u64> =
            rows.iter().map(|row| (row[1].clone(), number(&row[0]).unwrap())).collect();
        let mut defined = constants[module].clone();
        if module != "register" {
            defined.retain(|name, _| !NOT_IN_TABLES.contains(&name.as_str()));
        }
        assert_eq!(documented, defined, "{module}");
    }
}

#[test]
fn registers_have_the_reset_values_and_access_of_the_table() {
    for row in &tables()["register"] {
        let [offset, name, access, reset] = [&row[0], &row[1], &row[2], &row[3]];
        let (offset, reset) = (number(offset).unwrap(), number(reset).unwrap());
        let bench = Bench::new();
        bench.engine.reset(pci::Reset::Bus);
        assert_eq!(u64::from(bench.read(offset)), reset, "{name}");
        let written = 1;
        bench.write(offset, written);
        let read = u64::from(bench.read(offset));
        match access.as_str() {
            "RW" => assert_eq!(read, u64::from(written), "{name}"),
            "RO" | "WO" | "W1C" => assert_eq!(read, reset, "{name}"),
            other => panic!("{name} has access {other}"),
        }
    }
}

#[test]
fn identity_and_limits_are_those_of_the_source() {
    let says = |text: String| assert!(DATASHEET.contains(&text), "{text}");
    says(format!("| vendor ID | {:#06x} |", regs::VENDOR_ID));
    says(format!("| device ID | {:#06x} |", regs::DEVICE_ID));
    says(format!("| revision | {:#04x} |", regs::REVISION));
    says(format!("| class code | {:#08x} ", regs::CLASS_CODE));
    says(format!("MSI ({} vectors", regs::MSI_VECTORS));
    says(format!("MSI-X\n({} vectors", regs::MSIX_VECTORS));
    says(format!("{} × {} bytes", regs::SLOTS, regs::descriptor::SIZE));
    says(format!("{} × {} bytes", regs::SLOTS, regs::status::SIZE));
    says(format!("at most {} KiB", regs::STEP_MAX >> 10));
}
