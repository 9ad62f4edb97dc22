//! `[[function]]` entries: one each, and whether together they make a PCI topology.
//!
//! Takes no lock.

use std::collections::BTreeMap;
use std::ops::Range;

use device::dma_engine;
use pci::Address;

use super::fields::{Content, Fields, Read};
use super::mistake::{Fault, Mistake, Source};

/// One function of the machine, as described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionEntry {
    /// Where it sits.
    pub address: Address,
    /// What it is.
    pub model: Model,
    /// Its IOMMU group; `None` for one of its own.
    pub group: Option<GroupName>,
    /// What it is bound to at start.
    pub driver: Driver,
}

/// An IOMMU group, as functions that share one name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupName {
    /// By the number that the client sees.
    Number(u32),
    /// By a word; the number is chosen.
    Label(String),
}

/// What a function is bound to at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `vfio-pci`: assignable.
    VfioPci,
    /// Nothing, until the client binds it.
    None,
}

/// What a function is, with what the model needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// A DMA engine (`docs/dma-engine.md`).
    DmaEngine {
        /// How it is built, but for what follows from its neighbours.
        config: Box<dma_engine::Config>,
        /// Virtual functions behind it, enabled from the start.
        vfs: u16,
    },
    /// A bridge from a root bus to one device.
    RootPort {
        /// The bus behind it.
        secondary_bus: u8,
    },
}

impl Model {
    /// Whether it takes part in TEE-IO.
    pub(super) fn is_tee(&self) -> bool {
        match self {
            Self::DmaEngine { config, .. } => config.tee,
            Self::RootPort { .. } => false,
        }
    }

    /// As platform files call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DmaEngine { .. } => DMA_ENGINE,
            Self::RootPort { .. } => ROOT_PORT,
        }
    }

    /// Virtual functions behind the function.
    pub fn vfs(&self) -> u16 {
        match self {
            Self::DmaEngine { vfs, .. } => *vfs,
            Self::RootPort { .. } => 0,
        }
    }
}

impl FunctionEntry {
    /// The addresses of its virtual functions: those right behind its own.
    pub fn vf_addresses(&self) -> impl Iterator<Item = Address> + use<> {
        let Address { domain, bus, .. } = self.address;
        let own = u16::from(self.address.devfn());
        (own + 1..=own + self.model.vfs())
            .map_while(|devfn| u8::try_from(devfn).ok())
            .filter_map(move |devfn| at_devfn(domain, bus, devfn))
    }
}

pub(super) const DMA_ENGINE: &str = "dma-engine";
pub(super) const ROOT_PORT: &str = "root-port";
/// Every model of this version.
pub(super) const MODELS: &[&str] = &[DMA_ENGINE, ROOT_PORT];

/// Keys of every function that can be assigned, with what help says about each; those of its model
/// come after them.
pub(super) const ENDPOINT_KEYS: &[(&str, &str)] = &[
    ("address", "where it sits, dddd:bb:dd.f (with --device: default a free bus of its own)"),
    ("vfs", "SR-IOV virtual functions, 0 to 63, enabled from the start (default 0)"),
    ("group", "IOMMU group, a number or a word that functions share (default one of its own)"),
    ("driver", "vfio-pci or none: what it is bound to at start (default vfio-pci)"),
];
const ROOT_PORT_KEYS: &[&str] = &["model", "address", "secondary_bus", "group"];

/// The keys of a DMA engine.
pub(super) fn dma_engine_keys() -> Vec<&'static str> {
    let common = ENDPOINT_KEYS.iter().map(|(key, _)| *key);
    common.chain(dma_engine::KEYS.iter().map(|key| key.name)).collect()
}

/// More than small devices have; the bus has room for 255.
const VFS_MOST: u64 = 63;

