//! The machine that a client is shown, as a file says it.
//!
//! A platform is settings (how the host behaves), the geometry of the IOMMU, and the functions on the
//! buses, with what goes wrong with them on demand. It comes from a TOML file or from the one compiled in; `--device` options add functions.
//! `docs/platform.md` describes every key. A key or value whose behaviour does not exist is refused
//! with what does, never accepted in silence.
//!
//! Takes no lock. Deliberately absent: anything that runs; [`Machine`](crate::machine::Machine) is
//! built from what is said here.

mod faults;
mod fields;
mod functions;
mod hardware;
mod mistake;
mod option;
mod settings;

use std::fs;
use std::ops::Range;
use std::path::Path;

use iommufd::{Geometry, Hardware, Reserved, ReservedKind};
use span::Span;

pub use faults::FaultEntry;
use fields::{Fields, Read};
pub use functions::{Driver, FunctionEntry, GroupName, Model};
use mistake::Source;
pub use mistake::{Fault, Mistake, PlatformError};
pub use option::device_help;
pub use settings::{Capabilities, P2pMap, Settings, VfioContainer};

/// What `bindery platform` prints: the platform there is when none is named.
pub const DEFAULT_TOML: &str = include_str!("../../../platforms/default.toml");

/// A machine, described.
#[derive(Clone, Debug)]
pub struct Platform {
    /// How the host behaves.
    pub settings: Settings,
    /// The one IOMMU.
    pub iommu: Geometry,
    /// Every function but virtual ones (those follow from their physical function), by address.
    pub functions: Vec<FunctionEntry>,
    /// What goes wrong on demand.
    pub faults: Vec<FaultEntry>,
}

impl Default for Platform {
    /// The platform compiled in.
    fn default() -> Self {
        match Self::parse("default.toml", DEFAULT_TOML) {
            Ok(platform) => platform,
            Err(error) => unreachable!("the platform compiled in is tested: {error}"),
        }
    }
}

impl Platform {
    /// Reads a platform file.
    ///
    /// # Errors
    /// [`PlatformError`]: it cannot be read, is no text, or says something wrong.
    pub fn read(path: &Path) -> Result<Self, PlatformError> {
        let file = path.display().to_string();
        let bytes = fs::read(path)
            .map_err(|error| PlatformError::Unreadable { file: file.clone(), error })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            PlatformError::NotText { file: file.clone(), offset }
        })?;
        Self::parse(&file, &text)
    }

    /// Reads a platform from text; `file` is what messages call it.
    ///
    /// # Errors
    /// [`PlatformError::Mistake`], the first in the text.
    pub fn parse(file: &str, text: &str) -> Result<Self, PlatformError> {
        let source = Source { name: file.to_owned(), text: text.to_owned() };
        Ok(Self::of_fields(Fields::of_toml(&source)?)?)
    }

    /// Adds the function that a `--device MODEL[,key=value…]` option describes, and the root port
    /// above it where it names no address.
    ///
    /// # Errors
    /// [`PlatformError::Mistake`], which points into the option.
    pub fn add_device(&mut self, option: &str) -> Result<(), PlatformError> {
        let source = Source { name: "--device".to_owned(), text: option.to_owned() };
        option::add(self, &source)?;
        Ok(())
    }

    fn of_fields(mut file: Fields<'_>) -> Read<Self> {
        file.allow(&["settings", "iommu", "function", "fault"], &["tsm"])?;
        let settings = file.table("settings", "[settings]")?.map(settings::read).transpose()?;
        let settings = settings.unwrap_or_default();
        let iommu = file.table("iommu", "[iommu]")?;
        let iommu = iommu.map(|fields| geometry(fields, settings.hardware)).transpose()?;
        let mut functions = functions::Checked::default();
        for fields in file.tables("function", "[[function]]")? {
            functions.add(functions::read(fields)?)?;
        }
        functions.check_topology()?;
        let functions = functions.entries();
        let faults = file.tables("fault", "[[fault]]")?;
        let faults = faults.into_iter().map(|fields| faults::read(fields, &functions));
        Ok(Self {
            settings,
            iommu: iommu.unwrap_or_else(plain),
            faults: faults.collect::<Read<_>>()?,
            functions,
        })
    }
}

const IOMMU: &[&str] = &[
    "aperture",
    "reserved",
    "page_sizes",
    "dirty_tracking",
    "cache_coherent",
    "msi_isolated",
    "max_pasid_log2",
];
const SPAN: &[&str] = &["first", "last"];
const RESERVED: &[&str] = &["first", "last", "kind"];

/// The smallest IOMMU page, which is also the processor's.
const PAGE_BYTES: u64 = 4096;
const PAGE_SIZES: &[(&str, u64)] = &[("4K", PAGE_BYTES), ("2M", 2 << 20), ("1G", 1 << 30)];
const RESERVED_KINDS: &[(&str, ReservedKind)] = &[
    ("direct", ReservedKind::Direct),
    ("direct-relaxable", ReservedKind::DirectRelaxable),
    ("reserved", ReservedKind::Reserved),
    ("msi", ReservedKind::Msi),
];

