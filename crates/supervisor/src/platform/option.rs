//! `--device MODEL[,key=value…]`: one more function, without a file.
//!
//! Takes no lock.

use std::fmt::Write;
use std::ops::Range;

use pci::Address;

use super::Platform;
use super::fields::{Content, Field, Fields, Read, Value};
use super::functions::{
    self, Checked, DMA_ENGINE, Driver, ENDPOINT_KEYS, FunctionEntry, Model, dma_engine_keys,
};
use super::mistake::{Fault, Mistake, Source};

/// The domain of functions that name none.
const DOMAIN: u16 = 0xb1d0;
const ROOT_BUS: u8 = 0;

/// The models that `--device` takes, with their keys: what `--device help` prints.
pub fn device_help() -> String {
    let mut help = String::from(
        "--device MODEL[,key=value…] adds a function to the platform. Keys of every model:\n",
    );
    for (key, meaning) in ENDPOINT_KEYS {
        let _infallible = writeln!(help, "  {key:10} {meaning}");
    }
    for model in device::models() {
        let _infallible = writeln!(help, "\n{}: {}", model.name, model.summary);
        for key in model.keys {
            let _infallible = writeln!(help, "  {:10} {}: {}", key.name, key.values, key.summary);
        }
    }
    help
}

/// Adds the function that an option describes.
pub(super) fn add(platform: &mut Platform, source: &Source) -> Read<()> {
    let text = &source.text;
    let model_end = text.find(',').unwrap_or(text.len());
    let model = &text[..model_end];
    if model != DMA_ENGINE {
        // A root port alone is of no use to a client; one comes with each function.
        let fault = Fault::UnknownModel { model: model.to_owned(), allowed: vec![DMA_ENGINE] };
        return Err(Mistake::new(source, 0..model_end, fault));
    }
    let mut fields = vec![word("model", 0..0, text, 0..model_end)];
    fields.extend(key_values(source, model_end)?);
    let mut added = Vec::new();
    if !fields.iter().any(|field| field.key == "address") {
        let (address, port) = free_place(platform)
            .ok_or_else(|| Mistake::new(source, 0..model_end, Fault::NoFreeBus))?;
        added.push(port);
        let content = Content::Word(address.to_string());
        let value = Value { span: 0..model_end, content };
        fields.push(Field { key: "address".to_owned(), key_span: 0..model_end, value });
    }
    let fields = Fields::new(source, format!("--device {model}"), 0..text.len(), fields);
    let mut checked = Checked::of_entries(&platform.functions);
    checked.add(functions::read(fields)?)?;
    checked.check_topology()?;
    added.extend(checked.entries());
    platform.functions.extend(added);
    platform.functions.sort_by_key(|entry| entry.address);
    Ok(())
}

/// The `key=value` parts after the model.
fn key_values(source: &Source, model_end: usize) -> Read<Vec<Field>> {
    let text = &source.text;
    let mut fields: Vec<Field> = Vec::new();
    let mut start = model_end + 1;
    for part in text.get(start..).into_iter().flat_map(|rest| rest.split(',')) {
        let span = start..start + part.len();
        start = span.end + 1;
        let Some(equals) = part.find('=') else {
            let fault = Fault::NotKeyValue { text: part.to_owned(), allowed: dma_engine_keys() };
            return Err(Mistake::new(source, span, fault));
        };
        let key = &part[..equals];
        let key_span = span.start..span.start + equals;
        if fields.iter().any(|field| field.key == key) {
            let fault = Fault::Repeated { key: key.to_owned() };
            return Err(Mistake::new(source, key_span, fault));
        }
        fields.push(word(key, key_span.clone(), text, key_span.end + 1..span.end));
    }
    Ok(fields)
}

fn word(key: &str, key_span: Range<usize>, text: &str, span: Range<usize>) -> Field {
    let content = Content::Word(text[span.clone()].to_owned());
    Field { key: key.to_owned(), key_span, value: Value { span, content } }
}

/// Device 0 on the lowest bus above all others, and the root port that leads there.
fn free_place(platform: &Platform) -> Option<(Address, FunctionEntry)> {
    let here = |entry: &&FunctionEntry| entry.address.domain == DOMAIN;
    let highest = platform.functions.iter().filter(here).map(|entry| match &entry.model {
        Model::RootPort { secondary_bus } => entry.address.bus.max(*secondary_bus),
        Model::DmaEngine { .. } => entry.address.bus,
    });
    let secondary_bus = highest.max().unwrap_or(ROOT_BUS).checked_add(1)?;
    let taken = |address: &Address| {
        platform
            .functions
            .iter()
            .any(|entry| entry.address == *address || entry.vf_addresses().any(|vf| vf == *address))
    };
    let port = (1..=31)
        .filter_map(|device| Address::new(DOMAIN, ROOT_BUS, device, 0))
        .find(|address| !taken(address))?;
    let entry = FunctionEntry {
        address: port,
        model: Model::RootPort { secondary_bus },
        group: None,
        driver: Driver::None,
    };
    Some((Address::new(DOMAIN, secondary_bus, 0, 0)?, entry))
}