/// Reads one entry; says where its address stands.
pub(super) fn read(mut fields: Fields<'_>) -> Read<Placed<'_>> {
    let model = fields.need("model")?;
    let source = fields.source;
    let (name, model_place) = fields.as_text("model", &model.value)?;
    let (address, place) = match name.as_str() {
        DMA_ENGINE => {
            // An option begins with the model, without a key.
            let key = matches!(model.value.content, Content::Text(_)).then_some("model");
            let keys: Vec<_> = key.into_iter().chain(dma_engine_keys()).collect();
            fields.allow(&keys, &[])?;
            address(&mut fields)?
        }
        ROOT_PORT => {
            fields.allow(ROOT_PORT_KEYS, &[])?;
            address(&mut fields)?
        }
        _ => {
            let fault = Fault::UnknownModel { model: name, allowed: MODELS.to_vec() };
            return Err(fields.mistake(model_place, fault));
        }
    };
    let bus_place = fields.place_of("secondary_bus");
    let vfs_place = fields.place_of("vfs");
    let group = group(&mut fields)?;
    let (model, driver) =
        if name == ROOT_PORT { root_port(&mut fields)? } else { dma_engine(&mut fields, address)? };
    let entry = FunctionEntry { address, model, group, driver };
    Ok(Placed { entry, source, place, bus_place, vfs_place })
}

fn address(fields: &mut Fields<'_>) -> Read<(Address, Range<usize>)> {
    let here = fields.span.clone();
    let missing = Fault::Missing { key: "address", table: "[[function]]".to_owned() };
    let Some((text, place)) = fields.text("address")? else {
        return Err(fields.mistake(here, missing));
    };
    match text.parse() {
        Ok(address) => Ok((address, place)),
        Err(_) => Err(fields.mistake(place, Fault::NotAnAddress { text })),
    }
}

fn group(fields: &mut Fields<'_>) -> Read<Option<GroupName>> {
    let Some(field) = fields.take("group") else { return Ok(None) };
    if let Content::Text(word) | Content::Word(word) = &field.value.content
        && !word.starts_with(|c: char| c.is_ascii_digit())
    {
        return Ok(Some(GroupName::Label(word.clone())));
    }
    let number = fields.as_number("group", &field.value)?;
    match number.and_then(|number| u32::try_from(number).ok()) {
        Some(number) => Ok(Some(GroupName::Number(number))),
        None => {
            let allowed = "0 to 4294967295, or a word";
            let value = fields.written(&field.value);
            let fault = Fault::OutOfRange { key: "group", value, allowed };
            Err(fields.mistake(field.value.span, fault))
        }
    }
}

fn dma_engine(fields: &mut Fields<'_>, address: Address) -> Read<(Model, Driver)> {
    let mut config = dma_engine::Config::new(address);
    for key in dma_engine::KEYS {
        let Some(field) = fields.take(key.name) else { continue };
        let text = match &field.value.content {
            Content::Text(text) | Content::Word(text) => text.clone(),
            Content::Number(Some(number)) => number.to_string(),
            Content::Switch(on) => if *on { "on" } else { "off" }.to_owned(),
            Content::Number(None) | Content::List(_) | Content::Table(_) | Content::Other(_) => {
                return Err(fields.wrong_type(key.name, &field.value, key.values));
            }
        };
        if config.set(key.name, &text).is_err() {
            let value = fields.written(&field.value);
            let fault = Fault::OutOfRange { key: key.name, value, allowed: key.values };
            return Err(fields.mistake(field.value.span, fault));
        }
    }
    let vfs = fields.number("vfs", 0..=VFS_MOST, "0 to 63")?.unwrap_or(0);
    let drivers = [("vfio-pci", Driver::VfioPci), ("none", Driver::None)];
    let driver = fields.choice("driver", &drivers)?.unwrap_or(Driver::VfioPci);
    let vfs = u16::try_from(vfs).unwrap_or_default();
    Ok((Model::DmaEngine { config: Box::new(config), vfs }, driver))
}

fn root_port(fields: &mut Fields<'_>) -> Read<(Model, Driver)> {
    let here = fields.span.clone();
    let missing = Fault::Missing { key: "secondary_bus", table: "[[function]]".to_owned() };
    let bus = fields.number("secondary_bus", 1..=255, "1 to 255")?;
    match bus.and_then(|bus| u8::try_from(bus).ok()) {
        Some(secondary_bus) => Ok((Model::RootPort { secondary_bus }, Driver::None)),
        None => Err(fields.mistake(here, missing)),
    }
}

/// An entry and where it was said.
pub(super) struct Placed<'s> {
    entry: FunctionEntry,
    source: &'s Source,
    /// Its address.
    place: Range<usize>,
    bus_place: Range<usize>,
    vfs_place: Range<usize>,
}