/// The geometry of `iommu = "plain"`.
fn plain() -> Geometry {
    let aperture = Span::from_ends(0, (1 << 48) - 1);
    let msi = Span::from_ends(0xfee0_0000, 0xfeef_ffff);
    let reserved = msi.map(|span| Reserved { span, kind: ReservedKind::Msi });
    Geometry {
        aperture: aperture.unwrap_or_else(|| unreachable!("0 is below 2^48")),
        reserved: reserved.into_iter().collect(),
        page_sizes: PAGE_SIZES.iter().fold(0, |sizes, (_, bytes)| sizes | bytes),
        dirty_tracking: true,
        cache_coherent: true,
        msi_isolated: true,
        max_pasid_log2: 0,
    }
}

fn geometry(mut fields: Fields<'_>, hardware: Hardware) -> Read<Geometry> {
    fields.allow(IOMMU, &[])?;
    let places = hardware::Places::of(&fields);
    let plain = plain();
    let aperture = match fields.table("aperture", "`aperture`")? {
        Some(mut ends) => {
            ends.allow(SPAN, &[])?;
            whole_pages(&mut ends)?.0
        }
        None => plain.aperture,
    };
    let pasid_bits = fields.number("max_pasid_log2", 0..=20, "0 to 20")?;
    let pasid_bits = pasid_bits.and_then(|bits| u8::try_from(bits).ok());
    let geometry = Geometry {
        aperture,
        reserved: reserved(&mut fields)?.unwrap_or(plain.reserved),
        page_sizes: page_sizes(&mut fields)?.unwrap_or(plain.page_sizes),
        dirty_tracking: fields.switch("dirty_tracking")?.unwrap_or(plain.dirty_tracking),
        cache_coherent: fields.switch("cache_coherent")?.unwrap_or(plain.cache_coherent),
        msi_isolated: fields.switch("msi_isolated")?.unwrap_or(plain.msi_isolated),
        max_pasid_log2: pasid_bits.unwrap_or(plain.max_pasid_log2),
    };
    hardware::check(&fields, hardware, &geometry, &places)?;
    Ok(geometry)
}

/// `first` and `last` of a table: a span of whole pages, and where `first` stands.
fn whole_pages(ends: &mut Fields<'_>) -> Read<(Span, Range<usize>)> {
    let place = ends.span.clone();
    let first_field = ends.need("first")?;
    let last_field = ends.need("last")?;
    let first = end_of_span(ends, "first", &first_field.value)?;
    let last = end_of_span(ends, "last", &last_field.value)?;
    let bad =
        |what: String, at: &Range<usize>| Err(ends.mistake(at.clone(), Fault::BadSpan { what }));
    if !first.is_multiple_of(PAGE_BYTES) {
        return bad(
            format!("a span begins with a page, at a multiple of 0x1000, not at {first:#x}"),
            &first_field.value.span,
        );
    }
    if last % PAGE_BYTES != PAGE_BYTES - 1 {
        return bad(
            format!("a span ends with a page, at 0x…fff, not at {last:#x}"),
            &last_field.value.span,
        );
    }
    match Span::from_ends(first, last) {
        Some(span) => Ok((span, place)),
        None => bad(format!("last {last:#x} is below first {first:#x}"), &last_field.value.span),
    }
}

fn end_of_span(fields: &Fields<'_>, key: &'static str, value: &fields::Value) -> Read<u64> {
    let number = fields.as_number(key, value)?;
    number.ok_or_else(|| {
        let allowed = "an address of 64 bits";
        let fault = Fault::OutOfRange { key, value: fields.written(value), allowed };
        fields.mistake(value.span.clone(), fault)
    })
}

fn reserved(fields: &mut Fields<'_>) -> Read<Option<Vec<Reserved>>> {
    let Some(field) = fields.take("reserved") else { return Ok(None) };
    let mut reserved: Vec<Reserved> = Vec::new();
    for mut entry in fields.list_of_tables(&field, "`reserved`")? {
        entry.allow(RESERVED, &[])?;
        let (span, place) = whole_pages(&mut entry)?;
        let kind = entry.choice("kind", RESERVED_KINDS)?.unwrap_or(ReservedKind::Reserved);
        if let Some(other) = reserved.iter().find(|other| other.span.intersects(span)) {
            let what = format!("{span} overlaps {}, which is reserved too", other.span);
            return Err(entry.mistake(place, Fault::BadSpan { what }));
        }
        reserved.push(Reserved { span, kind });
    }
    Ok(Some(reserved))
}

fn page_sizes(fields: &mut Fields<'_>) -> Read<Option<u64>> {
    let place = fields.place_of("page_sizes");
    let Some(names) = fields.texts("page_sizes")? else { return Ok(None) };
    let allowed: Vec<&'static str> = PAGE_SIZES.iter().map(|(name, _)| *name).collect();
    let mut sizes = 0;
    for (name, span) in names {
        let Some((_, bytes)) = PAGE_SIZES.iter().find(|(known, _)| *known == name) else {
            let fault = Fault::UnknownValue { key: "page_sizes", value: name, allowed };
            return Err(fields.mistake(span, fault));
        };
        sizes |= bytes;
    }
    if sizes & PAGE_BYTES == 0 {
        let what = "page_sizes must have \"4K\", the processor's page".to_owned();
        return Err(fields.mistake(place, Fault::BadSpan { what }));
    }
    Ok(Some(sizes))
}