/// Entries that were checked against each other.
#[derive(Default)]
pub(super) struct Checked<'s> {
    placed: Vec<Placed<'s>>,
    /// Every function's address, virtual ones included.
    taken: BTreeMap<Address, ()>,
    /// Domain and bus, and the root port that leads there.
    bridged: BTreeMap<(u16, u8), Address>,
}

impl<'s> Checked<'s> {
    /// Takes in entries that were checked before.
    pub(super) fn of_entries(entries: &[FunctionEntry]) -> Self {
        let mut checked = Self::default();
        for entry in entries {
            checked.take_addresses(entry);
        }
        checked
    }

    /// Adds one, if its addresses and its bus are free.
    pub(super) fn add(&mut self, placed: Placed<'s>) -> Read<()> {
        let Placed { entry, .. } = &placed;
        let most = 255 - u64::from(entry.address.devfn());
        let vfs = u64::from(entry.model.vfs());
        if vfs > most {
            let fault = Fault::VirtualFunctionsDoNotFit { address: entry.address, vfs, most };
            return Err(placed.mistake_at(placed.vfs_place.clone(), fault));
        }
        let own = std::iter::once(entry.address).chain(entry.vf_addresses());
        if let Some(address) = own.into_iter().find(|address| self.taken.contains_key(address)) {
            return Err(placed.mistake(Fault::AddressTaken { address }));
        }
        if let Model::RootPort { secondary_bus: bus } = &entry.model {
            let bus = *bus;
            let own = entry.address.bus;
            if bus <= own {
                let fault = Fault::BusNotBelow { bus, own };
                return Err(placed.mistake_at(placed.bus_place.clone(), fault));
            }
            if self.bridged.contains_key(&(entry.address.domain, bus)) {
                return Err(placed.mistake_at(placed.bus_place.clone(), Fault::BusTaken { bus }));
            }
        }
        self.take_addresses(entry);
        self.placed.push(placed);
        Ok(())
    }

    /// What can be seen only once every entry is known.
    pub(super) fn check_topology(&self) -> Read<()> {
        for placed in &self.placed {
            let address = placed.entry.address;
            let Address { domain, bus, .. } = address;
            let zero = Address::new(domain, bus, address.device(), 0);
            if zero.is_some_and(|zero| !self.taken.contains_key(&zero)) {
                return Err(placed.mistake(Fault::NoFunctionZero { address }));
            }
            let above = self.bridged.get(&(domain, bus)).copied();
            if let (Model::RootPort { .. }, Some(above)) = (&placed.entry.model, above) {
                return Err(placed.mistake(Fault::NotOnRootBus { bus, above }));
            }
        }
        Ok(())
    }

    /// The entries, by address.
    pub(super) fn entries(self) -> Vec<FunctionEntry> {
        let mut entries: Vec<_> = self.placed.into_iter().map(|placed| placed.entry).collect();
        entries.sort_by_key(|entry| entry.address);
        entries
    }

    fn take_addresses(&mut self, entry: &FunctionEntry) {
        self.taken.insert(entry.address, ());
        self.taken.extend(entry.vf_addresses().map(|address| (address, ())));
        if let Model::RootPort { secondary_bus } = entry.model {
            self.bridged.insert((entry.address.domain, secondary_bus), entry.address);
        }
    }
}

impl Placed<'_> {
    fn mistake(&self, fault: Fault) -> Box<Mistake> {
        self.mistake_at(self.place.clone(), fault)
    }

    fn mistake_at(&self, place: Range<usize>, fault: Fault) -> Box<Mistake> {
        Mistake::new(self.source, place, fault)
    }
}

/// Whether an entry stands for the function at `address`, itself or as one of its virtual ones.
pub(super) fn covers(entry: &FunctionEntry, address: Address) -> bool {
    entry.address == address || entry.vf_addresses().any(|vf| vf == address)
}

/// The function with this devfn on a bus.
pub(crate) fn at_devfn(domain: u16, bus: u8, devfn: u8) -> Option<Address> {
    Address::new(domain, bus, devfn >> 3, devfn & 7)
}
